# SPDX-License-Identifier: Apache-2.0
"""What stands at the sites: configuration server, storage account and fabric at the recovery site, the servers that joined at the primary."""
import json
import signal
import subprocess

from lifeboat_site import Site, SiteError
from object_stores import Azurite
from two_sites import PRIMARY, RECOVERY

CONFIG_PORT, PROCESS_PORT = 443, 9443
JOIN_DEADLINE_S = 400


class RecoverySite(Site):
    """The operator's: everything runs in the namespace where we are. The vault is an account of a storage emulator."""

    what = "configuration server"

    def __init__(self, build, folder):
        super().__init__(build, folder)
        self.store = None

    @property
    def config_url(self):
        return f"https://{RECOVERY}:{CONFIG_PORT}"

    def make(self):
        self.store = Azurite(host=RECOVERY)
        self.vault_url = self.store.url("lifeboat")
        self.folder.mkdir(parents=True)
        self.port, self.process_port = CONFIG_PORT, PROCESS_PORT
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text("two sites, one boat\n")
        self.lifeboat("setup", "--vault", self.vault_url, "--state-folder", self.folder / "state", "--etc-folder",
                      self.folder / "etc", "--public-host", RECOVERY, "--port", CONFIG_PORT, "--process-port", PROCESS_PORT,
                      "--identity", self.folder / "admin", "--address", RECOVERY, "--fabric", "qemu", server=False)
        with open(self.folder / "etc/config.conf", "a") as conf:
            conf.write("process_server = no\n")
        return self

    def kill(self):
        """SIGKILL, and started again."""
        self.stop(signal.SIGKILL)
        self.start()

    def job(self, job):
        """A job as it stands; None while the server doesn't answer."""
        p = self.lifeboat("job", "list", "-o", "json", check=False)
        if p.returncode not in (0, 3):
            return None
        return next((j for j in json.loads(p.stdout)["data"]["jobs"] if j["id"] == job), None)

    def wait_job(self, job, deadline_s):
        """Until it is done; whatever else it comes to is an error."""
        def ended():
            j = self.job(job)
            return j if j and j["state"] in ("done", "failed", "cancelled") else None
        j = self.wait(ended, f"end of the job {job}", deadline_s)
        if j["state"] != "done":
            raise SiteError(f"the {j['kind']} of {j['target']} {j['state']}: {j['error']}\n"
                            f"--- end of the servers' log:\n{self.log_tail()}")
        return j

    def close(self):
        if self.server is not None:
            self.stop(signal.SIGKILL)
        if self.store is not None:
            self.store.stop()


class Joined:
    """A server at the primary site that joined by one command, with a one-time token. It is a process of its own."""
    kind = None

    @property
    def what(self):
        return f"{self.kind} server"

    def __init__(self, site, sites, folder, name):
        self.site, self.sites, self.folder, self.name = site, sites, folder, name
        self.conf, self.log = folder / f"{self.kind}.conf", folder / f"{self.kind}.log"
        self.process = None

    def join(self):
        self.folder.mkdir()
        token = self.site.ask("server", "add", self.name, "--kind", self.kind, "--file", self.folder / "token")
        words = self.joining() + ["--server", self.site.config_url, "--ca-fingerprint", token["ca_fingerprint"], "--token-file",
                                  self.folder / "token", "--identity", self.folder / "identity"]
        p = subprocess.run([*self.sites.primary, *map(str, words)], capture_output=True, text=True)
        if p.returncode:
            raise SiteError(f"{self.name} can't join: {p.stderr}")
        self.configure()
        return self

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.sites.primary, self.site.programs[self.kind], "--config", self.conf],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return self

    def wait_ready(self):
        self.site.wait(lambda: self.health() == "ok", f"{self.kind} server {self.name}", JOIN_DEADLINE_S)
        return self

    def health(self):
        if self.process.poll() is not None:
            raise SiteError(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")
        return next((s["health"] for s in self.site.ask("server", "list")["servers"] if s["name"] == self.name), None)

    def die(self):
        self.process.kill()
        self.process.wait()

    def kill(self):
        """SIGKILL, and started again."""
        self.die()
        self.start()


class ProcessServer(Joined):
    kind = "process"

    def joining(self):
        return [self.site.programs["lifeboat"], "token", "use", self.name, "--kind", "process", "--public-host", PRIMARY, "--port",
                PROCESS_PORT]

    def configure(self):
        settings = {"address": PRIMARY, "port": PROCESS_PORT, "config_url": self.site.config_url,
                    "identity_folder": self.folder / "identity", "cache_folder": self.folder / "cache"}
        self.conf.write_text("".join(f"{k} = {v}\n" for k, v in settings.items()))


class TargetServer(Joined):
    """Its script power-on notes which machine is to be started: the hand on the switch is the test's."""
    kind = "target"

    def joining(self):
        return [self.site.programs["target"], "join", self.name, "--config", self.conf, "--state", self.folder / "state"]

    def configure(self):
        hooks = self.folder / "hooks"
        hooks.mkdir(mode=0o755)
        (hooks / "power-on").write_text(f'#!/bin/sh\necho "$LIFEBOAT_MACHINE" >>{self.folder}/switched-on\n')
        (hooks / "power-on").chmod(0o755)
        with open(self.conf, "a") as conf:
            conf.write(f"hook_folder = {hooks}\n")

    def switched_on(self):
        noted = self.folder / "switched-on"
        return noted.read_text().split() if noted.exists() else []
