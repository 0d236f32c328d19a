# SPDX-License-Identifier: Apache-2.0
"""The whole chain on loop devices of this host: capture, agent, process server, vault, and what comes back out of it."""
import json
import os
import signal
import subprocess
import time

import pytest

from host_agent import LoopDisk
from oracle import (SMALL_RING, SMALL_RING_OVERFLOWS_AFTER_WRITES, STOP_S_MAX, assert_equal_after_quiescing, judge, oracle_writers,
                    stop_writers, wait_writes)
from provoked import provoked

RUN_S_MAX = 300
LOAD_S_MAX = 60
POINTS, POINTS_MIN = 200, 40     # a slow machine has fewer


@pytest.fixture
def disks(folder):
    made = [LoopDisk(folder / f"disk{i}.img", 8) for i in range(3)]
    yield made
    for d in made:
        d.close()


def test_hundreds_of_points_under_forty_writers_are_legal_prefixes(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, RUN_S_MAX, rate=4000, spare=agent.pins)
    end = time.monotonic() + LOAD_S_MAX

    def enough():
        n = len(site.points(agent.name))
        return n >= POINTS or (n >= POINTS_MIN and time.monotonic() > end)
    agent.wait(enough, "points under load", RUN_S_MAX)
    figures = stop_writers(writers)
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    print(figures, summary)
    assert not wrong, "\n".join(wrong)
    assert summary["checked"] >= POINTS_MIN
    assert_equal_after_quiescing(site, agent, disks, folder)
    # how many are under way at a point is the disk's affair: a quick one has few
    provoked(figures["in_flight_max"] >= 2 and summary["in_flight_max"] >= 2, f"writes were to be under way together: {figures}, {summary}")


def test_writes_that_are_dropped_on_purpose_are_caught(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, RUN_S_MAX, rate=500, spare=agent.pins)
    agent.wait_point_after(time.time_ns())
    for _ in range(3):      # one might be written over before the next point
        fault = subprocess.run([build / "tests/tools/capture_fault", agent.pins], capture_output=True, text=True)
        if fault.returncode == 3:
            writers.kill()
            pytest.skip(fault.stderr.strip())
        assert fault.returncode == 0, fault.stderr
        wait_writes(agent, log, 40)
    stop_writers(writers)
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    print(summary, wrong[:3])
    assert summary["illegal"] > 0, "the oracle did not see a write that was dropped"


def test_an_overloaded_ring_ends_in_debt_and_every_point_after_it_is_legal(build, site, agent, disks, folder):
    agent.protect(disks, ring=SMALL_RING)
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, RUN_S_MAX, writers=64)
    # nobody empties it for a while: a slow disk would never fill it
    agent.agent.send_signal(signal.SIGSTOP)
    wait_writes(agent, log, SMALL_RING_OVERFLOWS_AFTER_WRITES)
    agent.agent.send_signal(signal.SIGCONT)
    wait_writes(agent, log, 2 * SMALL_RING_OVERFLOWS_AFTER_WRITES)
    stop_writers(writers)
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    points = site.points(agent.name)
    print(summary, "epochs:", points[-1]["epoch"])
    assert not wrong, "\n".join(wrong)
    assert_equal_after_quiescing(site, agent, disks, folder)
    assert points[-1]["epoch"] > 1, "the ring did not overflow"


def sealed_by(site, agent):
    """The generations of the machine's key that sealed its journal objects, by their salts."""
    objects = sorted((site.folder / "vault/m" / site.machine(agent.name)["id"] / "e").glob("*/*"))
    return [o.read_bytes()[31] for o in objects]


def test_a_machine_s_key_is_changed_while_it_replicates_and_every_point_is_legal(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, 10, rate=1000, spare=agent.pins)
    done = site.vault_ask("vault", "rotate", "--machine", agent.name)
    assert [m["generation"] for m in done["machines"]] == [1]
    assert json.loads(writers.communicate(timeout=STOP_S_MAX)[0])["error"] == 0
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    assert not wrong and summary["checked"] > 0, "\n".join(wrong)

    def taken_up():
        with open(disks[0].device, "r+b", buffering=0) as d:  # an idle machine writes no objects
            d.write(os.urandom(4096))
            os.fsync(d.fileno())
        return 1 in sealed_by(site, agent)

    agent.wait(taken_up, "an object that the new key sealed", 120)
    generations = sealed_by(site, agent)
    assert generations[0] == 0 and sorted(generations) == generations
    site.stop()  # and the servers come up again with what both keys sealed, in cache and vault
    site.start()
    assert_equal_after_quiescing(site, agent, disks, folder)
    findings = site.vault_ask("vault", "verify", "--deep")["findings"]
    assert [f for f in findings if not f["note"]] == []
