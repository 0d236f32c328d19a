# SPDX-License-Identifier: Apache-2.0
"""The banks of `make check-cycle` and their judge: a judge that finds nothing would prove nothing."""
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/cycle"))
import banks  # noqa: E402
from guest import free_port  # noqa: E402
from provoked import wait_for  # noqa: E402

HOSTS = {1: "127.0.0.1", 2: "127.0.0.2", 3: "127.0.0.3"}


def connect(address, timeout_s):
    return socket.create_connection(address, timeout_s)


@pytest.fixture
def port(monkeypatch):
    chosen = free_port()
    monkeypatch.setattr(banks, "PORT", chosen)
    return chosen


@pytest.fixture
def town(build, folder, port):
    running = {}

    def start(number):
        others = [f"{n}={a}" for n, a in HOSTS.items() if n != number]
        running[number] = subprocess.Popen([build / "tests/guest/bank", folder / f"ledger{number}", HOSTS[number], str(port), "1",
                                            str(number), *others], stdout=subprocess.PIPE, text=True)
        assert running[number].stdout.readline() == "bank: ready\n"

    def kill(number):
        running[number].send_signal(signal.SIGKILL)
        running[number].wait()
        running[number].stdout.close()

    for number in HOSTS:
        start(number)
    made = banks.Town([banks.Bank(n, a) for n, a in HOSTS.items()])
    made.start, made.kill = start, kill
    yield made
    made.unwatch()
    for number in HOSTS:
        kill(number)


def ledgers(town):
    return [b.ledger(connect) for b in town.banks]


def test_banks_send_money_bear_kills_and_their_ledgers_add_up(town, folder):
    town.go(connect)
    wait_for(lambda: town.heard > 50, "transfers")
    town.kill(2)
    with open(folder / "ledger2", "a") as f:
        f.write("S 1 99999")                       # the power failed in the middle of a line
    town.start(2)
    town.banks[1].ask(connect, "GO", "OK")
    heard = town.heard
    wait_for(lambda: town.heard > heard + 50, "transfers after the kill")
    town.stop(connect)
    verdict = town.judge(ledgers(town), None)
    assert verdict.ok and verdict.total == 3 * banks.OPENING_BALANCE and verdict.transfers >= 100, verdict
    assert town.judge(ledgers(town), None).ok      # what was judged once is still there


def test_the_judge_finds_what_is_missing_and_what_was_invented():
    def books(*lines):
        return [banks.Ledger(n, [line for m, line in lines if m == n]) for n in (1, 2)]

    def verdict(lines, confirmed, before_ns):
        town = banks.Town([])
        town.confirmed = confirmed
        return town.judge(books(*lines), before_ns), town
    whole = [(1, "S 2 1 10"), (2, "R 1 1 10"), (1, "S 2 2 5")]
    v, town = verdict(whole, {(1, 2, 1): (10, 100)}, None)
    assert v.ok and v.on_way == 1 and v.transfers == 2 and town.confirmed
    v, _ = verdict(whole, {(1, 2, 2): (5, 100)}, {1: 200, 2: 200})
    assert v.missing == [(1, 2, 2, 5)]             # sent, but confirmed to us and not received
    v, town = verdict(whole, {(1, 2, 2): (5, 300)}, {1: 200, 2: 200})
    assert v.ok and not town.confirmed             # confirmed after the point: it may be gone
    v, _ = verdict(whole, {(1, 2, 1): (11, 100)}, None)
    assert v.missing                               # another transfer under the same number
    v, _ = verdict([(2, "R 1 1 10")], {}, None)
    assert v.invented == [(1, 2, 1, 10)] and v.total == 2 * banks.OPENING_BALANCE + 10 and not v.ok
    with pytest.raises(banks.BankError):
        books((1, "S 2 1 10"), (1, "S 2 1 10"))
