# SPDX-License-Identifier: Apache-2.0
"""Bare metal as a target server: a guest starts from the rescue medium, joins its site, takes its own disks by orders, starts from them."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

import object_stores
from guest import Disk, Guest, free_port
from target_server import GrowingVault, VaultSite
from test_recovery import BUILD, MIB, PASSPHRASE, ROOT, secret
from test_rescue import BUILDER, CONTROL_PORT, DEADLINE_S, blank, kernel, rescue  # noqa: F401
from test_target import digest

SFDISK = shutil.which("sfdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
CONSOLE_S = 240
TAIL_MIB = 4       # behind the guest's own file systems: what grows in the journal


class Medium:
    """A stick as people have it: FAT, labelled LIFEBOAT."""

    def __init__(self, folder, lines, **files):
        self.image = folder / "stick.img"
        blank(self.image, 64 * MIB)
        subprocess.run([SFDISK, "-q", self.image], input="label: dos\nstart=2048, type=c\n", text=True, check=True)
        part = f"{self.image}@@1M"
        subprocess.run(["mformat", "-i", part, "-T", str(63 * MIB // 512), "-v", "LIFEBOAT", "::"], check=True)
        for name, text in dict(files, **{"rescue.conf": "\n".join(lines) + "\n"}).items():
            (folder / name).write_text(text)
            subprocess.run(["mcopy", "-i", part, folder / name, f"::/{name}"], check=True)

    def disk(self):
        return Disk(str(self.image))


class Metal(Guest):
    """A machine that starts from the rescue medium, with a console at which somebody may type."""

    def __init__(self, folder, rescue, disks, extra=()):
        super().__init__(folder, disks, memory_mib=512, extra=[
            "-kernel", str(rescue / "vmlinuz"), "-initrd", str(rescue / "initrd.img"), "-append", "console=ttyS0 panic=-1", *extra])
        self.console, self.read_to, self.console_port = None, 0, 0

    def arguments(self):
        # TCP: a UNIX socket takes some 300 characters that nobody has read yet, and then some come twice
        line = f"socket,id=serial0,host=127.0.0.1,port={self.console_port},server=on,wait=off,logfile=serial.log,logappend=on"
        return [line if a.startswith("file,id=serial0") else a for a in super().arguments()]

    def start(self):
        self.console_port = free_port()
        self.read_to = len(self.serial_text()) if self.serial_log.exists() else 0
        return super().start()

    def says(self, pattern, deadline_s=CONSOLE_S):
        """Until it says so, after what it was seen to say before."""
        found = self.wait_serial(pattern, deadline_s, since=self.read_to)
        self.read_to = found.end()
        return found

    def type(self, text):
        if self.console is None:
            self.console = socket.create_connection(("127.0.0.1", self.console_port))
            # what it says is in its log; unread it would stand still
            threading.Thread(target=self._read, args=(self.console,), daemon=True).start()
        self.console.sendall(text.encode() + b"\n")

    @staticmethod
    def _read(console):
        try:
            while console.recv(65536):
                pass
        except OSError:
            pass

    def close(self):
        if self.console is not None:
            self.console.close()
        self.console = None
        super().close()


@pytest.fixture(scope="module")
def store():
    try:
        store = object_stores.Azurite()
    except object_stores.Missing as e:
        pytest.skip(str(e))
    yield store
    store.stop()


class Place:
    """A site whose vault is in the store, and holds the journal of a machine that can be started."""

    def __init__(self, folder, store):
        image = folder / "guest.img"
        subprocess.run([BUILDER, "--control", "--hostname", "protected", image], check=True)
        self.tail_at = image.stat().st_size
        with open(image, "r+b") as f:
            f.truncate(self.tail_at + TAIL_MIB * MIB)
        self.size = self.tail_at + TAIL_MIB * MIB
        self.url = store.url("metal")
        self.here = self.url.replace(f"//{store.host}:", "//10.0.2.2:").split("&credentials=")[0]
        self.credentials = store.credentials.read_text()
        self.passphrase_file = secret(folder / "passphrase", PASSPHRASE + "\n")
        self.machine = GrowingVault(folder, {"vda": image}, 3, vault=self, machine="db2", more=("--from", self.tail_at))
        self.vault_url, self.site = self.url, VaultSite(BUILD, folder / "site", self)

    def token(self, name, *words, file="token"):
        """And what a rescue.conf says."""
        path = self.site.folder / file
        path.unlink(missing_ok=True)
        told = self.site.ask("server", "add", name, "--kind", "target", "--file", path, *words)
        return path.read_text().strip(), [
            f"server=https://10.0.2.2:{self.site.port}", f"ca-fingerprint={told['ca_fingerprint']}", f"name={name}",
            f"vault={self.here}&credentials=/etc/lifeboat/store.credentials", "credentials-file=/media/lifeboat/store"]

    def orders(self, name, kind):
        return [o for o in self.site.ask("server", "show", name)["order_list"] if o["kind"] == kind]


@pytest.fixture(scope="module")
def place(store):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lbrt."))
    place = Place(folder, store)
    try:
        place.site.make().start()
        yield place
    finally:
        place.machine.close()
        place.site.stop()
        shutil.rmtree(folder, ignore_errors=True)


def at(order):
    return f"{order['report'].get('epoch')}:{order['report'].get('seq')}"


def test_a_bare_machine_follows_from_the_rescue_medium_also_across_a_power_cut_and_starts_from_its_own_disk(tmp_path, rescue, place):  # noqa: F811
    site, name, machine = place.site, "metal", place.machine
    token, lines = place.token(name)
    stick = Medium(tmp_path, [*lines, "token-file=/media/lifeboat/token"], token=token, store=place.credentials)
    own = blank(tmp_path / "own.img", place.size)
    guest = Metal(tmp_path / "rescue", rescue, [Disk(str(own), serial="OWN1"), stick.disk()]).start()
    try:
        guest.says(r"disk: /dev/vda, \d+ MiB, serial OWN1")
        guest.says("network: eth0 is 10.0.2.15/24 by DHCP")
        guest.says("joined as target server metal")
        site.ask("failback", "restore", machine.machine_name, "--target", name, "--to", "auto", "--follow", "--no-wait", "--confirm",
                 machine.machine_name)
        guest.wait(lambda: any(o["report"].get("done_bytes") for o in place.orders(name, "follow")), "bytes on its disk", DEADLINE_S)
        guest.kill()                                    # a power cut
        guest.start()
        guest.says("joined as target server metal")
        guest.says("follow: the disks are as at")
        last = machine.grow()
        guest.wait(lambda: any(at(o) == machine.points[last] for o in place.orders(name, "follow")), "the newest point on its disk", DEADLINE_S)
        site.ask("failback", "finish", machine.machine_name, "--target", name)
        site.ask("failback", "boot", machine.machine_name, "--target", name, "--hook", "reboot")
        guest.wait_end(DEADLINE_S)
    finally:
        guest.close()
    assert digest(own) == digest(machine.at(last)), guest.serial_text()[-3000:]
    guest = Guest(tmp_path / "own", [own], memory_mib=256, forwards=[CONTROL_PORT]).start()
    try:
        guest.wait_control(DEADLINE_S)
        assert guest.run("hostname")[1].strip() == "protected"
        tail = tmp_path / "tail"
        tail.write_bytes(machine.at(last).read_bytes()[place.tail_at:])
        said = guest.run(f"dd if=/dev/vda bs=1M skip={place.tail_at // MIB} 2>/dev/null | sha256sum")[1]
        assert said.split()[0] == digest(tail)
    finally:
        guest.close()
