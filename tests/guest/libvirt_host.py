# SPDX-License-Identifier: Apache-2.0
"""libvirt on this machine: the one that answers, or one of our own without systemd, for as long as it is needed."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from guest import GuestError, _process_start

START_DEADLINE_S = 240
STOP_DEADLINE_S = 120
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
            raise GuestError(f"no end of {pidfile.stem} (process {pid}) within {STOP_DEADLINE_S} s")
        time.sleep(POLL_INTERVAL_S)
    pidfile.unlink(missing_ok=True)


class OwnLibvirt:
    """One for a test, beside whatever runs here: its daemons see folders of their own where libvirt keeps everything, in a mount
    namespace, so that nothing of it is left on the machine. `uri` is how it is reached."""

    PLACES = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt"}

    def __init__(self, folder, alone=False):
        """`alone`: in a network namespace of its own, too, so that networks can be made in it."""
        self.folder = pathlib.Path(folder)
        self.alone = alone
        self.uri = f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"
        self.daemon = self.holder = None

    def start(self):
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        missing = [name for name in ("unshare", "virsh", *DAEMONS) if not shutil.which(name, path=path)]
        if missing or os.geteuid() != 0:
            raise GuestError(f"{', '.join(missing)} missing; run `make deps-full`" if missing else "needs root")
        mounts = []
        for name, place in self.PLACES.items():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            pathlib.Path(place).mkdir(parents=True, exist_ok=True)  # as the package makes it
            mounts.append(f"mount --bind {self.folder}/{name} {place}")
        # libvirt looks for its user before it reads that another one is wanted
        for name, line in (("passwd", "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin"), ("group", "libvirt-qemu:x:64055:"), ("group", "kvm:x:64054:")):
            file = self.folder / name
            text = (file if file.exists() else pathlib.Path("/etc") / name).read_text()
            file.write_text(text if f"\n{line.split(':')[0]}:" in text else text + line + "\n")
        mounts += [f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "group")]
        (self.folder / "etc/qemu.conf").write_text('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\n')
        script = " && ".join([*mounts, *([] if self._logs() else [f"virtlogd -d -p {self.folder}/virtlogd.pid"]),
                              f"exec libvirtd -p {self.folder}/libvirtd.pid"])
        if self.alone and self.holder is None:
            # outlives a libvirtd that is killed, as its networks do
            self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"], env=dict(os.environ, PATH=path),
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            self.holder.stdout.readline()
        with open(self.folder / "daemons.log", "wb") as log:
            self.daemon = subprocess.Popen([*self._namespace(), "unshare", "-m", "--propagation", "private", "sh", "-c", script], env=dict(os.environ, PATH=path),
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_DEADLINE_S
        while subprocess.run(["virsh", "-q", "-c", self.uri, "version", "--daemon"], capture_output=True, check=False).returncode:
            if self.daemon.poll() is not None or time.monotonic() > end:
                self.stop()
                raise GuestError(f"libvirtd has ended or does not answer within {START_DEADLINE_S} s: " + (self.folder / "daemons.log").read_text(errors="replace")[-500:])
            time.sleep(POLL_INTERVAL_S)
        return self

    def _logs(self):
        """Whether virtlogd runs: it outlives a libvirtd that was killed, and VMs have their consoles from it."""
        try:
            return _process_start(int((self.folder / "virtlogd.pid").read_text())) is not None
        except (OSError, ValueError):
            return False

    def kill(self):
        """Its VMs run on; start() brings it back, and it finds them."""
        self.daemon.kill()
        self.daemon.wait()

    def _namespace(self):
        return ["nsenter", "-t", str(self.holder.pid), "-n"] if self.alone else []

    def inside(self, *words, check=True):
        """In its network namespace."""
        return subprocess.run([*self._namespace(), *map(str, words)], check=check, capture_output=True, text=True)

    def virsh(self, *words, check=True):
        return subprocess.run(["virsh", "-q", "-c", self.uri, *map(str, words)], check=check, capture_output=True, text=True)

    def domains(self):
        return subprocess.run(["virsh", "-c", self.uri, "list", "--all", "--name"], capture_output=True, text=True, check=True).stdout.split()

    def stop(self):
        if self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        stop_daemon(self.folder / "virtlogd.pid")
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait()
