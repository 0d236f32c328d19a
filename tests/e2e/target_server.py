# SPDX-License-Identifier: Apache-2.0
"""A site whose vault holds a machine's journal already, and target servers that join it: each a process of its own."""
import contextlib
import os
import signal
import socket
import subprocess
import threading

from lifeboat_site import Site
from process_server import Daemon
from test_recovery import MKVAULT, PASSPHRASE, secret


class VaultSite(Site):
    """A configuration server over a vault that mkvault made; its machine is not enrolled."""

    def __init__(self, build, folder, vault):
        super().__init__(build, folder)
        self.vault_url = vault.url
        self.passphrase_file = vault.passphrase_file


class TargetServer(Daemon):
    def __init__(self, site, build, folder, name):
        self.site, self.folder, self.name = site, folder, name
        self.program = build / "src/target/lifeboat-target"
        self.conf = folder / "target.conf"
        self.state = folder / "state"
        self.env = {}                   # from its next start on

    def join(self, server=None, replace=False, **settings):
        """By one command and a token; `server`: by another address than the site's own."""
        self.folder.mkdir(exist_ok=True)
        token = self.site.ask("server", "add", self.name, "--kind", "target", "--file", self.folder / "token",
                              *(["--replace"] if replace else []))
        subprocess.run([self.program, "join", self.name, "--server", server or self.site.config_url, "--ca-fingerprint",
                        token["ca_fingerprint"], "--token-file", self.folder / "token", "--config", self.conf,
                        "--identity", self.folder / "identity", "--state", self.state], check=True, capture_output=True, text=True)
        if settings:
            self.conf.write_text(self.conf.read_text() + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        return self

    def start(self):
        with open(self.folder / "target.log", "ab") as log:
            self.process = subprocess.Popen([self.program, "--config", self.conf, "--verbose"], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=dict(os.environ, **self.env))
        return self

    @contextlib.contextmanager
    def kept_running(self):
        """As systemd would: started again whenever it was killed, until the block ends."""
        ended = threading.Event()

        def look():
            while not ended.wait(0.1):
                if self.process.poll() == -signal.SIGKILL:
                    self.start()

        keeper = threading.Thread(target=look)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()

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


class Relay:
    """A link of its own to a server on this host, which can be cut: connections die, new ones are refused."""

    def __init__(self, port):
        self.to = port
        self.open = set()
        self.lock = threading.Lock()
        self.listener, self.port = None, 0
        self.mend()

    def mend(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            with self.lock:
                if listener is not self.listener:       # it was cut while this one came
                    near.close()
                    far.close()
                    return
                self.open |= {near, far}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        with self.lock:
            listener, self.listener = self.listener, None
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for s in self.open:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.open.clear()


class GrowingVault:
    """A vault whose machine gets one more point each time that it is asked for one."""

    def __init__(self, folder, disks, points, vault=None, machine="db2", more=()):
        self.oracle = folder / f"oracle-{machine}"
        self.oracle.mkdir()
        self.names, self.machine_name = list(disks), machine
        self.url = vault.url if vault else f"dir:{folder}/vault"
        self.passphrase_file = vault.passphrase_file if vault else secret(folder / "passphrase", PASSPHRASE + "\n")
        self.points = []
        self.made = subprocess.Popen(
            [MKVAULT, "--step", "--vault", self.url, "--passphrase-file", self.passphrase_file, "--machine", machine, "--points", str(points),
             "--oracle", self.oracle, *map(str, more)] + [f"--disk={n}={p}" for n, p in disks.items()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self):
        self.points.append(self.made.stdout.readline().strip())
        assert ":" in self.points[-1]

    def grow(self):
        """The number of the point that is there now."""
        self.made.stdin.write("\n")
        self.made.stdin.flush()
        self._read()
        return len(self.points) - 1

    def at(self, point, disk=0):
        return self.oracle / f"{point}-{self.names[disk]}.raw"

    def close(self):
        self.made.kill()
        self.made.wait()
