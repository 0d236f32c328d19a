# SPDX-License-Identifier: Apache-2.0
"""Failover by order to the configuration server: jobs that are persisted, go on after a kill, and leave no trace when cleaned up."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from lifeboat_site import Site, SiteError
from provoked import wait_for
from test_config import Api, cmdline, is_gone

MIB = 1 << 20
for tool in ("nbdkit", "qemu-img", "qemu-system-x86_64"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


@pytest.fixture
def folder():
    """Short, because sockets are below it. Nothing may be left running in it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="lbcf."))
    yield path
    with contextlib.suppress(SiteError):
        wait_for(lambda: not processes_of(path), "the end of what is ending", 60)
    left = processes_of(path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path)
    assert not left, f"processes were left behind: {left}"


def processes_of(folder):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "cmdline").read_bytes() and not is_gone(int(path.name)):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture
def site(build, folder, monkeypatch):
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    disk = folder / "vda.img"
    disk.write_bytes(os.urandom(2 * MIB) + bytes(6 * MIB))
    (folder / "oracle").mkdir()
    subprocess.run([build / "tests/tools/mkvault", "--vault", s.vault_url, "--passphrase-file", s.passphrase_file, "--machine", "db1",
                    "--points", "4", "--oracle", folder / "oracle", f"--disk=vda={disk}"], check=True, capture_output=True)
    s.make().start()
    yield s
    api = Api(s, s.identity)
    for double in api.ask("GET", "/v1/failover")[1]["failovers"]:
        _, order = api.ask("POST", f"/v1/failover/{double['name']}/cleanup", {"live_too": True})
        job(api, order["job"], ("done",))
    s.stop()


@pytest.fixture
def api(site):
    return Api(site, site.identity)


def job(api, name, states=("done", "failed", "cancelled")):
    def ended():
        status, answer = api.ask("GET", f"/v1/job/{name}")
        assert status == 200, answer
        return answer if answer["state"] in ("done", "failed", "cancelled") else None
    answer = wait_for(ended, f"job {name} to end")
    assert answer["state"] in states, answer
    return answer


def order(api, path, body):
    status, answer = api.ask("POST", path, body)
    assert status == 200, answer
    return answer["job"]


def test_a_test_failover_runs_and_its_cleanup_leaves_no_trace(site, api, folder):
    done = job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB}), ("done",))
    assert [s["state"] for s in done["steps"]] == ["done"] * len(done["steps"]) and done["progress"] == 1
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert double["name"] == "db1-test" and double["state"] == "running" and double["kind"] == "test"
    status, answer = api.ask("POST", "/v1/failover", {"machine": "db1", "kind": "test"})
    assert status == 409 and "db1-test" in answer["error"]["message"]
    job(api, order(api, "/v1/failover/db1-test/cleanup", {}), ("done",))
    assert api.ask("GET", "/v1/failover")[1]["failovers"] == []
    assert not [p for p in processes_of(folder / "state/vm")]
    assert not list((folder / "state/vm").glob("db1-test/*"))


def test_a_live_failover_goes_on_after_its_server_is_killed(site, api, folder):
    name = order(api, "/v1/failover", {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB})
    wait_for(lambda: len(api.ask("GET", f"/v1/job/{name}")[1]["steps"]) >= 3, "some steps")
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(60)
    site.start()
    done = job(api, name, ("done",))
    assert done["result"]["kind"] == "live"
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert double["name"] == "db1-double" and double["state"] == "running"
    # one double, however often it was begun
    assert len([p for p in processes_of(folder / "state/vm/db1-double") if b"qemu-system" in cmdline(p).split(b"\0")[0]]) == 1
    failed = job(api, order(api, "/v1/failover/db1-double/cleanup", {}), ("failed",))
    assert "--live" in failed["error"]


def test_a_double_goes_back_to_another_point(site, api):
    job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB}), ("done",))
    points = api.ask("GET", "/v1/machine/db1/point")[1]["points"]
    assert len(points) == 4
    first = f"{points[0]['epoch']}:{points[0]['seq']}"
    job(api, order(api, "/v1/failover/db1-test/repoint", {"point": first}), ("done",))
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert (double["epoch"], double["seq"]) == (points[0]["epoch"], points[0]["seq"]) and double["state"] == "running"


def test_a_double_that_cannot_be_mended_starts_and_says_why_once_and_with_require_mend_it_does_not(site, api):
    """No mender is on the hosts of tests."""
    order_of = {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB}
    done = job(api, order(api, "/v1/failover", {**order_of, "mend": True}), ("done",))
    why = done["result"]["warning"]
    assert why.startswith("it is not mended: ") and "`lifeboat rescue mender` makes it" in why and done["result"]["mended"] == ""
    assert "mend the double" in [s["name"] for s in done["steps"]]
    first = api.ask("GET", "/v1/machine/db1/point")[1]["points"][0]
    job(api, order(api, "/v1/failover/db1-test/repoint", {"point": f"{first['epoch']}:{first['seq']}"}), ("done",))
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert double["state"] == "running" and double["warning"] == why
    failed = job(api, order(api, "/v1/failover", {**order_of, "name": "other", "mend_required": True}), ("failed",))
    assert "`lifeboat rescue mender` makes it" in failed["error"]
    assert [d["name"] for d in api.ask("GET", "/v1/failover")[1]["failovers"]] == ["db1-test"]


def test_a_failover_that_can_not_be_is_refused_before_it_begins(api):
    for body, status in (({"machine": "nobody", "kind": "test"}, 404), ({"machine": "db1", "kind": "sideways"}, 400),
                         ({"machine": "db1", "kind": "test", "forwards": ["8080"]}, 400),
                         ({"machine": "db1", "kind": "test", "mend": "yes"}, 400),
                         ({"machine": "db1", "kind": "test", "mend": False, "mend_required": True}, 400),
                         ({"machine": "db1", "kind": "test", "name": "../up"}, 400)):
        got, answer = api.ask("POST", "/v1/failover", body)
        assert got == status, answer
    assert api.ask("GET", "/v1/job")[1]["jobs"] == []
    assert api.ask("POST", "/v1/failover/nothing/commit", {})[0] == 404


def test_a_second_order_for_a_double_is_told_of_the_first_whose_wait_ends_when_it_is_cancelled(api, folder):
    name = order(api, "/v1/failover", {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB, "forwards": ["tcp:0:22"], "probe_port": 22,
                                       "wait_s": 3600})
    wait_for(lambda: any(s["name"] == "wait until it runs" for s in api.ask("GET", f"/v1/job/{name}")[1]["steps"]), "the wait for its port")
    for verb in ("cleanup", "commit", "repoint"):
        status, answer = api.ask("POST", f"/v1/failover/db1-test/{verb}", {"point": "latest"})
        assert status == 409 and name in answer["error"]["message"] and "job cancel" in answer["error"]["message"], answer
    assert api.ask("POST", f"/v1/job/{name}/cancel", {})[0] == 200
    job(api, name, ("cancelled",))
    assert api.ask("GET", "/v1/failover")[1]["failovers"] == [] and processes_of(folder / "state/vm") == []


def test_a_pin_keeps_a_point_under_its_name(api):
    status, point = api.ask("POST", "/v1/machine/db1/point", {"point": "latest", "name": "before-upgrade"})
    assert status == 200, point
    assert "before-upgrade" in [p["name"] for p in api.ask("GET", "/v1/machine/db1/point")[1]["points"]]
    assert api.ask("DELETE", "/v1/machine/db1/point/before-upgrade")[0] == 200
    assert "before-upgrade" not in [p["name"] for p in api.ask("GET", "/v1/machine/db1/point")[1]["points"]]


def test_a_failback_takes_the_last_of_the_double_and_goes_on_after_a_kill(site, api, folder):
    job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB}), ("done",))
    early = job(api, order(api, "/v1/failover/db1-double/failback", {"wait_s": 0}), ("failed",))
    assert "not committed" in early["error"]
    assert "comes first" in job(api, order(api, "/v1/failover/db1-double/home", {}), ("failed",))["error"]
    job(api, order(api, "/v1/failover/db1-double/commit", {}), ("done",))
    name = order(api, "/v1/failover/db1-double/failback", {"wait_s": 0})
    wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["steps"], "the first step")
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(60)
    site.start()
    done = job(api, name, ("done",))
    assert done["result"]["gathered_bytes"] == 0        # nobody worked there
    newest = api.ask("GET", "/v1/machine/db1/point?limit=1")[1]["points"][-1]
    assert (newest["epoch"], newest["seq"]) == (done["result"]["epoch"], done["result"]["seq"])
    job(api, order(api, "/v1/failover/db1-double/home", {}), ("done",))
    assert api.ask("GET", "/v1/failover")[1]["failovers"] == []
    assert api.ask("POST", "/v1/failover/db1-double/failback", {})[0] == 404
