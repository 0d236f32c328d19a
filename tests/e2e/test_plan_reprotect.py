# SPDX-License-Identifier: Apache-2.0
"""All doubles of a plan replicate back and go home by one order each, onto the disks that the plan names."""
import json

from test_failback import write
from test_recovery import same
from test_reprotect import MIB, Failed, api, failed, faults, folder, site, target  # noqa: F401 (fixtures)
from test_target import write_in_double


def test_a_plans_doubles_replicate_back_and_go_home_onto_the_disks_that_the_plan_names(failed: Failed, site, api, folder, target):  # noqa: F811
    home = folder / "home.raw"
    home.write_bytes(bytes(failed.size_bytes))
    (folder / "small.raw").write_bytes(bytes(4096))
    failed.fail_over(commit=False)
    entry = {"machine": "host", "home": {"target": "away", "to": {failed.name: str(home)}, "boot": {"hook": "power-on"}}}
    (folder / "shop.json").write_text(json.dumps({"name": "shop", "groups": [{"machines": [entry]}]}))
    site.lifeboat("plan", "create", folder / "shop.json")
    early = site.lifeboat("plan", "reprotect", "shop", check=False)
    assert early.returncode != 0 and "no committed live double" in early.stderr
    site.lifeboat("plan", "commit", "shop")
    failed.double.boot()
    failed.double.wait_text("waits for `lifeboat failover reprotect")
    # what the order says counts, and is looked at before anything is begun
    for words, said in ((("--target", "nobody"), "nobody"), (("--to", f"host:{failed.name}={folder}/small.raw"), "small"),
                        (("--to", f"host:nodisk={home}"), "nodisk")):
        refused = site.lifeboat("plan", "reprotect", "shop", *words, check=False)
        assert refused.returncode != 0 and "nothing was begun: host: " in refused.stderr and said in refused.stderr, refused.stderr
    looked = site.lifeboat("plan", "reprotect", "shop", "--dry-run")
    assert "host: ok" in looked.stdout and "nothing was begun" in looked.stdout
    assert failed.row() is None and failed.server() is None
    done = site.ask("plan", "reprotect", "shop")
    assert done["state"] == "done" and done["result"]["machines"]["host"]["state"] == "done"
    assert failed.row()["state"] == "protected" and failed.row()["target"] == "away" and target.is_reached()
    again = site.ask("plan", "reprotect", "shop")
    assert again["result"]["machines"]["host"]["state"] == "replicates back already"

    write(failed.disk, 5 * MIB, b"the last order" * 4096)
    write_in_double(site.folder / "state/vm/host-double", 0, 0x5a, 5 * MIB, 65536)
    early = site.lifeboat("plan", "failback-commit", "shop", "--confirm", "shop", check=False)
    assert early.returncode != 0 and "still has its machine's place" in early.stderr
    # its target server can't start it: the disks are at home all the same, and are written once
    (folder / "hooks/power-on").write_text("#!/bin/sh\necho no power; exit 1\n")
    unstarted = site.lifeboat("plan", "failback", "shop", "--confirm", "shop", "--wait", 0, check=False)
    assert unstarted.returncode != 0 and "no power" in unstarted.stderr, unstarted.stderr
    same(home, site.folder / "state/vm/host-double/disk0.qcow2", "-f", "raw", "-F", "qcow2")
    assert failed.row()["state"] == "landed"
    (folder / "hooks/power-on").write_text(f"#!/bin/sh\necho on >>{folder}/turned-on\n")
    with open(home, "r+b") as disk:                         # as its machine does
        disk.write(b"works at home")
    before = home.read_bytes()
    for state in ("done", "is at home already"):
        done = site.ask("plan", "failback", "shop", "--confirm", "shop", "--wait", 0)
        assert done["result"]["machines"]["host"]["state"] == state
    assert home.read_bytes() == before and (folder / "turned-on").read_text() == "on\n" and failed.row()["state"] == "started"
    undo = site.lifeboat("failover", "reprotect", "host-double", "--cancel", check=False)
    assert undo.returncode != 0 and "on its way home" in undo.stderr
    failed.double.close()
    site.lifeboat("plan", "failback-commit", "shop", "--confirm", "shop")
    failed.check_no_trace()
    assert site.ask("failover", "list")["failovers"] == [] and site.machine("host")["state"] != "failed over"
