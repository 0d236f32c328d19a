# SPDX-License-Identifier: Apache-2.0
"""The kinds of jobs that agents and process servers take part in, the configuration server killed once at each place of their way."""
import time

import pytest

from host_agent import LoopDisk
from process_server import ProcessServer
from test_config import Api
from test_group import group, settle, shared_points
from test_job_kills import Faults, deadly, spawn_if_dead
from test_move import process_of


@pytest.fixture
def site(build, folder, capture_possible, monkeypatch):
    from lifeboat_site import Site
    faults = Faults(folder, monkeypatch)
    s = Site(build, folder / "site").make()
    s.faults, s.deaths = faults, 0
    s.start()
    yield s
    faults.places.unlink(missing_ok=True)
    spawn_if_dead(s)
    s.wait(s.answers, "answer of the configuration server", 60)
    s.stop()


@pytest.fixture
def disk(folder):
    d = LoopDisk(folder / "disk.img", 8)
    yield d
    d.close()


@pytest.fixture
def second(site, folder):
    server = ProcessServer(site, folder / "ps2", "ps2").enrol().start()
    yield server
    server.close()


def test_a_server_that_dies_at_each_place_of_a_point_or_a_move_carries_it_out(site, second, agent, disk):
    api = Api(site, site.identity)
    agent.protect([disk])
    machine = next(m["id"] for m in site.ask("machine", "list")["machines"] if m["name"] == agent.name)
    done = deadly(site, api, site.faults, f"/v1/machine/{machine}/point/create", {"app": False, "name": "kept"})
    # an idle machine's points are listed as one
    kept, = [p for p in site.points(agent.name) if p.get("name") == "kept"]
    assert kept["epoch"] == done["result"]["epoch"] and kept["seq"] <= done["result"]["seq"]
    to = "local" if process_of(site, agent) == "ps2" else "ps2"
    deadly(site, api, site.faults, f"/v1/machine/{machine}/move", {"to": to})
    assert process_of(site, agent) == to
    agent.wait_point_after(time.time_ns())


def test_a_server_that_dies_at_each_place_of_a_groups_point_makes_one_point_of_all_members(site, folder):
    api = Api(site, site.identity)
    with group(site, folder, members=2) as members:
        settle(site, members)
        before = {p["id"] for p in shared_points(site)}
        done = deadly(site, api, site.faults, "/v1/group/shop/point", {"app": False, "name": "kept"})
        assert {p["id"] for p in shared_points(site)} - before == {done["result"]["point"]}
        told = {m["machine"]: (m["epoch"], m["seq"]) for m in done["result"]["members"]}
        assert len(told) == 2
        for member in members:
            kept, = [p for p in site.points(member.name) if p.get("name") == "kept"]
            assert (kept["epoch"], kept["seq"]) == told[site.machine(member.name)["id"]]
