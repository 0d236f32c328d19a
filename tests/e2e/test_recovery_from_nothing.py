# SPDX-License-Identifier: Apache-2.0
"""A site keeps its vault in a storage account and is lost with all that was on its hosts. What is left, the command, the
store's address and the passphrase, brings every machine back."""
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid

import pytest

from lifeboat_site import Site
from object_stores import BUILD, free_port, secret_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MKVAULT = BUILD / "tests/tools/mkvault"
PASSPHRASE = "correct horse battery staple"
MIB = 1 << 20
CONTROL_PORT = 7001
BOOT_DEADLINE_S = 600

for tool in ("nbdkit", "qemu-img", "qemu-system-x86_64", "grub-mkimage", "busybox"):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is missing; run 'make deps'", allow_module_level=True)


@pytest.fixture(params=("azurite", "radosgw"), ids=("azure", "s3"))
def cloud(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def guest_image(tmp_path_factory):
    path = tmp_path_factory.mktemp("guest") / "guest.img"
    subprocess.run([ROOT / "tests/guest/build-guest.sh", "--control", "--hostname", "protected", path], check=True)
    return path


class Bare:
    """A machine that has the command and nothing of the site."""

    def __init__(self, build, folder, url):
        self.program, self.folder, self.url = build.resolve() / "src/cli/lifeboat", folder, url
        self.passphrase_file = folder / "typed"
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LIFEBOAT_")}
        self.env["LIFEBOAT_NBDKIT_PLUGIN"] = str(build.resolve() / "src/nbd/nbdkit-lifeboat-plugin.so")

    def run(self, *words):
        return subprocess.run([self.program, *map(str, words), "--vault", self.url, "--passphrase-file", self.passphrase_file, "-o", "json"],
                              env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)

    def ask(self, *words, ok=(0, 3)):
        p = self.run(*words)
        assert p.returncode in ok, (words, p.returncode, p.stderr)
        return json.loads(p.stdout)["data"]


@pytest.fixture
def folder():
    """Short, because sockets are below it."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="lbrn."))
    yield path
    shutil.rmtree(path)


def in_guest(port, command):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/cgi-bin/control", body=command)
    return connection.getresponse().read().decode(errors="replace")


def make_vault(build, url, name, folder, disks, points, *more):
    """A machine's journal in the vault; gives what its disks are at each point."""
    oracle = folder / f"oracle-{name}"
    oracle.mkdir()
    passphrase = secret_file(folder / "given")
    passphrase.write_text(PASSPHRASE + "\n")
    made = subprocess.run([MKVAULT, "--vault", url, "--passphrase-file", passphrase, "--machine", name, "--points", str(points), "--oracle",
                           oracle, *more, *[f"--disk={n}={p}" for n, p in disks.items()]], check=True, capture_output=True, text=True)
    return [(f"{p['epoch']}:{p['seq']}", {n: oracle / f"{i}-{n}.raw" for n in disks})
            for i, p in enumerate(json.loads(made.stdout)["points"])]


def lose_a_site(build, folder, url):
    """A configuration server with its database and its process server works on the vault, and then all of it is gone."""
    site = Site(build, folder / "site")
    site.vault_url = url
    site.folder.mkdir()
    site.passphrase_file.touch(mode=0o600)
    site.passphrase_file.write_text(PASSPHRASE + "\n")
    try:
        site.make(fabric="qemu").start()
        assert len(site.points("db1")) == 2
        assert (site.folder / "state/config/config.db").exists()
    finally:
        site.stop()
        shutil.rmtree(site.folder)


def test_a_lost_site_comes_back_from_the_storage_account_and_the_passphrase(build, cloud, guest_image, folder):
    url = cloud.url(f"vault-{uuid.uuid4().hex[:12]}")
    points = make_vault(build, url, "db1", folder, {"vda": guest_image}, 2, "--memory", "256M")
    lose_a_site(build, folder, url)
    here = Bare(build, folder, url)
    machine, = here.ask("machine", "list")["machines"]
    assert machine["name"] == "db1"
    assert [f"{p['epoch']}:{p['seq']}" for p in here.ask("point", "list", "db1", "--limit", 0)["points"]][::-1] in \
        ([p for p, _ in points], [p for p, _ in points][::-1])
    assert here.ask("status")["summary"] == {"machines": 1, "recoverable": 1}
    for point, disks in points:
        image = folder / "export.raw"
        here.ask("point", "export", "db1", "vda", image, "--point", point, "--format", "raw")
        assert subprocess.run(["cmp", image, disks["vda"]]).returncode == 0, point
        image.unlink()
    boots(here, folder / "vm")


def boots(here, folder):
    port = free_port()
    try:
        double = here.ask("failover", "start", "db1", "--folder", folder, "--fabric", "qemu", "--forward", f"{port}:{CONTROL_PORT}",
                          "--memory", "256M", "--confirm", "db1")
        assert double["state"] == "running"
        assert "protected" in answer_of(port)
    finally:
        here.run("failover", "cleanup", "db1-double", "--folder", folder, "--live", "--confirm", "db1-double")


def answer_of(port):
    end = time.monotonic() + BOOT_DEADLINE_S
    while True:
        try:
            return in_guest(port, "hostname")
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end, "the double does not answer"
            time.sleep(0.5)


def test_setup_refuses_credentials_that_the_servers_would_not_find(build, cloud, folder):
    url, credentials = cloud.url(f"vault-{uuid.uuid4().hex[:12]}").split("&credentials=")
    here = Bare(build, folder, url)
    here.env["LIFEBOAT_STORE_CREDENTIALS"] = credentials
    p = here.run("setup", "--state-folder", folder / "state", "--etc-folder", folder / "etc", "--identity", folder / "admin")
    assert p.returncode == 2 and "store.credentials" in p.stderr, (p.returncode, p.stderr)
    assert not (folder / "etc").exists()
