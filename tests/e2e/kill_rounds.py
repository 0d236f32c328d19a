# SPDX-License-Identifier: Apache-2.0
"""Deaths of the site's processes: whom to kill, who starts it again, and what was durable before."""
import fcntl
import functools
import http.client
import json
import os
import pathlib
import signal
import ssl
import subprocess
import time

from host_agent import HostAgent
from lifeboat_site import Site

RECOVERY_DEADLINE_S = 240


class KillableSite(Site):
    """A site whose servers die: the configuration server is started by the test, its process server by it."""

    @functools.cached_property
    def cache(self):
        """Found once: a server that starts writes its file anew, and folders beside it come and go."""
        conf = self.process_conf.read_text().splitlines()
        return pathlib.Path(next(line.split("=", 1)[1].strip() for line in conf if line.startswith("cache_folder")))

    @functools.cached_property
    def process_conf(self):
        return next((self.folder / "state").rglob("process.conf"))

    def spawn(self):
        """As systemd would: start it and don't wait for anything."""
        with open(self.folder / "servers.log", "ab") as log:
            self.server = subprocess.Popen([self.programs["config"], "--config", self.folder / "etc/config.conf"],
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self):
        self.wait(lambda: self.lifeboat("status", "-o", "json", check=False).returncode in (0, 3),
                  "answer of the configuration server", RECOVERY_DEADLINE_S)

    def kill_config(self):
        self.server.kill()
        self.server.wait()

    def process_pid(self):
        """The process server that the configuration server runs now; None while there is none."""
        for task in pathlib.Path(f"/proc/{self.server.pid}/task").iterdir():
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            for pid in children:
                try:
                    if b"lifeboat-process" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
                except OSError:
                    pass
        return None

    def wait_process_gone(self):
        """The process server ends when its configuration server has died; then nobody holds the cache."""
        lock = self.cache / "lock"
        end = time.monotonic() + RECOVERY_DEADLINE_S
        with open(lock) as f:
            while True:
                try:
                    return fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    assert time.monotonic() < end, "the process server outlives its configuration server"
                    time.sleep(0.05)

    def kill_process(self):
        pid = self.wait(self.process_pid, "process server to kill", RECOVERY_DEADLINE_S)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself since we looked
        return pid


class Journal:
    """What the process server says is durable, asked as the machine itself would."""

    def __init__(self, site: Site, agent: HostAgent):
        self.port = site.process_port
        identity = agent.folder / "identity"
        self.context = ssl.create_default_context(cafile=identity / "ca.pem")
        self.context.load_cert_chain(identity / "cert.pem", identity / "key.pem")

    def ask(self):
        """None while nobody answers for the machine."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=10)
        try:
            connection.request("GET", "/v1/journal")
            answer = connection.getresponse()
            if answer.status != 200:
                return None
            body = json.loads(answer.read())
            return body if body["known"] else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    @staticmethod
    def position(journal):
        return (journal["last_epoch"], journal["last_seq"])
