# SPDX-License-Identifier: Apache-2.0
"""libvirt on this machine: the one that answers, or one of our own without systemd, for as long as it is needed."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from guest import GuestError, _process_start

START_DEADLINE_S = 60
STOP_DEADLINE_S = 30
POLL_INTERVAL_S = 0.2
DAEMONS = ("virtlogd", "libvirtd")


def answers():
    """libvirt's version, or None."""
    if not shutil.which("virsh"):
        return None
    p = subprocess.run(["virsh", "-q", "-c", "qemu:///system", "version", "--daemon"], capture_output=True, text=True,
                       timeout=START_DEADLINE_S, check=False)
    return p.stdout.strip().splitlines()[-1] if p.returncode == 0 and p.stdout.strip() else None


class Libvirt:
    """Start it, use it, stop what was started; a libvirt that ran before is left alone."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.own = False
        self.version = None

    def _pidfile(self, daemon):
        return self.folder / f"{daemon}.pid"

    def start(self):
        self.version = answers()
        if self.version:
            return self
        for daemon in DAEMONS:
            path = shutil.which(daemon, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
            if not path:
                raise GuestError(f"{daemon} is missing; run `make deps-full`")
            self.own = True
            p = subprocess.run([path, "-d", "-p", self._pidfile(daemon)], capture_output=True, text=True, check=False)
            if p.returncode:
                raise GuestError(f"{daemon} did not start: {p.stderr.strip()}")
        end = time.monotonic() + START_DEADLINE_S
        while not self.version:
            if time.monotonic() > end:
                raise GuestError(f"libvirtd does not answer within {START_DEADLINE_S} s")
            time.sleep(POLL_INTERVAL_S)
            self.version = answers()
        return self

    def stop(self):
        for daemon in reversed(DAEMONS):
            stop_daemon(self._pidfile(daemon))


def stop_daemon(pidfile):
    try:
        pid = int(pidfile.read_text())
    except (OSError, ValueError):
        return
    started = _process_start(pid)
    if started is None:
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_DEADLINE_S
    while _process_start(pid) == started:
        if time.monotonic() > end:
            raise GuestError(f"{pidfile.stem} (process {pid}) does not end")
        time.sleep(POLL_INTERVAL_S)
    pidfile.unlink(missing_ok=True)
