# SPDX-License-Identifier: Apache-2.0
"""Each process is killed at random instants while writers go on: nothing acknowledged is lost, nothing is resynced."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from host_agent import HostAgent, LoopDisk
from kill_rounds import RECOVERY_DEADLINE_S, Journal, KillableSite
from oracle import (SMALL_RING, SMALL_RING_OVERFLOWS_AFTER_WRITES, assert_equal_after_quiescing, judge, oracle_writers, stop_writers,
                    wait_writes)
from provoked import provoked

ROUNDS = int(os.environ.get("LIFEBOAT_KILL_ROUNDS", "50"))
VICTIMS = ("mobility", "capture", "process", "config", "process, unacknowledged")
WRITES_PER_S = 600
KILLS_S_MAX = 240   # a slow machine has fewer rounds
RUN_S_MAX = 3600


@pytest.fixture
def site(build, folder, capture_possible):
    s = KillableSite(build, folder / "site").make().start()
    yield s
    s.stop()


@pytest.fixture
def agent(site, folder, disks):
    """After the disks: it reports at once which there are."""
    a = HostAgent(site, folder / "agent").enrol().start()
    yield a
    a.close()


@pytest.fixture
def disks(folder):
    made = [LoopDisk(folder / f"disk{i}.img", 8) for i in range(3)]
    yield made
    for d in made:
        d.close()


@pytest.fixture
def protected(request, agent, disks):
    agent.protect(disks, ring=getattr(request, "param", "256M"))
    return agent


@pytest.fixture
def writers(request, build, folder, disks, protected):
    """A small ring is to overflow; another never does, however long a machine recovers from a death."""
    small = request.node.callspec.params.get("protected") == SMALL_RING if hasattr(request.node, "callspec") else False
    process = oracle_writers(build, folder / "writes.log", disks, RUN_S_MAX, rate=getattr(request, "param", WRITES_PER_S),
                             spare=None if small else protected.pins)
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.fixture
def chance():
    seed = int(os.environ.get("LIFEBOAT_SEED", random.randrange(1 << 32)))
    print("LIFEBOAT_SEED =", seed)
    return random.Random(seed)


class Rounds:
    def __init__(self, site, agent):
        self.site, self.agent = site, agent
        self.journal = Journal(site, agent)
        self.durable = None      # the newest that was ever seen
        self.seen = {}           # position -> digest of what was durable at some time
        self.point = (0, 0)
        self.kills = dict.fromkeys(VICTIMS, 0)
        self.request = site.cache / "die-unacknowledged"

    def look(self):
        """What is durable now: never less than it was."""
        j = self.journal.ask()
        if j is None:
            return None
        at = Journal.position(j)
        assert self.durable is None or at >= self.durable, f"the journal went back from {self.durable} to {at}"
        self.durable = at
        assert self.seen.setdefault(at, j["digest"]) == j["digest"], f"another segment {at} took the place of a durable one"
        return at

    def went_past(self, at):
        now = self.look()
        return now is not None and (at is None or now > at)

    def wait_past(self, at):
        self.agent.wait(lambda: self.went_past(at), f"the journal to go on after {at}", RECOVERY_DEADLINE_S)

    def look_at_points(self):
        p = self.site.lifeboat("point", "list", self.agent.name, "--limit", "1", "-o", "json", check=False)
        if p.returncode != 0:
            return  # it is still starting
        newest = json.loads(p.stdout)["data"]["points"][-1]
        at = (newest["epoch"], newest["seq"])
        assert at >= self.point, f"the newest recovery point went back from {self.point} to {at}"
        self.point = at

    def kill(self, victim):
        self.kills[victim] += 1
        if victim == "mobility":
            self.agent.kill_agent()
            self.agent.start_agent()
        elif victim == "capture":
            self.agent.kill_capture()
            self.agent.start_capture()
        elif victim == "process":
            self.site.kill_process()
        elif victim == "config":
            self.site.kill_config()
            self.site.spawn()
        else:
            self.die_unacknowledged()

    def die_unacknowledged(self):
        """It kills itself when a segment is durable and before anybody hears of it."""
        self.request.touch()
        self.agent.wait(lambda: not self.request.exists(), "death of the process server before it acknowledges",
                        RECOVERY_DEADLINE_S)


def assert_all_in_vault(build, site, agent, seen):
    """Every segment that was ever durable is in the vault, the very same."""
    machine = site.machine(agent.name)["id"]
    out = subprocess.run([build / "tests/tools/segtool", "digests", "--vault", site.vault_url, "--passphrase-file",
                          site.passphrase_file, "--machine", machine], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    vault = {(int(e), int(s)): d for e, s, d in map(str.split, out.stdout.splitlines())}
    for at, digest in seen.items():
        assert vault.get(at) == digest, f"segment {at}, once durable, is not in the vault"


def test_each_process_killed_at_random_instants_loses_nothing_and_resyncs_nothing(build, site, agent, disks, folder,
                                                                                  writers, chance):
    rounds = Rounds(site, agent)
    rounds.wait_past(None)
    epoch = rounds.durable[0]
    began = time.monotonic()
    for n in range(ROUNDS):
        if n >= len(VICTIMS) and time.monotonic() - began > KILLS_S_MAX:
            break
        victim = VICTIMS[n] if n < len(VICTIMS) else chance.choice(VICTIMS)
        before = rounds.durable
        rounds.kill(victim)
        # one kill in four comes while the last is being recovered from
        if chance.random() < 0.75:
            rounds.wait_past(before)
            rounds.look_at_points()
        time.sleep(chance.uniform(0, 0.8))  # the next kill's instant
        rounds.look()
        print(f"{n}: {victim}, durable {before} -> {rounds.durable}, {time.monotonic() - began:.1f} s", flush=True)
    rounds.wait_past(rounds.durable)
    figures = stop_writers(writers)
    site.wait_ready()
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, folder / "writes.log")
    print(rounds.kills, figures, summary, f"{len(rounds.seen)} durable positions")
    assert not wrong, "\n".join(wrong)
    assert_all_in_vault(build, site, agent, rounds.seen)
    epochs = {p["epoch"] for p in site.points(agent.name)}
    assert epochs == {epoch}, f"a kill made a new epoch: {epochs}\n{agent.log('agent', 20000)}"
    assert_equal_after_quiescing(site, agent, disks, folder)


@pytest.mark.parametrize("protected, writers", [(SMALL_RING, 2000)], indirect=True)
def test_kills_while_epochs_end_and_begin_leave_legal_points_only(build, site, agent, disks, folder, writers, chance):
    """A ring that each death overflows: the agent is killed in debt, in the flip, in the scan."""
    rounds = Rounds(site, agent)
    rounds.wait_past(None)
    began = time.monotonic()
    for n in range(ROUNDS // 2):
        if n >= len(VICTIMS) and time.monotonic() - began > KILLS_S_MAX:
            break
        victim = chance.choice(VICTIMS)
        if n % 5 == 4:
            site.lifeboat("machine", "resync", agent.name, "--no-wait", check=False)  # no answer while it is down
        rounds.kill(victim)
        time.sleep(chance.uniform(0, 1.5))  # the next kill's instant
        rounds.look()
        print(f"{n}: {victim}, durable {rounds.durable}", flush=True)
        if n % 5 == 2:
            rounds.wait_past(rounds.durable)
    stop_writers(writers)
    site.wait_ready()
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, folder / "writes.log")
    print(rounds.kills, summary)
    assert not wrong, "\n".join(wrong)
    assert_all_in_vault(build, site, agent, rounds.seen)
    assert_equal_after_quiescing(site, agent, disks, folder)
    provoked(rounds.durable[0] > 1, "the ring was to overflow in this test")


# ---- losses of more than a process -----------------------------------------------------------------------------------


def assert_legal_and_equal(build, site, agent, disks, folder):
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, folder / "writes.log")
    print(summary)
    assert not wrong, "\n".join(wrong)
    assert_equal_after_quiescing(site, agent, disks, folder)


def epochs_of(site, agent):
    return sorted({p["epoch"] for p in site.points(agent.name)})


@pytest.mark.parametrize("protected", [SMALL_RING], indirect=True)
def test_a_process_server_that_hangs_until_the_ring_overflows_costs_an_epoch_and_no_write(build, site, agent, disks, folder,
                                                                                           writers):
    agent.wait_point_after(time.time_ns())
    before = epochs_of(site, agent)
    pid = site.process_pid()
    os.kill(pid, signal.SIGSTOP)
    wait_writes(agent, folder / "writes.log", SMALL_RING_OVERFLOWS_AFTER_WRITES)
    os.kill(pid, signal.SIGCONT)
    agent.wait_point_after(time.time_ns())
    stop_writers(writers)
    assert_legal_and_equal(build, site, agent, disks, folder)
    assert epochs_of(site, agent) > before, "the ring was to overflow in this test"


def test_a_lost_cache_costs_what_was_in_it_and_no_resync(build, site, agent, disks, folder, writers):
    """As after a power cut that took the cache's disk with it: the bitmap of what the vault lacks is scanned again."""
    agent.wait_point_after(time.time_ns())
    vault, away = site.folder / "vault", site.folder / "vault.away"
    vault.rename(away)  # what comes now stays in the cache
    rounds = Rounds(site, agent)
    rounds.wait_past(None)
    rounds.wait_past(rounds.durable)
    cache = site.cache
    site.kill_config()
    site.wait_process_gone()
    away.rename(vault)
    for f in cache.glob("*-*-*-*-*"):
        shutil.rmtree(f)
    site.spawn()
    site.wait_ready()
    agent.wait(lambda: "what it lost is scanned again" in agent.log("agent", 1 << 20), "news of the loss", RECOVERY_DEADLINE_S)
    agent.wait_point_after(time.time_ns())
    stop_writers(writers)
    assert_legal_and_equal(build, site, agent, disks, folder)
    assert "begins: the process server lost acknowledged data" in agent.log("agent", 1 << 20)


def test_after_a_reboot_only_what_differs_is_sent(build, site, agent, disks, folder, writers):
    agent.wait_point_after(time.time_ns())
    stop_writers(writers)
    agent.wait_point_after(time.time_ns())
    agent.power_off()
    # disks change before the agent is back
    with open(disks[1].device, "r+b", buffering=0) as d:
        d.seek(1 << 20)
        d.write(os.urandom(64 << 10))
        os.fsync(d.fileno())
    agent.start()
    agent.wait_point_after(time.time_ns())
    assert_equal_after_quiescing(site, agent, disks, folder)
    # what the agent says of itself is a heartbeat old
    agent.wait(lambda: agent.status()["shipped_bytes"] >= 64 << 10, "status that tells of what was sent")
    assert agent.status()["shipped_bytes"] <= 1 << 20, agent.status()


def test_a_capture_that_is_detached_behind_the_agents_back_is_attached_anew(build, site, agent, disks, folder, writers):
    agent.wait_point_after(time.time_ns())
    agent.detach()
    agent.wait_point_after(time.time_ns())
    stop_writers(writers)
    assert_legal_and_equal(build, site, agent, disks, folder)
