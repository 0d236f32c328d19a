# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of the tests' own and real VMs in it: originals that a target server starts, and doubles that are reprotected."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import uuid

import pytest

from double_agent import secret_of
from guest import GuestError
from provoked import wait_for
from target_server import TargetServer, VaultSite
from test_config import Api
from test_config_failover import job, order
from test_recovery import BUILD, MIB, MKVAULT, Vault, same
from test_reprotect import failed, faults, folder, read_or_nothing, site, target  # noqa: F401 (fixtures)
from test_target import digest

LONG_S = 300

# A guest of one sector: it says "told: ", what its firmware has as opt/lifeboat/double (fw_cfg, by its ports: the directory, then
# the file), and " :end" on its first serial port; then it halts.
BOOT = bytes.fromhex("fa31c08ed88ec08ed0bc007cfcbe9d7ce85a00ba1005b81900ef42ececec88c5ec88c1e33fba1105bf007ebb4000ecaa4b75fb51be897cbf087eb91400"
                     "f3a659740349ebde8a2e027e8a0e037e8a26047ea0057eba1005efe30aba1105ece8170049ebf4bea47ce80300f4ebfdac84c07405e80300ebf6c388"
                     "c3bafd03eca82074fb88d8baf803eec36f70742f6c696665626f61742f646f75626c6500746f6c643a2000203a656e640a00").ljust(510, b"\0") + b"\x55\xaa"


def domain(name, disk, console):
    return f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
          <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>{shutil.which('qemu-system-x86_64')}</emulator>
            <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
            <serial type='file'><source path='{console}'/></serial></devices></domain>"""


class Original:
    """A VM that an administrator has defined, off, with one disk."""

    def __init__(self, libvirt, folder, size_bytes):  # noqa: F811
        self.libvirt, self.name = libvirt, f"original-{uuid.uuid4().hex[:12]}"
        self.disk, self.console = folder / "home.raw", folder / "home.log"
        with open(self.disk, "wb") as f:
            f.truncate(size_bytes)
        (folder / "home.xml").write_text(domain(self.name, self.disk, self.console))
        libvirt.virsh("define", folder / "home.xml")

    def state(self):
        return self.libvirt.virsh("domstate", self.name).stdout.strip()

    def has_booted(self):
        return b":end" in read_or_nothing(self.console)

    def close(self):
        self.libvirt.virsh("destroy", self.name, check=False)
        self.libvirt.virsh("undefine", self.name, check=False)


@pytest.fixture
def vault_site(libvirt, tmp_path):
    (tmp_path / "vda.img").write_bytes(BOOT + os.urandom(2 * MIB - 512))
    where = pathlib.Path(tempfile.mkdtemp(prefix="lbvs."))
    s = VaultSite(BUILD, where / "site", Vault(tmp_path, {"vda": tmp_path / "vda.img"}, 1))
    s.vault = tmp_path / "oracle/0-vda.raw"
    try:
        yield s.make().start()
    finally:
        s.stop()
        shutil.rmtree(where, ignore_errors=True)


def test_a_machine_comes_home_onto_its_libvirt_vm_which_runs_what_it_was(libvirt, vault_site, tmp_path):
    original = Original(libvirt, tmp_path, 2 * MIB)
    home = TargetServer(vault_site, BUILD, tmp_path / "t", "home").join().start()

    def boot(*words, check=True):
        return home.order("boot", "db1", "--domain", *(words or (original.name,)), "--uri", libvirt.uri, check=check)

    def ended(job):
        one = next(j for j in vault_site.ask("job", "list")["jobs"] if j["id"] == job)
        return one if one["state"] in ("done", "failed", "cancelled") else None
    try:
        for name in (original.name + "-none", "-x"):
            run = boot(name, check=False)
            assert run.returncode != 0 and "knows no domain" in run.stderr, run.stderr
        assert home.order("restore", "db1", "--to", f"vda={original.disk}")["state"] == "done"
        assert digest(original.disk) == digest(vault_site.vault)
        # libvirtd has died: the order fails in words; one that hangs is no match for a cancellation
        libvirt.kill()
        run = boot(check=False)
        assert run.returncode != 0 and "does not answer" in run.stderr, run.stderr
        libvirt.start()
        libvirt.daemon.send_signal(signal.SIGSTOP)
        try:
            job = json.loads(boot(original.name, "--no-wait", "-o", "json", check=False).stdout)["data"]["job"]
            vault_site.wait(lambda: [o for o in home.orders("boot") if o["state"] == "running"], "the order at work", LONG_S)
            assert ended(job) is None
            vault_site.lifeboat("job", "cancel", job)
            vault_site.wait(lambda: ended(job), "end of the cancelled order", LONG_S)
        finally:
            libvirt.daemon.send_signal(signal.SIGCONT)
        assert ended(job)["state"] == "cancelled"
        assert "runs" in boot()["text"] and original.state() == "running"
        vault_site.wait(original.has_booted, "word of the guest", LONG_S)
        assert b"told:  :end" in original.console.read_bytes()      # it is no double
        # while it runs its disk is nobody else's, and who orders it to start finds it running
        run = home.order("restore", "db1", "--to", f"vda={original.disk}", "--dry-run", check=False)
        assert run.returncode != 0 and "in use" in run.stderr, run.stderr
        assert "runs" in boot()["text"]
    finally:
        original.close()
        home.close()


def qemu_of(double):
    """The arguments of the QEMU of a double, by its folder."""
    found = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")
             if f"guest={double.name},".encode() in read_or_nothing(p) and f"{double}/".encode() in read_or_nothing(p)]
    assert len(found) == 1, found
    return read_or_nothing(found[0])


def test_a_double_in_libvirt_is_told_by_its_firmware_and_is_reprotected_and_goes_home_onto_a_libvirt_vm(libvirt, failed, site, folder, target):  # noqa: F811
    failed.fail_over(content=BOOT + os.urandom(MIB - 512))
    assert libvirt.domains() == ["host-double"]
    told, console = site.folder / "state/vm/host-double/double.json", site.folder / "state/vm/host-double/console.log"
    site.wait(lambda: b":end" in read_or_nothing(console), "word of the double", LONG_S)
    assert b"told: " + told.read_bytes() + b" :end" in console.read_bytes()
    # the secret is in that file, which is the owner's alone, and nowhere where others could read it
    secret = secret_of(site, "host-double").encode()
    assert told.stat().st_mode & 0o777 == 0o600
    assert str(told).encode() in qemu_of(told.parent) and not [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if secret in read_or_nothing(p)]
    xml = libvirt.virsh("dumpxml", "--security-info", "host-double").stdout
    assert str(told) in xml and secret.decode() not in xml
    for part in ("etc", "run", "lib", "log"):
        assert not [p for p in (libvirt.folder / part).rglob("*") if p.is_file() and secret in p.read_bytes()]
    failed.double.boot()
    failed.double.wait_text("waits for")
    # libvirtd dies under it: the double runs on, and is found again
    libvirt.kill()
    assert qemu_of(told.parent)
    libvirt.start()
    wait_for(lambda: [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["running"], "the double to be found again")
    original = Original(libvirt, folder, failed.size_bytes)
    try:
        failed.reprotect("--target", "away", "--to", f"{failed.name}={original.disk}")
        assert target.is_reached()
        libvirt.virsh("qemu-monitor-command", "--hmp", "host-double",
                      f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0x5a {5 * MIB} 65536"')
        words = ["failback", "start", "host-double", "--wait", 0, "--confirm", "host-double", "--uri", libvirt.uri]
        # what could not be started there is found out while the double works
        (folder / "stranger.xml").write_text(domain("stranger", folder / "else.raw", folder / "stranger.log"))
        (folder / "else.raw").write_bytes(BOOT)
        libvirt.virsh("define", folder / "stranger.xml")
        for name, said in (("nobody", "knows no domain"), ("stranger", f"has not the disk {original.disk} that is written for it, but {folder}/else.raw")):
            wrong = site.lifeboat(*words, "--domain", name, check=False)
            assert wrong.returncode != 0 and said in wrong.stderr, wrong.stderr
        (folder / "plan.json").write_text(json.dumps({"name": "home", "groups": [{"name": "all", "machines": [{"machine": "host"}]}]}))
        site.lifeboat("plan", "create", folder / "plan.json")
        look = ["plan", "failback", "home", "--dry-run", "--uri", libvirt.uri]
        wrong = site.lifeboat(*look, "--domain", "host:nobody", check=False)
        assert wrong.returncode != 0 and "knows no domain" in wrong.stderr, wrong.stderr
        libvirt.virsh("start", "stranger")
        wrong = site.lifeboat(*words, "--domain", "stranger", check=False)
        assert wrong.returncode != 0 and "domain stranger runs: turn it off" in wrong.stderr, wrong.stderr
        libvirt.virsh("destroy", "stranger")
        libvirt.virsh("undefine", "stranger")
        assert "what starts host is there" in site.lifeboat(*look, "--domain", f"host:{original.name}").stdout
        assert [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["running"] and target.is_reached()
        done = site.ask(*words, "--domain", original.name)
        assert done["state"] == "done" and original.state() == "running"
        assert original.disk.read_bytes()[5 * MIB:5 * MIB + 65536] == b"\x5a" * 65536
        same(original.disk, site.folder / "state/vm/host-double/disk0.qcow2", "-f", "raw", "-F", "qcow2", "-U")
        site.wait(original.has_booted, "word of the original", LONG_S)
        # it is to stay here after all: the original is off before the double starts
        done = site.ask("failback", "undo", "host-double", "--confirm", "host-double", "--domain", original.name, "--uri", libvirt.uri)
        assert done["state"] == "done" and original.state() == "shut off"
        assert [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["running"]
        site.lifeboat("job", "cancel", done["result"]["reprotect_job"], check=False)
        site.ask("failover", "reprotect", "host-double", "--cancel")
        failed.double.close()
        site.lifeboat("failover", "cleanup", "host-double", "--live", "--confirm", "host-double")
        failed.check_no_trace()
        assert libvirt.domains() == [original.name]
    finally:
        original.close()


CARD, OTHER_CARD, MAIL = "52:54:00:12:34:50", "52:54:00:12:34:51", "52:54:00:12:34:52"
LAB = f"""<network><name>lab</name><forward mode='open'/><bridge name='lab0'/><ip address='192.0.2.1' netmask='255.255.255.0'><dhcp>
  <range start='192.0.2.100' end='192.0.2.110'/><host mac='{MAIL}' name='mail' ip='192.0.2.20'/></dhcp></ip></network>"""


class Lab:
    """A libvirtd with networks of its own, where this host's are not reached; and doubles in it, from a vault alone."""

    def __init__(self, folder):  # noqa: F811
        from libvirt_host import OwnLibvirt
        self.folder, self.doubles = folder, folder / "vm"
        self.libvirt = OwnLibvirt(folder, alone=True).start()
        self.vault = None

    def make(self, vault):
        self.vault = vault
        (self.folder / "lab.xml").write_text(LAB)
        self.libvirt.virsh("net-define", self.folder / "lab.xml")
        return self

    def double(self, verb, *words, check=True):
        run = subprocess.run([BUILD / "src/cli/lifeboat", "failover", verb, *map(str, words), "--vault", self.vault.url, "--passphrase-file",
                              self.vault.passphrase_file, "--folder", self.doubles], capture_output=True, text=True,
                             env=dict(os.environ, LIBVIRT_DEFAULT_URI=self.libvirt.uri,
                                      LIFEBOAT_NBDKIT_PLUGIN=str(BUILD / "src/nbd/nbdkit-lifeboat-plugin.so")))
        assert run.returncode == 0 or not check, run.stderr
        return run

    def start(self, name, *words, check=True):
        return self.double("test", "db1", "--name", name, "--fabric", "libvirt", "--memory", "64M", *words, check=check)

    def refuses(self, said, *words):
        """And makes nothing."""
        before = sorted(self.doubles.glob("*")), self.libvirt.domains()
        run = self.start("refused", *words, check=False)
        assert run.returncode != 0 and said in run.stderr, run.stderr
        assert (sorted(self.doubles.glob("*")), self.libvirt.domains()) == before

    def entries(self):
        """Of what runs, which are those that are kept."""
        runs, kept = (sorted(line.strip() for line in self.libvirt.virsh("net-dumpxml", *more, "lab").stdout.splitlines() if "<host " in line)
                      for more in ((), ("--inactive",)))
        assert runs == kept
        return runs

    def lease(self, mac):
        """What a card of that address is given by the network's DHCP."""
        inside, name = self.libvirt.inside, "c" + mac[-2:]
        inside("ip", "link", "add", name, "type", "veth", "peer", "name", name + "p")
        try:
            inside("ip", "link", "set", name, "address", mac, "up")
            inside("ip", "link", "set", name + "p", "master", "lab0", "up")
            said = inside("busybox", "udhcpc", "-i", name, "-f", "-q", "-n", "-t", "30", "-T", "2", "-s", "/bin/true")
            return (said.stdout + said.stderr).split("lease of ")[1].split()[0]
        finally:
            inside("ip", "link", "del", name)

    def stop(self):
        for name in self.libvirt.domains():
            self.libvirt.virsh("destroy", name, check=False)
            self.libvirt.virsh("undefine", name, check=False)
        self.libvirt.virsh("net-destroy", "lab", check=False)
        self.libvirt.stop()


@pytest.fixture
def lab(tmp_path):
    if not shutil.which("dnsmasq", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or not shutil.which("busybox"):
        pytest.skip("dnsmasq or busybox is missing; run `make deps-full`")
    where = pathlib.Path(tempfile.mkdtemp(prefix="lblab."))
    where.chmod(0o755)      # dnsmasq gives its rights away
    try:
        l = Lab(where)
    except GuestError as e:
        shutil.rmtree(where, ignore_errors=True)
        pytest.skip(f"no libvirt can be had here: {e}")
    try:
        (tmp_path / "vda.img").write_bytes(BOOT + os.urandom(2 * MIB - 512))
        yield l.make(Vault(tmp_path, {"vda": tmp_path / "vda.img"}, 1))
    finally:
        l.stop()
        shutil.rmtree(where, ignore_errors=True)


def test_a_libvirt_network_gives_a_double_its_address_for_as_long_as_it_is_there_and_nobody_else_s(lab):
    lab.refuses('no network "none-such"', "--network", "none-such", "--address", "192.0.2.50")
    lab.refuses("is not active", "--network", "lab", "--address", "192.0.2.50")
    lab.libvirt.virsh("net-start", "lab")
    admins = lab.entries()
    assert len(admins) == 1
    lab.refuses(f"keeps that address for {MAIL} (mail)", "--network", "lab", "--address", "192.0.2.20/24", "--mac", CARD)
    lab.refuses(f"gives card {MAIL} the address 192.0.2.20", "--network", "lab", "--address", "192.0.2.50", "--mac", MAIL)
    lab.refuses("has that address itself", "--network", "lab", "--address", "192.0.2.1", "--mac", CARD)
    guest = lab.lease("52:54:00:12:34:5f")
    wait_for(lambda: f"{guest}/" in lab.libvirt.virsh("net-dhcp-leases", "lab").stdout, "libvirt's word of the lease")
    lab.refuses("has it on lease", "--network", "lab", "--address", guest, "--mac", CARD)
    lab.start("one", "--network", "lab", "--address", "192.0.2.50/24", "--mac", CARD)
    assert len(lab.entries()) == 2 and lab.lease(CARD) == "192.0.2.50"
    # another operator's double
    lab.refuses(f"keeps that address for {CARD}", "--network", "lab", "--address", "192.0.2.50", "--mac", OTHER_CARD)
    lab.refuses(f"gives card {CARD} the address 192.0.2.50", "--network", "lab", "--address", "192.0.2.51", "--mac", CARD)
    # addresses that the network does not give out are the guest's own matter, and what an administrator has entered stays
    lab.start("own", "--network", "lab", "--address", "198.51.100.7")
    lab.start("mail", "--network", "lab", "--address", "192.0.2.20", "--mac", MAIL)
    assert len(lab.entries()) == 2
    lab.start("two", "--network", "lab", "--address", "192.0.2.51", "--mac", OTHER_CARD)
    lab.libvirt.virsh("net-update", "lab", "delete", "ip-dhcp-host", f"<host mac='{OTHER_CARD}' ip='192.0.2.51'/>", "--live", "--config")
    # nobody takes anything away while libvirtd is gone, and afterwards all of it
    lab.libvirt.kill()
    run = lab.double("cleanup", "one", "--confirm", "one", check=False)
    assert run.returncode != 0 and "no libvirt answers" in run.stderr and (lab.doubles / "one").exists()
    lab.libvirt.start()
    assert len(lab.entries()) == 2
    for name in ("own", "mail", "one", "two"):
        lab.double("cleanup", name, "--confirm", name)
    assert lab.entries() == admins and lab.libvirt.domains() == [] and list(lab.doubles.iterdir()) == []


def test_a_failover_over_a_libvirtd_that_hangs_or_ends_fails_in_words_and_is_done_when_it_is_ordered_again(libvirt, site, folder, build, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LIFEBOAT_NBDKIT_PLUGIN", str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    monkeypatch.setenv("LIFEBOAT_LIBVIRT_PATIENCE_S", "10")
    (folder / "vda.img").write_bytes(BOOT + os.urandom(2 * MIB - 512))
    (folder / "oracle").mkdir()
    subprocess.run([MKVAULT, "--vault", site.vault_url, "--passphrase-file", site.passphrase_file, "--machine", "db1", "--points", "1", "--oracle",
                    folder / "oracle", f"--disk=vda={folder}/vda.img"], check=True, capture_output=True)
    site.stop()
    site.start()
    api = Api(site, site.identity)  # noqa: F811
    body = {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB, "forwards": ["tcp:0:22"]}
    console = site.folder / "state/vm/db1-double/console.log"
    try:
        first = order(api, "/v1/failover", {**body, "probe_port": 22, "wait_s": 600})        # nobody will answer there
        site.wait(lambda: b":end" in read_or_nothing(console), "word of the double", LONG_S)
        # libvirtd hangs: who asks it anew and who has asked it all along get to know it, and the next one at once
        libvirt.daemon.send_signal(signal.SIGSTOP)
        try:
            assert [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["unknown"] and qemu_of(console.parent)
            assert "libvirtd hangs; restart it" in job(api, first, ("failed",))["error"]
            assert "libvirtd hangs; restart it" in job(api, order(api, "/v1/failover", body), ("failed",))["error"]
        finally:
            libvirt.daemon.send_signal(signal.SIGCONT)
        first = order(api, "/v1/failover", {**body, "probe_port": 22, "wait_s": 600})
        site.wait(lambda: api.ask("GET", f"/v1/job/{first}")[1]["steps"][-1]["name"] == "wait until it runs", "the job that goes on", LONG_S)
        libvirt.kill()
        assert "libvirt" in job(api, first, ("failed",))["error"]
        assert [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["unknown"] and qemu_of(console.parent)
        libvirt.start()
        wait_for(lambda: [d["state"] for d in site.ask("failover", "list")["failovers"]] == ["running"], "the double to be found again")
        job(api, order(api, "/v1/failover", body), ("done",))
        job(api, order(api, "/v1/failover/db1-double/commit", {}), ("done",))
        assert libvirt.domains() == ["db1-double"]
    finally:
        site.lifeboat("failover", "cleanup", "db1-double", "--live", "--confirm", "db1-double", check=False)
    assert libvirt.domains() == []
