# SPDX-License-Identifier: Apache-2.0
"""The operator's command as a person and a script meet it: answers, refusals, exit statuses, JSON. One site for all."""
import json
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from host_agent import LoopDisk
from lifeboat_site import Site
from test_config import enrol_machine

MIB = 1 << 20
DONE, FAILED, USAGE, DEGRADED, ABSENT, REFUSED, RETRY = range(7)
POINTS = 4
ENDS_WITHIN_S = 60
for tool in ("nbdkit", "qemu-img", "qemu-system-x86_64"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


def processes_of(folder):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"{folder}/".encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Cli:
    """Runs the command; `vault` in place of a server where asked."""

    def __init__(self, site):
        self.site = site

    def run(self, *words, **kw):
        return self.site.lifeboat(*words, check=False, stdin=subprocess.DEVNULL, **kw)

    def alone(self, *words):
        return self.run(*words, "--vault", self.site.vault_url, server=False)

    def data(self, kind, *words, status=DONE, alone=False):
        p = (self.alone if alone else self.run)(*words, "-o", "json")
        assert p.returncode == status, (words, p.returncode, p.stdout, p.stderr)
        answer = json.loads(p.stdout)
        assert set(answer) == {"api", "kind", "data"} and answer["api"] == "lifeboat/v1" and answer["kind"] == kind, answer
        return answer["data"]

    def error(self, status, *words, alone=False):
        """Refused with this status, the same in text and in JSON, and nothing on standard output. The message."""
        run = self.alone if alone else self.run
        p = run(*words)
        assert (p.returncode, p.stdout) == (status, ""), (words, p.returncode, p.stdout, p.stderr)
        assert p.stderr.startswith("lifeboat: ")
        j = run(*words, "-o", "json")
        assert (j.returncode, j.stdout) == (status, "")
        answer = json.loads(j.stderr)
        assert answer["api"] == "lifeboat/v1" and answer["kind"] == "error" and answer["data"]["exit"] == status
        return p.stderr


@pytest.fixture(scope="module")
def site(build):
    os.environ["LIFEBOAT_NBDKIT_PLUGIN"] = str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lbcl."))  # short: sockets are below it
    s = Site(build, folder)
    s.passphrase_file.touch(mode=0o600)
    s.passphrase_file.write_text("correct horse battery staple\n")
    disk = folder / "vda.img"
    disk.write_bytes(os.urandom(2 * MIB) + bytes(6 * MIB))
    (folder / "oracle").mkdir()
    subprocess.run([build / "tests/tools/mkvault", "--vault", s.vault_url, "--passphrase-file", s.passphrase_file, "--machine", "db1",
                    "--points", str(POINTS), "--oracle", folder / "oracle", f"--disk=vda={disk}"], check=True, capture_output=True)
    s.make(fabric="qemu").start()
    enrol_machine(s, folder / "web1", "web1")
    yield s
    cleaner = Cli(s)
    for double in json.loads(cleaner.run("failover", "list", "-o", "json").stdout)["data"]["failovers"]:
        cleaner.run("failover", "cleanup", double["name"], "--live", "--confirm", double["name"])
    s.stop()
    end = time.monotonic() + ENDS_WITHIN_S
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)
    del os.environ["LIFEBOAT_NBDKIT_PLUGIN"]
    assert not left, f"processes were left behind: {left}"


@pytest.fixture
def cli(site):
    return Cli(site)


def tree(folder):
    return {str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else None) for p in sorted(folder.rglob("*"))}


# ---- status ------------------------------------------------------------------------------------------------


def test_status_says_what_is_in_the_way_with_the_command_that_mends_it(cli):
    p = cli.run("status")
    assert p.returncode == DEGRADED
    assert "web1: can NOT be recovered yet" in p.stdout
    assert "it is not protected\n           -> lifeboat machine protect web1" in p.stdout
    assert "server" in p.stdout


def test_status_in_json_has_its_shape(cli):
    status = cli.data("status", "status", status=DEGRADED)
    assert set(status) == {"summary", "machines", "servers"} and status["summary"] == {"machines": 1, "recoverable": 0}
    machine, = status["machines"]
    assert {"id", "name", "health", "recoverable", "point_ns", "rpo_s", "state", "progress", "proven_ns", "reasons"} <= set(machine)
    assert (machine["health"], machine["recoverable"], machine["point_ns"]) == ("warning", False, None)


def test_status_of_one_machine_is_asked_by_name_or_id_and_absent_is_absent(cli):
    machine, = cli.data("status", "status", "web1", status=DEGRADED)["machines"]
    assert cli.data("status", "status", machine["id"], status=DEGRADED)["machines"][0]["name"] == "web1"
    assert "lifeboat machine list" in cli.error(ABSENT, "status", "web2")


def test_status_of_the_vault_alone_says_what_can_be_recovered(cli):
    status = cli.data("status", "status", alone=True)
    machine, = status["machines"]
    assert status["summary"] == {"machines": 1, "recoverable": 1} and status["servers"] == []
    assert (machine["name"], machine["recoverable"], machine["proven_ns"]) == ("db1", True, None)
    assert machine["point_ns"] > 0 and machine["rpo_s"] >= 0
    p = cli.alone("status", "db1")
    assert p.returncode == DONE and "db1: recoverable to 20" in p.stdout and "never proven" in p.stdout
    cli.error(ABSENT, "status", "web1", alone=True)


def test_an_empty_vault_is_told_as_such(cli, tmp_path):
    words = ["--vault", f"dir:{tmp_path}/v"]
    assert cli.data("vault", "vault", "create", *words)["url"] == words[1]
    assert "holds no machine" in cli.run("status", *words).stdout
    assert "holds a vault already" in cli.error(REFUSED, "vault", "create", *words)


# ---- setup and vault --------------------------------------------------------------------------------------


def test_a_dry_setup_changes_nothing_and_says_what_is_there(cli, site, tmp_path):
    words = ["setup", "--vault", f"dir:{tmp_path}/v", "--state-folder", tmp_path / "s", "--etc-folder", tmp_path / "e",
             "--identity", tmp_path / "i", "--dry-run"]
    would = cli.data("dry-run", *words)["would"]
    assert "make the vault" in would and "make the configuration server" in would
    assert list(tmp_path.iterdir()) == []
    words = ["setup", "--vault", site.vault_url, "--etc-folder", site.folder / "etc", "--dry-run"]
    assert "keep the vault" in cli.data("dry-run", *words)["would"]


def test_setup_in_json_prints_one_object_and_again_the_same(cli, tmp_path):
    words = ["setup", "--vault", f"dir:{tmp_path}/v", "--state-folder", tmp_path / "s", "--etc-folder", tmp_path / "e",
             "--identity", tmp_path / "i", "--port", 40443, "--process-port", 49443, "--address", "127.0.0.1"]
    first = cli.data("setup", *words)
    assert first["config"] == f"{tmp_path}/e/config.conf" and (tmp_path / "i/key.pem").stat().st_mode & 0o777 == 0o600
    before = tree(tmp_path / "e"), tree(tmp_path / "i"), (tmp_path / "s/config/ca/ca.pem").read_bytes()
    assert cli.data("setup", *words) == first
    assert (tree(tmp_path / "e"), tree(tmp_path / "i"), (tmp_path / "s/config/ca/ca.pem").read_bytes()) == before


def test_setup_without_a_vault_or_with_a_wrong_passphrase_says_what_to_do(cli, site, tmp_path):
    assert "--vault" in cli.error(USAGE, "setup")
    wrong = tmp_path / "wrong"
    wrong.write_text("not the right one at all\n")
    words = ["setup", "--vault", site.vault_url, "--passphrase-file", wrong, "--state-folder", tmp_path / "s", "--etc-folder",
             tmp_path / "e", "--identity", tmp_path / "i"]
    cli.error(REFUSED, *words)
    assert not (tmp_path / "e").exists()
    cli.error(ABSENT, *words, "--passphrase-file", tmp_path / "missing")


def test_a_vault_is_proven_whole_and_damage_is_degraded(cli, site, tmp_path):
    report = cli.data("verify", "vault", "verify", "--deep", alone=True)
    assert report["found"] == 0 and report["findings"] == [] and report["frames"] > 0 and report["newest_ns"] > 0
    copy = tmp_path / "vault"
    shutil.copytree(site.folder / "vault", copy)
    journal = max((p for p in copy.rglob("e/*/*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(journal.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    journal.write_bytes(damaged)
    p = cli.run("vault", "verify", "--deep", "--vault", f"dir:{copy}", "-o", "json", server=False)
    assert p.returncode == DEGRADED, p.stderr
    report = json.loads(p.stdout)["data"]
    assert report["found"] == len(report["findings"]) > 0 and journal.name in report["findings"][0]["object"]
    finding, machine = report["findings"][0], journal.relative_to(copy).parts[1]
    assert (finding["machine"], finding["machine_name"]) == (machine, "db1")
    said = cli.run("vault", "verify", "--deep", "--vault", f"dir:{copy}", server=False).stdout
    assert "NOT WHOLE" in said and f"machine db1 ({machine}), object m/{machine}/e/" in said


def test_a_receipt_tells_a_vault_that_was_rolled_back(cli, site, tmp_path):
    receipt, copy = tmp_path / "receipt", tmp_path / "vault"
    assert "Keep it where" in cli.alone("vault", "receipt", "--file", receipt).stdout
    assert receipt.stat().st_mode & 0o777 == 0o600
    p = cli.alone("vault", "verify", "--anchor", receipt)
    assert p.returncode == DONE and "at least as new as its anchor" in p.stdout
    assert "Freshness unproven" in cli.alone("vault", "verify").stdout
    shutil.copytree(site.folder / "vault", copy)
    newest = sorted(copy.glob("m/*/e/*/*"))[-1]
    for checkpoint in copy.glob("m/*/c/*"):
        checkpoint.unlink()
    newest.unlink()
    p = cli.run("vault", "verify", "--vault", f"dir:{copy}", "--anchor", receipt, server=False)
    assert p.returncode == DEGRADED and "rolled back, or its tail cut" in p.stdout
    machine = newest.parent.parent.parent.name
    p = cli.run("point", "export", machine, "0", tmp_path / "image", "--vault", f"dir:{copy}", "--anchor", receipt, server=False)
    assert p.returncode == REFUSED and "rolled back" in p.stderr
    receipt.write_text(receipt.read_text().replace('"seq":', '"seq": '))
    assert "not authentic" in cli.alone("vault", "verify", "--anchor", receipt).stderr


def test_a_point_is_proven_by_itself(cli, site):
    report = cli.data("verify-point", "vault", "verify", "--machine", "db1", "--point", "latest", "--deep", alone=True)
    assert report["proven"] and report["freshness"] == "unproven" and report["lost_bytes"] == 0 and report["data_bytes"] > 0


def test_a_vault_that_lost_an_object_is_repaired_and_damaged_points_are_offered_by_position_only(cli, site, tmp_path):
    copy = tmp_path / "vault"
    shutil.copytree(site.folder / "vault", copy)
    for checkpoint in copy.glob("m/*/c/*"):
        checkpoint.unlink()
    journal = sorted(copy.glob("m/*/e/*/*"))
    journal[-2].unlink()

    def run(*words):
        return cli.run(*words, "--vault", f"dir:{copy}", server=False)

    before = tree(copy)
    p = run("vault", "repair", "--dry-run")
    assert p.returncode == DEGRADED and "are lost" in p.stdout and "machine db1 (" in p.stdout and tree(copy) == before
    p = run("vault", "repair", "-o", "json")
    report = json.loads(p.stdout)["data"]
    assert p.returncode == DEGRADED and report["repaired"] == 1 and report["beyond"] == 0 and report["told"][0]["ranges"]
    assert (report["told"][0]["machine"], report["told"][0]["machine_name"]) == (journal[-1].relative_to(copy).parts[1], "db1")
    points = json.loads(run("point", "list", "db1", "-o", "json").stdout)["data"]["points"]
    assert [x["damaged"] for x in points].count(True) == 1 and points[-1]["damaged"]
    assert "(damaged" in run("point", "list", "db1").stdout
    position = f"{points[-1]['epoch']}:{points[-1]['seq']}"
    p = run("point", "export", "db1", "0", tmp_path / "newest", "-o", "json")
    assert p.returncode == DONE and json.loads(p.stdout)["data"]["seq"] == points[-2]["seq"]
    p = run("point", "export", "db1", "0", tmp_path / "damaged", "--point", position)
    assert p.returncode == FAILED and "was lost with object" in p.stderr and not (tmp_path / "damaged").exists()
    assert run("point", "export", "db1", "0", tmp_path / "damaged", "--point", position, "--lost", "zeroes").returncode == DONE
    assert run("vault", "verify", "--machine", "db1", "--point", position).returncode == DEGRADED
    assert run("vault", "verify", "--machine", "db1", "--point", "latest").returncode == DONE
    p = run("vault", "verify")
    assert p.returncode == DONE and "Proven, with the losses that repair recorded" in p.stdout
    once = tree(copy)
    run("vault", "repair")
    assert tree(copy) == once
    journal[0].unlink()
    p = run("vault", "verify", "-o", "json")
    verified = json.loads(p.stdout)["data"]
    assert p.returncode == DEGRADED and verified["found"] > 0 and verified["recorded"] > 0


def test_a_machine_s_key_is_changed_by_name_and_everything_still_verifies(cli, site, tmp_path):
    copy = tmp_path / "vault"
    shutil.copytree(site.folder / "vault", copy)
    words = ["--vault", f"dir:{copy}"]
    assert "say what to change" in cli.error(USAGE, "vault", "rotate", *words)
    before = tree(copy)
    cli.data("dry-run", "vault", "rotate", "--machine", "db1", *words, "--dry-run")
    assert tree(copy) == before
    assert [m["generation"] for m in cli.data("vault", "vault", "rotate", "--machine", "db1", *words)["machines"]] == [1]
    done = cli.data("vault", "vault", "rotate", "--all", *words)
    assert 2 in [m["generation"] for m in done["machines"]]
    assert cli.data("verify", "vault", "verify", "--machine", "db1", *words)["proven"]


def test_a_changed_passphrase_opens_the_vault_and_the_old_one_no_longer(cli, tmp_path):
    new = tmp_path / "new"
    new.write_text("another staple altogether\n")
    words = ["--vault", f"dir:{tmp_path}/v"]
    cli.data("vault", "vault", "create", *words)
    before = tree(tmp_path / "v")
    cli.data("dry-run", "vault", "passphrase", *words, "--new-passphrase-file", new, "--dry-run")
    assert tree(tmp_path / "v") == before
    assert cli.data("vault", "vault", "passphrase", *words, "--new-passphrase-file", new)["passphrase_changed"] is True
    assert "passphrase" in cli.error(REFUSED, "status", *words)
    cli.data("status", "status", *words, "--passphrase-file", new)


def test_a_changed_vault_key_opens_with_the_same_passphrase(cli, tmp_path):
    words = ["--vault", f"dir:{tmp_path}/v"]
    cli.data("vault", "vault", "create", *words)
    before = tree(tmp_path / "v")
    cli.data("dry-run", "vault", "rotate", "--vault-key", *words, "--dry-run")
    assert tree(tmp_path / "v") == before
    done = cli.data("vault", "vault", "rotate", "--vault-key", *words)
    assert done["resumed"] is False and done["keyless"] == 0 and done["old_wraps_left"] == 0
    assert json.loads((tmp_path / "v/vault.json").read_text())["version"] == 2
    cli.data("status", "status", *words)
    cli.data("verify", "vault", "verify", *words)


def test_a_passphrase_is_asked_for_without_being_shown(site):
    """On a terminal: the prompt is there, what is typed is not."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIFEBOAT_")}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(site.programs["lifeboat"], ["lifeboat", "status", "--vault", site.vault_url], env)
    shown = b""
    while b"passphrase: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"correct horse battery staple\n")
    try:
        while got := os.read(terminal, 1000):
            shown += got
    except OSError:  # the terminal's other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == DONE, shown
    os.close(terminal)
    assert b"staple" not in shown and b"db1" in shown


# ---- machines ---------------------------------------------------------------------------------------------


def test_machines_are_listed_by_the_server_and_by_the_vault(cli):
    assert [m["name"] for m in cli.data("machines", "machine", "list")["machines"]] == ["web1"]
    assert [m["name"] for m in cli.data("machines", "machine", "list", alone=True)["machines"]] == ["db1"]
    assert cli.run("machine", "list").stdout.splitlines()[0].split() == ["NAME", "ID", "STATE"]


def test_a_dry_run_of_each_order_on_a_machine_changes_nothing(cli):
    before = cli.data("machines", "machine", "list")["machines"][0]
    for verb in ("protect", "pause", "resync", "remove"):
        assert "web1" in cli.data("dry-run", "machine", verb, "web1", "--dry-run")["would"]
        assert cli.run("machine", verb, "web1", "--dry-run").stdout.startswith("would ")
        cli.error(ABSENT, "machine", verb, "web2", "--dry-run")
    after = cli.data("machines", "machine", "list")["machines"][0]
    assert [before[k] for k in ("id", "enabled", "policy", "resync_generation")] == \
        [after[k] for k in ("id", "enabled", "policy", "resync_generation")]


def test_a_machine_is_protected_compared_paused_and_removed_by_name(cli, site):
    enrol_machine(site, site.folder / "web3", "web3", hardware="ef" * 32)
    assert "protect" in cli.error(USAGE, "machine", "resync", "web3")
    cli.data("policy", "policy", "set", "gold", "--rpo-threshold", 17)
    machine = cli.data("machine", "machine", "protect", "web3", "--no-wait", "--policy", "gold", "--disks", "sda")
    assert (machine["name"], machine["enabled"], machine["policy"]) == ("web3", True, "gold")
    # what a later order doesn't name stays
    assert cli.data("machine", "machine", "protect", "web3", "--no-wait")["policy"] == "gold"
    assert "sda" in cli.error(ABSENT, "machine", "protect", "web3", "--no-wait", "--disks", "sdz")
    assert cli.data("machine", "machine", "resync", "web3", "--no-wait")["resync_generation"] == 1
    assert cli.data("machine", "machine", "pause", "web3")["enabled"] is False
    assert "--confirm web3" in cli.error(REFUSED, "machine", "remove", "web3")
    assert "nothing was done" in cli.error(REFUSED, "machine", "remove", "web3", "--confirm", "web1")
    assert cli.data("machine", "machine", "remove", "web3", "--confirm", "web3")["state"] == "removed"
    cli.error(ABSENT, "machine", "remove", "web3", "--confirm", "web3")


def test_a_live_machine_is_followed_until_it_is_protected_and_until_it_is_compared(cli, site, capture_possible, agent, folder):
    disk = LoopDisk(folder / "disk.img", 8)
    try:
        site.lifeboat("policy", "set", "quick", "--consistency-interval", 1, "--upload-interval", 1, "--heartbeat-interval", 1, "--ring", "16M")
        protected = cli.data("machine", "machine", "protect", "host", "--disks", disk.name, "--policy", "quick")
        assert (protected["state"], protected["recoverable"]) == ("protected", True)
        told = cli.run("status", "host").stdout
        assert "host: recoverable to 20" in told and "-> lifeboat drill start host" in told
        assert "web1" not in told
        epoch = protected["replication"]["epoch"]
        compared = cli.data("machine", "machine", "resync", "host")
        assert compared["state"] == "protected" and compared["replication"]["epoch"] > epoch
        assert cli.run("machine", "pause", "host").stdout.startswith("host is no longer replicated")
        assert "-> lifeboat machine protect host" in cli.run("status", "host").stdout
        cli.data("machine", "machine", "remove", "host", "--confirm", "host")
        # its points stay, and are found without any server
        assert cli.data("points", "point", "list", "host", alone=True)["points"]
    finally:
        agent.close()
        agent.agent = agent.capture = None
        disk.close()


def test_an_assessment_looks_and_installs_nothing(cli):
    p = cli.run("machine", "assess", "--seconds", 1, "-o", "json")
    assert p.returncode == DONE, p.stderr
    assert json.loads(p.stdout)["kind"] == "assessment"
    assert {"disks", "fit", "ring_bytes", "link_bits_per_s"} <= set(json.loads(p.stdout)["data"])
    assert "--seconds" in cli.error(USAGE, "machine", "assess", "--seconds", "soon")


# ---- points -----------------------------------------------------------------------------------------------


def test_points_are_the_same_from_server_and_vault_and_limits_hold(cli):
    by_server, by_vault = (cli.data("points", "point", "list", "db1", alone=a)["points"] for a in (False, True))
    assert by_server == by_vault and len(by_server) == POINTS
    assert set(by_server[0]) == {"epoch", "seq", "time_ns", "until_ns", "kinds", "name", "held", "damaged"}
    for alone in (False, True):
        assert cli.data("points", "point", "list", "db1", "--limit", 2, alone=alone)["points"] == by_server[-2:]
        assert cli.data("points", "point", "list", "db1", "--limit", 0, alone=alone)["points"] == by_server
        assert cli.data("points", "point", "list", "db1", "--to", "2000-01-01T00:00:00Z", alone=alone)["points"] == []
    cli.error(USAGE, "point", "list", "db1", "--from", "yesterday")
    cli.error(ABSENT, "point", "list", "web2")
    cli.error(ABSENT, "point", "list", "web2", alone=True)


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_long_list_of_points_is_fetched_page_by_page(cli, page):
    """None is missing, none is there twice, all are in order, however the pages fall."""
    whole = cli.data("points", "point", "list", "db1", "--limit", 0)["points"]
    assert cli.data("points", "point", "list", "db1", "--limit", 0, "--page", page)["points"] == whole
    assert cli.data("points", "point", "list", "db1", "--limit", 3, "--page", page)["points"] == whole[-3:]
    cli.error(USAGE, "point", "list", "db1", "--page", 0)


@pytest.mark.parametrize("alone", [False, True])
def test_a_point_is_pinned_and_let_go(cli, alone):
    name = "kept-alone" if alone else "kept"
    first = cli.data("points", "point", "list", "db1")["points"][0]
    position = f"{first['epoch']}:{first['seq']}"
    cli.data("dry-run", "point", "pin", "db1", name, "--point", position, "--dry-run", alone=alone)
    assert name not in [p["name"] for p in cli.data("points", "point", "list", "db1")["points"]]
    pinned = cli.data("point", "point", "pin", "db1", name, "--point", position, alone=alone)
    assert (pinned["epoch"], pinned["seq"], pinned["name"]) == (first["epoch"], first["seq"], name)
    assert name in [p["name"] for p in cli.data("points", "point", "list", "db1", alone=alone)["points"]]
    assert name in cli.run("point", "list", "db1").stdout
    cli.error(REFUSED, "point", "unpin", "db1", name, alone=alone)
    assert cli.data("point", "point", "unpin", "db1", name, "--confirm", name, alone=alone)["pinned"] is False
    assert name not in [p["name"] for p in cli.data("points", "point", "list", "db1")["points"]]
    cli.error(ABSENT, "point", "pin", "db1", name, "--point", "99:99", alone=alone)


def test_what_a_vault_costs_is_told_by_kind_and_with_prices_in_money(cli, site, tmp_path):
    told = cli.data("cost", "vault", "cost", alone=True)
    kinds, held = told["held"]["kinds"], told["held"]
    assert told["money"] is None and told["machines"] >= 1  # other tests made machines, too
    assert held["objects"] == sum(k["objects"] for k in kinds.values()) and held["bytes"] == sum(k["bytes"] for k in kinds.values())
    vault = pathlib.Path(site.vault_url.removeprefix("dir:"))
    journal = [p for p in vault.glob("m/*/e/*/*") if p.is_file()]
    assert kinds["journal"] == {"objects": len(journal), "bytes": sum(p.stat().st_size for p in journal)}
    assert told["month"]["journal_puts"] > 0 and told["month"]["written_bytes"] > 0

    prices = {"currency": "EUR", "per_gb_month": 1000, "per_10000_puts": 2, "per_10000_gets": 3, "per_10000_lists": 4, "per_gb_read": 0,
              "minimum_days": 30}
    file = tmp_path / "prices.json"

    def write(**changes):
        file.write_text(json.dumps({**prices, **changes}))
    write()
    priced = cli.data("cost", "vault", "cost", "--prices", file, alone=True)
    money, month = priced["money"], priced["month"]
    puts = month["journal_puts"] + month["heartbeat_puts"] + month["fold_puts"]
    for line, wanted in {"storage": priced["held"]["bytes"] / 1e6, "puts": puts / 5000, "gets": month["gets"] * 3e-4,
                         "lists": month["lists"] * 4e-4, "read_once": 0}.items():
        assert money[line] == pytest.approx(wanted), line
    assert money["total"] == pytest.approx(sum(money[line] for line in ("storage", "puts", "gets", "lists")))
    # at most all of it would be charged for all of the 30 days; a vault of one machine, made just now, is
    most = priced["held"]["kinds"]["journal"]["bytes"] / 1e6
    assert 0 < money["early_deletion"] <= 1.01 * most
    if priced["machines"] == 1:
        assert money["early_deletion"] == pytest.approx(most, rel=0.01)
    text = cli.alone("vault", "cost", "--prices", file).stdout
    assert "EUR" in text and f"{money['total']:.2f}" in text and "EUR" not in cli.alone("vault", "cost").stdout

    for change, word in (({"per_gb_year": 1}, "per_gb_year"), ({"per_gb_month": -1}, "negative"), ({"per_gb_read": "1"}, "not a number")):
        write(**change)
        message = cli.error(USAGE, "vault", "cost", "--prices", file, alone=True)
        assert word in message and str(file) in message
    cli.error(ABSENT, "vault", "cost", "--prices", tmp_path / "none", alone=True)


def test_a_held_point_is_listed_as_held_and_outlives_unpinning_and_folding(cli, site, tmp_path):
    words = ("--vault", f"dir:{tmp_path}/vault")
    oracle = tmp_path / "oracle"
    oracle.mkdir()
    subprocess.run([site.programs["lifeboat"].parents[2] / "tests/tools/mkvault", words[0], words[1], "--passphrase-file", site.passphrase_file,
                    "--machine", "db2", "--points", "6", "--oracle", oracle, f"--disk=vda={site.folder / 'vda.img'}"],
                   check=True, capture_output=True)

    def data(kind, *command):
        return cli.data(kind, *command, *words)

    def points():
        return {f"{p['epoch']}:{p['seq']}": p for p in data("points", "point", "list", "db2")["points"]}

    position, newest = list(points())[1], list(points())[-1]
    assert not any(p["held"] for p in points().values())
    data("point", "point", "pin", "db2", "before", "--point", position)
    data("dry-run", "point", "hold", "db2", "case-7", "--point", position, "--dry-run")
    assert (points()[position]["name"], points()[position]["held"]) == ("before", False)
    held = data("point", "point", "hold", "db2", "case-7", "--point", position)
    assert (f"{held['epoch']}:{held['seq']}", held["held"]) == (position, True)
    assert (points()[position]["name"], points()[position]["held"]) == ("case-7", True)
    assert [p for p, point in points().items() if point["held"]] == [position]
    assert "case-7 (held)" in cli.run("point", "list", "db2", *words).stdout

    data("point", "point", "unpin", "db2", "before", "--confirm", "before")
    assert cli.run("point", "unpin", "db2", "case-7", "--confirm", "case-7", *words).returncode == ABSENT
    assert points()[position]["held"]

    # a ladder that lets go of all but the newest: ages count from that one, and points are seconds apart
    fold = ("vault", "fold", "--machine", "db2", "--retention", "all:1s", "--delete-delay", 0)
    would, = data("fold", *fold, "--dry-run")["machines"]
    assert would["points_pruned"] > 0 and would["points"] + would["points_pruned"] == len(points()) == 6
    did, = data("fold", *fold)["machines"]
    assert did["points"] == would["points"] == 2 and did["points_pruned"] > 0 and did["objects_folded"] > 0
    assert list(points()) == [position, newest] and points()[position]["held"]
    data("export", "point", "export", "db2", "vda", tmp_path / "held.raw", "--point", "case-7")
    assert (tmp_path / "held.raw").read_bytes() == (oracle / "1-vda.raw").read_bytes()

    assert cli.run("point", "release", "db2", "case-7", *words).returncode == REFUSED
    assert data("point", "point", "release", "db2", "case-7", "--confirm", "case-7")["held"] is False
    assert not any(p["held"] for p in points().values())
    data("fold", *fold)
    assert list(points()) == [newest]


def test_an_export_is_the_disk_at_the_point_in_either_format(cli, site, tmp_path):
    last = cli.data("points", "point", "list", "db1")["points"][-1]
    oracle = (site.folder / f"oracle/{POINTS - 1}-vda.raw").read_bytes()
    raw, qcow2, again = tmp_path / "a.raw", tmp_path / "a.qcow2", tmp_path / "b.raw"
    cli.data("dry-run", "point", "export", "db1", "vda", raw, "--dry-run", alone=True)
    assert not raw.exists()
    told = cli.data("export", "point", "export", "db1", "vda", raw, alone=True)
    assert (told["machine"], told["disk"], told["epoch"], told["seq"]) == ("db1", "vda", last["epoch"], last["seq"])
    assert raw.read_bytes() == oracle
    cli.data("export", "point", "export", "db1", "0", qcow2, "--format", "qcow2", alone=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", qcow2, again], check=True)
    assert again.read_bytes() == oracle
    assert "is there already" in cli.error(REFUSED, "point", "export", "db1", "vda", raw, alone=True)
    assert "vda" in cli.error(ABSENT, "point", "export", "db1", "vdz", tmp_path / "z", alone=True)
    cli.error(USAGE, "point", "export", "db1", "vda", tmp_path / "z", "--format", "vmdk", alone=True)
    assert "--vault" in cli.error(USAGE, "point", "export", "db1", "vda", tmp_path / "z")
    # a server in the environment doesn't hide the vault that is there, too
    p = subprocess.run([site.programs["lifeboat"], "point", "export", "db1", "vda", tmp_path / "c.raw"], capture_output=True, text=True,
                       env={**os.environ, **site.environment(), "LIFEBOAT_VAULT": site.vault_url})
    assert p.returncode == DONE and (tmp_path / "c.raw").read_bytes() == oracle, p.stderr


# ---- failover ---------------------------------------------------------------------------------------------


def test_a_double_is_made_moved_to_another_point_and_removed_through_the_server(cli):
    assert cli.data("failovers", "failover", "list")["failovers"] == []
    cli.data("dry-run", "failover", "test", "db1", "--dry-run")
    assert cli.data("failovers", "failover", "list")["failovers"] == []
    cli.error(ABSENT, "failover", "test", "web9", "--dry-run")
    assert "--vault" in cli.error(USAGE, "failover", "test", "db1", "--folder", "/tmp/x")
    p = cli.run("failover", "test", "db1", "--memory", "64M")
    assert p.returncode == DONE and "newest recovery point holds everything up to 20" in p.stdout, p.stderr
    double, = cli.data("failovers", "failover", "list")["failovers"]
    assert (double["name"], double["kind"], double["state"]) == ("db1-test", "test", "running")
    again = cli.run("failover", "test", "db1")
    assert again.returncode == REFUSED and "`lifeboat failover cleanup db1-test`" in again.stderr
    first = cli.data("points", "point", "list", "db1")["points"][0]
    words = ["failover", "repoint", "db1-test", "--point", f"{first['epoch']}:{first['seq']}"]
    cli.error(REFUSED, *words)
    assert cli.data("job", *words, "--confirm", "db1-test")["state"] == "done"
    assert cli.data("failovers", "failover", "list")["failovers"][0]["seq"] == first["seq"]
    cli.error(REFUSED, "failover", "cleanup", "db1-test")
    cli.data("dry-run", "failover", "cleanup", "db1-test", "--dry-run")
    job = cli.data("job", "failover", "cleanup", "db1-test", "--confirm", "db1-test", "--no-wait")
    assert cli.data("job", "job", "watch", job["id"])["state"] == "done"
    assert cli.data("failovers", "failover", "list")["failovers"] == []
    assert [j["kind"] for j in cli.data("jobs", "job", "list")["jobs"]][:3] == ["cleanup", "repoint", "failover"]
    assert job["id"] in cli.run("job", "list").stdout
    for verb in ("cleanup", "repoint", "commit"):
        cli.error(ABSENT, "failover", verb, "db1-test", "--confirm", "db1-test")


def test_a_live_double_is_committed_and_removed_with_the_vault_alone(cli, site):
    folder = site.folder / "vm"
    words = ["failover", "start", "db1", "--folder", folder, "--memory", "64M", "--fabric", "qemu"]
    assert "--confirm db1" in cli.error(REFUSED, *words, alone=True)
    would = cli.data("dry-run", *words, "--dry-run", alone=True)["would"]
    assert "db1" in would and not folder.exists()
    # a copy of the vault: a live failover ends its machine's journal
    copy = site.folder / "vault-copy"
    shutil.copytree(site.folder / "vault", copy)
    direct = ["--vault", f"dir:{copy}", "--folder", folder]
    p = cli.run("failover", "start", "db1", *direct, "--memory", "64M", "--fabric", "qemu", "--confirm", "db1", "-o", "json", server=False)
    assert p.returncode == DONE, p.stderr
    started = json.loads(p.stdout)
    double, = cli.data("failovers", "failover", "list", *direct)["failovers"]
    assert started["kind"] == "failover" and set(started["data"]) == set(double)
    assert (double["name"], double["kind"], double["state"]) == ("db1-double", "live", "running")
    assert cli.data("failover", "failover", "commit", "db1-double", *direct)["committed"] is True
    assert "--live" in cli.error(REFUSED, "failover", "cleanup", "db1-double", *direct, "--confirm", "db1-double")
    gone = cli.data("failover", "failover", "cleanup", "db1-double", *direct, "--live", "--confirm", "db1-double")
    assert gone["state"] == "gone"
    assert cli.data("failovers", "failover", "list", *direct)["failovers"] == []


def test_a_job_that_fails_says_why_and_an_absent_one_is_absent(cli, tmp_path):
    nobody = "00000000-0000-0000-0000-000000000000"
    assert "lifeboat job list" in cli.error(ABSENT, "job", "watch", nobody)
    cli.error(ABSENT, "job", "cancel", nobody)
    cli.error(ABSENT, "job", "cancel", nobody, "--dry-run")
    (tmp_path / "key").write_text("no key, and nobody to show it to\n")
    p = cli.run("machine", "install", "127.0.0.1", "--port", "1", "--key-file", tmp_path / "key")
    assert p.returncode == FAILED and "no SSH connection" in p.stderr, p
    assert cli.data("jobs", "job", "list")["jobs"][0]["state"] == "failed"


def test_a_point_that_is_not_there_is_refused_before_anything_is_begun(cli):
    before = cli.data("jobs", "job", "list")["jobs"]
    p = cli.run("failover", "test", "db1", "--point", "99:99")
    assert p.returncode == ABSENT and "99:99" in p.stderr
    assert cli.run("failover", "test", "db1", "--point", "99:99", "-o", "json").returncode == ABSENT
    assert cli.data("jobs", "job", "list")["jobs"] == before
    assert not cli.data("failovers", "failover", "list")["failovers"]


# ---- policies, servers, tokens ----------------------------------------------------------------------------


def test_a_policy_changes_only_in_what_is_named(cli):
    before = {p["name"]: p for p in cli.data("policies", "policy", "list")["policies"]}
    cli.data("dry-run", "policy", "set", "silver", "--compression", 3, "--dry-run")
    assert "silver" not in {p["name"] for p in cli.data("policies", "policy", "list")["policies"]}
    made = cli.data("policy", "policy", "set", "silver", "--compression", 3, "--ring", "32M")
    assert made == {**before["default"], "name": "silver", "failback_policy": "silver-failback", "zstd_level": 3, "ring_bytes": 32 * MIB}
    assert cli.data("policy", "policy", "set", "silver", "--rpo-threshold", 90) == {**made, "rpo_threshold_s": 90, "version": made["version"] + 1}
    cli.error(USAGE, "policy", "set", "silver")
    cli.error(USAGE, "policy", "set", "silver", "--compression", 17)
    cli.error(USAGE, "policy", "set", "silver", "--ring", "33M")
    assert "silver: " in cli.run("policy", "list").stdout


def test_a_user_enrols_by_token_and_may_what_the_role_allows(cli, site, tmp_path):
    cli.data("dry-run", "token", "create", "--dry-run")
    token = cli.data("token", "token", "create", "--kind", "user", "--role", "reader", "--name", "rita", "--file", tmp_path / "token")
    assert token["token"] is None and (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    use = ["token", "use", "rita", "--ca-fingerprint", token["ca_fingerprint"], "--token-file", tmp_path / "token", "--identity",
           tmp_path / "rita"]
    assert cli.data("dry-run", *use, "--dry-run")["would"] and not (tmp_path / "rita").exists()
    assert "rita" == cli.data("identity", *use)["name"]
    assert (tmp_path / "rita/key.pem").stat().st_mode & 0o777 == 0o600
    cli.data("status", "status", "--identity", tmp_path / "rita", status=DEGRADED)
    assert "reader" in cli.error(REFUSED, "policy", "set", "default", "--compression", 2, "--identity", tmp_path / "rita")
    again = ["token", "use", "rita", "--ca-fingerprint", "00" * 32, "--token-file", tmp_path / "token", "--identity", tmp_path / "x"]
    cli.error(REFUSED, *again)
    assert not (tmp_path / "x/cert.pem").exists()
    cli.error(USAGE, "token", "create", "--kind", "pirate")


def test_another_process_server_joins_by_the_token_of_server_add(cli, tmp_path):
    token = cli.data("token", "server", "add", "ps2", "--file", tmp_path / "token")
    use = ["token", "use", "ps2", "--kind", "process", "--ca-fingerprint", token["ca_fingerprint"], "--token-file", tmp_path / "token",
           "--identity", tmp_path / "ps2"]
    assert "--public-host" in cli.error(USAGE, *use)
    identity = cli.data("identity", *use, "--public-host", "127.0.0.2")
    servers = {s["name"]: s for s in cli.data("servers", "server", "list")["servers"]}
    assert servers["ps2"]["id"] == identity["id"]
    assert "ps2" in cli.run("server", "list").stdout


def test_the_text_of_a_token_says_what_to_type_where_it_is_used(cli):
    p = cli.run("token", "create")
    assert p.returncode == DONE and "lifeboat-mobility enrol --config-url https://" in p.stdout
    assert "lifeboat token use ps3 --kind process" in cli.run("server", "add", "ps3").stdout


# ---- errors -----------------------------------------------------------------------------------------------


def test_misuse_is_told_as_usage_and_an_unreachable_server_as_try_again(cli, tmp_path):
    for words in (["sever", "list"], ["vault"], ["vault", "crate"], ["status", "--sideways"], ["status", "a", "b"],
                  ["machine", "remove", "../x"], ["point", "pin", "db1"]):
        cli.error(USAGE, *words)
    message = cli.error(RETRY, "status", "--server", "https://127.0.0.1:1")
    assert "127.0.0.1:1" in message
    cli.error(ABSENT, "machine", "list", "--vault", f"dir:{tmp_path}/nothing")
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIFEBOAT_")}
    p = subprocess.run([cli.site.programs["lifeboat"], "status"], env=env, capture_output=True, text=True)
    assert p.returncode == USAGE and "LIFEBOAT_CONFIG_URL" in p.stderr and "--vault" in p.stderr


def test_an_answer_that_can_not_be_written_is_a_failure(cli, site):
    with open("/dev/full", "w") as full:
        p = subprocess.run([site.programs["lifeboat"], "policy", "list"], env={**os.environ, **site.environment()}, stdout=full,
                           stderr=subprocess.PIPE, text=True)
    assert p.returncode == FAILED and "written" in p.stderr
