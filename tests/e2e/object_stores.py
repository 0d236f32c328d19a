# SPDX-License-Identifier: Apache-2.0
"""Object stores of the tests' own: Azurite (Azure Blob) and radosgw (S3), on loopback, with folders that go with them."""
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/guest"))

from guest import free_port  # noqa: E402

BUILD = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build-check")).resolve()
STORETOOL = BUILD / "tests/tools/storetool"
AZURITE = ROOT / "build-azurite/node_modules/azurite/dist/src/blob/main.js"
START_S = 180
ACCOUNT = "devstoreaccount1"
# Azurite's own, the same everywhere and for everybody
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Missing(Exception):
    """What this machine lacks, for a skip."""


def secret_file(path, **values):
    """Written beside and moved into place, as whoever renews credentials should."""
    new = path.with_name(path.name + ".new")
    new.touch(mode=0o600)
    new.write_text("".join(f"{k} = {v}\n" for k, v in values.items()))
    new.rename(path)
    return path


def account_sas(end_s, rights="rcwdl"):
    """An account SAS, as the portal makes it."""
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end_s))
    text = "\n".join((ACCOUNT, rights, "b", "sco", "", end, "", "https,http", "2021-12-02", "", ""))
    sig = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    return urllib.parse.urlencode({"sv": "2021-12-02", "ss": "b", "srt": "sco", "sp": rights, "se": end, "spr": "https,http",
                                   "sig": sig})


class Server:
    """Processes in a folder; all of it goes at the end."""

    def __init__(self, name):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"lb-{name}."))
        self.processes = []

    def run(self, *argv, **how):
        log = open(self.folder / f"{pathlib.Path(str(argv[0])).name}.log", "ab")
        p = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **how)
        log.close()
        self.processes.append(p)
        return p

    def wait(self, what, ready):
        end = time.monotonic() + START_S
        while not ready():
            dead = [p for p in self.processes if p.poll() is not None]
            if dead:
                raise RuntimeError(f"{what} does not start: {[p.args for p in dead]}\n{self.logs()}")
            assert time.monotonic() < end, f"{what} does not answer\n{self.logs()}"
            time.sleep(0.1)

    def logs(self):
        return "".join(f"{f.name}: {f.read_text(errors='replace')[-1500:]}\n" for f in self.folder.glob("*.log"))

    def answers(self, port, host="127.0.0.1"):
        def ask():
            try:
                c = http.client.HTTPConnection(host, port, timeout=5)
                c.request("GET", "/")
                c.getresponse().read()
                return True
            except (OSError, http.client.HTTPException):
                return False
        return ask

    def stop(self):
        for p in reversed(self.processes):
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Azurite(Server):
    kind = "azure"

    def __init__(self, host="127.0.0.1"):
        if not shutil.which("node"):
            raise Missing("node is missing (see scripts/deps.sh); Azurite needs it")
        if not AZURITE.exists():
            raise Missing(f"Azurite is not in {AZURITE.parents[4]}; run scripts/deps.sh, which needs npm")
        super().__init__("azurite")
        self.host = host
        self.port = free_port()
        self.credentials = secret_file(self.folder / "credentials", account_key=KEY)
        self.run("node", AZURITE, "--blobHost", host, "--blobPort", self.port, "-l", self.folder / "data", "--silent",
                 "--disableTelemetry", "--skipApiVersionCheck")
        try:
            self.wait("Azurite", self.answers(self.port, host))
        except BaseException:
            self.stop()
            raise

    def url(self, container, port=None, credentials=None, more=""):
        return (f"azure:{ACCOUNT}/{container}?endpoint=http://{self.host}:{port or self.port}/{ACCOUNT}"
                f"&credentials={credentials or self.credentials}{more}")


class Radosgw(Server):
    """A Ceph of one monitor, one OSD in memory and one gateway."""
    kind = "s3"
    ACCESS, SECRET = "lifeboatlifeboat", "secretsecretsecretsecret"

    def __init__(self):
        for program in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph-authtool"):
            if not shutil.which(program):
                raise Missing(f"{program} is missing; run scripts/deps.sh")
        super().__init__("radosgw")
        self.port = free_port()
        self.mon_port = free_port()
        self.fsid = "6f6b1a52-3c4a-4a57-8d7c-0d5a4c5e9a11"
        self.credentials = secret_file(self.folder / "credentials", access_key=self.ACCESS, secret_key=self.SECRET)
        self.conf = self.folder / "ceph.conf"
        try:
            self.make()
        except BaseException:
            self.stop()
            raise

    def write_conf(self):
        f = self.folder
        self.conf.write_text(f"""[global]
fsid = {self.fsid}
mon host = 127.0.0.1:{self.mon_port}
keyring = {f}/keyring
run dir = {f}
admin socket = {f}/$name.asok
log file = {f}/$name.log
pid file = {f}/$name.pid
ms bind ipv6 = false
public network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
mon cluster log file = {f}/cluster.log
osd objectstore = memstore
memstore device bytes = 4294967296
osd max object name len = 460
osd max object namespace len = 64
[mon.a]
mon data = {f}/mon
[osd.0]
osd data = {f}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{self.port}
rgw data = {f}/rgw
rgw thread pool size = 64
rgw enable usage log = false
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw enable lc threads = false
rgw enable quota threads = false
""")

    def tool(self, *argv):
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=START_S)
        if done.returncode:
            raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr[-1500:]}")
        return done.stdout

    def make(self):
        f, c = self.folder, ("-c", self.conf)
        self.write_conf()
        for name, caps in (("mon.", ("mon", "allow *")), ("client.admin", ("mon", "allow *", "osd", "allow *", "mgr", "allow *")),
                           ("client.rgw", ("mon", "allow *", "osd", "allow *")), ("osd.0", ("mon", "allow *", "osd", "allow *"))):
            caps = [w for pair in zip(caps[::2], caps[1::2]) for w in ("--cap", *pair)]
            new = [] if (f / "keyring").exists() else ["--create-keyring"]
            self.tool("ceph-authtool", f / "keyring", *new, "--gen-key", "-n", name, *caps)
        self.tool("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", f"[v2:127.0.0.1:{self.mon_port}]", f / "monmap")
        self.tool("ceph-mon", *c, "--mkfs", "-i", "a", "--monmap", f / "monmap", "--keyring", f / "keyring")
        self.run("ceph-mon", "-f", *c, "-i", "a")
        (f / "osd").mkdir()
        osd_uuid = "0d6f9c1e-53b7-4f0a-9a1d-52b0ac4b7a01"
        self.wait("the monitor", lambda: self.ceph("osd", "new", osd_uuid) == 0)
        self.tool("ceph-osd", *c, "-i", "0", "--mkfs", "--osd-uuid", osd_uuid, "--keyring", f / "keyring")
        self.run("ceph-osd", "-f", *c, "-i", "0")
        self.run("radosgw", "-f", *c, "-n", "client.rgw")
        self.wait("radosgw", self.answers(self.port))
        self.tool("radosgw-admin", *c, "-n", "client.rgw", "user", "create", "--uid", "lifeboat", "--display-name", "lifeboat",
                  "--access-key", self.ACCESS, "--secret-key", self.SECRET)

    def ceph(self, *words):
        return subprocess.run(["ceph", "-c", self.conf, "-n", "client.admin", "--connect-timeout", "5", *words],
                              capture_output=True).returncode

    def url(self, bucket, port=None, credentials=None, more=""):
        return f"s3:{bucket}?endpoint=http://127.0.0.1:{port or self.port}&credentials={credentials or self.credentials}{more}"


class Folder:
    kind = "dir"

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-dir."))

    def url(self, container, **_):
        return f"dir:{self.folder}/{container}"

    def stop(self):
        shutil.rmtree(self.folder)


class Tool:
    """A storetool that runs: one line in, one object out."""

    def __init__(self, url, *options, env=None, check=True):
        self.p = subprocess.Popen([str(STORETOOL), *map(str, options), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=env)
        self.opened = self.read()
        if check and self.opened["r"] != 0:
            self.close()
            raise AssertionError(self.opened["error"])

    def read(self):
        line = self.p.stdout.readline()
        assert line, f"storetool is gone: {self.p.stderr.read()}"
        return json.loads(line)

    def __call__(self, *words):
        self.send(*words)
        return self.read()

    def send(self, *words):
        self.p.stdin.write(" ".join(map(str, words)) + "\n")
        self.p.stdin.flush()

    def text(self, name, size, offset=0):
        got = self("get", name, offset, size)
        assert got["r"] == 0, got
        return bytes.fromhex(got["hex"]).decode()

    def names(self, prefix="-"):
        got = self("list", prefix)
        assert got["r"] == 0, got
        return [name for name, _ in got["objects"]]

    def close(self):
        self.p.stdin.close()
        self.p.wait(timeout=60)
        self.p.stdout.close()
        self.p.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
