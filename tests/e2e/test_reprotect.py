# SPDX-License-Identifier: Apache-2.0
"""Reprotect: a committed double replicates back as a machine of its own, through a process server that is there for this only."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from double_agent import DoubleAgent, secret_of
from host_agent import HostAgent, LoopDisk
from lifeboat_site import Site
from silent_link import SHORT, SilentLink, read_or_nothing
from target_server import TargetServer
from test_config import Api
from test_failback import folder, write  # noqa: F401
from test_job_kills import Faults, cancelled_at_each_step, come_to_rest, deadly
from test_recovery import same
from test_target import write_in_double

MIB = 1 << 20


@pytest.fixture
def faults(folder, monkeypatch):
    return Faults(folder, monkeypatch)


@pytest.fixture
def site(build, folder, faults, capture_possible):
    s = Site(build, folder / "site").make()
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write("double_host = 127.0.0.1\n")         # the agents are here, and in no guest
    s.start()
    s.deaths = 0
    yield s
    s.stop()


@pytest.fixture
def api(site):
    return Api(site, site.identity)


class Failed:
    """A machine that was failed over, its double committed; the double's agent runs here, on a disk of that size."""

    def __init__(self, site, folder):
        self.site, self.folder = site, folder
        # of a size that no other disk of this host has: doubles know their disks by it when there are no serial numbers
        self.size_mib = 8 + os.getpid() % 24
        self.disk = LoopDisk(folder / "disk", self.size_mib)
        with open(self.disk.path, "ab") as f:
            f.truncate((self.size_mib << 20) + 4096 * (1 + os.getpid() % 250))
        subprocess.run(["losetup", "--set-capacity", self.disk.device], check=True)
        self.size_bytes = os.path.getsize(self.disk.path)
        self.agent = HostAgent(site, folder / "agent").enrol().start()
        self.double = None

    def fail_over(self, commit=True, content=None):
        write(self.disk, 0, content or os.urandom(4 * MIB))
        self.agent.protect([self.disk])
        self.site.lifeboat("policy", "set", "default-failback", "--consistency-interval", 1, "--upload-interval", 1, "--heartbeat-interval", 1,
                           "--ring", "64M")
        self.site.lifeboat("failover", "start", "host", "--confirm", "host", "--memory", "64M")
        if commit:
            self.site.lifeboat("failover", "commit", "host-double")
        self.agent.close()                      # the primary is lost: its disk is the double's from here on
        self.name = self.disk.name
        self.double = DoubleAgent(self.agent, self.folder / "double", "host-double")
        return self

    def row(self):
        return next((d["reprotect"] for d in self.site.ask("failover", "list")["failovers"] if d["name"] == "host-double"), None)

    def server(self):
        return next((s for s in self.site.ask("server", "list")["servers"] if s.get("temporary")), None)

    def reprotect(self, *words):
        return self.site.ask("failover", "reprotect", "host-double", *words)

    def check_no_trace(self):
        assert self.row() is None and self.server() is None and self.site.machine("host-back") is None
        assert not (self.site.folder / "state/temporary").exists()
        left = [p for p in (self.site.folder / "vault/m").glob("*") if p.name != self.double.machine and any(o.is_file() for o in p.rglob("*"))]
        assert not left, left

    def close(self):
        for agent in (self.double, self.agent):
            if agent is not None:
                agent.close()
        self.site.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double", check=False)
        self.disk.close()


@pytest.fixture
def failed(site, folder, build, monkeypatch):
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    f = Failed(site, folder)
    yield f
    f.close()


@pytest.fixture
def target(site, folder, build):
    hooks = folder / "hooks"
    hooks.mkdir(mode=0o755)
    (hooks / "power-on").write_text(f"#!/bin/sh\necho on >{folder}/turned-on\n")
    (hooks / "power-on").chmod(0o755)
    t = TargetServer(site, pathlib.Path(build).resolve(), folder / "away", "away").join(hook_folder=hooks).start()
    yield t
    t.close()


def test_a_double_replicates_back_as_a_machine_of_its_own_and_its_cancellation_leaves_no_trace(failed, site, folder, target):
    failed.fail_over()
    told = site.folder / "state/vm/host-double/double.json"
    assert told.stat().st_mode & 0o777 == 0o600
    secret = secret_of(site, "host-double")
    assert not [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if secret.encode() in read_or_nothing(p)]
    source = (failed.agent.folder / "identity/cert.pem").read_bytes()
    failed.double.boot()
    failed.double.wait_text("waits for `lifeboat failover reprotect")
    assert [f["level"] for f in failed.reprotect("--dry-run")["result"]["findings"]].count("error") == 0
    failed.check_no_trace()
    (folder / "home.raw").write_bytes(bytes(failed.size_bytes))
    done = failed.reprotect("--target", "away", "--to", f"{failed.name}={folder}/home.raw")
    assert done["state"] == "done" and [s["name"] for s in done["steps"]] == [
        "check the way back", "start the temporary process server", "wait for the double's agent to enrol", "enable its replication",
        "initial replication", "bring the target's disks to its newest point"]
    assert target.is_reached() and failed.row()["target"] == "away"
    back, server = site.machine("host-back"), failed.server()
    assert back["state"] == "protected" and back["process"] == server["id"] != site.machine("host")["process"]
    assert [(d["id"], d["name"], d["path"]) for d in back["disks"]] == [(0, failed.name, failed.disk.device)]
    assert (failed.double.folder / "identity/cert.pem").read_bytes() == source and failed.double.own_identity()
    assert back["double_of"] == "host" and site.machine("host")["replicates_back_as"] == "host-back"
    assert "host-double replicates back as host-back" in site.lifeboat("machine", "show", "host", check=False).stdout
    assert "host-back, which is protected" in site.lifeboat("failover", "list").stdout
    # what it writes is in its own journal, and nothing of it in its source's
    before = site.points("host")[-1]
    write(failed.disk, 6 * MIB, b"written on the double" * 1000)
    point = HostAgent.wait_point_after(type("Back", (), {"site": site, "name": "host-back", "wait": failed.double.wait})(), time.time_ns())
    assert point and site.points("host")[-1] == before
    image = folder / "image"
    site.lifeboat("point", "export", "host-back", failed.name, image, "--vault", site.vault_url, server=False)
    assert image.read_bytes()[:failed.size_bytes] == failed.disk.path.read_bytes()
    again = site.lifeboat("failover", "reprotect", "host-double", check=False)
    assert again.returncode != 0 and "reprotected already, as host-back" in again.stderr
    failed.reprotect("--cancel")
    failed.check_no_trace()
    site.wait(lambda: not [o for o in target.orders() if o["state"] in ("ordered", "running", "reached")], "the target's letting go", 180)
    failed.double.wait_text("waits for")                    # and it can be done anew
    assert failed.double.own_identity() is None


def protect_again(failed, site, folder, home):
    """The machine starts from its own disk, as the target server has written it, and goes on in its own journal."""
    with open(failed.disk.device, "r+b", buffering=0) as disk:
        disk.write(home.read_bytes())
        os.fsync(disk.fileno())
    with pytest.MonkeyPatch.context() as short:
        short.setenv(*SHORT)
        failed.agent.start()
    write(failed.disk, MIB, b"at home again" * 1000)
    failed.agent.wait_point_after(time.time_ns())
    site.lifeboat("point", "export", "host", failed.name, folder / "again", "--vault", site.vault_url, server=False)
    assert (folder / "again").read_bytes()[:failed.size_bytes] == failed.disk.path.read_bytes()


def test_a_reprotected_double_goes_home_by_its_own_journal_and_everything_temporary_goes(failed, site, folder, target, faults):
    """Meanwhile, and while the machine is protected again, process servers and target server die once at each of their places, and the
    link swallows everything until all time-outs have run out."""
    failed.fail_over(content=os.urandom(failed.size_bytes))  # more than one segment holds
    with pytest.MonkeyPatch.context() as short:
        short.setenv(*SHORT)
        failed.double.boot()
    target.env = dict([SHORT])
    failed.double.wait_text("waits for")
    site.stop(signal.SIGKILL)                               # what was told and asked is known again after a restart
    site.start()
    home = folder / "home.raw"
    (folder / "home.raw").write_bytes(bytes(failed.size_bytes))
    to = ["--target", "away", "--to", f"{failed.name}={home}"]
    for words, said in ((["--target", "nobody", "--to", f"{failed.name}={home}"], "nobody"), (["--target", "away"], "go together"),
                        (["--target", "away", "--to", f"nodisk={home}"], "nodisk"),
                        (["--target", "away", "--to", f"{failed.name}={folder}/small.raw"], "small")):
        (folder / "small.raw").write_bytes(bytes(4096))
        refused = site.lifeboat("failover", "reprotect", "host-double", *words, check=False)
        assert refused.returncode != 0 and said in refused.stderr, refused.stderr
    assert failed.row() is None and failed.server() is None
    with faults.on(faults.servers) as died, target.kept_running():
        link = SilentLink(site, died)
        with link.cut_after("host-back, epoch 1: in the vault", lambda: failed.server()["port"], failed.double.folder / "agent.log"):
            failed.reprotect(*to)
        site.wait(target.is_reached, "the target server, which may just have been killed, at the newest point", 180)
        write(failed.disk, 5 * MIB, b"the last order" * 4096)
        write_in_double(site.folder / "state/vm/host-double", 0, 0x5a, 5 * MIB, 65536)
        server = failed.server()
        site.stop(signal.SIGKILL)                               # the temporary process server is a part of the site until then
        site.start()
        site.wait(lambda: (failed.server() or {}).get("health") == "ok", "the temporary process server after a restart", 180)
        assert failed.server()["id"] == server["id"] and failed.server()["port"] == server["port"]
        failed.double.wait(lambda: site.machine("host-back")["state"] == "protected", "protection after a restart")
        with link.cut_after("target server, host-back, epoch [2-9]: the disks", lambda: site.port, target.folder / "target.log"):
            done = site.ask("failback", "start", "host-double", "--wait", 0, "--confirm", "host-double", "--hook", "power-on")
        assert done["result"]["machine"] == "host-back" and done["result"]["target"]["epoch"] == done["result"]["epoch"]
        assert (folder / "turned-on").read_text() == "on\n"
        failed.double.close()
        undo = site.lifeboat("failover", "reprotect", "host-double", "--cancel", check=False)
        assert undo.returncode != 0 and "on its way home" in undo.stderr
        same(home, site.folder / "state/vm/host-double/disk0.qcow2", "-f", "raw", "-F", "qcow2")
        site.lifeboat("failback", "commit", "host-double", "--confirm", "host-double")
        failed.check_no_trace()
        assert site.ask("failover", "list")["failovers"] == []
        assert site.machine("host")["state"] != "failed over"
        with link.cut_after("server, host, epoch 2: a range is settled", lambda: site.process_port, failed.agent.folder / "agent.log"):
            protect_again(failed, site, folder, home)
        places = died()
    epoch = done["result"]["epoch"]
    for wanted in ("process server, host-back, epoch 1: a part of the scan", "process server, host-back, epoch 1: a point",
                   "process server, host-back, epoch 1: in the vault", "process server, host-back: fenced", "target server, host-back, epoch 1: the disks are written",
                   f"target server, host-back, epoch {epoch}: the disks are written", "target server, host-back: finish done",
                   "boot done", "process server, host, epoch 2: a range is settled", "process server, host, epoch 2: a point",
                   "process server, host, epoch 2: in the vault"):
        assert any(wanted in place for place in places), "\n".join([f"not: {wanted}", *places])
    print("\n".join(places))


def test_who_lacks_the_secret_gets_no_identity_and_a_double_cant_write_into_its_sources_journal(failed, site, folder, api):
    failed.fail_over(commit=False)
    early = site.lifeboat("failover", "reprotect", "host-double", check=False)
    assert early.returncode != 0 and "is not committed" in early.stderr and "failover commit host-double" in early.stderr
    assert failed.server() is None and failed.row() is None
    unknown = site.lifeboat("failover", "reprotect", "nobody-double", check=False)
    assert unknown.returncode != 0 and "there is no double" in unknown.stderr
    nobody = Api(site)
    for body, status in (({}, 400), ({"secret": "0" * 64}, 400), ({"secret": "0" * 63, "csr_pem": "x"}, 400),
                         ({"secret": "0" * 64, "csr_pem": "x", "hardware": "0" * 64}, 403)):
        assert nobody.ask("POST", "/v1/enrol/double", body)[0] == status, body
    # the old primary with its own identity and without a secret: refused as ever
    assert Api(site, failed.agent.folder / "identity").ask("POST", "/v1/enrol/double", {"secret": "0" * 64})[0] == 403
    failed.double.boot(told=b"")
    failed.double.wait_text("run `lifeboat-mobility enrol`")
    # told something that is wrong, it is refused, too
    failed.double.close()
    told = {"version": 1, "config_url": site.config_url, "secret": "ab" * 32,
            "ca_fingerprint": json.loads((site.folder / "state/vm/host-double/double.json").read_text())["ca_fingerprint"]}
    failed.double.boot(told=json.dumps(told).encode())
    failed.double.wait_text("no double of this server has this secret")
    assert failed.double.own_identity() is None
    # and its source's identity opens it no journal
    before = site.points("host")[-1]
    server = Api(site, failed.double.folder / "identity")
    server.port = site.process_port
    for method, path in (("GET", "/v1/journal"), ("POST", "/v1/heartbeat"), ("PUT", "/v1/journal/2/1")):
        status, answer = server.ask(method, path, {} if method != "GET" else None)
        assert status in (400, 403), answer
        assert "enrol" in answer["error"]["message"] or "certificate" in answer["error"]["message"], answer
    assert site.points("host")[-1] == before


def test_a_reprotect_that_is_cancelled_at_any_step_leaves_no_trace(failed, site, api, faults):
    def after(done):
        assert done["state"] == "cancelled", done
        failed.check_no_trace()

    failed.fail_over()
    failed.double.boot()
    failed.double.wait_text("waits for")
    done, times = cancelled_at_each_step(site, api, faults, "/v1/failover/host-double/reprotect", {}, after)
    assert done["state"] == "done" and times >= 4
    assert site.machine("host-back")["state"] == "protected"


def test_a_server_that_dies_at_each_place_of_the_way_home_ends_it_as_if_nothing_had_happened(failed, site, api, faults):
    failed.fail_over()
    failed.double.boot()
    failed.double.wait_text("waits for")
    deadly(site, api, faults, "/v1/failover/host-double/reprotect", {})
    site.wait(site.answers, "answer of the configuration server", 180)
    failed.double.wait(lambda: site.machine("host-back")["state"] == "protected", "protection")
    assert [m["name"] for m in site.ask("status")["machines"]].count("host-back") == 1
    assert [s["name"] for s in site.ask("server", "list")["servers"] if s.get("temporary")] == ["temporary"]
    write_in_double(site.folder / "state/vm/host-double", 0, 0x5a, 5 * MIB, 65536)
    done = deadly(site, api, faults, "/v1/failover/host-double/failback", {"wait_s": 0})
    assert done["result"]["machine"] == "host-back"
    deadly(site, api, faults, "/v1/failover/host-double/home", {})
    site.wait(site.answers, "answer of the configuration server", 180)
    failed.check_no_trace()
    assert site.ask("failover", "list")["failovers"] == []
