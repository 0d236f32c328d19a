# SPDX-License-Identifier: Apache-2.0
"""Files of what we don't read ourselves, through guestfish: xfs in LVM on a partition, beside an ext4 /boot."""

import filecmp
import json
import os
import pathlib
import shutil
import stat
import subprocess

import pytest

from test_file import ROOT, Vault, run

GUESTFISH = shutil.which("guestfish")
LIB = ROOT / "tests/guest/lib.sh"

# One boot of its small virtual machine makes the disk.
MAKE = r"""run
part-init /dev/sda gpt
part-add /dev/sda p 2048 69631
part-add /dev/sda p 69632 -2048
mkfs ext4 /dev/sda1
pvcreate /dev/sda2
vgcreate vg /dev/sda2
lvcreate root vg 360
mkfs xfs /dev/vg/root
mount /dev/vg/root /
mkdir-p /etc/conf.d/deep
write /etc/hello "hello from xfs\n"
write "/etc/a new\nline" "odd"
write "/etc/it's \"quoted\"" "odder"
ln-s hello /etc/short-link
mkdir "/etc/empty folder"
touch /etc/empty
mkfifo 0600 /etc/pipe
ln /etc/hello /etc/conf.d/deep/hard
touch /etc/sparse
truncate-size /etc/sparse 7340032
pwrite /etc/sparse "end" 3145728
chmod 0640 /etc/hello
chmod 04755 /etc/empty
utimens /etc/hello 1000000000 5 1000000001 7
upload BIG /etc/conf.d/deep/big
"""


def kernel_environment():
    """guestfish needs a kernel: the host's, or the one that our guests have."""
    env = dict(os.environ, LIBGUESTFS_BACKEND="direct", LIBGUESTFS_BACKEND_SETTINGS="force_tcg")
    if any(pathlib.Path("/boot").glob("vmlinuz-*")) or "SUPERMIN_KERNEL" in os.environ:
        return env
    p = subprocess.run(["bash", "-c", f'. "{LIB}"; guest_kernel "$(guest_cache_dir)"'], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if p.returncode:
        pytest.skip(f"no kernel for guestfish: {p.stderr.strip()[-200:]}")
    tree = pathlib.Path(p.stdout.strip().splitlines()[-1])
    if (tree / "tree").is_dir():
        tree = tree / "tree"
    return dict(env, SUPERMIN_KERNEL=str(next((tree / "boot").glob("vmlinuz-*"))), SUPERMIN_MODULES=str(next((tree / "lib/modules").iterdir())))


@pytest.fixture
def vault(tmp_path, monkeypatch):
    if not GUESTFISH:
        pytest.skip("guestfish is not installed; `scripts/deps.sh --files` installs it")
    for name, value in kernel_environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "big").write_bytes(os.urandom(5000123))
    with open(tmp_path / "disk", "wb") as f:
        f.truncate(448 << 20)
    run(GUESTFISH, "--format=raw", "-a", tmp_path / "disk", input=MAKE.replace("BIG", str(tmp_path / "big")).encode())
    return Vault(tmp_path, vda=tmp_path / "disk")


def test_files_of_xfs_in_lvm_are_listed_and_fetched_by_guestfish(vault, tmp_path):
    told = vault.call("ls", "db1", "/", expect=2)
    assert "partition 1: ext2/3/4" in told and "partition 2: LVM" in told and "--partition" in told

    files = {f.get("name"): f for f in vault.json("ls", "db1", "/etc", "--partition", "2")["files"]}
    assert set(files) == {"conf.d", "hello", "a new\nline", "it's \"quoted\"", "short-link", "empty folder", "empty", "pipe", "sparse"}
    assert files["short-link"]["target"] == "hello" and files["sparse"]["size_bytes"] == 7 << 20
    assert files["hello"]["mtime_s"] == 1000000001 and files["hello"]["mode"] == 0o640 and files["pipe"]["kind"] == "other"

    out = tmp_path / "out"
    out.mkdir()
    p = subprocess.run(vault.command("get", "db1", "/etc", "--volume", "vg/root", "--to", out, "-o", "json"), capture_output=True,
                       text=True, stdin=subprocess.DEVNULL)
    assert p.returncode == 3, p.stderr + p.stdout
    got = json.loads(p.stdout)["data"]
    etc = out / "etc"
    assert got["left_out"] == 1  # the pipe
    assert (etc / "hello").read_text() == "hello from xfs\n" and (etc / "a new\nline").read_text() == "odd"
    assert (etc / "it's \"quoted\"").read_text() == "odder" and os.readlink(etc / "short-link") == "hello"
    assert (etc / "hello").stat().st_mtime == 1000000001 and stat.S_IMODE((etc / "hello").stat().st_mode) == 0o640
    assert stat.S_IMODE((etc / "empty").stat().st_mode) == 0o755 and (etc / "empty folder").is_dir()
    assert (etc / "conf.d/deep/hard").samefile(etc / "hello")
    assert filecmp.cmp(tmp_path / "big", etc / "conf.d/deep/big", shallow=False)
    assert (etc / "sparse").stat().st_size == 7 << 20 and (etc / "sparse").stat().st_blocks * 512 < 1 << 20
    assert sorted(p.name for p in etc.iterdir()) == sorted(set(files) - {"pipe"})
    assert list(pathlib.Path("/tmp").glob("lifeboat-file.*/commands")) == []


def test_without_guestfish_it_is_said_what_to_install(tmp_path, monkeypatch):
    with open(tmp_path / "disk", "wb") as f:
        f.truncate(320 << 20)
    run("mkfs.xfs", "-q", tmp_path / "disk")
    vault = Vault(tmp_path, vda=tmp_path / "disk")
    monkeypatch.setenv("LIFEBOAT_GUESTFISH", str(tmp_path / "none"))
    told = vault.call("ls", "db1", "/", expect=1)
    assert "guestfish" in told and "apt-get install" in told and "point export" in told
