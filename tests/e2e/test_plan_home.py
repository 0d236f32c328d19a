# SPDX-License-Identifier: Apache-2.0
"""A plan's way home: looked at first, all doubles shut down before anything is taken from one, then group after group."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from provoked import wait_for
from test_config import Api
from test_config_failover import MIB, folder, job, order  # noqa: F401 (a fixture)
from test_job_kills import api, doubles, faults, no_trace, running_vms, site  # noqa: F401 (fixtures)

PLAN = {"name": "shop", "groups": [
    {"name": "databases", "machines": [{"machine": "db1", "memory_bytes": 64 * MIB}],
     "before": [{"manual": "Tell the customers", "for": "failback"}, {"script": "note", "for": "failback"}, {"script": "fails"}],
     "after": [{"script": "note", "for": "failback"}]},
    {"name": "front", "machines": [{"machine": "web1", "memory_bytes": 64 * MIB}], "after": [{"script": "note", "for": "failback"}]}]}


def script(folder, name, text):  # noqa: F811
    (folder / "hooks" / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / "hooks" / name).chmod(0o755)


@pytest.fixture
def gone(site, api, folder):  # noqa: F811
    """Both machines run here as doubles, which are not committed yet."""
    script(folder, "fails", "true")
    script(folder, "note", f'echo "$LIFEBOAT_GROUP $LIFEBOAT_KIND $LIFEBOAT_PHASE" >> {folder}/said')
    assert api.ask("POST", "/v1/plan", PLAN)[0] == 200
    job(api, order(api, "/v1/plan/shop/failover", {}), ("done",))
    script(folder, "fails", "echo not on the way home; exit 3")
    assert not (folder / "said").exists()
    return api


def waits(api, name):  # noqa: F811
    return wait_for(lambda: api.ask("GET", f"/v1/job/{name}")[1]["result"].get("waiting"), "the plan to wait for a person")


def children(api, kind):  # noqa: F811
    return {j["target"]: j for j in api.ask("GET", "/v1/job")[1]["jobs"] if j["kind"] == kind}


def change(api, plan):  # noqa: F811
    status, answer = api.ask("PUT", "/v1/plan/shop", plan)
    assert status == 200, answer


def test_a_plan_goes_home_with_all_doubles_shut_down_before_anything_is_taken_from_one(gone, site, api, folder):  # noqa: F811
    # all that is in the way is told at once, and before anything is done
    refused = site.lifeboat("plan", "failback", "shop", "--confirm", "shop", check=False)
    assert refused.returncode != 0 and "nothing was begun" in refused.stderr
    assert all(f"{d} is not committed" in refused.stderr for d in ("db1-double", "web1-double")), refused.stderr
    site.lifeboat("plan", "commit", "shop")
    refused = site.lifeboat("plan", "failback", "shop", "--confirm", "shop", "--hook", "web1:power-on", check=False)
    assert refused.returncode != 0 and "web1-double is not reprotected" in refused.stderr and "db1:" not in refused.stderr
    for home, status, said in (({"nobody": {}}, 404, "no machine nobody"), ({"db1": {"boot": {}}}, 400, "boot"), ({"db1": {"tagret": "x"}}, 400, "tagret"),
                               ({m: {"target": "away", "to": {"vda": "/dev/sdb"}} for m in ("db1", "web1")}, 400, "both be written onto /dev/sdb")):
        got, answer = api.ask("POST", "/v1/plan/shop/reprotect", {"home": home})
        assert got == status and said in answer["error"]["message"], answer
    early = site.lifeboat("plan", "failback-commit", "shop", "--confirm", "shop", check=False)
    assert early.returncode != 0 and all(f"{m}: {m}-double still has its machine's place" in early.stderr for m in ("db1", "web1"))
    looked = site.lifeboat("plan", "failback", "shop", "--dry-run")
    assert "all of its disks is read" in looked.stdout and running_vms(folder) == 2
    assert not (folder / "said").exists() and children(api, "shut") == {} == children(api, "failback")

    # the doubles work until a person and the first group's scripts have done what comes before
    with ThreadPoolExecutor(4) as operators:
        answers = list(operators.map(lambda _: Api(site, site.identity).ask("POST", "/v1/plan/shop/failback", {"wait_s": 0}), range(4)))
    begun, *others = sorted(answers, key=lambda a: a[0])
    name = begun[1]["job"]
    assert [status for status, _ in others] == [409] * 3 and all(name in answer["error"]["message"] for _, answer in others), answers
    assert waits(api, name) == {"action": "1-before-1", "text": "Tell the customers"}
    assert running_vms(folder) == 2
    for path in ("failback", "home", "reprotect"):
        status, answer = api.ask("POST", f"/v1/plan/shop/{path}", {})
        assert status == 409 and name in answer["error"]["message"]
    site.lifeboat("plan", "confirm", "shop")
    done = job(api, name, ("done",))
    assert {m["state"] for m in done["result"]["machines"].values()} == {"done"}
    assert running_vms(folder) == 0 and {d["state"] for d in doubles(api).values()} == {"stopped"}
    assert (folder / "said").read_text().splitlines() == ["databases failback before", "databases failback after", "front failback after"]
    shut, back = children(api, "shut"), children(api, "failback")
    assert shut["web1-double"]["ended_ns"] <= shut["db1-double"]["started_ns"]                     # users' end first
    assert max(j["ended_ns"] for j in shut.values()) <= min(j["started_ns"] for j in back.values())
    assert back["db1-double"]["ended_ns"] <= back["web1-double"]["started_ns"]
    assert len(done["result"]["warnings"]) == 2 and "turned off" in done["result"]["warnings"][0]  # they know no ACPI
    for machine in ("db1", "web1"):
        last = api.ask("GET", f"/v1/machine/{machine}/point")[1]["points"][-1]
        assert last["seq"] == back[f"{machine}-double"]["result"]["seq"]
    site.lifeboat("plan", "failback-commit", "shop", "--confirm", "shop")
    no_trace(api, folder)
    none = site.lifeboat("plan", "failback", "shop", "--confirm", "shop", check=False)
    assert none.returncode != 0 and "no committed live double" in none.stderr


def test_scripts_that_hang_or_fail_and_doubles_that_go_meanwhile_end_a_plans_way_home_where_it_can_go_on(gone, site, api, folder):  # noqa: F811
    site.lifeboat("plan", "commit", "shop")
    plan = {**PLAN, "groups": [dict(g) for g in PLAN["groups"]]}
    script(folder, "hangs", "sleep 1000")
    plan["groups"][0]["before"] = [{"script": "hangs", "timeout_s": 1, "on_failure": "continue", "for": "failback"},
                                   {"script": "fails", "for": "failback"}]
    change(api, plan)
    failed = job(api, order(api, "/v1/plan/shop/failback", {"wait_s": 0}), ("failed",))
    assert "databases: script fails" in failed["error"] and "not on the way home" in failed["error"]
    assert "has not ended within 1 s" in failed["result"]["warnings"][0] and running_vms(folder) == 2
    # cancelled while it waits: the doubles work on
    plan["groups"][0]["before"] = [{"manual": "Is all ready at home?", "for": "failback"}]
    change(api, plan)
    name = order(api, "/v1/plan/shop/failback", {"wait_s": 0})
    waits(api, name)
    assert api.ask("POST", f"/v1/job/{name}/cancel", {})[0] == 200
    job(api, name, ("cancelled",))
    assert running_vms(folder) == 2
    # one is taken away while it waits, and the group's other ones wait for no one
    name = order(api, "/v1/plan/shop/failback", {"wait_s": 0})
    waits(api, name)
    job(api, order(api, "/v1/failover/web1-double/cleanup", {"live_too": True}), ("done",))
    assert api.ask("POST", "/v1/plan/shop/confirm", {})[0] == 200
    failed = job(api, name, ("failed",))
    assert "front: 1 of its doubles could not be shut down" in failed["error"] and "web1" in failed["error"]
    assert running_vms(folder) == 1 and children(api, "failback") == {}
    # without it the rest goes home
    name = order(api, "/v1/plan/shop/failback", {"wait_s": 0})
    waits(api, name)
    assert api.ask("POST", "/v1/plan/shop/confirm", {})[0] == 200
    done = job(api, name, ("done",))
    assert {m: one["state"] for m, one in done["result"]["machines"].items()} == {"db1": "done", "web1": "has no double here"}
    job(api, order(api, "/v1/plan/shop/home", {}), ("done",))
    no_trace(api, folder)
