# SPDX-License-Identifier: Apache-2.0
"""Mending in the double: what a machine's double would lack is put into its overlay before it starts, and nowhere else."""
import hashlib
import json
import os
import pathlib
import shutil
import struct
import subprocess

import pytest

from provoked import provoked, wait_for
from test_config import cmdline
from test_recovery import (BOOT_DEADLINE_S, CONTROL_PORT, DEADLINE_S, MIB, RECOVER, ROOT, Vault, environment, in_guest, nbd,
                           processes_of, recover, vm_folder)  # noqa: F401

PROBE = ("--forward", CONTROL_PORT, "--probe-port", CONTROL_PORT, "--probe-send", "GET / HTTP/1.0\r\n\r\n", "--wait", BOOT_DEADLINE_S)
INTERFACES = "auto lo\niface lo inet loopback\n\nauto enp3s0\niface enp3s0 inet dhcp\n"


def kernel():
    """Debian's cloud kernel, unpacked, as the guests have it."""
    lib = ROOT / "tests/guest/lib.sh"
    p = subprocess.run(["bash", "-ec", f'. {lib}; guest_kernel "$(guest_cache_dir)"'], capture_output=True, text=True)
    if p.returncode != 0:
        pytest.skip(f"no kernel for the mender: {p.stderr}")
    return pathlib.Path(p.stdout.strip())


@pytest.fixture(scope="module")
def mender(build, tmp_path_factory):
    if not shutil.which("cpio") or not shutil.which("busybox"):
        pytest.skip("what builds the mender is missing; run 'make deps'")
    folder = tmp_path_factory.mktemp("mender") / "here"
    subprocess.run([build / "src/cli/lifeboat", "rescue", "mender", "--kernel", kernel(), folder], check=True)
    with pytest.MonkeyPatch.context() as m:
        m.setenv("LIFEBOAT_MENDER", str(folder))
        yield folder


@pytest.fixture(scope="module")
def physical(tmp_path_factory):
    """A server whose initramfs has no virtio drivers, and whose card has a name that a double's has not."""
    builder = ROOT / "tests/guest/build-guest.sh"
    if not shutil.which("grub-mkimage") or not shutil.which("busybox"):
        pytest.skip("what builds a guest is missing; run 'make deps'")
    folder = tmp_path_factory.mktemp("physical")
    (folder / "interfaces").write_text(INTERFACES)
    subprocess.run([builder, "--no-virtio", "--control", "--hostname", "physical", "--load", "virtio_net", "--kernel-append", "lifeboat.wait=1", "--file",
                    f"{folder}/interfaces:/etc/network/interfaces", folder / "guest.img"], check=True)
    return Vault(folder, {"vda": folder / "guest.img"}, 1, "--memory", "256M")


def digests(folder):
    """What a vault holds, but for the pins of the doubles that there are."""
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file() and p.parent.name != "p"}


def start(vault, vm_folder, name, *more, check=True):  # noqa: F811
    return recover("begin", vm_folder, name, *vault.arguments(), "--fabric", "qemu", "--isolated", *more, check=check)


def test_the_double_of_a_physical_server_that_would_not_boot_boots_when_it_is_mended(physical, mender, vm_folder):  # noqa: F811
    before = digests(physical.folder / "vault")
    dead = start(physical, vm_folder, "dead")
    console = pathlib.Path(dead["console"])
    wait_for(lambda: b"no disk with UUID" in console.read_bytes(), "the unmended double's last words", BOOT_DEADLINE_S)
    assert dead["mended"] == "" and b"guest: up" not in console.read_bytes()
    recover("cleanup", vm_folder, "dead")

    double = start(physical, vm_folder, "mended", "--require-mend", *PROBE)
    assert double["mended"] == "initramfs initrd.img has the drivers of this double's disks; network: the double's card is called enp3s0"
    port = double["ports"][str(CONTROL_PORT)]
    assert "physical" in in_guest(port, "hostname")
    assert "virtio_blk" in in_guest(port, "lsmod; cat /proc/partitions; ls -l /sys/block/vda/device/driver")
    rule, address = in_guest(port, "cat /etc/systemd/network/10-lifeboat-enp3s0.link"), in_guest(port, "cat /sys/class/net/eth0/address")
    assert "Name=enp3s0" in rule and address.splitlines()[0] in rule

    # neither the source nor the vault has changed, nor what others see of the point
    recover("cleanup", vm_folder, "mended")
    assert digests(physical.folder / "vault") == before
    assert nbd(physical, f'qemu-img compare -f raw -F raw "$uri" {physical.at(0)}').returncode == 0


def test_a_kill_in_the_middle_of_mending_is_gone_on_from_with_overlays_made_anew(physical, mender, vm_folder):  # noqa: F811
    child = subprocess.Popen([RECOVER, "begin", "--folder", str(vm_folder), "--name", "one", *physical.arguments(), "--fabric", "qemu",
                              "--mend"], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = vm_folder / "one/mender.log"
    wait_for(lambda: log.exists() and b"EXT4-fs" in log.read_bytes(), "the mender's mount", BOOT_DEADLINE_S)
    child.kill()
    child.wait()
    # it never outlives who started it
    wait_for(lambda: not [p for p in processes_of(vm_folder) if b"mender-one" in cmdline(p)], "the mender's end", DEADLINE_S)
    provoked(json.loads((vm_folder / "one/failover.json").read_text())["next"] == "mend", "the mender had ended before the kill")
    with open(vm_folder / "one/disk0.qcow2", "r+b") as f:       # as bad as a kill can leave it
        f.write(b"torn")
    report = recover("resume", vm_folder, "one")
    assert report["state"] == "running" and report["warning"] == "" and report["mended"].startswith("initramfs initrd.img has")
    # what is done is not done again: the double has written to these overlays
    inode = os.stat(vm_folder / "one/disk0.qcow2").st_ino
    assert recover("resume", vm_folder, "one")["mended"] == report["mended"]
    assert os.stat(vm_folder / "one/disk0.qcow2").st_ino == inode


def strip_initramfs(image, folder):
    """Debian's own initramfs without a driver of a virtual machine's disks, as MODULES=dep leaves it on a physical server."""
    disk, tree = f"{image}?offset={MIB}", folder / "initramfs"
    names = subprocess.run(["debugfs", "-R", "ls -p /boot", disk], check=True, capture_output=True, text=True).stdout
    name = next(word for word in names.split("/") if word.startswith("initrd.img-"))
    subprocess.run(["debugfs", "-R", f"dump /boot/{name} {folder}/initrd", disk], check=True, capture_output=True)
    tree.mkdir()
    subprocess.run(["bash", "-euo", "pipefail", "-c", """
        cd "$1"
        if zstd -qt "$2" 2>/dev/null; then zstd -qdc "$2"; else gzip -dc "$2"; fi | cpio -idm --quiet
        find . -name 'virtio*.ko*' -o -name 'ata_piix.ko*' -o -name 'ahci.ko*' | xargs rm -v | grep virtio_blk >&2
        PATH=$PATH:/usr/sbin depmod -b . "$3"
        find . | cpio -o -H newc --quiet | zstd -q -1 >"$2.less"
        """, "strip", tree, folder / "initrd", name[len("initrd.img-"):]], check=True)
    for command in (f"rm /boot/{name}", f"write {folder}/initrd.less /boot/{name}"):
        subprocess.run(["debugfs", "-w", "-R", command, disk], check=True, capture_output=True)
    return name


@pytest.mark.skipif(not os.environ.get("LIFEBOAT_SLOW"), reason="takes minutes under TCG: set LIFEBOAT_SLOW=1")
def test_the_double_of_a_whole_debian_boots_when_it_is_mended_and_its_card_has_its_name(mender, tmp_path, vm_folder):  # noqa: F811
    network = tmp_path / "network"
    network.write_text("[Match]\nName=enp9s0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n")
    image = tmp_path / "debian.img"
    subprocess.run([ROOT / "tests/guest/build-debian.sh", "--control", "--file", f"{network}:/etc/systemd/network/10-lan.network", image], check=True)
    name = strip_initramfs(image, tmp_path)
    vault = Vault(tmp_path, {"vda": image}, 1, "--memory", "512M")
    before = digests(vault.folder / "vault")
    dead = start(vault, vm_folder, "dead")
    console = pathlib.Path(dead["console"])
    # what initramfs-tools says when it gives up (its panic=-1 then reboots)
    wait_for(lambda: b"Gave up waiting for root" in console.read_bytes() or b"does not exist" in console.read_bytes(),
               "the unmended double's last words", 900)
    assert b"guest: up" not in console.read_bytes()
    recover("cleanup", vm_folder, "dead")
    double = start(vault, vm_folder, "mended", "--require-mend", *PROBE[:-1], 900)
    assert double["mended"] == (f"initramfs {name} has the drivers of this double's disks; "
                                "network: the double's card is called enp9s0")
    port = double["ports"][str(CONTROL_PORT)]
    said = in_guest(port, "ip -o -4 address; cat /sys/class/net/enp9s0/address; lsmod | grep virtio")
    assert "enp9s0" in said and "10.0.2.15" in said and "virtio_blk" in said, said
    recover("cleanup", vm_folder, "mended")
    assert digests(vault.folder / "vault") == before


def windows(path):
    """As much of NTFS as tells that it is."""
    with open(path, "wb") as f:
        f.write(struct.pack("<3s8sHB7xB2x2H4x4xI Q Q Q bxxx bxxx Q", b"\xebR\x90", b"NTFS    ", 512, 8, 0xf8, 63, 255, 0x800080, 16383, 4, 8,
                            -10, 1, 0x1234567890abcdef))
        f.seek(510)
        f.write(b"\x55\xaa")
        for record in (0, 3):
            f.seek(4 * 4096 + record * 1024)
            f.write(b"FILE")
        f.truncate(8 * MIB)


def full_boot(path, folder, release):
    """A /boot with its kernel's drivers beside it, and no room for them behind the initramfs."""
    tree = folder / "tree"
    modules = tree / "usr/lib/modules" / release
    source = kernel() / "lib/modules" / release
    for line in (source / "modules.dep").read_text().splitlines():
        name = line.split(":")[0]
        if any(f"/{driver}.ko" in name for driver in ("virtio_pci", "virtio_blk", "virtio", "virtio_ring", "virtio_scsi", "sd_mod", "scsi_mod",
                                                      "scsi_common", "ata_piix", "libata", "crc-t10dif", "crc64-rocksoft", "t10-pi", "crc64",
                                                      "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "crct10dif_common")):
            (modules / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, modules / name)
    for name in ("modules.dep", "modules.alias", "modules.builtin"):
        shutil.copy(source / name, modules / name)
    (tree / "boot").mkdir()
    (tree / "boot/initrd.img-1").write_bytes(b"\0" * 4096)
    (tree / "etc").mkdir()
    (tree / "etc/fstab").write_text("")
    with open(path, "wb") as f:
        f.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", tree, path], check=True)
    free = subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True).stdout
    figures = dict(line.split(":", 1) for line in free.splitlines() if ":" in line)
    filler = (int(figures["Free blocks"]) - 40) * int(figures["Block size"])
    (tree / "filler").write_bytes(b"\xff" * filler)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", tree, path], check=True)


@pytest.mark.parametrize("what, words", [("nothing", "no filesystem that it knows is on these disks"),
                                         ("windows", "these are disks of Windows, which Lifeboat can't mend"),
                                         ("full", "no room for drivers behind initrd.img-1")])
def test_what_cannot_be_mended_is_told_and_the_double_is_there_as_it_was(mender, tmp_path, vm_folder, what, words):  # noqa: F811
    image = tmp_path / "vda.img"
    if what == "windows":
        windows(image)
    elif what == "full":
        full_boot(image, tmp_path, (kernel() / "release").read_text().strip())
    else:
        image.write_bytes(os.urandom(MIB) + b"\0" * 7 * MIB)
    vault = Vault(tmp_path, {"vda": image}, 1)
    required = start(vault, vm_folder, "one", "--memory", "64M", *(["--require-mend"] if what == "windows" else ["--mend"]),
                     check=False)
    if what == "windows":
        assert required.returncode != 0 and words in required.stderr and "can't mend the double" in required.stderr, required.stderr
        assert json.loads((vm_folder / "one/failover.json").read_text())["next"] == "mend"
        recover("cleanup", vm_folder, "one")
        return
    assert required.returncode == 0, required.stderr
    report = json.loads(required.stdout)
    assert report["state"] == "running" and words in report["warning"] and report["mended"] == "", report


def test_without_a_mender_a_required_one_is_asked_for_before_anything_is_made(tmp_path, vm_folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_MENDER", str(tmp_path / "none"))
    image = tmp_path / "vda.img"
    image.write_bytes(os.urandom(MIB))
    vault = Vault(tmp_path, {"vda": image}, 1)
    p = start(vault, vm_folder, "one", "--memory", "64M", "--kind", "live", "--require-mend", check=False)
    assert p.returncode != 0 and "`lifeboat rescue mender` makes it" in p.stderr, p.stderr
    assert not list(vm_folder.iterdir()) and not vault.pins()
    report = start(vault, vm_folder, "one", "--memory", "64M", "--mend")
    assert report["state"] == "running" and "there is no mender" in report["warning"]
