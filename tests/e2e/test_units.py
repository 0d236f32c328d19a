# SPDX-License-Identifier: Apache-2.0
"""The packages and their units under a systemd that runs: set up as the documentation says, sandboxed, upgraded, purged."""
import filecmp
import hashlib
import json
import pathlib
import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest

from debian_root import Root, newer
from guest import free_port
from host_agent import LoopDisk
from lifeboat_site import Site
from oracle import judge, oracle_writers, stop_writers, wait_writes
from systemd_host import Missing, SystemdHost
from test_recovery import MIB, PASSPHRASE

SERVERS = ("lifeboat-config", "lifeboat-process", "lifeboat-target")


@pytest.fixture
def hosts(packages, folder):
    """The site's, and one elsewhere: both see the vault."""
    made, roots, shared = [], [], folder / "shared"
    shared.mkdir()
    try:
        for name in ("site", "elsewhere"):
            (folder / name).mkdir()
            roots.append(Root(folder / name, packages.values()))
            made.append(SystemdHost(roots[-1].path, shared))
            made[-1].start()
        yield made
    except Missing as e:
        pytest.skip(str(e))
    finally:
        for part in [h.stop for h in made] + [r.close for r in roots]:
            part()


@pytest.fixture
def disk(folder):
    d = LoopDisk(folder / "home.img", 6)
    yield d
    d.close()


def make_vault(build, host, folder):
    """In the folder that is shared: two points of a machine with two disks; what they are at the last."""
    images = {"vda": folder / "vda.img", "vdb": folder / "vdb.img"}
    images["vda"].write_bytes(b"lifeboat" * (5 * MIB // 8))
    images["vdb"].write_bytes(b"\0" * (2 * MIB))
    (folder / "oracle").mkdir()
    subprocess.run([build / "tests/tools/mkvault", "--vault", f"dir:{folder}/shared/vault", "--passphrase-file", host.root / "root/passphrase",
                    "--machine", "db1", "--points", "2", "--oracle", folder / "oracle",
                    *(f"--disk={name}={path}" for name, path in images.items())], check=True, capture_output=True)
    return {name: folder / f"oracle/1-{name}.raw" for name in images}


class Cli:
    """`lifeboat` as root of that host runs it."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def __call__(self, words, check=True):
        return self.host.run(f"lifeboat {words} --server https://127.0.0.1:{self.port}", check=check)

    def healths(self):
        out = self("server list -o json", check=False).stdout
        return [s["health"] for s in json.loads(out)["data"]["servers"]] if out else []


def set_up(host):
    """As docs/operations.md says."""
    port, process_port = free_port(), free_port()
    lifeboat = Cli(host, port)
    host.run(f"lifeboat setup --vault dir:/srv/shared/vault --passphrase-file /root/passphrase --public-host 127.0.0.1 --address 127.0.0.1 "
             f"--port {port} --process-port {process_port}")
    # the host has no network of its own, where each port would be free
    host.run("printf 'temporary_port = 0\\n' >>/etc/lifeboat/config.conf; systemctl enable --now lifeboat-config")
    host.wait(lambda: lifeboat("status", check=False).returncode in (0, 3), "answer of the configuration server")
    return lifeboat


def join(host, elsewhere, lifeboat):
    """A process server and a target server on a host of their own, by the commands that are shown."""
    def shown(words):
        lines = lifeboat(f"server add {words} --file /root/token").stdout.splitlines()
        shutil.copy(host.root / "root/token", elsewhere.root / "root/token")
        return next(line for line in lines if line.startswith("There: ")).removeprefix("There: ")

    elsewhere.run(shown("ps2").replace("--public-host HOST", "--public-host 127.0.0.2") + f" --port {free_port()}")
    (host.root / "root/token").unlink()
    elsewhere.run(shown("home1 --kind target"))
    elsewhere.run("systemctl enable --now lifeboat-process lifeboat-target")
    host.wait(lambda: lifeboat.healths() == ["ok"] * 5, "five servers that are well",
              tell=lambda: f"{lifeboat('server list', check=False).stdout}{elsewhere.journal()}")


def digest(path, size):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read(size)).hexdigest()


def started(hosts):
    return [h.shown(unit, "ExecMainStartTimestampMonotonic") for h in hosts for unit in SERVERS if h.active(unit) == ["active"]]


def test_the_servers_units_come_up_as_documented_write_disks_are_upgraded_and_purged_without_a_trace(build, hosts, packages, disk, folder):
    host, elsewhere = hosts
    before = [h.listing() for h in hosts]
    for h in hosts:
        h.install(packages["lifeboat"])
    (host.root / "root/passphrase").write_text(PASSPHRASE + "\n")
    (host.root / "root/passphrase").chmod(0o600)
    images = make_vault(build, host, folder)
    lifeboat = set_up(host)
    join(host, elsewhere, lifeboat)
    # a device and a file somewhere, which belong to others
    elsewhere.give_device(disk.device)
    elsewhere.run("useradd -r images && install -d -o images -m 700 /srv/images")
    lifeboat(f"failback restore db1 --target home1 --to vda={disk.device},vdb=/srv/images/vdb.raw --confirm db1 --overwrite")
    disk.settle()
    assert digest(disk.path, 5 * MIB) == digest(images["vda"], 5 * MIB)
    assert digest(elsewhere.root / "srv/images/vdb.raw", 2 * MIB) == digest(images["vdb"], 2 * MIB)
    # upgraded, each runs anew and is well
    old = started(hosts)
    package = newer(packages["lifeboat"], folder)
    for h in hosts:
        h.install(package)
    host.wait(lambda: len(started(hosts)) == 3 and not set(started(hosts)) & set(old), "restart of the three servers")
    host.wait(lambda: lifeboat.healths() == ["ok"] * 5, "five servers that are well again",
              tell=lambda: f"{lifeboat('server list', check=False).stdout}{elsewhere.journal()}")
    # removed, the state stays; purged, nothing but the vault, its passphrase, doubles, and what was not ours
    for h in hosts:
        h.run("dpkg --remove lifeboat")
    assert (host.root / "var/lib/lifeboat/config/config.db").exists()
    double = host.root / "var/lib/lifeboat/vm/db1-double"
    host.run("install -d -o lifeboat -m 700 /var/lib/lifeboat/vm/db1-double && touch /var/lib/lifeboat/vm/db1-double/failover.json")
    said = [h.run("dpkg --purge lifeboat").stderr for h in hosts]
    assert "doubles are left in /var/lib/lifeboat/vm (those that run go on): db1-double\n" in said[0] and (double / "failover.json").exists()
    assert "its passphrase in /root/passphrase are left" in said[0] and (host.root / "root/passphrase").exists()
    assert sorted(p.name for p in (host.root / "var/lib/lifeboat").iterdir()) == ["vm"] and "left" not in said[1]
    host.run("rm -r /var/lib/lifeboat && userdel lifeboat")      # their owner until then
    for h, was in zip(hosts, before):
        h.run("rm -rf /srv/shared/* /srv/images /root/passphrase /root/token; userdel images 2>/dev/null; true")
        h.assert_listing(was)


@pytest.fixture
def pushing_site(build, packages, folder):
    s = Site(build, folder / "pushing").make()
    shutil.copy(packages["lifeboat-mobility"], folder / "agent.deb")
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write(f"agent_package = {folder}/agent.deb\n")
    s.start()
    yield s
    s.stop()


@pytest.fixture
def server(packages, folder):
    """One with systemd, reached by SSH on a port that it tells."""
    root = Root(folder / "server", packages.values())
    h = SystemdHost(root.path)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    try:
        h.start()
        h.ssh_port = free_port()
        (root.path / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copy(folder / "key.pub", root.path / "root/.ssh/authorized_keys")
        h.run(f"mkdir -p /run/sshd; systemd-run -q --unit test-ssh /usr/sbin/sshd -D -p {h.ssh_port} -o ListenAddress=127.0.0.1 -o UsePAM=no")
        yield h
    except Missing as e:
        pytest.skip(str(e))
    finally:
        h.stop()
        root.close()


def test_an_agent_that_was_pushed_is_upgraded_under_load_without_a_resync_and_removed_without_a_trace(
        build, capture_possible, pushing_site, server, packages, disk, folder):
    site, name = pushing_site, SimpleNamespace(name="web1")

    def push(*words):
        site.wait(lambda: subprocess.run(["ssh-keyscan", "-p", str(server.ssh_port), "127.0.0.1"], capture_output=True).stdout, "sshd", 60)
        return site.lifeboat("machine", "install", "127.0.0.1", "--port", server.ssh_port, "--key-file", folder / "key",
                             "--accept-new-host-key", *words).stdout

    def newest_is_after(time_ns):
        points = site.points("web1")
        return points and points[-1]["until_ns"] > time_ns

    def tell():
        return f"{server.journal()}\n{site.machine('web1')}"

    def wait(condition, what):
        server.wait(condition, what, tell=tell)

    server.give_device(disk.device)
    before = server.listing()
    assert "enrolled as web1" in push("--name", "web1")
    units = ("lifeboat-capture", "lifeboat-mobility", "lifeboat-mend.path")
    assert server.active(*units) == ["active"] * 3
    site.lifeboat("policy", "set", "default", "--ring", "64M", "--consistency-interval", "1", "--upload-interval", "1")
    wait(lambda: site.lifeboat("machine", "protect", "web1", "--no-wait", "--force", "--disks", disk.name, check=False).returncode == 0,
         "acceptance of the disk")
    wait(lambda: (site.machine("web1") or {}).get("recoverable"), "recovery point")
    epoch, ran = site.points("web1")[-1]["epoch"], [server.shown(u, "MainPID") for u in units[:2]]
    log = folder / "writes.log"
    # what is written while the agent is away has to fit into its ring
    writers = oracle_writers(build, log, [disk], 600, writers=8, rate=500, spare=f"/proc/{server.pid}/root/sys/fs/bpf/lifeboat")
    shutil.copy(newer(packages["lifeboat-mobility"], folder), folder / "agent.deb")
    push("--action", "upgrade")
    assert "+newer" in server.run("dpkg-query -W lifeboat-mobility").stdout
    assert server.active(*units) == ["active"] * 3 and not set(ran) & {server.shown(u, "MainPID") for u in units[:2]}
    wait_writes(SimpleNamespace(wait=site.wait), log, 500)
    stop_writers(writers)
    now_ns = time.time_ns()
    wait(lambda: newest_is_after(now_ns), "recovery point after the load")
    summary, wrong = judge(build, site, name, log)
    assert not wrong and summary["checked"] > 0, (summary, wrong)
    assert {p["epoch"] for p in site.points("web1")} == {epoch}, "the upgrade cost a resync"
    site.lifeboat("point", "export", "web1", disk.name, folder / "export.img", "--vault", site.vault_url, server=False)
    assert filecmp.cmp(folder / "export.img", disk.path, shallow=False)
    push("--action", "remove")
    server.assert_listing(before)


def test_systemd_understands_each_unit_and_would_notice_a_broken_one(server, packages):
    for package in packages.values():
        server.install(package)

    def verify(units):
        p = server.run(f"systemd-analyze verify {units}", check=False)
        return p.returncode, p.stdout + p.stderr

    assert verify("/lib/systemd/system/lifeboat-*") == (0, "")
    for wrong in ("s/^ProtectSystem=.*/ProtectSystem=fully/", "s/^UMask=/Umask=/", "s/lifeboat-target --/lifeboat-targets --/"):
        server.run(f"sed '{wrong}' /lib/systemd/system/lifeboat-target.service >/run/broken.service")
        assert "broken.service" in verify("/run/broken.service")[1], wrong
