# SPDX-License-Identifier: Apache-2.0
"""Recovery plans with doubles that run: by order to the server, over its kills, and from the vault alone."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from lifeboat_site import Site
from provoked import wait_for
from test_config import Api, cmdline
from test_config_failover import MIB, folder, job, order, processes_of  # noqa: F401 (a fixture)


@pytest.fixture
def site(build, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    disk = folder / "vda.img"
    disk.write_bytes(os.urandom(1 * MIB) + bytes(1 * MIB))
    (folder / "oracle").mkdir()
    for machine in ("db1", "web1", "web2"):
        subprocess.run([build / "tests/tools/mkvault", "--vault", s.vault_url, "--passphrase-file", s.passphrase_file, "--machine", machine,
                        "--points", "2", "--oracle", folder / "oracle", f"--disk=vda={disk}"], check=True, capture_output=True)
    s.make()
    hooks = folder / "hooks"
    hooks.mkdir(mode=0o755)
    with open(folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {hooks}\n")
    note = hooks / "note"
    note.write_text(f'#!/bin/sh\necho "$LIFEBOAT_GROUP $LIFEBOAT_KIND" >> {folder}/said\n')
    note.chmod(0o755)
    s.start()
    yield s
    if s.server is None:
        s.start()
    api = Api(s, s.identity)
    for double in api.ask("GET", "/v1/failover")[1]["failovers"]:
        job(api, order(api, f"/v1/failover/{double['name']}/cleanup", {"live_too": True}), ("done",))
    s.stop()


@pytest.fixture
def api(site):
    return Api(site, site.identity)


def machine(name):
    return {"machine": name, "memory_bytes": 64 * MIB}


PLAN = {"name": "shop", "groups": [
    {"name": "databases", "machines": [machine("db1")], "after": [{"script": "note"}]},
    {"name": "front", "machines": [machine("web1"), machine("web2")],
     "before": [{"manual": "Tell the customers", "for": "failover"}], "after": [{"script": "note"}]}]}


def doubles(api):
    return {d["name"]: d for d in api.ask("GET", "/v1/failover")[1]["failovers"]}


def plan_file(folder):  # noqa: F811
    path = folder / "shop.json"
    path.write_text(json.dumps(PLAN))
    return path


def test_a_plan_is_rehearsed_and_leaves_no_trace(site, api, folder):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    assert site.lifeboat("plan", "create", plan_file(folder), check=False).returncode == 5
    done = site.ask("plan", "test", "shop")
    assert done["state"] == "done", done
    assert sorted(doubles(api)) == ["db1-test", "web1-test", "web2-test"]
    assert (folder / "said").read_text() == "databases test\nfront test\n"
    again = site.lifeboat("plan", "test", "shop", check=False)
    assert again.returncode == 1 and "plan cleanup shop" in again.stderr
    site.lifeboat("plan", "cleanup", "shop", "--confirm", "shop")
    assert doubles(api) == {} and processes_of(folder / "state/vm") == []
    assert list((folder / "state/vm").iterdir()) == []
    for name in ("db1", "web1", "web2"):
        assert not [p["name"] for p in api.ask("GET", f"/v1/machine/{name}/point")[1]["points"] if p.get("name")]
    # what is shown can be written back, and goes when it is told to
    shown = site.ask("plan", "show", "shop")
    (folder / "shop.json").write_text(json.dumps(shown))
    site.lifeboat("plan", "update", folder / "shop.json")
    site.lifeboat("plan", "delete", "shop", "--confirm", "shop")
    assert site.lifeboat("plan", "show", "shop", check=False).returncode == 4


def test_a_plans_test_in_libvirt_has_an_isolated_network_of_its_own_and_leaves_nothing_of_it(libvirt, site, api, folder):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    site.lifeboat("plan", "test", "shop")
    there = doubles(api)
    networks = {d["network"] for d in there.values()}
    assert len(there) == 3 and len(networks) == 1 and networks.pop().startswith("isolated:") and sorted(libvirt.domains()) == sorted(there)
    segments = [p for p in processes_of(folder / "state/vm") if b"lifeboat-segment" in cmdline(p)]
    assert len(segments) == 1
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(60)
    site.start()
    site.lifeboat("plan", "cleanup", "shop", "--confirm", "shop")
    wait_for(lambda: not processes_of(folder / "state/vm"), "the end of the network")
    assert libvirt.domains() == [] and list((folder / "state/vm").iterdir()) == []


def test_a_plan_fails_over_waits_for_a_person_commits_and_bears_kills_of_the_server(site, api, folder):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    name = order(api, "/v1/plan/shop/failover", {})

    def kill():
        site.server.send_signal(signal.SIGKILL)
        site.server.wait(60)
        site.start()

    wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["result"].get("machines"), "the first machine to be begun")
    kill()
    status, answer = api.ask("POST", "/v1/plan/shop/test", {})
    assert status == 409 and name in answer["error"]["message"]
    waiting = wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["result"].get("waiting"), "the plan to wait")
    assert waiting == {"action": "2-before-1", "text": "Tell the customers"}
    assert sorted(doubles(api)) == ["db1-double"]
    kill()
    assert sorted(doubles(api)) == ["db1-double"]
    site.lifeboat("plan", "confirm", "shop", "--action", "2-before-1")
    kill()
    job(api, name, ("done",))
    assert {d["state"] for d in doubles(api).values()} == {"running"}
    assert sorted(doubles(api)) == ["db1-double", "web1-double", "web2-double"]
    assert (folder / "said").read_text().splitlines()[0] == "databases failover"
    # again: what runs is left alone
    name = order(api, "/v1/plan/shop/failover", {})
    wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["result"].get("waiting"), "the plan to wait")
    site.lifeboat("plan", "confirm", "shop")
    done = job(api, name, ("done",))
    assert {m["state"] for m in done["result"]["machines"].values()} == {"runs already"}
    site.lifeboat("plan", "commit", "shop")
    assert all(d["committed"] for d in doubles(api).values())


def test_a_machine_that_goes_from_the_vault_while_a_plan_waits_ends_it_by_name_and_what_runs_stays(site, api, folder):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    name = order(api, "/v1/plan/shop/failover", {"point": "2100-01-01T00:00:00Z"})
    wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["result"].get("waiting"), "the plan to wait")
    machine = next(m["id"] for m in site.vault_ask("machine", "list")["machines"] if m["name"] == "web1")
    shutil.rmtree(folder / "vault/m" / machine)
    site.lifeboat("plan", "confirm", "shop")
    failed = job(api, name, ("failed",))
    assert "front: 1 of its machines failed" in failed["error"] and "web1" in failed["error"], failed["error"]
    assert {m: one["state"] for m, one in failed["result"]["machines"].items()} == {"db1": "done", "web1": "failed", "web2": "done"}
    assert {d["state"] for n, d in doubles(api).items() if n != "web1-double"} == {"running"}
    again = site.lifeboat("plan", "failover", "shop", "--confirm", "shop", check=False)
    assert again.returncode != 0 and "web1" in again.stderr and len(doubles(api)) >= 2


def alone(site, folder, *words, check=True, **kw):  # noqa: F811
    """A command of plans with the vault alone."""
    where = ("--folder", folder / "state/vm", "--vault", site.vault_url)
    if words[1] in ("test", "failover"):
        where += ("--hooks", folder / "hooks", "--fabric", "qemu")
    return site.lifeboat(*words, *where, server=False, check=check, **kw)


def pinned(site):
    """{machine: name} of what a plan without a server keeps in the vault."""
    return {p.parts[-3]: p.name for p in pathlib.Path(site.vault_url.removeprefix("dir:")).glob("m/*/p/plan-*")}


def test_a_plan_runs_from_the_vault_alone(site, api, folder):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    site.stop()
    assert [p["name"] for p in site.vault_ask("plan", "list")["plans"]] == ["shop"]
    assert len(site.vault_ask("plan", "show", "shop")["groups"]) == 2
    no = alone(site, folder, "plan", "failover", "shop", "--confirm", "shop", check=False, input="no\n")
    assert no.returncode == 5 and "run it again" in no.stderr
    # the machines of later groups have no doubles yet that keep their points
    kept = pinned(site)
    assert len(kept) == 3 and len(set(kept.values())) == 1
    other = alone(site, folder, "plan", "failover", "shop", "--confirm", "shop", "--point", "latest-app", check=False)
    assert other.returncode == 2 and "was begun from latest" in other.stderr
    p = alone(site, folder, "plan", "failover", "shop", "--confirm", "shop", "-o", "json", input="yes\n")
    done = json.loads(p.stdout)["data"]
    assert [m["double"] for m in done["machines"]] == ["db1-double", "web1-double", "web2-double"] and done["failed"] == 0
    assert pinned(site) == {}
    # what was done is not done again
    assert (folder / "said").read_text().splitlines() == ["databases failover", "front failover"]
    committed = json.loads(alone(site, folder, "plan", "commit", "shop", "-o", "json").stdout)["data"]
    assert [m["error"] for m in committed["machines"]] == ["", "", ""]
    assert not list((folder / "state/vm").glob("plan-*"))
    site.start()
    assert all(d["committed"] for d in doubles(api).values()) and len(doubles(api)) == 3


def test_a_plan_from_the_vault_alone_bears_kills_and_two_at_once_and_its_cleanup_leaves_no_trace(site, folder, monkeypatch):  # noqa: F811
    site.lifeboat("plan", "create", plan_file(folder))
    site.stop()
    places = folder / "places"
    places.write_text("only double web1\n")
    monkeypatch.setenv("LIFEBOAT_FAULT_PLACES", str(places))
    deaths = 0

    def to_the_end(*words):
        nonlocal deaths
        while True:
            p = alone(site, folder, *words, check=False)
            if p.returncode != -signal.SIGKILL:
                # killed when the last of them was gone, a cleanup finds nothing more to do
                assert p.returncode == 0 or words[1] == "cleanup" and deaths and p.returncode == 4, p.stderr
                return
            deaths += 1

    to_the_end("plan", "test", "shop")
    assert pinned(site) == {}
    assert sorted(p.name for p in (folder / "state/vm").iterdir()) == ["db1-test", "web1-test", "web2-test"]
    # an action is in the record before the next one begins: it is not done twice
    assert (folder / "said").read_text() == "databases test\nfront test\n"
    with open(folder / "state/vm/plan-shop-test.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        busy = alone(site, folder, "plan", "cleanup", "shop", "--confirm", "shop", check=False)
        assert busy.returncode != 0 and "another `lifeboat plan` is at work" in busy.stderr
    to_the_end("plan", "cleanup", "shop", "--confirm", "shop")
    assert deaths == len(places.read_text().splitlines()) - 1 >= 15
    assert processes_of(folder / "state/vm") == [] and list((folder / "state/vm").iterdir()) == []
    assert alone(site, folder, "plan", "cleanup", "shop", "--confirm", "shop", check=False).returncode == 4


def test_a_plans_script_that_hangs_or_fails_is_ended_and_named_with_the_vault_alone(site, folder):  # noqa: F811
    for name, text in (("hangs", "sleep 1000"), ("fails", "echo no answer from the switch; exit 3")):
        (folder / "hooks" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "hooks" / name).chmod(0o755)
    plan = {"name": "shop", "groups": [{"name": "databases", "machines": [machine("db1")],
                                        "before": [{"script": "hangs", "timeout_s": 1, "on_failure": "continue"}], "after": [{"script": "fails"}]}]}
    (folder / "shop.json").write_text(json.dumps(plan))
    site.lifeboat("plan", "create", folder / "shop.json")
    site.stop()
    p = alone(site, folder, "plan", "test", "shop", check=False)
    assert p.returncode == 1 and "databases: script fails" in p.stderr and "no answer from the switch" in p.stderr
    assert "has not ended within 1 s" in p.stdout
    # mended, it goes on where it was
    (folder / "hooks/fails").write_text("#!/bin/sh\ntrue\n")
    p = alone(site, folder, "plan", "test", "shop")
    assert "Going on with what was begun" in p.stdout and "script hangs" not in p.stdout and "script fails" in p.stdout
    alone(site, folder, "plan", "cleanup", "shop", "--confirm", "shop")
    assert list((folder / "state/vm").iterdir()) == []
