# SPDX-License-Identifier: Apache-2.0
"""Push install: the agent is brought to a server by SSH, by the process server, with remembered host keys."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from debian_root import Root
from ssh_host import SshHost

TOP = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def package(packages):
    return packages["lifeboat-mobility"]


@pytest.fixture(scope="module")
def host(packages):
    if os.geteuid() != 0:
        pytest.skip("needs root: a system in a folder, in namespaces of its own")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-push."))
    folder.chmod(0o755)
    root = Root(folder, packages.values())
    made = SshHost(root.path, folder)
    try:
        made.start()
        made.add_user("ops", "open sesame")
        yield made
    finally:
        made.close()
        root.close()
        shutil.rmtree(folder)


@pytest.fixture
def site(build, package, tmp_path):
    sys.path.insert(0, str(TOP / "tests/guest"))
    from lifeboat_site import Site
    s = Site(build, tmp_path / "site").make()
    with open(s.folder / "etc/config.conf", "a") as conf:
        conf.write(f"agent_package = {package}\n")
    s.start()
    yield s
    s.stop()


def push(site, host, *words, check=True):
    return site.lifeboat("machine", "install", "127.0.0.1", "--port", host.port, *words, check=check)


def by_key(host):
    return ["--key-file", host.key, "--accept-new-host-key"]


def installed(host):
    p = subprocess.run(["chroot", host.root, "dpkg-query", "-W", "-f", "${db:Status-Status}", "lifeboat-mobility"],
                       capture_output=True, text=True)
    return p.stdout == "installed"


def leftovers(host):
    return list((host.root / "tmp").glob("lifeboat-*"))


def test_the_agent_is_assessed_installed_enrolled_upgraded_and_removed_as_root_by_key(site, host):
    p = push(site, host, *by_key(host), "--action", "assess")
    assert "can be protected" in p.stdout
    assert not installed(host)
    p = push(site, host, *by_key(host), "--name", "web1")
    assert "enrolled as web1" in p.stdout and "systemd does not run there" in p.stdout
    assert installed(host)
    assert "web1" in [m["name"] for m in site.ask("machine", "list")["machines"]]
    push(site, host, *by_key(host), "--action", "upgrade")
    assert installed(host)
    push(site, host, *by_key(host), "--action", "remove")
    assert not installed(host)
    assert not leftovers(host), "a token or a package was left there"


def test_a_login_that_is_not_root_needs_sudo_and_its_password_is_in_no_log(site, host, tmp_path):
    (tmp_path / "password").write_text("open sesame\n")
    push(site, host, "--user", "ops", "--password-file", tmp_path / "password", "--accept-new-host-key", "--name", "web2")
    assert installed(host)
    push(site, host, "--user", "ops", "--password-file", tmp_path / "password", "--action", "remove")
    host.authorize("ops", "/home/ops")
    p = push(site, host, "--user", "ops", "--key-file", host.key, "--name", "web3", check=False)
    assert p.returncode != 0 and "sudo" in p.stderr
    for path in [site.folder / "servers.log", *site.folder.glob("state/**/*.conf"), *site.folder.glob("state/config.db*")]:
        assert b"open sesame" not in path.read_bytes(), path


def test_an_unknown_host_key_is_shown_and_a_changed_one_refused(site, host, tmp_path):
    p = push(site, host, "--key-file", host.key, "--action", "assess", check=False)
    assert p.returncode != 0 and host.host_key() in p.stderr and "--host-key" in p.stderr
    p = push(site, host, "--key-file", host.key, "--action", "assess", "--host-key", "SHA256:" + "A" * 43, check=False)
    assert p.returncode != 0 and "not the host that was meant" in p.stderr
    push(site, host, "--key-file", host.key, "--action", "assess", "--host-key", host.host_key())
    push(site, host, "--key-file", host.key, "--action", "assess")  # remembered
    host.stop()
    host.new_host_key()
    host.start()
    p = push(site, host, *by_key(host), "--action", "assess", check=False)
    assert p.returncode != 0 and "another host key" in p.stderr


def test_what_can_not_be_is_refused_with_the_reason(site, host, tmp_path):
    p = site.lifeboat("machine", "install", "127.0.0.1", check=False)
    assert p.returncode != 0 and "--key-file" in p.stderr
    (tmp_path / "password").write_text("wrong\n")
    p = push(site, host, "--password-file", tmp_path / "password", "--accept-new-host-key", "--user", "ops", check=False)
    assert p.returncode != 0 and "does not let ops in" in p.stderr
    p = site.lifeboat("machine", "install", "127.0.0.1", "--port", 1, "--key-file", host.key, check=False)
    assert p.returncode != 0 and "no SSH connection" in p.stderr
    (tmp_path / "nonsense").write_text("no key\n")
    p = push(site, host, "--key-file", tmp_path / "nonsense", "--accept-new-host-key", check=False)
    assert p.returncode != 0 and "no private key" in p.stderr
    assert not leftovers(host)
