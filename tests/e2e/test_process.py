# SPDX-License-Identifier: Apache-2.0
"""The process server as a daemon: killed at any instant, refused, cut off; nothing acknowledged is ever lost."""

import os
import random
import signal
import socket
import subprocess
import time

import pytest

from process_site import DAEMON, SEGTOOL, Ca, Site
from provoked import wait_for

ROUNDS = int(os.environ.get("LIFEBOAT_KILL_ROUNDS", "20"))

pytestmark = pytest.mark.skipif(not (DAEMON.exists() and SEGTOOL.exists()), reason=f"{DAEMON} is not built")


@pytest.fixture
def site(tmp_path, request):
    s = Site(tmp_path, **getattr(request, "param", {}))
    yield s
    s.close()


def finished(agent):
    _, text = agent.communicate(timeout=300)
    assert agent.returncode == 0, text


def went_on(site, before):
    for agent in site.agents:
        assert agent.poll() is None, agent.stderr.read()
    return all(m.last_acked() != b for m, b in zip(site.machines, before))


@pytest.mark.parametrize("site", [{"machines": 2}], indirect=True)
def test_killed_at_random_instants_it_loses_nothing_that_it_acknowledged(site):
    shape = ["--epochs", "100000", "--segments", "150", "--data-bytes", "96K"]
    seed = int(os.environ.get("LIFEBOAT_SEED", random.randrange(1 << 32)))
    print("LIFEBOAT_SEED =", seed)
    chance = random.Random(seed)
    for machine in site.machines:
        site.agent(machine, *shape)
    for n in range(ROUNDS):
        site.start()
        before = [m.last_acked() for m in site.machines]
        # some rounds end while it starts, some long after: most once it has acknowledged something
        if n % 4 != 0:
            wait_for(lambda: went_on(site, before), "agents go on after a kill")
        time.sleep(chance.uniform(0, 0.7))
        site.kill()
    for agent in site.agents:
        agent.kill()
    site.start()
    for machine in site.machines:
        journal = site.journal(machine)
        durable = (journal["last_epoch"], journal["last_seq"])
        assert durable >= machine.last_acked()
        site.wait_in_vault(machine, durable)
        site.assert_image(machine, durable, *shape)
        print(machine.name, "ends at", durable)


def test_an_agent_that_is_killed_too_goes_on_from_what_is_durable(site):
    shape = ["--epochs", "2", "--segments", "200", "--data-bytes", "64K"]
    machine = site.machines[0]
    for _ in range(5):
        site.start()
        agent = site.agent(machine, *shape)
        before = machine.last_acked()
        wait_for(lambda: machine.last_acked() != before or agent.poll() is not None, "the agent goes on")
        agent.kill()
        site.kill()
    site.start()
    finished(site.agent(machine, *shape))
    site.wait_in_vault(machine, (2, 199))
    site.assert_image(machine, (2, 199), *shape)


def test_segments_of_eight_mebibytes_go_through(site):
    shape = ["--segments", "6", "--data-bytes", "8M"]
    site.start()
    finished(site.agent(site.machines[0], *shape))
    site.wait_in_vault(site.machines[0], (1, 5))
    site.assert_image(site.machines[0], (1, 5), *shape)
    assert site.report(site.machines[0])["backlog_bytes"] == 0


def test_it_goes_on_with_the_last_configuration_while_the_configuration_server_is_away(site):
    shape = ["--segments", "60"]
    site.start()
    site.journal(site.machines[0])
    site.config.stop()
    finished(site.agent(site.machines[0], *shape))
    site.config.start()
    site.wait_in_vault(site.machines[0], (1, 59))
    site.assert_image(site.machines[0], (1, 59), *shape)


def test_a_machine_that_is_disabled_or_removed_is_refused_in_words(site):
    machine = site.machines[0]
    site.start()
    site.journal(machine)
    machine.enabled = False
    status, body = wait_for(lambda: refusal(site, machine), "the machine is refused")
    assert status == 403 and "disabled" in body["error"]["message"]
    machine.enabled = True
    site.journal(machine)
    site.assigned.clear()
    status, body = wait_for(lambda: refusal(site, machine), "the machine is refused")
    assert status == 403 and "not assigned" in body["error"]["message"]


def refusal(site, machine, **how):
    status, body = site.request(machine, "GET", "/v1/journal", **how)
    return (status, body) if status in (401, 403) else None


def test_unknown_certificates_are_refused(site, tmp_path):
    machine = site.machines[0]
    site.start()
    site.journal(machine)
    status, _ = site.request(machine, "GET", "/v1/journal", identity=False)
    assert status == 403
    other = Ca(tmp_path / "other-ca", "other")
    foreign = other.identity(tmp_path / "foreign", machine.id, "machine")
    status, body = site.request(machine, "GET", "/v1/journal", identity=foreign)
    assert status == 403 and "certificate" in body["error"]["message"]
    operator = site.ca.identity(tmp_path / "operator", machine.id, "operator")
    assert site.request(machine, "GET", "/v1/journal", identity=operator)[0] == 403
    copy = site.ca.identity(tmp_path / "copy", machine.id, "machine")
    status, body = site.request(machine, "GET", "/v1/journal", identity=copy)
    assert status == 403 and "not its current one" in body["error"]["message"]


def test_a_full_disk_is_told_and_nothing_on_it_is_lost(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    site = Site(tmp_path / "site", cache_folder=small / "cache")
    try:
        # nothing leaves the cache while the vault's folder is a file
        vault, away = tmp_path / "site/vault", tmp_path / "site/vault.away"
        site.start()
        machine = site.machines[0]
        site.journal(machine)
        vault.rename(away)
        vault.write_text("in the way")
        shape = ["--segments", "200", "--data-bytes", "256K", "--compressible", "0"]
        agent = site.agent(machine, *shape)
        wait_for(lambda: b"is full" in (site.folder / "log").read_bytes(), "the log says that the disk is full")
        assert agent.poll() is None
        vault.unlink()
        away.rename(vault)
        finished(agent)
        site.wait_in_vault(machine, (1, 199))
        site.assert_image(machine, (1, 199), *shape)
    finally:
        site.close()
        subprocess.run(["umount", small], check=True)


def test_sigterm_ends_it_cleanly_and_the_service_manager_is_told(site, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(240)
        site.environment = lambda: dict(os.environ, NOTIFY_SOCKET=path)
        site.start()
        assert notify.recv(100) == b"READY=1"
        site.journal(site.machines[0])
        site.daemon.send_signal(signal.SIGTERM)
        assert notify.recv(100) == b"STOPPING=1"
    assert site.daemon.wait(timeout=240) == 0


def test_no_key_is_left_on_disk_or_in_the_log(site):
    import base64
    machine = site.machines[0]
    site.start()
    finished(site.agent(machine, "--segments", "5"))
    site.kill()
    raw = base64.b64decode(machine.key)
    files = [site.folder / "log"] + [p for p in site.cache.rglob("*") if p.is_file()]
    assert len(files) > 1
    for file in files:
        data = file.read_bytes()
        assert raw not in data and machine.key.encode() not in data and raw.hex().encode() not in data, file


def test_settings_are_checked_with_the_line_named(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("config_url = https://config.example\n")
    bad.write_text("config_url = https://config.example\n\ncache_bytes = 5G\n")
    assert subprocess.run([DAEMON, "--check", "--config", good], capture_output=True).returncode == 0
    done = subprocess.run([DAEMON, "--check", "--config", bad], capture_output=True, text=True)
    assert done.returncode == 1 and f"{bad}, line 3" in done.stderr
    assert subprocess.run([DAEMON, "--check", "--config", tmp_path / "none"], capture_output=True).returncode == 1
