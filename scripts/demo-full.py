#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The main job with a whole server: Debian with systemd, PostgreSQL under pgbench, the agent from its package, libvirt.

A client outside logs every transaction that PostgreSQL acknowledged. The server is killed; its double is started by
libvirt from the vault; what was acknowledged before the recovery point must be there, and pgbench's own tables must add
up. Needs root (libvirt); no KVM and no BPF on this machine.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests/guest"))
import ledger_client  # noqa: E402
import rescue  # noqa: E402
from guest import CONTROL_PORT, Guest, GuestError, free_port  # noqa: E402
from libvirt_host import Libvirt  # noqa: E402
from lifeboat_site import Site, SiteError  # noqa: E402
from rescue import GREEN, RED, take_port  # noqa: E402

MACHINE = "debian"
MACHINE_UUID = "5f1ebea7-0000-4000-8000-000000000002"
POSTGRES_PORT = 5432
CONFIG_PORT, PROCESS_PORT, DOUBLE_PORT = 11443, 11943, 17432
DISK_MIB = 2048
MEMORY_MIB = 1024
LOAD_POINTS = 6
BOOT_DEADLINE_S = 600


def build_package(build, folder, story):
    made = subprocess.run([TOP / "packaging/build-deb.sh", build, folder / "deb"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise GuestError(f"the packages could not be made: {made.stderr}")
    package = next((folder / "deb").glob("lifeboat-mobility_*.deb"))
    story.say(f"The agent's package is made: {package.name}.")
    return package


def build_image(folder, package, story):
    image = folder / "server.img"
    story.say("Making a whole Debian with systemd and PostgreSQL (from the cache, when there is one)...")
    made = subprocess.run([TOP / "tests/guest/build-debian.sh", "--control", "--hostname", MACHINE, "--size-mib", str(DISK_MIB),
                           "--deb", package, image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        raise GuestError(f"the server's disk could not be made: {made.stdout}")
    story.say("The server's disk is made, with the agent's package installed.")
    return image


def enrol(job, server):
    """What an administrator types on the server."""
    token = job.site.token(job.site.folder / "token", MACHINE)
    secret = (job.site.folder / "token").read_text().strip()
    server.run(f"umask 077; printf '%s\\n' '{secret}' >/root/token")
    command = (f"lifeboat-mobility enrol --config-url https://10.0.2.2:{job.site.port} --ca-fingerprint {token['ca_fingerprint']} "
               f"--token-file /root/token --name {MACHINE}")
    job.story.say(f"{MACHINE}# {command.replace(token['ca_fingerprint'], token['ca_fingerprint'][:12] + '...')}")
    server.run(f"PATH=$PATH:/usr/sbin {command} && rm /root/token")
    job.story.say(f"{MACHINE}# systemctl start lifeboat-mobility")
    server.run("systemctl start lifeboat-capture lifeboat-mobility")
    users = server.run("systemctl show -P User lifeboat-mobility; ps -o user= -C lifeboat-mobility")[1].split()
    if users != ["lifeboat", "lifeboat"]:
        raise GuestError(f"the agent should run as the user lifeboat: {users}")


def protect_and_lose(job, image, log):
    site, story = job.site, job.story
    with Guest(site.folder / "server", [image], forwards=[POSTGRES_PORT, CONTROL_PORT], uuid=MACHINE_UUID,
               memory_mib=MEMORY_MIB) as server:
        server.wait_serial(r"lifeboat-guest: up", BOOT_DEADLINE_S)
        server.wait_control(BOOT_DEADLINE_S)
        story.say("The server is running: systemd has started PostgreSQL.")
        enrol(job, server)
        story.say("The server has enrolled; its agent has no privileges. Replicating its disk while it works:")
        load = ledger_client.Load(server.port(POSTGRES_PORT), log, rate=20, connections=2,
                                  connect=ledger_client.PostgresLedger).start()
        job.protect(ring="128M")
        server.run("systemctl start pgbench")
        # what the double is held against must have begun
        watch = ledger_client.PostgresLedger(server.port(POSTGRES_PORT))
        server.wait(lambda: watch.query("SELECT 1 FROM pgbench_history LIMIT 1"), "first transaction of pgbench", BOOT_DEADLINE_S)
        watch.close()
        story.say(f"pgbench has started too. Waiting for {LOAD_POINTS} more recovery points, under load.")
        job.wait_points(LOAD_POINTS, load, BOOT_DEADLINE_S)
        if server.run("systemctl is-active pgbench", check=False)[0]:
            raise GuestError(f"pgbench did not run: {server.run('systemctl status pgbench', check=False)[1]}")
        job.lose(server, load)


def show(args, folder, fabric, story):
    site = Site(args.build, folder)
    site.make(take_port(CONFIG_PORT), take_port(PROCESS_PORT), fabric=fabric)
    site.start()
    story.say(f"A site is up: configuration server on port {site.port}, process server on {site.process_port}, "
              f"an encrypted vault in {folder}/vault.")
    image = build_image(folder, build_package(args.build, folder, story), story)
    job, log = rescue.Rescue(site, story, MACHINE), folder / "acknowledged.log"
    protect_and_lose(job, image, log)
    forwards = {POSTGRES_PORT: take_port(DOUBLE_PORT), CONTROL_PORT: free_port()}
    ledger = job.fail_over(forwards, POSTGRES_PORT, ledger_client.PostgresLedger)
    rows = int(ledger.query("SELECT count(*) FROM pgbench_history")[0][0])
    result = job.judge(log, ledger)
    ledger.close()
    if rows == 0:
        raise GuestError("the double holds no transaction of pgbench: the point is older than its load")
    story.say(f"The double holds {rows} transactions of pgbench; accounts, tellers, branches and history "
              f"{'add up, and every index is sound' if result['integrity'] == 'ok' else 'DO NOT ADD UP'}.")
    double = Guest(folder / "double", [], forwards=forwards)
    job.wait_double_knows(lambda: double.run("journalctl -b -u lifeboat-mobility --no-pager", check=False)[1], BOOT_DEADLINE_S)
    job.tell_figures()
    (folder / "result.json").write_text(json.dumps({**result, "figures": job.figures}, indent=1) + "\n")
    clean_double(job)
    story.say(*(("Every transaction acknowledged before the recovery point is in the double.", GREEN) if result["ok"]
                else ("The promise is broken.", RED)))
    return 0 if result["ok"] else 1


def clean_double(job):
    """The product's own way, so that nothing stays with libvirt."""
    name = job.double()["name"]
    job.site.lifeboat("failover", "cleanup", name, "--live", "--confirm", name)
    job.story.say(f"$ lifeboat failover cleanup {name} --live")


def remove_doubles(args, folder):
    """After a failure: whatever double is there, and with it what libvirt knows of it."""
    site = Site.load(args.build, folder)
    if site is None or not site.answers():
        return
    try:
        for double in site.ask("failover", "list")["failovers"]:
            site.lifeboat("failover", "cleanup", double["name"], "--live", "--confirm", double["name"])
    except SiteError as e:
        print(f"demo-full: {e}", file=sys.stderr)


def choose_fabric(args, folder, story):
    """(fabric, libvirt)."""
    if args.fabric == "qemu":
        return "qemu", None
    libvirt = Libvirt(folder)
    try:
        libvirt.start()
    except GuestError as e:
        libvirt.stop()
        if args.fabric == "libvirt":
            raise
        story.say(f"libvirt does not run here ({e}): QEMU is used directly instead.", RED)
        return "qemu", None
    story.say(f"libvirt {'was started for this' if libvirt.own else 'is running already'}: {libvirt.version}.")
    return "libvirt", libvirt


def run(args, folder):
    story = rescue.Story()
    if folder.exists():
        story.say(f"What an earlier demo left in {folder} is taken down and removed.")
        rescue.remove(folder)
    rescue.claim(folder)
    libvirt, code, why = None, 1, None
    try:
        with rescue.interruptible():
            fabric, libvirt = choose_fabric(args, folder, story)
            code = show(args, folder, fabric, story)
    except rescue.Interrupted as e:
        why, code = f"Ended by {e}; everything is taken down.", 130
    except (GuestError, ledger_client.LedgerError, subprocess.SubprocessError, OSError) as e:
        why = f"The demo failed: {e}"
    if why:
        story.say(why, RED)
        remove_doubles(args, folder)
    rescue.take_down(folder)
    if libvirt:
        libvirt.stop()
    if code == 1:
        print(f"Logs are in {folder}: servers.log, server/serial.log, state/vm/*/console.log.")
    else:
        rescue.remove(folder)
    return code


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--build", default=str(TOP / "build"))
    ap.add_argument("--folder", default="/var/tmp/lifeboat-demo-full", help="where everything lives, and is removed again")
    ap.add_argument("--fabric", default="auto", choices=("auto", "libvirt", "qemu"),
                    help="auto: libvirt, and QEMU directly where that does not run")
    args = ap.parse_args()
    if os.geteuid() != 0 and args.fabric != "qemu":
        print("demo-full: libvirt's system VMs need root: run it as root, or with --fabric qemu", file=sys.stderr)
        return 1
    try:
        return run(args, pathlib.Path(args.folder).resolve())
    except GuestError as e:
        print(f"demo-full: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
