# SPDX-License-Identifier: Apache-2.0
"""Two sites on one host: a network namespace and a bridge each, joined by one link that can be slowed down, cut and mended.

One subnet spans both, as where a provider stretches it: a server keeps its address when its double takes its place. The
process that makes the sites moves into the recovery site, where the operator sits; what belongs to the primary is started
with `primary` before its command.
"""
import ctypes
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

PREFIX = "10.77.0"
RECOVERY = f"{PREFIX}.1"
PRIMARY = f"{PREFIX}.2"
BRIDGE = "site"
MAC = {"primary": "02:77:00:00:00:02", "recovery": "02:77:00:00:00:01"}
LINK = "wan"
CLONE_NEWNET = 0x40000000
END_DEADLINE_S = 120
RUN = pathlib.Path("/run/netns")


def run(*words):
    p = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if p.returncode:
        raise OSError(f"`{' '.join(map(str, words))}`: {p.stderr.strip()}")
    return p.stdout


def enter(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), f"can't enter {path}")
    finally:
        os.close(fd)


def sweep():
    """What runs left that were killed."""
    for path in RUN.glob("lbcycle-*-*"):
        owner = path.name.split("-")[1]
        if not pathlib.Path(f"/proc/{owner}").exists():
            end_processes(path.name)
            run("ip", "netns", "del", path.name)


def end_processes(name):
    """SIGKILL to all that runs in a namespace of ours, but this process."""
    end = time.monotonic() + END_DEADLINE_S
    while pids := [int(p) for p in run("ip", "netns", "pids", name).split() if int(p) != os.getpid()]:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > end:
            raise OSError(f"processes {pids} of {name} do not end")
        time.sleep(0.05)


class TwoSites:
    def __init__(self):
        sweep()
        self.names = {site: f"lbcycle-{os.getpid()}-{site}" for site in ("primary", "recovery")}
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def primary(self):
        """What a command of the primary site starts with."""
        return ["nsenter", f"--net={RUN / self.names['primary']}", "--"]

    def ip(self, site, *words):
        return run("ip", "-n", self.names[site], *words)

    def make(self):
        for site, address in (("primary", PRIMARY), ("recovery", RECOVERY)):
            run("ip", "netns", "add", self.names[site])
            self.ip(site, "link", "set", "lo", "up")
            # a bridge takes another address with each new port, unless it has one of its own
            self.ip(site, "link", "add", BRIDGE, "address", MAC[site], "type", "bridge", "forward_delay", "0")
            self.ip(site, "address", "add", f"{address}/24", "dev", BRIDGE)
            self.ip(site, "link", "set", BRIDGE, "up")
        self.ip("primary", "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", self.names["recovery"])
        for site in self.names:
            self.ip(site, "link", "set", LINK, "master", BRIDGE, "up")
        enter(RUN / self.names["recovery"])
        return self

    def temporary_process_server(self):
        """Its pid; the only process server at the recovery site is the one that is there for the way back."""
        for pid in run("ip", "netns", "pids", self.names["recovery"]).split():
            try:
                program = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            if os.path.basename(program) == b"lifeboat-process":
                return int(pid)
        return None

    def tap(self, name):
        """A socket in the wall of the primary site."""
        self.ip("primary", "tuntap", "add", name, "mode", "tap")
        self.ip("primary", "link", "set", name, "master", BRIDGE, "up")

    def slow(self, mbit):
        """The link, in both directions."""
        for name in self.names.values():
            run("tc", "-n", name, "qdisc", "replace", "dev", LINK, "root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb",
                "latency", "100ms")

    def cut(self):
        self.ip("primary", "link", "set", LINK, "down")

    def mend(self):
        self.ip("primary", "link", "set", LINK, "up")

    def link_bytes(self):
        """(to the recovery site, to the primary site) since the beginning."""
        shown = self.ip("primary", "-s", "link", "show", LINK)
        received, sent = re.findall(r"[RT]X:.*\n\s+(\d+)", shown)
        return int(sent), int(received)

    def at_primary(self, function):
        """Calls a function there, in a thread of its own; a socket that it makes stays there."""
        result = []

        def work():
            try:
                enter(RUN / self.names["primary"])
                result.append((function(), None))
            except OSError as e:
                result.append((None, e))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        value, error = result[0]
        if error:
            raise error
        return value

    def connect(self, site, address, timeout_s):
        if site == "recovery":
            return socket.create_connection(address, timeout_s)
        return self.at_primary(lambda: socket.create_connection(address, timeout_s))

    def close(self):
        libc = ctypes.CDLL(None)
        libc.setns(self.home, CLONE_NEWNET)
        for name in self.names.values():
            if (RUN / name).exists():
                end_processes(name)
                run("ip", "netns", "del", name)
