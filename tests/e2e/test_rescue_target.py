# SPDX-License-Identifier: Apache-2.0
"""Bare metal as a target server: a machine starts from the rescue medium, joins its site, gets its double's disks while that works,
and starts from them."""
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
import types

import pytest

import object_stores
from agent_guest import build_agent_guest
from guest import CONTROL_PORT, Disk, Guest, GuestError, free_port
from lifeboat_site import Site
from metal import MIB, Metal, Stick
from target_server import GrowingVault, VaultSite
from test_recovery import BUILD, PASSPHRASE, same, secret
from test_rescue import DEADLINE_S, blank, kernel, rescue  # noqa: F401
from test_target import digest

NAME = "db1"
UUID = "5f1ebea7-0000-4000-8000-000000000bad"
DISK_MIB = 96
MEMORY_MIB = 192
OTHER_MIB = 9


@pytest.fixture(scope="module")
def store():
    try:
        store = object_stores.Azurite()
    except object_stores.Missing as e:
        pytest.skip(str(e))
    yield store
    store.stop()


class Place:
    """A site whose vault is in the store."""

    def __init__(self, folder, store, container, site):
        self.folder, self.site, self.credentials = folder, site, store.credentials.read_text()
        # as the guests reach it
        self.vault_there = store.url(container).replace(f"//{store.host}:", "//10.0.2.2:").split("&credentials=")[0]
        site.make(fabric="qemu").start()
        self.url = f"https://10.0.2.2:{site.port}"

    def token(self, name, *words):
        """And what a rescue.conf says."""
        path = self.folder / "target-token"
        path.unlink(missing_ok=True)
        told = self.site.ask("server", "add", name, "--kind", "target", "--file", path, *words)
        return path.read_text().strip(), [
            f"server={self.url}", f"ca-fingerprint={told['ca_fingerprint']}", f"name={name}",
            f"vault={self.vault_there}", "credentials-file=/media/lifeboat/store"]

    def stick(self, folder, name):
        token, lines = self.token(name)
        return Stick(folder, [*lines, "token-file=/media/lifeboat/token"], token=token, store=self.credentials)

    def orders(self, name, kind):
        return [o for o in self.site.ask("server", "show", name)["order_list"] if o["kind"] == kind]

    def job(self, job_id):
        return next(j for j in self.site.ask("job", "list")["jobs"] if j["id"] == job_id)


@pytest.fixture
def short():
    """For a site: sockets are below it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="lbrt."))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def place(store, short):
    site = Site(BUILD, short / "site")
    site.vault_url = store.url("metal")
    try:
        yield Place(short, store, "metal", site)
    finally:
        site.stop()


class Machine:
    """A physical server with the agent, and its double; a file on its disk says who wrote last."""

    def __init__(self, place, folder):
        self.site, self.folder = place.site, folder
        (folder / "etc").mkdir()
        image = build_agent_guest(folder / "disk.img", self.site, NAME, place.url, folder / "etc", "--size-mib", DISK_MIB, "--control",
                                  power_button=True)
        self.guest = self.start_from(Disk(str(image), serial="OLD1"))
        self.double = Guest(folder / "double", [], forwards={CONTROL_PORT: free_port()})
        self.overlay = self.site.folder / f"state/vm/{NAME}-double/disk0.qcow2"

    def start_from(self, disk):
        """Any start of it is one of the same hardware."""
        self.guest = Guest(self.folder / "machine", [disk], memory_mib=MEMORY_MIB, forwards=[CONTROL_PORT], uuid=UUID).start()
        return self.guest

    def protect(self):
        self.site.lifeboat("policy", "set", "default", "--consistency-interval", 1, "--upload-interval", 1, "--heartbeat-interval", 1, "--ring",
                           "16M")
        self.site.lifeboat("policy", "set", "default-failback", "--consistency-interval", 1, "--upload-interval", 1, "--heartbeat-interval", 1,
                           "--ring", "16M")
        self.guest.wait(lambda: self.site.lifeboat("machine", "protect", NAME, "--no-wait", check=False).returncode == 0, "acceptance of its disk",
                        DEADLINE_S)
        self.wait_point()

    def wait_point(self):
        """One that holds what is written by now."""
        now_ns = time.time_ns()

        def newest():
            points = self.site.points(NAME)
            return points and points[-1]["until_ns"] > now_ns
        self.guest.wait(newest, "recovery point", DEADLINE_S)

    def close(self):
        self.guest.close()
        self.site.lifeboat("failover", "cleanup", f"{NAME}-double", "--live", "--confirm", f"{NAME}-double", check=False)


def write(guest, text):
    guest.run(f"echo '{text}' >/root/who && sync")


def read(guest):
    return guest.run("cat /root/who")[1].strip()


def answers(guest):
    try:
        return guest.run("true", timeout_s=5)[0] == 0
    except GuestError:
        return False


@pytest.fixture
def machine(tmp_path, place):
    m = Machine(place, tmp_path)
    yield m
    m.close()


def test_a_lost_server_comes_home_from_its_working_double_onto_bare_metal_also_across_a_power_cut(tmp_path, rescue, place, machine):  # noqa: F811
    site, name, double = place.site, "db1-metal", f"{NAME}-double"
    machine.guest.wait_control(DEADLINE_S)
    machine.protect()
    write(machine.guest, "server")
    machine.wait_point()
    machine.guest.kill()                                    # its disk is lost, too
    own = blank(tmp_path / "own.img", (DISK_MIB + 8) * MIB)     # a new disk is never of quite the same size
    metal = Metal(tmp_path / "metal", rescue, [Disk(str(own), serial="NEW1"), place.stick(tmp_path, name).disk()], uuid=UUID).start()
    try:
        forward = f"{machine.double.port(CONTROL_PORT)}:{CONTROL_PORT}"
        site.lifeboat("failover", "start", NAME, "--confirm", NAME, "--memory", f"{MEMORY_MIB}M", "--forward", forward)
        site.wait(lambda: answers(machine.double), "answer of the double", DEADLINE_S)
        assert read(machine.double) == "server"
        site.lifeboat("failover", "commit", double)
        metal.says(r"disk: /dev/vda, \d+ MiB, serial NEW1")
        metal.says("network: eth0 is 10.0.2.15/24 by DHCP")
        metal.says(f"joined as target server {name}")
        home = ["failover", "reprotect", double, "--target", name, "--to", "auto"]
        site.lifeboat(*home, "--dry-run")
        job = site.ask(*home, "--no-wait")["id"]
        metal.wait(lambda: any(o["report"].get("done_bytes") for o in place.orders(name, "follow")), "bytes on its disk", DEADLINE_S)
        metal.kill()                                        # a power cut
        metal.start()
        metal.says(f"joined as target server {name}")
        metal.says("follow: the disks are as at")
        metal.wait(lambda: place.job(job)["state"] in ("done", "failed", "cancelled"), "end of the reprotect", DEADLINE_S)
        assert place.job(job)["state"] == "done", place.job(job)
        write(machine.double, "last words of the double")
        site.lifeboat("failback", "start", double, "--confirm", double, "--hook", "reboot", timeout=DEADLINE_S)
        metal.wait_end(DEADLINE_S)
    finally:
        metal.close()
    same(own, machine.overlay, "-f", "raw", "-F", "qcow2")
    guest = machine.start_from(Disk(str(own), serial="NEW1"))
    guest.wait_control(DEADLINE_S)
    assert guest.run("hostname")[1].strip() == NAME and read(guest) == "last words of the double"
    site.lifeboat("failback", "commit", double, "--confirm", double, "--new-hardware")
    site.lifeboat("server", "remove", name, "--confirm", name)
    guest.wait(lambda: "NEW1" in json.dumps(site.ask("machine", "show", NAME)["inventory"]), "report of its new disk", DEADLINE_S)
    site.lifeboat("machine", "protect", NAME, "--no-wait")
    machine.wait_point()
    assert site.ask("failover", "list")["failovers"] == [] and site.machine(f"{NAME}-back") is None


@pytest.fixture
def strange(store, short):
    """A place whose vault holds a machine of one disk."""
    with open(short / "vda.img", "wb") as f:
        f.write(os.urandom(MIB))
        f.truncate(OTHER_MIB * MIB)
    vault = types.SimpleNamespace(url=store.url("strange"), passphrase_file=secret(short / "passphrase", PASSPHRASE + "\n"))
    machine, site = GrowingVault(short, {"vda": short / "vda.img"}, 1, vault=vault, machine="db1"), VaultSite(BUILD, short / "site", vault)
    try:
        yield Place(short, store, "strange", site)
    finally:
        machine.close()
        site.stop()


def test_what_is_wrong_is_told_at_the_console_and_can_be_put_right_there(tmp_path, rescue, strange):  # noqa: F811
    site, name = strange.site, "small"
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))                           # and does not listen
    _, lines = strange.token(name)
    fingerprint = lines[1].split("=")[1]
    wrong = [f"server=https://10.0.2.2:{nobody.getsockname()[1]}", *lines[1:], f"token={'0' * 64}"]
    disks = [blank(tmp_path / f"{n}.img", size * MIB) for n, size in (("small", OTHER_MIB - 1), ("one", OTHER_MIB), ("two", OTHER_MIB))]
    with open(disks[2], "r+b") as f:
        f.write(b"another's" * 100)
    before = [digest(d) for d in disks]
    guest = Metal(tmp_path / "metal", rescue, [*map(str, disks), Stick(tmp_path, wrong, store=strange.credentials).disk()]).start()

    def asked(*answers):
        """All that it asks for, from the server's address on."""
        for question, answer in zip(("address of the configuration server.*: ", "fingerprint of its CA.*: ", "name of this target server.*: "),
                                    answers):
            guest.says(question)
            guest.type(answer)

    try:
        guest.says("Couldn't connect to server; check that the service runs and that no firewall is between")
        guest.says("once more in 10 s; Enter: other answers")
        guest.type("")
        asked(strange.url, "0" * 64, "")
        guest.says("doesn't show the certificate authority with the expected fingerprint")
        guest.says("another token for small")
        guest.type("")
        asked("", fingerprint, "")
        guest.says("token for small .*: ")
        guest.type("1" * 64)
        guest.says("this token is not known here")
        guest.says("another token for small")
        expires = site.ask("token", "create", "--kind", "target", "--name", name, "--valid", 1, "--file", strange.folder / "short-lived")
        guest.wait(lambda: time.time_ns() > expires["expires_ns"], "the token's end", DEADLINE_S)
        guest.type((strange.folder / "short-lived").read_text().strip())
        guest.says("this token has expired")
        guest.says("another token for small")
        good = strange.token(name)[0]
        guest.type(good)
        guest.says("joined as target server small")
        assert "1" * 64 not in guest.serial_text() and good not in guest.serial_text()      # typed, not shown
        for to, said in (("auto", r"which device is disk vda .* There are: .*/dev/vdd \([^)]*, in use\)"),
                         ("vda=/dev/vda", "/dev/vda is too small"), ("vda=/dev/vdc", "/dev/vdc holds something that is not disk vda"),
                         ("vda=/tmp/disk", "/tmp/disk is not among the paths")):
            run = site.lifeboat("failback", "restore", "db1", "--target", name, "--to", to, "--confirm", "db1", check=False)
            assert run.returncode != 0 and re.search(said, run.stderr), run.stderr
            guest.says(f"finish: .*{said}")
        site.ask("failback", "boot", "db1", "--target", name, "--hook", "poweroff")
        guest.wait_end(DEADLINE_S)
    finally:
        guest.close()
        nobody.close()
    assert [digest(d) for d in disks] == before
