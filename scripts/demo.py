#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The main job, before your eyes: protect a running server, lose it, boot its double.

A small QEMU guest with Debian's own kernel is the server. It keeps a ledger in SQLite; a client outside logs every
transaction that was acknowledged. The server is killed; its double boots from the vault; every transaction that was
acknowledged before the recovery point must be there. Needs no root, no KVM, and no BPF on this machine.
"""
import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests/guest"))
import ledger_client  # noqa: E402
from guest import Guest, GuestError, free_port  # noqa: E402
from lifeboat_site import Site  # noqa: E402

FOLDER = TOP / "demo"
MACHINE = "ledger"
LEDGER_PORT = 7000
LOAD_S = 8.0
CONFIG_PORT, PROCESS_PORT = 10443, 19443
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5


class Story:
    """What happens, as it happens."""

    def __init__(self):
        self.began = time.monotonic()

    def say(self, text, style=""):
        print(f"{DIM}{time.monotonic() - self.began:6.1f} s{PLAIN}  {style}{text}{PLAIN if style else ''}", flush=True)


def take_port(wanted):
    import socket
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", wanted))
            return wanted
        except OSError:
            return free_port()


def build_image(site, token):
    """The server's disk, with the agent on it; it enrols itself when it boots."""
    etc = FOLDER / "guest-etc"
    etc.mkdir(exist_ok=True)
    (etc / "mobility.conf").write_text(f"config_url = https://10.0.2.2:{site.port}\n"
                                       "identity_folder = /var/lib/lifeboat/mobility\n"
                                       "state_folder = /var/lib/lifeboat/mobility\n"
                                       "capture_socket = /run/lifeboat/capture.sock\n")
    enrol = (f"[ -e /var/lib/lifeboat/mobility/cert.pem ] || lifeboat-mobility enrol --config /etc/lifeboat/mobility.conf "
             f"--config-url https://10.0.2.2:{site.port} --ca-fingerprint {token['ca_fingerprint']} "
             f"--token-file /etc/lifeboat/token --name {MACHINE}")
    image = FOLDER / "server.img"
    p = site.programs
    subprocess.run([TOP / "tests/guest/build-guest.sh", "--hostname", MACHINE, "--size-mib", "320",
                    "--user", "lifeboat:900",
                    "--program", f"{p['ledger']}:/usr/bin/ledger",
                    "--program", f"{p['mobility']}:/usr/bin/lifeboat-mobility",
                    "--program", f"{p['capture']}:/usr/bin/lifeboat-capture",
                    "--file", f"{etc}/mobility.conf:/etc/lifeboat/mobility.conf",
                    "--file", f"{FOLDER}/token:/etc/lifeboat/token:0600",
                    "--boot", "mkdir -p /run/lifeboat /var/lib/lifeboat/mobility /var/lib/ledger",
                    "--boot", "chown lifeboat /var/lib/lifeboat/mobility /etc/lifeboat/token",
                    "--service", f"ledger=exec ledger --port {LEDGER_PORT} --db /var/lib/ledger/ledger.db",
                    "--service", "capture=exec lifeboat-capture --socket /run/lifeboat/capture.sock --allow-uid 900",
                    "--service", f"mobility={enrol}; exec lifeboat-mobility run --config /etc/lifeboat/mobility.conf",
                    str(image)], check=True, stdout=subprocess.DEVNULL)
    return image


def protect(site, story):
    site.wait(lambda: any(m["name"] == MACHINE for m in site.ask("machine", "list")["machines"]), "enrolment", 60)
    story.say("The server has enrolled. Replicating its disk while it works:")
    began = time.monotonic()
    site.lifeboat("policy", "set", "default", "--consistency-interval", 1, "--upload-interval", 1,
                  "--heartbeat-interval", 1, "--ring", "64M")
    site.lifeboat("machine", "protect", MACHINE, "--no-wait")
    shown = [0]

    def done():
        m = site.machine(MACHINE)
        progress = m.get("progress") or {}
        total, finished = progress.get("total_bytes") or 0, progress.get("done_bytes") or 0
        if total and finished * 4 // total > shown[0]:
            shown[0] = finished * 4 // total
            story.say(f"  {finished >> 20} of {total >> 20} MiB")
        return m["recoverable"]

    site.wait(done, "first recovery point", 120)
    took = time.monotonic() - began
    story.say(f"Initial replication is complete: a first recovery point after {took:.1f} s.", BOLD)
    return took


def lose(site, server, load, story):
    killed_ns = time.time_ns()
    server.kill()
    story.say("SIGKILL. The server is gone.", RED)
    load.stopping.set()
    load.wait(5)
    acked = load.acked
    story.say(f"The client had {acked} transactions acknowledged.")
    return killed_ns


def fail_over(site, story, killed_ns):
    port = take_port(17000)
    began = time.monotonic()
    story.say(f"$ lifeboat failover start {MACHINE} --forward {port}:{LEDGER_PORT} --confirm {MACHINE}")
    site.lifeboat("failover", "start", MACHINE, "--forward", f"{port}:{LEDGER_PORT}", "--confirm", MACHINE)
    story.say("The double is running, straight from the vault.")
    ledger = None
    while ledger is None:
        try:
            ledger = ledger_client.Ledger(port, deadline_s=2)
            ledger.ask("SUM")
        except ledger_client.LedgerError:
            ledger = None
            if time.monotonic() - began > 120:
                raise GuestError("the double's ledger does not answer within 120 s") from None
            time.sleep(0.1)
    rto = time.monotonic() - began
    story.say(f"Its ledger answers on port {port}.", BOLD)
    return ledger, rto, port


def show(args, story):
    site = Site(args.build, FOLDER)
    site.make(take_port(CONFIG_PORT), take_port(PROCESS_PORT))
    site.start()
    story.say(f"A site is up: configuration server on port {site.port}, process server on {site.process_port}, "
              "an encrypted vault in demo/vault.")
    token = site.token(FOLDER / "token", MACHINE)
    image = build_image(site, token)
    story.say("A server's disk is made: Debian's kernel, a ledger in SQLite, the agent.")
    server = Guest(FOLDER / "server", [image], forwards=[LEDGER_PORT],
                   uuid="5f1ebea7-0000-4000-8000-000000000001").start()
    try:
        server.wait_answer(LEDGER_PORT, b"SUM\n", b"SUM ", 60)
        story.say("The server is running; a client writes transactions to it.")
        load = ledger_client.Load(server.port(LEDGER_PORT), FOLDER / "acknowledged.log", rate=200, connections=4).start()
        initial_s = protect(site, story)
        story.say(f"Working for {LOAD_S:.0f} s more, under load, while the vault follows.")
        load.wait(LOAD_S)
        if load.lost:
            raise GuestError(f"the client lost its server too early: {load.lost}")
        killed_ns = lose(site, server, load, story)
    finally:
        server.close()
    ledger, rto_s, port = fail_over(site, story, killed_ns)
    point_ns = used_point(site)
    result = ledger_client.verify(ledger_client.read_log(FOLDER / "acknowledged.log"), ledger.entries(), ledger.integrity(),
                                  point_ns)
    ledger.close()
    story.say(ledger_client.report(result).replace("\n", "\n          "))
    print(f"\n  initial replication  {initial_s:6.1f} s\n  RPO at the kill      {(killed_ns - point_ns) / 1e9:6.1f} s\n"
          f"  RTO                  {rto_s:6.1f} s   (from the command to an answering ledger)\n")
    if not result["ok"]:
        story.say("The promise is broken.", RED)
        return 1
    story.say("Every transaction acknowledged before the recovery point is in the double.", GREEN)
    if args.keep:
        keep(site, port)
    return 0


def used_point(site):
    """The time of the point from which the double was started."""
    doubles = site.ask("failover", "list")["failovers"]
    return next(d for d in doubles if d["machine_name"] == MACHINE)["point_ns"]


def keep(site, port):
    env = site.environment()
    lines = [f"export {k}={v}" for k, v in env.items()]
    lines.append(f"export PATH={site.programs['lifeboat'].parent}:$PATH")
    (FOLDER / "env").write_text("\n".join(lines) + "\n")
    print(f"The site stays up. Play with it:\n\n    . demo/env\n    lifeboat status\n    lifeboat point list {MACHINE}\n"
          f"    tests/guest/ledger_client.py verify --port {port} --log demo/acknowledged.log\n\n"
          "`make demo-clean` takes it down and removes it.")


def alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def clean():
    """Ends what the demo left running, by its own records, and removes its folder."""
    if not FOLDER.exists():
        return 0
    pidfile = FOLDER / "config.pid"
    if pidfile.exists():
        pid = int(pidfile.read_text())
        comm = pathlib.Path(f"/proc/{pid}/comm")
        if comm.exists() and comm.read_text().startswith("lifeboat-config"):
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 30
            while alive(pid) and time.monotonic() < end:
                time.sleep(0.1)
    for pidfile in FOLDER.glob("state/**/*.pid"):
        pid = int(pidfile.read_text().split()[0])
        cmdline = pathlib.Path(f"/proc/{pid}/cmdline")
        if cmdline.exists() and str(FOLDER).encode() in cmdline.read_bytes():
            os.kill(pid, signal.SIGKILL)
    if (FOLDER / "server/guest.json").exists():
        Guest.load(FOLDER / "server").close()
    shutil.rmtree(FOLDER)
    return 0


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--build", default=str(TOP / "build"))
    ap.add_argument("--keep", action="store_true", help="leave the site up in ./demo")
    ap.add_argument("--clean", action="store_true", help="take down and remove what --keep left")
    args = ap.parse_args()
    if args.clean:
        return clean()
    clean()
    FOLDER.mkdir()
    story = Story()
    code = 1
    try:
        code = show(args, story)
    except (GuestError, ledger_client.LedgerError, subprocess.CalledProcessError) as e:
        story.say(f"The demo failed: {e}", RED)
    if code == 0 and not args.keep:
        clean()
    elif code != 0:
        print(f"Logs are in {FOLDER}: servers.log, server/serial.log. `make demo-clean` removes them.")
    return code


if __name__ == "__main__":
    sys.exit(main())
