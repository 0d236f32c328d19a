# SPDX-License-Identifier: Apache-2.0
"""The main job step by step, told as it happens: protect a running server, lose it, boot its double, judge what it holds.

Shared by scripts/demo.py and scripts/demo-full.py. Everything lives in one folder, and so does the record of what runs
(take_down() ends exactly that).
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import time

import ledger_client
from guest import Guest, GuestError, _process_start, free_port

PROTECT_DEADLINE_S = 1200
ANSWER_DEADLINE_S = 600
END_DEADLINE_S = 120
SAY_INTERVAL_S = 5.0
POLL_INTERVAL_S = 0.1
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5
RUNNER = "demo.json"    # who made the folder: a demo that still runs must not be taken down by another


class Story:
    """What happens, as it happens."""

    def __init__(self):
        self.began = time.monotonic()

    def say(self, text, style=""):
        indented = text.replace("\n", "\n            ")
        print(f"{DIM}{time.monotonic() - self.began:7.1f} s{PLAIN}   {style}{indented}{PLAIN if style else ''}", flush=True)


class Interrupted(Exception):
    pass


@contextlib.contextmanager
def interruptible():
    """SIGTERM and SIGHUP end like Ctrl-C: by an exception, so that everything is taken down."""
    def stop(number, _frame):
        raise Interrupted(signal.Signals(number).name)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        yield
    finally:
        # What takes down must not be broken off halfway.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def take_port(wanted):
    """The wanted port of this machine, or another when it is taken."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", wanted))
            return wanted
        except OSError:
            return free_port()


class Rescue:
    """One server of a site: protected, lost, booted again."""

    def __init__(self, site, story, machine):
        self.site = site
        self.story = story
        self.machine = machine
        self.figures = {}

    def wait_enrolled(self, server, deadline_s):
        server.wait(lambda: any(m["name"] == self.machine for m in self.site.ask("machine", "list")["machines"]),
                    f"enrolment of {self.machine}", deadline_s)

    def protect(self, ring="64M"):
        """Until there is a first recovery point."""
        self.site.lifeboat("policy", "set", "default", "--consistency-interval", 1, "--upload-interval", 1,
                           "--heartbeat-interval", 1, "--ring", ring)
        began = said = time.monotonic()
        self.site.lifeboat("machine", "protect", self.machine, "--no-wait")

        def recoverable():
            nonlocal said
            m = self.site.machine(self.machine)
            progress = m.get("progress") or {}
            if progress.get("total_bytes") and time.monotonic() - said >= SAY_INTERVAL_S:
                said = time.monotonic()
                self.story.say(f"  {progress['done_bytes'] >> 20} of {progress['total_bytes'] >> 20} MiB")
            return m["recoverable"]

        self.site.wait(recoverable, "first recovery point", PROTECT_DEADLINE_S)
        self.figures["initial replication"] = took = time.monotonic() - began
        self.story.say(f"Initial replication is complete: a first recovery point after {took:.1f} s.", BOLD)

    def wait_points(self, more, load, deadline_s):
        """Until the vault has so many recovery points more, the client at work all the time."""
        enough = len(self.site.points(self.machine)) + more

        def there():
            if load.lost:
                raise GuestError(f"the client lost its server too early: {load.lost}")
            return len(self.site.points(self.machine)) >= enough

        self.site.wait(there, f"{more} more recovery points", deadline_s)

    def lose(self, server, load):
        """SIGKILL, as if the plug was pulled."""
        self.killed_ns = time.time_ns()
        server.kill()
        self.story.say("SIGKILL. The server is gone.", RED)
        load.stop()
        self.story.say(f"Its client had {load.acked} transactions acknowledged.")

    def fail_over(self, forwards, guest_port, connect):
        """`lifeboat failover start`, until the double's ledger answers. forwards: {guest port: port of this machine}."""
        ports = ",".join(f"{host}:{guest}" for guest, host in forwards.items())
        words = ["failover", "start", self.machine, "--forward", ports]
        self.story.say(f"$ lifeboat {' '.join(words)}")
        began = time.monotonic()
        self.site.lifeboat(*words, "--confirm", self.machine)
        double = self.double()
        self.story.say(f"The double is running, straight from the vault ({double['fabric']}).")
        ledger = self._wait_ledger(forwards[guest_port], connect)
        self.figures["RTO"] = time.monotonic() - began
        self.figures["RPO at the kill"] = (self.killed_ns - double["point_ns"]) / 1e9
        self.story.say(f"Its ledger answers on port {forwards[guest_port]}.", BOLD)
        return ledger

    def _wait_ledger(self, port, connect):
        end = time.monotonic() + ANSWER_DEADLINE_S
        while True:
            try:
                ledger = connect(port)
                ledger.integrity()
                return ledger
            except ledger_client.LedgerError as e:
                if time.monotonic() > end:
                    raise GuestError(f"the double's ledger does not answer within {ANSWER_DEADLINE_S} s: {e}\n"
                                     f"--- end of its console:\n{self.console()[-3000:]}") from None
            time.sleep(POLL_INTERVAL_S)

    def double(self):
        doubles = self.site.ask("failover", "list")["failovers"]
        return next(d for d in doubles if d["machine_name"] == self.machine)

    def console(self):
        path = pathlib.Path(self.double()["console"])
        return path.read_bytes().decode(errors="replace") if path.exists() else ""

    def wait_double_knows(self, said, deadline_s):
        """Until the agent in the double has said (to the console, or where `said` reads) that it is in one."""
        self.site.wait(lambda: "replicates nothing" in said(), "word of the double's agent that it knows what it is", deadline_s)
        self.story.say("The double's agent knows that it runs on a double, and replicates nothing.")

    def judge(self, log, ledger):
        """The double against the client's log: all that was acknowledged before the point's time must be there."""
        result = ledger_client.verify(ledger_client.read_log(log), ledger.entries(), ledger.integrity(),
                                      self.double()["point_ns"])
        self.story.say(ledger_client.report(result))
        return result

    def tell_figures(self):
        width = max(map(len, self.figures))
        print()
        for name, seconds in self.figures.items():
            print(f"  {name:<{width}}  {seconds:6.1f} s")
        print(flush=True)


# ---- what runs, and how it ends --------------------------------------------------------------------------------------

def claim(folder):
    """Makes the folder and notes in it who works there."""
    folder.mkdir(parents=True)
    (folder / RUNNER).write_text(json.dumps({"pid": os.getpid(), "pid_start": _process_start(os.getpid())}) + "\n")


def runner(folder):
    """The process that works in the folder now, or None."""
    try:
        noted = json.loads((folder / RUNNER).read_text())
    except (OSError, ValueError):
        return None
    runs = _process_start(noted["pid"]) == noted["pid_start"] and noted["pid"] != os.getpid()
    return noted["pid"] if runs else None


def _belongs(pid, folder):
    try:
        return str(folder).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def end_process(pidfile, folder, how):
    """Ends what a pidfile names, if it is a process of this folder; waits until it is gone."""
    try:
        pid = int(pidfile.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    started = _process_start(pid)
    if started is None or not _belongs(pid, folder):
        return
    end = time.monotonic() + END_DEADLINE_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    while _process_start(pid) == started:
        if time.monotonic() > end:
            if how == signal.SIGKILL:
                raise GuestError(f"no end of process {pid} within {END_DEADLINE_S} s after SIGKILL")
            end_process(pidfile, folder, signal.SIGKILL)
            return
        time.sleep(POLL_INTERVAL_S)


def take_down(folder):
    """Ends every process that was recorded in the folder: servers first, so that nobody starts anything again."""
    end_process(folder / "config.pid", folder, signal.SIGTERM)
    for pidfile in sorted(folder.glob("state/vm/*/qemu.pid")) + sorted(folder.glob("state/vm/*/nbd*.pid")):
        end_process(pidfile, folder, signal.SIGKILL)
    if (folder / "server/guest.json").exists():
        Guest.load(folder / "server").close()


def remove(folder):
    """Takes down what is kept in the folder, and removes it; never a folder that is no demo's."""
    if not folder.exists():
        return
    if not (folder / RUNNER).exists():
        raise GuestError(f"{folder} is not a demo's folder: {RUNNER} is missing; move it away")
    pid = runner(folder)
    if pid:
        raise GuestError(f"a demo is running in {folder}, as process {pid}; end it first (Ctrl-C there, or kill {pid})")
    take_down(folder)
    shutil.rmtree(folder)
