# SPDX-License-Identifier: Apache-2.0
"""`lifeboat setup` at a terminal."""
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import time

import pytest

SECRET = "correct horse battery staple"
DEADLINE_S = 300


class Terminal:
    """A command on a terminal of its own; what it shows is kept."""

    def __init__(self, command, environment):
        self.main, other = pty.openpty()
        self.shown, self.seen = "", 0
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # who runs in the background ignores it
        os.close(other)

    def _read(self, wait_s):
        if not select.select([self.main], [], [], wait_s)[0]:
            return True
        try:
            piece = os.read(self.main, 65536)
        except OSError:    # the other end is closed
            return False
        self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)

    def expect(self, pattern):
        end = time.monotonic() + DEADLINE_S
        while not (found := re.compile(pattern).search(self.shown, self.seen)):
            assert self._read(1), f"{pattern!r} was not shown after: {self.shown}"
            assert time.monotonic() < end, f"{pattern!r} was not shown after: {self.shown}"
        self.seen = found.end()

    def answer(self, pattern, text):
        self.expect(pattern)
        os.write(self.main, f"{text}\n".encode())

    def end(self):
        end = time.monotonic() + DEADLINE_S
        while self._read(1):
            assert time.monotonic() < end, self.shown
        os.close(self.main)
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def start(build, folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIFEBOAT_")}
    environment["PATH"] = f"{build.resolve() / 'src/config'}:{environment['PATH']}"
    started = []

    def begin(*more):
        started.append(Terminal([build.resolve() / "src/cli/lifeboat", "setup", "--etc-folder", folder / "etc", "--state-folder", folder / "state",
                                 "--identity", folder / "admin", *more], environment))
        return started[-1]
    yield begin
    for terminal in started:
        if terminal.process.poll() is None:
            terminal.process.kill()


def test_setup_asks_for_what_is_missing_keeps_each_answer_and_goes_on_where_it_was_broken_off(start, folder):
    t = start()
    t.expect("Seven steps")
    t.answer(r"1\. Vault[^$]*Where shall the vault be \[dir:/srv/lifeboat-vault\]: ", "nowhere:/x")
    t.answer("Where shall the vault be", f"dir:{folder}/vault")
    t.answer("Vault passphrase: ", "short")
    t.answer("The same again: ", "short")
    t.expect("at least 8 characters")
    t.answer("Vault passphrase: ", SECRET)
    t.answer("The same again: ", SECRET + "x")
    t.expect("differ")
    t.answer("Vault passphrase: ", SECRET)
    t.answer("The same again: ", SECRET)
    t.answer("first machine", "no name!")
    t.expect("letters, digits")
    t.expect("first machine")
    # broken off in the middle: what was answered is kept
    os.killpg(t.process.pid, signal.SIGINT)
    assert t.end() != 0
    assert SECRET not in t.shown
    passphrase = folder / "etc/vault-passphrase"
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600 and passphrase.read_text() == SECRET + "\n"
    t = start()
    t.answer(r"2\. Source[^$]*first machine[^:]*: ", "web1")
    t.answer(r"3\. Target[^$]*\[auto\]: ", "hyperv")
    t.answer(r"auto, libvirt or qemu\n.*\[auto\]: ", "")
    t.answer(r"4\. Configuration server[^$]*reach this host \[[^]]+\]: ", "127.0.0.1,localhost")
    t.answer(r"API \[443\]: ", "99999")
    t.answer(r"API \[443\]: ", "8443")
    t.answer(r"process server \[9443\]: ", "")
    t.answer(r"5\. Policy[^$]*\[default\]: ", "gold")
    # the first that needs a person ends it, with what to do
    t.expect(r"4\. Configuration server: TO DO.*start it")
    assert t.end() == 0, t.shown
    assert "Where shall the vault be" not in t.shown
    answers = json.loads((folder / "etc/setup.json").read_text())
    assert answers["machine"] == "web1" and answers["policy"] == "gold" and answers["port"] == "8443" and answers["fabric"] == "auto"
    assert SECRET not in (folder / "etc/setup.json").read_text()
    assert (folder / "etc/config.conf").exists()
    # all is said: nothing is asked any more
    t = start()
    t.expect(r"4\. Configuration server: TO DO")
    assert t.end() == 0 and "[" not in t.shown, t.shown


def test_setup_asks_for_the_passphrase_again_when_it_does_not_open_the_vault_that_is_there(start, folder, build):
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(SECRET + "\n")
    subprocess.run([build / "src/cli/lifeboat", "vault", "create", "--vault", f"dir:{folder}/vault", "--passphrase-file", secret], check=True,
                   capture_output=True)
    t = start("--vault", f"dir:{folder}/vault")
    for text in ("not this one, surely", SECRET):
        t.answer("Vault passphrase: ", text)
        t.answer("The same again: ", text)
    t.answer("first machine", "")
    assert "passphrase" in t.shown and (folder / "etc/vault-passphrase").read_text() == SECRET + "\n"


def test_setup_asks_nothing_when_it_is_told_so(start):
    t = start("--no-ask")
    assert t.end() != 0
    assert "--vault" in t.shown and "Seven steps" not in t.shown
