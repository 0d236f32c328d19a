# SPDX-License-Identifier: Apache-2.0
"""Writers on a mounted filesystem, run as a program until SIGTERM: `fs_load.py FOLDER LOG SEED`.

What a copy of it lacks of what was durable by a time, printed as JSON: `fs_load.py FOLDER LOG SEED TIME_NS`.

Three at once: numbered files that are fsynced (each logged with the time after its fsync), an append-only file that is
fsynced after every record (its length is logged likewise), and churn that is never synced.
"""
import hashlib
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

RECORD_BYTES = 256
FILES_PER_FOLDER = 64
FILE_BYTES_MAX = 20000
FILES_MAX = 3000    # a disk that syncs at once is not filled by them
CHURN_FILES = 150
CHURN_BYTES_MAX = 60000


def content(seed, n, size_bytes):
    return hashlib.shake_128(f"{seed}:{n}".encode()).digest(size_bytes)


def size_of(seed, n):
    return random.Random(f"{seed}:{n}").randrange(1, FILE_BYTES_MAX)


def record(seed, n):
    return content(f"{seed}-append", n, RECORD_BYTES)


def numbered(folder, n):
    return pathlib.Path(folder) / f"n{n // FILES_PER_FOLDER}" / f"{n}"


def sync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Log:
    def __init__(self, path):
        self.file = open(path, "a")
        self.lock = threading.Lock()

    def durable(self, what, n):
        now = time.time_ns()
        with self.lock:
            self.file.write(f"{what} {n} {now}\n")
            self.file.flush()


def write_files(folder, log, seed, stop):
    for n in range(FILES_MAX):
        if stop.is_set():
            return
        path = numbered(folder, n)
        if not path.parent.exists():
            path.parent.mkdir()
            sync_folder(folder)
        with open(path, "xb") as f:
            f.write(content(seed, n, size_of(seed, n)))
            f.flush()
            os.fsync(f.fileno())
        sync_folder(path.parent)
        log.durable("file", n)
        stop.wait(0.01)


def append(folder, log, seed, stop):
    with open(pathlib.Path(folder) / "append", "xb", buffering=0) as f:
        sync_folder(folder)
        n = 0
        while not stop.is_set():
            f.write(record(seed, n))
            os.fdatasync(f.fileno())
            n += 1
            log.durable("append", n)
            stop.wait(0.005)


def churn(folder, seed, stop):
    chance = random.Random(f"{seed}-churn")
    folder = pathlib.Path(folder) / "churn"
    folder.mkdir()
    while not stop.is_set():
        path, other = (folder / f"{chance.randrange(CHURN_FILES)}" for _ in range(2))
        what = chance.randrange(4)
        if what <= 1:
            path.write_bytes(chance.randbytes(chance.randrange(CHURN_BYTES_MAX)))
        elif not path.exists():
            continue
        elif what == 2:
            path.unlink()
        elif chance.random() < 0.5:
            os.truncate(path, chance.randrange(CHURN_BYTES_MAX))
        else:
            path.rename(other)
        stop.wait(0.004)


def missing(folder, log_path, seed, time_ns):
    """(how many files and records had to be there, what of them isn't)."""
    lines = [line.split() for line in pathlib.Path(log_path).read_text().split("\n")[:-1]]
    due = [(what, int(n)) for what, n, at_ns in lines if int(at_ns) <= time_ns]
    wrong = []
    for what, n in due:
        path = numbered(folder, n)
        if what == "file" and not (path.is_file() and path.read_bytes() == content(seed, n, size_of(seed, n))):
            wrong.append(f"file {n}")
    records = max((n for what, n in due if what == "append"), default=0)
    path = pathlib.Path(folder) / "append"
    have = path.read_bytes() if path.is_file() else b""
    wrong += [f"record {n}" for n in range(records)
              if have[n * RECORD_BYTES:(n + 1) * RECORD_BYTES] != record(seed, n)]
    return len([1 for what, _ in due if what == "file"]) + records, wrong


def main(folder, log_path, seed):
    stop, failed = threading.Event(), []
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log = Log(log_path)

    def guarded(work, *args):
        try:
            work(*args, stop)
        except OSError as e:
            failed.append(f"{work.__name__}: {e}")
            stop.set()

    threads = [threading.Thread(target=guarded, args=args) for args in
               ((write_files, folder, log, seed), (append, folder, log, seed), (churn, folder, seed))]
    for t in threads:
        t.start()
    while not stop.wait(0.5):
        pass
    for t in threads:
        t.join()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(missing(*sys.argv[1:4], int(sys.argv[4]))))
    else:
        main(*sys.argv[1:])
