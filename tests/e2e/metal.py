# SPDX-License-Identifier: Apache-2.0
"""Bare metal: a machine that is started from the rescue medium, with the stick that tells it what to do and a console to type at."""
import os
import re
import shutil
import socket
import subprocess
import threading

from guest import Disk, Guest

MIB = 1 << 20
MEMORY_MIB = 512       # what the rescue medium needs
STICK_MIB = 64
CONSOLE_S = 400


class Stick:
    """As people have it: FAT, labelled LIFEBOAT."""

    def __init__(self, folder, lines, **files):
        self.image = folder / "stick.img"
        with open(self.image, "wb") as f:
            f.truncate(STICK_MIB * MIB)
        sfdisk = shutil.which("sfdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        subprocess.run([sfdisk, "-q", self.image], input="label: dos\nstart=2048, type=c\n", text=True, check=True)
        part = f"{self.image}@@1M"
        subprocess.run(["mformat", "-i", part, "-T", str((STICK_MIB - 1) * MIB // 512), "-v", "LIFEBOAT", "::"], check=True)
        for name, text in dict(files, **{"rescue.conf": "\n".join(lines) + "\n"}).items():
            (folder / name).write_text(text)
            subprocess.run(["mcopy", "-i", part, folder / name, f"::/{name}"], check=True)

    def disk(self):
        return Disk(str(self.image))


class Metal(Guest):
    """`rescue`: the folder with the medium's kernel and initramfs."""

    def __init__(self, folder, rescue, disks, **how):
        super().__init__(folder, disks, memory_mib=MEMORY_MIB, extra=[
            "-kernel", str(rescue / "vmlinuz"), "-initrd", str(rescue / "initrd.img"), "-append", "console=ttyS0 panic=-1"], **how)
        self.console, self.read_to = None, 0

    def arguments(self):
        # TCP: a UNIX socket takes some 300 characters that nobody has read yet, and then some come twice
        line = "socket,id=serial0,host=127.0.0.1,port=0,server=on,wait=off,logfile=serial.log,logappend=on"
        return [line if a.startswith("file,id=serial0") else a for a in super().arguments()]

    def start(self):
        self.read_to = len(self.serial_text()) if self.serial_log.exists() else 0
        return super().start()

    def says(self, pattern, deadline_s=CONSOLE_S):
        """Until it says so, after what it was seen to say before."""
        found = self.wait_serial(pattern, deadline_s, since=self.read_to)
        self.read_to = found.end()
        return found

    def type(self, text):
        if self.console is None:
            line = next(c for c in self.qmp("query-chardev") if c["label"] == "serial0")
            self.console = socket.create_connection(("127.0.0.1", int(re.search(r"tcp:127\.0\.0\.1:(\d+)", line["filename"])[1])))
            # what it says is in its log; unread it would stand still
            threading.Thread(target=self._read, args=(self.console,), daemon=True).start()
        self.console.sendall(text.encode() + b"\n")

    @staticmethod
    def _read(console):
        try:
            while console.recv(65536):
                pass
        except OSError:
            pass

    def kill(self):
        if self.console is not None:
            self.console.close()
        self.console = None
        super().kill()
