#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A bank that sends money to other banks over TCP, and one that judges their ledgers.

A ledger is a file of lines, each durable before anything that follows from it is done: "S ID AMOUNT" before the money is
sent, "R ID AMOUNT" before its arrival is confirmed. What was sent and has not arrived is on its way.
"""
import os
import random
import socket
import socketserver
import sys
import threading
import uuid

OPENING_BALANCE = 1_000_000


class Ledger:
    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.lock = threading.Lock()

    def write(self, kind, identity, amount):
        with self.lock:
            os.write(self.fd, f"{kind} {identity} {amount}\n".encode())
            os.fsync(self.fd)


def read(data):
    """({id: amount} sent, {id: amount} received); a last line that is not whole was never acted upon."""
    sent, received = {}, {}
    for line in data.decode(errors="replace").split("\n")[:-1]:
        kind, identity, amount = line.split(" ")
        (sent if kind == "S" else received)[identity] = int(amount)
    return sent, received


def total(ledgers):
    """All money there is: in accounts and on its way. Exact only if nothing arrived that was never sent."""
    books = [read(data) for data in ledgers]
    sent = {k: v for s, _ in books for k, v in s.items()}
    received = {k: v for _, r in books for k, v in r.items()}
    balances = sum(OPENING_BALANCE - sum(s.values()) + sum(r.values()) for s, r in books)
    return balances + sum(amount for k, amount in sent.items() if k not in received)


def serve(ledger, port):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                if not line.endswith(b"\n"):
                    return  # the sender was killed
                identity, amount = line.decode().split()
                ledger.write("R", identity, int(amount))
                self.wfile.write(b"ok\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    return Server(("127.0.0.1", port), Handler)


def send(ledger, port, seed):
    chance = random.Random(seed)
    with socket.create_connection(("127.0.0.1", port)) as s, s.makefile("rwb") as f:
        while True:
            identity, amount = uuid.uuid4().hex, chance.randrange(1, 100)
            ledger.write("S", identity, amount)
            f.write(f"{identity} {amount}\n".encode())
            f.flush()
            if f.readline() != b"ok\n":
                return


def main(path, port, *others):
    ledger = Ledger(path)
    server = serve(ledger, int(port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    sys.stdin.readline()  # until all of them listen
    for other in others:
        threading.Thread(target=send, args=(ledger, int(other), other), daemon=True).start()
    sys.stdin.read()  # until the test ends


if __name__ == "__main__":
    main(*sys.argv[1:])
