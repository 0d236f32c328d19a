# SPDX-License-Identifier: Apache-2.0
"""The whole chain on loop devices of this host: capture, agent, process server, vault, and what comes back out of it."""
import json
import subprocess
import time

import pytest

from host_agent import LoopDisk
from oracle import assert_equal_after_quiescing, judge, oracle_writers


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
    assert figures["in_flight_max"] >= 16
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    print(figures, summary)
    assert not wrong, "\n".join(wrong)
    assert summary["in_flight_max"] >= 16
    assert summary["checked"] >= 200
    assert_equal_after_quiescing(site, agent, disks, folder)


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
    assert points[-1]["epoch"] > 1, "the ring was to overflow in this test"
    assert not wrong, "\n".join(wrong)
    assert_equal_after_quiescing(site, agent, disks, folder)
