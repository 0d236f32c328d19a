# SPDX-License-Identifier: Apache-2.0
"""The latest point: all that was received is in it, also for a test, though the vault would have had it much later."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import time

import pytest

from host_agent import LoopDisk
from test_config import Api
from test_config_failover import job, order

MIB = 1 << 20
for tool in ("nbdkit", "qemu-img", "qemu-system-x86_64"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


@pytest.fixture
def disk(folder):
    d = LoopDisk(folder / "disk.img", 32)
    yield d
    d.close()


@pytest.fixture
def received(build, site, agent, disk, monkeypatch):
    """4 MiB that the process server has, and the vault gets in an hour."""
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    site.lifeboat("policy", "set", "default", "--consistency-interval", "1", "--upload-interval", "3600", "--heartbeat-interval", "1", "--ring",
                  "64M")
    agent.wait(lambda: site.lifeboat("machine", "protect", agent.name, "--no-wait", "--disks", disk.name, check=False).returncode == 0,
               "acceptance of the disk")
    # made on purpose, it is in the vault when its job ends, whatever the interval
    agent.wait(lambda: site.lifeboat("point", "create", agent.name, "--name", "first", check=False).returncode == 0, "first point", 120)
    return lambda: write(site, agent, disk)


def write(site, agent, disk):
    data = os.urandom(4 * MIB)
    before = site.machine(agent.name)["backlog_bytes"]
    with open(disk.device, "r+b") as f:
        f.write(data)
    disk.settle()
    agent.wait(lambda: site.machine(agent.name)["backlog_bytes"] >= before + 4 * MIB, "receipt of what was written")
    return data


def beginning(site, agent, disk, folder, result):
    out = folder / "export.img"
    out.unlink(missing_ok=True)
    site.lifeboat("point", "export", agent.name, disk.name, out, "--point", f"{result['epoch']}:{result['seq']}", "--vault", site.vault_url,
                  server=False)
    with open(out, "rb") as f:
        return f.read(4 * MIB)


@contextlib.contextmanager
def double_of(site, *words):
    done = site.ask("failover", "test", "host", "--memory", "64M", *words)
    try:
        yield done
    finally:
        site.lifeboat("failover", "cleanup", done["result"]["name"], "--confirm", done["result"]["name"])


def steps(ended):
    return {s["name"]: s["text"] for s in ended["steps"]}


def process_server(site):
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if words[0].endswith(b"lifeboat-process") and parent == site.server.pid:
                return int(path.name)
    raise AssertionError("the site's process server is not there")


def last_seen_ns(site):
    return json.loads(site.lifeboat("machine", "show", "host", "-o", "json", check=False).stdout)["data"]["replication"]["last_seen_ns"]


def drilled(site):
    """An empty disk proves nothing: the drill fails, after all that it does before."""
    api = Api(site, site.identity)
    return job(api, order(api, "/v1/drill", {"machine": "host", "memory_bytes": 64 * MIB, "check": {"login": "never", "timeout_s": 1}}), ("failed",))


def test_the_latest_point_has_all_that_was_received_unless_the_process_server_does_not_answer_and_then_the_job_says_so(site, agent, disk, received, folder):
    data = received()
    with double_of(site, "--point", "latest-processed", "--name", "early") as tested:
        assert beginning(site, agent, disk, folder, tested["result"]) != data
    assert site.machine(agent.name)["backlog_bytes"] >= 4 * MIB
    with double_of(site) as tested:
        assert steps(tested)["bring what was received into the vault"] == "everything received is in the vault"
        assert beginning(site, agent, disk, folder, tested["result"]) == data
    # the same for a drill, which goes on with what the vault has
    data = received()
    pid = process_server(site)
    os.kill(pid, signal.SIGSTOP)
    try:
        failed = drilled(site)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "does not answer; it goes on" in steps(failed)["bring what was received into the vault"]
    assert beginning(site, agent, disk, folder, failed["result"]) != data
    came_back_ns = time.time_ns()
    agent.wait(lambda: last_seen_ns(site) > came_back_ns, "report of the process server", 120)
    failed = drilled(site)
    assert steps(failed)["bring what was received into the vault"] == "everything received is in the vault"
    assert beginning(site, agent, disk, folder, failed["result"]) == data
    # and for a pin, of which a plan's or an upgrade's way back may depend
    data = received()
    pinned = site.ask("point", "pin", agent.name, "kept")
    assert pinned["name"] == "kept" and beginning(site, agent, disk, folder, pinned) == data
    again = site.lifeboat("point", "pin", agent.name, "kept", check=False)
    assert again.returncode != 0 and 'has a point "kept" already' in again.stderr
