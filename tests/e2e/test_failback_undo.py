# SPDX-License-Identifier: Apache-2.0
"""The original does not come up: the double starts again, the original is kept down, and the way home begins anew."""
from test_failback import folder, write  # noqa: F401 (a fixture)
from test_job_kills import deadly
from test_recovery import same
from test_reprotect import MIB, api, failed, faults, site, target  # noqa: F401 (fixtures)
from test_target import write_in_double


def test_the_double_goes_on_where_it_was_and_home_again_whoever_dies_meanwhile(failed, site, api, faults, folder, target):  # noqa: F811
    hook = folder / "hooks/power-off"
    hook.write_text(f"#!/bin/sh\nrm {folder}/turned-on && echo \"$LIFEBOAT_EVENT\" >>{folder}/said\n")
    hook.chmod(0o755)
    failed.fail_over()
    failed.double.boot()
    failed.double.wait_text("waits for")
    home, double = folder / "home.raw", site.folder / "state/vm/host-double"
    home.write_bytes(bytes(failed.size_bytes))
    failed.reprotect("--target", "away", "--to", f"{failed.name}={home}")
    back = site.machine("host-back")["id"]
    write_in_double(double, 0, 0x5a, 5 * MIB, 65536)
    go_home = ["failback", "start", "host-double", "--wait", 0, "--confirm", "host-double"]
    site.lifeboat(*go_home, "--hook", "power-on")
    assert (folder / "turned-on").exists()
    undo = site.lifeboat("failback", "undo", "host-double", "--confirm", "host-double", check=False)
    assert undo.returncode != 0 and "--original-is-down" in undo.stderr, undo.stderr
    assert site.ask("failover", "list")["failovers"][0]["state"] != "running", "both would run"
    done = deadly(site, api, faults, "/v1/failover/host-double/failback/undo", {"halt": {"hook": "power-off"}})
    assert done["result"]["reprotect_job"] and (folder / "said").read_text() == "halt\n" and not (folder / "turned-on").exists()
    site.wait(site.answers, "answer of the configuration server", 180)
    assert site.ask("failover", "list")["failovers"][0]["state"] == "running"
    # under its own name and in its own journal, by itself
    failed.double.wait(lambda: (failed.row() or {}).get("state") == "protected", "its way back")
    assert site.machine("host-back")["id"] == back
    write(failed.disk, 6 * MIB, b"written after all" * 1000)
    write_in_double(double, 0, 0x77, 7 * MIB, 65536)
    site.lifeboat(*go_home, "--hook", "power-on")
    same(home, double / "disk0.qcow2", "-f", "raw", "-F", "qcow2")
    failed.double.close()
    site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double")
    failed.check_no_trace()
    assert site.ask("failover", "list")["failovers"] == [] and site.machine("host")["state"] != "failed over"
