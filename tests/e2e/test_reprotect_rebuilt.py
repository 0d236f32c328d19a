# SPDX-License-Identifier: Apache-2.0
"""The configuration server is lost in the middle of the cycle and rebuilt from the vault: the way home goes on."""
import os
import shutil
import signal

from test_config import cmdline
from test_config_failover import processes_of
from test_failback import folder, write  # noqa: F401 (a fixture)
from test_recovery import same
from test_reprotect import MIB, failed, faults, site  # noqa: F401 (fixtures)
from test_target import write_in_double


def lose_and_rebuild(site, folder):  # noqa: F811
    """All that the server had but its doubles, and the vault."""
    site.stop()
    (site.folder / "state/vm").rename(folder / "vm")
    for lost in ("state", "etc", "admin"):
        shutil.rmtree(site.folder / lost)
    site.make(site.port, site.process_port)
    with open(site.folder / "etc/config.conf", "a") as conf:
        conf.write("double_host = 127.0.0.1\n")
    shutil.rmtree(site.folder / "state/vm", ignore_errors=True)
    (folder / "vm").rename(site.folder / "state/vm")
    site.start()


def power_off(site, double):  # noqa: F811
    qemu, = [p for p in processes_of(site.folder / "state/vm") if b"qemu-system" in cmdline(p).split(b"\0")[0]]
    os.kill(qemu, signal.SIGTERM)
    site.wait(lambda: site.ask("failover", "list")["failovers"][0]["state"] != "running", "the end of the double's VM", 180)


def test_a_rebuilt_server_knows_its_ways_back_and_takes_a_machine_home(failed, site, folder):  # noqa: F811
    failed.fail_over()
    failed.double.boot()
    failed.double.wait_text("waits for")
    failed.reprotect()
    back, double = site.machine("host-back")["id"], site.folder / "state/vm/host-double"
    lose_and_rebuild(site, folder)
    assert site.machine("host")["state"] == "failed over"               # it may not write while its double works
    assert site.machine("host-back")["id"] == back
    assert failed.row()["state"] == "starting" and "server that was lost" in failed.row()["text"]
    # the double knows the lost server's authority only
    said = site.lifeboat("failover", "reprotect", "host-double", check=False)
    assert said.returncode != 0 and "shut it down from within" in said.stderr, said.stderr
    failed.double.close()
    power_off(site, "host-double")
    failed.double.boot()                                                # told by its firmware as it is by then
    failed.reprotect()
    assert site.ask("failover", "list")["failovers"][0]["state"] == "running"
    assert failed.row()["state"] == "protected" and site.machine("host-back")["id"] == back
    write_in_double(double, 0, 0x5a, 5 * MIB, 65536)
    site.lifeboat("failback", "start", "host-double", "--wait", 0, "--confirm", "host-double")
    failed.double.close()
    lose_and_rebuild(site, folder)                                      # and again, half-way home
    assert failed.row()["state"] == "home"
    done = site.ask("failback", "start", "host-double", "--wait", 0, "--confirm", "host-double")
    assert done["result"]["machine"] == "host-back"
    image = folder / "image"
    site.lifeboat("point", "export", "host-back", failed.name, image, "--vault", site.vault_url, "--passphrase-file", site.passphrase_file,
                  server=False)
    same(image, double / "disk0.qcow2", "-f", "raw", "-F", "qcow2")
    site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double")
    failed.check_no_trace()
    assert site.ask("failover", "list")["failovers"] == [] and site.machine("host")["state"] != "failed over"
    lose_and_rebuild(site, folder)
    assert site.ask("failover", "list")["failovers"] == [] and site.machine("host-back") is None
