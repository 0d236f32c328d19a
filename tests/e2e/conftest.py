# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: where the build is, and what this machine lacks."""
import os
import pathlib
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/guest"))
sys.path.insert(0, str(TOP / "tests/e2e"))


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
