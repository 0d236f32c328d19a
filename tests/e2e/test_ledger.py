# SPDX-License-Identifier: Apache-2.0
"""The demo's judge is judged first: what it must catch, it catches."""

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/guest"))

import ledger_client  # noqa: E402
from guest import free_port  # noqa: E402

LEDGER = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build")) / "tests/guest/ledger"


class Server:
    def __init__(self, database):
        self.database = database
        self.port = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen([LEDGER, "--port", str(self.port), "--db", self.database],
                                        stdout=subprocess.PIPE, text=True)
        assert "ready" in self.process.stdout.readline()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path):
    assert LEDGER.exists(), f"{LEDGER} is not built"
    one = Server(tmp_path / "ledger.db")
    one.start()
    yield one
    if one.process.poll() is None:
        one.kill()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "client.log"


def check(server, log, acked_before=None):
    ledger = ledger_client.Ledger(server.port)
    result = ledger_client.verify(ledger_client.read_log(log), ledger.entries(), ledger.integrity(), acked_before)
    ledger.close()
    return result


def load(server, log, count):
    one = ledger_client.Load(server.port, log, connections=4, count=count).start()
    one.wait()
    assert one.lost is None
    return one


def edit(server, *statements):
    """Changes the database behind the ledger's back."""
    server.kill()
    with sqlite3.connect(server.database) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    server.start()


def test_every_acknowledged_transaction_survives_a_kill_under_load(server, log):
    one = ledger_client.Load(server.port, log, connections=4).start()
    while one.acked < 100:
        assert one.running()
        time.sleep(0.01)
    server.kill()
    one.wait()
    assert one.lost
    server.start()
    result = check(server, log)
    assert result["ok"] and result["promised"] >= 100


def test_a_missing_transaction_is_named(server, log):
    load(server, log, 40)
    edit(server, "DELETE FROM entry WHERE n = 7", "UPDATE total SET entries = (SELECT count(*) FROM entry),"
         " amount = (SELECT sum(amount) FROM entry)")
    result = check(server, log)
    assert not result["ok"]
    assert result["missing"] == [7] and result["out_of_order"] == [7] and result["integrity"] == "ok"


def test_a_transaction_acknowledged_after_the_point_may_be_missing(server, log):
    load(server, log, 40)
    transactions = ledger_client.read_log(log)
    last = max(transactions, key=lambda n: transactions[n][1])
    edit(server, f"DELETE FROM entry WHERE n = {last}", "UPDATE total SET entries = (SELECT count(*) FROM entry),"
         " amount = (SELECT sum(amount) FROM entry)")
    acked_ns = transactions[last][2]
    assert check(server, log, acked_before=acked_ns)["missing"] == []
    assert check(server, log, acked_before=acked_ns + 1)["missing"] == [last]


def test_a_torn_transaction_shows_in_the_integrity_check(server, log):
    load(server, log, 40)
    edit(server, "UPDATE total SET amount = amount + 1")
    result = check(server, log)
    assert not result["ok"] and "torn" in result["integrity"]


def test_an_entry_that_nobody_sent_is_an_invention(server, log):
    load(server, log, 40)
    ledger = ledger_client.Ledger(server.port)
    ledger.add(1_000_000, 5)
    ledger.close()
    result = check(server, log)
    assert not result["ok"] and result["invented"] == [1_000_000]


def test_an_entry_sent_again_is_acknowledged_once_more_and_another_amount_is_refused(server):
    ledger = ledger_client.Ledger(server.port)
    ledger.add(1, 5)
    ledger.add(1, 5)
    with pytest.raises(ledger_client.LedgerError, match="another amount"):
        ledger.add(1, 6)
    assert ledger.entries() == {1: 5}
    ledger.close()


def test_a_log_whose_last_line_was_cut_short_is_read_up_to_there(log):
    log.write_text("S 1 5 100\nA 1 5 200\nS 2 6 3")
    assert ledger_client.read_log(log) == {1: (5, 100, 200)}
