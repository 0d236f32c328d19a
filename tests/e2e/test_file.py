# SPDX-License-Identifier: Apache-2.0
"""Single files of a recovery point, from the vault alone: real filesystems made by mke2fs, held against their source."""

import filecmp
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build")).resolve()
LIFEBOAT = BUILD / "src/cli/lifeboat"
MKVAULT = BUILD / "tests/tools/mkvault"
MIB = 1 << 20
NANOSECONDS = 123456789
LONG_TARGET = "../" + "a-folder-whose-name-is-long/" * 10 + "end"

for needed in (LIFEBOAT, MKVAULT):
    if not needed.exists():
        pytest.skip(f"{needed} is not built", allow_module_level=True)
for tool in ("mke2fs", "debugfs", "sfdisk", "mkfs.xfs"):
    if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


def run(*command, **kw):
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, env=env, **kw)


def make_tree(folder):
    dice = random.Random(7)
    (folder / "etc/conf.d/deep/deeper").mkdir(parents=True)
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (folder / "etc/a name with blanks").write_bytes(b"x")
    (folder / "etc/empty").write_bytes(b"")
    (folder / "etc/conf.d/deep/deeper/big").write_bytes(dice.randbytes(5 * MIB + 123))
    with open(folder / "etc/sparse", "wb") as f:
        f.seek(3 * MIB)
        f.write(b"end")
        f.truncate(7 * MIB)
    os.symlink("hosts", folder / "etc/short-link")
    os.symlink(LONG_TARGET, folder / "etc/long-link")
    os.symlink("etc/conf.d", folder / "way")
    for n, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        if not path.is_symlink():
            path.chmod([0o640, 0o755, 0o600][n % 3] if path.is_file() else 0o750)
        os.utime(path, ns=(10**18 + n, 10**18 + n * 1_000_000_007), follow_symlinks=False)
    return folder


def ext4(path, size_mib, tree, *options):
    with open(path, "wb") as f:
        f.truncate(size_mib * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, *options, path)
    return path


def partitioned(path, size_mib, script, parts):
    """A disk with a partition table and the given images at their sectors."""
    with open(path, "wb") as f:
        f.truncate(size_mib * MIB)
    run("sfdisk", "-q", path, input=script.encode())
    with open(path, "r+b") as f:
        for sector, image in parts.items():
            f.seek(sector * 512)
            f.write(pathlib.Path(image).read_bytes())
    return path


class Vault:
    def __init__(self, folder, **disks):
        self.url = f"dir:{folder}/vault"
        self.passphrase_file = folder / "passphrase"
        self.passphrase_file.write_text("correct horse battery staple\n")
        self.passphrase_file.chmod(0o600)
        (folder / "oracle").mkdir()
        run(MKVAULT, "--vault", self.url, "--passphrase-file", self.passphrase_file, "--machine", "db1", "--points", "1",
            "--oracle", folder / "oracle", *[f"--disk={name}={path}" for name, path in disks.items()])

    def command(self, *args):
        return [str(a) for a in (LIFEBOAT, "file", *args, "--vault", self.url, "--passphrase-file", self.passphrase_file)]

    def call(self, *args, expect=0):
        p = subprocess.run(self.command(*args), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert p.returncode == expect, p.stderr + p.stdout
        return p.stdout if expect == 0 else p.stderr

    def json(self, *args):
        return json.loads(self.call(*args, "-o", "json"))["data"]


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    return make_tree(folder)


@pytest.fixture
def vault(tmp_path, tree):
    disk = ext4(tmp_path / "disk", 48, tree)
    run("debugfs", "-w", "-R", f"set_inode_field /etc/hosts mtime_extra {NANOSECONDS << 2}", disk)
    return Vault(tmp_path, vda=disk)


def same(source, copy):
    for path in [source, *source.rglob("*")]:
        got = copy / path.relative_to(source)
        a, b = path.lstat(), got.lstat()
        assert stat.S_IFMT(a.st_mode) == stat.S_IFMT(b.st_mode), path
        assert int(a.st_mtime) == int(b.st_mtime), path  # mke2fs -d takes no more
        if path.is_symlink():
            assert os.readlink(path) == os.readlink(got)
            continue
        assert a.st_mode == b.st_mode, path
        if path.is_file():
            assert a.st_size == b.st_size and filecmp.cmp(path, got, shallow=False), path
    assert sorted(p.relative_to(copy) for p in copy.rglob("*")) == sorted(p.relative_to(source) for p in source.rglob("*"))


def test_a_folder_comes_back_with_all_in_it_bytes_permissions_times_and_links(vault, tree, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    vault.call("get", "db1", "/etc", "--to", out)
    same(tree / "etc", out / "etc")
    assert (out / "etc/sparse").stat().st_blocks * 512 < 2 * MIB  # its holes are holes
    assert (out / "etc/hosts").stat().st_mtime_ns % 10**9 == NANOSECONDS


def test_a_file_behind_a_link_is_listed_and_fetched(vault, tree, tmp_path):
    names = {f["name"]: f for f in vault.json("ls", "db1", "/etc")["files"]}
    assert set(names) == {p.name for p in (tree / "etc").iterdir()}
    assert names["long-link"]["target"] == LONG_TARGET and names["sparse"]["size_bytes"] == 7 * MIB
    assert "a name with blanks" in vault.call("ls", "db1", "etc")
    vault.call("get", "db1", "/way/deep/deeper/big", "--to", tmp_path)
    assert filecmp.cmp(tmp_path / "big", tree / "etc/conf.d/deep/deeper/big", shallow=False)
    assert "no such file" in vault.call("get", "db1", "/etc/nothing", "--to", tmp_path, expect=4)


def test_nothing_is_overwritten_without_force_and_no_link_is_followed(vault, tree, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.write_text("untouched")
    (out / "hosts").symlink_to(outside)
    assert "without --force" in vault.call("get", "db1", "/etc/hosts", "--to", out, expect=5)
    assert (out / "hosts").is_symlink()
    vault.call("get", "db1", "/etc/hosts", "--to", out, "--force")
    assert not (out / "hosts").is_symlink() and (out / "hosts").read_text() == (tree / "etc/hosts").read_text()
    (out / "etc").symlink_to(tmp_path / "tree")
    vault.call("get", "db1", "/etc", "--to", out, "--force", expect=1)
    assert outside.read_text() == "untouched"
    assert sorted(p.name for p in out.iterdir()) == ["etc", "hosts"]


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions_are_found_in_either_kind_of_table(tmp_path, tree, label):
    one = ext4(tmp_path / "one", 24, tree)
    small = tmp_path / "small"
    small.mkdir()
    (small / "which").write_text("the small one")
    two = ext4(tmp_path / "two", 8, small)
    if label == "gpt":
        script, numbers = "label: gpt\nstart=2048,size=49152\nstart=51200,size=16384\n", (1, 2)
    else:  # the second one is logical
        script = "label: dos\nstart=2048,size=49152,type=83\nstart=51200,size=28672,type=5\nstart=53248,size=16384,type=83\n"
        numbers = (1, 5)
    disk = partitioned(tmp_path / "disk", 48, script, {2048: one, 51200 if label == "gpt" else 53248: two})
    vault = Vault(tmp_path, vda=disk)
    told = vault.call("ls", "db1", "/", expect=2)
    assert f"partition {numbers[0]}: ext2/3/4" in told and f"partition {numbers[1]}: ext2/3/4" in told
    vault.call("get", "db1", "/which", "--partition", numbers[1], "--to", tmp_path)
    assert (tmp_path / "which").read_text() == "the small one"
    assert {f["name"] for f in vault.json("ls", "db1", "/", "--partition", numbers[0])["files"]} == {"etc", "way", "lost+found"}


def test_a_filesystem_that_cannot_be_read_is_named_with_what_to_do(tmp_path):
    with open(tmp_path / "disk", "wb") as f:
        f.truncate(8 * MIB)
        f.seek(4096 - 10)
        f.write(b"SWAPSPACE2")
    told = Vault(tmp_path, vda=tmp_path / "disk").call("ls", "db1", "/", expect=1)
    assert "swap" in told and "point export" in told


def test_a_hostile_name_puts_nothing_outside_the_folder(tmp_path):
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder/AAAAAAAAAAAA").write_text("hostile")
    disk = ext4(tmp_path / "disk", 8, source, "-O", "^metadata_csum,^dir_index")
    data = disk.read_bytes()
    assert data.count(b"AAAAAAAAAAAA") == 1
    disk.write_bytes(data.replace(b"AAAAAAAAAAAA", b"../../escape"))
    out = tmp_path / "out/inner"
    out.mkdir(parents=True)
    told = Vault(tmp_path, vda=disk).call("get", "db1", "/folder", "--to", out, expect=1)
    assert "hostile" in told
    assert [p for p in tmp_path.rglob("escape")] == []


def test_a_get_that_is_killed_leaves_whole_files_or_none(vault, tree, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    p = subprocess.Popen(vault.command("get", "db1", "/etc/conf.d/deep/deeper/big", "--to", out), stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fds = pathlib.Path(f"/proc/{p.pid}/fd")
    while p.poll() is None:
        try:
            if any(str(out) in os.readlink(fd) for fd in fds.iterdir()):
                break
        except OSError:
            continue
    p.send_signal(signal.SIGKILL)
    p.wait()
    left = list(out.iterdir())
    assert left == [] or (left == [out / "big"] and filecmp.cmp(left[0], tree / "etc/conf.d/deep/deeper/big", shallow=False))
    vault.call("get", "db1", "/etc/conf.d/deep/deeper/big", "--to", out, *(["--force"] if left else []))
    assert filecmp.cmp(out / "big", tree / "etc/conf.d/deep/deeper/big", shallow=False)
