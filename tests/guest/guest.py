#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Start, watch and kill QEMU guests: for the demo, the tests, and by hand.

A guest lives in a directory of its own: guest.json (what runs), serial.log,
qemu.log, qmp.sock. It runs without root under TCG, behind QEMU's user network:
its address is 10.0.2.15, this machine's 127.0.0.1 is its 10.0.2.2, and nothing
reaches it but the forwarded ports, which listen on 127.0.0.1 only.

Everything that waits waits for a condition, with a deadline, and fails at
once when QEMU has died. A failure quotes the end of the serial log.
"""

import argparse
import dataclasses
import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

CONTROL_PORT = 7001
SERIAL_TAIL_BYTES = 3000
POLL_INTERVAL_S = 0.05
ANSWER_BYTES_MAX = 64 * 1024
# A loaded machine takes its time to reap a killed QEMU of a few GiB.
KILL_DEADLINE_S = 120
PORTS = range(20000, 30000)
PORT_TRIES = 1000

_held_ports = []


class GuestError(Exception):
    pass


@dataclasses.dataclass
class Disk:
    """A virtio disk: a file, or anything QEMU can open (an NBD address)."""
    path: str
    format: str = "raw"
    serial: str = ""
    read_only: bool = False

    def arguments(self, index):
        name = f"disk{index}"
        drive = f"if=none,id={name},format={self.format},discard=unmap,file={_escape(self.path)}"
        if self.read_only:
            drive += ",readonly=on"
        device = f"virtio-blk-pci,drive={name},bootindex={index + 1}"
        if self.serial:
            device += f",serial={_escape(self.serial)}"
        return ["-drive", drive, "-device", device]


def _escape(text):
    return str(text).replace(",", ",,")


def _hold(port):
    """It is this process's until it ends: nobody else that asks free_port() gets it, also while nothing listens there."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0lifeboat-port-{port}")
        with socket.socket() as s:
            s.bind(("", port))
    except OSError:
        mark.close()
        return False
    _held_ports.append(mark)
    return True


def free_port():
    """Not of those that the kernel gives to connections: a server that is started again finds its port free."""
    for _ in range(PORT_TRIES):
        port = secrets.choice(PORTS)
        if _hold(port):
            return port
    raise GuestError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def _process_start(pid):
    """When a process began, in clock ticks; None when it is gone or a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2:].split()
    return None if fields[0] in "ZX" else int(fields[19])


def patience_for(first_s):
    """How long to wait for the next answer: short while nobody is there yet, and longer for one that is only slow."""
    begun = time.monotonic()
    return lambda: max(first_s, min(20, (time.monotonic() - begun) / 8))


class Guest:
    """One guest.

    disks: Disk objects or paths of raw images, the first is booted from.
    forwards: guest TCP ports to reach from here: a list (host ports are chosen)
              or a dict {guest port: host port}.
    oem_strings: SMBIOS type 11 strings, as the fabric gives them to a double.
    restrict: the guest cannot reach anything; the forwards still work.
    tap: the name of a tap device, with `mac`: the guest's network instead of QEMU's own (and of forwards).
    prefix: what QEMU's command starts with (another network namespace).
    """

    def __init__(self, directory, disks, *, forwards=(), memory_mib=512, cpus=2,
                 oem_strings=(), uuid=None, restrict=False, extra=(), accel=None, tap=None, mac=None, prefix=()):
        self.directory = pathlib.Path(directory)
        self.disks = [d if isinstance(d, Disk) else Disk(str(d)) for d in disks]
        self.forwards = dict(forwards) if isinstance(forwards, dict) else {p: 0 for p in forwards}
        self.memory_mib = memory_mib
        self.cpus = cpus
        self.oem_strings = list(oem_strings)
        self.uuid = uuid
        self.restrict = restrict
        self.extra = list(extra)
        self.accel = accel or os.environ.get("LIFEBOAT_GUEST_ACCEL", "tcg,thread=multi")
        self.tap, self.mac = tap, mac
        self.prefix = list(prefix)
        self.pid = None
        self.pid_start = None
        self._child = None

    @property
    def serial_log(self):
        return self.directory / "serial.log"

    def arguments(self):
        qemu = shutil.which("qemu-system-x86_64")
        if not qemu:
            raise GuestError("qemu-system-x86_64 is missing; run 'make deps'")
        network = "user,id=net0" + (",restrict=on" if self.restrict else "")
        for guest_port, host_port in self.forwards.items():
            network += f",hostfwd=tcp:127.0.0.1:{host_port}-:{guest_port}"
        if self.tap:
            network = f"tap,id=net0,ifname={self.tap},script=no,downscript=no"
        card = "virtio-net-pci,netdev=net0,romfile=" + (f",mac={self.mac}" if self.mac else "")
        args = [*self.prefix, qemu, "-accel", self.accel, "-cpu", "max,la57=off", "-m", str(self.memory_mib),
                "-smp", str(self.cpus), "-nodefaults", "-nographic", "-no-reboot",
                # append: a second start of the same guest keeps the first one's log.
                "-chardev", "file,id=serial0,path=serial.log,append=on",
                "-serial", "chardev:serial0",
                "-qmp", "unix:qmp.sock,server=on,wait=off",
                "-device", "virtio-rng-pci",
                "-netdev", network, "-device", card]
        for index, disk in enumerate(self.disks):
            args += disk.arguments(index)
        if self.oem_strings:
            args += ["-smbios", "type=11," + ",".join("value=" + _escape(s) for s in self.oem_strings)]
        if self.uuid:
            args += ["-uuid", self.uuid]
        return args + self.extra

    def start(self):
        if self.alive():
            raise GuestError(f"the guest of {self.directory} runs already, as process {self.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        for disk in self.disks:
            if "://" not in disk.path:
                disk.path = os.path.abspath(disk.path)
        self.forwards = {g: h or free_port() for g, h in self.forwards.items()}
        self.serial_log.touch()
        (self.directory / "qmp.sock").unlink(missing_ok=True)
        with open(self.directory / "qemu.log", "ab") as log:
            self._child = subprocess.Popen(self.arguments(), cwd=self.directory, stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, start_new_session=True)
        self.pid = self._child.pid
        self.pid_start = _process_start(self.pid)
        self._save()
        return self

    def _save(self):
        state = {"pid": self.pid, "pid_start": self.pid_start, "forwards": self.forwards,
                 "disks": [dataclasses.asdict(d) for d in self.disks]}
        new = self.directory / "guest.json.new"
        new.write_text(json.dumps(state, indent=1) + "\n")
        new.replace(self.directory / "guest.json")

    @classmethod
    def load(cls, directory):
        """The guest that another process started in this directory."""
        try:
            state = json.loads((pathlib.Path(directory) / "guest.json").read_text())
        except FileNotFoundError:
            raise GuestError(f"no guest was started in {directory}") from None
        guest = cls(directory, [Disk(**d) for d in state["disks"]],
                    forwards={int(g): h for g, h in state["forwards"].items()})
        guest.pid, guest.pid_start = state["pid"], state["pid_start"]
        return guest

    def alive(self):
        if self._child is not None and self._child.poll() is not None:
            return False
        return self.pid is not None and self.pid_start is not None \
            and _process_start(self.pid) == self.pid_start

    def port(self, guest_port):
        return self.forwards[guest_port]

    def serial_text(self):
        return self.serial_log.read_bytes().decode(errors="replace")

    def _fail(self, what):
        qemu = (self.directory / "qemu.log").read_bytes()[-SERIAL_TAIL_BYTES:].decode(errors="replace")
        raise GuestError(f"{what} (guest of {self.directory})\n--- qemu said:\n{qemu}"
                         f"\n--- end of the serial log:\n{self.serial_text()[-SERIAL_TAIL_BYTES:]}")

    def wait(self, condition, what, deadline_s):
        """Until condition() gives something true, which is returned."""
        end = time.monotonic() + deadline_s
        while True:
            result = condition()
            if result:
                return result
            if not self.alive():
                self._fail(f"QEMU ended while waiting for {what}")
            if time.monotonic() > end:
                self._fail(f"no {what} within {deadline_s} s")
            time.sleep(POLL_INTERVAL_S)

    def wait_serial(self, pattern, deadline_s=240, since=0):
        """Until the serial log, from character `since`, matches the pattern."""
        compiled = re.compile(pattern, re.M)
        return self.wait(lambda: compiled.search(self.serial_text(), since),
                         f"{pattern!r} on the serial line", deadline_s)

    def ask(self, guest_port, request, pattern=b"", timeout_s=5):
        """Sends bytes, reads until the answer matches; None when it did not.

        To connect proves nothing behind QEMU's user network, which accepts
        before it knows whether anybody listens in the guest: only an answer does.
        """
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port(guest_port)), timeout_s) as s:
                s.settimeout(timeout_s)
                s.sendall(request)
                while len(answer) < ANSWER_BYTES_MAX:
                    data = s.recv(ANSWER_BYTES_MAX)
                    answer += data
                    if answer and re.search(pattern, answer):
                        return answer
                    if not data:
                        return None
        except OSError:
            return None
        return None

    def wait_answer(self, guest_port, request, pattern=b"", deadline_s=240):
        patience = patience_for(1)
        return self.wait(lambda: self.ask(guest_port, request, pattern, timeout_s=patience()),
                         f"answer on port {guest_port}", deadline_s)

    def run(self, command, timeout_s=180, check=True):
        """A shell command in a guest built with --control: (exit code, output)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(CONTROL_PORT), timeout=timeout_s)
        try:
            connection.request("POST", "/cgi-bin/control", command.encode())
            answer = connection.getresponse().read()
        except TimeoutError as e:
            raise GuestError(f"no end of {command!r} in the guest of {self.directory} within {timeout_s} s") from e
        except (OSError, http.client.HTTPException) as e:
            raise GuestError(f"the guest of {self.directory} did not run {command!r}: {e or type(e).__name__}") from e
        finally:
            connection.close()
        head, separator, code = answer.rpartition(b"\nexit ")
        if not separator:
            raise GuestError(f"the guest broke off while running {command!r}: {answer!r}")
        output = head.decode(errors="replace")
        if check and int(code):
            raise GuestError(f"in the guest {command!r} ended with {int(code)}: {output}")
        return int(code), output

    def wait_control(self, deadline_s=240):
        """Until the guest built with --control runs commands."""
        patience = patience_for(2)

        def answers():
            try:
                return self.run("true", timeout_s=patience())[0] == 0
            except GuestError:
                return False
        return self.wait(answers, "answer from the guest's control service", deadline_s)

    def qmp(self, command, **arguments):
        directory = os.open(self.directory, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(KILL_DEADLINE_S)
                # By the descriptor: a socket's path must be short, a test's isn't.
                s.connect(f"/proc/self/fd/{directory}/qmp.sock")
                stream = s.makefile("rwb")
                stream.readline()
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    reply = json.loads(stream.readline() or b"{}")
                    while "event" in reply:
                        reply = json.loads(stream.readline() or b"{}")
                    if "error" in reply:
                        raise GuestError(f"QMP {command}: {reply['error']['desc']}")
        finally:
            os.close(directory)
        return reply.get("return")

    def kill(self):
        """SIGKILL, as a power cut: returns when the process is gone."""
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        if self._child is not None:
            self._child.wait(KILL_DEADLINE_S)
        end = time.monotonic() + KILL_DEADLINE_S
        while self.alive():
            if time.monotonic() > end:
                raise GuestError(f"no end of process {self.pid} within {KILL_DEADLINE_S} s after SIGKILL")
            time.sleep(POLL_INTERVAL_S)

    def wait_end(self, deadline_s=240):
        """Until the guest has powered itself off."""
        end = time.monotonic() + deadline_s
        while self.alive():
            if time.monotonic() > end:
                self._fail(f"no end of the guest within {deadline_s} s")
            time.sleep(POLL_INTERVAL_S)

    def close(self):
        """Kills what runs and removes everything but the logs."""
        self.kill()
        for name in ("guest.json", "qmp.sock"):
            (self.directory / name).unlink(missing_ok=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        self.close()


def overlay(base, path, base_format="raw"):
    """A qcow2 image over another one, which stays as it is; returns a Disk."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format,
                    "-b", os.path.abspath(base), str(path)], check=True)
    return Disk(str(path), "qcow2")


def _forward(text):
    guest_port, _, host_port = text.partition(":")
    return int(guest_port), int(host_port or 0)


def _disk(text):
    path, _, kind = text.partition("?format=")
    return Disk(path, kind or "raw")


def _parser():
    parser = argparse.ArgumentParser(description="start, watch and kill a QEMU guest; DIR is where it lives")
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start a guest and leave it running")
    start.add_argument("dir")
    start.add_argument("--disk", action="append", type=_disk, required=True, metavar="PATH[?format=FORMAT]")
    start.add_argument("--forward", action="append", type=_forward, default=[], metavar="GUEST[:HOST]")
    start.add_argument("--memory-mib", type=int, default=512)
    start.add_argument("--cpus", type=int, default=2)
    start.add_argument("--oem-string", action="append", default=[])
    start.add_argument("--uuid")
    start.add_argument("--restrict", action="store_true")
    for verb, names, text in (
            ("wait-serial", ("pattern",), "until the serial log matches a regular expression"),
            ("wait-control", (), "until it runs commands (image built with --control)"),
            ("run", ("command",), "run a shell command in it (image built with --control)"),
            ("port", ("guest_port",), "print the host port of a guest port"),
            ("status", (), "exit 0 when it runs"),
            ("kill", (), "SIGKILL, as a power cut"),
            ("close", (), "kill it and remove what is not a log")):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("dir")
        for name in names:
            sub.add_argument(name)
        sub.add_argument("--deadline-s", type=float, default=60)
    return parser


def main():
    args = _parser().parse_args()
    if args.verb == "start":
        Guest(args.dir, args.disk, forwards=dict(args.forward), memory_mib=args.memory_mib, cpus=args.cpus,
              oem_strings=args.oem_string, uuid=args.uuid, restrict=args.restrict).start()
        return 0
    guest = Guest.load(args.dir)
    if args.verb == "wait-serial":
        guest.wait_serial(args.pattern, args.deadline_s)
    elif args.verb == "wait-control":
        guest.wait_control(args.deadline_s)
    elif args.verb == "run":
        code, output = guest.run(args.command, args.deadline_s, check=False)
        sys.stdout.write(output)
        return code
    elif args.verb == "port":
        print(guest.port(int(args.guest_port)))
    elif args.verb == "status":
        return 0 if guest.alive() else 1
    elif args.verb == "kill":
        guest.kill()
    elif args.verb == "close":
        guest.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GuestError as e:
        sys.exit(f"guest.py: {e}")
