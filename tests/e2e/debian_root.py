# SPDX-License-Identifier: Apache-2.0
"""Our packages, as they are built, and a small Debian in a folder that has what they depend on."""
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import uuid

TOP = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("openssh-server", "sudo", "ca-certificates", "passwd", "systemd-sysv", "dbus")
WEEK_S = 7 * 24 * 3600


def build_packages(build, folder):
    """{"lifeboat": ..., "lifeboat-mobility": ...}"""
    subprocess.run([TOP / "packaging/build-deb.sh", build, folder], check=True, capture_output=True, text=True)
    return {p.name.split("_")[0]: p for p in pathlib.Path(folder).glob("*.deb")}


def newer(package, folder):
    """The same package with a higher version."""
    tree = pathlib.Path(folder) / "newer"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+newer", control.read_text()))
    made = pathlib.Path(folder) / f"{pathlib.Path(package).stem}+newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, made], check=True, capture_output=True)
    return made


def depends(package):
    text = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"([a-z0-9.+-]+)(?: \([^)]*\))?(?:,|$)", text.strip())


def _tree(packages):
    """Made once, by whoever is first, and kept for some days beside the guests' roots."""
    cache = pathlib.Path(os.environ.get("LIFEBOAT_CACHE") or
                         pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lifeboat")
    cache.mkdir(parents=True, exist_ok=True)
    words = ["--variant=minbase", "--mode=root", "--format=directory", f"--include={','.join(packages)}",
             "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
    week = int(time.time() // WEEK_S)
    tree = cache / f"debian-root-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:16]}-{week}"
    with open(cache / "debian-root.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            new = tree.with_suffix(".new")
            for again in (True, True, False):  # a mirror may be busy just then
                shutil.rmtree(new, ignore_errors=True)
                p = subprocess.run(["mmdebstrap", *words, '--aptopt=Acquire::Retries "5"', "bookworm", new], capture_output=True, text=True)
                if p.returncode == 0 or not again:
                    break
            assert p.returncode == 0, p.stderr[-3000:]
            new.chmod(0o755)
            new.rename(tree)
            for old in cache.glob("debian-root-*"):
                if not old.name.endswith((f"-{week}", f"-{week - 1}")):
                    shutil.rmtree(old, ignore_errors=True)
    return tree


class Root:
    """Debian's minimal system with systemd and sshd, and what our packages need, so that nothing is fetched later: a tree that all
    share, and what changes in this one beside it."""

    def __init__(self, folder, packages):
        self.folder = pathlib.Path(folder) / "system"
        tree = _tree(sorted({*PACKAGES, *(name for package in packages for name in depends(package))}))
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        self.path = self.folder / "root"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tree},upperdir={self.folder}/upper,workdir={self.folder}/work",
                        self.path], check=True)
        # sudo looks its host up
        (self.path / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")
        (self.path / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")

    def close(self):
        subprocess.run(["umount", self.path], check=True)
        shutil.rmtree(self.folder)
