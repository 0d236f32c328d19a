# SPDX-License-Identifier: Apache-2.0
"""Machines move between process servers: by hand, and by themselves when one is lost; never with two writers."""
import json
import ssl
import time

import pytest

from clock import clock_of
from host_agent import LoopDisk
from oracle import STOP_S_MAX, assert_equal_after_quiescing, judge, oracle_writers, stop_writers
from process_server import ProcessServer

LOST_S = 15
RUN_S_MAX = 600
SLOW_S = 300    # a loaded machine's process server that is late is not lost


@pytest.fixture
def disks(folder):
    made = [LoopDisk(folder / f"disk{i}.img", size_mib) for i, size_mib in enumerate((8, 96))]
    yield made
    for d in made:
        d.close()


@pytest.fixture
def site(request, build, folder, capture_possible):
    from lifeboat_site import Site
    s = Site(build, folder / "site").make()
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write(f"process_lost_s = {getattr(request, 'param', SLOW_S)}\n")
    s.start()
    yield s
    s.stop()


@pytest.fixture
def second(site, folder):
    server = ProcessServer(site, folder / "ps2", "ps2").enrol().start()
    yield server
    server.close()


def process_of(site, agent):
    """The name of the process server that has the machine."""
    held = site.ask("machine", "list")["machines"]
    process = next(m["process"] for m in held if m["name"] == agent.name)
    return next(s["name"] for s in site.ask("server", "list")["servers"] if s["id"] == process)


def newest_epoch(site, agent):
    return site.points(agent.name)[-1]["epoch"]


def test_a_machine_moves_under_load_in_the_same_epoch_and_every_point_is_legal(build, site, second, agent, disks, folder):
    agent.protect(disks[:1], ring="256M")
    first = process_of(site, agent)
    epoch = newest_epoch(site, agent)
    log = folder / "writes.log"
    # the ring has to hold what is written until the agent has heard of the move
    writers = oracle_writers(build, log, disks[:1], RUN_S_MAX, rate=1500, spare=agent.pins)
    for to in ("ps2", "local") if first == "local" else ("local", "ps2"):
        agent.wait_point_after(time.time_ns())
        site.lifeboat("machine", "move", agent.name, "--to", to)
        assert process_of(site, agent) == to
        agent.wait_point_after(time.time_ns())
    stop_writers(writers)
    agent.wait_point_after(time.time_ns())
    assert newest_epoch(site, agent) == epoch, f"a clean move begins no epoch: {agent.log('agent')}"
    summary, wrong = judge(build, site, agent, log)
    assert not wrong, "\n".join(wrong)
    assert summary["checked"] > 0
    assert_equal_after_quiescing(site, agent, disks[:1], folder)


@pytest.mark.parametrize("site", [LOST_S], indirect=True)
def test_a_lost_process_server_loses_its_machines_and_its_cache_is_never_offered(build, site, second, agent, disks, folder):
    agent.protect(disks)
    if process_of(site, agent) != "ps2":
        site.lifeboat("machine", "move", agent.name, "--to", "ps2")
    log = folder / "writes.log"
    writers = oracle_writers(build, log, disks[:1], 25, rate=1500)
    # acknowledged by it, and not yet in the vault
    agent.wait(second.cached, "segments in its cache")
    second.kill()
    agent.wait(lambda: process_of(site, agent) == "local", "move away from the lost server", 180)
    agent.wait_recoverable()
    agent.wait_point_after(time.time_ns())
    assert json.loads(writers.communicate(timeout=STOP_S_MAX)[0])["error"] == 0
    second.start()
    agent.wait(lambda: not second.cached(), "the void cache to be dropped")
    agent.wait_point_after(time.time_ns())
    summary, wrong = judge(build, site, agent, log)
    assert not wrong, "\n".join(wrong)
    scanned = agent.status().get("scan_total_bytes", 0)
    assert scanned < disks[1].size_bytes, f"{scanned} bytes were compared: that was a resync"
    assert_equal_after_quiescing(site, agent, disks, folder)


def test_moves_that_can_not_be_are_refused_with_the_reason(site, agent, disks):
    agent.protect(disks[:1])

    def refused(*words):
        p = site.lifeboat(*words, check=False)
        assert p.returncode not in (0, 3)
        return p.stderr

    assert "no machine" in refused("machine", "move", "nobody", "--to", "local")
    assert "is at process server local already" in refused("machine", "move", agent.name, "--to", "local")
    assert "no process server" in refused("machine", "move", agent.name, "--to", "nowhere")
    assert "server add" in refused("machine", "move", agent.name)
    assert "server add" in refused("server", "drain", "local")
    assert "part of this host" in refused("server", "remove", "local", "--confirm", "local")
    assert site.machine(agent.name)["recoverable"]


def test_a_drained_process_server_can_be_removed_and_then_may_not_ask(site, second, agent, disks):
    agent.protect(disks[:1])
    if process_of(site, agent) != "ps2":
        site.lifeboat("machine", "move", agent.name, "--to", "ps2")
    p = site.lifeboat("server", "remove", "ps2", "--confirm", "ps2", check=False)
    assert p.returncode != 0 and "server drain ps2" in p.stderr
    site.lifeboat("server", "drain", "ps2")
    assert process_of(site, agent) == "local"
    site.lifeboat("server", "remove", "ps2", "--confirm", "ps2")
    assert second.health() is None
    agent.wait_point_after(time.time_ns())


def served(server):
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.2", server.port)))


def test_a_process_server_renews_its_certificate_before_it_ends_and_serves_with_the_new_one(build, site, second, folder):
    of_enrolment, shift = (second.folder / "identity/cert.pem").read_text(), folder / "shift"
    assert served(second) == ssl.PEM_cert_to_DER_cert(of_enrolment)
    second.close()
    shift.write_text(f"{250 * 86400}\n")  # two thirds of a year are over
    with clock_of(build, shift):
        second.start()
    site.wait(lambda: (second.folder / "identity/cert.pem").read_text() != of_enrolment, "a new certificate", 60)
    renewed = ssl.PEM_cert_to_DER_cert((second.folder / "identity/cert.pem").read_text())
    site.wait(lambda: served(second) == renewed, "it to be served", 60)
    assert second.health() == "ok" and "the certificate is renewed" in second.log()
