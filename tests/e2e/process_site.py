# SPDX-License-Identifier: Apache-2.0
"""A process server with all around it that is not itself: a configuration server of a few lines, a CA of openssl's,
a vault in a folder, agents of segtool's."""

import hashlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import threading
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/guest"))

from guest import free_port  # noqa: E402
from provoked import wait_for  # noqa: E402

BUILD = pathlib.Path(os.environ.get("LIFEBOAT_BUILD", ROOT / "build"))
DAEMON = BUILD / "src/process/lifeboat-process"
SEGTOOL = BUILD / "tests/tools/segtool"
DISK_BYTES = 8 << 20
PASSPHRASE = "correct horse battery"


class Ca:
    """ECDSA certificates with CN and OU as the site's own CA makes them."""

    def __init__(self, folder, name="site"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.key = self.folder / "ca-key.pem"
        self.cert = self.folder / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key,
                      "-out", self.cert, "-days", "30", "-subj", f"/CN={name} CA", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)

    def identity(self, folder, name, role):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        request, extensions = folder / "request.pem", folder / "extensions"
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "key.pem",
                      "-out", request, "-subj", f"/OU={role}/CN={name}")
        extensions.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "30",
                      "-extfile", extensions, "-out", folder / "cert.pem")
        os.chmod(folder / "key.pem", 0o600)
        (folder / "ca.pem").write_text(self.cert.read_text())
        request.unlink()
        extensions.unlink()
        return folder


def fingerprint(identity):
    pem = (pathlib.Path(identity) / "cert.pem").read_text()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


class Machine:
    def __init__(self, site, name, seed):
        self.id = str(uuid.uuid4())
        self.name, self.seed = name, seed
        self.hardware = hashlib.sha256(self.id.encode()).hexdigest()
        self.identity = site.ca.identity(site.folder / name, self.id, "machine")
        self.acked = site.folder / f"{name}.acked"
        self.acked.touch()
        self.key = None
        self.enabled, self.fenced = True, False
        self.policy = {"name": "test", "upload_interval_s": 1, "zstd_level": 1}

    def entry(self):
        return {"id": self.id, "name": self.name, "key": self.key, "hardware": self.hardware,
                "cert_fingerprint": fingerprint(self.identity), "enabled": self.enabled, "fenced": self.fenced,
                "disks": [{"id": 0, "name": "vda", "path": "/dev/vda", "serial": "", "size_bytes": DISK_BYTES,
                           "sector_bytes": 512, "boot": True}],
                "policy": self.policy}

    def last_acked(self):
        """(epoch, seq) of the last whole line, None before the first."""
        lines = self.acked.read_text().split("\n")[:-1]
        return tuple(map(int, lines[-1].split())) if lines else None


class Config:
    """GET /v1/process/config and POST /v1/process/report over mutual TLS."""

    def __init__(self, site):
        self.site = site
        self.reports = {}  # machine id -> its newest entry
        self.polls = 0
        identity = site.ca.identity(site.folder / "config", "config", "config")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        context.load_verify_locations(site.ca.cert)
        context.verify_mode = ssl.CERT_REQUIRED
        self.context, self.server, self.port = context, None, 0

    def start(self):
        config = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                assert self.path == "/v1/process/config", self.path
                config.polls += 1
                self.reply(config.site.assignment())

            def do_POST(self):
                assert self.path == "/v1/process/report", self.path
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for machine in body["machines"]:
                    config.reports[machine["id"]] = machine
                self.reply({"commands": []})

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request, client_address):
                pass  # a killed client breaks its connection: that is the point

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.server.socket = self.context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class Site:
    def __init__(self, folder, machines=1, **settings):
        self.folder = pathlib.Path(folder)
        self.ca = Ca(self.folder / "ca")
        self.vault_url = settings.pop("vault_url", f"dir:{self.folder}/vault")
        self.passphrase_file = self.folder / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.machines = [Machine(self, f"web{n}", 1000 + n) for n in range(machines)]
        args = [a for m in self.machines for a in ("--machine", m.id)]
        made = json.loads(self.segtool("vault", *self.vault_args(), *args))
        self.vault_id = made["vault_id"]
        for machine in self.machines:
            machine.key = made["keys"][machine.id]
        self.assigned = list(self.machines)
        self.process_id = str(uuid.uuid4())
        self.config = Config(self)
        self.config.start()
        self.identity = self.ca.identity(self.folder / "process", self.process_id, "process")
        self.cache = settings.pop("cache_folder", self.folder / "cache")
        self.port = free_port()
        self.settings = self.folder / "process.conf"
        lines = {"address": "127.0.0.1", "port": self.port, "config_url": f"https://127.0.0.1:{self.config.port}",
                 "identity_folder": self.identity, "cache_folder": self.cache, **settings}
        self.settings.write_text("".join(f"{k} = {v}\n" for k, v in lines.items()))
        self.log = open(self.folder / "log", "ab")
        self.daemon = None
        self.agents = []

    def assignment(self):
        return {"vault_id": self.vault_id, "vault_url": self.vault_url, "process_id": self.process_id,
                "machines": [m.entry() for m in self.assigned]}

    def vault_args(self):
        return ["--vault", self.vault_url, "--passphrase-file", str(self.passphrase_file)]

    def shape(self, machine):
        return ["--seed", str(machine.seed), "--disk-bytes", str(DISK_BYTES)]

    @staticmethod
    def segtool(*args):
        done = subprocess.run([SEGTOOL, *map(str, args)], capture_output=True, text=True)
        assert done.returncode == 0, f"segtool {args[0]}: {done.stderr}"
        return done.stdout

    def start(self):
        self.daemon = subprocess.Popen([DAEMON, "--config", self.settings], stderr=self.log, env=self.environment())

    def environment(self):
        return dict(os.environ)

    def kill(self):
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()

    def agent(self, machine, *shape, patience_s=240):
        process = subprocess.Popen([SEGTOOL, "send", "--url", f"https://127.0.0.1:{self.port}", "--identity", machine.identity,
                                    "--vault-id", self.vault_id, "--machine", machine.id, "--hardware", machine.hardware,
                                    "--acked", machine.acked, "--patience", str(patience_s), *self.shape(machine), *map(str, shape)],
                                   stderr=subprocess.PIPE, text=True)
        self.agents.append(process)
        return process

    def request(self, machine, method, path, body=None, identity=None, ca=None):
        """(status, JSON) of one call as that machine."""
        context = ssl.create_default_context(cafile=ca or self.ca.cert)
        identity = machine.identity if identity is None else identity
        if identity:
            context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def journal(self, machine):
        """Where the journal stands, once the process server can say so."""
        def ask():
            try:
                status, body = self.request(machine, "GET", "/v1/journal")
            except OSError:
                return None
            return body if status == 200 else None
        return wait_for(ask, f"the journal of {machine.name} can be read")

    def report(self, machine):
        return self.config.reports.get(machine.id, {})

    def wait_in_vault(self, machine, position):
        def there():
            r = self.report(machine)
            return (r.get("vault_epoch"), r.get("vault_seq")) == position
        wait_for(there, f"{machine.name} is in the vault up to {position}, but: {self.report(machine)}")

    def assert_image(self, machine, position, *shape):
        """The vault alone, with the passphrase, gives back what the agent wrote."""
        at = "%d:%d" % position
        image, oracle = self.folder / "image", self.folder / "oracle"
        self.segtool("image", *self.vault_args(), "--machine", machine.id, "--at", at, "--out", image, *self.shape(machine), *shape)
        self.segtool("oracle", "--at", at, "--out", oracle, *self.shape(machine), *shape)
        assert image.read_bytes() == oracle.read_bytes(), f"{machine.name} at {at} is not what was written"

    def close(self):
        for agent in self.agents:
            if not agent.stderr.closed:
                agent.kill()
                agent.communicate()
        if self.daemon and self.daemon.poll() is None:
            self.kill()
        self.config.stop()
        self.log.close()
