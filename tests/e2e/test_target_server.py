# SPDX-License-Identifier: Apache-2.0
"""Master target servers: they join by a token, are ordered about by jobs, and bring real disks to recovery points."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from target_server import TargetServer, VaultSite
from test_recovery import BUILD, MIB, Vault, raw_images  # noqa: F401
from test_target import digest

LONG_S = 180


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

    def make(name="t", start=True, **settings):
        server = TargetServer(site, BUILD, tmp_path / name, f"{tmp_path.name[:40]}-{name}").join(**settings)
        made.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        server.close()


class Disks:
    def __init__(self, vault, folder, kind="raw"):
        self.vault = vault
        self.paths = {name: folder / f"{name}.{kind}" for name in vault.names}

    @property
    def to(self):
        return ",".join(f"{name}={path}" for name, path in self.paths.items())

    def are_at(self, n):
        for disk, name in enumerate(self.vault.names):
            size = self.vault.at(n, disk).stat().st_size
            assert digest(self.paths[name], size) == digest(self.vault.at(n, disk)), f"{name}, point {n}"


@pytest.fixture
def disks(vault, tmp_path):
    return Disks(vault, tmp_path)


def test_a_target_server_joins_by_one_command_and_finishes_onto_its_disks(servers, disks):
    server = servers()
    result = server.order("restore", "db1", "--to", disks.to, "--point", disks.vault.points[3])
    disks.are_at(3)
    assert result["state"] == "done" and f"{result['epoch']}:{result['seq']}" == disks.vault.points[3]
    assert result["written_bytes"] > 0 and result["fetched_bytes"] > 0
    assert not list(server.state.glob("machines/*/target.json"))
    assert server.health() == "ok"
