# SPDX-License-Identifier: Apache-2.0
"""The turns of the circle. Each leaves the banks at work (or says that it doesn't), and judges what it must."""
import json
import os
import signal
import time

from banks import BankError
from lifeboat_site import SiteError
from rescue import RED
from two_sites import BRIDGE

GROUP = PLAN = "town"
GROUP_INTERVAL_S = 10
PROTECT_DEADLINE_S = 600
JOB_DEADLINE_S = 600
POINT_DEADLINE_S = 600
WORK_DEADLINE_S = 600
RUN_DEADLINE_S = 600
POLL_INTERVAL_S = 0.1
BUSY = 30          # transfers that show that the banks are at work
ALONE = 100        # and for so many the link is away
MEMORY = "160M"
BACK = "-back"     # what a machine is called on its way back


class Turns:
    def __init__(self, sites, site, process, target, servers, town, story, figures):
        self.sites, self.site, self.servers, self.town = sites, site, servers, town
        self.process, self.target = process, target
        self.story, self.figures = story, figures
        self.say = story.say

    # ---- small things

    def at(self, where):
        """How the banks are reached at that site."""
        return lambda address, timeout_s: self.sites.connect(where, address, timeout_s)

    def wait(self, condition, what, deadline_s):
        """Like the site's, which says what the servers logged, but the configuration server may be away meanwhile."""
        end = time.monotonic() + deadline_s
        while not (result := condition()):
            if time.monotonic() > end:
                raise SiteError(f"no {what} within {deadline_s} s")
            time.sleep(POLL_INTERVAL_S)
        return result

    def work(self, n=BUSY):
        """Until the banks have made so many transfers more."""
        enough = self.town.heard + n
        self.wait(lambda: self.town.heard >= enough, f"{n} more transfers", WORK_DEADLINE_S)

    def shared_points(self):
        return [p for p in self.site.ask("group", "show", GROUP)["points"] if p["state"] == "there"]

    def new_points(self, n=1):
        """Waits for so many shared points that were begun from now on, all of them in the vault."""
        since_ns = time.time_ns()

        def there():
            made = [p for p in self.shared_points() if p["made_ns"] > since_ns]
            return made if len(made) >= n else None
        return self.site.wait(there, f"{n} shared points", POINT_DEADLINE_S)

    def kill(self, server, when):
        server.kill()
        self.say(f"  SIGKILL of the {server.what}, {when}; it is started again.")

    def cut_while_working(self, what):
        """The link is away until the banks have made their transfers without it."""
        self.say(f"  The link is cut, {what}.")
        self.sites.cut()
        self.work(ALONE)
        self.sites.mend()
        self.say("  The link is mended.")

    def order(self, *words):
        """A job, begun."""
        return self.site.ask(*words, "--no-wait")["id"]

    def machines(self):
        return {m["name"]: m for m in self.site.ask("status")["machines"]}

    def all_protected(self):
        machines = self.machines()
        return all(machines.get(s.name, {}).get("state") == "protected" for s in self.servers)

    def ledgers(self, where):
        return [s.bank.ledger(self.at(where)) for s in self.servers]

    def judge(self, ledgers, before_ns=None):
        verdict = self.town.judge(ledgers, before_ns)
        if not verdict.ok:
            raise BankError(f"the ledgers do not add up: {verdict}")
        self.say(f"The ledgers add up: {verdict}; every transfer that was confirmed before the point is there.")

    # ---- the turns

    def protect(self):
        self.town.go(self.at("primary"))
        for policy in ("default", "default-failback"):
            self.site.lifeboat("policy", "set", policy, "--consistency-interval", 1, "--upload-interval", 1,
                               "--heartbeat-interval", 1, "--ring", "16M")
        for s in self.servers:
            self.site.lifeboat("machine", "protect", s.name, "--no-wait")
        self.wait(lambda: all((m.get("progress") or {}).get("done_bytes") for m in self.machines().values()),
                  "beginning of the initial replication", PROTECT_DEADLINE_S)
        self.cut_while_working("in the initial replication")
        self.kill(self.process, "in the initial replication")
        self.kill(self.site, "in the initial replication")
        self.site.wait(self.all_protected, "protection of all servers", PROTECT_DEADLINE_S)
        for s in self.servers:
            self.site.lifeboat("machine", "target", s.name, "--network", f"bridge:{BRIDGE}", "--memory", MEMORY)
        self.say("All three servers are protected.")

    def share(self):
        names = ",".join(s.name for s in self.servers)
        self.site.lifeboat("group", "create", GROUP, "--machines", names, "--interval", GROUP_INTERVAL_S)
        points = self.new_points(2)
        self.cut_while_working("while replication is steady")
        points += self.new_points()
        self.kill(self.site, "while replication is steady")
        points += self.new_points()
        self.kill(self.process, "while replication is steady")
        points += self.new_points()
        self.note_frozen(points)
        self.say(f"{len(points)} shared points.")

    def note_frozen(self, points):
        self.figures.put("frozen ms", max(p["frozen_ns"] for p in points) / 1e6)

    def drill(self):
        plan = {"name": PLAN, "groups": [{"machines": [s.name for s in self.servers]}]}
        path = self.site.folder / "plan.json"
        path.write_text(json.dumps(plan))
        self.site.lifeboat("plan", "create", path)
        job = self.order("drill", "start", PLAN, "--plan", "--nonce", "--point", "latest-multi-vm", "--timeout", "15m")
        self.wait(lambda: self.site.ask("failover", "list")["failovers"], "the first double of the drill", JOB_DEADLINE_S)
        self.cut_while_working("during the drill")
        self.kill(self.process, "during the drill")
        self.kill(self.site, "during the drill")
        self.site.wait_job(job, JOB_DEADLINE_S)
        for s in self.servers:
            newest = self.site.ask("drill", "list", s.name)["drills"][0]
            if newest["state"] != "passed" or not newest["proof"]["nonce"]["passed"]:
                raise SiteError(f"the drill of {s.name} {newest['state']}: {newest}")
        if self.site.ask("failover", "list")["failovers"]:
            raise SiteError("the drill left doubles behind")
        self.say("The drill has proven all three doubles by the words on their disks, and removed them.")
        self.new_points()

    def lose_the_primary(self):
        """Everything there dies at once, and the link with it. Returns when, on our clock."""
        self.sites.cut()
        for s in self.servers:
            s.die()
        self.process.die()
        self.target.die()
        killed_ns = time.time_ns()
        self.town.unwatch()
        self.say("SIGKILL of all servers, the process server and the target server; the link is cut. The primary site is gone.", RED)
        return killed_ns

    def fail_over(self, killed_ns):
        began = time.monotonic()
        job = self.order("plan", "failover", PLAN, "--point", "latest-multi-vm", "--confirm", PLAN)
        self.wait(lambda: self.site.ask("failover", "list")["failovers"], "the first double", JOB_DEADLINE_S)
        self.kill(self.site, "in the middle of the failover")
        self.site.wait_job(job, JOB_DEADLINE_S)
        ledgers = self.wait(self.answering, "answer of all doubles", RUN_DEADLINE_S)
        self.figures.put("RTO s", time.monotonic() - began)
        points = self.double_points()
        self.figures.put("RPO s", (killed_ns - min(points.values())) / 1e9)
        self.judge(ledgers, points)

    def answering(self):
        try:
            return self.ledgers("recovery")
        except BankError:
            return None

    def doubles(self):
        return {d["machine_name"]: d for d in self.site.ask("failover", "list")["failovers"]}

    def double_points(self):
        doubles = self.doubles()
        return {s.number: doubles[s.name]["point_ns"] for s in self.servers}

    def work_at_recovery(self):
        self.town.go(self.at("recovery"))
        self.work()
        self.say("The doubles are at work.")

    def commit(self):
        job = self.order("plan", "commit", PLAN)
        self.kill(self.site, "while the doubles are committed")
        self.site.wait_job(job, JOB_DEADLINE_S)
        self.work()
        self.say("The doubles stand by themselves.")

    def find_the_primary_again(self):
        """Its servers are off, their disks as they were when the site was lost."""
        self.sites.mend()
        self.process.start().wait_ready()
        self.target.start().wait_ready()
        self.say("The primary site is there again, with the disks as they were.")

    def homes(self):
        return "--target", self.target.name, "--to", ",".join(f"{s.name}:vda={s.disk}" for s in self.servers)

    def reprotect(self):
        """The doubles replicate back while they work, and the old disks at the primary follow them over the link."""
        self.site.lifeboat("plan", "reprotect", PLAN, *self.homes(), "--dry-run")
        job = self.order("plan", "reprotect", PLAN, *self.homes())
        self.wait(self.sites.temporary_process_server, "temporary process server", JOB_DEADLINE_S)
        self.cut_while_working("while the doubles are reprotected")
        os.kill(self.wait(self.sites.temporary_process_server, "temporary process server", JOB_DEADLINE_S), signal.SIGKILL)
        self.say("  SIGKILL of the temporary process server.")
        self.kill(self.site, "while the doubles are reprotected")
        self.kill(self.target, "while the doubles are reprotected")
        self.site.wait_job(job, JOB_DEADLINE_S)
        self.work()
        self.say("The doubles replicate back, and the old disks follow them.")

    def go_home(self):
        """Doubles off; what they wrote last goes onto the old disks over the link; the servers are switched on."""
        self.town.stop(self.at("recovery"))
        self.judge(self.ledgers("recovery"))
        job = self.order("plan", "failback", PLAN, "--confirm", PLAN, "--hook", "power-on")
        # what is in the way is found before: from here on nobody is waited for in vain
        self.wait(lambda: (self.site.job(job) or {}).get("result", {}).get("shut"), "begin of the doubles' shutdown", JOB_DEADLINE_S)
        self.sites.cut()
        self.say("  The link is cut on the way home.")
        self.kill(self.site, "on the way home")
        self.kill(self.target, "on the way home")
        self.sites.mend()
        self.say("  The link is mended.")
        self.site.wait_job(job, JOB_DEADLINE_S)
        for s in self.servers:
            if not any(name in (s.name, s.name + BACK) for name in self.target.switched_on()):
                raise SiteError(f"{s.name} was not switched on")
            s.boot()
        for s in self.servers:
            s.wait_bank()
        self.judge(self.ledgers("primary"))
        self.site.lifeboat("plan", "failback-commit", PLAN, "--confirm", PLAN)
        self.wait(lambda: self.sites.temporary_process_server() is None, "end of the temporary process server", JOB_DEADLINE_S)
        self.say("The servers run at home again; the doubles are gone.")

    def protect_again(self):
        self.town.go(self.at("primary"))
        self.site.wait(self.all_protected, "protection of all servers", PROTECT_DEADLINE_S)
        self.note_frozen(self.new_points(2))
        self.say("The servers are protected again, and share points.")
