# SPDX-License-Identifier: Apache-2.0
"""The kinds of jobs that agents and process servers take part in, the configuration server killed once at each place of their way."""
import time

import pytest

from debian_root import Root
from host_agent import LoopDisk
from process_server import ProcessServer
from ssh_host import SshHost
from test_config import Api
from test_group import group, settle, shared_points
from test_job_kills import Faults, come_to_rest, deadly, follow, order_over_deaths, spawn_if_dead
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
    s.wait(s.answers, "answer of the configuration server", 180)
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
    site.lifeboat("point", "unpin", agent.name, "kept", "--confirm", "kept")
    done = deadly(site, api, site.faults, f"/v1/machine/{machine}/point", {"name": "pinned"})
    pinned, = [p for p in site.points(agent.name) if p.get("name") == "pinned"]
    assert pinned["epoch"] == done["result"]["epoch"] and pinned["seq"] <= done["result"]["seq"]
    to = "local" if process_of(site, agent) == "ps2" else "ps2"
    deadly(site, api, site.faults, f"/v1/machine/{machine}/move", {"to": to})
    assert process_of(site, agent) == to
    agent.wait_point_after(time.time_ns())


def test_a_server_that_dies_at_each_place_of_a_groups_point_makes_one_point_of_all_members(site, folder):
    api = Api(site, site.identity)
    with group(site, folder, members=2) as members:
        settle(site, members)
        before = {p["id"] for p in shared_points(site)}
        done = deadly(site, api, site.faults, "/v1/group/shop/point", {"app": False, "name": "kept"}, too_slow=r"m\d \(\w+\): ")
        assert {p["id"] for p in shared_points(site)} - before == {done["result"]["point"]}
        told = {m["machine"]: (m["epoch"], m["seq"]) for m in done["result"]["members"]}
        assert len(told) == 2
        for member in members:
            kept, = [p for p in site.points(member.name) if p.get("name") == "kept"]
            assert (kept["epoch"], kept["seq"]) == told[site.machine(member.name)["id"]]


@pytest.fixture
def ssh_host(packages, folder):
    root = Root(folder, packages.values())
    h = SshHost(root.path, folder)
    h.package = packages["lifeboat-mobility"]
    try:
        yield h.start()
    finally:
        h.close()
        root.close()


def push_order(host, **more):
    return {"action": "install", "host": "127.0.0.1", "port": host.port, "user": "root", "name": "web1", "key": host.key.read_text(),
            "accept_new_host_key": True, "replace": True, **more}


def is_there(host):
    return (host.root / "usr/sbin/lifeboat-mobility").exists() and (host.root / "var/lib/lifeboat/mobility/cert.pem").exists()


def wait_no_folder(site, host):
    site.wait(lambda: not list((host.root / "tmp").glob("lifeboat-*")), "end of what a broken push left there", 240)


def test_a_server_that_dies_at_each_place_of_a_push_install_knows_what_became_of_it(site, ssh_host, folder):
    api, pusher = Api(site, site.identity), ProcessServer(site, folder / "ps2", "ps2").enrol()
    with open(folder / "ps2/process.conf", "a") as conf:
        conf.write(f"agent_package = {ssh_host.package}\n")
    pusher.start()
    try:
        order, lost = push_order(ssh_host, process="ps2"), 0
        with site.faults.on(site.faults.places, "install") as places:
            while True:
                done = follow(site, api, order_over_deaths(site, api, "/v1/install", order))
                come_to_rest(site, api)
                if done["state"] == "done":
                    break
                # before the process server had it, the login was nowhere else
                assert "order it again" in done["error"] and (lost := lost + 1) <= 3, done
            seen = places()
        assert site.deaths == len(seen) == len(set(seen)), (site.deaths, seen)
        # and where it was when the process server told of a step: which ones are told depends on who is quicker
        assert {"wait for the process server", "before its end", "after its end"} <= {s.removeprefix("install of 127.0.0.1: ") for s in seen}
        assert is_there(ssh_host)
        assert [m["name"] for m in site.ask("machine", "list")["machines"]] == ["web1"]
        wait_no_folder(site, ssh_host)
    finally:
        pusher.close()


def test_a_push_install_whose_process_server_dies_at_any_place_leaves_nothing_there_and_is_ordered_again(site, ssh_host):
    api, failed = Api(site, site.identity), 0
    with open(site.folder / "etc/config.conf", "a") as conf:
        conf.write(f"agent_package = {ssh_host.package}\n")
    site.stop()
    site.start()
    with site.faults.on(site.faults.places, "push to") as places:
        while (done := follow(site, api, order_over_deaths(site, api, "/v1/install", push_order(ssh_host))))["state"] != "done":
            assert "order it again" in done["error"] and (failed := failed + 1) <= 10, done
            wait_no_folder(site, ssh_host)
        seen = places()
    assert site.deaths == 0 and failed == len(seen) >= 5, (failed, seen)
    assert is_there(ssh_host)
    assert [m["name"] for m in site.ask("machine", "list")["machines"]] == ["web1"]
    wait_no_folder(site, ssh_host)
