# SPDX-License-Identifier: Apache-2.0
"""The whole chain on loop devices of this host: capture, agent, process server, vault, and what comes back out of it."""
import json
import os
import subprocess
import time

import pytest

from host_agent import LoopDisk
from oracle import assert_equal_after_quiescing, judge, oracle_writers
from provoked import provoked


@pytest.fixture
def disks(folder):
    made = [LoopDisk(folder / f"disk{i}.img", 8) for i in range(3)]
    yield made
    for d in made:
        d.close()


def test_two_hundred_points_under_forty_writers_are_legal_prefixes(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, 55, rate=4000)
    figures = json.loads(writers.communicate(timeout=120)[0])
    assert figures["error"] == 0
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    print(figures, summary)
    assert not wrong, "\n".join(wrong)
    assert_equal_after_quiescing(site, agent, disks, folder)
    # how many are under way at a point is the disk's affair: a quick one has few
    provoked(figures["in_flight_max"] >= 16 and summary["in_flight_max"] >= 2, f"writes were to be under way together: {figures}, {summary}")
    provoked(summary["checked"] >= 200, f"two hundred points were to be made: {summary}")


def test_one_write_that_is_dropped_on_purpose_is_caught(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, 12, rate=3500)
    agent.wait_point_after(time.time_ns())
    fault = subprocess.run([build / "tests/tools/capture_fault", agent.pins], capture_output=True, text=True)
    if fault.returncode == 3:
        writers.kill()
        pytest.skip(fault.stderr.strip())
    assert fault.returncode == 0, fault.stderr
    assert json.loads(writers.communicate(timeout=120)[0])["error"] == 0
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    print(summary, wrong[:3])
    assert summary["illegal"] > 0, "the oracle did not see a write that was dropped"


def test_an_overloaded_ring_ends_in_debt_and_every_point_after_it_is_legal(build, site, agent, disks, folder):
    agent.protect(disks, ring="16M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, 8, writers=64)
    assert json.loads(writers.communicate(timeout=120)[0])["error"] == 0
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    points = site.points(agent.name)
    print(summary, "epochs:", points[-1]["epoch"])
    assert not wrong, "\n".join(wrong)
    assert_equal_after_quiescing(site, agent, disks, folder)
    provoked(points[-1]["epoch"] > 1, "the ring was to overflow in this test")


def sealed_by(site, agent):
    """The generations of the machine's key that sealed its journal objects, by their salts."""
    objects = sorted((site.folder / "vault/m" / site.machine(agent.name)["id"] / "e").glob("*/*"))
    return [o.read_bytes()[31] for o in objects]


def test_a_machine_s_key_is_changed_while_it_replicates_and_every_point_is_legal(build, site, agent, disks, folder):
    agent.protect(disks, ring="256M")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks, 10, rate=1000)
    done = site.vault_ask("vault", "rotate", "--machine", agent.name)
    assert [m["generation"] for m in done["machines"]] == [1]
    assert json.loads(writers.communicate(timeout=120)[0])["error"] == 0
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    assert not wrong and summary["checked"] > 0, "\n".join(wrong)

    def taken_up():
        with open(disks[0].device, "r+b", buffering=0) as d:  # an idle machine writes no objects
            d.write(os.urandom(4096))
            os.fsync(d.fileno())
        return 1 in sealed_by(site, agent)

    agent.wait(taken_up, "an object that the new key sealed", 120)
    assert sealed_by(site, agent)[0] == 0 and sorted(sealed_by(site, agent)) == sealed_by(site, agent)
    site.stop()  # and the servers come up again with what both keys sealed, in cache and vault
    site.start()
    assert_equal_after_quiescing(site, agent, disks, folder)
    findings = site.vault_ask("vault", "verify", "--deep")["findings"]
    assert [f for f in findings if not f["note"]] == []
