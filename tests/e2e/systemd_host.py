# SPDX-License-Identifier: Apache-2.0
"""A small Debian whose systemd really runs, as process 1 of namespaces and control groups of its own: packages and units are
tried in it as on a server, in seconds. Its kernel, network and block devices are this host's. Nothing of it is left when it is closed."""
import os
import pathlib
import shutil
import subprocess
import time
import uuid

from lifeboat_site import SiteError

GROUPS = pathlib.Path("/sys/fs/cgroup")
DEADLINE_S = 300
SETTLE_S = 60
# What would lay hands on the host's kernel or devices.
MASKED = ("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
          "systemd-sysctl.service", "systemd-modules-load.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
          "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "systemd-remount-fs.service", "apt-daily.timer", "apt-daily-upgrade.timer",
          "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "ssh.service")
# A pins' filesystem of its own, a /dev with nothing but what each system has, the hierarchy that systemd keeps its units in; mounts are
# shared within, as systemd expects of who starts it.
BOOT = r"""
root=$1; hybrid=$2; shared=$3
mount --bind "$root" "$root"; cd "$root"
[ -z "$shared" ] || mount --bind "$shared" srv/shared
mount -t proc proc proc; mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
if [ "$hybrid" = yes ]; then
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
        mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
else
        mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs dev
node() { mknod -m 666 "dev/$1" c "$2" "$3"; }
node null 1 3; node zero 1 5; node full 1 7; node random 1 8; node urandom 1 9; node tty 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
mkdir .host; pivot_root . .host
exec chroot . /bin/sh -c 'umount -l /.host && rmdir /.host && mount --make-rshared / && exec env -i container=lifeboat-test /lib/systemd/systemd --log-target=journal'
"""
# Whatever a package may leave anywhere: names, and what configuration says. Not counted: what each system writes as it runs.
LISTING = r"""
{ find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /root/.ssh \
        -o -path /proc -o -path /sys -o -path /dev -o -path /tmp/systemd-private-\* -o -path /var/tmp/systemd-private-\* \) -prune -o -printf '%M %u %g %p\n'
  find /run -xdev \( -path /run/systemd -o -path /run/user -o -path /run/log \) -prune -o -printf '%M %u %g %p\n'
  find /sys/fs/bpf -mindepth 1 -not -name '*.debug'
  find /etc -type f -not -name '*-' -exec sha256sum {} +
  systemctl list-unit-files --no-pager --no-legend
  for p in /proc/[0-9]*; do readlink $p/exe; done | grep lifeboat
} | sort
"""


class Missing(Exception):
    pass


def hierarchies():
    """Where this host's control groups can be divided by systemd."""
    if (GROUPS / "systemd/cgroup.procs").exists():
        return [GROUPS / "systemd", GROUPS / "unified"]
    if (GROUPS / "cgroup.controllers").exists():
        return [GROUPS]
    raise Missing("this host has no control groups that a systemd could divide")


class SystemdHost:
    """`shared`: a folder of this host, seen there as /srv/shared."""

    def __init__(self, root, shared=None):
        if os.geteuid() != 0:
            raise Missing("needs root: a systemd in namespaces of its own")
        self.root, self.shared = pathlib.Path(root), shared
        self.groups = [h / f"lifeboat-test-{uuid.uuid4().hex[:12]}" for h in hierarchies()]
        self.process = self.pid = None

    def start(self):
        units = self.root / "etc/systemd/system"
        for name in MASKED:
            (units / name).unlink(missing_ok=True)
            (units / name).symlink_to("/dev/null")
        if self.shared:
            (self.root / "srv/shared").mkdir(exist_ok=True)
        for group in self.groups:
            group.mkdir()
        join = "".join(f'echo $$ >"{g}/cgroup.procs"; ' for g in self.groups)
        self.process = subprocess.Popen(
            ["sh", "-ec", join + 'exec "$@"', "sh", "unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child",
             "bash", "-ec", BOOT, "boot", self.root, "yes" if len(self.groups) > 1 else "no", self.shared or ""],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.wait(self._find_init, "process 1")
        self.wait(lambda: self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded"), "end of its start")
        failed = self.run("systemctl --failed --no-legend --plain").stdout
        assert failed == "", failed
        return self

    def _find_init(self):
        """The first child, once it has become systemd."""
        try:
            for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                if pathlib.Path(f"/proc/{pid}/exe").readlink().name == "systemd":
                    self.pid = int(pid)
        except OSError:
            pass
        return self.pid

    def wait(self, condition, what, deadline_s=DEADLINE_S, tell=lambda: ""):
        end = time.monotonic() + deadline_s
        while not (result := condition()):
            if self.process.poll() is not None:
                raise Missing(f"no systemd can be started here: {self.process.stderr.read().strip()}")
            if time.monotonic() > end:
                raise SiteError(f"no {what} within {deadline_s} s\n{self.journal() if self.pid else ''}{tell()}")
            time.sleep(0.05)
        return result

    def run(self, command, check=True, **kw):
        """A shell's command in it, as root."""
        p = subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "env", "-i",
                            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                            "DEBIAN_FRONTEND=noninteractive", "sh", "-c", command], capture_output=True, text=True, **kw)
        assert not check or p.returncode == 0, f"{command!r} ended with {p.returncode}: {p.stdout}{p.stderr}\n{self.journal()}"
        return p

    def journal(self, unit=None, lines=60):
        words = f"-u {unit}" if unit else "-u 'lifeboat-*'"
        return self.run(f"journalctl --no-pager -q -n {lines} {words}", check=False).stdout

    def active(self, *units):
        """The state of each."""
        return self.run(f"systemctl is-active {' '.join(units)}", check=False).stdout.split()

    def shown(self, unit, name):
        return self.run(f"systemctl show -P {name} {unit}").stdout.strip()

    def give_device(self, path):
        """A block device of this host, of that name there, too."""
        number = os.stat(path).st_rdev
        self.run(f"mknod -m 660 {path} b {os.major(number)} {os.minor(number)} && chgrp disk {path}")

    def take_device(self, path):
        self.run(f"rm -f {path}")

    def install(self, package, check=True):
        """As `dpkg -i` there does."""
        shutil.copy(package, self.root / "root/package.deb")
        try:
            return self.run("dpkg -i /root/package.deb", check=check)
        finally:
            (self.root / "root/package.deb").unlink()

    def listing(self):
        return set(self.run(LISTING).stdout.splitlines())

    def assert_listing(self, before):
        """As it was: what ends by itself, a session's say, may take a moment."""
        end = time.monotonic() + SETTLE_S
        while left := self.listing() ^ before:
            assert time.monotonic() < end, "\n".join(sorted(left))
            time.sleep(0.5)

    def stop(self):
        if self.process is not None:
            self.process.kill()  # and with it all that runs in its namespaces
            self.process.wait(DEADLINE_S)
            self.process.stderr.close()
        for group in self.groups:
            self._remove(group)
        self.process = self.pid = None

    def _remove(self, group):
        end = time.monotonic() + DEADLINE_S
        while group.exists():
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass  # what was killed is not reaped yet
            assert time.monotonic() < end, f"{group} is still in use"
            time.sleep(0.05)
