#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a resync after a reboot costs: bytes that the process server reads (of the store, a directory), bytes over the wire, seconds
and the agent's CPU for each GiB of disk. The disk is unchanged, or 1 % of it was written behind the agent's back: in runs of
1 MiB, or scattered in blocks of 4 KiB.

This host is the protected machine and the site, in a network namespace of its own so that only its own bytes are counted.

usage: resync_bench.py [--mib N]      (root; LIFEBOAT_BUILD names the build)
Prints one JSON object per case; ends with 77 and the reason where this host can't capture.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/e2e"), str(TOP / "tests/guest"), str(TOP / "tests/bench")]

from agent_memory import SKIPPED, why_not  # noqa: E402
from host_agent import HostAgent, LoopDisk  # noqa: E402
from kill_rounds import KillableSite  # noqa: E402

BLOCK_BYTES = 4096
MIB = 1 << 20
GIB = 1 << 30


def fill(disk, chance):
    """Half of it random, half of it text that compresses."""
    with open(disk.device, "r+b", buffering=0) as d:
        for at in range(0, disk.size_bytes, MIB):
            text = b"".join(b"%016x " % chance.getrandbits(40) for _ in range(MIB // 34))
            d.write(chance.randbytes(MIB - len(text)) + text)
        os.fsync(d.fileno())


def change(disk, chance, run_bytes):
    """1 % of the disk."""
    with open(disk.device, "r+b", buffering=0) as d:
        for at in chance.sample(range(disk.size_bytes // run_bytes), max(1, disk.size_bytes // 100 // run_bytes)):
            d.seek(at * run_bytes)
            d.write(chance.randbytes(run_bytes))
        os.fsync(d.fileno())


def read_bytes(pid):
    return int(re.search(r"rchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text())[1])


def cpu_s(pid):
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def wire_bytes():
    return int(re.search(r"lo:\s*(\d+)", pathlib.Path("/proc/net/dev").read_text())[1])


def seconds_to_protect(log):
    """From the epoch's beginning to its first point, by the agent's log."""
    at = {}
    for line in log.splitlines():
        for what in (" begins: ", "protected"):
            if what in line:
                at[what] = datetime.datetime.fromisoformat(line.split()[0].rstrip("Z"))
    return (at["protected"] - at[" begins: "]).total_seconds()


def resync(site, agent, disk):
    process = site.process_pid()
    log_bytes = (agent.folder / "agent.log").stat().st_size
    before, wire = read_bytes(process), wire_bytes()
    agent.start()
    agent.wait_point_after(time.time_ns(), 900)
    per_gib = GIB / disk.size_bytes
    return {"process_read_mib_per_gib": round((read_bytes(process) - before) * per_gib / MIB, 2),
            "wire_mib_per_gib": round((wire_bytes() - wire) * per_gib / MIB, 2),
            "sent_mib_per_gib": round(agent.status()["shipped_bytes"] * per_gib / MIB, 2),
            "s_per_gib": round(seconds_to_protect((agent.folder / "agent.log").read_bytes()[log_bytes:].decode()) * per_gib, 1),
            "agent_cpu_s_per_gib": round(cpu_s(agent.agent.pid) * per_gib, 2)}


def measure(build, folder, mib):
    chance = random.Random(1)
    site = KillableSite(build, folder / "site").make().start()
    agent = HostAgent(site, folder / "agent").enrol().start()
    disk = LoopDisk(folder / "disk.img", mib)
    try:
        fill(disk, chance)
        agent.protect([disk], 900)
        agent.wait_point_after(time.time_ns(), 900)
        for case, run_bytes in (("unchanged", 0), ("1 % in runs of 1 MiB", MIB), ("1 % in blocks of 4 KiB", BLOCK_BYTES)):
            agent.power_off()
            if run_bytes:
                change(disk, chance, run_bytes)
            print(json.dumps({"case": case, "disk_mib": mib, **resync(site, agent, disk)}), flush=True)
    finally:
        agent.close()
        site.stop()
        disk.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    options = parser.parse_args()
    build = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", TOP / "build")).resolve()
    reason = why_not(build)
    if reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return SKIPPED
    if "LIFEBOAT_OWN_NETWORK" not in os.environ:
        return subprocess.run(["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv],
                              env=dict(os.environ, LIFEBOAT_OWN_NETWORK="1"), check=False).returncode
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-resync.", dir=os.environ.get("TMPDIR")))
    folder.chmod(0o755)  # the agent runs as nobody
    try:
        measure(build, folder, options.mib)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
