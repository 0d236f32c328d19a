# SPDX-License-Identifier: Apache-2.0
"""Master target servers: they join by a token, are ordered about by jobs, and bring real disks to recovery points."""
import json
import os
import pathlib
import random
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request

import pytest

from process_site import fingerprint
from target_server import GrowingVault, Relay, TargetServer, VaultSite
from test_recovery import BUILD, MIB, Vault, raw_images  # noqa: F401
from test_target import digest

LONG_S = 300


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault")
    return Vault(folder, raw_images(folder), 8)


@pytest.fixture(scope="module")
def site(vault):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lbts."))
    site = VaultSite(BUILD, folder / "site", vault)
    try:
        site.make().start()
        yield site
    finally:
        site.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def servers(site, tmp_path):
    """Makes target servers of names that no other test has."""
    made = []

    def make(name="t", start=True, server=None, **settings):
        target = TargetServer(site, BUILD, tmp_path / name, f"{tmp_path.name[:40]}-{name}").join(server, **settings)
        made.append(target)
        return target.start() if start else target

    yield make
    for target in made:
        target.close()


class Disks:
    def __init__(self, vault, folder, kind="raw"):
        self.vault, self.folder = vault, folder
        self.paths = {name: folder / f"{name}.{kind}" for name in vault.names}

    @property
    def to(self):
        return ",".join(f"{name}={path}" for name, path in self.paths.items())

    def differ_from(self, n):
        for disk, name in enumerate(self.vault.names):
            oracle = self.vault.at(n, disk)
            if not self.paths[name].exists() or digest(self.paths[name], oracle.stat().st_size) != digest(oracle):
                return f"{name} is not at point {n}"
        return None

    def are_at(self, n):
        assert not self.differ_from(n)


@pytest.fixture
def disks(vault, tmp_path):
    return Disks(vault, tmp_path)


@pytest.fixture
def growing(vault, tmp_path):
    """Another machine in the same vault, which gets points when it is told to."""
    grown = GrowingVault(tmp_path, raw_images(tmp_path), 8, vault, f"m{os.getpid()}-{random.getrandbits(32):x}")
    yield grown
    grown.close()


def is_at(target, grown, n):
    return any(f"{o['report'].get('epoch')}:{o['report'].get('seq')}" == grown.points[n] for o in target.orders("follow"))


def job_of(site, run):
    return json.loads(run.stdout)["data"]["job"]


def ended(site, job):
    one = next(j for j in site.ask("job", "list")["jobs"] if j["id"] == job)
    return one if one["state"] in ("done", "failed", "cancelled") else None


def test_a_target_server_joins_by_one_command_and_finishes_onto_its_disks(site, servers, disks):
    target = servers()
    result = target.order("restore", "db1", "--to", disks.to, "--point", disks.vault.points[3])
    disks.are_at(3)
    assert result["state"] == "done" and f"{result['epoch']}:{result['seq']}" == disks.vault.points[3]
    assert result["written_bytes"] > 0 and result["fetched_bytes"] > 0
    assert not list(target.state.glob("machines/*/target.json"))
    site.wait(lambda: target.health() == "ok", "word of the target server", LONG_S)


def test_a_host_that_lost_all_it_knew_takes_its_name_and_orders_over_by_a_token_that_may(site, servers, disks, tmp_path):
    lost = servers("lost", start=False)
    words = ["failback", "restore", "db1", "--target", lost.name, "--to", disks.to, "--point", disks.vault.points[3], "--confirm", "db1", "--no-wait"]
    job = site.ask(*words)["job"]
    again = TargetServer(site, BUILD, tmp_path / "again", lost.name)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        again.join()
    assert "already: choose another name, or take a token that may replace it" in refused.value.stderr
    (again.folder / "token").unlink()
    process = site.lifeboat("server", "add", lost.name, "--replace", check=False)
    assert process.returncode != 0 and "--replace is for target servers" in process.stderr
    again.join(replace=True).start()
    try:
        site.wait(lambda: ended(site, job), "the order's end", LONG_S)
        assert ended(site, job)["state"] == "done"
        disks.are_at(3)
        lost.start()                                    # what it was before is not wanted any more
        site.wait(lambda: "does not accept this target server's certificate" in lost.log(), "its refusal", LONG_S)
    finally:
        again.close()


def test_two_target_servers_follow_one_machine_go_back_and_finish_where_they_are_told(site, servers, growing, tmp_path):
    targets = [servers("one"), servers("two")]
    kinds = ["raw", "qcow2"] if shutil.which("qemu-nbd") else ["raw", "raw"]
    disks = [Disks(growing, t.folder, kind) for t, kind in zip(targets, kinds)]
    for t, d in zip(targets, disks):
        assert t.order("restore", growing.machine_name, "--to", d.to, "--follow")["state"] == "reached"
    for _ in range(2):
        n = growing.grow()
        for t in targets:
            site.wait(lambda t=t, n=n: is_at(t, growing, n), f"point {n} at {t.name}", LONG_S)
    refused = site.lifeboat("server", "remove", targets[0].name, "--confirm", targets[0].name, check=False)
    assert refused.returncode != 0 and "orders" in refused.stderr
    back = targets[0].order("back", growing.machine_name, "--points", 2)
    assert f"{back['epoch']}:{back['seq']}" == growing.points[0]
    disks[0].are_at(0)
    targets[1].order("finish", growing.machine_name, "--point", growing.points[1])
    if kinds[1] == "raw":
        disks[1].are_at(1)
    else:
        for disk, name in enumerate(growing.names):
            subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", disks[1].paths[name], growing.at(1, disk)], check=True,
                           capture_output=True)
    targets[0].order("drop", growing.machine_name)
    assert not list(targets[0].state.glob("machines/*/target.json"))
    site.lifeboat("server", "remove", targets[0].name, "--confirm", targets[0].name)
    assert targets[0].name not in [s["name"] for s in site.ask("server", "list")["servers"]]


def test_a_check_finds_all_that_is_in_the_way_and_writes_nothing(servers, disks, tmp_path):
    target = servers(allow=f"{tmp_path}/*")
    run = target.order("restore", "db1", "--to", disks.to, "--dry-run", check=False)
    assert run.returncode == 0 and "it is read at" in run.stdout and "will be made" in run.stdout and "points of its own" in run.stdout
    assert not any(p.exists() for p in disks.paths.values())
    disks.paths["vda"].write_bytes(bytes(8 * MIB))
    run = target.order("restore", "db1", "--to", f"vda={disks.paths['vda']},vdb=/dev/none-such", "--dry-run", check=False)
    assert run.returncode != 0
    findings = target.orders("check")[0]["report"]["findings"]
    wrong = [f["text"] for f in findings if f["level"] == "error"]
    assert any("allow" in t for t in wrong), findings
    run = target.order("restore", "db1", "--to", disks.to, "--dry-run", check=False)
    assert run.returncode != 0 and "too small" in run.stderr, run.stderr
    disks.paths["vda"].write_bytes(b"precious" * (3 * MIB))
    disks.paths["vdb"].write_bytes(bytes(5 * MIB))
    for words, said in ((["--to", disks.to], "holds something"), (["--to", f"vda={disks.paths['vda']}"], "goes nowhere"),
                        (["--to", f"vdz={disks.paths['vda']},vdb={disks.paths['vdb']}"], "vdz"),
                        (["--to", f"vda=/etc/none,vdb={disks.paths['vdb']}"], "allow")):
        run = target.order("restore", "db1", *words, "--dry-run", check=False)
        assert run.returncode != 0 and said in run.stderr, run.stderr
    run = target.order("restore", "db1", "--to", disks.to, check=False)
    assert run.returncode != 0 and "holds something" in run.stderr
    assert disks.paths["vda"].read_bytes() == b"precious" * (3 * MIB)
    assert target.order("restore", "db1", "--to", disks.to, "--overwrite")["state"] == "done"
    disks.are_at(7)


def test_a_mounted_disk_is_refused_and_taken_when_it_is_free(site, servers, vault, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices")
    backing, where = tmp_path / "disk", tmp_path / "mounted"
    backing.write_bytes(bytes(24 * MIB))
    where.mkdir()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", backing], check=True)
    loop = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True)
    if loop.returncode != 0:
        pytest.skip(f"no loop device: {loop.stderr}")
    # in a namespace of its own: one that is made meanwhile would take a copy of the mount, and hold the disk
    device, target = loop.stdout.strip(), servers(start=False)
    with open(target.folder / "target.log", "ab") as log:
        target.process = subprocess.Popen(["unshare", "-m", "sh", "-c", 'echo; exec "$@"', "sh", target.program, "--config", target.conf],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    site.wait((target.folder / "target.log").read_text, "the target server's namespace", LONG_S)
    inside = ["nsenter", "-t", str(target.process.pid), "-m"]
    to = ["--to", f"vda={device}", "--some", "--overwrite"]
    try:
        subprocess.run([*inside, "mount", device, where], check=True)
        run = target.order("restore", "db1", *to, "--dry-run", check=False)
        assert run.returncode != 0 and device in run.stderr and str(where) in run.stderr
        subprocess.run([*inside, "umount", where], check=True)
        assert target.order("restore", "db1", *to)["state"] == "done"
        assert digest(device) == digest(vault.at(7, 0))
    finally:
        target.close()
        subprocess.run(["losetup", "-d", device], check=False)


def test_one_disk_is_one_machine_s_and_unknown_things_are_refused_by_name(site, servers, growing, disks, tmp_path):
    target = servers()
    mine = Disks(growing, tmp_path / "t")
    assert target.order("restore", growing.machine_name, "--to", mine.to, "--follow")["state"] == "reached"
    run = target.order("restore", "db1", "--to", f"vda={mine.paths['vda']},vdb={disks.paths['vdb']}", check=False)
    assert run.returncode != 0 and str(mine.paths["vda"]) in run.stderr, run.stderr
    run = target.order("boot", growing.machine_name, "--hook", "x", check=False)
    assert run.returncode != 0 and "being written" in run.stderr
    run = target.order("restore", "db9", "--to", disks.to, check=False)
    assert run.returncode != 0 and "db9" in run.stderr
    run = target.order("finish", "db1", check=False)
    assert run.returncode != 0 and "where to" in run.stderr
    run = site.lifeboat("failback", "finish", "db1", "--target", "nobody", check=False)
    assert run.returncode == 4 and "nobody" in run.stderr
    # a link to the same disk is caught by its holder
    os.symlink(mine.paths["vda"], tmp_path / "alias.raw")
    run = target.order("restore", "db1", "--to", f"vda={tmp_path}/alias.raw,vdb={disks.paths['vdb']}", "--dry-run", check=False)
    assert run.returncode != 0 and "in use" in run.stderr


def test_a_full_disk_fails_the_order_in_words_and_with_room_it_goes_through(site, servers, vault, tmp_path):
    target = servers(start=False)
    small = tmp_path / "small"
    small.mkdir()
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no file system of its own can be mounted here")
    with open(target.folder / "target.log", "ab") as log:
        target.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o size=9m small {small}; head -c 4M /dev/urandom >{small}/fill; exec \"$@\"", "sh",
             target.program, "--config", target.conf], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    to = f"vda={small}/vda.raw,vdb={small}/vdb.raw"
    run = target.order("restore", "db1", "--to", to, check=False)
    assert run.returncode != 0 and "free" in run.stderr, run.stderr
    subprocess.run(["nsenter", "-t", str(target.process.pid), "-m", "sh", "-c", f"rm {small}/fill; mount -o remount,size=64m {small}"], check=True)
    assert target.order("restore", "db1", "--to", to)["state"] == "done"
    for disk, name in enumerate(vault.names):
        there = subprocess.run(["nsenter", "-t", str(target.process.pid), "-m", "sha256sum", f"{small}/{name}.raw"], check=True,
                               capture_output=True, text=True).stdout.split()[0]
        assert there == digest(vault.at(7, disk))


def test_killed_in_the_middle_of_each_order_it_goes_on_and_ends_as_if_nothing_had_happened(site, servers, growing, tmp_path):
    target = servers()
    disks = Disks(growing, tmp_path / "t")
    seed = random.Random(7)

    def order_and_kill(*words):
        confirm = ["--confirm", growing.machine_name] if words[0] in ("restore", "back", "drop") else []
        job = job_of(site, site.lifeboat("failback", words[0], growing.machine_name, "--target", target.name, *confirm, *words[1:], "--no-wait",
                                         "-o", "json"))
        for _ in range(3):
            time.sleep(seed.random())  # where it is hit does not matter: anywhere must do
            target.kill()
            target.start()
        site.wait(lambda: ended(site, job), f"end of {words[0]}", LONG_S)
        done = ended(site, job)
        assert done["state"] == "done", done

    order_and_kill("restore", "--to", disks.to, "--dry-run")
    order_and_kill("restore", "--to", disks.to, "--follow")
    for _ in range(2):
        n = growing.grow()
        target.kill()
        target.start()
        site.wait(lambda n=n: is_at(target, growing, n), f"point {n}", LONG_S)
    order_and_kill("back", "--points", "2")
    disks.are_at(0)
    order_and_kill("finish", "--point", growing.points[2])
    disks.are_at(2)
    order_and_kill("restore", "--to", disks.to, "--follow")
    order_and_kill("drop")
    assert not list(target.state.glob("machines/*/target.json"))


def test_a_cut_link_to_the_configuration_server_is_waited_for_and_following_goes_on_meanwhile(site, servers, growing, tmp_path):
    link = Relay(site.port)
    target = servers(server=f"https://127.0.0.1:{link.port}")
    disks = Disks(growing, tmp_path / "t")
    target.order("restore", growing.machine_name, "--to", disks.to, "--follow")
    link.cut()
    n = growing.grow()
    site.wait(lambda: not disks.differ_from(n), f"point {n} on the disks while the link is cut", LONG_S)
    job = job_of(site, site.lifeboat("failback", "finish", growing.machine_name, "--target", target.name, "--no-wait", "-o", "json"))
    site.wait(lambda: target.health() == "critical", "word that the target server is away", LONG_S)
    assert not ended(site, job)
    link.mend()
    site.wait(lambda: ended(site, job), "end of the order", LONG_S)
    assert ended(site, job)["state"] == "done"
    disks.are_at(n)
    link.cut()


def test_a_revoked_target_server_stops_and_forgets(site, servers, growing, tmp_path):
    target = servers()
    disks = Disks(growing, tmp_path / "t")
    target.order("restore", growing.machine_name, "--to", disks.to, "--follow")
    revoke(site, fingerprint(target.folder / "identity"))
    site.wait(lambda: "all keys are forgotten" in target.log(), "end of its work", LONG_S)
    growing.grow()
    site.wait(lambda: target.health() == "critical", "word that it is away", LONG_S)
    disks.are_at(0)
    assert target.process.poll() is None


def revoke(site, fingerprint):
    context = ssl.create_default_context(cafile=site.identity / "ca.pem")
    context.load_cert_chain(site.identity / "cert.pem", site.identity / "key.pem")
    request = urllib.request.Request(f"{site.config_url}/v1/certificate/{fingerprint}/revoke", data=b"{}", method="POST",
                                     headers={"Content-Type": "application/json"})
    urllib.request.urlopen(request, context=context, timeout=60).read()


def test_the_original_is_started_by_the_administrator_s_script_once_nothing_is_written_any_more(servers, disks, tmp_path):
    hooks = tmp_path / "hooks"
    hooks.mkdir(mode=0o700)
    (hooks / "power-on").write_text(f"#!/bin/sh\necho \"$LIFEBOAT_MACHINE $LIFEBOAT_EVENT\" >>{tmp_path}/said\necho power is on\n")
    (hooks / "power-on").chmod(0o700)
    (hooks / "broken").write_text("#!/bin/sh\necho the fuse is gone\nexit 1\n")
    (hooks / "broken").chmod(0o700)
    target = servers(hook_folder=hooks)
    target.order("restore", "db1", "--to", disks.to)
    assert "power is on" in target.order("boot", "db1", "--hook", "power-on")["text"]
    assert (tmp_path / "said").read_text().split()[-1] == "boot"
    run = target.order("boot", "db1", "--hook", "broken", check=False)
    assert run.returncode != 0 and "the fuse is gone" in run.stderr
    run = target.order("boot", "db1", "--hook", "none-such", check=False)
    assert run.returncode != 0 and "none-such" in run.stderr
    run = target.order("boot", "db1", check=False)
    assert run.returncode != 0 and "domain or a hook" in run.stderr


def test_a_libvirt_domain_is_started_by_its_name_and_one_that_is_not_there_is_refused(servers):
    """By libvirt's own test driver, which has one domain, "test", on every connection."""
    target = servers()
    run = target.order("boot", "db1", "--domain", "test", "--uri", "test:///default", check=False)
    if "built without libvirt" in run.stderr:
        assert run.returncode != 0 and "by a hook" in run.stderr
        return
    assert run.returncode == 0 and "domain test runs" in run.stdout, run.stderr
    run = target.order("boot", "db1", "--domain", "none-such", "--uri", "test:///default", check=False)
    assert run.returncode != 0 and "knows no domain" in run.stderr
    run = target.order("boot", "db1", "--domain", "test", "--uri", "qemu+unix:///system?socket=/none-such", check=False)
    assert run.returncode != 0 and "does not answer" in run.stderr


def test_the_all_in_one_has_a_target_server_which_is_started_again_when_it_dies(site, vault, tmp_path):
    def local():
        return site.ask("server", "show", "local-target")

    def child():
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"lifeboat-target") and any(w.startswith(f"{site.folder}/".encode()) for w in words):
                return int(entry.name)
        return None

    site.wait(lambda: local()["health"] == "ok", "the local target server", LONG_S)
    disks = Disks(vault, tmp_path)
    first = child()
    os.kill(first, signal.SIGKILL)
    result = site.ask("failback", "restore", "db1", "--target", "local-target", "--to", disks.to, "--confirm", "db1")["result"]
    assert result["state"] == "done"
    disks.are_at(7)
    assert child() not in (None, first)
    run = site.lifeboat("server", "remove", "local-target", "--confirm", "local-target", check=False)
    assert run.returncode != 0 and "target_server = no" in run.stderr
