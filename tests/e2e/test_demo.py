# SPDX-License-Identifier: Apache-2.0
"""The demo as a person runs it: it keeps its promise, its judge is no rubber stamp, and it leaves nothing behind."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from conftest import TOP

import ledger_client
import rescue
from guest import _process_start
from lifeboat_site import Site

DEMO = TOP / "scripts/demo.py"
DEADLINE_S = 600
DOUBLE = "ledger-double"

for tool in ("qemu-system-x86_64", "nbdkit", "mke2fs", "grub-mkimage", "cpio"):
    if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


def pids(folder):
    """What the demo recorded: {pid: when it began}."""
    files = [folder / "config.pid", *folder.glob("state/vm/*/*.pid")]
    found = [int(f.read_text().split()[0]) for f in files if f.exists()]
    if (folder / "server/guest.json").exists():
        found.append(json.loads((folder / "server/guest.json").read_text())["pid"])
    return {pid: _process_start(pid) for pid in found if _process_start(pid) is not None}


def running(recorded):
    return [pid for pid, started in recorded.items() if _process_start(pid) == started]


@pytest.fixture(name="folder")
def a_folder():
    # Sockets of the double live below it: their paths must be short.
    parent = pathlib.Path(tempfile.mkdtemp(prefix="lb-demo."))
    yield parent / "d"
    if (parent / "d").exists():
        rescue.remove(parent / "d")
    shutil.rmtree(parent)


def demo(build, folder, *more):
    return [sys.executable, str(DEMO), "--build", str(build), "--folder", str(folder), *more]


def answer(port):
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            ledger = ledger_client.Ledger(port, deadline_s=5)
            ledger.integrity()
            return ledger
        except ledger_client.LedgerError:
            assert time.monotonic() < end, f"no ledger on port {port}"
            time.sleep(0.2)


def test_the_demo_keeps_its_promise_and_its_judge_sees_an_older_point(build, folder):
    done = subprocess.run(demo(build, folder, "--keep"), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["promised"] > 0 and not result["missing"] and result["integrity"] == "ok"
    site = Site.load(build, folder)
    points = site.points("ledger")
    used = next(d for d in site.ask("failover", "list")["failovers"] if d["name"] == DOUBLE)["point_ns"]
    assert points[0]["time_ns"] < used
    # The same double from an older point, judged by the time of the newer one.
    site.lifeboat("failover", "repoint", DOUBLE, "--point", f"{points[0]['epoch']}:{points[0]['seq']}", "--confirm", DOUBLE)
    ledger = answer(result["port"])
    log = ledger_client.read_log(folder / "acknowledged.log")
    entries, integrity = ledger.entries(), ledger.integrity()
    ledger.close()
    older = ledger_client.verify(log, entries, integrity, used)
    assert not older["ok"] and older["missing"], "the judge took an older point for the newer one"
    assert integrity == "ok" and ledger_client.verify(log, entries, integrity, points[0]["time_ns"])["ok"]

    recorded = pids(folder)
    assert len(recorded) >= 3
    cleaned = subprocess.run(demo(build, folder, "--clean"), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert cleaned.returncode == 0, cleaned.stderr
    assert not folder.exists() and not running(recorded)


def test_an_interrupted_demo_leaves_nothing_running(build, folder):
    started = subprocess.Popen(demo(build, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in started.stdout:
        said.append(line)
        if "The server is running" in line:
            break
    recorded = pids(folder)
    assert len(recorded) == 2, "".join(said)
    # While it runs, another one in its folder is refused.
    second = subprocess.run(demo(build, folder), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert second.returncode == 1 and f"process {started.pid}" in second.stderr
    started.send_signal(signal.SIGINT)
    said += started.stdout.readlines()
    assert started.wait(DEADLINE_S) == 130, "".join(said)
    assert not folder.exists() and not running(recorded)
