# SPDX-License-Identifier: Apache-2.0
"""All doubles of a plan replicate back by one order."""
import json

from test_reprotect import Failed, api, failed, faults, folder, site  # noqa: F401 (fixtures)


def test_a_plans_doubles_replicate_back_by_one_order_which_can_be_given_again(failed: Failed, site, folder):  # noqa: F811
    (folder / "shop.json").write_text(json.dumps({"name": "shop", "groups": [{"machines": ["host"]}]}))
    failed.fail_over(commit=False)
    site.lifeboat("plan", "create", folder / "shop.json")
    early = site.lifeboat("plan", "reprotect", "shop", check=False)
    assert early.returncode != 0 and "no committed live double" in early.stderr
    site.lifeboat("plan", "commit", "shop")
    failed.double.boot()
    failed.double.wait_text("waits for `lifeboat failover reprotect")
    done = site.ask("plan", "reprotect", "shop")
    assert done["state"] == "done" and done["result"]["machines"]["host"]["state"] == "done"
    assert failed.row()["state"] == "protected" and site.machine("host-back")["state"] == "protected"
    again = site.ask("plan", "reprotect", "shop")
    assert again["result"]["machines"]["host"]["state"] == "replicates back already"
