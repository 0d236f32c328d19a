# SPDX-License-Identifier: Apache-2.0
"""The ledger in the PostgreSQL of build-debian.sh: what ledger_client.py needs of it, in PostgreSQL's own protocol.

Only what a trusted connection on the test network takes: start-up, simple
queries, text results.
"""

import socket
import struct

MESSAGE_BYTES_MAX = 1 << 20
PROTOCOL_3_0 = 196608

INTEGRITY_CHECKS = (
    ("a transaction is torn: totals and entries differ",
     "SELECT t.entries = (SELECT count(*) FROM entry) AND t.amount = (SELECT coalesce(sum(amount), 0) FROM entry) "
     "FROM total t"),
    ("pgbench's tellers and branches do not add up",
     "SELECT (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)"),
    ("pgbench's accounts and branches do not add up",
     "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)"),
    ("pgbench's history and branches do not add up",
     "SELECT (SELECT coalesce(sum(delta), 0) FROM pgbench_history) = (SELECT sum(bbalance) FROM pgbench_branches)"),
    ("an index is damaged",
     "SELECT count(bt_index_check(i.indexrelid, true)) > 0 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
     "JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relpersistence <> 't' AND i.indisvalid"),
)


class PostgresError(Exception):
    pass


class Connection:
    def __init__(self, port, host="127.0.0.1", user="postgres", database="lifeboat", deadline_s=60):
        self.socket = socket.create_connection((host, port), deadline_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        words = f"user\0{user}\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!ii", len(words) + 8, PROTOCOL_3_0) + words)
        self._until_ready()

    def close(self):
        self.stream.close()
        self.socket.close()

    def _message(self):
        head = self.stream.read(5)
        if len(head) < 5:
            raise OSError("the server closed the connection")
        length = struct.unpack("!i", head[1:])[0] - 4
        if not 0 <= length <= MESSAGE_BYTES_MAX:
            raise PostgresError(f"a message of {length} bytes")
        body = self.stream.read(length)
        if len(body) < length:
            raise OSError("the server closed the connection")
        return head[:1], body

    def _until_ready(self):
        rows, error = [], None
        while True:
            kind, body = self._message()
            if kind == b"Z":
                break
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                error = next(f[1:].decode() for f in body.split(b"\0") if f[:1] == b"M")
                if not rows and self._fatal(body):
                    raise PostgresError(error)
            elif kind == b"R" and struct.unpack("!i", body[:4])[0] != 0:
                raise PostgresError("the server asks for a password; it should trust this network")
        if error:
            raise PostgresError(error)
        return rows

    @staticmethod
    def _fatal(body):
        return any(f in (b"VFATAL", b"VPANIC") for f in body.split(b"\0"))

    def query(self, text):
        """One simple query, one transaction; its rows as tuples of text (or None)."""
        data = text.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(data) + 4) + data)
        return self._until_ready()


def _row(body):
    count, at, row = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at:at + 4])[0]
        at += 4
        if length < 0:
            row.append(None)
            continue
        row.append(body[at:at + length].decode())
        at += length
    return tuple(row)
