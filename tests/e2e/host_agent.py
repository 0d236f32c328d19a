# SPDX-License-Identifier: Apache-2.0
"""This host as the protected machine: loop devices as its disks, the capture helper and the agent as processes."""
import errno
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import time

from lifeboat_site import SiteError

AGENT_UID = 65534  # nobody: the agent needs no privilege
DEADLINE_S = 180
POLL_INTERVAL_S = 0.05


class LoopDisk:
    def __init__(self, path, size_mib):
        self.path = pathlib.Path(path)
        with open(self.path, "wb") as f:
            f.truncate(size_mib << 20)
        self.size_bytes = size_mib << 20
        self.device = self.attach()

    def attach(self):
        return subprocess.run(["losetup", "--find", "--show", self.path], check=True, capture_output=True, text=True).stdout.strip()

    @property
    def name(self):
        return self.device.removeprefix("/dev/")

    def settle(self):
        """Everything that was written through the page cache is on the disk."""
        subprocess.run(["blockdev", "--flushbufs", self.device], check=True)

    def is_attached(self):
        """By its file: the number may be another's by now."""
        listed = subprocess.run(["losetup", "--associated", self.path], check=True, capture_output=True, text=True).stdout
        return listed.startswith(f"{self.device}:")

    def close(self):
        if self.is_attached():
            subprocess.run(["losetup", "--detach", self.device], check=True)
        self.path.unlink()


class PulledDisk(LoopDisk):
    """One that is detached in the middle of a test: its number is so high that no other test is given it then."""
    ADD, REMOVE = 0x4c80, 0x4c81    # LOOP_CTL_ADD, LOOP_CTL_REMOVE

    def attach(self):
        with open("/dev/loop-control") as control:
            self.number = fcntl.ioctl(control, self.ADD, random.randrange(100_000, 1_000_000))
        device = f"/dev/loop{self.number}"
        self.made_node = not os.path.exists(device)
        if self.made_node:      # a /dev that the kernel doesn't keep
            major, minor = map(int, pathlib.Path(f"/sys/block/loop{self.number}/dev").read_text().split(":"))
            os.mknod(device, 0o660 | stat.S_IFBLK, os.makedev(major, minor))
        subprocess.run(["losetup", device, self.path], check=True)
        return device

    def close(self):
        super().close()
        if self.made_node:
            os.unlink(self.device)
        end = time.monotonic() + DEADLINE_S
        with open("/dev/loop-control") as control:
            while True:
                try:
                    return fcntl.ioctl(control, self.REMOVE, self.number)
                except OSError as e:
                    if e.errno != errno.EBUSY or time.monotonic() > end:
                        raise
                time.sleep(POLL_INTERVAL_S)


class HostAgent:
    """`machine_id`: this host as one of several machines, with another /etc/machine-id in a mount namespace of its own."""

    def __init__(self, site, folder, name="host", machine_id=None, **settings):
        self.machine_id, self.settings = machine_id, settings
        self.site = site
        self.folder = pathlib.Path(folder)
        self.name = name
        self.pins = f"/sys/fs/bpf/lifeboat-test-{os.getpid()}-{name}"
        self.socket = self.folder / "capture.sock"
        self.conf = self.folder / "mobility.conf"
        self.scripts = self.folder / "scripts.d"
        self.capture = self.agent = None

    def enrol(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in ("identity", "state", "run"):
            (self.folder / part).mkdir(exist_ok=True)
            os.chown(self.folder / part, AGENT_UID, AGENT_UID)
        self.conf.write_text(f"config_url = {self.site.config_url}\nidentity_folder = {self.folder}/identity\n"
                             f"state_folder = {self.folder}/state\nrun_folder = {self.folder}/run\n"
                             f"capture_socket = {self.socket}\n" +
                             "".join(f"{k} = {v}\n" for k, v in self.settings.items()))
        if self.machine_id:
            (self.folder / "machine-id").write_text(self.machine_id + "\n")
        token = self.site.token(self.folder / "token", self.name)
        os.chown(self.folder / "token", AGENT_UID, AGENT_UID)
        p = subprocess.run([*self.become_agent(), self.site.programs["mobility"], "enrol", "--config", self.conf, "--config-url",
                            self.site.config_url, "--ca-fingerprint", token["ca_fingerprint"], "--token-file",
                            self.folder / "token", "--name", self.name], capture_output=True, text=True)
        if p.returncode:
            raise SiteError(f"enrolment ended with {p.returncode}: {p.stderr}")
        return self

    def start_capture(self):
        with open(self.folder / "capture.log", "ab") as log:
            self.capture = subprocess.Popen([self.site.programs["capture"], "--socket", self.socket, "--pins", self.pins,
                                             "--scripts", self.scripts, "--allow-uid", str(AGENT_UID)], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        end = time.monotonic() + DEADLINE_S
        while not self.socket.exists():
            if self.capture.poll() is not None:
                raise SiteError(f"lifeboat-capture ended with {self.capture.returncode}: {self.log('capture')}")
            if time.monotonic() > end:
                raise SiteError(f"no socket of lifeboat-capture within {DEADLINE_S} s: {self.log('capture')}")
            time.sleep(POLL_INTERVAL_S)

    def become_agent(self):
        """What runs a program as the agent's user, and as its machine. Each part becomes the next: one process."""
        words = ["setpriv", f"--reuid={AGENT_UID}", f"--regid={AGENT_UID}", "--clear-groups", "--"]
        if not self.machine_id:
            return words
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c",
                'mount --bind "$0" /etc/machine-id && exec "$@"', self.folder / "machine-id", *words]

    def start_agent(self, **faults):
        env = dict(os.environ, **faults)
        with open(self.folder / "agent.log", "ab") as log:
            self.agent = subprocess.Popen([*self.become_agent(), self.site.programs["mobility"], "run", "--config",
                                           self.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def start(self):
        self.start_capture()
        self.start_agent()
        return self

    def kill_agent(self):
        self.agent.kill()
        self.agent.wait()

    def kill_capture(self):
        self.capture.kill()
        self.capture.wait()
        self.socket.unlink(missing_ok=True)

    def detach(self):
        """Ends the capture in the kernel, as a reboot does."""
        subprocess.run([self.site.programs["capture"], "--detach", "--pins", self.pins], check=True)

    def power_off(self):
        """The machine is gone with all that its kernel and its memory knew; start() boots it."""
        self.kill_agent()
        self.kill_capture()
        self.detach()
        shutil.rmtree(self.folder / "run")
        (self.folder / "run").mkdir()
        os.chown(self.folder / "run", AGENT_UID, AGENT_UID)

    def status(self):
        """What the agent last wrote about itself."""
        return json.loads((self.folder / "run/status.json").read_text())

    def log(self, what, n_bytes=3000):
        path = self.folder / f"{what}.log"
        return path.read_bytes()[-n_bytes:].decode(errors="replace") if path.exists() else ""

    def protect(self, disks, deadline_s=DEADLINE_S, **policy):
        settings = {"consistency-interval": 1, "upload-interval": 1, "heartbeat-interval": 1, "ring": "64M", **policy}
        words = [w for k, v in settings.items() for w in (f"--{k}", v)]
        self.site.lifeboat("policy", "set", "default", *words)
        self.wait(lambda: self.site.lifeboat("machine", "protect", self.name, "--no-wait", "--disks",
                                             ",".join(d.name for d in disks), check=False).returncode == 0,
                  "acceptance of the disks", deadline_s)
        self.wait_recoverable(deadline_s)

    def wait_recoverable(self, deadline_s=DEADLINE_S):
        self.wait(lambda: (self.site.machine(self.name) or {}).get("recoverable"), "recovery point", deadline_s)

    def wait(self, condition, what, deadline_s=DEADLINE_S):
        try:
            return self.site.wait(condition, what, deadline_s)
        except SiteError as e:
            raise SiteError(f"{e}\n--- the agent's log:\n{self.log('agent')}\n--- capture's log:\n{self.log('capture')}"
                            f"\n--- status: {json.dumps(self.site.machine(self.name))}") from e

    def wait_point_after(self, time_ns, deadline_s=DEADLINE_S):
        """A recovery point, in the vault, that holds everything up to this time."""
        def newest():
            points = self.site.points(self.name)
            return points and points[-1]["until_ns"] > time_ns and points[-1]
        return self.wait(newest, "recovery point after a time", deadline_s)

    def close(self):
        for process in (self.agent, self.capture):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.detach()
        assert not os.path.exists(self.pins), "capture left pins behind"
