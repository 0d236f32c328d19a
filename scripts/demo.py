#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The main job, before your eyes: protect a running server, lose it, boot its double.

A small QEMU guest with Debian's own kernel is the server. It keeps a ledger in SQLite; a client outside logs every
transaction that was acknowledged. The server is killed; its double boots from the vault; every transaction that was
acknowledged before the recovery point must be there. Needs no root, no KVM, and no BPF on this machine.
"""
import argparse
import json
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests/guest"))
import ledger_client  # noqa: E402
import rescue  # noqa: E402
from agent_guest import build_agent_guest  # noqa: E402
from guest import Guest, GuestError, patience_for  # noqa: E402
from lifeboat_site import Site  # noqa: E402
from rescue import GREEN, RED, take_port  # noqa: E402

MACHINE = "ledger"
MACHINE_UUID = "5f1ebea7-0000-4000-8000-000000000001"
LEDGER_PORT = 7000
LOAD_POINTS = 6
DEADLINE_S = 400  # for one step, on a machine that is many times slower than one of today
CONFIG_PORT, PROCESS_PORT, DOUBLE_PORT = 10443, 19443, 17000
DISK_MIB = 320


def build_image(site):
    """The server's disk, with the agent on it."""
    etc = site.folder / "guest-etc"
    etc.mkdir()
    return build_agent_guest(
        site.folder / "server.img", site, MACHINE, f"https://10.0.2.2:{site.port}", etc, "--size-mib", DISK_MIB,
        "--program", f"{site.programs['ledger']}:/usr/bin/ledger",
        "--service", f"ledger=exec ledger --port {LEDGER_PORT} --db /var/lib/ledger/ledger.db", boot=["mkdir -p /var/lib/ledger"])


def protect_and_lose(job, image, log):
    site, story = job.site, job.story
    with Guest(site.folder / "server", [image], forwards=[LEDGER_PORT], uuid=MACHINE_UUID) as server:
        server.wait_answer(LEDGER_PORT, b"SUM\n", b"SUM ", DEADLINE_S)
        story.say("The server is running; a client writes transactions to it.")
        load = ledger_client.Load(server.port(LEDGER_PORT), log, rate=100, connections=4).start()
        job.wait_enrolled(server, DEADLINE_S)
        story.say("The server has enrolled. Replicating its disk while it works:")
        job.protect()
        story.say(f"The vault follows it now: waiting for {LOAD_POINTS} more recovery points, under load.")
        job.wait_points(LOAD_POINTS, load, DEADLINE_S)
        job.lose(server, load)


def show(args, folder, story):
    site = Site(args.build, folder)
    site.make(take_port(CONFIG_PORT), take_port(PROCESS_PORT), fabric="qemu")
    site.start()
    story.say(f"A site is up: configuration server on port {site.port}, process server on {site.process_port}, "
              f"an encrypted vault in {folder}/vault.")
    image = build_image(site)
    story.say("A server's disk is made: Debian's kernel, a ledger in SQLite, the agent.")
    job, log = rescue.Rescue(site, story, MACHINE), folder / "acknowledged.log"
    protect_and_lose(job, image, log)
    port = take_port(DOUBLE_PORT)
    patience = patience_for(5)
    ledger = job.fail_over({LEDGER_PORT: port}, LEDGER_PORT, lambda p: ledger_client.Ledger(p, deadline_s=patience()))
    result = job.judge(log, ledger)
    ledger.close()
    job.wait_double_knows(job.console, DEADLINE_S)
    job.tell_figures()
    (folder / "result.json").write_text(json.dumps({**result, "figures": job.figures, "port": port}, indent=1) + "\n")
    if not result["ok"]:
        story.say("The promise is broken.", RED)
        return 1
    story.say("Every transaction acknowledged before the recovery point is in the double.", GREEN)
    if args.keep:
        write_env(site, port)
    return 0


def write_env(site, port):
    lines = [f"export {k}='{v}'" for k, v in site.environment().items()]
    lines.append(f"export LIFEBOAT_DEMO_VAULT='{site.vault_url}'")
    lines.append(f"export PATH='{site.programs['lifeboat'].parent}':\"$PATH\"")
    (site.folder / "env").write_text("\n".join(lines) + "\n")
    print(f"""The site stays up. Play with it:

    . {site.folder}/env
    lifeboat status
    lifeboat point list {MACHINE}
    lifeboat failover list
    lifeboat point export {MACHINE} vda {MACHINE}.img --vault {site.vault_url}     # needs no server
    tests/guest/ledger_client.py verify --port {port} --log {site.folder}/acknowledged.log --acked-before NS

`make demo-clean` takes it down and removes it.""")


def run(args, folder):
    story = rescue.Story()
    if folder.exists():
        story.say(f"What an earlier demo left in {folder} is taken down and removed.")
        rescue.remove(folder)
    rescue.claim(folder)
    code, why = 1, None
    try:
        with rescue.interruptible():
            code = show(args, folder, story)
    except rescue.Interrupted as e:
        why, code = f"Ended by {e}; everything is taken down.", 130
    except (GuestError, ledger_client.LedgerError, subprocess.SubprocessError, OSError) as e:
        why = f"The demo failed: {e}"
    if why:
        story.say(why, RED)
    if code == 0 and args.keep:
        return 0
    rescue.take_down(folder)
    if code == 1:
        print(f"Logs are in {folder}: servers.log, server/serial.log, state/vm/*/console.log. `make demo-clean` removes them.")
    else:
        rescue.remove(folder)
    return code


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--build", default=str(TOP / "build"))
    ap.add_argument("--folder", default=str(TOP / "demo"), help="where everything lives (default: demo)")
    ap.add_argument("--keep", action="store_true", help="leave the site up")
    ap.add_argument("--clean", action="store_true", help="take down and remove what --keep left")
    args = ap.parse_args()
    folder = pathlib.Path(args.folder).resolve()
    try:
        return rescue.remove(folder) or 0 if args.clean else run(args, folder)
    except GuestError as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
