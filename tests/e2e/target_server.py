# SPDX-License-Identifier: Apache-2.0
"""A site whose vault holds a machine's journal already, and target servers that join it: each a process of its own."""
import signal
import subprocess

from lifeboat_site import Site


class VaultSite(Site):
    """A configuration server over a vault that mkvault made; its machine is not enrolled."""

    def __init__(self, build, folder, vault):
        super().__init__(build, folder)
        self.vault_url = vault.url
        self.passphrase_file = vault.passphrase_file


class TargetServer:
    def __init__(self, site, build, folder, name):
        self.site, self.folder, self.name = site, folder, name
        self.program = build / "src/target/lifeboat-target"
        self.conf = folder / "target.conf"
        self.state = folder / "state"
        self.process = None

    def join(self, server=None, **settings):
        """By one command and a token; `server`: by another address than the site's own."""
        self.folder.mkdir(exist_ok=True)
        token = self.site.ask("server", "add", self.name, "--kind", "target", "--file", self.folder / "token")
        subprocess.run([self.program, "join", self.name, "--server", server or self.site.config_url, "--ca-fingerprint",
                        token["ca_fingerprint"], "--token-file", self.folder / "token", "--config", self.conf,
                        "--identity", self.folder / "identity", "--state", self.state], check=True, capture_output=True, text=True)
        if settings:
            self.conf.write_text(self.conf.read_text() + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        return self

    def start(self):
        with open(self.folder / "target.log", "ab") as log:
            self.process = subprocess.Popen([self.program, "--config", self.conf, "--verbose"], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def shown(self):
        return self.site.ask("server", "show", self.name)

    def health(self):
        return self.shown()["health"]

    def orders(self, kind=None):
        """Newest first."""
        return [o for o in self.shown()["order_list"] if kind in (None, o["kind"])]

    def is_reached(self):
        return any(o["state"] == "reached" for o in self.orders("follow"))

    def order(self, verb, machine, *more, check=True):
        """What `failback` VERB --target ends with: the job's result, or the run if it may fail."""
        confirm = ["--confirm", machine] if verb in ("restore", "back", "drop") else []
        words = ["failback", verb, machine, "--target", self.name, *confirm, *map(str, more)]
        if not check:
            return self.site.lifeboat(*words, check=False)
        return self.site.ask(*words)["result"]

    def log(self):
        return (self.folder / "target.log").read_text(errors="replace")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
