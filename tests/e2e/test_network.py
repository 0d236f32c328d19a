# SPDX-License-Identifier: Apache-2.0
"""Networks of doubles: bridges of this host, MAC addresses, addresses. The host is left as it was, whatever is killed."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import uuid

import pytest

from provoked import wait_for
from test_config import HARDWARE, Api, cmdline, enrol_machine, is_gone
from test_config_failover import MIB, api, folder, job, order, processes_of, site  # noqa: F401
from test_recovery import BOOT_DEADLINE_S, CONTROL_PORT, RECOVER, environment, guest_vault, in_guest  # noqa: F401

if os.geteuid() != 0 or not shutil.which("ip"):
    pytest.skip("needs root and iproute2: bridges", allow_module_level=True)


def ip(*arguments):
    run = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True)
    assert run.returncode == 0, f"ip {' '.join(arguments)}: {run.stderr}"
    return json.loads(run.stdout) if run.stdout.strip() else []


def ports_of(name):
    return sorted(link["ifname"] for link in ip("link", "show", "master", name))


@pytest.fixture
def bridge():
    name = f"lbt{uuid.uuid4().hex[:10]}"
    made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"this host makes no bridges: {made.stderr.strip()}")
    ip("link", "set", name, "up")
    yield name
    left = ports_of(name)
    ip("link", "del", name)
    assert not left, f"devices were left on the bridge: {left}"


def qemu_of(folder):  # noqa: F811
    pid, = [p for p in processes_of(folder) if b"qemu-system" in cmdline(p).split(b"\0")[0]]
    return pid, cmdline(pid).decode().split("\0")


def test_a_double_joins_a_bridge_with_its_mac_address_and_leaves_it_without_trace(site, api, folder, bridge):  # noqa: F811
    body = {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB, "network": f"bridge:{bridge}", "mac": "52:54:00:AB:CD:01",
            "address": "192.0.2.10/24"}
    job(api, order(api, "/v1/failover", body), ("done",))
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert (double["network"], double["mac"], double["address"]) == (f"bridge:{bridge}", "52:54:00:ab:cd:01", "192.0.2.10/24")
    tap, = ports_of(bridge)
    assert any("mac=52:54:00:ab:cd:01" in a for a in qemu_of(folder / "state/vm/db1-test")[1])
    # a killed hypervisor takes its device along; the double comes back with another one
    os.kill(qemu_of(folder / "state/vm/db1-test")[0], signal.SIGKILL)
    wait_for(lambda: not ports_of(bridge), "the device to be gone")
    job(api, order(api, "/v1/failover/db1-test/repoint", {"point": "latest"}), ("done",))
    assert ports_of(bridge) == [tap]
    # nor does a killed server leave any: it finds the double again
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(60)
    assert ports_of(bridge) == [tap]
    site.start()
    job(api, order(api, "/v1/failover/db1-test/cleanup", {}), ("done",))
    assert ports_of(bridge) == []


def test_a_network_that_is_not_there_is_told_before_anything_is_started(build, site, api, folder, bridge):  # noqa: F811
    def refused(status, words, path, body, method="POST"):
        got, answer = api.ask(method, path, body)
        assert got == status and all(w in answer["error"]["message"] for w in words), answer

    refused(404, ["lb-not-there", "ip link add"], "/v1/failover", {"machine": "db1", "kind": "live", "network": "bridge:lb-not-there"})
    refused(400, ["lo", "no bridge"], "/v1/failover", {"machine": "db1", "kind": "test", "network": "bridge:lo"})
    for wrong in ({"network": "bridge:a b"}, {"network": "bridge:much-too-long-name"}, {"mac": "01:00:5e:00:00:01"}, {"mac": "52:54"},
                  {"address": "192.0.2.0/24"}, {"address": "224.0.0.1"}, {"address": "db1.example"}):
        refused(400, [], "/v1/failover", {"machine": "db1", "kind": "test", **wrong})
    status, preview = api.ask("GET", "/v1/machine/db1/preview?network=bridge:lb-not-there")
    assert status == 200 and "lb-not-there" in preview["network_error"]
    status, preview = api.ask("GET", f"/v1/machine/db1/preview?network=bridge:{bridge}")
    assert status == 200 and preview["network"] == f"bridge:{bridge}" and "network_error" not in preview
    refused_dry = site.lifeboat("failover", "start", "db1", "--network", "bridge:lb-not-there", "--dry-run", check=False)
    assert refused_dry.returncode != 0 and "lb-not-there" in refused_dry.stderr
    direct = subprocess.run([build / "src/cli/lifeboat", "failover", "test", "db1", "--vault", site.vault_url, "--passphrase-file",
                             site.passphrase_file, "--folder", folder / "vm", "--fabric", "qemu", "--network", "bridge:lb-not-there"],
                            capture_output=True, text=True)
    assert direct.returncode != 0 and "lb-not-there" in direct.stderr
    assert not (folder / "vm").exists() and api.ask("GET", "/v1/failover")[1]["failovers"] == []
    assert not api.ask("GET", "/v1/job")[1]["jobs"]


def test_settings_of_networks_are_checked_and_used_with_and_without_a_server(build, site, api, folder, bridge):  # noqa: F811
    def put(status, machine, **target):
        got, answer = api.ask("PUT", f"/v1/machine/{machine}/target", target)
        assert got == status, answer
        return answer if status == 200 else answer["error"]["message"]

    card = {"name": "eth0", "mac": "52:54:00:00:00:11", "default": True}
    enrol_machine(site, folder / "db1", name="db1", cards=[card])
    enrol_machine(site, folder / "web1", name="web1", hardware="cd" * 32)
    network = f"bridge:{bridge}"
    put(200, "db1", network=network, address="192.0.2.10/24", test_network=network, test_address="192.0.2.99/24", test_mac="52:54:00:00:00:99")
    # what another double would have there, and what is not there
    assert "db1" in put(409, "web1", network=network, address="192.0.2.10")
    assert "db1" in put(409, "web1", network=network, mac="52:54:00:00:00:99")
    assert "lb-not-there" in put(404, "web1", test_network="bridge:lb-not-there")
    put(400, "web1", mac="33:33:00:00:00:01")
    put(200, "web1", network=network, address="192.0.2.11/24", mac="source")
    preview = api.ask("GET", "/v1/machine/db1/preview")[1]
    assert (preview["network"], preview["address"], preview["mac"]) == (network, "192.0.2.10/24", card["mac"])
    # daily, and after each change: the network that is gone meanwhile
    assert site.ask("machine", "show", "db1")["readiness"]["verdict"] == "unknown"
    machine = Api(site, folder / "db1")
    report = {"hardware": HARDWARE, "state": "disabled", "readiness": {"checked_ns": 1, "findings": []}}
    assert machine.ask("POST", "/v1/agent/report", report)[0] == 200
    assert api.ask("GET", "/v1/machine/db1")[1]["readiness"]["verdict"] == "ready"
    other = f"lbt{uuid.uuid4().hex[:10]}"
    ip("link", "add", other, "type", "bridge")
    put(200, "db1", network=f"bridge:{other}", address=None)
    ip("link", "del", other)
    report["readiness"]["checked_ns"] = 2
    assert machine.ask("POST", "/v1/agent/report", report)[0] == 200
    readiness = api.ask("GET", "/v1/machine/db1")[1]["readiness"]
    assert readiness["verdict"] == "warnings" and other in readiness["findings"][0]["text"], readiness
    put(200, "db1", network=network)
    assert api.ask("GET", "/v1/machine/db1")[1]["readiness"]["verdict"] == "ready"
    # the vault's copy is enough
    site.stop()
    vm_folder = folder / "vm"
    direct = ["-o", "json", "--vault", site.vault_url, "--passphrase-file", site.passphrase_file]

    def run(*words):
        ran = subprocess.run([build / "src/cli/lifeboat", *words, *direct], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)["data"]

    double = run("failover", "test", "db1", "--folder", vm_folder, "--fabric", "qemu", "--memory", "64M")
    assert (double["network"], double["address"], double["mac"]) == (network, "192.0.2.99/24", "52:54:00:00:00:99")
    assert len(ports_of(bridge)) == 1
    run("failover", "cleanup", "db1-test", "--folder", vm_folder, "--confirm", "db1-test")
    site.start()


@pytest.mark.parametrize("fabrics", [("qemu", "qemu", "qemu"), ("libvirt", "qemu")], ids=lambda f: f[0])
def test_doubles_of_one_isolated_network_see_one_another_and_nobody_else(build, guest_vault, folder, fabrics, request):  # noqa: F811
    """With rights on networks and without: nothing is left of it when the last one has gone, or was killed."""
    if "libvirt" in fabrics:
        request.getfixturevalue("libvirt")
    environment = dict(os.environ, LIFEBOAT_NBDKIT_PLUGIN=str(pathlib.Path(build).resolve() / "src/nbd/nbdkit-lifeboat-plugin.so"))
    common = ["-o", "json", "--vault", guest_vault.url, "--passphrase-file", guest_vault.passphrase_file, "--folder", folder]

    def lifeboat(*words):
        ran = subprocess.run([build / "src/cli/lifeboat", *words, *common], capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)["data"]

    def start(name, network, fabric):
        double = lifeboat("failover", "test", "db1", "--name", name, "--network", network, "--fabric", fabric, "--memory", "192M", "--cpus", "1",
                          "--address", "10.0.2.15/24", "--forward", f"0:{CONTROL_PORT}")
        return double["forwards"][0]["host_port"]

    def works(port, command):
        """Guests of a loaded machine take their time."""
        wait_for(lambda: "exit 0" in (answered(port, command) or ""), f"the end of {command}", BOOT_DEADLINE_S)

    def answered(port, command):
        try:
            return in_guest(port, command) or None
        except (OSError, http.client.HTTPException):
            return None

    guests = [start(*words) for words in zip("abc", ("isolated:one", "isolated:one", "isolated:two"), fabrics)]
    for n, port in enumerate(guests, 1):
        works(port, f"ip address replace 192.0.2.{n}/24 dev eth0")
    a, b = guests[:2]
    works(a, "ping -c 1 -W 5 192.0.2.2")
    works(b, "ping -c 1 -W 5 192.0.2.1")
    for c in guests[2:]:
        works(a, "! ping -c 1 -W 2 192.0.2.3")
        works(c, "! ping -c 1 -W 2 192.0.2.1")
    # their devices are none of this host's, and its forwards lead to each one
    segments = [p for p in processes_of(folder) if b"lifeboat-segment" in cmdline(p)]
    assert len(segments) == len(guests) - 1
    taps = [line.split(":")[0].strip() for p in segments for line in pathlib.Path(f"/proc/{p}/net/dev").read_text().splitlines()[2:]]
    taps = [name for name in taps if name.startswith("lb")]
    assert len(taps) == len(guests) and not set(taps) & {link["ifname"] for link in ip("link", "show")}
    for _ in guests[2:]:
        lifeboat("failover", "cleanup", "c", "--confirm", "c")
        wait_for(lambda: is_gone(segments[0]) or is_gone(segments[1]), "the end of an empty network")
    os.kill(qemu_of(folder / "a")[0], signal.SIGKILL)
    lifeboat("failover", "cleanup", "a", "--confirm", "a")
    lifeboat("failover", "cleanup", "b", "--confirm", "b")
    wait_for(lambda: not processes_of(folder), "the end of all")
    assert not [p for p in folder.iterdir()], list(folder.iterdir())


def test_of_two_operators_at_once_one_gets_the_double_and_the_other_is_told(site, api, folder):  # noqa: F811
    def at_once(*calls):
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            return [f.result() for f in [pool.submit(lambda c: Api(site, site.identity).ask(*c), c) for c in calls]]

    body = {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB}
    answers = at_once(*[("POST", "/v1/failover", body)] * 4)
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409], answers
    assert all("db1-double" in a["error"]["message"] for s, a in answers if s == 409), answers
    done = job(api, next(a["job"] for s, a in answers if s == 200), ("done",))
    assert done["result"]["name"] == "db1-double"
    # one changes the point while another commits: one after the other, or one is told to wait
    answers = at_once(("POST", "/v1/failover/db1-double/repoint", {"point": "latest"}), ("POST", "/v1/failover/db1-double/commit", {}))
    assert all(status == 200 or (status == 409 and "db1-double" in a["error"]["message"]) for status, a in answers), answers
    assert any(status == 200 for status, _ in answers)
    for status, answer in answers:
        if status == 200:
            job(api, answer["job"])


def test_a_point_that_is_not_there_any_more_is_told_and_changes_nothing(site, api, folder):  # noqa: F811
    points = api.ask("GET", "/v1/machine/db1/point")[1]["points"]
    first = f"{points[0]['epoch']}:{points[0]['seq']}"
    job(api, order(api, "/v1/failover", {"machine": "db1", "kind": "test", "memory_bytes": 64 * MIB}), ("done",))
    site.lifeboat("vault", "fold", "--retention", "all:1s", "--delete-delay", 0, "--vault", site.vault_url, "--passphrase-file",
                  site.passphrase_file, server=False)
    left = [f"{p['epoch']}:{p['seq']}" for p in api.ask("GET", "/v1/machine/db1/point")[1]["points"]]
    assert first not in left and left
    for path, body in (("/v1/failover/db1-test/repoint", {"point": first}),
                       ("/v1/failover", {"machine": "db1", "kind": "live", "point": first, "name": "other"})):
        status, answer = api.ask("POST", path, body)
        text = answer["error"]["message"] if status != 200 else job(api, answer["job"], ("failed",))["error"]
        assert f'no point "{first}"' in text and "its points go from" in text, text
    status, answer = api.ask("GET", f"/v1/machine/db1/preview?point={first}")
    assert status == 404 and first in answer["error"]["message"], answer
    double, = api.ask("GET", "/v1/failover")[1]["failovers"]
    assert (double["name"], double["state"]) == ("db1-test", "running")
    assert not api.ask("GET", "/v1/machine/db1/preview")[1]["has_live_double"]


def test_hooks_learn_the_doubles_addresses_and_one_that_hangs_is_ended_and_the_failover_goes_on(site, api, folder, bridge):  # noqa: F811
    site.stop()
    hooks = folder / "hooks"
    hooks.mkdir()
    for name, text in (("fence-source", "exit 0"), ("double-network", f"echo $LIFEBOAT_KIND $LIFEBOAT_NETWORK $LIFEBOAT_ADDRESS $LIFEBOAT_MAC > {folder}/dhcp"),
                       ("double-up", f"echo $LIFEBOAT_ADDRESS $LIFEBOAT_MAC > {folder}/told; sleep 3600 & wait")):
        (hooks / name).write_text(f"#!/bin/sh\n{text}\n")
        (hooks / name).chmod(0o755)
    with open(site.folder / "etc/config.conf", "a") as conf:
        conf.write(f"hook_folder = {hooks}\nhook_timeout_s = 6\n")
    site.start()
    name = order(api, "/v1/failover", {"machine": "db1", "kind": "live", "memory_bytes": 64 * MIB, "address": "192.0.2.10/24",
                                       "mac": "52:54:00:00:00:21", "network": f"bridge:{bridge}"})
    done = job(api, name, ("done",))
    # before it was started, and when it ran
    assert (folder / "dhcp").read_text() == f"live bridge:{bridge} 192.0.2.10/24 52:54:00:00:00:21\n"
    steps = [s["name"] for s in done["steps"]]
    assert steps.index("announce the double to its network") < steps.index("start the VM")
    assert (folder / "told").read_text() == "192.0.2.10/24 52:54:00:00:00:21\n"
    assert "double-up" in done["result"]["warnings"][0] and "6 s" in done["result"]["warnings"][0], done["result"]["warnings"]
    assert not [p for p in processes_of(hooks)]
    job(api, order(api, "/v1/failover/db1-double/cleanup", {"live_too": True}), ("done",))


@pytest.fixture
def namespace():
    """A network namespace with a bridge "site" that this host has an address on, as guests have 10.0.2.15."""
    name = f"lbt{uuid.uuid4().hex[:10]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        pytest.skip("this host makes no network namespaces")
    for words in ("link set lo up", "link add site type bridge", "address add 10.0.2.77/24 dev site", "link set site up"):
        subprocess.run(["ip", "-n", name, *words.split()], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_port_at_the_doubles_own_address_must_answer_before_it_counts_as_running(guest_vault, folder, namespace):  # noqa: F811
    def recover(verb, *words):
        ran = subprocess.run(["ip", "netns", "exec", namespace, RECOVER, verb, "--folder", folder, "--name", "on-site", *words],
                             env=environment(), capture_output=True, text=True)
        return ran.returncode, ran.stdout if ran.returncode == 0 else ran.stderr

    begin = ["begin", *guest_vault.arguments(), "--fabric", "qemu", "--network", "bridge:site", "--probe-port", CONTROL_PORT,
             "--probe-send", "GET / HTTP/1.0\r\n\r\n", "--wait"]
    begin = [str(w) for w in begin]
    code, said = recover(*begin, "240")
    assert code != 0 and "needs the double's address" in said, said
    # nobody is at this one
    code, said = recover(*begin, "5", "--address", "10.0.2.99/24")
    assert code != 0 and f"its port {CONTROL_PORT} has not answered within 5 s" in said, said
    assert recover("cleanup")[0] == 0
    code, said = recover(*begin, "240", "--address", "10.0.2.15/24")
    assert code == 0 and json.loads(said)["state"] == "running", said
    ports = subprocess.run(["ip", "-n", namespace, "-json", "link", "show", "master", "site"], capture_output=True, text=True, check=True)
    assert len(json.loads(ports.stdout)) == 1
    assert recover("cleanup")[0] == 0
    ports = subprocess.run(["ip", "-n", namespace, "-json", "link", "show", "master", "site"], capture_output=True, text=True, check=True)
    assert not ports.stdout.strip() or json.loads(ports.stdout) == []
