# SPDX-License-Identifier: Apache-2.0
"""The script templates against real servers under load: an application-consistent point's copy starts, has all that was acknowledged
before it, and has as little to recover as the template says; a script that fails leaves no lock behind."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

from guest import free_port
from host_agent import AGENT_UID, LoopDisk
from test_consistency import export, is_at_rest
from test_filesystems import mounted, run

TEMPLATES = pathlib.Path(__file__).resolve().parents[2] / "packaging/scripts.d"
MIB = 256
STOP_S = 120
PG_BIN = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))


class Database:
    """A server whose data are in `folder`; `client` is a command that takes SQL and says what it did."""
    uid = gid = process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*map(str, self.server())], stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self.uid,
                                            group=self.gid, extra_groups=[])
        end = threading.Event()
        for _ in range(600):
            if self.sql("SELECT 1", check=False).returncode == 0:
                return self
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            end.wait(0.2)
        raise AssertionError(f"the server does not answer: {self.log.read_text()[-3000:]}")

    def sql(self, text, check=True):
        p = subprocess.run([*map(str, self.client())], input=text + ";\n", text=True, capture_output=True)
        assert not check or p.returncode == 0, p.stderr
        return p

    def value(self, text):
        return self.sql(text).stdout.strip()

    def stop(self, how=signal.SIGINT):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(STOP_S)


class Postgres(Database):
    uid, gid = "postgres", "postgres"

    def __init__(self, folder, data):
        self.folder, self.data, self.port, self.log = folder, data, free_port(), folder / "postgres.log"

    def make(self):
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, self.uid, self.gid)
        subprocess.run([PG_BIN[-1] / "initdb", "--no-sync", "--auth=trust", "--wal-segsize=1", "-D", self.data], user=self.uid, group=self.gid,
                       extra_groups=[], check=True, capture_output=True, cwd="/")
        return self

    def server(self):
        return [PG_BIN[-1] / "postgres", "-D", self.data, "-p", self.port, "-k", self.folder, "-c", "listen_addresses=", "-c", "max_wal_size=32MB",
                "-c", "min_wal_size=4MB", "-c", "checkpoint_timeout=1h", "-c", "shared_buffers=16MB"]

    def client(self):
        return ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", self.port, "-U", "postgres", "-d", "postgres"]

    def redo(self):
        """From where it would recover."""
        text = run(PG_BIN[-1] / "pg_controldata", self.data)
        high, low = next(line for line in text.splitlines() if "REDO location" in line).split()[-1].split("/")
        return int(high, 16) << 32 | int(low, 16)

    def written(self):
        high, low = self.value("SELECT pg_current_wal_insert_lsn()").split("/")
        return int(high, 16) << 32 | int(low, 16)


class MariaDb(Database):
    uid = gid = AGENT_UID

    def __init__(self, folder, data):
        self.folder, self.data, self.socket, self.log = folder, data, folder / "mariadb.sock", folder / "mariadb.log"

    def make(self):
        self.data.mkdir(mode=0o700)
        os.chown(self.data, self.uid, self.gid)
        run("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--user=nobody", "--skip-test-db",
            "--auth-root-authentication-method=socket", "--innodb-log-file-size=4M", "--skip-name-resolve")
        return self

    def server(self):
        return ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.data}", f"--socket={self.socket}", "--skip-networking",
                "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", f"--pid-file={self.folder}/mariadb.pid", f"--tmpdir={self.folder}",
                "--innodb-fast-shutdown=2"]

    def client(self):
        return ["mariadb", f"--socket={self.socket}", "--user=root", "--batch", "--skip-column-names", "--unbuffered"]

    def sessions(self):
        """Of others, with what they wait for or do."""
        return self.value("SELECT ID, STATE, INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'")

    def stop(self, how=signal.SIGTERM):
        super().stop(how)


class Writer(threading.Thread):
    """Numbers 1, 2, 3 ... one statement after the other; `acknowledged` is the newest that the server has said yes to."""

    def __init__(self, database, statements):
        super().__init__(daemon=True)
        self.statements, self.acknowledged, self.ends = statements, 0, threading.Event()
        self.moved = threading.Condition()
        self.client = subprocess.Popen([*map(str, database.client())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self):
        while not self.ends.is_set():
            n = self.acknowledged + 1
            self.client.stdin.write(f"{self.statements.format(n=n)}; SELECT 'done {n}';\n")
            self.client.stdin.flush()
            while (line := self.client.stdout.readline()) != f"done {n}\n":
                if not line:
                    return
            with self.moved:
                self.acknowledged = n
                self.moved.notify_all()

    def goes_on(self, by=20, within_s=120):
        """True when so many more were acknowledged."""
        with self.moved:
            goal = self.acknowledged + by
            return self.moved.wait_for(lambda: self.acknowledged >= goal, within_s)

    def __enter__(self):
        self.start()
        assert self.goes_on()
        return self

    def __exit__(self, *args):
        self.ends.set()
        self.join(60)
        self.client.kill()
        self.client.wait()
        self.client.stdin.close()
        self.client.stdout.close()


@contextlib.contextmanager
def served(folder, kind):
    """The database on a filesystem of its own, on a disk of its own."""
    disk = LoopDisk(folder / "disk.img", MIB)
    try:
        run("mkfs.ext4", "-q", disk.device)
        (folder / "run").mkdir()
        shutil.chown(folder / "run", kind.uid, kind.gid)
        with mounted("ext4", disk.device, folder / "mnt", "defaults") as mnt:
            database = kind(folder / "run", mnt / "data").make()
            try:
                yield disk, database.start()
            finally:
                database.stop()
    finally:
        disk.close()


def install(agent, name, **settings):
    """The template as an operator has it: only its settings are another's."""
    text = (TEMPLATES / f"{name}.example").read_text()
    for key, value in settings.items():
        before = next(word for line in text.splitlines() for word in line.split() if word.startswith(f"{key}="))
        text = text.replace(before, f"{key}={value}")
    agent.scripts.mkdir(exist_ok=True)
    (agent.scripts / name).write_text(text)
    (agent.scripts / name).chmod(0o755)


@contextlib.contextmanager
def copy_of(site, agent, disk, folder, database):
    """The point's copy, served by a server of its own, stopped before it began to recover."""
    image = export(site, agent, disk, folder, "latest-app")
    assert is_at_rest(image)
    (folder / "copy").mkdir()
    subprocess.run(["debugfs", "-R", f"rdump /data {folder}/copy", image], check=True, capture_output=True)
    (folder / "copy/run").mkdir()
    shutil.chown(folder / "copy/run", database.uid, database.gid)
    # it names a process of another machine, which runs here: on its double there is none
    (folder / "copy/data/postmaster.pid").unlink(missing_ok=True)
    copy = type(database)(folder / "copy/run", folder / "copy/data")
    try:
        yield copy
    finally:
        copy.stop()


@pytest.mark.skipif(not PG_BIN or not shutil.which("psql"), reason="postgresql is missing; run 'make deps'")
def test_a_copy_of_a_busy_postgresql_replays_from_the_templates_checkpoint_and_has_all_that_was_acknowledged(site, agent, folder):
    with served(folder, Postgres) as (disk, database):
        agent.protect([disk])
        install(agent, "pre-50-postgresql", host=database.folder, port=database.port)
        database.sql("CREATE TABLE entry (n int PRIMARY KEY, filler text)")
        with Writer(database, "INSERT INTO entry VALUES ({n}, repeat('x', 500))") as writer:
            before, written = writer.acknowledged, database.written()
            site.ask("point", "create", agent.name, "--app")
            assert writer.goes_on()
        with copy_of(site, agent, disk, folder, database) as copy:
            assert copy.redo() >= written
            copy.start()
            count, low, high = map(int, copy.value("SELECT count(*), min(n), max(n) FROM entry").split("|"))
            assert (count, low) == (high, 1) and before <= high <= writer.acknowledged
        # a server that does not answer makes no point, and nothing stays frozen
        database.stop()
        p = site.lifeboat("point", "create", agent.name, "--app", check=False)
        assert p.returncode == 1 and "pre-50-postgresql ended with status 2" in p.stderr, p.stderr
        (folder / "mnt/not-frozen").touch()


def install_mariadb(agent, database, wait_s):
    install(agent, "pre-50-mariadb", socket=database.socket, folder=database.folder, wait_s=wait_s)
    install(agent, "post-50-mariadb", folder=database.folder)


@pytest.mark.skipif(not shutil.which("mariadbd", path="/usr/sbin") or not shutil.which("mariadb-install-db"),
                    reason="mariadb-server-core or mariadb-client-core is missing; run 'make deps'")
def test_a_copy_of_a_busy_mariadb_has_its_tables_closed_and_a_failing_script_leaves_no_lock(site, agent, folder):
    with served(folder, MariaDb) as (disk, database):
        agent.protect([disk])
        install_mariadb(agent, database, wait_s=20)
        database.sql("CREATE DATABASE shop; CREATE TABLE shop.inno (n int PRIMARY KEY) ENGINE=InnoDB; "
                     "CREATE TABLE shop.isam (n int PRIMARY KEY) ENGINE=MyISAM")
        with Writer(database, "INSERT INTO shop.inno VALUES ({n}); INSERT INTO shop.isam VALUES ({n})") as writer:
            before = writer.acknowledged
            site.ask("point", "create", agent.name, "--app")
            assert writer.goes_on()
            # the session that held the lock has gone, only the writer's is there
            agent.wait(lambda: len(database.sessions().splitlines()) == 1, "end of the session")
            assert not list((folder / "run").glob("mariadb.session*"))
            # another script fails after the lock was taken: it is given back
            (agent.scripts / "pre-60-fails").write_text("#!/bin/sh\nexit 7\n")
            (agent.scripts / "pre-60-fails").chmod(0o755)
            p = site.lifeboat("point", "create", agent.name, "--app", check=False)
            assert p.returncode == 1 and "pre-60-fails ended with status 7" in p.stderr, p.stderr
            assert writer.goes_on()
            (agent.scripts / "pre-60-fails").unlink()
        # the lock can't be had in time: no point, and nobody waits for it any longer
        install_mariadb(agent, database, wait_s=2)
        with holding(database, "LOCK TABLES shop.inno WRITE"):
            p = site.lifeboat("point", "create", agent.name, "--app", check=False)
            assert p.returncode == 1 and "Lock wait timeout" in p.stderr, p.stderr
            agent.wait(lambda: len(database.sessions().splitlines()) == 1, "end of the session that waited")
        (folder / "mnt/not-frozen").touch()
        with copy_of(site, agent, disk, folder, database) as copy:
            copy.start()
            # FAST looks only at one that was not closed
            assert "already up to date" in copy.value("CHECK TABLE shop.isam FAST")
            assert "OK" in copy.value("CHECK TABLE shop.isam, shop.inno")
            inno, isam = (int(copy.value(f"SELECT count(*) FROM shop.{t}")) for t in ("inno", "isam"))
            assert before <= isam <= inno <= isam + 1 and inno <= writer.acknowledged + 1


@contextlib.contextmanager
def holding(database, lock):
    session = subprocess.Popen([*map(str, database.client())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        session.stdin.write(f"{lock}; SELECT 'held';\n")
        session.stdin.flush()
        assert session.stdout.readline() == "held\n"
        yield
    finally:
        session.kill()
        session.communicate()
