# SPDX-License-Identifier: Apache-2.0
"""An operator who thinks again: a failover that was cancelled is ordered again, otherwise, or given up; never two writers."""
import os
import pathlib
import signal
import time

import pytest

from test_config import cmdline
from test_config_failover import MIB, folder, job, order, processes_of  # noqa: F401 (a fixture)
from test_failback import disk, vault_words, write  # noqa: F401 (a fixture)
from test_job_kills import (api, cancelled_at_each_step, deadly, doubles, faults, follow, no_trace, pins,  # noqa: F401 (fixtures)
                            running_vms, site)
from test_recovery import same
from test_target import write_in_double

LIVE = {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB}


def cancelled_at(site, api, faults, place, body):  # noqa: F811
    with faults.on(faults.cancels, place) as cancels:
        done = follow(site, api, order(api, "/v1/failover", body))
        assert done["state"] == "cancelled" and cancels(), done


def test_a_live_failover_that_is_cancelled_at_any_step_is_ordered_again(site, api, faults, folder):  # noqa: F811
    def after(done):
        assert done["state"] == "cancelled" and running_vms(folder) <= 1, done
        reached.extend(d["step"] for d in doubles(api).values())

    reached = []
    # once it runs, nothing but telling the world is left to be cancelled
    done, times = cancelled_at_each_step(site, api, faults, "/v1/failover", LIVE, after,
                                         until=lambda: reached[-1:] == ["done"])
    assert times >= 7 and "serve the disks from the vault" in reached and reached[-1] == "done"
    assert doubles(api)["db1-double"]["state"] == "running" and running_vms(folder) == 1
    status, answer = api.ask("POST", "/v1/failover", LIVE)
    assert status == 409 and "there is a double db1-double already" in answer["error"]["message"]


def test_other_words_begin_it_anew_and_a_server_that_dies_anywhere_does_what_was_said_last(site, api, faults, folder):  # noqa: F811
    first, *_, last = api.ask("GET", "/v1/machine/db1/point")[1]["points"]
    cancelled_at(site, api, faults, "failover of db1-double: wait until it runs", LIVE)
    assert doubles(api)["db1-double"]["seq"] == last["seq"]
    for body in ({**LIVE, "kind": "test", "name": "db1-double"}, {**LIVE, "machine": "web1", "name": "db1-double"}):
        status, answer = api.ask("POST", "/v1/failover", body)
        assert status == 409 and "choose another name" in answer["error"]["message"], answer
    other = {**LIVE, "memory_bytes": 96 * MIB, "point": f"{first['epoch']}:{first['seq']}"}
    deadly(site, api, faults, "/v1/failover", other)
    double = doubles(api)["db1-double"]
    assert double["state"] == "running" and double["seq"] == first["seq"] and running_vms(folder) == 1 and len(pins(api)) == 1


def test_a_failover_is_given_up_by_a_server_that_dies_anywhere_and_a_committed_one_is_not(site, api, faults, folder):  # noqa: F811
    assert api.ask("POST", "/v1/failover/db1-double/undo")[0] == 404
    job(api, order(api, "/v1/failover", {**LIVE, "kind": "test"}), ("done",))
    status, answer = api.ask("POST", "/v1/failover/db1-test/undo")
    assert status == 400 and "is a test" in answer["error"]["message"], answer
    job(api, order(api, "/v1/failover/db1-test/cleanup", {}), ("done",))
    cancelled_at(site, api, faults, "failover of db1-double: wait until it runs", LIVE)
    deadly(site, api, faults, "/v1/failover/db1-double/undo", {})
    no_trace(api, folder)
    job(api, order(api, "/v1/failover", LIVE), ("done",))
    job(api, order(api, "/v1/failover/db1-double/commit", {}), ("done",))
    status, answer = api.ask("POST", "/v1/failover/db1-double/undo")
    assert status == 400 and "failback start db1-double" in answer["error"]["message"], answer


@pytest.fixture
def here(build, folder, capture_possible, monkeypatch):  # noqa: F811
    """A site whose machine is this host, protected."""
    from host_agent import HostAgent
    from lifeboat_site import Site
    from test_job_kills import Faults
    folder.chmod(0o755)
    faults = Faults(folder, monkeypatch)  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, folder / "site").make()
    hooks = folder / "hooks"
    hooks.mkdir(mode=0o755)
    for name in ("fence-source", "unfence-source"):
        (hooks / name).write_text(f'#!/bin/sh\necho "{name} $LIFEBOAT_MACHINE" >>{folder}/said\n')
        (hooks / name).chmod(0o755)
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {hooks}\n")
    s.start()
    agent = HostAgent(s, folder / "agent").enrol().start()
    s.faults, s.here = faults, agent
    yield s
    agent.close()
    s.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double", check=False)
    s.stop()


def process_server(site):  # noqa: F811
    pid, = [p for p in processes_of(site.folder) if b"lifeboat-process" in cmdline(p).split(b"\0")[0]]
    return pid


def start(site, *words, check=True):  # noqa: F811
    return site.lifeboat("failover", "start", "host", "--confirm", "host", "--memory", "64M", *words, check=check)


def replicates_again(site, disk, folder, image):  # noqa: F811
    """Its own writes reach the vault, and nothing else does."""
    write(disk, 24 * MIB, os.urandom(MIB))
    site.here.wait_point_after(time.time_ns())
    site.lifeboat("point", "export", "host", disk.name, folder / image, *vault_words(site))
    same(folder / image, disk.device, "-f", "raw", "-F", "raw")
    site.here.wait(lambda: site.machine("host")["state"] == "protected", "its state")


def test_a_source_replicates_again_when_its_failover_is_cancelled_before_the_vault_s_fence_or_given_up(here, disk, folder):  # noqa: F811
    write(disk, 0, os.urandom(4 * MIB))
    here.here.protect([disk])
    # its process server hangs, so that the site's fence is there and the vault's is not
    server = process_server(here)
    os.kill(server, signal.SIGSTOP)
    try:
        start(here, "--no-wait")
        here.wait(lambda: here.machine("host")["state"] == "failed over", "the site's fence", 240)
        at_work, = [j for j in here.ask("job", "list")["jobs"] if j["kind"] == "failover"]
        here.lifeboat("job", "cancel", at_work["id"])
        here.wait(lambda: [j for j in here.ask("job", "list")["jobs"] if j["id"] == at_work["id"]][0]["state"] == "cancelled", "its end", 240)
    finally:
        os.kill(server, signal.SIGCONT)
    assert here.ask("failover", "list")["failovers"] == []
    replicates_again(here, disk, folder, "one")
    # after the fence it is the operator's word that gives it back, whether the double runs or never did
    with here.faults.on(here.faults.cancels, "failover of host-double: make the overlays"):
        assert start(here, check=False).returncode != 0
    assert here.machine("host")["state"] == "failed over"
    write(disk, 20 * MIB, b"written while nobody replicated" * 1000)
    start(here, "--wait-drained")                       # other words; nothing can come any more, so nothing is waited for
    write_in_double(here.folder / "state/vm/host-double", 0, 0x5a, 12 * MIB, 65536)
    here.here.wait(lambda: here.here.status()["state"] == "refused", "refusal of the source")
    here.lifeboat("failover", "undo", "host-double", "--confirm", "host-double")
    assert here.ask("failover", "list")["failovers"] == [] and (folder / "said").read_text().endswith("unfence-source host\n")
    replicates_again(here, disk, folder, "two")         # and nothing that the double wrote is in its image
    # a double that was removed by hand: by the machine's own name
    start(here)
    assert "has a live double" in here.lifeboat("failover", "undo", "host", "--confirm", "host", check=False).stderr
    here.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double")
    here.lifeboat("failover", "undo", "host", "--confirm", "host")
    replicates_again(here, disk, folder, "three")
    assert "there is nothing to undo" in here.lifeboat("failover", "undo", "host", "--confirm", "host", check=False).stderr


def test_a_failback_is_undone_by_a_server_that_dies_anywhere_and_the_double_goes_on_where_it_was(site, api, faults, folder):  # noqa: F811
    job(api, order(api, "/v1/failover", LIVE), ("done",))
    job(api, order(api, "/v1/failover/db1-double/commit", {}), ("done",))
    write_in_double(folder / "state/vm/db1-double", 0, 0x5a, MIB, 65536)
    for body, said in (({}, "nothing to undo"), ({"halt": {"hook": "x", "domain": "y"}}, "what is meant"), ({"original_is_down": 7}, "original_is_down")):
        status, answer = api.ask("POST", "/v1/failover/db1-double/failback/undo", body)
        assert status == 400 and said in answer["error"]["message"], answer
    first = job(api, order(api, "/v1/failover/db1-double/failback", {"wait_s": 0}), ("done",))
    assert first["result"]["gathered_bytes"] > 0 and running_vms(folder) == 0
    deadly(site, api, faults, "/v1/failover/db1-double/failback/undo", {})
    double = doubles(api)["db1-double"]
    assert double["state"] == "running" and double["committed"] and running_vms(folder) == 1
    write_in_double(folder / "state/vm/db1-double", 0, 0x77, MIB + 65536, 4096)
    second = job(api, order(api, "/v1/failover/db1-double/failback", {"wait_s": 0}), ("done",))
    assert second["result"]["gathered_bytes"] == 4096 and second["result"]["epoch"] > first["result"]["epoch"]
    job(api, order(api, "/v1/failover/db1-double/home", {}), ("done",))
    no_trace(api, folder)
