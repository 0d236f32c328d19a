# SPDX-License-Identifier: Apache-2.0
"""The process that is an isolated network, asked by hand: devices over sockets, as QEMUs that libvirt starts have them."""
import array
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time

import pytest

from provoked import wait_for

DEADLINE_S = 180
MAC = {n: bytes.fromhex(f"52540000000{n}") for n in range(1, 5)}


class Segment:
    def __init__(self, build, folder):
        self.folder, self.path = folder, folder / "seg"
        self.process = subprocess.Popen([build / "src/fabric/lifeboat-segment", self.path], stderr=subprocess.PIPE, text=True)
        wait_for(self.path.exists, "its socket")

    def ask(self, name, listener=None):
        """Its answer in words."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            end = time.monotonic() + DEADLINE_S
            while True:
                try:
                    s.connect(str(self.path))
                    break
                except ConnectionRefusedError:      # bound, and not listening yet
                    assert time.monotonic() < end
            s.settimeout(DEADLINE_S)
            s.sendmsg([name.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))] if listener else [])
            return s.recv(256).decode()

    def join(self, n):
        """As QEMU does."""
        at = self.folder / f"{n}.sock"
        at.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(at))
            listener.listen(1)
            listener.setblocking(False)
            assert self.ask(f"lb{n:012x}", listener) == "listens"
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(at))
        s.settimeout(DEADLINE_S)
        return s


def frame(to, of, text):
    """In an EtherType for experiments."""
    body = MAC[to] + MAC[of] + b"\x88\xb5" + text
    return struct.pack(">I", len(body)) + body


def take(s, text):
    """Until a frame with that text has come; other hosts' noise (the kernel's own IPv6) goes by."""
    got = b""
    while text not in got:
        size, = struct.unpack(">I", exactly(s, 4))
        got = exactly(s, size)
    return got


def exactly(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        assert piece, "the connection has ended"
        data += piece
    return data


@pytest.fixture
def segment(build):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lbsg."))
    check = subprocess.run([build / "src/fabric/lifeboat-segment", "--check"], capture_output=True, text=True)
    if check.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"no isolated networks can be made here: {check.stderr}")
    s = Segment(build, folder)
    yield s
    s.process.kill()
    s.process.wait()
    shutil.rmtree(folder)


def test_frames_go_between_the_members_and_the_network_ends_with_the_last(segment):
    one, two, three = (segment.join(n) for n in (1, 2, 3))
    one.sendall(frame(2, 1, b"for two"))
    assert take(two, b"for two").startswith(MAC[2] + MAC[1])
    # pieces of frames, and several in one piece; a large one
    many = b"".join(frame(1, 2, b"piece %d" % i + bytes(1400)) for i in range(20))
    for at in range(0, len(many), 777):
        two.sendall(many[at:at + 777])
    for i in range(20):
        assert len(take(one, b"piece %d" % i)) > 1400
    # nonsense ends its sender and nobody else
    three.sendall(struct.pack(">I", 1 << 30) + b"x" * 100)
    with pytest.raises((AssertionError, OSError)):
        take(three, b"never")
    one.sendall(frame(2, 1, b"still there"))
    assert take(two, b"still there")
    # a VM that is started anew is the same member again
    again = segment.join(2)
    one.sendall(frame(2, 1, b"anew"))
    assert take(again, b"anew")
    assert "lb000000000001" in pathlib.Path(f"/proc/{segment.process.pid}/net/dev").read_text()
    assert "lb000000000001" not in os.listdir("/sys/class/net")     # no device of this host has to do with it
    for s in (one, two, three, again):
        s.close()
    assert segment.process.wait(DEADLINE_S) == 0 and not segment.path.exists()


def test_names_that_are_not_devices_of_doubles_are_refused(segment):
    for name in ("eth0", "lb", "lb00000000000g", "lb0000000000001", "br0"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(segment.folder / "x"))
            listener.listen(1)
            assert segment.ask(name, listener) == "Invalid argument"
        assert segment.ask(name) == "Invalid argument"
        (segment.folder / "x").unlink()
