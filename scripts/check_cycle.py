#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The whole circle with three servers at two sites: protect, load, drill, lose the primary site, fail over, work there, go home,
be protected again, be lost again.

Two sites on this host (network namespaces with a link that is slow, cut and mended); three guests with Debian's kernel that send money
to one another over TCP, with durable ledgers; a storage account, configuration server and doubles at the recovery site, process
server and servers at the primary. At every turn all ledgers add up, and nothing that was confirmed before the point is missing.
Links are cut and servers killed on the way. Needs root; no KVM, and no BPF on this machine.
"""
import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import traceback

TOP = pathlib.Path(__file__).resolve().parent.parent
for part in ("scripts", "tests/guest", "tests/e2e", "tests/cycle"):
    sys.path.insert(0, str(TOP / part))
os.environ.setdefault("LIFEBOAT_BUILD", str(TOP / "build"))
import rescue  # noqa: E402
from banks import BankError, Town  # noqa: E402
from figures import Figures  # noqa: E402
from guest import GuestError  # noqa: E402
from object_stores import Missing  # noqa: E402
from rescue import GREEN, RED, Story  # noqa: E402
from servers import Server  # noqa: E402
from sites import ProcessServer, RecoverySite, TargetServer  # noqa: E402
from turns import Turns  # noqa: E402
from two_sites import TwoSites  # noqa: E402

BANKS = 3
LINK_MBIT = 100
TAIL_BYTES = 2500


class Cycle:
    def __init__(self, build, folder):
        self.folder = folder
        self.story = Story()
        self.sites = TwoSites()
        self.site = RecoverySite(build, folder / "recovery")
        self.process = ProcessServer(self.site, self.sites, folder / "process", "primary-process")
        self.target = TargetServer(self.site, self.sites, folder / "target", "primary-target")
        self.servers = []

    def set_up(self):
        say = self.story.say
        self.sites.make()
        self.sites.slow(LINK_MBIT)
        say(f"Two sites are joined by a link of {LINK_MBIT} Mbit/s.")
        self.site.make().start()
        self.process.join().start().wait_ready()
        self.target.join().start().wait_ready()
        say("Configuration server and storage account are up at the recovery site; a process server and a target server have joined at "
            "the primary.")
        self.servers = [Server(self.site, self.sites, self.folder, n, BANKS).build().plug().boot() for n in range(1, BANKS + 1)]
        for s in self.servers:
            s.wait_bank()
        names = {s.name for s in self.servers}
        self.site.wait(lambda: names <= {m["name"] for m in self.site.ask("machine", "list")["machines"]}, "enrolment", 600)
        say("Three servers are up at the primary; their agents have enrolled.")

    def go_round(self):
        town = Town([s.bank for s in self.servers])
        self.figures = Figures(self.sites.link_bytes, lambda: town.heard)
        turns = Turns(self.sites, self.site, self.process, self.target, self.servers, town, self.story, self.figures)
        for name, turn in (("protect", turns.protect), ("steady", turns.share), ("drill", turns.drill),
                           ("lost, failed over", lambda: turns.fail_over(turns.lose_the_primary())),
                           ("at work there", turns.work_at_recovery), ("commit", turns.commit),
                           ("primary found again", turns.find_the_primary_again), ("reprotect", turns.reprotect), ("failback", turns.go_home),
                           ("protect again", turns.protect_again),
                           ("lost, failed over again", lambda: turns.fail_over(turns.lose_the_primary()))):
            self.story.say(f"Turn: {name}", rescue.BOLD)
            self.figures.begin(name)
            turn()
            self.figures.end()

    def tails(self):
        """The ends of the logs that matter."""
        logs = [self.site.folder / "servers.log", *self.folder.glob("*/process.log"), *self.folder.glob("*/target.log"),
                *self.folder.glob("*/guest/serial.log"), *self.site.folder.glob("state/vm/*/console.log")]
        return "\n".join(f"--- end of {log.relative_to(self.folder)}:\n{log.read_bytes()[-TAIL_BYTES:].decode(errors='replace')}"
                         for log in logs if log.exists())

    def close(self):
        self.sites.close()
        self.site.close()


def run(build, folder):
    cycle = Cycle(build, folder)
    try:
        with rescue.interruptible():
            try:
                cycle.set_up()
                cycle.go_round()
                print(f"\n{cycle.figures.table()}\n", flush=True)
                cycle.story.say("The circle is closed.", GREEN)
                return 0
            except rescue.Interrupted as e:
                cycle.story.say(f"Ended by {e}; everything is taken down.", RED)
            except Exception as e:  # whatever it was, the logs tell
                if not isinstance(e, (GuestError, BankError, Missing)):
                    traceback.print_exc()
                cycle.story.say(f"The cycle failed: {e}", RED)
                print(cycle.tails(), flush=True)
            return 1
    finally:
        cycle.close()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--build", default=os.environ["LIFEBOAT_BUILD"])
    ap.add_argument("--keep", action="store_true", help="leave the folder with disks and logs")
    args = ap.parse_args()
    if os.geteuid() != 0:
        print("check-cycle: needs root: network namespaces and tap devices", file=sys.stderr)
        return 1
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-cycle.", dir="/var/tmp"))
    code = 1
    try:
        code = run(pathlib.Path(args.build).resolve(), folder)
    finally:
        if args.keep:
            print(f"Everything is left in {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
