# SPDX-License-Identifier: Apache-2.0
"""The protected servers: three banks, each a small guest with Debian's kernel, the agent and a disk of its own."""
import pathlib
import subprocess

from banks import PORT, Bank
from demo import AGENT_UID, BOOT
from guest import Guest, GuestError
from two_sites import PREFIX, TwoSites

TOP = pathlib.Path(__file__).resolve().parents[2]
DISK_MIB = 192
MEMORY_MIB = 160
PACE_MS = 150
BOOT_DEADLINE_S = 600
MOBILITY_CONF = """config_url = {url}
identity_folder = /var/lib/lifeboat/mobility
state_folder = /var/lib/lifeboat/mobility
run_folder = /run/lifeboat-mobility
capture_socket = /run/lifeboat/capture.sock
"""


class Server:
    def __init__(self, site, sites: TwoSites, folder, number, banks):
        self.site, self.sites, self.number = site, sites, number
        self.name = f"bank{number}"
        self.folder = folder / self.name
        self.address = f"{PREFIX}.{10 + number}"
        self.bank = Bank(number, self.address)
        self.peers = [f"{n}={PREFIX}.{10 + n}" for n in range(1, banks + 1) if n != number]
        self.disk = self.folder / "disk.img"
        self.guest = None

    def agent_service(self, token):
        conf = "--config /etc/lifeboat/mobility.conf"
        enrol = (f"lifeboat-mobility enrol {conf} --config-url {self.site.config_url} --ca-fingerprint "
                 f"{token['ca_fingerprint']} --token-file /etc/lifeboat/token --name {self.name}")
        return (f"exec su lifeboat -s /bin/sh -c '[ -e /var/lib/lifeboat/mobility/cert.pem ] || {enrol} && "
                f"exec lifeboat-mobility run {conf}'")

    def build(self):
        """The server's disk. 10.0.2.15, which the image has already, is its address on a test double's own network."""
        self.folder.mkdir()
        token = self.site.token(self.folder / "token", self.name)
        (self.folder / "mobility.conf").write_text(MOBILITY_CONF.format(url=self.site.config_url))
        (self.folder / "power").write_text("#!/bin/sh\nexec poweroff\n")
        p = self.site.programs
        words = ["--hostname", self.name, "--size-mib", DISK_MIB, "--user", f"lifeboat:{AGENT_UID}",
                 "--program", f"{p['bank']}:/usr/bin/bank",
                 "--program", f"{p['mobility']}:/usr/bin/lifeboat-mobility",
                 "--program", f"{p['capture']}:/usr/bin/lifeboat-capture",
                 "--file", f"{self.folder}/mobility.conf:/etc/lifeboat/mobility.conf",
                 "--file", f"{self.folder}/token:/etc/lifeboat/token:0600",
                 "--load", "evdev", "--load", "button", "--load", "qemu_fw_cfg",
                 "--file", f"{self.folder}/power:/etc/acpi/PWRF/00000080:0755", "--service", "power=exec acpid -f",
                 "--service", f"bank=exec bank /var/lib/bank/ledger 0.0.0.0 {PORT} {PACE_MS} {self.number} {' '.join(self.peers)}",
                 "--service", f"capture=exec lifeboat-capture --socket /run/lifeboat/capture.sock --allow-uid {AGENT_UID}",
                 "--service", f"mobility={self.agent_service(token)}"]
        for line in [f"ip address add {self.address}/24 dev eth0", "mkdir -p /var/lib/bank", *BOOT]:
            words += ["--boot", line]
        made = subprocess.run([TOP / "tests/guest/build-guest.sh", *map(str, words), self.disk], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        if made.returncode:
            raise GuestError(f"the disk of {self.name} could not be made: {made.stdout}")
        return self

    def plug(self):
        self.sites.tap(self.tap)
        return self

    @property
    def tap(self):
        return f"tap{self.number}"

    def boot(self):
        log = self.folder / "guest/serial.log"
        self.booted_at = len(log.read_bytes().decode(errors="replace")) if log.exists() else 0
        self.guest = Guest(self.folder / "guest", [self.disk], tap=self.tap, mac=f"02:77:00:00:01:{self.number:02x}",
                           uuid=f"5f1ebea7-0000-4000-8000-{0x100 + self.number:012x}", memory_mib=MEMORY_MIB, cpus=1,
                           prefix=self.sites.primary).start()
        return self

    def wait_bank(self):
        self.guest.wait_serial(r"^bank: ready", BOOT_DEADLINE_S, since=self.booted_at)
        return self

    def die(self):
        """As a power cut."""
        self.guest.kill()

    def console(self, n_bytes=3000):
        if self.guest is None or not self.guest.serial_log.exists():
            return ""
        return self.guest.serial_text()[-n_bytes:]
