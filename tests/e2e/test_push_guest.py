# SPDX-License-Identifier: Apache-2.0
"""Push install of a whole server, a Debian with systemd in a guest: assessed, installed, enrolled, protected, mended, upgraded, removed.
Minutes under TCG, so not in every run: LIFEBOAT_SLOW=1 has it run."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from guest import CONTROL_PORT, Guest
from lifeboat_site import Site

TOP = pathlib.Path(__file__).resolve().parents[2]
SSH_PORT = 22
DEADLINE_S = 600
OURS = ("/etc/lifeboat /var/lib/lifeboat /run/lifeboat /run/lifeboat-mobility /run/lifeboat-mend /sys/fs/bpf/lifeboat "
        "/usr/sbin/lifeboat-mobility /usr/libexec/lifeboat /lib/systemd/system/lifeboat-mend.path /etc/initramfs-tools/hooks/lifeboat /tmp/lifeboat-*")

pytestmark = [pytest.mark.skipif(not os.environ.get("LIFEBOAT_SLOW"), reason="takes minutes under TCG: set LIFEBOAT_SLOW=1"),
              pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="mmdebstrap is missing; run 'make deps'")]


@pytest.fixture
def package(build, folder):
    subprocess.run([TOP / "packaging/build-deb.sh", build, folder / "deb"], check=True, capture_output=True)
    return next((folder / "deb").glob("lifeboat-mobility_*.deb"))


@pytest.fixture
def key(folder):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    return folder / "key"


@pytest.fixture
def server(package, key, folder):
    depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True, capture_output=True, text=True).stdout
    words = [w for name in ["openssh-server", *re.findall(r"([a-z0-9.+-]+)(?: \([^)]*\))?(?:,|$)", depends.strip())] for w in ("--package", name)]
    # an initramfs of what it needs, lightly compressed: to make it anew is most of the time that mending takes
    (folder / "initramfs").write_text("MODULES=list\nCOMPRESSLEVEL=1\n")
    (folder / "modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    files = [w for f in (f"{key}.pub:/root/.ssh/authorized_keys:600", f"{folder}/initramfs:/etc/initramfs-tools/conf.d/quick:644",
                         f"{folder}/modules:/etc/initramfs-tools/modules:644") for w in ("--file", f)]
    p = subprocess.run([TOP / "tests/guest/build-debian.sh", "--control", "--scale", "1", "--size-mib", "1024", *words, *files,
                        folder / "server.img"], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    with Guest(folder / "server", [folder / "server.img"], forwards=[SSH_PORT, CONTROL_PORT], memory_mib=1024,
               uuid="5f1ebea7-0000-4000-8000-00000000000a") as guest:
        guest.wait_serial(r"lifeboat-guest: up", DEADLINE_S)
        guest.wait_control(DEADLINE_S)
        yield guest


@pytest.fixture
def pushing_site(build, package, folder):
    s = Site(build, folder / "site", public_hosts=("10.0.2.2", "127.0.0.1", "localhost")).make()
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write(f"agent_package = {package}\n")
    s.start()
    yield s
    s.stop()


def test_a_server_with_systemd_is_installed_protected_mended_upgraded_and_left_without_a_trace(pushing_site, server, key):
    site = pushing_site

    def push(*words):
        return site.lifeboat("machine", "install", "127.0.0.1", "--port", server.port(SSH_PORT), "--key-file", key,
                             "--accept-new-host-key", *words).stdout

    def active(unit):
        return server.run(f"systemctl is-active {unit}", check=False)[1].strip()

    before = server.run("ls /etc/systemd/system/*.wants | sort; getent passwd | cut -d: -f1 | sort")[1]
    assert "can be protected" in push("--action", "assess")
    assert "enrolled as web1" in push("--name", "web1")
    assert [active(u) for u in ("lifeboat-capture", "lifeboat-mobility", "lifeboat-mend.path")] == ["active"] * 3
    site.lifeboat("policy", "set", "default", "--ring", "64M", "--consistency-interval", "5", "--upload-interval", "1")
    site.wait(lambda: site.lifeboat("machine", "protect", "web1", "--force", "--no-wait", check=False).returncode == 0, "acceptance of its disk",
              DEADLINE_S)
    site.wait(lambda: (site.machine("web1") or {}).get("recoverable"), "recovery point", DEADLINE_S)
    # what a double would lack is mended there, by its own systemd, as root
    assert "update-initramfs has made it anew" in site.ask("machine", "mend", "web1", "--initramfs")["result"]["text"]
    assert "virtio_blk" in server.run("cat /etc/initramfs-tools/hooks/lifeboat")[1]
    # an app-consistent point of its root filesystem
    assert site.ask("point", "create", "web1", "--app")["result"]["frozen_ns"] > 0
    # upgraded, it goes on in the same epoch
    epoch = site.points("web1")[-1]["epoch"]
    started = server.run("systemctl show -P ExecMainStartTimestampMonotonic lifeboat-mobility")[1]
    push("--action", "upgrade")
    assert server.run("systemctl show -P ExecMainStartTimestampMonotonic lifeboat-mobility")[1] != started
    made = site.ask("point", "create", "web1")["result"]
    assert made["epoch"] == epoch
    push("--action", "remove")
    assert server.run(f"ls -d {OURS} 2>/dev/null", check=False)[1].strip() == ""
    assert server.run("ls /etc/systemd/system/*.wants | sort; getent passwd | cut -d: -f1 | sort")[1] == before
    assert active("lifeboat-capture") in ("inactive", "unknown")
