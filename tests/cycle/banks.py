# SPDX-License-Identifier: Apache-2.0
"""The banks from outside: orders to them, the record of what they confirmed, and the verdict over their ledgers."""
import dataclasses
import threading
import time

PORT = 7000
OPENING_BALANCE = 1_000_000
ANSWER_S = 120
AGAIN_S = 0.2


class BankError(Exception):
    pass


class Bank:
    """One of them, at an address that both sites have; `connect(address, timeout_s)` makes a socket at the right one."""

    def __init__(self, number, address):
        self.number, self.address = number, address

    def ask(self, connect, command, last, timeout_s=ANSWER_S):
        """The lines of an answer, up to the one that begins with `last`."""
        lines = []
        try:
            with connect((self.address, PORT), timeout_s) as s, s.makefile("rwb") as f:
                s.settimeout(timeout_s)
                f.write(command.encode() + b"\n")
                f.flush()
                for line in f:
                    lines.append(line.decode().rstrip("\n"))
                    if lines[-1].startswith(last):
                        return lines
        except OSError as e:
            raise BankError(f"bank {self.number} does not answer {command}: {e}") from e
        raise BankError(f"bank {self.number} broke off its answer to {command} after {lines[-1:]}")

    def ledger(self, connect, timeout_s=ANSWER_S):
        *lines, end = self.ask(connect, "LIST", "END ", timeout_s)
        if end != f"END {len(lines)}":
            raise BankError(f"bank {self.number} says {end} after {len(lines)} lines")
        return Ledger(self.number, lines)


class Ledger:
    """{(other bank, n): amount} of what was sent and what was received."""

    def __init__(self, number, lines):
        self.number = number
        self.sent, self.received = {}, {}
        for line in lines:
            kind, other, n, amount = line.split()
            book = self.sent if kind == "S" else self.received
            if (int(other), int(n)) in book:
                raise BankError(f"the ledger of bank {number} has {kind} {other} {n} twice")
            book[int(other), int(n)] = int(amount)


@dataclasses.dataclass
class Verdict:
    total: int
    expected: int
    transfers: int
    on_way: int
    missing: list     # confirmed before the point, and not there
    invented: list    # received and never sent

    @property
    def ok(self):
        return self.total == self.expected and not self.missing and not self.invented

    def __str__(self):
        text = f"{self.transfers} transfers, {self.on_way} on their way: {self.total} of {self.expected}"
        if self.missing:
            text += f"; {len(self.missing)} CONFIRMED ONES ARE MISSING, such as {self.missing[:3]}"
        if self.invented:
            text += f"; {len(self.invented)} RECEIVED ONES WERE NEVER SENT, such as {self.invented[:3]}"
        return text


class Town:
    """All banks, and what they confirmed: {(from, to, n): (amount, when we heard of it, in ns)}."""

    def __init__(self, banks):
        self.banks = banks
        self.confirmed = {}
        self.heard = 0
        self.lock = threading.Lock()
        self.watchers = []

    # ---- at work

    def go(self, connect):
        """Begins to watch them, then lets them send."""
        self.watchers = [Watcher(self, bank, connect) for bank in self.banks]
        for w in self.watchers:
            w.ready()
        for bank in self.banks:
            bank.ask(connect, "GO", "OK")

    def stop(self, connect):
        for bank in self.banks:
            bank.ask(connect, "STOP", "OK")
        self.unwatch()

    def unwatch(self):
        """They are gone, or quiet."""
        for w in self.watchers:
            w.stop()
        self.watchers = []

    def hear(self, sender, to, n, amount):
        now_ns = time.time_ns()
        with self.lock:
            self.confirmed[sender, to, n] = (amount, now_ns)
            self.heard += 1

    # ---- judged

    def judge(self, ledgers, before_ns):
        """before_ns: {bank: the time up to which all that we heard of must be there}, None for everything.

        What comes out is what counts from then on: a transfer after the point is gone, and its number may come again.
        """
        by = {ledger.number: ledger for ledger in ledgers}
        missing = []
        with self.lock:
            confirmed, self.confirmed = self.confirmed, {}
        for (sender, to, n), (amount, heard_ns) in confirmed.items():
            sent = by[sender].sent.get((to, n)) == amount
            received = by[to].received.get((sender, n)) == amount
            if (not sent and (before_ns is None or heard_ns < before_ns[sender])) or \
                    (not received and (before_ns is None or heard_ns < before_ns[to])):
                missing.append((sender, to, n, amount))
            elif sent and received:
                self.confirmed[sender, to, n] = (amount, heard_ns)
        return Verdict(*money(ledgers), missing=missing, invented=invented(by))


def money(ledgers):
    """(all money in accounts and on its way, what it should be, transfers, those on their way)."""
    by = {ledger.number: ledger for ledger in ledgers}
    balances = sum(OPENING_BALANCE - sum(ledger.sent.values()) + sum(ledger.received.values()) for ledger in ledgers)
    on_way = [amount for ledger in ledgers for (to, n), amount in ledger.sent.items()
              if (ledger.number, n) not in by[to].received]
    return balances + sum(on_way), len(ledgers) * OPENING_BALANCE, sum(len(ledger.sent) for ledger in ledgers), len(on_way)


def invented(by):
    return [(sender, ledger.number, n, amount) for ledger in by.values() for (sender, n), amount in ledger.received.items()
            if by[sender].sent.get((ledger.number, n)) != amount]


class Watcher:
    """Hears what one bank confirms; a connection that breaks is made anew, and what was said meanwhile is not heard."""

    def __init__(self, town, bank, connect):
        self.town, self.bank, self.connect = town, bank, connect
        self.stopped = threading.Event()
        self.watching = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def ready(self):
        if not self.watching.wait(ANSWER_S):
            raise BankError(f"bank {self.bank.number} can't be watched")

    def run(self):
        while not self.stopped.is_set():
            try:
                self.watch()
            except OSError:
                pass
            self.stopped.wait(AGAIN_S)

    def watch(self):
        with self.connect((self.bank.address, PORT), ANSWER_S) as s, s.makefile("rwb") as f:
            self.socket = s
            f.write(b"WATCH\n")
            f.flush()
            for line in f:
                word, *numbers = line.split()
                if word == b"OK":
                    s.settimeout(None)
                    self.watching.set()
                elif word == b"DONE" and line.endswith(b"\n"):
                    self.town.hear(*map(int, numbers))
                if self.stopped.is_set():
                    return

    def stop(self):
        self.stopped.set()
        try:
            self.socket.shutdown(2)
        except (AttributeError, OSError):
            pass
        self.thread.join(ANSWER_S)
