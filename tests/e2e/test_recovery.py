# SPDX-License-Identifier: Apache-2.0
"""Recovery from the vault alone: NBD, exports, doubles. Every image is held against an oracle made by plain writes."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

import pytest

from lifeboat_site import SiteError
from provoked import wait_for
from test_config import cmdline

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build")).resolve()
PLUGIN = pathlib.Path(os.environ.get("LIFEBOAT_NBDKIT_PLUGIN", BUILD / "src/nbd/nbdkit-lifeboat-plugin.so")).resolve()
MKVAULT = BUILD / "tests/tools/mkvault"
RECOVER = BUILD / "tests/tools/recover"
PASSPHRASE = "correct horse battery staple"
MIB = 1 << 20
STEP_FENCE, STEP_MEND, STEP_PULL, STEP_DONE = 1, 5, 8, 9
STEPS = [s for s in range(STEP_FENCE, STEP_DONE) if s != STEP_MEND]  # without mending
DEADLINE_S = 180
BOOT_DEADLINE_S = 600

for needed in (PLUGIN, MKVAULT, RECOVER):
    if not needed.exists():
        pytest.skip(f"{needed} is not built", allow_module_level=True)
for tool in ("nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "qemu-system-x86_64"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


class Vault:
    """A vault with one machine; what its disks are at each point is in `oracle`."""

    def __init__(self, folder, disks, points, *extra):
        self.folder = folder
        self.oracle = folder / "oracle"
        self.oracle.mkdir()
        self.passphrase_file = secret(folder / "passphrase", PASSPHRASE + "\n")
        self.key_file = folder / "key"
        self.url = f"dir:{folder}/vault"
        self.names = list(disks)
        made = subprocess.run(
            [MKVAULT, "--vault", self.url, "--passphrase-file", self.passphrase_file, "--machine", "db1", "--points", str(points),
             "--oracle", self.oracle, "--key-file", self.key_file, *extra]
            + [f"--disk={name}={path}" for name, path in disks.items()], check=True, capture_output=True, text=True)
        self.made = json.loads(made.stdout)
        self.machine = self.made["machine"]
        self.points = [f"{p['epoch']}:{p['seq']}" for p in self.made["points"]]

    def at(self, point, disk=0):
        return self.oracle / f"{point}-{self.names[disk]}.raw"

    def arguments(self):
        return ["--vault", self.url, "--passphrase-file", str(self.passphrase_file), "--machine", "db1"]

    def pins(self):
        folder = self.folder / "vault/m" / self.machine / "p"
        return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def secret(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def raw_images(folder):
    first, second = folder / "vda.img", folder / "vdb.img"
    with open(first, "wb") as f:
        f.write(os.urandom(5 * MIB + 512))
        f.seek(11 * MIB)
        f.write(b"lifeboat" * (MIB // 8))
        f.truncate(24 * MIB)
    with open(second, "wb") as f:
        f.truncate(5 * MIB)
    return {"vda": first, "vdb": second}


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    return Vault(folder, raw_images(folder), 8)


@pytest.fixture
def vm_folder():
    """Short, because sockets are in it. At the end nothing may be left of it, whatever the test did."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lbvm."))
    yield folder
    for double in list(folder.iterdir()):
        recover("cleanup", folder, double.name, "--live-too", check=False)
    with contextlib.suppress(SiteError):
        wait_for(lambda: not processes_of(folder), "the end of what is ending", 60)
    left = processes_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    assert not left, f"processes were left behind: {left}"


def environment():
    return dict(os.environ, LIFEBOAT_NBDKIT_PLUGIN=str(PLUGIN))


def recover(verb, folder, name, *more, check=True):
    run = subprocess.run([RECOVER, verb, "--folder", str(folder), "--name", name, *map(str, more)], env=environment(),
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if check:
        assert run.returncode == 0, f"recover {verb} ended with {run.returncode}: {run.stderr}"
        return json.loads(run.stdout) if run.stdout.strip() else None
    return run


def begin(vault, folder, name, *more, **how):
    return recover("begin", folder, name, *vault.arguments(), "--fabric", "qemu", "--memory", "64M", *more, **how)


def export(vault, path, *more, check=True):
    run = subprocess.run([RECOVER, "export", *vault.arguments(), "--path", str(path), *map(str, more)], env=environment(),
                         capture_output=True, text=True)
    if check:
        assert run.returncode == 0, run.stderr
    return run


def processes_of(folder):
    """Living processes that have something of this folder among their arguments."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and f"{folder}/".encode() in cmdline(entry.name):
            found.append(int(entry.name))
    return found


def nbd(vault, command, *settings, secret_setting=None, machine="db1"):
    """Runs a shell command against the plugin, as a user would, with $uri naming the disk."""
    secret_setting = secret_setting or f"passphrase-file={vault.passphrase_file}"
    return subprocess.run(["nbdkit", "-U", "-", PLUGIN, f"vault={vault.url}", secret_setting, f"machine={machine}", *settings,
                           "--run", command], capture_output=True, text=True)


def same(first, second, *options):
    run = subprocess.run(["qemu-img", "compare", *options, first, second], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# ---- NBD -------------------------------------------------------------------------------------------------------------

def test_every_point_of_every_disk_equals_the_oracle_over_nbd(vault):
    for n, point in enumerate(vault.points):
        for disk, name in enumerate(vault.names):
            run = nbd(vault, f'qemu-img compare -f raw -F raw "$uri" {vault.at(n, disk)}', f"point={point}", f"disk={name}")
            assert run.returncode == 0, f"point {point} disk {name}: {run.stdout} {run.stderr}"


def test_nbdcopy_copies_a_point(vault, tmp_path):
    run = nbd(vault, f'nbdcopy "$uri" {tmp_path}/copy.raw', "disk=vda")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "copy.raw").read_bytes() == vault.at(7).read_bytes()


def test_qemu_img_converts_a_point(vault, tmp_path):
    run = nbd(vault, f'qemu-img convert -f raw -O qcow2 "$uri" {tmp_path}/copy.qcow2', f"point={vault.points[2]}", "disk=0")
    assert run.returncode == 0, run.stderr
    same(tmp_path / "copy.qcow2", vault.at(2))


def test_nbdinfo_tells_size_and_that_it_is_read_only_and_multi_conn(vault):
    info = json.loads(nbd(vault, 'nbdinfo --json "$uri"').stdout)["exports"][0]
    assert info["export-size"] == 24 * MIB
    assert info["is_read_only"] is True
    assert info["can_multi_conn"] is True


def test_the_map_covers_the_disk_and_calls_nothing_a_hole_that_has_data(vault):
    extents = json.loads(nbd(vault, 'nbdinfo --json --map "$uri"').stdout)
    oracle = vault.at(7).read_bytes()
    at = 0
    for e in extents:
        assert e["offset"] == at
        at += e["length"]
        if e["type"] & 2:
            assert not any(oracle[e["offset"]:at]), f"{e} holds data"
    assert at == 24 * MIB
    holes = sum(e["length"] for e in extents if e["type"] & 1)
    assert holes > 8 * MIB, "what was never written is told as holes"


def test_the_plugin_takes_no_writes(vault):
    assert nbd(vault, 'qemu-io -f raw -c "write 0 4096" "$uri"').returncode != 0
    assert nbd(vault, 'nbdsh -u "$uri" -c "h.pwrite(bytearray(512), 0)"').returncode != 0
    assert nbd(vault, f'qemu-img compare -f raw -F raw "$uri" {vault.at(7)}').returncode == 0


def test_a_machine_key_opens_its_machine_without_the_passphrase(vault):
    run = nbd(vault, f'qemu-img compare -f raw -F raw "$uri" {vault.at(7)}', secret_setting=f"key-file={vault.key_file}",
              machine=vault.machine)
    assert run.returncode == 0, run.stderr


def test_a_wrong_key_opens_nothing(vault, tmp_path):
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(bytes(32))
    run = nbd(vault, "true", secret_setting=f"key-file={tmp_path}/key", machine=vault.machine)
    assert run.returncode != 0
    assert vault.machine in run.stderr


def test_a_wrong_passphrase_is_told_as_such(vault, tmp_path):
    wrong = secret(tmp_path / "wrong", "not the passphrase\n")
    run = nbd(vault, "true", secret_setting=f"passphrase-file={wrong}")
    assert run.returncode != 0
    assert "passphrase does not open vault" in run.stderr


def test_a_passphrase_file_that_everybody_may_read_is_refused(vault, tmp_path):
    wide = secret(tmp_path / "wide", PASSPHRASE)
    wide.chmod(0o644)
    run = nbd(vault, "true", secret_setting=f"passphrase-file={wide}")
    assert run.returncode != 0
    assert "chmod 600" in run.stderr


def test_an_unknown_machine_point_disk_and_vault_are_each_named_with_what_there_is(vault):
    run = nbd(vault, "true", machine="db2")
    assert run.returncode != 0 and "db2" in run.stderr
    run = nbd(vault, "true", "point=9:9")
    assert run.returncode != 0 and '"9:9"' in run.stderr and vault.points[-1] in run.stderr
    run = nbd(vault, "true", "disk=sdz")
    assert run.returncode != 0 and "vda" in run.stderr and "vdb" in run.stderr
    run = subprocess.run(["nbdkit", "-U", "-", PLUGIN, "vault=dir:/nowhere", f"passphrase-file={vault.passphrase_file}",
                          "machine=db1", "--run", "true"], capture_output=True, text=True)
    assert run.returncode != 0 and "/nowhere" in run.stderr


def test_an_altered_object_is_an_error_that_names_it_and_not_other_bytes(vault, tmp_path):
    shutil.copytree(vault.folder / "vault", tmp_path / "vault")
    target = tmp_path / "vault/m" / vault.machine / "e/00000001/0000000000"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.chmod(0o600)
    target.write_bytes(data)
    run = subprocess.run(["nbdkit", "-U", "-", PLUGIN, f"vault=dir:{tmp_path}/vault", f"passphrase-file={vault.passphrase_file}",
                          "machine=db1", f"point={vault.points[0]}", "--run", f'nbdcopy "$uri" {tmp_path}/copy.raw'], capture_output=True, text=True)
    assert run.returncode != 0
    assert "0000000000" in run.stderr


# ---- export ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_export_equals_the_oracle_at_every_point(vault, tmp_path, form):
    for n, point in enumerate(vault.points):
        disk = n % 2
        export(vault, tmp_path / f"{n}", "--point", point, "--disk", disk, "--format", form)
        same(tmp_path / f"{n}", vault.at(n, disk), "-f", form, "-F", "raw")
    assert len(list(tmp_path.iterdir())) == len(vault.points)


def test_a_raw_export_is_sparse(vault, tmp_path):
    export(vault, tmp_path / "image", "--point", "latest")
    st = (tmp_path / "image").stat()
    assert st.st_size == 24 * MIB
    assert st.st_blocks * 512 < 16 * MIB


def test_an_export_never_takes_the_place_of_a_file(vault, tmp_path):
    (tmp_path / "image").write_text("precious")
    run = export(vault, tmp_path / "image", "--point", "latest", check=False)
    assert run.returncode != 0 and "is there already" in run.stderr
    assert (tmp_path / "image").read_text() == "precious"


@pytest.mark.parametrize("form, spare_bytes", [("raw", -MIB), ("qcow2", -MIB), ("qcow2", 64 << 10)])
def test_a_full_target_disk_is_a_clear_error_and_leaves_nothing(vault, tmp_path, form, spare_bytes):
    export(vault, tmp_path / "probe", "--point", "latest")
    data_bytes = (tmp_path / "probe").stat().st_blocks * 512 + spare_bytes
    target = tmp_path / "small"
    target.mkdir()
    script = (f'mount -t tmpfs -o size={data_bytes // 4096 * 4096} small {target} || exit 77; '
              f'"$@"; echo "status $?"; ls -A {target} | sed "s/^/left /"')
    command = [RECOVER, "export", *vault.arguments(), "--point", "latest", "--path", target / "image", "--format", form]
    namespace = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-m", "-r"]
    run = subprocess.run([*namespace, "sh", "-c", script, "sh", *map(str, command)], env=environment(), capture_output=True,
                         text=True)
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip(f"no file system of its own can be mounted here: {run.stderr}")
    assert "status 1" in run.stdout
    assert "left" not in run.stdout
    assert "space" in run.stderr or "free" in run.stderr


# ---- doubles ---------------------------------------------------------------------------------------------------------

def test_a_test_failover_runs_on_the_point_and_its_cleanup_leaves_nothing(vault, vm_folder):
    pins = vault.pins()
    report = begin(vault, vm_folder, "one", "--isolated", "--forward", "22", "--point", vault.points[3])
    assert report["state"] == "running"
    assert f"{report['epoch']}:{report['seq']}" == vault.points[3]
    assert report["rto_ms"] > 0
    assert len(vault.pins()) == len(pins) + 1
    for disk in range(2):
        same(vm_folder / f"one/disk{disk}.qcow2", vault.at(3, disk), "-U")
    assert len(processes_of(vm_folder)) == 3            # QEMU, and a server per disk
    recover("cleanup", vm_folder, "one")
    assert processes_of(vm_folder) == []
    assert list(vm_folder.iterdir()) == []
    assert vault.pins() == pins


def test_two_test_failovers_run_at_once_on_different_points(vault, vm_folder):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reports = list(pool.map(lambda n: begin(vault, vm_folder, f"vm{n}", "--point", vault.points[n], "--forward", "22"), (1, 6)))
    assert [r["state"] for r in reports] == ["running", "running"]
    assert reports[0]["ports"]["22"] != reports[1]["ports"]["22"]
    same(vm_folder / "vm1/disk0.qcow2", vault.at(1), "-U")
    same(vm_folder / "vm6/disk0.qcow2", vault.at(6), "-U")
    told = recover("list", vm_folder, "any")
    assert sorted(d["vm"] for d in told) == ["vm1", "vm6"]
    recover("cleanup", vm_folder, "vm1")
    assert [d["vm"] for d in recover("list", vm_folder, "any")] == ["vm6"]
    assert recover("look", vm_folder, "vm6")["state"] == "running"


def test_a_name_that_is_taken_is_refused_and_what_runs_is_left_alone(vault, vm_folder):
    begin(vault, vm_folder, "one")
    run = begin(vault, vm_folder, "one", check=False)
    assert run.returncode != 0 and "cleanup" in run.stderr
    assert recover("look", vm_folder, "one")["state"] == "running"


@pytest.mark.parametrize("settings, words", [
    (["--machine", "db2"], "db2"), (["--point", "9:9"], "9:9"), (["--vault", "dir:/nowhere"], "/nowhere"),
    (["--fabric", "cloud"], "cloud"), (["--bus", "ide"], "virtio"), (["--probe-port", "80"], "not forwarded"),
])
def test_a_request_that_cannot_be_met_makes_nothing(vault, vm_folder, settings, words):
    run = begin(vault, vm_folder, "one", *settings, check=False)
    assert run.returncode == 1 and words in run.stderr
    assert list(vm_folder.iterdir()) == []
    assert processes_of(vm_folder) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_failover_killed_before_any_step_goes_on(own_vault, vm_folder, step):
    run = begin(own_vault, vm_folder, "one", "--kind", "live", "--point", own_vault.points[2], "--kill-before", step, check=False)
    assert run.returncode == -signal.SIGKILL
    report = recover("resume", vm_folder, "one")
    assert report["state"] == "running" and report["next"] == STEP_DONE
    assert recover("commit", vm_folder, "one")["committed"]
    for disk in range(2):
        same(vm_folder / f"one/disk{disk}.qcow2", own_vault.at(2, disk), "-U")
    recover("cleanup", vm_folder, "one", "--live-too")
    assert list(vm_folder.iterdir()) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_failover_killed_before_any_step_is_cleaned_up_without_trace(own_vault, vm_folder, step):
    pins = own_vault.pins()
    run = begin(own_vault, vm_folder, "one", "--kind", "live", "--kill-before", step, check=False)
    assert run.returncode == -signal.SIGKILL
    recover("cleanup", vm_folder, "one", "--live-too")
    assert list(vm_folder.iterdir()) == []
    assert processes_of(vm_folder) == []
    assert own_vault.pins() == pins


def test_a_failover_killed_at_any_moment_goes_on_or_was_never_begun(vault, vm_folder):
    """The kill falls where it falls: at 20 moments that spread over the whole run."""
    for n in range(20):
        child = subprocess.Popen([RECOVER, "begin", "--folder", vm_folder, "--name", "one", *vault.arguments(), "--fabric", "qemu",
                                  "--memory", "64M"], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=n * 0.04)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        run = recover("resume", vm_folder, "one", check=False)
        if run.returncode != 0:
            assert "there is no double" in run.stderr, run.stderr
        else:
            assert json.loads(run.stdout)["state"] == "running"
            same(vm_folder / "one/disk0.qcow2", vault.at(7), "-U")
            recover("cleanup", vm_folder, "one")
        assert list(vm_folder.iterdir()) == []
        assert processes_of(vm_folder) == []


def test_a_cleanup_killed_at_any_moment_can_be_done_again(vault, vm_folder):
    for n in range(6):
        begin(vault, vm_folder, "one")
        child = subprocess.Popen([RECOVER, "cleanup", "--folder", vm_folder, "--name", "one"], env=environment())
        try:
            child.wait(timeout=n * 0.05)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        run = recover("cleanup", vm_folder, "one", check=False)
        assert run.returncode == 0 or "there is no double" in run.stderr, run.stderr
        assert list(vm_folder.iterdir()) == []
        assert processes_of(vm_folder) == []


def test_a_killed_disk_server_is_brought_back_under_the_running_double(vault, vm_folder):
    begin(vault, vm_folder, "one", "--kind", "live", "--no-pull")
    servers = [p for p in processes_of(vm_folder) if b"nbdkit" in cmdline(p)]
    assert len(servers) == 2
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(servers) & set(processes_of(vm_folder)), "the servers are gone")
    assert recover("resume", vm_folder, "one")["state"] == "running"
    assert recover("commit", vm_folder, "one")["pull"]["complete"] is True
    same(vm_folder / "one/disk0.qcow2", vault.at(7), "-U")


def test_a_killed_double_is_started_again_on_what_it_had_written(vault, vm_folder):
    begin(vault, vm_folder, "one")
    qemu = [p for p in processes_of(vm_folder) if b"qemu-system" in cmdline(p)]
    os.kill(qemu[0], signal.SIGKILL)
    wait_for(lambda: qemu[0] not in processes_of(vm_folder), "QEMU is gone")
    assert recover("look", vm_folder, "one")["state"] == "stopped"
    inode = (vm_folder / "one/disk0.qcow2").stat().st_ino
    assert recover("resume", vm_folder, "one")["state"] == "running"
    assert (vm_folder / "one/disk0.qcow2").stat().st_ino == inode


def rests_on_the_vault(path):
    info = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, text=True, check=True)
    return "backing-filename" in json.loads(info.stdout)


def kill_qemu(vm_folder):
    qemu = [p for p in processes_of(vm_folder) if b"qemu-system" in cmdline(p)]
    assert len(qemu) == 1
    os.kill(qemu[0], signal.SIGKILL)
    wait_for(lambda: qemu[0] not in processes_of(vm_folder), "QEMU is gone")


def test_a_double_killed_as_its_last_block_comes_in_lacks_none(own_vault, vm_folder):
    """QEMU drops the backing file before the tables of what it has copied are in the file."""
    begin(own_vault, vm_folder, "live", "--kind", "live")
    overlays = [vm_folder / f"live/disk{d}.qcow2" for d in range(2)]
    wait_for(lambda: not any(map(rests_on_the_vault, overlays)), "both disks are pulled in")
    kill_qemu(vm_folder)
    assert recover("resume", vm_folder, "live")["state"] == "running"
    assert recover("commit", vm_folder, "live")["committed"]
    for disk in range(2):
        same(overlays[disk], own_vault.at(3, disk), "-U")


def test_a_committed_double_lacks_nothing_after_a_kill(own_vault, vm_folder):
    begin(own_vault, vm_folder, "live", "--kind", "live")
    recover("commit", vm_folder, "live")
    kill_qemu(vm_folder)
    assert processes_of(vm_folder) == []
    for disk in range(2):
        same(vm_folder / f"live/disk{disk}.qcow2", own_vault.at(3, disk))


def test_two_processes_never_work_on_one_double(vault, vm_folder):
    begin(vault, vm_folder, "one")
    import fcntl
    folder = os.open(vm_folder / "one", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run = recover("cleanup", vm_folder, "one", check=False)
        assert run.returncode != 0 and "another process" in run.stderr
        assert recover("list", vm_folder, "any")[0]["state"] == "running"
    finally:
        os.close(folder)


@pytest.fixture
def own_vault(tmp_path):
    """One that a live failover may fence."""
    return Vault(tmp_path, raw_images(tmp_path), 4)


def test_a_live_failover_is_repointed_committed_and_then_needs_the_vault_no_more(own_vault, vm_folder):
    report = begin(own_vault, vm_folder, "live", "--kind", "live")
    assert f"{report['epoch']}:{report['seq']}" == own_vault.points[3]
    refused = recover("cleanup", vm_folder, "live", check=False)
    assert refused.returncode != 0 and "nowhere else" in refused.stderr
    report = recover("repoint", vm_folder, "live", "--point", own_vault.points[1])
    assert report["state"] == "running" and not report["committed"]
    assert len(own_vault.pins()) == 1
    report = recover("commit", vm_folder, "live")
    assert report["committed"] and report["pull"]["complete"]
    assert own_vault.pins() == []
    assert len(processes_of(vm_folder)) == 1
    shutil.rmtree(own_vault.folder / "vault")
    for disk in range(2):
        same(vm_folder / f"live/disk{disk}.qcow2", own_vault.at(1, disk), "-U")
    assert recover("resume", vm_folder, "live")["state"] == "running"
    run = recover("repoint", vm_folder, "live", "--point", "latest", check=False)
    assert run.returncode != 0 and "committed" in run.stderr
    recover("cleanup", vm_folder, "live", "--live-too")
    assert list(vm_folder.iterdir()) == []


def test_a_live_failover_fences_the_journal_and_a_test_does_not(own_vault, vm_folder):
    objects = lambda: sorted(p for p in (own_vault.folder / "vault/m" / own_vault.machine / "e").rglob("*") if p.is_file())
    before = objects()
    begin(own_vault, vm_folder, "t")
    assert objects() == before
    begin(own_vault, vm_folder, "l", "--kind", "live")
    assert len(objects()) == len(before) + 1


def test_a_commit_that_is_interrupted_goes_on(own_vault, vm_folder):
    begin(own_vault, vm_folder, "live", "--kind", "live")
    child = subprocess.Popen([RECOVER, "commit", "--folder", vm_folder, "--name", "live"], env=environment(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child.wait(timeout=0.15)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    assert recover("commit", vm_folder, "live")["committed"]
    same(vm_folder / "live/disk0.qcow2", own_vault.at(3), "-U")


def test_a_commit_of_a_test_is_refused(vault, vm_folder):
    begin(vault, vm_folder, "one")
    run = recover("commit", vm_folder, "one", check=False)
    assert run.returncode != 0 and "is a test" in run.stderr


def test_no_secret_is_in_an_argument_or_in_the_record(vault, vm_folder):
    begin(vault, vm_folder, "one")
    key = vault.key_file.read_bytes()
    for pid in processes_of(vm_folder):
        arguments = cmdline(pid)
        assert PASSPHRASE.encode() not in arguments and key not in arguments and key.hex().encode() not in arguments
    for path in (vm_folder / "one").iterdir():
        if path.is_file():
            data = path.read_bytes()
            assert PASSPHRASE.encode() not in data and key not in data and key.hex().encode() not in data


def test_a_uefi_machine_needs_the_firmware_and_says_so_when_it_is_not_there(tmp_path, vm_folder):
    vault = Vault(tmp_path, raw_images(tmp_path), 1, "--firmware", "uefi")
    run = begin(vault, vm_folder, "one", check=False)
    if pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists():
        assert run.returncode == 0, run.stderr
        assert (vm_folder / "one/uefi-variables.fd").stat().st_size > 0
    else:
        assert run.returncode != 0 and "install ovmf" in run.stderr


# ---- libvirt ---------------------------------------------------------------------------------------------------------

def test_a_double_through_libvirt_is_started_committed_and_removed(libvirt, own_vault, vm_folder):
    name = f"lb-test-{os.getpid()}"
    report = recover("begin", vm_folder, name, *own_vault.arguments(), "--fabric", "libvirt", "--kind", "live", "--memory", "64M",
                     "--forward", "22")
    assert report["state"] == "running" and report["fabric"] == "libvirt"
    assert name in libvirt.domains()
    report = recover("commit", vm_folder, name)
    assert report["committed"] and report["pull"]["complete"]
    same(vm_folder / name / "disk0.qcow2", own_vault.at(3), "-U")
    recover("cleanup", vm_folder, name, "--live-too")
    assert name not in libvirt.domains()
    assert list(vm_folder.iterdir()) == []


def test_without_libvirt_its_fabric_is_refused_with_the_cure(vault, vm_folder):
    run = subprocess.run([RECOVER, "begin", "--folder", vm_folder, "--name", "one", *vault.arguments(), "--fabric", "libvirt"],
                         env=dict(environment(), LIBVIRT_DEFAULT_URI="qemu+unix:///system?socket=/nowhere"), capture_output=True,
                         text=True)
    assert run.returncode != 0
    assert "--fabric qemu" in run.stderr
    assert list(vm_folder.iterdir()) == []


# ---- a real guest ----------------------------------------------------------------------------------------------------

CONTROL_PORT = 7001


def in_guest(port, command):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    connection.request("POST", "/cgi-bin/control", body=command)
    return connection.getresponse().read().decode(errors="replace")


@pytest.fixture(scope="module")
def guest_vault(tmp_path_factory):
    builder = ROOT / "tests/guest/build-guest.sh"
    if not builder.exists() or not shutil.which("grub-mkimage") or not shutil.which("busybox"):
        pytest.skip("what builds a guest is missing; run 'make deps'")
    folder = tmp_path_factory.mktemp("guest")
    subprocess.run([builder, "--control", "--hostname", "protected", folder / "guest.img"], check=True)
    return Vault(folder, {"vda": folder / "guest.img"}, 1, "--memory", "256M")


@pytest.mark.parametrize("fabric, bus", [("qemu", "virtio"), ("qemu", "scsi"), ("libvirt", "virtio")])
def test_the_double_of_a_real_guest_boots_from_the_vault_and_answers(guest_vault, vm_folder, fabric, bus, request):
    if fabric == "libvirt":
        request.getfixturevalue("libvirt")
    name = f"lb-boot-{os.getpid()}"
    report = recover("begin", vm_folder, name, *guest_vault.arguments(), "--fabric", fabric, "--bus", bus, "--isolated",
                     "--forward", CONTROL_PORT, "--probe-port", CONTROL_PORT, "--probe-send", "GET / HTTP/1.0\r\n\r\n",
                     "--wait", BOOT_DEADLINE_S)
    assert report["state"] == "running"
    port = report["ports"][str(CONTROL_PORT)]
    assert "protected" in in_guest(port, "hostname")
    strings = in_guest(port, "cat /sys/firmware/dmi/entries/11-0/raw")
    assert f"lifeboat:double={guest_vault.machine}" in strings
    assert "lifeboat:failover=test" in strings
    with socket.create_server(("127.0.0.1", 0)) as here:
        here.settimeout(0)
        in_guest(port, f"nc -w 3 10.0.2.2 {here.getsockname()[1]} </dev/null")
        with pytest.raises(BlockingIOError):        # an isolated double reaches nobody
            here.accept()
    assert "exit 0" in in_guest(port, "echo written by the double > /root/proof; sync")
    recover("cleanup", vm_folder, name)
    assert nbd(guest_vault, f'qemu-img compare -f raw -F raw "$uri" {guest_vault.at(0)}').returncode == 0
