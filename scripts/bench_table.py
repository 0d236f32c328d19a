#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks of an optimised build and prints one table: what, figure, beside what (ratio). See bench.sh."""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77
MIB = 1 << 20


class Skip(Exception):
    pass


class Table:
    def head(self, title):
        print(f"\n{title}\n{'-' * len(title)}", flush=True)

    def row(self, what, figure, ratio=""):
        print(f"  {what:<52} {figure:>20}   {ratio}".rstrip(), flush=True)

    def skip(self, title, why):
        self.head(title)
        print(f"  skipped: {why}", flush=True)


def output(*command, build):
    env = dict(os.environ, LIFEBOAT_BUILD=str(build), LIFEBOAT_NBDKIT_PLUGIN=str(build / "src/nbd/nbdkit-lifeboat-plugin.so"))
    p = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if p.returncode:
        raise Skip((p.stderr.strip().splitlines() or [f"{command[0]} ended with {p.returncode}"])[-1])
    return p.stdout


def need(*tools):
    for tool in tools:
        if not shutil.which(tool):
            raise Skip(f"{tool} is missing; run `make deps`")


def bench_capture(t, build, folder, quick):
    """bare: no capture; captured: into the ring, and consumed; marked: in debt, ranges only."""
    if os.geteuid() != 0:
        raise Skip("needs root: loop devices and BPF")
    bare = {}
    for line in output(build / "tests/bench/capture_bench", build=build).splitlines():
        m = re.match(r"(\w+)\s+(\d+) B:\s+([\d.]+) GiB/s,\s+(\d+) ns per write(?:,\s+(\d+) ns in the program, ([\d.]+) GiB/s)?", line)
        if not m:
            continue
        how, size, ns = m[1], int(m[2]), float(m[4])
        bare.setdefault(size, ns)
        extra = "" if how == "bare" else f"{ns / bare[size]:.2f} x bare"
        if m[5]:
            extra += f", {m[5]} ns in the program"
        t.row(f"{how}, writes of {size} B", f"{m[4]} ns, {m[3]} GiB/s", extra + (", in debt" if "in debt" in line else ""))


def bench_hrl(t, build, folder, quick):
    for line in output(build / "tests/bench/hrl_bench", build=build).splitlines():
        if m := re.match(r"build\s+(\d+)-byte writes, (.*?)\s+(\d+) MB/s", line):
            t.row(f"build, writes of {m[1]} B {m[2]}", f"{m[3]} MB/s")
        elif m := re.match(r"(.*?)\s+zstd (\d+)\s+check\s+(\d+)\s+seal\s+(\d+)\s+open\s+(\d+) MB/s, to (\d+) %", line):
            t.row(f"seal, {m[1]}, zstd {m[2]}", f"{m[4]} MB/s", f"to {m[6]} % of its size")
            t.row("  open the same", f"{m[5]} MB/s", f"{float(m[5]) / float(m[4]):.1f} x seal")


def bench_process(t, build, folder, quick):
    for line in output("/usr/bin/python3", TOP / "tests/bench/process_bench.py", folder, build=build).splitlines():
        r = json.loads(line)
        t.row(f"{r['machines']} machines, segments of {r['segment']}, durable", f"{r['acknowledged_mb_per_s']} MB/s",
              f"{r['segments_per_s']} segments/s; {r['in_vault_mb_per_s'] / r['acknowledged_mb_per_s']:.2f} x into the vault")


def bench_store(t, build, folder, quick):
    for line in output("/usr/bin/python3", TOP / "tests/bench/store_bench.py", *(["--quick"] if quick else []), build=build).splitlines():
        r = json.loads(line)
        if "skipped" in r:
            t.row(f"{r['store']}: {r['skipped']}", "-")
            continue
        t.row(f"{r['store']}, objects of 8 MiB, {r['threads']} at a time", f"{r['mb_per_s']} MB/s", f"{r['ratio']} x a loop of curl")


def opened_row(t, line, first=None):
    """A line of `open a point`; the seconds it took, or None for another line."""
    m = re.match(r"open a point, (.*?): ([\d.]+) s \((\d+) extents.*?, ([\d.]+) s of CPU, peak memory (\d+ MiB)", line)
    if not m:
        return None
    seconds = float(m[2])
    t.row(f"open a point of {m[3]} extents, {m[1]}", f"{seconds * 1000:.0f} ms",
          (f"{seconds / first:.2f} x the first, " if first else "") + f"{m[4]} s of CPU, {m[5]} of memory")
    return seconds


def bench_vault(t, build, folder, quick):
    opened = None
    for line in output(build / "tests/bench/vault_bench", folder, *(["200000", "256"] if quick else []), build=build).splitlines():
        seconds = opened_row(t, line, opened)
        opened = opened or seconds
        if seconds is None and ": " in line:
            what, figure = line.rsplit(": ", 1)
            t.row(what, figure)


def bench_folded(t, build, folder, quick):
    for line in output(build / "tests/bench/folded_bench", folder, *(["500000"] if quick else []), build=build).splitlines():
        if opened_row(t, line) is None and ": " in line:
            what, figure = line.rsplit(": ", 1)
            figure, _, more = figure.partition(" (")
            t.row(what, figure, more.rstrip(")"))


def bench_list(t, build, folder, quick):
    for line in output(build / "tests/bench/list_bench", folder, *(["100"] if quick else []), build=build).splitlines():
        if m := re.match(r"(.*?): (\d+) calls, (\d+) names, (\d+) ms", line):
            t.row(m[1], f"{m[2]} calls", f"{m[3]} names listed, {m[4]} ms")
        else:
            t.row(line, "")


def bench_fold(t, build, folder, quick):
    """In memory where there is some: bytes are counted, not time."""
    with tempfile.TemporaryDirectory(prefix="lb-bench.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else folder) as memory:
        for line in output(build / "tests/bench/fold_bench", memory, *(["64", "48"] if quick else []), build=build).splitlines():
            if m := re.match(r"(\w+): write amplification ([\d.]+) \(worst ([\d.]+)\), space ([\d.]+) \(worst ([\d.]+)\), journal (\d+ MiB)", line):
                t.row(f"{m[1]} overwrites: put, beside the journal", f"{m[2]}", f"at worst {m[3]}, of {m[6]}; aim: 1.5")
                t.row("  stored, beside what live image and points need", f"{m[4]}", f"at worst {m[5]}; aim: 1.3")


def bench_recovery(t, build, folder, quick):
    need("nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-system-x86_64")
    r = json.loads(output("/usr/bin/python3", TOP / "tests/bench/recovery_bench.py", "--build", build, "--size-mib", 256 if quick else 1024, build=build))
    t.row("RTO: from the command to a running VM", f"{r['rto_ms_median']:.0f} ms", f"at most {r['rto_ms_max']:.0f} ms")
    t.row("open a point over NBD", f"{r['open_s'] * 1000:.0f} ms")
    copy = r["nbdcopy_data_mib_per_s"]
    t.row("nbdcopy of a point", f"{copy} MiB/s")
    for form in ("raw", "qcow2"):
        t.row(f"export as {form}", f"{r[f'export_{form}_data_mib_per_s']} MiB/s",
              f"{r[f'export_{form}_data_mib_per_s'] / copy:.2f} x nbdcopy")


def bench_memory(t, build, folder, quick):
    r = json.loads(output("/usr/bin/python3", TOP / "tests/bench/agent_memory.py", "--seconds", 5 if quick else 15, build=build))
    for name, most in r["most_bytes"].items():
        t.row(f"lifeboat-{name} at {r['writes_per_s']} writes/s", f"{most / MIB:.1f} MiB",
              f"{most / max(r['idle_bytes'][name], 1):.1f} x idle; promised: < {r['promise_bytes'] >> 20} MiB beside its ring"
              f"{'' if most < r['promise_bytes'] else ': NOT KEPT'}")


def bench_group(t, build, folder, quick):
    for line in output("/usr/bin/python3", TOP / "tests/bench/group_bench.py", *([3] if quick else [3, 16]), build=build).splitlines():
        r = json.loads(line)
        t.row(f"{r['members']} members frozen for a shared point, at load {r['load']}", f"{r['frozen_ms_median']} ms",
              f"at most {r['frozen_ms_max']} ms of {r['points']} points; freeze {r['freeze_ms_median']}, mark {r['mark_ms_median']}, "
              f"thaw {r['thaw_ms_median']} ms; aim: {100 if r['members'] <= 3 else 500}")


def bench_resync(t, build, folder, quick):
    for line in output("/usr/bin/python3", TOP / "tests/bench/resync_bench.py", "--mib", 128 if quick else 512, build=build).splitlines():
        r = json.loads(line)
        t.row(f"{r['case']}, read of the store per GiB", f"{r['process_read_mib_per_gib']} MiB",
              f"{r['wire_mib_per_gib']} MiB over the wire, {r['sent_mib_per_gib']} of them data; {r['s_per_gib']} s, {r['agent_cpu_s_per_gib']} s of CPU")


BENCHES = [("Capture: cost of a write to a memory disk", bench_capture), ("Segments: build, seal, open; one core", bench_hrl),
           ("Process server: taking segments in", bench_process), ("Object stores: uploads", bench_store),
           ("Vault: write, open, read; aim: open in 2 s and 512 MiB, a frame a read", bench_vault),
           ("Vault: a folded journal, opened at its points; aim: 2 s, 512 MiB", bench_folded),
           ("Vault: what is asked of a large one", bench_list),
           ("Folding: 15 days of a database, by the default ladder", bench_fold),
           ("Resync after a reboot", bench_resync), ("Replication groups", bench_group), ("Recovery", bench_recovery),
           ("Agent: anonymous memory at full churn", bench_memory)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller data: shorter, and less steady figures")
    parser.add_argument("build", type=pathlib.Path)
    options = parser.parse_args()
    table = Table()
    for title, bench in BENCHES:
        with tempfile.TemporaryDirectory(prefix="lb-bench.") as folder:
            try:
                rows = []
                collect = Table()
                collect.row = lambda *row, rows=rows: rows.append(row)
                bench(collect, options.build.resolve(), folder, options.quick)
                table.head(title)
                for row in rows:
                    table.row(*row)
            except Skip as why:
                table.skip(title, why)
    return 0


if __name__ == "__main__":
    sys.exit(main())
