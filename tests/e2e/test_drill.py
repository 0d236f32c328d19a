# SPDX-License-Identifier: Apache-2.0
"""Drills: a double is started, proven, pictured and removed, by order and by itself, and never outlives its time."""
import json
import os
import pathlib
import signal
import subprocess

import pytest

from lifeboat_site import Site
from provoked import wait_for
from test_config import Api
from test_config_failover import MIB, folder, job, order, processes_of  # noqa: F401 (a fixture)

# A guest of one sector: it reads the next sector from its disk, says it on the second serial port up to its first NUL, and the
# text at its offset 256 on the first one; then it halts. (cli; segments 0; sp 7c00; int 13h reads LBA 1 to 7e00; outb with
# the line status polled.)
BOOT = bytes.fromhex("fa31c08ed88ec08ed0bc007cfcb80102bb007eb9020030f6cd137212be007ebff802e80c00be007fbff803e80300f4ebfdac84c0741388c389fa"
                     "83c205eca82074fb88d889faeeebe8c3")


def guest(path):
    path.write_bytes(BOOT.ljust(510, b"\0") + b"\x55\xaa" + (b"\0" * 256 + b"tiny login: \0").ljust(512, b"\0") + bytes(2 * MIB - 1024))
    return path


def make_machine(build, site, folder, name, *more):  # noqa: F811
    subprocess.run([build / "tests/tools/mkvault", "--vault", site.vault_url, "--passphrase-file", site.passphrase_file, "--machine",
                    name, "--memory", "64M", "--oracle", folder / "oracle", f"--disk=vda={guest(folder / 'vda.img')}", *more], check=True,
                   capture_output=True)


@pytest.fixture
def site(build, folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    (folder / "oracle").mkdir()
    make_machine(build, s, folder, "db1", "--proof", "512")
    make_machine(build, s, folder, "mute")
    s.make()
    hooks = folder / "hooks"
    hooks.mkdir(mode=0o755)
    for name, text in (("content", f'echo "$LIFEBOAT_MACHINE $LIFEBOAT_DOUBLE $LIFEBOAT_KIND" > {folder}/said'),
                       ("discontent", "echo the shop is empty; exit 1"), ("hangs", "sleep 1000")):
        (hooks / name).write_text(f"#!/bin/sh\n{text}\n")
        (hooks / name).chmod(0o755)
    with open(folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {hooks}\n")
    s.start()
    yield s
    s.stop()


@pytest.fixture
def api(site):
    return Api(site, site.identity)


def no_trace(api, folder):  # noqa: F811
    assert api.ask("GET", "/v1/failover")[1]["failovers"] == []
    assert processes_of(folder / "state/vm") == [] and list((folder / "state/vm").iterdir()) == []
    for name in ("db1", "mute"):
        assert not [p["name"] for p in api.ask("GET", f"/v1/machine/{name}/point")[1]["points"] if p.get("name")]


def test_a_drill_proves_a_double_by_what_its_disk_carries_and_leaves_a_picture_and_nothing_else(site, api, folder):  # noqa: F811
    done = site.ask("drill", "start", "db1", "--nonce", "--login", "login:", "--script", "content", "--note", "before the audit")
    proof = done["result"]["proof"]
    assert proof["passed"] and proof["nonce"]["passed"] and proof["login"]["passed"] and proof["script"]["passed"], proof
    assert "30 s before the recovery point" in proof["nonce"]["text"]
    assert (folder / "said").read_text() == "db1 db1-drill test\n"
    no_trace(api, folder)
    drill, = site.ask("drill", "list", "db1")["drills"]
    assert drill["state"] == "passed" and drill["note"] == "before the audit" and drill["id"] == done["id"]
    site.lifeboat("drill", "show", drill["id"], "--screen", folder / "screen", "--console", folder / "console")
    assert (folder / "screen").read_bytes()[:4] == b"\x89PNG" or (folder / "screen").read_bytes()[:2] == b"P6"
    assert "tiny login:" in (folder / "console").read_text() and "lifeboat-proof" in (folder / "console").read_text()


def test_a_drill_whose_double_was_to_be_mended_and_is_not_says_so_wherever_it_is_told(site, api, folder):  # noqa: F811
    """No mender is on the hosts of tests."""
    plan = {"name": "shop", "groups": [{"machines": [{"machine": "db1", "mend": True}, {"machine": "mute"}]}]}
    assert api.ask("POST", "/v1/plan", plan)[0] == 200
    done = site.ask("drill", "start", "shop", "--plan", "--login", "login:", "--limit", "30m")
    told, = done["result"]["warnings"]
    assert told.startswith("db1: it is not mended: ") and "`lifeboat rescue mender` makes it" in told
    drill, = api.ask("GET", "/v1/drill?machine=db1")[1]["drills"]
    assert drill["state"] == "passed" and f"db1: {drill['warning']}" == told and drill["mended"] == ""
    other, = api.ask("GET", "/v1/drill?machine=mute")[1]["drills"]
    assert other["state"] == "passed" and other["warning"] == ""
    assert f"  mind: {drill['warning']}" in site.lifeboat("drill", "show", drill["id"]).stdout
    # one that is not proven says it with what failed
    name = order(api, "/v1/drill", {"machine": "mute", "mend": True, "check": {"script": "discontent"}, "limit_s": 1800})
    p = site.lifeboat("job", "watch", name, check=False)
    assert p.returncode == 1 and "the shop is empty (it is not mended: " in p.stderr, p.stderr
    no_trace(api, folder)


def test_a_drill_through_libvirt_reads_the_second_serial_port_and_takes_a_picture(libvirt, site, api, folder):  # noqa: F811
    done = site.ask("drill", "start", "db1", "--nonce", "--login", "login:")
    assert done["result"]["proof"]["passed"] and done["result"]["screen"] in ("png", "ppm")
    assert (libvirt.folder / "log/qemu/db1-drill.log").exists() and libvirt.domains() == []
    no_trace(api, folder)


def test_a_drill_over_the_end_of_libvirtd_ends_in_words_and_leaves_nothing_when_that_is_back(libvirt, site, api, folder):  # noqa: F811
    name = order(api, "/v1/drill", {"machine": "db1", "check": {"login": "never", "timeout_s": 600}, "limit_s": 600})
    wait_for(lambda: any(s["name"] == "prove the double" for s in api.ask("GET", f"/v1/job/{name}")[1]["steps"]), "the double to be tried")
    libvirt.kill()
    wait_for(lambda: "no libvirt answers" in json.dumps(api.ask("GET", f"/v1/job/{name}")[1]), "word of it")
    libvirt.start()
    failed = job(api, name, ("failed",))
    assert "libvirt" in failed["error"]
    wait_for(lambda: not api.ask("GET", "/v1/failover")[1]["failovers"], "the end of the double")
    assert libvirt.domains() == []
    no_trace(api, folder)


def test_a_double_that_shows_nothing_is_not_proven_and_each_failing_check_says_why(site, api, folder):  # noqa: F811
    for words, timeout, part in ((("--nonce",), "3s", "has not shown what its disk carries"), (("--login", "ready>"), "3s", 'has not shown "ready>"'),
                                 (("--ports", "22"), "3s", "port 22 has not answered"), (("--script", "discontent"), "60s", "the shop is empty"),
                                 (("--script", "hangs"), "3s", "has not ended within")):
        p = site.lifeboat("drill", "start", "mute", "--timeout", timeout, *words, check=False)
        assert p.returncode == 1 and part in p.stderr, p.stderr
        no_trace(api, folder)
    assert {d["state"] for d in site.ask("drill", "list", "mute")["drills"]} == {"failed"}


def test_drills_of_several_machines_run_at_once_and_two_of_one_are_told_of_each_other(site, api, folder):  # noqa: F811
    one = order(api, "/v1/drill", {"machine": "mute", "check": {"login": "never"}, "limit_s": 600})
    other = order(api, "/v1/drill", {"machine": "db1", "check": {"login": "never"}, "limit_s": 600})
    wait_for(lambda: len(api.ask("GET", "/v1/failover")[1]["failovers"]) == 2, "both doubles")
    status, answer = api.ask("POST", "/v1/drill", {"machine": "db1"})
    assert status == 409 and other in answer["error"]["message"]
    for name in (one, other):
        assert api.ask("POST", f"/v1/job/{name}/cancel", {})[0] == 200
        job(api, name, ("cancelled",))
    no_trace(api, folder)


def test_a_drill_goes_on_after_a_kill_of_its_server_and_keeps_its_deadline(site, api, folder):  # noqa: F811
    name = order(api, "/v1/drill", {"machine": "db1", "check": {"login": "never", "timeout_s": 600}, "limit_s": 30})
    wait_for(lambda: any(s["name"] == "prove the double" for s in api.ask("GET", f"/v1/job/{name}")[1]["steps"]), "the double to be tried")
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(60)
    assert processes_of(folder / "state/vm/db1-drill")
    site.start()
    failed = job(api, name, ("failed",))
    assert "time is over (30 s)" in failed["error"] or 'has not shown "never"' in failed["error"] or "stopped" in failed["error"]
    no_trace(api, folder)


def test_drills_come_by_themselves_and_misfits_are_refused_when_they_are_ordered(site, api, folder):  # noqa: F811
    answer = site.ask("drill", "schedule", "db1", "--every", "60s", "--login", "login:")
    assert answer["schedule"]["every_s"] == 60
    site.lifeboat("drill", "schedule", "db1", "--every", "7d", "--at", "03:00", "--login", "login:")
    assert site.ask("drill", "schedules")["schedules"][0]["next_ns"] % (86400 * 10**9) == 3 * 3600 * 10**9
    # the time comes: as if it had been asked for long ago
    site.stop()
    import sqlite3
    with sqlite3.connect(folder / "state/config/config.db") as db:
        db.execute("UPDATE drill_schedule SET next_ns = next_ns - ?", (30 * 86400 * 10**9,))
    db.close()
    site.start()
    drill = wait_for(lambda: site.ask("drill", "list", "db1")["drills"], "the drill that was due")[0]
    assert drill["state"] == "passed"
    assert len(site.ask("drill", "list", "db1")["drills"]) == 1  # what was missed is not made up for
    site.lifeboat("drill", "unschedule", "db1")
    assert site.lifeboat("drill", "unschedule", "db1", check=False).returncode == 4
    for words, code in ((("nobody",), 4), (("db1", "--script", "missing"), 4), (("db1", "--limit", "1s"), 2), (("db1", "--ports", "http"), 2),
                        (("db1", "--script", "../up"), 2), (("shop", "--plan"), 4)):
        p = site.lifeboat("drill", "start", *words, check=False)
        assert p.returncode == code, (words, p.stderr)
    no_trace(api, folder)
    assert os.listdir(folder / "state/vm") == []
