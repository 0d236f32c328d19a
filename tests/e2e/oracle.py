# SPDX-License-Identifier: Apache-2.0
"""The write-order oracle: writers that log what they wrote, and the judgement of every point of the vault by that log."""
import filecmp
import json
import signal
import subprocess
import time

LOG_RECORD_BYTES = 48
SMALL_RING = "16M"
SMALL_RING_OVERFLOWS_AFTER_WRITES = 2 * (16 << 20) // (8 << 10)  # of 8 KiB on average
STOP_S_MAX = 300


def oracle_writers(build, log, disks, seconds, writers=40, rate=0, seed=1, spare=None):
    """`spare`: the folder of the pins of a capture whose ring they don't let overflow, however slow it is emptied."""
    return subprocess.Popen([build / "tests/tools/oracle_write", "--log", log, "--writers", str(writers), "--seconds",
                             str(seconds), "--rate", str(rate), "--seed", str(seed), *(["--spare", spare] if spare else []),
                             *[d.device for d in disks]], stdout=subprocess.PIPE, text=True)


def stop_writers(writers):
    """What they say of themselves, told to end or ended."""
    writers.send_signal(signal.SIGTERM)
    figures = json.loads(writers.communicate(timeout=STOP_S_MAX)[0])
    assert figures["error"] == 0
    return figures


def wait_writes(agent, log, n, deadline_s=240):
    """So many more."""
    enough = (log.stat().st_size if log.exists() else 0) + n * LOG_RECORD_BYTES
    agent.wait(lambda: log.exists() and log.stat().st_size >= enough, f"{n} more writes", deadline_s)


def judge(build, site, agent, log, every=1):
    p = subprocess.run([build / "tests/tools/oracle_vault", "--vault", site.vault_url, "--passphrase-file",
                        site.passphrase_file, "--machine", agent.name, "--log", log, "--every", str(every)],
                       capture_output=True, text=True)
    assert p.returncode in (0, 1), p.stderr
    lines = p.stdout.strip().splitlines()
    return json.loads(lines[-1]), lines[:-1]


def assert_equal_after_quiescing(site, agent, disks, folder):
    agent.wait_point_after(time.time_ns())
    for i, d in enumerate(disks):
        out = folder / f"export{i}.img"
        out.unlink(missing_ok=True)
        site.lifeboat("point", "export", agent.name, d.name, out, "--vault", site.vault_url, server=False)
        assert filecmp.cmp(out, d.path, shallow=False), f"{d.name} differs from its export"
        out.unlink()
