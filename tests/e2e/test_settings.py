# SPDX-License-Identifier: Apache-2.0
"""Settings that are changed while replication runs: who replicates follows, and nothing is started anew."""
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import threading
import time

import pytest

from guest import free_port
from host_agent import LoopDisk

MIB = 1 << 20
USAGE, ABSENT = 2, 4


@pytest.fixture
def disk(folder):
    made = LoopDisk(folder / "disk.img", 32)
    yield made
    made.close()


class Load:
    """Writes of one kind to a disk, over and over, until it is told otherwise."""

    def __init__(self, disk):
        self.data, self.ended = None, threading.Event()
        self.fd = os.open(disk.device, os.O_WRONLY | os.O_DSYNC)
        self.thread = threading.Thread(target=self.run)
        self.compressible = False

    def run(self):
        n = 0
        while not self.ended.wait(0.02):
            block = (b"%015d\n" % n) * 1024 if self.compressible else os.urandom(16384)
            os.pwrite(self.fd, block, n % 1024 * 16384)
            n += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        os.close(self.fd)


def replication(site, name="host"):
    """What the process server last said of it."""
    return json.loads(site.lifeboat("machine", "show", name, "-o", "json", check=False).stdout)["data"]["replication"]


def child_of(pid):
    """The process server's pid: of the configuration server's children, which may have others for a moment."""
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rsplit(") ", 1)[1].split()
            program = (path / "cmdline").read_bytes().split(b"\0")[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and program.endswith(b"lifeboat-process"):
            return int(path.name)
    return None


def ratio_of_new(before, after):
    """Compression of what came between two reports."""
    return after["plain_bytes"] - before["plain_bytes"], after["sealed_bytes"] - before["sealed_bytes"]


def test_interval_and_compression_are_followed_under_load(site, agent, disk):
    agent.protect([disk], **{"consistency-interval": 20, "compression": 0})
    agent_pid, process_pid = agent.agent.pid, child_of(site.server.pid)
    assert process_pid
    with Load(disk) as load:
        # every point of an interval of 20 s is further from the next than this, unless the interval is another
        site.lifeboat("policy", "set", "default", "--consistency-interval", 1)

        def close_points():
            times = [p["time_ns"] for p in site.points("host")][-6:]
            return len(times) == 6 and all(b - a < 15e9 for a, b in zip(times, times[1:]))
        agent.wait(close_points, "points a second apart", 180)

        load.compressible = True
        start = replication(site)

        def grown(since, by=MIB):
            now = replication(site)
            return now["plain_bytes"] - since["plain_bytes"] > by and now
        uncompressed = agent.wait(lambda: grown(start), "uncompressed segments", 180)
        plain, sealed = ratio_of_new(start, uncompressed)
        assert sealed > 0.9 * plain, "level 0 compresses nothing"
        site.lifeboat("policy", "set", "default", "--compression", 3)

        def compressed():
            # from one report to a later one: what was on its way at the change is not counted
            first = replication(site)
            later = agent.wait(lambda: grown(first, MIB // 2), "more segments", 120)
            plain, sealed = ratio_of_new(first, later)
            return sealed < 0.5 * plain
        agent.wait(compressed, "compressed segments", 180)
    assert agent.agent.poll() is None and agent.agent.pid == agent_pid
    assert child_of(site.server.pid) == process_pid, "the process server was started anew"


def test_a_bandwidth_window_holds_uploads_back_until_it_is_lifted(site, agent, disk):
    agent.protect([disk])
    process_pid = child_of(site.server.pid)
    site.lifeboat("policy", "set", "default", "--bandwidth-windows", "mon-sun 00:00-24:00 1K", "--time-zone", "Europe/Berlin")
    agent.wait(lambda: site.machine("host")["bandwidth_bytes_per_s"] == 1024, "limit in the status")
    assert "limited to 1" in site.lifeboat("status", check=False).stdout
    fd = os.open(disk.device, os.O_WRONLY | os.O_DSYNC)
    try:
        # the first object goes, and has to be paid for: at 1 KiB/s a MiB takes a thousand seconds
        start = replication(site)
        os.pwrite(fd, os.urandom(2 * MIB), 0)
        agent.wait(lambda: replication(site)["vault_seq"] > start["vault_seq"], "first object in the vault", 180)
        os.pwrite(fd, os.urandom(MIB), 4 * MIB)

        def held_back():
            # many upload intervals (1 s) later nothing more has gone
            held = agent.wait(lambda: (r := replication(site))["backlog_bytes"] > MIB // 2 and r, "journal in the cache", 120)
            later = agent.wait(lambda: (r := replication(site))["last_seen_ns"] > held["last_seen_ns"] + 6 * 10**9 and r,
                               "later reports", 180)
            return later["vault_seq"] == held["vault_seq"] and later["backlog_bytes"] > MIB // 2
        agent.wait(held_back, "uploads that are held back", 180)
        assert replication(site)["vault_epoch"] == start["vault_epoch"]
        site.lifeboat("policy", "set", "default", "--bandwidth-windows", "none")
        agent.wait(lambda: replication(site)["backlog_bytes"] == 0, "all of it in the vault", 120)
        agent.wait_point_after(time.time_ns())
        agent.wait(lambda: replication(site)["folded"]["points"] > 0, "a round of pruning", 120)
        assert "pruned lately" in site.lifeboat("machine", "show", "host", check=False).stdout
    finally:
        os.close(fd)
    assert site.machine("host")["bandwidth_bytes_per_s"] == 0
    assert child_of(site.server.pid) == process_pid


@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is missing; run 'make deps'")
def test_setup_leads_on_from_where_it_stopped_to_a_proven_double(site, folder, disk):
    from host_agent import HostAgent

    def setup(*words):
        p = site.lifeboat("setup", "--etc-folder", site.folder / "etc", "--identity", site.identity, *words, "-o", "json",
                          server=False)
        return json.loads(p.stdout)["data"]["steps"]

    def done(steps):
        return [s["n"] for s in steps if s["done"]]
    site.wait(lambda: done(setup()) == [1, 3, 4, 5], "the servers' steps", 60)
    steps = setup()
    assert done(steps) == [1, 3, 4, 5] and not steps[-1]["done"] and "--machine" in steps[-1]["text"]
    steps = setup("--machine", "host", "--policy", "gold")
    assert done(steps) == [1, 2, 3, 4, 5] and "token create --name host" in steps[-1]["text"]
    assert site.ask("policy", "show", "gold-failback")["version"] == 1
    agent = HostAgent(site, folder / "agent").enrol().start()
    try:
        site.lifeboat("policy", "set", "gold", "--consistency-interval", 1, "--upload-interval", 1, "--ring", "16M")
        agent.wait(lambda: site.lifeboat("machine", "protect", "host", "--no-wait", "--disks", disk.name, "--policy", "gold",
                                         "--force", check=False).returncode == 0, "acceptance of the disk")
        agent.wait_recoverable()
        # killed and gone in the middle: what is there is seen, and what was answered is kept
        site.stop(signal.SIGKILL)
        steps = setup()
        assert done(steps) == [1, 2, 3] and "start it" in steps[-1]["text"]
        site.start()
        agent.wait_recoverable()
        agent.wait(lambda: done(setup()) == [1, 2, 3, 4, 5, 6], "its steps after the start")
        steps = setup()
        assert done(steps) == [1, 2, 3, 4, 5, 6] and "--test-failover" in steps[-1]["text"]
        target = site.ask("machine", "target", "host", "--memory", "128M", "--cpus", 1)
        assert target == {"memory_bytes": 128 * MIB, "cpus": 1}
        assert done(setup("--test-failover")) == [1, 2, 3, 4, 5, 6, 7]
        assert site.ask("failover", "list")["failovers"] == []
        assert done(setup()) == [1, 2, 3, 4, 5, 6, 7]
    finally:
        agent.close()


def test_a_target_refuses_what_no_double_can_be_made_of(site, agent):
    def refused(status, *words):
        p = site.lifeboat("machine", "target", *words, check=False)
        assert p.returncode == status, (words, p.returncode, p.stderr)
    refused(ABSENT, "nobody", "--cpus", 1)
    refused(USAGE, "host")
    refused(USAGE, "host", "--cpus", 0)
    refused(USAGE, "host", "--memory", "1M")
    refused(USAGE, "host", "--bus", "usb")
    refused(USAGE, "host", "--network", "no such")
    refused(USAGE, "host", "--mend", "maybe")
    refused(ABSENT, "host", "--mend", "on")     # no mender is on this host
    site.lifeboat("machine", "target", "host", "--cpus", 2, "--bus", "sata")
    site.lifeboat("machine", "target", "host", "--cpus", "default")
    shown = json.loads(site.lifeboat("machine", "show", "host", "-o", "json", check=False).stdout)["data"]
    assert shown["target"] == {"bus": "sata"}
    site.lifeboat("machine", "target", "host", "--mend", "off", "--bus", "default")
    shown = json.loads(site.lifeboat("machine", "show", "host", "-o", "json", check=False).stdout)["data"]
    assert shown["target"] == {"mend": False}


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def process_server(site):
    return next(s for s in site.ask("server", "list")["servers"] if s["kind"] == "process")


def test_the_data_port_changes_under_load_and_agents_follow(site, agent, disk):
    agent.protect([disk])
    name, old, new = process_server(site)["name"], site.process_port, free_port()
    agent_pid, process_pid = agent.agent.pid, child_of(site.server.pid)
    with Load(disk):
        site.lifeboat("server", "port", name, new)
        agent.wait(lambda: process_server(site)["port"] == new and is_open(new), "the new port")
        agent.wait(lambda: not is_open(old), "end of the old port", 180)
        agent.wait_point_after(time.time_ns())
    assert agent.agent.poll() is None and agent.agent.pid == agent_pid
    assert child_of(site.server.pid) == process_pid
    # the change outlives the death of both servers
    site.stop(signal.SIGKILL)
    site.start()
    agent.wait_point_after(time.time_ns())
    assert process_server(site)["port"] == new and not is_open(old)


def test_a_port_that_can_not_be_opened_changes_nothing(site, agent, disk):
    agent.protect([disk])
    name = process_server(site)["name"]

    def refused(status, *words):
        p = site.lifeboat("server", "port", *words, check=False)
        assert p.returncode == status, (words, p.returncode, p.stderr)
        return p.stderr
    refused(USAGE, name, 0)
    refused(USAGE, name, 65536)
    refused(USAGE, name, "https")
    refused(USAGE, name, site.port)
    refused(ABSENT, "nobody", 9443)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        pid = child_of(site.server.pid)
        os.kill(pid, signal.SIGSTOP)    # it finds out as late as that the next order comes before
        try:
            site.lifeboat("server", "port", name, port)
            p = site.lifeboat("server", "port", name, free_port(), check=False)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert p.returncode != 0 and "being changed" in p.stderr
        agent.wait(lambda: site.lifeboat("server", "port", name, site.process_port, check=False).returncode == 0,
                   "end of the change that failed", 180)
    assert process_server(site)["port"] == site.process_port
    agent.wait_point_after(time.time_ns())


def test_readiness_is_looked_at_when_the_agent_starts_and_when_it_is_asked_for(site, agent, disk):
    def readiness():
        return json.loads(site.lifeboat("machine", "show", "host", "-o", "json", check=False).stdout)["data"]["readiness"]
    first = agent.wait(lambda: (r := readiness())["checked_ns"] and r, "first look")
    assert first["verdict"] in ("ready", "warnings", "blocked")
    assert {f["check"] for f in first["findings"]} >= {"drivers", "firmware"}
    asked = site.ask("machine", "check", "host")
    assert asked["checked_ns"] > first["checked_ns"]
    text = site.lifeboat("machine", "protect", "host", "--disks", disk.name, "--no-wait", "--force").stdout
    assert text.startswith("Readiness of host: ") and "drivers" in text
    agent.wait(lambda: readiness()["checked_ns"] > asked["checked_ns"], "look when it was enabled")
    assert site.lifeboat("machine", "check", "nobody", check=False).returncode == ABSENT


def test_the_helper_hands_over_what_starts_the_machine_and_nothing_else(site, agent, folder):
    def ask(path):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(agent.socket))
            s.sendall(json.dumps({"cmd": "boot_file", "path": str(path)}).encode() + b"\n")
            data, fds, _, _ = socket.recv_fds(s, 65536, 1)
        for fd in fds:
            os.close(fd)
        return json.loads(data), len(fds)
    for path in ("/etc/shadow", "/boot/../etc/shadow", "/bootx", "boot/x", ""):
        answer, fds = ask(path)
        assert answer["error"] == errno.EPERM and fds == 0, path
    assert ask("/boot/none")[0]["error"] == errno.ENOENT
    assert ask("/etc/network/../shadow")[1] == 0


def test_policies_refuse_what_makes_no_sense_and_who_comes_late(site):
    def refused(status, *words):
        p = site.lifeboat("policy", "set", *words, check=False)
        assert p.returncode == status, (words, p.returncode, p.stderr)
        return p.stderr
    assert "window 2" in refused(USAGE, "gold", "--bandwidth-windows", "mon 08:00-18:00 2M;tue 18:00-18:00 2M")
    assert "weekday" in refused(USAGE, "gold", "--bandwidth-windows", "someday 08:00-18:00 2M")
    assert "Atlantis" in refused(USAGE, "gold", "--time-zone", "Europe/Atlantis")
    assert "gold" not in {p["name"] for p in site.ask("policy", "list")["policies"]}
    site.lifeboat("policy", "set", "gold", "--rpo-threshold", 90, "--if-version", 0)
    shown = site.ask("policy", "show", "gold")
    assert shown["version"] == 1 and shown["failback_policy"] == "gold-failback"
    assert site.ask("policy", "show", "gold-failback")["rpo_threshold_s"] == 90
    # two operators looked at the same version
    site.lifeboat("policy", "set", "gold", "--compression", 5, "--if-version", 1)
    p = site.lifeboat("policy", "set", "gold", "--compression", 7, "--if-version", 1, check=False)
    assert p.returncode != 0 and "changed by someone else" in p.stderr, p.stderr
    assert site.ask("policy", "show", "gold")["zstd_level"] == 5
    assert site.lifeboat("policy", "show", "none", check=False).returncode == ABSENT


def test_every_other_setting_changes_under_a_running_agent_too(site, agent, disk, folder):
    """RPO threshold, ladder, application-consistent points, target, storage account: one agent, one epoch, from begin to end."""
    agent.protect([disk])
    agent_pid = agent.agent.pid

    def policy(*words):
        site.lifeboat("policy", "set", "default", *words)

    def late():
        return any("the policy allows" in r["text"] for r in site.machine("host")["reasons"])
    with Load(disk):
        policy("--upload-interval", 20, "--rpo-threshold", 2)
        agent.wait(late, "an alert", 180)
        policy("--rpo-threshold", 3600)
        agent.wait(lambda: not late(), "its end", 180)
        policy("--upload-interval", 1, "--retention", "all:20s 1h:1d")
        agent.wait(lambda: replication(site)["folded"]["points_pruned"] > 0, "pruning by the new ladder", 240)
        policy("--retention", "all:2h 1h:1d")
    policy("--app-consistent-interval", 10)
    agent.wait(lambda: any("app" in p["kinds"] for p in site.points("host")), "an application-consistent point", 180)
    policy("--app-consistent-interval", 0)
    for memory, cpus in (("128M", 1), ("192M", 2)):
        target = site.ask("machine", "target", "host", "--memory", memory, "--cpus", cpus, "--address", f"192.0.2.{cpus}/24")
        assert target["memory_bytes"] == int(memory[:-1]) * MIB and target["address"] == f"192.0.2.{cpus}/24"
        assert site.ask("failover", "preview", "host")["address"] == f"192.0.2.{cpus}/24"
    # the vault is carried to another place
    site.stop()
    (site.folder / "vault").rename(folder / "moved")
    conf = site.folder / "etc/config.conf"
    conf.write_text(conf.read_text().replace(site.vault_url, f"dir:{folder}/moved"))
    site.vault_url = f"dir:{folder}/moved"
    site.start()
    agent.wait_point_after(time.time_ns())
    assert pathlib.Path(agent.folder / "agent.log").read_text().count("lifeboat-mobility notice: ready") == 1
    assert agent.agent.poll() is None and agent.agent.pid == agent_pid
    assert {p["epoch"] for p in site.points("host")} == {1}
