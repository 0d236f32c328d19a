# SPDX-License-Identifier: Apache-2.0
"""A Lifeboat site on high ports of 127.0.0.1, in a folder of its own: what the demo and the tests protect machines with.

The vault is <folder>/vault, the servers' state <folder>/state, their configuration <folder>/etc, logs beside it.
Nothing needs root. Everything that waits waits for a condition, with a deadline.
"""
import json
import os
import pathlib
import secrets
import signal
import subprocess
import time

from guest import GuestError, free_port

POLL_INTERVAL_S = 0.1
START_DEADLINE_S = 180
STOP_DEADLINE_S = 120


class SiteError(GuestError):
    pass


def programs(build):
    """Where a build has its programs."""
    build = pathlib.Path(build).resolve()
    return {"lifeboat": build / "src/cli/lifeboat", "config": build / "src/config/lifeboat-config",
            "process": build / "src/process/lifeboat-process", "mobility": build / "src/mobility/lifeboat-mobility",
            "capture": build / "src/capture/lifeboat-capture", "ledger": build / "tests/guest/ledger",
            "bank": build / "tests/guest/bank", "target": build / "src/target/lifeboat-target"}


class Site:
    def __init__(self, build, folder, public_hosts=("127.0.0.1", "localhost", "10.0.2.2")):
        self.programs = programs(build)
        self.folder = pathlib.Path(folder).resolve()
        self.public_hosts = public_hosts
        self.vault_url = f"dir:{self.folder}/vault"
        self.passphrase_file = self.folder / "passphrase"
        self.identity = self.folder / "admin"
        self.port = self.process_port = None
        self.server = None

    @property
    def config_url(self):
        return f"https://127.0.0.1:{self.port}"

    def environment(self):
        return {"LIFEBOAT_CONFIG_URL": self.config_url, "LIFEBOAT_IDENTITY": str(self.identity),
                "LIFEBOAT_PASSPHRASE_FILE": str(self.passphrase_file)}

    def make(self, port=None, process_port=None, fabric="auto"):
        """Vault, certificates, configuration: `lifeboat setup`. Guests reach 127.0.0.1 as 10.0.2.2; nobody else does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.process_port = port or free_port(), process_port or free_port()
        if not self.passphrase_file.exists():
            fd = os.open(self.passphrase_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, secrets.token_urlsafe(24).encode() + b"\n")
            os.close(fd)
        self.lifeboat("setup", "--vault", self.vault_url, "--state-folder", self.folder / "state",
                      "--etc-folder", self.folder / "etc", "--public-host", ",".join(self.public_hosts),
                      "--port", self.port, "--process-port", self.process_port, "--identity", self.identity,
                      "--address", "127.0.0.1", "--fabric", fabric, server=False)
        conf = self.folder / "etc/config.conf"
        if "temporary_port" not in conf.read_text():
            conf.write_text(conf.read_text() + "temporary_port = 0\n")     # others' sites are on this host, too
        return self

    def start(self):
        with open(self.folder / "servers.log", "ab") as log:
            self.server = subprocess.Popen([self.programs["config"], "--config", self.folder / "etc/config.conf"],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        (self.folder / "config.pid").write_text(f"{self.server.pid}\n")
        (self.folder / "site.json").write_text(json.dumps({"port": self.port, "process_port": self.process_port}) + "\n")
        self.wait(self.answers, "answer of the configuration server", START_DEADLINE_S)
        return self

    @classmethod
    def load(cls, build, folder):
        """The site that another process started in this folder, or None."""
        site = cls(build, folder)
        try:
            ports = json.loads((site.folder / "site.json").read_text())
        except OSError:
            return None
        site.port, site.process_port = ports["port"], ports["process_port"]
        return site

    def answers(self):
        return self.lifeboat("status", "-o", "json", check=False).returncode in (0, 3)

    def lifeboat(self, *words, check=True, server=True, **kw):
        env = dict(os.environ, **(self.environment() if server else
                                  {"LIFEBOAT_PASSPHRASE_FILE": str(self.passphrase_file)}))
        p = subprocess.run([self.programs["lifeboat"], *map(str, words)], env=env, text=True, capture_output=True, **kw)
        if check and p.returncode != 0:
            raise SiteError(f"`lifeboat {' '.join(map(str, words))}` ended with {p.returncode}: {p.stderr.strip()}\n"
                            f"--- end of the servers' log:\n{self.log_tail()}")
        return p

    def ask(self, *words, ok=(0, 3)):
        """The data of a command's JSON."""
        p = self.lifeboat(*words, "-o", "json", check=False)
        if p.returncode not in ok:
            raise SiteError(f"`lifeboat {' '.join(map(str, words))}` ended with {p.returncode}: {p.stderr.strip()}\n"
                            f"--- end of the servers' log:\n{self.log_tail()}")
        return json.loads(p.stdout)["data"]

    def vault_ask(self, *words, ok=(0, 3)):
        """The same with the vault alone, no server."""
        p = self.lifeboat(*words, "--vault", self.vault_url, "-o", "json", check=False, server=False)
        if p.returncode not in ok:
            raise SiteError(f"`lifeboat {' '.join(map(str, words))}` ended with {p.returncode}: {p.stderr.strip()}")
        return json.loads(p.stdout)["data"]

    def machine(self, name):
        return next((m for m in self.ask("status")["machines"] if m["name"] == name), None)

    def points(self, name):
        return self.ask("point", "list", name, "--limit", 0)["points"]

    def token(self, path, name=None):
        path = pathlib.Path(path)
        path.unlink(missing_ok=True)
        return self.ask("token", "create", "--kind", "machine", "--file", path, *(["--name", name] if name else []))

    def log_tail(self, n_bytes=3000):
        log = self.folder / "servers.log"
        return log.read_bytes()[-n_bytes:].decode(errors="replace") if log.exists() else ""

    def wait(self, condition, what, deadline_s):
        end = time.monotonic() + deadline_s
        while True:
            result = condition()
            if result:
                return result
            if self.server is not None and self.server.poll() is not None:
                raise SiteError(f"lifeboat-config ended with {self.server.returncode} while waiting for {what}\n"
                                f"--- end of the servers' log:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise SiteError(f"no {what} within {deadline_s} s\n--- end of the servers' log:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self, how=signal.SIGTERM):
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(how)
            try:
                self.server.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait(STOP_DEADLINE_S)
        self.server = None
