#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How much memory the agent takes while its machine writes as fast as it can.

This host is the protected machine: loop disks, capture and agent as processes, a whole site. Writers run without a limit;
RssAnon of lifeboat-mobility and lifeboat-capture is sampled meanwhile. The ring is mapped, shared and of fixed size: it
isn't in RssAnon. The promise is less than 32 MiB beside the ring, at any churn.

usage: agent_memory.py [--seconds N] [--disks N] [--writers N] [--ring SIZE]      (root; LIFEBOAT_BUILD names the build)
Prints one JSON object; ends with 77 and the reason where this host can't capture.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/e2e"), str(TOP / "tests/guest")]

from host_agent import HostAgent, LoopDisk  # noqa: E402
from lifeboat_site import Site  # noqa: E402

SKIPPED = 77
SAMPLE_INTERVAL_S = 0.02
PROMISE_BYTES = 32 << 20


def anonymous_bytes(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def why_not(build):
    if os.geteuid() != 0:
        return "needs root: loop devices and BPF"
    p = subprocess.run([build / "src/capture/lifeboat-capture", "--probe"], capture_output=True, text=True)
    if p.returncode != 0:
        return p.stderr.strip()
    probe = json.loads(p.stdout)
    return None if probe.get("can_capture") else probe.get("reason", "this host can't capture")


def sample_while(writers, agent):
    most = {"mobility": 0, "capture": 0}
    samples = 0
    while writers.poll() is None:
        for name, process in (("mobility", agent.agent), ("capture", agent.capture)):
            most[name] = max(most[name], anonymous_bytes(process.pid))
        samples += 1
        time.sleep(SAMPLE_INTERVAL_S)
    return most, samples


def measure(build, folder, options):
    site = Site(build, folder / "site").make().start()
    agent = HostAgent(site, folder / "agent").enrol().start()
    disks = []
    try:
        disks = [LoopDisk(folder / f"disk{i}.img", 64) for i in range(options.disks)]
        agent.protect(disks, ring=options.ring)
        idle = {"mobility": anonymous_bytes(agent.agent.pid), "capture": anonymous_bytes(agent.capture.pid)}
        writers = subprocess.Popen([build / "tests/tools/oracle_write", "--log", folder / "writes.log", "--writers",
                                    str(options.writers), "--seconds", str(options.seconds), "--rate", "0", "--seed", "1",
                                    *[d.device for d in disks]], stdout=subprocess.PIPE, text=True)
        most, samples = sample_while(writers, agent)
        written = json.loads(writers.communicate()[0])
        epochs = max((p["epoch"] for p in site.points(agent.name)), default=0)
    finally:
        agent.close()
        site.stop()
        for d in disks:
            d.close()
    return {"idle_bytes": idle, "most_bytes": most, "samples": samples, "writes": written.get("writes"),
            "writes_per_s": round(written.get("writes", 0) / options.seconds), "epochs": epochs, "ring": options.ring,
            "promise_bytes": PROMISE_BYTES, "kept": max(most.values()) < PROMISE_BYTES}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--disks", type=int, default=3)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--ring", default="16M")
    options = parser.parse_args()
    build = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", TOP / "build")).resolve()
    reason = why_not(build)
    if reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return SKIPPED
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-memory."))
    folder.chmod(0o755)  # the agent runs as nobody
    try:
        print(json.dumps(measure(build, folder, options)))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
