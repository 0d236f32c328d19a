# SPDX-License-Identifier: Apache-2.0
"""The whole way with an agent: protected, failed over, committed, worked on, taken home, and protected again from there."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from host_agent import LoopDisk
from test_recovery import same
from test_target import write_in_double

MIB = 1 << 20
for tool in ("nbdkit", "qemu-img", "qemu-system-x86_64"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


@pytest.fixture
def folder():
    """Short, because sockets are below it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="lbfb."))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def disk(folder):
    d = LoopDisk(folder / "disk", 32)
    yield d
    d.close()


def write(disk, at, data):
    fd = os.open(disk.device, os.O_WRONLY | os.O_SYNC)
    os.pwrite(fd, data, at)
    os.close(fd)
    disk.settle()


def vault_words(site):
    return ["--vault", site.vault_url, "--passphrase-file", site.passphrase_file]


def test_a_machine_fails_over_works_there_goes_home_and_replicates_from_there_by_itself(site, agent, disk, folder):
    write(disk, 0, os.urandom(4 * MIB))
    agent.protect([disk])
    write(disk, 8 * MIB, os.urandom(MIB))
    agent.wait_point_after(time.time_ns())
    site.lifeboat("failover", "start", "host", "--confirm", "host", "--memory", "64M")
    double = site.folder / "state/vm/host-double"
    try:
        refused = site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double", check=False)
        assert refused.returncode != 0 and "failback start" in refused.stderr
        site.lifeboat("failover", "commit", "host-double")
        write_in_double(double, 0, 0x5a, 12 * MIB, 65536)
        write_in_double(double, 0, 0x77, 4096, 4096)
        write(disk, 20 * MIB, b"the old primary goes on for a while" * 1000)      # nobody may ever see this
        agent.wait(lambda: agent.status()["state"] == "refused", "refusal of the old primary")
        agent.close()                                                               # the machine is off
        site.lifeboat("failback", "start", "host-double", "--wait", 0, "--confirm", "host-double")
        restored = site.ask("failback", "restore", "host", *vault_words(site), "--to", f"{disk.name}={disk.device}", "--state",
                            folder / "state", "--confirm", "host", "--overwrite")   # nothing on it says whose it is
        assert restored["written_bytes"] < 65536 + 4096 + 40960 + 4096, "only what differs is written"
        disk.settle()
        same(disk.device, double / "disk0.qcow2", "-f", "raw", "-F", "qcow2")
        site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double")
    finally:
        site.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double", check=False)
    assert site.ask("failover", "list")["failovers"] == []
    agent.start()                                                                   # and starts from its own disk
    write(disk, 24 * MIB, os.urandom(MIB))
    agent.wait_point_after(time.time_ns())
    site.lifeboat("point", "export", "host", disk.name, folder / "image", *vault_words(site))
    same(folder / "image", disk.device, "-f", "raw", "-F", "raw")


def test_a_double_whose_failback_was_cancelled_is_kept_until_all_that_it_wrote_is_home(site, agent, disk, folder):
    write(disk, 0, os.urandom(MIB))
    agent.protect([disk])
    agent.wait_point_after(time.time_ns())
    site.lifeboat("failover", "start", "host", "--confirm", "host", "--memory", "64M")
    double = site.folder / "state/vm/host-double"
    try:
        site.lifeboat("failover", "commit", "host-double")
        write_in_double(double, 0, 0x5a, 12 * MIB, 65536)
        # nothing there heeds the power button
        job = site.ask("failback", "start", "host-double", "--wait", 300, "--confirm", "host-double", "--no-wait")["id"]
        agent.wait(lambda: json.loads((double / "failover.json").read_text())["shut"], "begin of the shutdown")
        site.lifeboat("job", "cancel", job)
        agent.wait(lambda: {"id": job, "state": "cancelled"}.items() <=
                   next(j for j in site.ask("job", "list")["jobs"] if j["id"] == job).items(), "end of the job")
        refused = site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double", check=False)
        assert refused.returncode != 0 and "is not in the vault" in refused.stderr and "--discard" in refused.stderr
        site.lifeboat("failback", "start", "host-double", "--wait", 0, "--confirm", "host-double")
        site.lifeboat("point", "export", "host", disk.name, folder / "image", *vault_words(site))
        same(folder / "image", double / "disk0.qcow2", "-f", "raw", "-F", "qcow2")
        site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double")
    finally:
        site.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double", check=False)
    assert site.ask("failover", "list")["failovers"] == []
