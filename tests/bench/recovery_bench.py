#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Recovery in figures: time from the command to a running VM (RTO), and how fast a point is read.

usage: recovery_bench.py [--size-mib N] [--points N] [--runs N] [--build FOLDER]

The disk is half data that compresses about 2:1, a quarter that doesn't, a quarter holes. What is read comes from the
page cache: the figures are ours, not the disk's. Prints one JSON object.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20
ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_disk(path, size_mib):
    half = os.urandom(MIB // 2)
    with open(path, "wb") as f:
        for n in range(size_mib * 3 // 4):
            # every other 512 bytes of the compressible part are the same
            piece = os.urandom(MIB) if n % 3 == 0 else b"".join(
                half[i:i + 512] + bytes([n & 255]) * 512 for i in range(0, MIB // 2, 512))
            f.write(piece)
        f.truncate(size_mib * MIB)


def timed(command, **how):
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **how)
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build")))
    options = parser.parse_args()
    build = options.build.resolve()
    plugin = build / "src/nbd/nbdkit-lifeboat-plugin.so"
    recover = build / "tests/tools/recover"
    environment = dict(os.environ, LIFEBOAT_NBDKIT_PLUGIN=str(plugin))

    with tempfile.TemporaryDirectory(prefix="lbbench.") as name:
        folder = pathlib.Path(name)
        passphrase = folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text("recovery bench\n")
        make_disk(folder / "disk.img", options.size_mib)
        subprocess.run([build / "tests/tools/mkvault", "--vault", f"dir:{folder}/vault", "--passphrase-file", passphrase,
                        "--machine", "bench", "--points", str(options.points), f"--disk=vda={folder}/disk.img"],
                       check=True, stdout=subprocess.DEVNULL)
        stored = sum(p.stat().st_size for p in (folder / "vault").rglob("*") if p.is_file())
        vault = ["--vault", f"dir:{folder}/vault", "--passphrase-file", passphrase, "--machine", "bench"]
        served = ["nbdkit", "-U", "-", plugin, f"vault=dir:{folder}/vault", f"passphrase-file={passphrase}", "machine=bench"]

        rto_ms = []
        for n in range(options.runs):
            out = subprocess.run([recover, "begin", *vault, "--folder", folder / "vm", "--name", f"vm{n}", "--fabric", "qemu",
                                  "--isolated"], check=True, env=environment, capture_output=True, text=True).stdout
            rto_ms.append(json.loads(out)["rto_ms"])
            subprocess.run([recover, "cleanup", "--folder", folder / "vm", "--name", f"vm{n}"], check=True, env=environment)

        open_s = min(timed([*served, "--run", "nbdinfo --size $uri"]) for _ in range(3))
        copy_s = min(timed([*served, "--run", 'nbdcopy "$uri" null:']) for _ in range(3))
        raw_s = timed([recover, "export", *vault, "--point", "latest", "--path", folder / "out.raw"], env=environment)
        qcow2_s = timed([recover, "export", *vault, "--point", "latest", "--path", folder / "out.qcow2", "--format", "qcow2"],
                        env=environment)
        data_mib = options.size_mib * 3 / 4
        print(json.dumps({
            "disk_mib": options.size_mib, "data_mib": data_mib, "stored_mib": round(stored / MIB), "points": options.points,
            "rto_ms_median": statistics.median(rto_ms), "rto_ms_max": max(rto_ms),
            "open_s": round(open_s, 3),
            "nbdcopy_data_mib_per_s": round(data_mib / (copy_s - open_s)),
            "export_raw_data_mib_per_s": round(data_mib / raw_s),
            "export_qcow2_data_mib_per_s": round(data_mib / qcow2_s),
        }, indent=1))


if __name__ == "__main__":
    main()
