# SPDX-License-Identifier: Apache-2.0
"""Application-consistent points of this host's loop devices: scripts, freeze, mark, thaw, and what is in the point."""
import json
import subprocess
import threading

import pytest

from host_agent import LoopDisk
from test_filesystems import mounted, run

MIB = 64


@pytest.fixture
def disk(folder):
    d = LoopDisk(folder / "disk.img", MIB)
    run("mkfs.ext4", "-q", d.device)
    yield d
    d.close()


@pytest.fixture
def filesystem(disk, folder):
    with mounted("ext4", disk.device, folder / "mnt", "defaults") as mnt:
        yield mnt


class Writer(threading.Thread):
    """Files come and go all the time, so that the filesystem is never at rest by itself."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.ends = folder, threading.Event()

    def run(self):
        n = 0
        while not self.ends.wait(0.002):
            n += 1
            (self.folder / f"load{n % 20}").write_bytes(b"x" * 5000)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *args):
        self.ends.set()
        self.join()


def script(agent, name, text, mode=0o755):
    agent.scripts.mkdir(exist_ok=True)
    path = agent.scripts / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)


def export(site, agent, disk, folder, point):
    out = folder / "export.img"
    out.unlink(missing_ok=True)
    site.lifeboat("point", "export", agent.name, disk.name, out, "--point", point, "--vault", site.vault_url, server=False)
    return out


def names_in(image):
    return subprocess.run(["debugfs", "-R", "ls -p /", image], check=True, capture_output=True, text=True).stdout


def is_at_rest(image):
    """A frozen ext4 has nothing left in its journal."""
    p = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True)
    return "needs_recovery" not in p.stdout


def test_an_app_consistent_point_holds_what_the_pre_scripts_wrote_at_rest_and_nothing_of_the_post_scripts(
        site, agent, disk, filesystem, folder):
    agent.protect([disk])
    script(agent, "pre-10-app", f"touch {filesystem}/quiesced; sync -f {filesystem}/quiesced")
    script(agent, "post-10-app", f"touch {filesystem}/resumed; sync -f {filesystem}/resumed")
    with Writer(filesystem):
        job = site.ask("point", "create", agent.name, "--app", "--name", "before-upgrade")
        agent.wait_point_after(job["ended_ns"])
    made = job["result"]
    print("frozen ms:", made["frozen_ns"] / 1e6)
    assert made["frozen_ns"] > 0
    image = export(site, agent, disk, folder, "latest-app")
    assert is_at_rest(image)
    assert "/quiesced/" in names_in(image)
    assert "/resumed/" not in names_in(image)
    later = export(site, agent, disk, folder, "latest")
    subprocess.run(["e2fsck", "-f", "-y", later], capture_output=True)  # its journal is to be replayed
    assert "/resumed/" in names_in(later)
    points = [p for p in site.points(agent.name) if "app" in p["kinds"]]
    assert [(p["epoch"], p["seq"], p["name"]) for p in points] == [(made["epoch"], made["seq"], "before-upgrade")]
    assert points[0]["frozen_ms"] == pytest.approx(made["frozen_ns"] / 1e6)


def test_a_pre_script_that_fails_makes_no_app_consistent_point_and_the_post_scripts_run(site, agent, disk, filesystem, folder):
    agent.protect([disk])
    script(agent, "pre-10-app", "echo the database is not there >&2; exit 7")
    script(agent, "post-10-app", f"touch {folder}/post-ran")
    p = site.lifeboat("point", "create", agent.name, "--app", check=False)
    assert p.returncode == 1
    assert "pre-10-app ended with status 7: the database is not there" in p.stderr
    assert (folder / "post-ran").exists()
    assert not [p for p in site.points(agent.name) if "app" in p["kinds"]]
    (filesystem / "not-frozen").touch()
    # and the next one is not hindered by it
    script(agent, "pre-10-app", "exit 0")
    assert site.ask("point", "create", agent.name, "--app")["state"] == "done"


def test_the_policy_makes_app_consistent_points_by_itself(site, agent, disk, filesystem):
    agent.protect([disk], **{"app-consistent-interval": 10})
    agent.wait(lambda: len([p for p in site.points(agent.name) if "app" in p["kinds"]]) >= 2, "two points by the policy", 120)


def test_two_operators_at_once_each_get_a_point_of_their_own(site, agent, disk, filesystem):
    agent.protect([disk])
    jobs = [site.ask("point", "create", agent.name, "--app", "--no-wait")["id"] for _ in range(2)]
    jobs.append(site.ask("point", "create", agent.name, "--no-wait")["id"])
    for job in jobs:
        site.lifeboat("job", "watch", job)
    made = [json.loads(site.lifeboat("job", "watch", job, "-o", "json").stdout)["data"]["result"] for job in jobs]
    assert len({(m["epoch"], m["seq"]) for m in made}) == 3


def test_a_point_of_a_machine_that_is_not_there_or_not_protected_is_refused(site, agent):
    assert site.lifeboat("point", "create", "nobody", "--app", check=False).returncode == 4
    p = site.lifeboat("point", "create", agent.name, check=False)
    assert p.returncode != 0 and "not protected" in p.stderr
