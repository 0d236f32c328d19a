# SPDX-License-Identifier: Apache-2.0
"""The process server folds by itself: points thin out beside ingest and beside kills, what stays is exact."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from process_site import BUILD, DAEMON, SEGTOOL, Site
from provoked import provoked, wait_for

LIFEBOAT = BUILD / "src/cli/lifeboat"
SHAPE = ["--epochs", "1", "--data-bytes", "64K"]
ALL = ["--segments", "100000"]
BURST = 20
KILLS = 3
LOOKED_AT = 24  # positions at which an image is opened

pytestmark = pytest.mark.skipif(not all(p.exists() for p in (DAEMON, SEGTOOL, LIFEBOAT)), reason=f"{DAEMON} is not built")


@pytest.fixture
def site(tmp_path):
    s = Site(tmp_path)
    s.passphrase_file.chmod(0o600)
    s.machines[0].policy.update(retention="all:5s 5s:1h", delete_delay_s=0)
    yield s
    s.close()


class Bursts:
    """An agent that sends some segments each time it is asked."""

    def __init__(self, site, machine):
        self.site, self.machine, self.n = site, machine, 0

    def send(self):
        self.n += BURST
        agent = self.site.agent(self.machine, *SHAPE, "--segments", self.n)
        _, text = agent.communicate(timeout=300)
        assert agent.returncode == 0, text

    def until(self, condition, what):
        """Goes on sending: points of several ages come to be."""
        def once():
            self.send()
            time.sleep(0.5)  # between two points, not for anything to happen
            return condition()
        wait_for(once, what, 400)


def image(site, machine, seq):
    """The disk at a position as the vault has it; None when the position was pruned."""
    out = site.folder / "kept"
    done = subprocess.run([SEGTOOL, "image", *site.vault_args(), "--machine", machine.id, "--at", f"1:{seq}", "--out", out,
                           *site.shape(machine), *SHAPE, *ALL], capture_output=True, text=True)
    if done.returncode == 0:
        return out.read_bytes()
    assert "was pruned" in done.stderr, done.stderr
    return None


def oracle(site, machine, seq):
    out = site.folder / "oracle"
    site.segtool("oracle", "--at", f"1:{seq}", "--out", out, *site.shape(machine), *SHAPE, *ALL)
    return out.read_bytes()


def assert_verified(site):
    done = subprocess.run([LIFEBOAT, "vault", "verify", "--deep", "--vault", site.vault_url, "--passphrase-file", site.passphrase_file,
                           "-o", "json"], capture_output=True, text=True)
    findings = json.loads(done.stdout)["data"]["findings"]
    # nobody put catalog entries here: that is the configuration server's part
    assert [f for f in findings if not f["note"] and "/item/" not in f["object"]] == []


def test_the_server_thins_points_out_while_it_is_killed_and_what_stays_is_exact(site):
    machine = site.machines[0]
    agent = Bursts(site, machine)
    seed = int(os.environ.get("LIFEBOAT_SEED", random.randrange(1 << 32)))
    print("LIFEBOAT_SEED =", seed)
    chance = random.Random(seed)

    def folded():
        return site.report(machine).get("folded", {})

    def pruned():
        return folded().get("points_pruned", 0) > 0
    for _ in range(KILLS):
        site.start()
        agent.until(pruned, "the server prunes points")
        time.sleep(chance.uniform(0, 1))  # a kill at any instant
        site.kill()
        site.config.reports.clear()
    site.start()
    agent.until(lambda: pruned() and folded()["deleted_objects"] > 0, "the server prunes and deletes")
    site.wait_in_vault(machine, (1, agent.n - 1))
    site.daemon.send_signal(signal.SIGTERM)
    assert site.daemon.wait(60) == 0
    kept = 0
    for seq in sorted(chance.sample(range(agent.n - 1), LOOKED_AT)) + [agent.n - 1]:
        got = image(site, machine, seq)
        assert got is None or got == oracle(site, machine, seq), f"the image at 1:{seq} is not what was written"
        kept += got is not None
    assert_verified(site)
    provoked(kept <= LOOKED_AT, "no position that was looked at had been pruned")
