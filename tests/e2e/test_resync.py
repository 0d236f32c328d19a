# SPDX-License-Identifier: Apache-2.0
"""After a reboot the disks are held against the vault's hashes: hardly anything is read of the store, only what differs is sent,
and nothing that differs is missed, whoever dies meanwhile."""
import os
import re
import time

import pytest

from host_agent import LoopDisk
from oracle import assert_equal_after_quiescing
from test_kill import agent, chance, site  # noqa: F401 (fixtures)

BLOCK_BYTES = 4096
COMPARED = re.compile(r"epoch (\d+) its disks were compared with the vault: (\d+) of (\d+) frames .* (\d+) KiB differ; "
                      r"(\d+) KiB were read from the store")


@pytest.fixture
def disks(folder):
    made = [LoopDisk(folder / f"disk{i}.img", size_mib) for i, size_mib in enumerate((72, 8))]
    yield made
    for d in made:
        d.close()


def write_behind_its_back(disk, writes):
    """(offset, bytes) onto the disk; nothing captures."""
    with open(disk.device, "r+b", buffering=0) as d:
        for offset, data in writes:
            d.seek(offset)
            d.write(data)
        os.fsync(d.fileno())


def fill(disk, chance):
    """Data, text that compresses, and holes."""
    with open(disk.device, "r+b", buffering=0) as d:
        for at in range(0, disk.size_bytes, 1 << 20):
            d.seek(at)
            kind = chance.randrange(4)
            if kind == 3:
                continue
            piece = chance.randbytes(1 << 20) if kind else bytes(f"{chance.random():<32}", "ascii") * (1 << 15)
            d.write(piece[:(1 << 20) - BLOCK_BYTES * chance.randrange(8)])
        os.fsync(d.fileno())


def some_blocks(disk, chance, n):
    return [(chance.randrange(disk.size_bytes // BLOCK_BYTES) * BLOCK_BYTES, chance.randbytes(BLOCK_BYTES)) for _ in range(n)]


def compared(site, agent, epoch):
    """What the process server says that the comparison of the epoch cost."""
    def last():
        found = [[int(n) for n in m.groups()] for m in COMPARED.finditer(site.log_tail(1 << 22))]
        return next((f for f in reversed(found) if f[0] == epoch), None)
    _, same, asked, differ_kib, read_kib = agent.wait(last, f"the figures of epoch {epoch}")
    return {"same": same, "asked": asked, "differ_kib": differ_kib, "read_kib": read_kib}


def boot(site, agent):
    agent.start()
    agent.wait_point_after(time.time_ns())
    return compared(site, agent, site.points(agent.name)[-1]["epoch"])


def test_after_a_reboot_hardly_anything_is_read_of_the_store_and_exactly_what_differs_is_sent(site, agent, disks, folder, chance):  # noqa: F811
    fill(disks[0], chance)
    agent.protect(disks)
    agent.wait_point_after(time.time_ns())
    agent.power_off()
    told = boot(site, agent)
    assert told["asked"] > 100 and told["same"] == told["asked"] and told["differ_kib"] == 0, told
    assert told["read_kib"] < 256, told
    assert agent.status()["shipped_bytes"] < 64 << 10, agent.status()

    agent.power_off()
    changed = dict(some_blocks(disks[0], chance, 5))
    write_behind_its_back(disks[0], changed.items())
    told = boot(site, agent)
    assert told["read_kib"] < 256 + 257 * len(changed), told
    assert agent.status()["shipped_bytes"] < (64 << 10) + 2 * BLOCK_BYTES * len(changed), agent.status()
    assert_equal_after_quiescing(site, agent, disks, folder)


def test_whoever_dies_in_the_middle_of_a_resync_nothing_that_differs_is_missed(site, agent, disks, folder, chance):  # noqa: F811
    fill(disks[0], chance)
    agent.protect(disks)
    agent.wait_point_after(time.time_ns())
    for _ in range(3):
        agent.power_off()
        for disk in disks:
            write_behind_its_back(disk, some_blocks(disk, chance, 40))
        write_behind_its_back(disks[0], [(chance.randrange(60) << 20, bytes(1 << 20))])
        agent.start()
        for _ in range(4):
            time.sleep(chance.random() * 0.6)
            if chance.random() < 0.5:
                agent.kill_agent()
                agent.start_agent()
            else:
                site.kill_process()
        agent.wait_point_after(time.time_ns())
        assert_equal_after_quiescing(site, agent, disks, folder)
