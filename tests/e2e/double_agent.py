# SPDX-License-Identifier: Apache-2.0
"""This host as a double: its agent starts from its source's disks, whose identity and state are on them, as another hardware."""
import json
import os
import secrets
import shutil
import subprocess

from host_agent import AGENT_UID, HostAgent


def smbios(machine_id):
    """The firmware's tables of a double."""
    return b"\x0b\x05\x00\x00\x01" + f"lifeboat:double={machine_id}".encode() + b"\x00\x00" + b"\x7f\x04\x00\x00\x00\x00"


class DoubleAgent(HostAgent):
    """`source`: the agent that ran on the machine. Its end is the test's own doing."""

    def __init__(self, source, folder, double, name="double"):
        super().__init__(source.site, folder, name, machine_id=secrets.token_hex(16))
        self.source, self.double = source, double
        self.machine = json.loads((source.folder / "state/agent.json").read_text())["machine"]

    def boot(self, told=None):
        """`told`: instead of what its firmware tells it; b"" for nothing."""
        self.folder.mkdir(exist_ok=True)
        for part in ("identity", "state"):
            shutil.copytree(self.source.folder / part, self.folder / part, dirs_exist_ok=True)
        (self.folder / "run").mkdir(exist_ok=True)
        (self.folder / "run/smbios").write_bytes(smbios(self.machine))
        told = (self.site.folder / "state/vm" / self.double / "double.json").read_bytes() if told is None else told
        (self.folder / "run/double").unlink(missing_ok=True)
        if told:
            (self.folder / "run/double").write_bytes(told)
            (self.folder / "run/double").chmod(0o400)
        self.conf.write_text(self.source.conf.read_text().replace(str(self.source.folder), str(self.folder)))
        (self.folder / "machine-id").write_text(self.machine_id + "\n")
        subprocess.run(["chown", "-R", f"{AGENT_UID}:{AGENT_UID}", self.folder / "identity", self.folder / "state",
                        self.folder / "run"], check=True)
        return self.start()

    def wait_text(self, text):
        """Until its status says so."""
        status = self.folder / "run/status.json"
        self.wait(lambda: status.exists() and text in self.status()["text"], f"status that says: {text}")

    def own_identity(self):
        """The folder of the identity that it has of its own, or None."""
        found = [p.parent for p in (self.folder / "state/double").glob("*/cert.pem") if not p.parent.name.endswith(".new")]
        return found[0] if found else None


def secret_of(site, double):
    return json.loads((site.folder / "state/vm" / double / "double.json").read_text())["secret"]
