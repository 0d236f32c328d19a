# SPDX-License-Identifier: Apache-2.0
"""One more process server of a site, on this host (as 127.0.0.2): enrolled by its token, a process of its own."""
import signal
import subprocess

from guest import free_port


class Daemon:
    """What ends it, when it runs."""
    process = None

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


class ProcessServer(Daemon):
    def __init__(self, site, folder, name):
        self.site, self.folder, self.name = site, folder, name
        self.port = free_port()

    def enrol(self):
        self.folder.mkdir()
        token = self.site.ask("server", "add", self.name, "--file", self.folder / "token")
        self.site.lifeboat("token", "use", self.name, "--kind", "process", "--ca-fingerprint", token["ca_fingerprint"],
                           "--token-file", self.folder / "token", "--identity", self.folder / "identity",
                           "--public-host", "127.0.0.2", "--port", self.port)
        (self.folder / "process.conf").write_text(
            f"address = 127.0.0.2\nport = {self.port}\nconfig_url = {self.site.config_url}\n"
            f"identity_folder = {self.folder}/identity\ncache_folder = {self.folder}/cache\n")
        return self

    def start(self):
        with open(self.folder / "process.log", "ab") as log:
            self.process = subprocess.Popen([self.site.programs["process"], "--config", self.folder / "process.conf"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.site.wait(lambda: self.health() == "ok", f"process server {self.name}", 180)
        return self

    def health(self):
        return next((s["health"] for s in self.site.ask("server", "list")["servers"] if s["name"] == self.name), None)

    def cached(self):
        return sorted((self.folder / "cache").glob("*/*.hrl"))

    def log(self, n_bytes=3000):
        return (self.folder / "process.log").read_bytes()[-n_bytes:].decode(errors="replace")
