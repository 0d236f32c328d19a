# SPDX-License-Identifier: Apache-2.0
"""The master target: real disks brought to recovery points. Every disk is held against an oracle made by plain writes."""
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

from provoked import wait_for

from test_recovery import BUILD, MIB, Vault, begin, environment, raw_images, recover, same, vm_folder  # noqa: F401

LIFEBOAT = BUILD / "src/cli/lifeboat"
LONG_S = 300


class Target:
    """Disks of db1 at home, and what is known of them."""

    def __init__(self, vault, folder, to=None):
        self.vault, self.folder = vault, folder
        self.to = to or {"vda": folder / "vda.raw", "vdb": folder / "vdb.raw"}

    def command(self, verb, *more):
        to = ["--to", ",".join(f"{d}={p}" for d, p in self.to.items())] if verb in ("restore", "back") else []
        confirm = ["--confirm", "db1"] if verb in ("restore", "back") else []
        return [LIFEBOAT, "failback", verb, "db1", "--vault", self.vault.url, "--passphrase-file", self.vault.passphrase_file,
                "--state", self.folder / "state", "-o", "json", *to, *confirm, *more]

    def run(self, verb, *more, check=True):
        run = subprocess.run(self.command(verb, *map(str, more)), capture_output=True, text=True, timeout=LONG_S)
        if check:
            assert run.returncode == 0, run.stderr
            return json.loads(run.stdout)["data"]
        return run

    def start(self, *more):
        return subprocess.Popen(self.command("restore", *map(str, more)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_at(self, n):
        for disk, name in enumerate(self.vault.names):
            assert digest(self.to[name], self.vault.at(n, disk).stat().st_size) == digest(self.vault.at(n, disk)), f"{name}, point {n}"


def digest(path, size=None):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read(size if size is not None else -1)).hexdigest()


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    return Vault(folder, raw_images(folder), 8)


@pytest.fixture
def target(vault, tmp_path):
    return Target(vault, tmp_path)


def test_missing_files_are_made_and_are_the_oracle(target):
    for n in (7, 2):
        told = target.run("restore", "--point", target.vault.points[n])
        target.is_at(n)
        assert told["point"]["seq"] == int(target.vault.points[n].split(":")[1])
    assert not list((target.folder / "state").glob("target.json"))


def test_an_old_disk_gives_what_it_has_and_only_what_differs_is_fetched(target):
    whole = target.run("restore", "--point", target.vault.points[0])
    again = target.run("restore", "--point", target.vault.points[0])
    target.is_at(0)
    assert again["written_bytes"] == 0
    assert again["fetched_bytes"] < whole["fetched_bytes"] / 10
    with open(target.to["vda"], "r+b") as f:
        f.seek(3 * MIB + 4096)
        f.write(os.urandom(4096))
        f.seek(9 * MIB)         # zeroes at that point
        f.write(b"x" * 100)
    mended = target.run("restore", "--point", target.vault.points[0])
    target.is_at(0)
    assert mended["written_bytes"] == 8192
    assert mended["fetched_bytes"] < whole["fetched_bytes"] / 4


def test_a_qcow2_target_is_made_and_holds_the_point(vault, tmp_path):
    target = Target(vault, tmp_path, {"vda": tmp_path / "vda.qcow2", "vdb": tmp_path / "vdb.qcow2"})
    for n in (3, 7):
        target.run("restore", "--point", vault.points[n])
        for disk, name in enumerate(vault.names):
            same(target.to[name], vault.at(n, disk), "-f", "qcow2", "-F", "raw")


def test_a_disk_that_holds_something_else_is_refused_untouched_unless_told(target):
    target.to["vda"].write_bytes(b"precious" * (3 * MIB))
    run = target.run("restore", check=False)
    assert run.returncode == 5 and "--overwrite" in run.stderr and "holds something" in run.stderr
    assert target.to["vda"].read_bytes() == b"precious" * (3 * MIB)
    target.run("restore", "--overwrite")
    target.is_at(7)


def test_smaller_disks_unknown_disks_points_and_machines_are_refused_by_name(target):
    target.to["vda"].write_bytes(bytes(8 * MIB))
    run = target.run("restore", check=False)
    assert run.returncode == 2 and "too small" in run.stderr and "vda" in run.stderr
    target.to["vda"].unlink()
    assert "vdb" in Target(target.vault, target.folder, {"vda": target.to["vda"]}).run("restore", check=False).stderr
    assert "vdz" in Target(target.vault, target.folder, {"vdz": target.to["vda"]}).run("restore", check=False).stderr
    run = target.run("restore", "--point", "9:9", check=False)
    assert run.returncode == 4 and "9:9" in run.stderr
    run = subprocess.run([str(a).replace("db1", "db9") if a == "db1" else a for a in target.command("restore")], capture_output=True, text=True)
    assert run.returncode == 4 and "db9" in run.stderr


def test_a_full_filesystem_is_told_and_with_room_the_same_command_goes_on(target):
    small = target.folder / "small"
    small.mkdir()
    here = Target(target.vault, target.folder, {"vda": small / "vda.raw", "vdb": small / "vdb.raw"})
    script = (f'mount -t tmpfs -o size=9m small {small} || exit 77; head -c 4M /dev/urandom >{small}/fill; "$@"; echo "status $?";'
              f'rm {small}/fill; mount -o remount,size=64m {small}; "$@"; echo "status $?"; cp {small}/*.raw {target.folder}')
    namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-m", "-r"]
    run = subprocess.run([*namespace, "sh", "-c", script, "sh", *map(str, here.command("restore"))], capture_output=True, text=True)
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip(f"no file system of its own can be mounted here: {run.stderr}")
    assert "status 1" in run.stdout and "free" in run.stderr
    assert "status 0" in run.stdout
    target.is_at(7)


def test_a_disk_in_use_is_refused(target, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices")
    backing = tmp_path / "disk"
    backing.write_bytes(bytes(24 * MIB))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", backing], check=True)
    loop = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True)
    if loop.returncode != 0:
        pytest.skip(f"no loop device: {loop.stderr}")
    device, where = loop.stdout.strip(), tmp_path / "mounted"
    where.mkdir()
    try:
        run = Target(target.vault, tmp_path, dict(target.to, vda=backing)).run("restore", "--overwrite", check=False)
        assert run.returncode == 6 and device in run.stderr
        here = Target(target.vault, tmp_path, dict(target.to, vda=device))
        # in a namespace of its own: one that is made meanwhile would take a copy of the mount, and hold the disk
        run = subprocess.run(["unshare", "-m", "sh", "-c", f'mount {device} {where} || exit 77; "$@"', "sh",
                              *map(str, here.command("restore", "--overwrite"))], capture_output=True, text=True, timeout=LONG_S)
        assert run.returncode == 6 and str(where) in run.stderr, run.stderr
        here.run("restore", "--overwrite")
        here.is_at(7)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


# ---- following -------------------------------------------------------------------------------------------------------

def applied(target):
    try:
        state = json.loads((target.folder / "state/target.json").read_text())
    except FileNotFoundError:
        return None
    return f"{state['applied']['epoch']}:{state['applied']['seq']}" if "applied" in state and "goal" not in state else None


def step_to(target, n):
    """A follower of one point, stopped when the disks are there."""
    child = target.start("--follow", "--point", target.vault.points[n])
    wait_for(lambda: applied(target) == target.vault.points[n] or child.poll() is not None, f"point {n}")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=LONG_S)
    assert child.returncode == 5, err


def test_a_follower_goes_from_point_to_point_and_back_over_what_it_kept(target):
    for n in range(8):
        step_to(target, n)
        target.is_at(n)
    state = target.run("status")
    assert [f"{u['epoch']}:{u['seq']}" for u in state["undo"]] == target.vault.points[:7]
    for n in (6, 5, 4):
        target.run("back")
        target.is_at(n)
    # forward again, over the part that was taken back
    child = target.start("--follow")
    wait_for(lambda: applied(target) == target.vault.points[7], "the newest point")
    target.run("finish")
    out, err = child.communicate(timeout=LONG_S)
    assert child.returncode == 0, err
    assert json.loads(out)["data"]["point"]["epoch"] == int(target.vault.points[7].split(":")[0])
    target.is_at(7)
    assert sorted(p.name for p in (target.folder / "state").iterdir()) == ["lock"]


def test_a_follower_keeps_no_more_than_it_may(target):
    for n in range(4):
        child = target.start("--follow", "--keep-points", 2, "--point", target.vault.points[n])
        wait_for(lambda: applied(target) == target.vault.points[n] or child.poll() is not None, f"point {n}")
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=LONG_S)
    assert len(target.run("status")["undo"]) == 2
    assert len(list((target.folder / "state").glob("undo-*"))) == 2


def test_killed_between_two_writes_the_disks_are_brought_to_a_known_point_forward_or_back(target):
    killed = lambda *more, writes: subprocess.run(target.command("restore", *more), capture_output=True,
                                                  env=dict(os.environ, LIFEBOAT_FAULT_TARGET_WRITES=str(writes))).returncode
    assert killed("--point", target.vault.points[0], writes=5) == -signal.SIGKILL   # of the first fill
    step_to(target, 0)
    target.is_at(0)
    for n, writes in enumerate((0, 1, 4, 9, 13, 17, 20), start=1):
        if killed("--follow", "--point", target.vault.points[n], writes=writes) != -signal.SIGKILL:
            pytest.fail(f"point {n} came with fewer than {writes} writes")
        assert "goal" in target.run("status")
        if n % 3 == 1:
            target.run("back")
            target.is_at(n - 1)
        elif n % 3 == 2:            # killed once more, on its way to a later point
            killed("--follow", "--point", target.vault.points[n + 1], writes=3)
            target.run("back")
            target.is_at(n - 1)
        step_to(target, n)
        target.is_at(n)


def test_two_at_once_are_told_apart(target):
    child = target.start("--follow", "--point", target.vault.points[0])
    wait_for(lambda: applied(target) == target.vault.points[0], "the first point")
    try:
        run = target.run("restore", check=False)
        assert run.returncode == 6 and "somebody else" in run.stderr
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=LONG_S)
    target.is_at(0)


def test_another_disk_in_the_place_of_the_one_that_was_followed_is_refused(target):
    step_to(target, 0)
    run = Target(target.vault, target.folder, dict(target.to, vda=target.folder / "other.raw")).run("restore", check=False)
    assert run.returncode == 5 and "other disks" in run.stderr


# ---- the other direction ---------------------------------------------------------------------------------------------

def write_in_double(double, disk, pattern, at, size):
    """A write of the double's, through QEMU's own block layer: there is no guest in these images."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(double / "qmp.sock"))
        f = s.makefile("rw")
        f.readline()

        def ask(command, **arguments):
            f.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            f.flush()
            while True:
                answer = json.loads(f.readline())
                if "event" not in answer:
                    assert "return" in answer, answer
                    return answer["return"]
        ask("qmp_capabilities")
        blocks = [b for b in ask("query-block") if b.get("inserted", {}).get("file", "").endswith(f"disk{disk}.qcow2")]
        device = blocks[0]["qdev"]
        said = ask("human-monitor-command", **{"command-line": f'qemu-io -d {device} "write -P {pattern} {at} {size}"'})
        assert "wrote" in said or said == "", said
        ask("human-monitor-command", **{"command-line": f'qemu-io -d {device} "flush"'})


def failback_start(vault, folder, *more, **environment_more):
    return subprocess.run([LIFEBOAT, "failback", "start", "live", "--vault", vault.url, "--passphrase-file", vault.passphrase_file,
                           "--folder", folder, "--confirm", "live", "-o", "json", *map(str, more)], capture_output=True, text=True,
                          env=dict(environment(), **environment_more), timeout=LONG_S)


def test_a_machine_goes_home_with_everything_its_double_wrote_and_only_that_is_carried(tmp_path, vm_folder):  # noqa: F811
    vault = Vault(tmp_path, raw_images(tmp_path), 4)
    home = Target(vault, tmp_path)
    for disk, name in enumerate(vault.names):       # the old disks, still there
        shutil.copy(vault.at(3, disk), home.to[name])
    begin(vault, vm_folder, "live", "--kind", "live")
    refused = failback_start(vault, vm_folder)
    assert refused.returncode == 2 and "not committed" in refused.stderr
    recover("commit", vm_folder, "live")
    write_in_double(vm_folder / "live", 0, 0xab, 2 * MIB, 65536)
    write_in_double(vm_folder / "live", 0, 0xcd, 20 * MIB, 4096)     # zeroes until now
    write_in_double(vm_folder / "live", 0, 0, 11 * MIB, 131072)      # data until now
    write_in_double(vm_folder / "live", 1, 0xef, 4 * MIB, 8192)
    run = failback_start(vault, vm_folder, "--wait", 0)
    assert run.returncode == 3, run.stderr          # nobody in there presses a power button
    told = json.loads(run.stdout)["data"]
    assert told["gathered_bytes"] == 65536 + 4096 + 131072 + 8192 and not told["gracefully"]
    again = json.loads(failback_start(vault, vm_folder).stdout)["data"]
    assert again["gathered_bytes"] == 0 and again["point"]["epoch"] > told["point"]["epoch"]
    restored = home.run("restore")
    assert restored["written_bytes"] == told["gathered_bytes"]
    assert restored["point"]["epoch"] == again["point"]["epoch"]
    for disk, name in enumerate(vault.names):
        same(home.to[name], vm_folder / f"live/disk{disk}.qcow2", "-f", "raw", "-F", "qcow2")
    resumed = recover("resume", vm_folder, "live", check=False)
    assert resumed.returncode != 0 and "goes home" in resumed.stderr
    verified = subprocess.run([LIFEBOAT, "vault", "verify", "db1", "--deep", "--vault", vault.url, "--passphrase-file",
                               vault.passphrase_file], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_dry_run_proves_the_way_home_and_changes_nothing(target):
    before = {p: digest(p) for p in target.to.values() if p.exists()}
    run = target.run("restore", "--dry-run", check=True)
    assert "bring the disks" in run["would"]
    target.to["vda"].write_bytes(b"precious" * (3 * MIB))
    run = target.run("restore", "--dry-run", check=False)
    assert run.returncode == 5 and "holds something" in run.stderr
    assert target.to["vda"].read_bytes() == b"precious" * (3 * MIB) and not before
