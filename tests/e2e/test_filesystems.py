# SPDX-License-Identifier: Apache-2.0
"""Filesystems in use on protected disks: every recovery point of them mounts, is whole, and has what was fsynced before it."""
import contextlib
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

import fs_load
from host_agent import LoopDisk

POINTS = 8
POINTS_UNDER_LOAD = 12
DEADLINE_S = 240
UNMOUNT_S = 60

FILESYSTEMS = {
    "ext4": {"size_mib": 160, "make": ["mkfs.ext4", "-q"], "mount": "discard",
             "check": ["e2fsck", "-f", "-n"]},
    "xfs": {"size_mib": 300, "make": ["mkfs.xfs", "-q", "-f"], "mount": "discard,nouuid", "check": ["xfs_repair", "-n"]},
    "btrfs": {"size_mib": 256, "make": ["mkfs.btrfs", "-q", "-f"], "mount": "discard",
              "check": ["btrfs", "check", "--readonly"]},
}


def run(*words):
    p = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert p.returncode == 0, f"{words} ended with {p.returncode}: {p.stdout}{p.stderr}"
    return p.stdout


def forget_copies(kind):
    if kind == "btrfs":
        # else the kernel takes a copy for the disk that it was copied from
        run("btrfs", "device", "scan", "--forget")


def unmount(folder, *inside):
    """Whoever looks at each mount of a host (a monitor, a sync, another test's statfs) may hold this one for a moment."""
    end = time.monotonic() + UNMOUNT_S
    while (p := subprocess.run([*map(str, inside), "umount", folder], capture_output=True, text=True)).returncode != 0:
        assert "busy" in p.stderr and time.monotonic() < end, f"umount {folder} ended with {p.returncode}: {p.stderr}"
        time.sleep(0.2)


@contextlib.contextmanager
def mounted(kind, device, folder, options):
    folder.mkdir(exist_ok=True)
    forget_copies(kind)
    run("mount", "-t", kind, "-o", options, device, folder)
    try:
        yield folder
    finally:
        unmount(folder)


@contextlib.contextmanager
def mounted_apart(kind, device, folder, options):
    """What to say before a command so that it sees the filesystem.

    It is mounted in a namespace of its own: those of tests beside this one are copies of the host's, mounts and all, and
    would keep it in use when it is unmounted here.
    """
    folder.mkdir(exist_ok=True)
    forget_copies(kind)
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo && exec cat"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as space:
        assert space.stdout.readline() == b"\n"
        inside = ["nsenter", f"--mount=/proc/{space.pid}/ns/mnt"]
        run(*inside, "mount", "-t", kind, "-o", options, device, folder)
        try:
            yield inside
        finally:
            unmount(folder, *inside)


@contextlib.contextmanager
def loop_over(path):
    device = run("losetup", "--find", "--show", path).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


class Load:
    """fio and fs_load.py on a folder until they are told to end."""

    def __init__(self, inside, folder, log, out, seed):
        self.out = out
        data = folder / "fio"
        self.fio = subprocess.Popen(
            [*inside, "fio", "--name=random", f"--filename={data}", "--rw=randwrite", "--bsrange=4k-32k", "--size=24m", "--fsync=8",
             "--rate_iops=150", "--time_based", "--runtime=1800", "--numjobs=1", "--thread", f"--randseed={seed}", "--output-format=json",
             f"--output={out}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.files = subprocess.Popen([*inside, sys.executable, fs_load.__file__, folder, log, str(seed)],
                                      stderr=subprocess.PIPE, text=True)

    def assert_running(self):
        assert self.fio.poll() is None and self.files.poll() is None, "the load ended by itself"

    def end(self):
        self.fio.send_signal(signal.SIGINT)
        self.files.terminate()
        self.fio.wait(DEADLINE_S)
        _, said = self.files.communicate(timeout=DEADLINE_S)
        assert self.files.returncode == 0, said
        text = self.out.read_text()
        job = json.loads(text[text.index("{"):])["jobs"][0]
        assert job["error"] == 0 and job["write"]["total_ios"] > 0

    def kill(self):
        for process in (self.fio, self.files):
            process.kill()
            process.wait()


@pytest.fixture
def disk(request, folder):
    kind = request.node.callspec.params["kind"]
    needs = [FILESYSTEMS[kind]["make"][0], FILESYSTEMS[kind]["check"][0], "fio"]
    absent = [n for n in needs if shutil.which(n) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}; run `make deps`")
    made = LoopDisk(folder / "disk.img", FILESYSTEMS[kind]["size_mib"])
    yield made
    made.close()


def points_under_load(agent, load, began_ns):
    def enough():
        load.assert_running()
        points = [p for p in agent.site.points(agent.name) if p["time_ns"] > began_ns]
        return len(points) >= POINTS_UNDER_LOAD
    agent.wait(enough, "points under load", DEADLINE_S)


def assert_sound(kind, image, mount_point, log, seed, point):
    """It mounts, which recovers its log; what had to be there is; and its checker has nothing to say."""
    with loop_over(image) as device:
        with mounted_apart(kind, device, mount_point, FILESYSTEMS[kind]["mount"]) as inside:
            due, wrong = json.loads(run(*inside, sys.executable, fs_load.__file__, mount_point, log, seed, point["time_ns"]))
        run(*FILESYSTEMS[kind]["check"], device)
    assert not wrong, f"point {point}: of {due} fsynced before it these are missing or wrong: {wrong[:10]}"
    return due


def export(site, agent, disk, point, image):
    at = "%d:%d" % (point["epoch"], point["seq"])
    site.lifeboat("point", "export", agent.name, disk.name, image, "--point", at, "--vault", site.vault_url, server=False)


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_every_point_of_a_filesystem_in_use_mounts_whole_with_all_that_was_fsynced(kind, site, agent, disk, folder):
    seed = int(os.environ.get("LIFEBOAT_SEED", random.randrange(1 << 32)))
    print("LIFEBOAT_SEED =", seed)
    log, image = folder / "fsynced.log", folder / "export.img"
    run(*FILESYSTEMS[kind]["make"], disk.device)
    source = folder / "source"
    with mounted_apart(kind, disk.device, source, FILESYSTEMS[kind]["mount"]) as inside:
        load = Load(inside, source, log, folder / "fio.json", seed)
        try:
            # protected while it is in use: the first copy is taken under the load too
            agent.protect([disk], ring="128M")
            points_under_load(agent, load, time.time_ns())
            load.end()
        finally:
            load.kill()
    last = agent.wait_point_after(time.time_ns())
    export(site, agent, disk, last, image)
    assert filecmp.cmp(image, disk.path, shallow=False), "after quiescing, disk and export differ"
    points = site.points(agent.name)
    chosen = [points[0], *random.Random(seed).sample(points[1:-1], POINTS - 2), last]
    figures = []
    for point in sorted(chosen, key=lambda p: (p["epoch"], p["seq"])):
        image.unlink()
        export(site, agent, disk, point, image)
        figures.append(assert_sound(kind, image, folder / "copy", log, seed, point))
    print(f"{kind}: {len(chosen)} of {len(points)} points, fsynced and found in each: {figures}")
    assert figures[-1] > figures[0]
