# SPDX-License-Identifier: Apache-2.0
"""A link that swallows everything, as a firewall does that drops: nobody is refused and nothing is answered, until all time-outs have run out.

The servers of the recovery site stand still for it, so that what is connected hangs, and what connects anew gets no handshake.
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import threading
import time

from lifeboat_site import SiteError

# of whoever is to see them run out; those of the product are up to a minute long
SHORT = ("LIFEBOAT_FAULT_TIMEOUT_MS", "4000")
RAN_OUT = re.compile(rb"time(d |-)?out", re.IGNORECASE)
DEADLINE_S = 180


def read_or_nothing(path):
    """Of what may just be ending."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class SilentLink:
    def __init__(self, site, died):
        self.site, self.died = site, died
        self.error = None

    def servers(self):
        """The configuration server, then its process servers: it starts no other one meanwhile."""
        yield self.site.server.pid
        for task in pathlib.Path(f"/proc/{self.site.server.pid}/task").iterdir():
            for pid in read_or_nothing(task / "children").split():
                if b"lifeboat-process" in read_or_nothing(pathlib.Path(f"/proc/{int(pid)}/cmdline")):
                    yield int(pid)

    def wait(self, condition, what):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > end:
                raise SiteError(f"no {what} within {DEADLINE_S} s")
            time.sleep(0.02)

    def cut(self, place, port, log):
        self.wait(lambda: any(re.search(place, noted) for noted in self.died()), f"death at: {place}")
        self.wait(lambda: accepts(port()), f"server that answers again after: {place}")
        stopped = []
        try:
            for pid in self.servers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
            before = log.stat().st_size
            self.wait(lambda: RAN_OUT.search(log.read_bytes()[before:]), f"time-out in {log.name}")
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def cut_after(self, place, port, log):
        """When a server has died at that place and `port()` is answered again, until time-outs run out by that log."""
        def work():
            try:
                self.cut(place, port, log)
            except (SiteError, OSError) as e:
                self.error = e

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if self.error:
            raise self.error
