#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How fast a process server takes segments in: agents and server share this machine's cores, over mutual TLS on loopback,
each segment durable in the cache before its acknowledgement. Prints one JSON line per case, bytes before compression.

LIFEBOAT_BUILD=build tests/bench/process_bench.py [FOLDER]    (FOLDER: on the disk that is meant; default a temporary one)
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

for part in ("guest", "e2e"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / part))

from process_site import Site  # noqa: E402


def positions_in_vault(site, last):
    return all((site.report(m).get("vault_epoch"), site.report(m).get("vault_seq")) == (1, last) for m in site.machines)


def run(folder, machines, segment, segments, compressible):
    site = Site(folder, machines=machines)
    try:
        site.start()
        for machine in site.machines:
            site.journal(machine)
        start = time.monotonic()
        agents = [site.agent(m, "--segments", segments, "--data-bytes", segment, "--compressible", compressible)
                  for m in site.machines]
        for agent in agents:
            _, text = agent.communicate()
            assert agent.returncode == 0, text
        acknowledged = time.monotonic() - start
        while not positions_in_vault(site, segments - 1):
            time.sleep(0.05)
        in_vault = time.monotonic() - start
        site.kill()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = {"K": 1 << 10, "M": 1 << 20}[segment[-1]] * int(segment[:-1])
        total = machines * segments * size
        print(json.dumps({"machines": machines, "segment": segment, "compressible_percent": compressible,
                          "acknowledged_mb_per_s": round(total / acknowledged / 1e6, 1),
                          "segments_per_s": round(machines * segments / acknowledged, 1),
                          "in_vault_mb_per_s": round(total / in_vault / 1e6, 1),
                          "peak_rss_mib_of_any_child": used.ru_maxrss >> 10}), flush=True)
    finally:
        site.close()


def main():
    with tempfile.TemporaryDirectory(prefix="lb-process-bench.", dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for n, case in enumerate([(1, "8M", 60, 50), (2, "8M", 40, 50), (4, "8M", 20, 0), (1, "64K", 500, 50), (4, "64K", 200, 50)]):
            run(f"{folder}/{n}", *case)


if __name__ == "__main__":
    main()
