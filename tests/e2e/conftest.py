# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where the build is, and what this machine lacks."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

REMOVE_S = 60
TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/guest"))
sys.path.insert(0, str(TOP / "tests/e2e"))
# what they assert is told as a test's assertions are: the runner knows a wait that ran out by it
pytest.register_assert_rewrite("double_agent", "host_agent", "kill_rounds", "object_stores", "oracle", "process_server", "process_site",
                               "ssh_host", "systemd_host", "target_server")
# no test mends with what happens to be on this host
os.environ["LIFEBOAT_MENDER"] = "/nonexistent/mender"


@pytest.fixture(scope="session")
def build():
    folder = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", TOP / "build-check"))
    if not (folder / "build.ninja").exists():
        pytest.skip(f"no build in {folder}; run `make check`, or set LIFEBOAT_BUILD")
    return folder


@pytest.fixture(scope="session")
def capture_possible(build):
    """Skips, with the reason, where writes of this host can't be captured."""
    if os.geteuid() != 0:
        pytest.skip("needs root: loop devices and BPF")
    p = subprocess.run([build / "src/capture/lifeboat-capture", "--probe"], capture_output=True, text=True)
    import json
    if p.returncode != 0:
        pytest.skip(f"this host can't capture: {p.stderr.strip()}")
    probe = json.loads(p.stdout)
    if not probe.get("can_capture"):
        pytest.skip(f"this host can't capture: {probe.get('reason')}")


@pytest.fixture(scope="session")
def packages(build):
    """Our Debian packages by name, made of this build."""
    from debian_root import build_packages
    path = pathlib.Path(tempfile.mkdtemp(prefix="lb-packages."))
    yield build_packages(build, path)
    shutil.rmtree(path)


def remove_folder(path):
    """Also under the hands of a killed server's child that is just ending."""
    end = time.monotonic() + REMOVE_S
    while path.exists():
        try:
            shutil.rmtree(path)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.fixture
def folder():
    """pytest's own folders are closed to the agent, which runs as nobody."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="lb-e2e."))
    path.chmod(0o755)
    yield path
    remove_folder(path)


@pytest.fixture
def site(build, folder, capture_possible):
    from lifeboat_site import Site
    s = Site(build, folder / "site").make().start()
    yield s
    s.stop()


@pytest.fixture
def agent(site, folder):
    """This host as a machine of the site, enrolled and running."""
    from host_agent import HostAgent
    a = HostAgent(site, folder / "agent").enrol().start()
    yield a
    a.close()


def started(kind):
    import object_stores
    try:
        return getattr(object_stores, kind)()
    except object_stores.Missing as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def azurite():
    s = started("Azurite")
    yield s
    s.stop()


@pytest.fixture(scope="session")
def radosgw():
    s = started("Radosgw")
    yield s
    s.stop()


@pytest.fixture(scope="session")
def own_libvirt():
    from guest import GuestError
    from libvirt_host import OwnLibvirt
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lblv."))
    try:
        l = OwnLibvirt(folder).start()
    except GuestError as e:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"no libvirt can be had here: {e}")
    yield l
    l.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def libvirt(own_libvirt, monkeypatch):
    """What looks for libvirt finds that one; doubles are then made by it where none other is asked for."""
    if own_libvirt.daemon.poll() is not None:       # a test that killed it has failed
        own_libvirt.start()
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", own_libvirt.uri)
    return own_libvirt
