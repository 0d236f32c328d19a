# SPDX-License-Identifier: Apache-2.0
"""A small Debian that is reached by SSH: its root in a folder, sshd in it with namespaces of its own for mounts and
processes, on a port of 127.0.0.1. Nothing of it is left when it is closed."""
import pathlib
import socket
import subprocess
import time

from guest import free_port

DEADLINE_S = 240


class SshHost:
    def __init__(self, root, folder):
        self.root, self.folder = pathlib.Path(root), pathlib.Path(folder)
        self.port, self.process = free_port(), None
        self.key = self.folder / "key"
        self.log = self.folder / "sshd.log"

    def start(self):
        self.folder.mkdir(exist_ok=True)
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
            self.authorize("root", "/root")
        (self.root / "run/sshd").mkdir(parents=True, exist_ok=True)
        # a copy of the mounts of tests beside this one would keep their filesystems in use
        inside = (f"awk '$2 ~ /^.tmp.lb-/ && $2 != \"{self.root}\" {{print $2}}' /proc/mounts | while read -r m; do umount -l \"$m\"; done; "
                  f"mount --rbind /dev {self.root}/dev && mount -t proc proc {self.root}/proc && mount --rbind /sys {self.root}/sys"
                  f" && exec chroot {self.root} /usr/sbin/sshd -D -e -p {self.port} -o ListenAddress=127.0.0.1 -o UsePAM=no"
                  " -o PasswordAuthentication=yes")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE_S
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        return self

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                return s.recv(4) == b"SSH-"
        except OSError:
            return False

    def authorize(self, user, home):
        folder = self.root / home.lstrip("/") / ".ssh"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        subprocess.run(["chroot", self.root, "chown", "-R", user, home], check=True)
        folder.chmod(0o700)

    def add_user(self, name, password):
        subprocess.run(["chroot", self.root, "useradd", "--create-home", "--shell", "/bin/sh", "--groups", "sudo", name], check=True)
        subprocess.run(["chroot", self.root, "chpasswd"], input=f"{name}:{password}\n", text=True, check=True)

    def host_key(self):
        p = subprocess.run(["ssh-keygen", "-lf", self.root / "etc/ssh/ssh_host_ed25519_key.pub"], check=True, capture_output=True,
                           text=True)
        return p.stdout.split()[1]

    def new_host_key(self):
        for old in (self.root / "etc/ssh").glob("ssh_host_*"):
            old.unlink()
        subprocess.run(["chroot", self.root, "ssh-keygen", "-A"], check=True, capture_output=True)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()  # and with it all that runs in its namespaces
            self.process.wait(DEADLINE_S)
        self.process = None

    def close(self):
        self.stop()
