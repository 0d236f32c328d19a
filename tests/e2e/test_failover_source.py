# SPDX-License-Identifier: Apache-2.0
"""What a live failover does with its source: previews, scripts, draining, fences that hold when it comes back."""
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

from host_agent import LoopDisk
from lifeboat_site import Site
from provoked import wait_for
from test_config import Api
from test_config_failover import MIB, folder as short_folder, job, order, processes_of  # noqa: F401 (a fixture)

BLOCK = 4096


def hook(hooks, name, text):
    hooks.mkdir(mode=0o755, exist_ok=True)
    (hooks / name).write_text(f"#!/bin/sh\n{text}\n")
    (hooks / name).chmod(0o755)


@pytest.fixture
def vault_site(build, short_folder, monkeypatch):  # noqa: F811
    """A machine that only the vault knows: its source is gone."""
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    s = Site(build, short_folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    disk = short_folder / "vda.img"
    disk.write_bytes(os.urandom(1 * MIB) + bytes(1 * MIB))
    (short_folder / "oracle").mkdir()
    subprocess.run([build / "tests/tools/mkvault", "--vault", s.vault_url, "--passphrase-file", s.passphrase_file, "--machine", "db1",
                    "--memory", "64M", "--points", "4", "--oracle", short_folder / "oracle", f"--disk=vda={disk}"], check=True,
                   capture_output=True)
    s.make()
    with open(short_folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {short_folder}/hooks\n")
    s.start()
    yield s
    api = Api(s, s.identity)
    for double in api.ask("GET", "/v1/failover")[1]["failovers"]:
        job(api, order(api, f"/v1/failover/{double['name']}/cleanup", {"live_too": True}), ("done",))
    s.stop()


def start(site, *words, **how):
    return site.lifeboat("failover", "start", "db1", "--confirm", "db1", *words, **how)


def test_a_planned_failover_is_refused_with_what_to_do_instead(vault_site):
    p = start(vault_site, "--planned", check=False)
    assert p.returncode == 5 and "--shutdown-source --wait-drained" in p.stderr
    p = start(vault_site, "--wait-drained", "--point", "1:0", check=False)
    assert p.returncode == 2 and "latest" in p.stderr
    assert vault_site.ask("failover", "list")["failovers"] == []


def test_a_preview_tells_what_a_point_would_lose(vault_site):
    points = vault_site.points("db1")
    latest = vault_site.ask("failover", "preview", "db1")
    assert latest["loses_known_ns"] == 0 and latest["until_ns"] == points[-1]["until_ns"]
    first = vault_site.ask("failover", "preview", "db1", "--point", f"{points[0]['epoch']}:{points[0]['seq']}")
    assert first["loses_known_ns"] == points[-1]["until_ns"] - points[0]["until_ns"] > 0
    assert first["loses_at_most_ns"] > first["loses_known_ns"] and first["proven_ns"] == 0
    text = vault_site.lifeboat("failover", "preview", "db1").stdout
    assert "holds everything up to" in text and "never proven" in text
    assert vault_site.lifeboat("failover", "preview", "db1", "--point", "9:9", check=False).returncode == 4


def test_scripts_that_fail_are_borne_or_change_nothing_as_it_was_ordered(vault_site, short_folder):  # noqa: F811
    hooks, said = short_folder / "hooks", short_folder / "said"
    hook(hooks, "fence-source", "echo no such outlet; exit 1")
    p = start(vault_site, "--require-fence", check=False)
    assert p.returncode == 1 and "nothing was changed" in p.stderr and "no such outlet" in p.stderr
    assert vault_site.ask("failover", "list")["failovers"] == [] and processes_of(short_folder / "state/vm") == []
    # a source that is gone can't be drained
    api = Api(vault_site, vault_site.identity)
    failed = job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "live", "wait_drained": True, "drained_wait_s": 1}), ("failed",))
    assert "nothing was changed" in failed["error"] and "without --wait-drained" in failed["error"]
    assert vault_site.ask("failover", "list")["failovers"] == []
    hook(hooks, "stop-source", f'echo "stop $LIFEBOAT_MACHINE" >> {said}; exit 1')
    hook(hooks, "fence-source", f'echo "fence $LIFEBOAT_MACHINE" >> {said}')
    hook(hooks, "double-up", f'echo "up $LIFEBOAT_DOUBLE" >> {said}')
    done = job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "live", "shutdown_source": True, "fence_required": True}), ("done",))
    assert said.read_text() == "stop db1\nfence db1\nup db1-double\n"
    assert len(done["result"]["warnings"]) == 1 and "stop-source" in done["result"]["warnings"][0]
    # two at once
    p = start(vault_site, check=False)
    assert p.returncode == 5 and "db1-double" in p.stderr


def write_block(disk, n, text):
    fd = os.open(disk.device, os.O_WRONLY | os.O_SYNC)
    try:
        os.pwrite(fd, text.encode().ljust(BLOCK, b"."), n * BLOCK)
    finally:
        os.close(fd)


def test_nothing_is_lost_when_the_source_is_stopped_and_drained_and_its_return_changes_nothing(site, agent, folder, monkeypatch):
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(site.programs["lifeboat"].parent.parent / "nbd/nbdkit-lifeboat-plugin.so"))
    disk = LoopDisk(folder / "disk.img", 8)
    try:
        site.stop()
        # the workload is ours: what it writes last, it writes while it is being stopped
        hook(folder / "hooks", "stop-source", f"dd if={folder}/last of={disk.device} bs={BLOCK} seek=7 count=1 oflag=direct conv=notrunc")
        (folder / "last").write_bytes(b"the last order".ljust(BLOCK, b"."))
        with open(site.folder / "etc/config.conf", "a") as conf:
            conf.write(f"hook_folder = {folder}/hooks\n")
        site.start()
        agent.protect([disk])
        # the word that a double would show lies on the source's disk, and a machine that is no double shows none
        word = agent.wait(lambda: json.loads((agent.folder / "state/agent.json").read_text()).get("proof"), "a word of proof")
        assert re.fullmatch("[0-9]+:[0-9a-f]{32}", word) and abs(int(word.split(":")[0]) - time.time_ns()) < 600 * 10**9
        told = subprocess.run([site.programs["mobility"], "prove", "--config", agent.conf], capture_output=True, text=True)
        assert (told.returncode, told.stdout) == (0, "")
        for i in range(5):
            write_block(disk, i, f"order {i}")
        site.lifeboat("failover", "start", "host", "--confirm", "host", "--memory", "64M", "--shutdown-source", "--wait-drained")
        image = folder / "double.img"
        site.lifeboat("point", "export", "host", disk.name, image, "--vault", site.vault_url, server=False)
        assert image.read_bytes() == pathlib.Path(disk.path).read_bytes()[:disk.size_bytes]
        held = site.points("host")[-1]
        # the old primary writes on, and is told that its place is taken
        write_block(disk, 6, "after the failover")
        agent.wait(lambda: agent.status()["state"] == "refused", "refusal of the source")
        agent.kill_agent()
        killed_ns = time.time_ns()
        agent.start_agent()
        write_block(disk, 6, "and after its restart")
        agent.wait(lambda: agent.status()["state"] == "refused" and agent.status()["time_ns"] > killed_ns, "its refusal again")
        newest = site.points("host")[-1]
        assert (newest["epoch"], newest["seq"]) == (held["epoch"], held["seq"])
        api = Api(site, site.identity)
        job(api, order(api, "/v1/failover/host-double/cleanup", {"live_too": True}), ("done",))
        wait_for(lambda: processes_of(site.folder / "state/vm") == [], "the double's end")
    finally:
        agent.detach()
        disk.close()
