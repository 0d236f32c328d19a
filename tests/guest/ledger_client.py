#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The ledger's client: adds transactions from outside, later proves what came back.

    ledger_client.py load --port P --log FILE [--rate N] [--connections N] [--seconds S | --count N] [--postgres]
    ledger_client.py verify --port P --log FILE [--acked-before NS] [--json] [--postgres]

`load` sends one transaction at a time on each connection, as fast as they are
acknowledged or at --rate, until it is told to stop (SIGTERM, --seconds,
--count) or loses the server. The log, append-only, has a line per event:

    S <n> <amount> <ns>      about to be sent
    A <n> <amount> <ns>      its acknowledgement has arrived

The times are CLOCK_REALTIME of this machine, not of the guest, so they compare
with the times of a process server on this machine. S is stamped before the
bytes leave and A after the answer came: between them lies the moment at which
the transaction became durable.

`verify` asks a ledger (the double's) for all that it holds and exits 0 when

  promise    every transaction acknowledged before --acked-before is there
             (give the time at which the recovery point's cut began; without it,
             all that were acknowledged);
  order      when one is there, every one acknowledged before it was sent is too;
  invention  nothing is there that was not sent with that amount;
  integrity  the database says so itself (SQLite's check; no torn transaction).

It exits 1 when one of them does not hold, and 2 when it could not find out.

With --postgres the ledger is the one in the database of build-debian.sh, and
integrity also means that pgbench's own tables add up and every index is sound.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import time

import postgres

ANSWER_DEADLINE_S = 60
AMOUNT_MAX = 1_000_000
SHOWN_MAX = 10


class LedgerError(Exception):
    pass


class Ledger:
    """A connection to a ledger."""

    def __init__(self, port, host="127.0.0.1", deadline_s=ANSWER_DEADLINE_S):
        try:
            self.socket = socket.create_connection((host, port), deadline_s)
        except OSError as e:
            raise LedgerError(f"no ledger on {host}:{port}: {e}") from e
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def close(self):
        self.stream.close()
        self.socket.close()

    def line(self):
        try:
            text = self.stream.readline()
        except OSError as e:
            raise LedgerError(f"the ledger was lost: {e}") from e
        if not text.endswith(b"\n"):
            raise LedgerError("the ledger closed the connection")
        return text.decode().rstrip("\n")

    def ask(self, request):
        try:
            self.socket.sendall(request.encode() + b"\n")
        except OSError as e:
            raise LedgerError(f"the ledger was lost: {e}") from e
        return self.line()

    def add(self, n, amount):
        answer = self.ask(f"ADD {n} {amount}")
        if answer != f"OK {n}":
            raise LedgerError(f"ADD {n} {amount} was answered {answer!r}")

    def entries(self):
        found = {}
        answer = self.ask("LIST")
        while not answer.startswith("END "):
            match = re.fullmatch(r"(-?\d+) (-?\d+)", answer)
            if not match:
                raise LedgerError(f"LIST was answered {answer!r}")
            found[int(match[1])] = int(match[2])
            answer = self.line()
        if int(answer[4:]) != len(found):
            raise LedgerError(f"LIST gave {len(found)} entries and ended with {answer!r}")
        return found

    def integrity(self):
        return self.ask("INTEGRITY").removeprefix("INTEGRITY ")


class PostgresLedger:
    """The same in PostgreSQL."""

    def __init__(self, port):
        try:
            self.connection = postgres.Connection(port, deadline_s=ANSWER_DEADLINE_S)
        except (OSError, postgres.PostgresError) as e:
            raise LedgerError(f"no PostgreSQL on port {port}: {e}") from e

    def close(self):
        self.connection.close()

    def query(self, text):
        try:
            return self.connection.query(text)
        except OSError as e:
            raise LedgerError(f"PostgreSQL was lost: {e}") from e
        except postgres.PostgresError as e:
            raise LedgerError(f"PostgreSQL refused {text!r}: {e}") from e

    def add(self, n, amount):
        # Statements sent together are one transaction; the answer comes after its commit is on disk.
        self.query(f"INSERT INTO entry VALUES({n}, {amount});"
                   f"UPDATE total SET entries = entries + 1, amount = amount + {amount}")

    def entries(self):
        return {int(n): int(amount) for n, amount in self.query("SELECT n, amount FROM entry")}

    def integrity(self):
        for wrong, check in postgres.INTEGRITY_CHECKS:
            try:
                rows = self.connection.query(check)
            except postgres.PostgresError as e:
                return f"{wrong}: {e}"
            if rows != [("t",)]:
                return wrong
        return "ok"


class Log:
    """The client's own record; each line is one write, so threads and kills don't tear it."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def event(self, kind, n, amount):
        os.write(self.fd, f"{kind} {n} {amount} {time.time_ns()}\n".encode())


def read_log(path):
    """The log's transactions: {n: (amount, sent_ns, acked_ns or None)}."""
    transactions = {}
    with open(path, encoding="ascii") as f:
        for text in f:
            if not text.endswith("\n"):
                break               # the client was killed while it wrote
            kind, n, amount, at_ns = text.split()
            n, amount, at_ns = int(n), int(amount), int(at_ns)
            if kind == "S":
                # Sent again after a reconnection: the first time is the one that counts for order.
                transactions.setdefault(n, (amount, at_ns, None))
            else:
                transactions[n] = (amount, transactions[n][1], at_ns)
    return transactions


def next_number(path):
    return max(read_log(path), default=0) + 1 if os.path.exists(path) else 1


class Load:
    """Adds transactions on several connections until stopped, counted out or cut off."""

    def __init__(self, port, log_path, rate=0.0, connections=1, count=0, connect=Ledger):
        self.first = next_number(log_path)
        self.log = Log(log_path)
        self.port = port
        self.connect = connect
        self.connections = connections
        self.interval_s = connections / rate if rate else 0.0
        self.per_connection = -(-count // connections) if count else None
        self.stopping = threading.Event()
        self.lost = None
        self.acked = 0
        self._lock = threading.Lock()
        self._threads = []

    def start(self):
        for index in range(self.connections):
            thread = threading.Thread(target=self._run, args=(index,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def _run(self, index):
        try:
            ledger = self.connect(self.port)
            self._add(ledger, index)
            ledger.close()
        except LedgerError as e:
            self.lost = self.lost or str(e)

    def _add(self, ledger, index):
        choose = random.Random(self.first + index)
        done = 0
        due = time.monotonic()
        while not self.stopping.is_set() and done != self.per_connection:
            n = self.first + index + done * self.connections
            amount = choose.randint(-AMOUNT_MAX, AMOUNT_MAX)
            self.log.event("S", n, amount)
            ledger.add(n, amount)
            self.log.event("A", n, amount)
            done += 1
            with self._lock:
                self.acked += 1
            due = max(due + self.interval_s, time.monotonic())
            self.stopping.wait(due - time.monotonic())

    def running(self):
        return any(t.is_alive() for t in self._threads)

    def wait(self, timeout_s=None):
        end = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            while thread.is_alive() and (end is None or time.monotonic() < end):
                thread.join(0.2)    # in steps, so that signals are seen

    def stop(self):
        self.stopping.set()
        self.wait(ANSWER_DEADLINE_S)


def verify(transactions, entries, integrity, acked_before=None):
    """Compares a log with what a ledger holds; what is wrong is in lists that are empty when nothing is."""
    acked = {n for n, (_, _, a) in transactions.items() if a is not None}
    promised = {n for n in acked if acked_before is None or transactions[n][2] < acked_before}
    present = set(entries) & set(transactions)
    newest_sent = max((transactions[n][1] for n in present), default=0)
    result = {
        "entries": len(entries),
        "acknowledged": len(acked),
        "promised": len(promised),
        "missing": sorted(promised - set(entries)),
        "out_of_order": sorted(n for n in acked - set(entries) if transactions[n][2] < newest_sent),
        "invented": sorted(n for n, amount in entries.items()
                           if n not in transactions or transactions[n][0] != amount),
        "beyond_point": len(present - promised),
        "lost_after_point": len(acked - set(entries) - promised),
        "integrity": integrity,
    }
    result["ok"] = integrity == "ok" and not (result["missing"] or result["out_of_order"] or result["invented"])
    return result


def report(result):
    lines = [f"{result['promised']} transactions were promised by the point ({result['acknowledged']} acknowledged in "
             f"all); the ledger holds {result['entries']}, {result['beyond_point']} of them newer"]
    for key, text in (("missing", "promised and missing"), ("out_of_order", "missing, though later ones are there"),
                      ("invented", "there, though never sent so")):
        if result[key]:
            shown = ", ".join(map(str, result[key][:SHOWN_MAX]))
            more = f" and {len(result[key]) - SHOWN_MAX} more" if len(result[key]) > SHOWN_MAX else ""
            lines.append(f"{len(result[key])} {text}: {shown}{more}")
    if result["integrity"] != "ok":
        lines.append(f"the database is damaged: {result['integrity']}")
    lines.append("every promise is kept" if result["ok"] else "THE PROMISE IS BROKEN")
    return "\n".join(lines)


def do_load(args):
    load = Load(args.port, args.log, args.rate, args.connections, args.count, args.connect).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: load.stopping.set())
    load.wait(args.seconds or None)
    load.stop()
    print(f"{load.acked} transactions acknowledged" + (f"; {load.lost}" if load.lost else ""))
    return 0


def do_verify(args):
    ledger = args.connect(args.port)
    entries = ledger.entries()
    result = verify(read_log(args.log), entries, ledger.integrity(), args.acked_before)
    ledger.close()
    print(json.dumps(result, indent=1) if args.json else report(result))
    return 0 if result["ok"] else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    load = verbs.add_parser("load")
    load.add_argument("--rate", type=float, default=0.0, help="transactions a second at most, over all connections")
    load.add_argument("--connections", type=int, default=1)
    load.add_argument("--seconds", type=float, default=0.0)
    load.add_argument("--count", type=int, default=0)
    load.set_defaults(run=do_load)
    check = verbs.add_parser("verify")
    check.add_argument("--acked-before", type=int, metavar="NS")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=do_verify)
    for verb in (load, check):
        verb.add_argument("--port", type=int, required=True)
        verb.add_argument("--log", required=True)
        verb.add_argument("--postgres", dest="connect", action="store_const", const=PostgresLedger, default=Ledger)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LedgerError, OSError) as e:
        print(f"ledger_client.py: {e}", file=sys.stderr)
        sys.exit(2)
