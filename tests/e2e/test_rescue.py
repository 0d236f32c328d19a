# SPDX-License-Identifier: Apache-2.0
"""Bare metal: a guest starts from the rescue medium, fills its own blank disk from the vault, and starts from that."""
import os
import pathlib
import shutil
import subprocess

import pytest

from guest import Guest, Disk
from test_recovery import BUILD, MIB, ROOT, Vault, raw_images
from test_target import digest

LIFEBOAT = BUILD / "src/cli/lifeboat"
BUILDER = ROOT / "tests/guest/build-guest.sh"
DEADLINE_S = 400
CONTROL_PORT = 7001
OVMF = pathlib.Path("/usr/share/OVMF")

for tool in ("qemu-system-x86_64", "xorriso", "mformat", "grub-mkimage", "busybox"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The kernel of the test guests, unpacked: fetched once."""
    folder = tmp_path_factory.mktemp("kernel")
    subprocess.run(["bash", "-c", f'. {ROOT}/tests/guest/lib.sh; guest_kernel "$(guest_cache_dir)" >{folder}/path'], check=True)
    return (folder / "path").read_text().strip()


@pytest.fixture(scope="module")
def rescue(tmp_path_factory, kernel):
    folder = tmp_path_factory.mktemp("rescue")
    run = subprocess.run([LIFEBOAT, "rescue", "build", folder / "rescue.iso", "--kernel", kernel, "--console", "ttyS0",
                          "--parts", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


def test_a_medium_that_would_lack_the_target_server_is_not_built_and_it_is_told_what_to_install(tmp_path):
    if shutil.which("lifeboat-target", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        pytest.skip("lifeboat-target is installed on this host")
    shutil.copy(LIFEBOAT, tmp_path / "lifeboat")
    run = subprocess.run([ROOT / "packaging/rescue/lifeboat-rescue-build", "--lifeboat", tmp_path / "lifeboat", tmp_path / "rescue.iso"],
                         capture_output=True, text=True)
    assert run.returncode == 1 and "no lifeboat-target" in run.stderr and "install the package lifeboat" in run.stderr, run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["lifeboat"]


def medium(folder, vault, after, *more):
    """A disk labelled LIFEBOAT: the vault, the passphrase, and what is to be done."""
    tree = folder / "medium"
    tree.mkdir()
    shutil.copytree(vault.folder / "vault", tree / "vault")
    shutil.copy(vault.passphrase_file, tree / "passphrase")
    lines = ["vault=dir:/media/lifeboat/vault", "machine=db1", "to=auto", "passphrase-file=/media/lifeboat/passphrase",
             "network=none", f"then={after}", *more]
    (tree / "rescue.conf").write_text("\n".join(lines) + "\n")
    size = sum(p.stat().st_size for p in tree.rglob("*") if p.is_file())
    image = folder / "medium.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "LIFEBOAT", "-d", tree, image, f"{size // 1024 * 3 // 2 + 16384}k"],
                   check=True, env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
    shutil.rmtree(tree)
    return Disk(str(image), read_only=True)


def blank(path, size):
    with open(path, "wb") as f:
        f.truncate(size)
    return path


def run_to_its_end(guest):
    guest.start()
    try:
        guest.wait(lambda: not guest.alive() or "lifeboat-rescue: a shell" in guest.serial_log.read_text(errors="replace"),
                   "the end of the restore", DEADLINE_S)
    finally:
        guest.close()
    return guest.serial_log.read_text(errors="replace")


def test_a_blank_machine_is_restored_from_the_rescue_medium_and_starts_from_its_own_disk(tmp_path, rescue):
    subprocess.run([BUILDER, "--control", "--hostname", "protected", tmp_path / "guest.img"], check=True)
    vault = Vault(tmp_path, {"vda": tmp_path / "guest.img"}, 1, "--memory", "256M")
    own = blank(tmp_path / "own.img", (tmp_path / "guest.img").stat().st_size)
    said = run_to_its_end(Guest(tmp_path / "rescue", [own, medium(tmp_path, vault, "reboot")], memory_mib=384, extra=[
        "-kernel", str(rescue / "vmlinuz"), "-initrd", str(rescue / "initrd.img"), "-append", "console=ttyS0 panic=-1"]))
    assert "lifeboat-rescue: restored" in said
    assert digest(own) == digest(vault.at(0))
    guest = Guest(tmp_path / "own", [own], memory_mib=256, forwards=[CONTROL_PORT]).start()
    try:
        guest.wait_control(DEADLINE_S)
        assert guest.run("hostname")[1].strip() == "protected"
    finally:
        guest.close()


def firmware(tmp_path, name):
    """QEMU's arguments for one firmware; skips where it is not installed."""
    if name == "bios":
        return []
    code, variables = OVMF / "OVMF_CODE_4M.ms.fd", OVMF / "OVMF_VARS_4M.ms.fd"
    if not code.exists():
        pytest.skip("no OVMF with Microsoft's keys; install ovmf")
    shutil.copy(variables, tmp_path / "variables.fd")
    return ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
            "-drive", f"if=pflash,unit=1,format=raw,file={tmp_path}/variables.fd"]


@pytest.mark.parametrize("name, started_by", [("bios", "BIOS"), ("secure-boot", "UEFI with Secure Boot")])
def test_the_medium_starts_by_itself(tmp_path, rescue, name, started_by):
    vault = Vault(tmp_path, raw_images(tmp_path), 2)
    own = [blank(tmp_path / f"{n}.img", p.stat().st_size) for n, p in raw_images(tmp_path).items()]
    disks = [*own, medium(tmp_path, vault, "poweroff")]
    extra = [*firmware(tmp_path, name), "-drive", f"if=none,id=cd,format=raw,readonly=on,file={rescue}/rescue.iso",
             "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd,bootindex=0"]
    said = run_to_its_end(Guest(tmp_path / "rescue", disks, memory_mib=640, extra=extra))
    assert f"started by {started_by}" in said
    if name == "secure-boot":
        assert "UEFI Secure Boot is enabled" in said      # the kernel's own words
    assert "lifeboat-rescue: restored" in said
    for disk, path in enumerate(own):
        assert digest(path) == digest(vault.at(1, disk))
