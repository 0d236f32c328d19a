# SPDX-License-Identifier: Apache-2.0
"""Mending on a protected machine, by order to its agent: a root below a folder stands for the machine's, this test for systemd."""
import os
import pathlib
import shutil
import subprocess
import threading

import pytest

from host_agent import HostAgent

BUSYBOX = shutil.which("busybox")
UPDATE = "#!/bin/sh\necho \"$*\" > /made\n"


@pytest.fixture
def root(folder):
    """A physical machine of Debian's kind whose network is configured by its card's name."""
    r = folder / "root"
    for path, text in (("etc/initramfs-tools/modules", ""), ("etc/network/interfaces", "auto enp3s0\niface enp3s0 inet dhcp\n"),
                       ("proc/cpuinfo", "flags : fpu vme\n"), ("proc/cmdline", "root=/dev/sda1\n"),
                       ("sys/class/net/enp3s0/address", "00:11:22:33:44:55\n"), ("usr/sbin/update-initramfs", UPDATE)):
        (r / path).parent.mkdir(parents=True, exist_ok=True)
        (r / path).write_text(text)
    (r / "sys/class/net/enp3s0/device").mkdir()
    (r / "usr/sbin/update-initramfs").chmod(0o755)
    (r / "bin").mkdir()
    shutil.copy(BUSYBOX, r / "bin/sh")
    return r


@pytest.fixture
def machine(site, folder):
    a = HostAgent(site, folder / "agent", mend_folder=folder / "mend").enrol().start()
    yield a
    a.close()


class PathUnit:
    """lifeboat-mend.path and its service: a file that is there starts the program, as root."""

    def __init__(self, agent, root):
        self.order, self.ends = agent.folder / "run/mend.order", threading.Event()
        self.command = [agent.site.programs["mobility"], "mend", "ordered", "--root", root, "--config", agent.conf]
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.ends.wait(0.05):
            if self.order.exists():
                subprocess.run(self.command, check=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *args):
        self.ends.set()
        self.thread.join()


@pytest.mark.skipif(BUSYBOX is None, reason="busybox is missing; run 'make deps'")
def test_what_a_double_would_lack_is_mended_on_the_machine_by_an_order_and_the_outcome_told(site, machine, root, folder):
    with PathUnit(machine, root):
        job = site.ask("machine", "mend", "host", "--network", "--initramfs")
    assert job["result"]["text"] == ("network: /etc/systemd/network/10-lifeboat-enp3s0.link is written; "
                                     "initramfs: update-initramfs has made it anew with the drivers")
    assert "Name=enp3s0" in (root / "etc/systemd/network/10-lifeboat-enp3s0.link").read_text()
    assert "virtio_blk" in (root / "etc/initramfs-tools/hooks/lifeboat").read_text()
    assert (root / "made").read_text() == "-u -k all\n"
    assert not (machine.folder / "run/mend.order").exists()
    # the agent dies with the order under way
    (root / "made").unlink()
    job = site.ask("machine", "mend", "host", "--initramfs", "--no-wait")
    machine.wait((machine.folder / "run/mend.order").exists, "order to mend")
    machine.kill_agent()
    with PathUnit(machine, root):
        machine.start_agent()
        assert site.ask("job", "watch", job["id"])["state"] == "done"
    assert (root / "made").exists()


@pytest.mark.skipif(BUSYBOX is None, reason="busybox is missing; run 'make deps'")
def test_mending_that_fails_or_that_nobody_does_says_so_and_can_be_cancelled(site, machine, root):
    (root / "usr/sbin/update-initramfs").write_text("#!/bin/sh\necho no room in /boot >&2\nexit 3\n")
    with PathUnit(machine, root):
        p = site.lifeboat("machine", "mend", "host", "--initramfs", check=False)
    assert p.returncode == 1 and "update-initramfs failed (status 3): no room in /boot" in p.stderr, p.stderr
    job = site.ask("machine", "mend", "host", "--network", "--no-wait")
    machine.wait((machine.folder / "run/mend.order").exists, "order to mend")
    site.lifeboat("job", "cancel", job["id"])
    assert site.lifeboat("job", "watch", job["id"], check=False).returncode != 0
    machine.wait(lambda: not (machine.folder / "run/mend.order").exists(), "end of the cancelled order")
    assert not (root / "etc/systemd/network").exists()
    assert site.lifeboat("machine", "mend", "nobody", "--network", check=False).returncode == 4


def test_an_order_can_say_nothing_but_which_mend_is_meant(build, folder):
    """The agent's folder is the agent's: what it puts there reaches nothing else."""
    (folder / "run").mkdir()
    (folder / "mobility.conf").write_text(f"config_url = https://127.0.0.1:1\nrun_folder = {folder}/run\nmend_folder = {folder}/mend\n")
    program = pathlib.Path(build) / "src/mobility/lifeboat-mobility"
    for order in ("{", '{"generation": 1}', '{"generation": 1, "network": "/etc/passwd", "initramfs": false}', "x" * 5000):
        (folder / "run/mend.order").write_text(order)
        p = subprocess.run([program, "mend", "ordered", "--root", folder / "root", "--config", folder / "mobility.conf"], capture_output=True)
        assert p.returncode == 1
        # taken away, or it would be read for ever; and nothing was done
        assert not os.path.lexists(folder / "run/mend.order") and not (folder / "mend").exists() and not (folder / "root").exists()
