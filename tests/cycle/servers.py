# SPDX-License-Identifier: Apache-2.0
"""The protected servers: three banks, each a small guest with Debian's kernel, the agent and a disk of its own."""
from agent_guest import build_agent_guest
from banks import PORT, Bank
from guest import Guest
from two_sites import PREFIX, TwoSites

DISK_MIB = 192
MEMORY_MIB = 160
PACE_MS = 150
BOOT_DEADLINE_S = 600


class Server:
    def __init__(self, site, sites: TwoSites, folder, number, banks):
        self.site, self.sites, self.number = site, sites, number
        self.name = f"bank{number}"
        self.folder = folder / self.name
        self.address = f"{PREFIX}.{10 + number}"
        self.bank = Bank(number, self.address)
        self.peers = [f"{n}={PREFIX}.{10 + n}" for n in range(1, banks + 1) if n != number]
        self.disk = self.folder / "disk.img"
        self.guest = None

    def build(self):
        """The server's disk. 10.0.2.15, which the image has already, is its address on a test double's own network."""
        self.folder.mkdir()
        build_agent_guest(
            self.disk, self.site, self.name, self.site.config_url, self.folder, "--size-mib", DISK_MIB, "--load", "qemu_fw_cfg",
            "--program", f"{self.site.programs['bank']}:/usr/bin/bank",
            "--service", f"bank=exec bank /var/lib/bank/ledger 0.0.0.0 {PORT} {PACE_MS} {self.number} {' '.join(self.peers)}",
            boot=[f"ip address add {self.address}/24 dev eth0", "mkdir -p /var/lib/bank"], power_button=True)
        return self

    def plug(self):
        self.sites.tap(self.tap)
        return self

    @property
    def tap(self):
        return f"tap{self.number}"

    def boot(self):
        log = self.folder / "guest/serial.log"
        self.booted_at = len(log.read_bytes().decode(errors="replace")) if log.exists() else 0
        self.guest = Guest(self.folder / "guest", [self.disk], tap=self.tap, mac=f"02:77:00:00:01:{self.number:02x}",
                           uuid=f"5f1ebea7-0000-4000-8000-{0x100 + self.number:012x}", memory_mib=MEMORY_MIB, cpus=1,
                           prefix=self.sites.primary).start()
        return self

    def wait_bank(self):
        self.guest.wait_serial(r"^bank: ready", BOOT_DEADLINE_S, since=self.booted_at)
        return self

    def die(self):
        """As a power cut."""
        self.guest.kill()

    def console(self, n_bytes=3000):
        if self.guest is None or not self.guest.serial_log.exists():
            return ""
        return self.guest.serial_text()[-n_bytes:]
