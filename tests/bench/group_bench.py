#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""For how long a replication group stands still: agents on this host, each with a loop device, an ext4 and a bank on it that sends money
to others with an fsync before each word, make shared points. All of them share this machine's cores with what they protect.
Prints one JSON line per case: milliseconds that the slowest member of each point was frozen, and of which phases they were.

LIFEBOAT_BUILD=build tests/bench/group_bench.py [MEMBERS ...]    (default 3 and 16)
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/e2e"), str(TOP / "tests/guest")]

import bank  # noqa: E402
from guest import free_port  # noqa: E402
from lifeboat_site import Site  # noqa: E402
from test_group import group, make_points, settle  # noqa: E402

POINTS = 12
PARTNERS = 2  # of each bank: money goes around in a ring
PHASES = re.compile(r"frozen for ([0-9.]+) ms \(all members froze in ([0-9.]+), marked in ([0-9.]+), thawed in ([0-9.]+) ms\)")


@contextlib.contextmanager
def banks(members):
    ports = [free_port() for _ in members]
    with contextlib.ExitStack() as stack:
        running = []
        for i, m in enumerate(members):
            partners = {ports[(i + k) % len(ports)] for k in range(1, PARTNERS + 1)} - {ports[i]}
            p = subprocess.Popen([sys.executable, bank.__file__, m.mnt / "ledger", str(ports[i]), *map(str, partners)], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
            stack.callback(p.wait)
            stack.callback(p.kill)
            running.append(p)
            assert p.stdout.readline() == "listening\n"
        for p in running:
            p.stdin.write("go\n")
            p.stdin.flush()
        yield


def phases(members):
    """What the coordinator, whoever it was, logged of each point."""
    found = [list(map(float, m.groups())) for member in members for m in PHASES.finditer(member.agent.log("agent", 1 << 20))]
    return [round(statistics.median(column), 1) for column in list(zip(*found[-POINTS:]))[1:]]


def transactions(members):
    return sum((m.mnt / "ledger").read_bytes().count(b"\n") for m in members)


def run(build, folder, n):
    site = Site(build, folder / "site").make().start()
    try:
        with group(site, folder, members=n) as members:
            settle(site, members)
            with banks(members):
                before = transactions(members)
                points = make_points(site, POINTS)
                done = transactions(members) - before
            frozen = [max(m["frozen_ns"] for m in p["members"]) / 1e6 for p in points]
            freeze, mark, thaw = phases(members)
            print(json.dumps({"members": n, "points": len(points), "frozen_ms_median": round(statistics.median(frozen), 1),
                              "frozen_ms_max": round(max(frozen), 1), "freeze_ms_median": freeze, "mark_ms_median": mark,
                              "thaw_ms_median": thaw, "ledger_lines": done, "load": round(os.getloadavg()[0], 1)}), flush=True)
    finally:
        site.stop()


def main():
    build = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", TOP / "build-bench"))
    for n in [int(word) for word in sys.argv[1:]] or [3, 16]:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-group-bench."))
        folder.chmod(0o755)
        try:
            run(build, folder, n)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
