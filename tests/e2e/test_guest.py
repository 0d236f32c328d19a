# SPDX-License-Identifier: Apache-2.0
"""The guests that other tests stand on: what they rely on holds without Lifeboat."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUEST = ROOT / "tests/guest"
sys.path.insert(0, str(GUEST))

import ledger_client  # noqa: E402
from guest import CONTROL_PORT, Disk, Guest, GuestError, overlay  # noqa: E402

LEDGER = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build")) / "tests/guest/ledger"
LEDGER_PORT = 7000


@pytest.fixture
def listener():
    """A port of this machine that accepts one connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        thread = threading.Thread(target=lambda: s.accept()[0].close(), daemon=True)
        thread.start()
        yield s.getsockname()[1]
        if thread.is_alive():       # nobody came
            socket.create_connection(s.getsockname()).close()
        thread.join()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    assert LEDGER.exists(), f"{LEDGER} is not built"
    path = tmp_path_factory.mktemp("image") / "guest.img"
    subprocess.run([GUEST / "build-guest.sh", "--control", "--program", LEDGER,
                    "--service", f"ledger=exec ledger --port {LEDGER_PORT} --db /var/lib/ledger.db",
                    "--program", shutil.which("bpftool", path="/usr/sbin:/usr/bin"), path], check=True)
    return path


def test_a_killed_guest_boots_again_with_every_acknowledged_transaction(image, tmp_path):
    disk = overlay(image, tmp_path / "disk.qcow2")
    log = tmp_path / "client.log"
    with Guest(tmp_path / "vm", [disk], forwards=[LEDGER_PORT]) as guest:
        guest.wait_answer(LEDGER_PORT, b"SUM\n", rb"SUM 0 0\n")
        load = ledger_client.Load(guest.port(LEDGER_PORT), log).start()
        guest.wait(lambda: load.acked >= 20, "20 transactions", 60)
        guest.kill()
        load.wait()
        guest.start()
        guest.wait_answer(LEDGER_PORT, b"SUM\n", rb"SUM \d+ -?\d+\n")
        ledger = ledger_client.Ledger(guest.port(LEDGER_PORT))
        result = ledger_client.verify(ledger_client.read_log(log), ledger.entries(), ledger.integrity())
        ledger.close()
        assert result["ok"] and result["promised"] >= 20


def test_the_guest_kernel_has_what_capture_needs_and_shows_its_smbios_strings(image, tmp_path, listener):
    disk = overlay(image, tmp_path / "disk.qcow2")
    with Guest(tmp_path / "vm", [disk], forwards=[CONTROL_PORT], oem_strings=["lifeboat:test=a,b"]) as guest:
        guest.wait_control()
        assert "FUNC" in guest.run("bpftool btf dump file /sys/kernel/btf/vmlinux format raw | head")[1]
        assert "bpf" in guest.run("grep /sys/fs/bpf /proc/mounts")[1]
        assert "lifeboat:test=a,b" in guest.run("strings /sys/firmware/dmi/entries/11-0/raw")[1]
        assert guest.run("exit 3", check=False)[0] == 3
        guest.run(f"nc -w 5 10.0.2.2 {listener} </dev/null")
        guest.run("modprobe scsi_debug dev_size_mb=8 && modprobe dm_mod && modprobe nbd")


def test_a_restricted_guest_reaches_nothing_and_still_answers(image, tmp_path, listener):
    disk = overlay(image, tmp_path / "disk.qcow2")
    with Guest(tmp_path / "vm", [disk], forwards=[CONTROL_PORT], restrict=True) as guest:
        guest.wait_control()
        assert guest.run(f"nc -w 2 10.0.2.2 {listener} </dev/null", check=False)[0] != 0


def test_a_disk_that_does_not_boot_is_reported_with_the_end_of_its_serial_log(tmp_path):
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    with Guest(tmp_path / "vm", [Disk(str(empty))]) as guest:
        guest.wait_serial("Booting from Hard Disk", 30)
        with pytest.raises(GuestError, match="Booting from Hard Disk"):
            guest.wait_serial("lifeboat-guest: up", 2)
    assert not guest.alive()
