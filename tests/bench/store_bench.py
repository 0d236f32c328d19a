#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Uploads to object stores of this machine (Azurite, radosgw), beside a loop of plain curl processes of the same concurrency on the
same server, in turns. One JSON line per case; MB are 10^6 bytes.

LIFEBOAT_BUILD=build-bench tests/bench/store_bench.py [--quick]
"""
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from object_stores import ACCOUNT, Azurite, Missing, Radosgw, Tool, account_sas  # noqa: E402

OBJECT_BYTES = 8 << 20
ROUNDS = 5  # the middle one counts


def curl_words(server, container, name, config):
    """One upload by curl; what is secret is in a file of options."""
    host = f"http://127.0.0.1:{server.port}"
    words = ["curl", "-sSf", "-o", "/dev/null", "-K", config, "-H", "Content-Type: application/octet-stream", "-H",
             "If-None-Match: *", "-T"]
    if server.kind == "azure":
        return [*words, "@", "-H", "Expect:", "-H", "x-ms-blob-type: BlockBlob", "-H", "x-ms-version: 2021-12-02"], \
            f"{host}/{ACCOUNT}/{container}/{name}?{account_sas(time.time() + 3600)}"
    return [*words, "@", "--aws-sigv4", "aws:amz:us-east-1:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"], \
        f"{host}/{container}/{name}"


def by_curl(server, container, folder, objects, threads):
    data, config = folder / "data", folder / "curlrc"
    data.write_bytes(os.urandom(OBJECT_BYTES))
    config.touch(mode=0o600)
    if server.kind == "s3":
        config.write_text(f'user = "{server.ACCESS}:{server.SECRET}"\n')
    run = uuid.uuid4().hex

    def one(i):
        words, url = curl_words(server, container, f"{run}/{i}", config)
        subprocess.run([w if w != "@" else str(data) for w in words] + [url], check=True)

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(objects)))
    return time.monotonic() - start


def by_us(tool, objects, threads):
    answer = tool("upload", f"{uuid.uuid4().hex}/", OBJECT_BYTES, objects, threads)
    assert answer["r"] == 0, answer
    return answer["seconds"]


def middle(values):
    return sorted(values)[len(values) // 2]


def compare(server, objects, threads, rounds):
    container = f"bench{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder, Tool(server.url(container), "--create") as tool:
        folder = pathlib.Path(folder)
        by_curl(server, container, folder, threads, threads)  # warm
        by_us(tool, threads, threads)
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(by_curl(server, container, folder, objects, threads))
            ours.append(by_us(tool, objects, threads))
            for name in tool.names():
                tool("remove", name)
    total = objects * OBJECT_BYTES / 1e6
    print(json.dumps({"store": server.kind, "threads": threads, "objects": objects, "mb_per_s": round(total / middle(ours), 1),
                      "curl_mb_per_s": round(total / middle(theirs), 1), "ratio": round(middle(theirs) / middle(ours), 2)}), flush=True)


def main():
    quick = "--quick" in sys.argv[1:]
    for kind in (Azurite, Radosgw):
        try:
            server = kind()
        except Missing as e:
            print(json.dumps({"store": kind.kind, "skipped": str(e)}), flush=True)
            continue
        try:
            for threads in (4,) if quick else (1, 4, 8):
                compare(server, 16 if quick else 24, threads, 3 if quick else ROUNDS)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
