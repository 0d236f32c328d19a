# SPDX-License-Identifier: Apache-2.0
"""Every kind of job of the local fabric, its server killed once at each place of its way, or the job cancelled at each step.

The places are the product's own (src/base/fault.h): one that is reached for the first time is noted in a file, and the server
dies there. Started again it goes on, dies at the next place, and so on to the job's end.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from lifeboat_site import Site
from test_config import Api, cmdline
from test_config_failover import MIB, folder, job, order, processes_of  # noqa: F401 (a fixture)
from test_drill import BOOT

DEADLINE_S = 600
LAST_PLACE_S = 30
ORDERS_MAX = 10
MACHINES = ("db1", "web1")
PLAN = {"name": "shop", "groups": [
    {"name": "databases", "machines": [{"machine": "db1", "memory_bytes": 64 * MIB}], "before": [{"manual": "Tell the customers"}],
     "after": [{"script": "note"}]},
    {"name": "front", "machines": [{"machine": "web1", "memory_bytes": 64 * MIB}]}]}


class Faults:
    """The files that say where the server has died, where process and target servers have, and at which steps jobs were cancelled."""

    def __init__(self, folder, monkeypatch):  # noqa: F811
        self.places, self.servers, self.cancels = folder / "places", folder / "server-places", folder / "cancels"
        monkeypatch.setenv("LIFEBOAT_FAULT_PLACES", str(self.places))
        monkeypatch.setenv("LIFEBOAT_FAULT_SERVER_PLACES", str(self.servers))
        monkeypatch.setenv("LIFEBOAT_FAULT_CANCELS", str(self.cancels))

    @contextlib.contextmanager
    def on(self, path, only=""):
        """With what earlier orders of this test have noted: nothing dies twice at one place."""
        kept = path.with_suffix(".kept")
        noted = set(kept.read_text().splitlines()) if kept.exists() else set()
        path.write_text(f"only {only}\n" + "".join(f"{place}\n" for place in sorted(noted)))
        yield lambda: [place for place in path.read_text().splitlines()[1:] if place not in noted]
        path.rename(kept)


@pytest.fixture
def faults(folder, monkeypatch):  # noqa: F811
    return Faults(folder, monkeypatch)


@pytest.fixture
def site(build, folder, faults, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    disk = folder / "vda.img"
    disk.write_bytes(BOOT.ljust(510, b"\0") + b"\x55\xaa" + (b"\0" * 256 + b"tiny login: \0").ljust(512, b"\0") + bytes(2 * MIB - 1024))
    (folder / "oracle").mkdir()
    for machine in MACHINES:
        subprocess.run([build / "tests/tools/mkvault", "--vault", s.vault_url, "--passphrase-file", s.passphrase_file, "--machine", machine,
                        "--points", "2", "--memory", "64M", "--oracle", folder / "oracle", f"--disk=vda={disk}"], check=True,
                       capture_output=True)
    s.make()
    hooks = folder / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "note").write_text(f'#!/bin/sh\necho "$LIFEBOAT_GROUP" >> {folder}/said\n')
    (hooks / "note").chmod(0o755)
    with open(folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {hooks}\nprocess_server = no\n")
    s.deaths = 0
    s.start()
    yield s
    faults.places.unlink(missing_ok=True)
    faults.cancels.unlink(missing_ok=True)
    spawn_if_dead(s)
    api = Api(s, s.identity)
    s.wait(s.answers, "answer of the configuration server", 180)
    for double in api.ask("GET", "/v1/failover")[1]["failovers"]:
        job(api, order(api, f"/v1/failover/{double['name']}/cleanup", {"live_too": True}), ("done",))
    s.stop()


@pytest.fixture
def api(site):
    return Api(site, site.identity)


def spawn_if_dead(site):
    """As systemd would; True when it was dead. It dies of nothing but a kill."""
    if site.server.poll() is None:
        return False
    assert site.server.returncode == -signal.SIGKILL, (site.server.returncode, site.log_tail())
    site.deaths += 1
    with open(site.folder / "servers.log", "ab") as log:
        site.server = subprocess.Popen([site.programs["config"], "--config", site.folder / "etc/config.conf"], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, start_new_session=True)
    return True


def answer_of(api, method, path, body=None):
    """None while nobody answers."""
    try:
        return api.ask(method, path, body)
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return None


def follow(site, api, name, confirm=None):
    """To its end, over deaths; people confirm what a plan waits for."""
    end = time.monotonic() + DEADLINE_S
    while True:
        spawn_if_dead(site)
        answer = answer_of(api, "GET", f"/v1/job/{name}")
        if answer is not None:
            assert answer[0] == 200, answer
            state = answer[1]["state"]
            if state in ("done", "failed", "cancelled"):
                return answer[1]
            if confirm and state == "waiting" and answer[1]["result"].get("waiting"):
                answer_of(api, "POST", f"/v1/plan/{confirm}/confirm", {})
        assert time.monotonic() < end, f"job {name} has not ended: {answer}\n{site.log_tail()}"
        time.sleep(0.02)


def deadly(site, api, faults, path, body, confirm=None, only="", too_slow=None):
    """An order, carried out to its end by a server that dies at each place of it (that begins so).

    `too_slow`: what the error says where others were too slow for a limit: that is ordered again.
    """
    before = site.deaths
    with faults.on(faults.places, only) as places:
        for _ in range(ORDERS_MAX):
            done = follow(site, api, order_over_deaths(site, api, path, body), confirm)
            last, until = f"{done['kind']} of {done['target']}: after its end", time.monotonic() + LAST_PLACE_S
            # an end is told before the last place of a job is reached, and a place is noted before the server dies there
            come_to_rest(site, api, lambda: time.monotonic() > until or (site.deaths - before == len(places()) and (
                not last.startswith(only) or last in faults.places.read_text().splitlines())))
            if done["state"] != "failed" or too_slow is None or not re.match(too_slow, done["error"]):
                break
        seen = places()
    assert done["state"] == "done", f"{done['error']}: {seen}"
    assert site.deaths - before == len(seen) == len(set(seen)) and len(seen) >= 3, (site.deaths - before, seen)
    return done


def come_to_rest(site, api, settled=lambda: True):
    """Until it answers and has nothing more to do: then it dies no more."""
    end = time.monotonic() + DEADLINE_S
    while True:
        jobs = None if spawn_if_dead(site) else answer_of(api, "GET", "/v1/job")
        if jobs and all(j["ended_ns"] for j in jobs[1]["jobs"]) and settled() and site.server.poll() is None:
            return
        assert time.monotonic() < end, f"the server does not come to rest\n{site.log_tail()}"
        time.sleep(0.02)


def order_over_deaths(site, api, path, body):
    """The answer may die with the server: the job is then the one that has come since, ended or not, or is ordered again."""
    end = time.monotonic() + DEADLINE_S
    before = answer = None
    while True:
        spawn_if_dead(site)
        jobs = answer_of(api, "GET", "/v1/job")
        if jobs:
            if before is None:
                before = {j["id"] for j in jobs[1]["jobs"]}
            come = [j for j in jobs[1]["jobs"] if j["id"] not in before and not j["made_by"].startswith("plan ")]
            if come:
                return come[0]["id"]
            answer = answer_of(api, "POST", path, body)
            if answer is not None and answer[0] in (200, 202):
                return answer[1]["job"]
        assert time.monotonic() < end and (answer is None or answer[0] == 409), answer
        time.sleep(0.02)


def pins(api):
    return [p["name"] for m in MACHINES for p in api.ask("GET", f"/v1/machine/{m}/point")[1]["points"] if p.get("name")]


def no_trace(api, folder):  # noqa: F811
    assert api.ask("GET", "/v1/failover")[1]["failovers"] == [], api.ask("GET", "/v1/job")[1]["jobs"]
    assert processes_of(folder / "state/vm") == [] and os.listdir(folder / "state/vm") == []
    assert pins(api) == []


def doubles(api):
    return {d["name"]: d for d in api.ask("GET", "/v1/failover")[1]["failovers"]}


def running_vms(folder):  # noqa: F811
    return sum(b"qemu-system" in cmdline(p).split(b"\0")[0] for p in processes_of(folder / "state/vm"))


def test_a_server_that_dies_at_each_place_of_a_machines_cycle_ends_it_as_if_nothing_had_happened(site, api, faults, folder):  # noqa: F811
    double = {"machine": "db1", "name": "double", "memory_bytes": 64 * MIB}
    deadly(site, api, faults, "/v1/failover", {**double, "kind": "test"})
    assert list(doubles(api)) == ["double"] and running_vms(folder) == 1 and len(pins(api)) == 1
    points = api.ask("GET", "/v1/machine/db1/point")[1]["points"]
    deadly(site, api, faults, "/v1/failover/double/repoint", {"point": f"{points[0]['epoch']}:{points[0]['seq']}"})
    assert doubles(api)["double"]["seq"] == points[0]["seq"] and running_vms(folder) == 1 and len(pins(api)) == 1
    deadly(site, api, faults, "/v1/failover/double/cleanup", {})
    no_trace(api, folder)
    deadly(site, api, faults, "/v1/failover", {**double, "kind": "live"})
    assert doubles(api)["double"]["state"] == "running" and running_vms(folder) == 1
    deadly(site, api, faults, "/v1/failover/double/commit", {})
    assert doubles(api)["double"]["committed"] and running_vms(folder) == 1 and pins(api) == []
    deadly(site, api, faults, "/v1/failover/double/failback", {"wait_s": 0})
    deadly(site, api, faults, "/v1/failover/double/home", {})
    no_trace(api, folder)


def test_a_server_that_dies_at_each_place_of_a_drill_leaves_a_passed_drill_and_no_trace(site, api, faults, folder):  # noqa: F811
    done = deadly(site, api, faults, "/v1/drill", {"machine": "db1", "check": {"login": "login:"}, "limit_s": 3600}, only="drill")
    drill, = api.ask("GET", "/v1/drill?machine=db1")[1]["drills"]
    assert drill["id"] == done["id"] and drill["state"] == "passed"
    no_trace(api, folder)


def test_a_server_that_dies_at_each_place_of_a_plans_orders_carries_them_out(site, api, faults, folder):  # noqa: F811
    assert api.ask("POST", "/v1/plan", PLAN)[0] == 200
    deadly(site, api, faults, "/v1/plan/shop/test", {}, "shop", only="plan")
    assert sorted(doubles(api)) == ["db1-test", "web1-test"] and running_vms(folder) == 2
    deadly(site, api, faults, "/v1/plan/shop/cleanup", {}, only="plan")
    no_trace(api, folder)
    deadly(site, api, faults, "/v1/plan/shop/failover", {}, "shop", only="plan")
    assert {d["state"] for d in doubles(api).values()} == {"running"} and running_vms(folder) == 2
    deadly(site, api, faults, "/v1/plan/shop/commit", {}, only="plan")
    assert all(d["committed"] for d in doubles(api).values()) and len(doubles(api)) == 2 and pins(api) == []
    deadly(site, api, faults, "/v1/plan/shop/failback", {"wait_s": 0}, only="plan")
    assert {d["state"] for d in doubles(api).values()} == {"stopped"} and running_vms(folder) == 0
    deadly(site, api, faults, "/v1/plan/shop/home", {}, only="plan")
    no_trace(api, folder)


def test_a_server_that_dies_at_each_place_of_a_plans_drill_leaves_passed_drills_and_no_trace(site, api, faults, folder):  # noqa: F811
    assert api.ask("POST", "/v1/plan", PLAN)[0] == 200
    # of a time: the points that are it now are held until the plan has ended, and no longer
    drill = {"plan": "shop", "check": {"login": "login:"}, "limit_s": 3600, "point": "2100-01-01T00:00:00Z"}
    done = deadly(site, api, faults, "/v1/drill", drill, "shop", only="plan")
    assert {m: one["state"] for m, one in done["result"]["machines"].items()} == {"db1": "done", "web1": "done"}
    for machine in MACHINES:
        drill, = api.ask("GET", f"/v1/drill?machine={machine}")[1]["drills"]
        assert drill["state"] == "passed" and drill["id"] == done["result"]["machines"][machine]["job"]
    no_trace(api, folder)


def cancelled_at_each_step(site, api, faults, path, body, after, confirm=None, only="", until=lambda: False):
    """The same order again and again, cancelled one step later each time, until it comes through, or is told so. How often it was cancelled."""
    with faults.on(faults.cancels, only) as cancels:
        for times in range(40):
            done = follow(site, api, order(api, path, body), confirm)
            if len(cancels()) == times:
                return done, times
            after(done)
            if until():
                return done, times + 1
    raise AssertionError(f"it is never done: {cancels()}")


def test_a_drill_or_a_test_failover_that_is_cancelled_at_any_step_leaves_no_trace(site, api, faults, folder):  # noqa: F811
    def after(done):
        assert done["state"] == "cancelled", done
        no_trace(api, folder)

    done, times = cancelled_at_each_step(site, api, faults, "/v1/failover", {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB}, after)
    assert done["state"] == "done" and times >= 6
    job(api, order(api, "/v1/failover/db1-test/cleanup", {}), ("done",))
    # once it was proven, a drill is done: nothing but the removal of its double is left
    done, times = cancelled_at_each_step(site, api, faults, "/v1/drill", {"machine": "db1", "check": {"login": "login:"}},
                                         lambda done: no_trace(api, folder))
    assert done["state"] == "done" and times >= 7
    no_trace(api, folder)


def test_a_plan_that_is_cancelled_at_any_step_goes_on_when_it_is_ordered_again(site, api, faults, folder):  # noqa: F811
    def after(done):
        assert done["state"] == "cancelled", done
        assert [j for j in api.ask("GET", "/v1/job")[1]["jobs"] if not j["ended_ns"]] == []

    assert api.ask("POST", "/v1/plan", PLAN)[0] == 200
    done, times = cancelled_at_each_step(site, api, faults, "/v1/plan/shop/failover", {}, after, "shop", only="plan")
    assert done["state"] == "done" and times >= 4
    assert {d["state"] for d in doubles(api).values()} == {"running"} and running_vms(folder) == 2
    job(api, order(api, "/v1/plan/shop/commit", {}), ("done",))
    done, times = cancelled_at_each_step(site, api, faults, "/v1/plan/shop/failback", {"wait_s": 0}, after, only="plan")
    assert done["state"] == "done" and times >= 4
    assert {d["state"] for d in doubles(api).values()} == {"stopped"} and running_vms(folder) == 0
    done, times = cancelled_at_each_step(site, api, faults, "/v1/plan/shop/home", {}, after, only="plan")
    assert done["state"] == "done" and times >= 1
    no_trace(api, folder)
