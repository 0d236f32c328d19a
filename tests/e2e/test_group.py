# SPDX-License-Identifier: Apache-2.0
"""Three machines in one replication group that send money to one another: at every shared point the sum is exact."""
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time

import pytest

import bank
from guest import free_port
from host_agent import HostAgent, LoopDisk
from lifeboat_site import SiteError
from test_filesystems import mounted, run

MEMBERS = 3
MIB = 48
POINTS = 4
POINTS_WITHOUT_BARRIER = 12
DEADLINE_S = 240


class Member:
    def __init__(self, site, folder, n, faults):
        self.name = f"m{n}"
        self.disk = LoopDisk(folder / f"{self.name}.img", MIB)
        run("mkfs.ext4", "-q", self.disk.device)
        self.mounting = mounted("ext4", self.disk.device, folder / f"{self.name}.mnt", "defaults")
        self.mnt = self.mounting.__enter__()
        self.agent = HostAgent(site, folder / self.name, self.name, hashlib.md5(self.name.encode()).hexdigest(),
                               group_port=free_port(), group_address="127.0.0.1").enrol()
        self.agent.start_capture()
        self.agent.start_agent(**faults)

    def close(self):
        self.agent.close()
        self.mounting.__exit__(None, None, None)
        self.disk.close()


@contextlib.contextmanager
def group(site, folder, members=MEMBERS, interval=0, faults=None):
    with contextlib.ExitStack() as stack:
        made = []
        for n in range(members):
            made.append(Member(site, folder, n, faults or {}))
            stack.callback(made[-1].close)
        for m in made:
            m.agent.protect([m.disk], ring="16M")
        site.lifeboat("group", "create", "shop", "--machines", ",".join(m.name for m in made), "--interval", interval)
        yield made


@contextlib.contextmanager
def banks(members):
    ports = [free_port() for _ in members]
    running = []
    try:
        for i, m in enumerate(members):
            running.append(subprocess.Popen([sys.executable, bank.__file__, m.mnt / "ledger", str(ports[i]),
                                             *[str(p) for k, p in enumerate(ports) if k != i]],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            assert running[-1].stdout.readline() == "listening\n"
        for p in running:
            p.stdin.write("go\n")
            p.stdin.flush()
        yield
    finally:
        for p in running:
            p.kill()
            p.wait()


def ledger_at(site, member, point, folder):
    out = folder / f"{member.name}.export"
    out.unlink(missing_ok=True)
    site.lifeboat("point", "export", member.name, member.disk.name, out, "--point", point, "--vault", site.vault_url,
                  server=False)
    data = subprocess.run(["debugfs", "-R", "cat /ledger", out], check=True, capture_output=True).stdout
    out.unlink()
    return data


def sum_at(site, members, point, folder):
    return bank.total([ledger_at(site, m, point, folder) for m in members])


def shared_points(site):
    return [p for p in site.ask("group", "show", "shop")["points"] if p["state"] == "there"]


def make_point(site, *words):
    """Its job's result; ordered again where it fails: a machine may be too slow for the limits that a freeze has."""
    end = time.monotonic() + DEADLINE_S
    while True:
        p = site.lifeboat("point", "create", "--group", "shop", *words, "-o", "json", check=False)
        if p.returncode == 0:
            return json.loads(p.stdout)["data"]["result"]
        if time.monotonic() > end:
            raise SiteError(f"no shared point within {DEADLINE_S} s: {p.stderr}")
        time.sleep(0.2)


def make_points(site, n):
    made = []
    for _ in range(n):
        made.append(make_point(site))
        time.sleep(0.5)
    return made


def settle(site, members):
    """The group is complete and has its coordinator: a point on demand waits for both."""
    try:
        make_point(site)
    except SiteError as e:
        raise SiteError(f"{e}\n" + "\n".join(m.agent.log("agent") for m in members)) from e


def test_at_every_shared_point_the_sum_over_all_members_is_exact(site, folder):
    with group(site, folder) as members:
        settle(site, members)
        with banks(members):
            points = make_points(site, POINTS)
            # a member leaves and comes back while all of them work
            site.lifeboat("group", "remove", "shop", members[1].name)
            settle(site, members)
            assert len(shared_points(site)[0]["members"]) == MEMBERS - 1
            site.lifeboat("group", "add", "shop", members[1].name)
            settle(site, members)
            points += make_points(site, 1)
            site.wait(lambda: len(bank.read((members[0].mnt / "ledger").read_bytes())[0]) > 20, "money that moves", DEADLINE_S)
            app = make_point(site, "--app", "--name", "end-of-day")
        frozen = [max(m["frozen_ns"] for m in p["members"]) / 1e6 for p in [*points, app]]
        print("frozen ms:", frozen)
        for p in [*points, app]:
            assert sum_at(site, members, f"shared:{p['point']}", folder) == MEMBERS * bank.OPENING_BALANCE
        # it was busy: money moved between the points
        assert len(bank.read(ledger_at(site, members[0], "end-of-day", folder))[0]) > 20
        assert sum_at(site, members, "latest-multi-vm", folder) == MEMBERS * bank.OPENING_BALANCE
        for m in members:
            listed = [p for p in site.points(m.name) if "multi-vm" in p["kinds"]]
            assert {p["shared"] for p in listed} >= {p["point"] for p in points}
            assert all(p["frozen_ms"] > 0 for p in listed)


def test_without_the_barrier_a_sum_is_wrong(site, folder):
    with group(site, folder, faults={"LB_FAULT": "group_no_barrier"}) as members:
        settle(site, members)
        sums = []
        with banks(members):
            while len(sums) < POINTS_WITHOUT_BARRIER and all(s == MEMBERS * bank.OPENING_BALANCE for s in sums):
                sums.append(sum_at(site, members, f"shared:{make_point(site)['point']}", folder))
        print("sums:", sums)
        assert any(s != MEMBERS * bank.OPENING_BALANCE for s in sums)


def fails_and_names(site, members, who, text=""):
    """No shared point is made, the reason names the member, and nothing stays frozen."""
    before, end = len(shared_points(site)), time.monotonic() + DEADLINE_S
    while True:
        p = site.lifeboat("point", "create", "--group", "shop", check=False)
        assert p.returncode == 1, p.stdout + p.stderr
        if who.name in p.stderr and text in p.stderr:
            break
        # or another was too slow just then
        if time.monotonic() > end:
            raise SiteError(f"no reason that names {who.name} and {text!r} within {DEADLINE_S} s: {p.stderr}")
    for m in members:
        (m.mnt / "not-frozen").touch()
    assert len(shared_points(site)) == before


def test_a_member_that_cannot_take_part_makes_the_point_fail_and_nobody_hang(site, folder):
    with group(site, folder) as members:
        settle(site, members)
        # its disk is written past its filesystem
        with open(members[2].disk.device, "r+b"):
            fails_and_names(site, members, members[2], "as a device")
        settle(site, members)
        # it stands still
        members[2].agent.agent.send_signal(signal.SIGSTOP)
        fails_and_names(site, members, members[2])
        members[2].agent.agent.send_signal(signal.SIGCONT)
        settle(site, members)
        # it is gone
        members[1].agent.kill_agent()
        fails_and_names(site, members, members[1])
        # taken out of the group, the others go on without it; back in it, all of them
        site.lifeboat("group", "remove", "shop", members[1].name)
        settle(site, members)
        site.lifeboat("group", "add", "shop", members[1].name)
        members[1].agent.start_agent()
        settle(site, members)
        assert len(shared_points(site)[0]["members"]) == MEMBERS


def test_groups_refuse_what_makes_no_sense(site, agent):
    def refused(*words, code=None, text=""):
        p = site.lifeboat("group", *words, check=False)
        assert p.returncode != 0 and text in p.stderr, p.stderr
        if code:
            assert p.returncode == code
    refused("create", "g", "--machines", "nobody", code=4)
    refused("show", "g", code=4)  # and nothing of it was left behind
    refused("create", "g", "--interval", 5, text="from 10 to 86400")
    site.lifeboat("group", "create", "g", "--machines", agent.name)
    refused("create", "g")
    refused("create", "h", "--machines", agent.name, text="in replication group g already")
    site.lifeboat("group", "create", "h", "--interval", 0)
    refused("add", "h", agent.name, text="in replication group g already")
    refused("remove", "h", agent.name, code=4)
    assert site.lifeboat("point", "create", "--group", "h", check=False).returncode != 0
    site.lifeboat("group", "delete", "g", "--confirm", "g")
    site.lifeboat("group", "add", "h", agent.name)
