# SPDX-License-Identifier: Apache-2.0
"""What goes wrong from outside: each time a clear error that names the thing and the cure, and nothing is lost."""
import contextlib
import filecmp
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import ssl
import subprocess
import time

import pytest

from clock import clock_of
from host_agent import AGENT_UID, HostAgent, LoopDisk, PulledDisk
from lifeboat_site import Site
from process_site import Ca

DAY_S = 86400
DISK_MIB = 24
DEADLINE_S = 240


def run(*words):
    p = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert p.returncode == 0, f"{words} ended with {p.returncode}: {p.stderr}"
    return p.stdout


class Mount:
    """Something over a folder, until it is taken away."""

    def __init__(self, folder, *words):
        self.folder = folder
        self.words = words
        self.there = False

    def make(self):
        run("mount", *self.words, self.folder)
        self.there = True

    def take_away(self):
        if self.there:
            run("umount", "--lazy", self.folder)
        self.there = False


@contextlib.contextmanager
def mounted(folder, *words):
    m = Mount(folder, *words)
    m.make()
    try:
        yield m
    finally:
        m.take_away()


@pytest.fixture
def disk(folder):
    made = LoopDisk(folder / "disk.img", DISK_MIB)
    yield made
    made.close()


def write(disk, n_bytes=1 << 20, at=0, seed=None):
    """Past the page cache's mercy: on the disk when this returns."""
    with open(disk.device, "r+b", buffering=0) as f:
        f.seek(at)
        f.write(random.Random(seed).randbytes(n_bytes))
        os.fsync(f.fileno())


def reasons(agent):
    return [f"{r['text']} | {r['cure']}" for r in (agent.site.machine(agent.name) or {}).get("reasons", [])]


def wait_reason(agent, *words):
    return agent.wait(lambda: next((r for r in reasons(agent) if all(w in r for w in words)), None),
                      f"reason that says {words}", DEADLINE_S)


def journal(site):
    """The journal objects of the vault, in order."""
    return sorted((site.folder / "vault").glob("m/*/e/*/*"))


def assert_export_equals(site, agent, disk, folder):
    agent.wait_point_after(time.time_ns())
    out = folder / "export.img"
    out.unlink(missing_ok=True)
    site.lifeboat("point", "export", agent.name, disk.name, out, "--vault", site.vault_url, server=False)
    assert filecmp.cmp(out, disk.path, shallow=False), "the export differs from the disk"


def ask(port, site, identity=None, path="/v1/status", method="GET"):
    """(status, message) of one call with an identity, or what the handshake ended with."""
    context = ssl.create_default_context(cafile=str(site.identity / "ca.pem"))
    if identity is not None:
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}").get("error", {}).get("message", "")
    finally:
        connection.close()


# ---- what needs no disk -------------------------------------------------------------------------------------

@pytest.fixture
def plain_site(build, tmp_path):
    s = Site(build, tmp_path / "site").make().start()
    yield s
    s.stop()


def test_a_wrong_passphrase_is_refused_and_changes_nothing(plain_site, tmp_path):
    site, wrong = plain_site, tmp_path / "wrong"
    wrong.write_text("not the right one at all\n")
    wrong.chmod(0o600)
    vault = site.folder / "vault/vault.json"
    before = vault.read_bytes()
    for words in (["machine", "list"], ["vault", "verify"], ["vault", "passphrase", "--new-passphrase-file", wrong]):
        p = site.lifeboat(*words, "--vault", site.vault_url, "--passphrase-file", wrong, check=False, server=False)
        assert p.returncode == 5, (words, p.stderr)
        assert "passphrase" in p.stderr and site.vault_url in p.stderr
        assert "not the right one" not in p.stderr + p.stdout
    assert vault.read_bytes() == before
    assert site.vault_ask("machine", "list") is not None


def test_an_unknown_client_certificate_is_refused_on_both_ports(plain_site, tmp_path):
    site = plain_site
    name = "3b8a2a52-6f0c-4d0e-9a55-0d9f53c7c0aa"
    foreign = Ca(tmp_path / "other-ca", "other")
    for port, path, role in ((site.port, "/v1/status", "administrator"), (site.process_port, "/v1/journal", "machine")):
        status, text = site.wait(lambda: try_ask(port, site, path=path), f"answer on port {port}", DEADLINE_S)
        assert status == 403 and "certificate" in text, text
        identity = foreign.identity(tmp_path / role, name, role)
        status, text = ask(port, site, identity, path)
        assert status == 403 and "certificate" in text and "enrol" in text, text
    assert ask(site.port, site, site.identity)[0] == 200


def try_ask(port, site, **how):
    try:
        return ask(port, site, **how)
    except ConnectionError:
        return None


@pytest.mark.parametrize("program, file", [("config", "config.conf"), ("process", "process.conf"),
                                           ("mobility", "mobility.conf")])
def test_a_misspelt_setting_is_named_with_its_line(build, tmp_path, program, file):
    from lifeboat_site import programs
    conf = tmp_path / file
    conf.write_text("# settings\n\nconfg_url = https://127.0.0.1\n")
    for words in (["--check", "--config", conf], ["--config", conf]):
        p = subprocess.run([programs(build)[program], *words], capture_output=True, text=True, timeout=60)
        assert p.returncode == 1
        assert f"{conf}, line 3" in p.stderr and "confg_url" in p.stderr


def enrol(site, folder, name, token):
    """(exit status, what it says) of an enrolment into a fresh identity folder."""
    folder.mkdir()
    conf = folder / "mobility.conf"
    conf.write_text(f"config_url = {site.config_url}\nidentity_folder = {folder}/identity\nstate_folder = {folder}\n"
                    f"run_folder = {folder}\n")
    p = subprocess.run([site.programs["mobility"], "enrol", "--config", conf, "--config-url", site.config_url,
                        "--ca-fingerprint", token["ca_fingerprint"], "--token-file", token["file"], "--name", name],
                       capture_output=True, text=True)
    return p.returncode, p.stderr


def new_token(site, tmp_path, *more):
    file = tmp_path / "token"
    file.unlink(missing_ok=True)
    return {**site.ask("token", "create", "--kind", "machine", "--file", file, *more), "file": file}


def test_a_token_that_was_used_enrols_no_second_machine(plain_site, tmp_path):
    token = new_token(plain_site, tmp_path)
    assert enrol(plain_site, tmp_path / "first", "web1", token) == (0, "")
    status, said = enrol(plain_site, tmp_path / "second", "web2", token)
    assert status == 1
    assert "used already" in said and "lifeboat token create" in said
    assert [m["name"] for m in plain_site.ask("machine", "list")["machines"]] == ["web1"]
    assert not (tmp_path / "second/identity/cert.pem").exists()


def test_a_token_that_expired_enrols_nobody(plain_site, tmp_path):
    token = new_token(plain_site, tmp_path, "--valid", 1)
    expires_ns = time.time_ns() + 1_000_000_000
    plain_site.wait(lambda: time.time_ns() > expires_ns, "expiry", DEADLINE_S)
    status, said = enrol(plain_site, tmp_path / "late", "web1", token)
    assert status == 1
    assert "expired" in said and "lifeboat token create" in said
    assert plain_site.ask("machine", "list")["machines"] == []
    assert enrol(plain_site, tmp_path / "again", "web1", new_token(plain_site, tmp_path)) == (0, "")


# ---- the vault's and the cache's objects --------------------------------------------------------------------

def cut_short(data):
    return data[:len(data) // 2]


def altered(data):
    middle = len(data) * 3 // 4
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]


@pytest.mark.parametrize("harm", [cut_short, altered])
def test_a_harmed_journal_object_is_named_and_the_points_before_it_stay(site, agent, disk, folder, harm):
    agent.protect([disk])
    write(disk, seed=1)
    good = agent.wait_point_after(time.time_ns())
    known = set(journal(site))
    write(disk, seed=2)
    agent.wait_point_after(time.time_ns())
    agent.kill_agent()
    site.stop()
    # the largest of what came later: it has the data
    victim = max((p for p in journal(site) if p not in known), key=lambda p: p.stat().st_size)
    name, whole = str(victim.relative_to(site.folder / "vault")), victim.read_bytes()
    # checkpoints would spare the reading of the object's index, not of its data
    victim.write_bytes(harm(whole))
    p = site.lifeboat("vault", "verify", "--deep", "--vault", site.vault_url, check=False, server=False)
    assert p.returncode == 3 and name in p.stdout and "NOT WHOLE" in p.stdout, p.stdout + p.stderr
    out = folder / "export.img"
    p = site.lifeboat("point", "export", agent.name, disk.name, out, "--vault", site.vault_url, check=False, server=False)
    assert p.returncode == 1 and name in p.stderr, p.stderr
    assert not out.exists()
    at = "%d:%d" % (good["epoch"], good["seq"])
    site.lifeboat("point", "export", agent.name, disk.name, out, "--point", at, "--vault", site.vault_url, server=False)
    assert out.read_bytes()[:1 << 20] == random.Random(1).randbytes(1 << 20)
    victim.write_bytes(whole)
    p = site.lifeboat("vault", "verify", "--deep", "--vault", site.vault_url, server=False)
    assert "Proven" in p.stdout


def size_bytes(path):
    """Of a file that may go at any instant."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def cached(site):
    return sorted((site.folder / "state").rglob("*.hrl"))


@contextlib.contextmanager
def vault_away(site):
    """Something else stands where the vault's folder was."""
    vault, away = site.folder / "vault", site.folder / "vault.away"
    vault.rename(away)
    vault.write_text("in the way")
    try:
        yield
    finally:
        vault.unlink()
        away.rename(vault)


@pytest.mark.parametrize("harm", [cut_short, altered])
def test_a_harmed_segment_in_the_cache_is_named_kept_and_sent_again(site, agent, disk, folder, harm):
    agent.protect([disk])
    agent.wait_point_after(time.time_ns())
    with vault_away(site):
        write(disk, seed=3)
        agent.wait(lambda: sum(size_bytes(p) for p in cached(site)) > 1 << 19, "segments in the cache", DEADLINE_S)
        agent.wait(lambda: "can't" in " ".join(reasons(agent)) or "vault" in " ".join(reasons(agent)), "word of the vault", DEADLINE_S)
        site.stop(signal.SIGKILL)
        victim = max(cached(site), key=lambda p: p.stat().st_size)
        victim.write_bytes(harm(victim.read_bytes()))
    site.start()
    assert_export_equals(site, agent, disk, folder)
    log = site.log_tail(1 << 20)
    assert agent.name in log and "lost acknowledged data" in log and ".bad" in log, log[-3000:]
    assert list((site.folder / "state").rglob("*.bad")), "what was harmed is kept for a look"


# ---- rooms and folders ----------------------------------------------------------------------------------------

@pytest.fixture
def bare_site(build, folder, capture_possible):
    """Made and not started: a test lays mounts under it first."""
    s = Site(build, folder / "site").make()
    yield s
    s.stop()


@contextlib.contextmanager
def agent_of(site, folder):
    a = HostAgent(site, folder / "agent").enrol().start()
    try:
        yield a
    finally:
        a.close()


def test_a_full_cache_disk_makes_the_agent_wait_and_go_on(bare_site, disk, folder):
    site = bare_site
    conf = (site.folder / "etc/config.conf").read_text()
    cache = pathlib.Path(re.search(r"(?m)^process_cache_folder = (.*)$", conf).group(1))
    cache.mkdir(parents=True, exist_ok=True)
    with mounted(cache, "-t", "tmpfs", "-o", "size=14m", "tmpfs"):
        site.start()
        with agent_of(site, folder) as agent:
            agent.protect([disk])
            # the vault takes nothing, so the cache fills
            with mounted(site.folder / "vault", "--bind", site.folder / "vault"):
                run("mount", "-o", "remount,bind,ro", site.folder / "vault")
                write(disk, 22 << 20, seed=4)
                said = wait_reason(agent, "is full", str(cache))
                assert "free space" in said
                assert agent.agent.poll() is None and site.server.poll() is None
                full = [p["time_ns"] for p in site.points(agent.name)]
            assert_export_equals(site, agent, disk, folder)
            assert [p["time_ns"] for p in site.points(agent.name)][:len(full)] == full
            agent.wait(lambda: not any("is full" in r for r in reasons(agent)), "end of the complaint", DEADLINE_S)
        site.stop()


def test_a_vault_that_may_not_be_written_is_told_with_the_cure_and_loses_nothing(bare_site, disk, folder):
    site = bare_site
    vault = site.folder / "vault"
    with mounted(vault, "--bind", vault):
        site.start()
        with agent_of(site, folder) as agent:
            agent.protect([disk])
            points = [p["time_ns"] for p in site.points(agent.name)]
            run("mount", "-o", "remount,bind,ro", vault)
            write(disk, seed=5)
            said = wait_reason(agent, site.vault_url, "Read-only file system")
            assert "write access" in said
            assert [p["time_ns"] for p in site.points(agent.name)][:len(points)] == points
            run("mount", "-o", "remount,bind,rw", vault)
            assert_export_equals(site, agent, disk, folder)
        site.stop()


def test_a_vault_that_is_unmounted_is_not_made_anew_in_the_empty_folder(bare_site, disk, folder):
    site = bare_site
    vault, real = site.folder / "vault", site.folder / "vault.real"
    vault.rename(real)
    vault.mkdir()
    with mounted(vault, "--bind", real) as mount:
        site.start()
        with agent_of(site, folder) as agent:
            agent.protect([disk])
            mount.take_away()
            write(disk, seed=6)
            said = wait_reason(agent, site.vault_url)
            assert "mount" in said, said
            time_ns = time.time_ns()
            agent.wait(lambda: (site.machine(agent.name) or {}).get("backlog_bytes", 0) > 0, "backlog", DEADLINE_S)
            assert [p for p in vault.rglob("*") if p.is_file()] == [], "written where no vault is"
            mount.make()
            agent.wait_point_after(time_ns)
            assert_export_equals(site, agent, disk, folder)
        site.stop()


# ---- disks -------------------------------------------------------------------------------------------------------

def test_a_disk_that_vanishes_is_named_and_its_points_stay(site, agent, disk, folder):
    other = PulledDisk(folder / "other.img", DISK_MIB)
    try:
        agent.protect([disk, other])
        write(other, seed=7)
        assert_export_equals(site, agent, other, folder)
        image = other.path.read_bytes()
        run("losetup", "--detach", other.device)
        # the kernel lets go of it with its last user: pulled out while the agent is away for a moment
        agent.kill_agent()
        agent.kill_capture()
        subprocess.run([site.programs["capture"], "--detach", "--pins", agent.pins], check=True)
        agent.wait(lambda: not other.is_attached(), "end of the loop device")
        agent.start()
        said = wait_reason(agent, other.name, "is not there")
        assert "lifeboat machine protect" in said
        out = folder / "export.img"
        out.unlink()
        site.lifeboat("point", "export", agent.name, other.name, out, "--vault", site.vault_url, server=False)
        assert out.read_bytes() == image
        # the cure that it names: go on without it
        site.lifeboat("machine", "protect", agent.name, "--disks", disk.name)
        write(disk, seed=8)
        assert_export_equals(site, agent, disk, folder)
    finally:
        other.close()


def test_a_disk_that_grew_is_named_with_both_sizes_and_the_cure_mends_it(site, agent, disk, folder):
    agent.protect([disk])
    write(disk, seed=9)
    before = agent.wait_point_after(time.time_ns())
    os.truncate(disk.path, (DISK_MIB + 8) << 20)
    run("losetup", "--set-capacity", disk.device)
    write(disk, at=(DISK_MIB + 4) << 20, seed=10)
    said = wait_reason(agent, disk.name, "lifeboat machine protect")
    assert f"{DISK_MIB}" in said or str(DISK_MIB << 20) in said, said
    assert before["time_ns"] in [p["time_ns"] for p in site.points(agent.name)]
    site.lifeboat("machine", "protect", agent.name, "--no-wait", "--disks", disk.name)
    assert_export_equals(site, agent, disk, folder)
    at, out = "%d:%d" % (before["epoch"], before["seq"]), folder / "old.img"
    site.lifeboat("point", "export", agent.name, disk.name, out, "--point", at, "--vault", site.vault_url, server=False)
    assert out.read_bytes()[:1 << 20] == random.Random(9).randbytes(1 << 20)


# ---- identities and clocks -----------------------------------------------------------------------------------------

def test_a_copy_of_the_identity_on_another_machine_is_refused_and_the_first_goes_on(site, agent, disk, folder):
    agent.protect([disk])
    copy, other = folder / "copy", LoopDisk(folder / "copied.img", DISK_MIB)
    second = HostAgent(site, copy, name=agent.name)
    second.pins += "-copy"
    try:
        shutil.copytree(agent.folder, copy, ignore=shutil.ignore_patterns("*.sock", "*.log", "run"))
        (copy / "run").mkdir()
        for path in [copy / "run", *copy.rglob("*")]:
            os.chown(path, AGENT_UID, AGENT_UID)
        second.conf.write_text(agent.conf.read_text().replace(str(agent.folder), str(copy)))
        (folder / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        second.start_capture()
        with open(copy / "agent.log", "ab") as log:
            second.agent = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                 'mount --bind "$1" /etc/machine-id && exec setpriv --reuid "$2" --regid "$2" --clear-groups "$3" run --config "$4"',
                 "sh", folder / "machine-id", str(AGENT_UID), site.programs["mobility"], second.conf],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        agent.wait(lambda: "hardware" in second.log("agent"), "refusal of the copy: " + second.log("agent"), DEADLINE_S)
        said = second.log("agent")
        assert "copy" in said and "enrol" in said, said
        status = json.loads((copy / "run/status.json").read_text()) if (copy / "run/status.json").exists() else {}
        assert status.get("state") != "protected"
        write(disk, seed=11)
        assert_export_equals(site, agent, disk, folder)
        assert site.points(agent.name)[-1]["epoch"] == site.points(agent.name)[0]["epoch"], "the first began anew"
    finally:
        second.close()
        other.close()


def points_in_vault(site, agent):
    """By the vault alone: its servers may be out of their minds."""
    return site.vault_ask("point", "list", agent.name, "--limit", 0)["points"]


def move_clock(shift, by_s, disk, seed):
    new = shift.with_suffix(".new")
    new.write_text(f"{by_s}\n")
    new.rename(shift)
    write(disk, seed=seed)


def times_rise(points):
    return all(a["time_ns"] <= b["time_ns"] for a, b in zip(points, points[1:]))


@pytest.mark.parametrize("days", [1, -1], ids=["forward", "back"])
@pytest.mark.parametrize("whose", ["agent", "servers"])
def test_a_clock_that_jumps_a_day_loses_nothing(build, bare_site, disk, folder, whose, days):
    site, shift = bare_site, folder / "shift"
    shift.write_text("0\n")
    with clock_of(build, shift) if whose == "servers" else contextlib.nullcontext():
        site.start()
    agent = HostAgent(site, folder / "agent").enrol()
    try:
        agent.start_capture()
        with clock_of(build, shift) if whose == "agent" else contextlib.nullcontext():
            agent.start_agent()
        agent.protect([disk])
        write(disk, seed=12)
        agent.wait_point_after(time.time_ns())
        points = points_in_vault(site, agent)
        move_clock(shift, days * DAY_S, disk, 13)
        if whose == "servers" and days < 0:
            # its certificates are younger than a day
            p = site.wait(lambda: (p := site.lifeboat("status", check=False)).returncode not in (0, 3) and p, "refusal", DEADLINE_S)
            assert p.returncode == 5 and "not valid yet" in p.stderr and "clocks" in p.stderr
        else:
            agent.wait(lambda: len(points_in_vault(site, agent)) > len(points), "points after the jump", DEADLINE_S)
        after = points_in_vault(site, agent)
        assert [p["time_ns"] for p in after[:len(points)]] == [p["time_ns"] for p in points] and times_rise(after)
        move_clock(shift, 0, disk, 14)
        agent.wait(lambda: len(points_in_vault(site, agent)) > len(after), "points after the clock was mended", DEADLINE_S)
        assert times_rise(points_in_vault(site, agent))
        out = folder / "export.img"

        def equal():
            out.unlink(missing_ok=True)
            site.lifeboat("point", "export", agent.name, disk.name, out, "--vault", site.vault_url, server=False)
            return filecmp.cmp(out, disk.path, shallow=False)
        agent.wait(equal, "export equal to the disk", DEADLINE_S)
        assert points_in_vault(site, agent)[-1]["epoch"] == points[0]["epoch"], "it began anew"
    finally:
        agent.close()
