# SPDX-License-Identifier: Apache-2.0
"""A small guest with the agent on it, as a protected server: what its image is built of."""
import pathlib
import subprocess

from guest import GuestError

BUILDER = pathlib.Path(__file__).resolve().parent / "build-guest.sh"
AGENT_UID = 900
MOBILITY_CONF = """config_url = {url}
identity_folder = /var/lib/lifeboat/mobility
state_folder = /var/lib/lifeboat/mobility
run_folder = /run/lifeboat-mobility
capture_socket = /run/lifeboat/capture.sock
"""
# What the packages and units of a whole Debian do: folders, and what only root may read for the agent's user.
BOOT = ["mkdir -p /run/lifeboat /run/lifeboat-mobility /var/lib/lifeboat/mobility",
        "cat /sys/class/dmi/id/product_uuid >/run/lifeboat-mobility/product_uuid",
        "cat /sys/firmware/dmi/tables/DMI >/run/lifeboat-mobility/smbios",
        # a double is told where it may ask to be a machine of its own
        "modprobe qemu_fw_cfg; f=/sys/firmware/qemu_fw_cfg/by_name/opt/lifeboat/double/raw; "
        "[ ! -e $f ] || (umask 077; cat $f >/run/lifeboat-mobility/double)",
        "chown -R lifeboat:lifeboat /run/lifeboat-mobility /var/lib/lifeboat/mobility /etc/lifeboat/token",
        # a double says what its disk carries: drills are proven by it
        "lifeboat-mobility prove --config /etc/lifeboat/mobility.conf || true"]


def agent_service(name, url, token):
    """Enrols at the first start; runs as a user without any privilege."""
    conf = "--config /etc/lifeboat/mobility.conf"
    enrol = (f"lifeboat-mobility enrol {conf} --config-url {url} --ca-fingerprint {token['ca_fingerprint']} "
             f"--token-file /etc/lifeboat/token --name {name}")
    return (f"exec su lifeboat -s /bin/sh -c '[ -e /var/lib/lifeboat/mobility/cert.pem ] || {enrol} && "
            f"exec lifeboat-mobility run {conf}'")


def build_agent_guest(image, site, name, url, folder, *words, boot=(), power_button=False):
    """An image whose agent enrols as `name` at `url`. `folder`: for what goes onto it; `words`: more for build-guest.sh;
    `boot`: lines of shell before the agent's own."""
    token = site.token(folder / "token", name)
    (folder / "mobility.conf").write_text(MOBILITY_CONF.format(url=url))
    words = [*words, "--hostname", name, "--user", f"lifeboat:{AGENT_UID}",
             "--program", f"{site.programs['mobility']}:/usr/bin/lifeboat-mobility",
             "--program", f"{site.programs['capture']}:/usr/bin/lifeboat-capture",
             "--file", f"{folder}/mobility.conf:/etc/lifeboat/mobility.conf",
             "--file", f"{folder}/token:/etc/lifeboat/token:0600",
             "--service", f"capture=exec lifeboat-capture --socket /run/lifeboat/capture.sock --allow-uid {AGENT_UID}",
             "--service", f"mobility={agent_service(name, url, token)}"]
    if power_button:
        (folder / "power").write_text("#!/bin/sh\nexec poweroff\n")
        words += ["--load", "evdev", "--load", "button", "--file", f"{folder}/power:/etc/acpi/PWRF/00000080:0755",
                  "--service", "power=exec acpid -f"]
    for line in [*boot, *BOOT]:
        words += ["--boot", line]
    made = subprocess.run([BUILDER, *map(str, words), image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        raise GuestError(f"the disk of {name} could not be made: {made.stdout}")
    return image
