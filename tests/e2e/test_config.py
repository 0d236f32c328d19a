# SPDX-License-Identifier: Apache-2.0
"""The configuration server as it runs: its own process, its own child, real TLS, real files."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess

import pytest

from guest import free_port
from lifeboat_site import Site
from provoked import wait_for

HARDWARE = "ab" * 32
DEADLINE_S = 240


@pytest.fixture
def site(build, tmp_path):
    s = Site(build, tmp_path / "site").make().start()
    yield s
    s.stop()


class Api:
    """Requests to the server with the identity of a folder, or with none."""

    def __init__(self, site, identity=None):
        self.port = site.port
        self.context = ssl.create_default_context(cafile=str(site.identity / "ca.pem"))
        if identity is not None:
            self.context.load_cert_chain(identity / "cert.pem", identity / "key.pem")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()


def make_request(folder):
    """A key and a certificate request, made by openssl and not by us."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    folder / "key.pem", "-out", folder / "request.pem", "-subj", "/CN=whoever"], check=True, capture_output=True)
    return (folder / "request.pem").read_text()


def enrol(site, folder, kind, name, **more):
    order = {k: more.pop(k) for k in ("role", "replace", "token_name") if k in more}
    if "token_name" in order:
        order["name"] = order.pop("token_name")
    status, token = Api(site, site.identity).ask("POST", "/v1/token", {"kind": kind, **order})
    assert status == 200, token
    body = {"token": token["token"], "kind": kind, "name": name, "csr_pem": make_request(folder), **more}
    status, answer = Api(site).ask("POST", "/v1/enrol", body)
    assert status == 200, answer
    (folder / "cert.pem").write_text(answer["cert_pem"])
    (folder / "ca.pem").write_text(answer["ca_pem"])
    return answer, body


def enrol_machine(site, folder, name="web1", hardware=HARDWARE, **more):
    disks = [{"id": 0, "name": "sda", "path": "/dev/sda", "serial": "S1", "size_bytes": 1 << 30, "sector_bytes": 512,
              "boot": True, "fixed": True}]
    return enrol(site, folder, "machine", name, hardware=hardware, disks=disks, architecture="x86_64", firmware="bios", cpus=1,
                 memory_bytes=1 << 30, **more)


def cmdline(pid):
    """Nothing of one that has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def process_child(site):
    for thread in pathlib.Path(f"/proc/{site.server.pid}/task").iterdir():
        try:
            for pid in (thread / "children").read_text().split():
                if b"lifeboat-process" in cmdline(pid):
                    return int(pid)
        except OSError:  # a thread that has just ended
            continue
    return None


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_only_tls_1_3_is_spoken(site):
    context = ssl.create_default_context(cafile=str(site.identity / "ca.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = http.client.HTTPSConnection("127.0.0.1", site.port, context=context, timeout=60)
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/v1/status")
    connection.close()


def test_who_has_no_certificate_is_refused(site):
    status, answer = Api(site).ask("GET", "/v1/status")
    assert status == 403
    assert answer["error"]["code"] == "EACCES"
    assert "enrol" in answer["error"]["message"]


def test_a_reader_reads_and_changes_nothing(site, tmp_path):
    enrol(site, tmp_path / "reader", "user", "rita", role="reader")
    api = Api(site, tmp_path / "reader")
    assert api.ask("GET", "/v1/status")[0] == 200
    status, answer = api.ask("PUT", "/v1/policy/default", {"zstd_level": 3})
    assert status == 403 and "reader" in answer["error"]["message"]
    assert api.ask("POST", "/v1/token", {"kind": "user", "role": "administrator"})[0] == 403
    assert site.ask("policy", "list")["policies"][0]["zstd_level"] == 1


def test_a_token_is_good_once(site, tmp_path):
    _, body = enrol_machine(site, tmp_path / "machine")
    status, answer = Api(site).ask("POST", "/v1/enrol", {**body, "csr_pem": make_request(tmp_path / "thief")})
    assert status == 403 and "used already" in answer["error"]["message"]


def test_a_machine_reaches_only_what_is_its_own(site, tmp_path):
    answer, _ = enrol_machine(site, tmp_path / "machine")
    api = Api(site, tmp_path / "machine")
    status, config = api.ask("GET", "/v1/agent/config")
    assert status == 200 and config["machine"] == answer["id"] and config["enabled"] is False
    for method, path in (("GET", "/v1/machine"), ("GET", "/v1/process/config"), ("POST", "/v1/token"), ("DELETE", "/v1/machine/web1")):
        assert api.ask(method, path, None if method != "POST" else {})[0] == 403


def test_a_removed_machine_is_refused_at_once(site, tmp_path):
    enrol_machine(site, tmp_path / "machine")
    api = Api(site, tmp_path / "machine")
    assert api.ask("GET", "/v1/agent/config")[0] == 200
    site.lifeboat("machine", "remove", "web1", "--confirm", "web1")
    status, answer = api.ask("GET", "/v1/agent/config")
    assert status == 403 and "revoked" in answer["error"]["message"]


def test_a_copy_of_an_identity_on_other_hardware_is_refused(site, tmp_path):
    enrol_machine(site, tmp_path / "machine")
    api = Api(site, tmp_path / "machine")
    assert api.ask("POST", "/v1/agent/report", {"hardware": HARDWARE, "state": "disabled"})[0] == 200
    status, answer = api.ask("POST", "/v1/agent/report", {"hardware": "cd" * 32, "state": "disabled"})
    assert status == 403 and "hardware" in answer["error"]["message"]


def test_a_protected_machine_is_told_where_to_send_and_its_server_what_to_expect(site, tmp_path):
    enrol_machine(site, tmp_path / "machine")
    site.lifeboat("machine", "protect", "web1", "--no-wait")
    status, config = Api(site, tmp_path / "machine").ask("GET", "/v1/agent/config")
    assert status == 200 and config["enabled"] is True
    assert config["process_url"] == f"https://127.0.0.1:{site.process_port}"
    assert [d["name"] for d in config["disks"]] == ["sda"]
    # the process server speaks for it as soon as it knows it
    wait_for(lambda: json.loads(json.dumps(site.ask("machine", "list")))["machines"][0]["process"] != "", "assigned")
    wait_for(lambda: Api(site, site.identity).ask("GET", "/v1/machine/web1")[1]["replication"] is not None, "reported")


def test_the_vault_alone_names_a_protected_machine(site, tmp_path):
    enrol_machine(site, tmp_path / "machine")
    site.lifeboat("machine", "protect", "web1", "--no-wait")
    site.stop()
    assert [m["name"] for m in site.vault_ask("machine", "list")["machines"]] == ["web1"]


def test_a_killed_server_takes_its_child_with_it_and_comes_back_with_all_it_knew(site, tmp_path):
    answer, _ = enrol_machine(site, tmp_path / "machine")
    child = wait_for(lambda: process_child(site), "a process server")
    site.server.send_signal(signal.SIGKILL)
    site.server.wait(DEADLINE_S)
    wait_for(lambda: is_gone(child), "the child's end")
    site.start()
    assert [m["id"] for m in site.ask("machine", "list")["machines"]] == [answer["id"]]
    assert Api(site, tmp_path / "machine").ask("GET", "/v1/agent/config")[0] == 200


def test_a_killed_process_server_is_started_again(site):
    child = wait_for(lambda: process_child(site), "a process server")
    os.kill(child, signal.SIGKILL)
    again = wait_for(lambda: (p := process_child(site)) and p != child and p, "another process server")
    assert again != child
    wait_for(lambda: any("signal 9" in e["text"] for e in Api(site, site.identity).ask("GET", "/v1/event")[1]["events"]), "an event of it")
    wait_for(lambda: any(s["kind"] == "process" and s["health"] == "ok" for s in site.ask("server", "list")["servers"]), "health")


def test_secrets_are_in_no_argument_environment_or_log(site, tmp_path):
    passphrase = site.passphrase_file.read_bytes().strip()
    enrol_machine(site, tmp_path / "machine")
    site.lifeboat("machine", "protect", "web1", "--no-wait")
    for pid in (site.server.pid, wait_for(lambda: process_child(site), "a process server")):
        for file in ("cmdline", "environ"):
            assert passphrase not in pathlib.Path(f"/proc/{pid}/{file}").read_bytes()
    assert re.search(r"Max core file size\s+0\s+0", pathlib.Path(f"/proc/{site.server.pid}/limits").read_text())
    site.stop()
    for path in [site.folder / "servers.log", *(site.folder / "state").rglob("*"), *(site.folder / "etc").rglob("*")]:
        if path.is_file():
            assert passphrase not in path.read_bytes(), path
    for key in site.folder.rglob("*key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600, key


def test_the_passphrase_is_forgotten_once_the_vault_is_open(site):
    """Looks through the server's own memory, as only root can."""
    if os.geteuid() != 0:
        pytest.skip("needs root: to read another process's memory")
    passphrase, known = site.passphrase_file.read_bytes().strip(), site.vault_url.encode()
    found = looked = 0
    with open(f"/proc/{site.server.pid}/mem", "rb", 0) as memory:
        for line in open(f"/proc/{site.server.pid}/maps"):
            span, access = line.split()[:2]
            begin, end = (int(x, 16) for x in span.split("-"))
            if "rw" not in access or end - begin > 256 << 20:
                continue
            memory.seek(begin)
            try:
                data = memory.read(end - begin)
            except OSError:
                continue
            found += passphrase in data
            looked += known in data
    assert looked > 0, "the search finds nothing at all"
    assert found == 0


def test_a_wrong_passphrase_ends_it_with_what_to_do(site):
    site.stop()
    site.passphrase_file.write_text("not the right one at all\n")
    p = subprocess.run([site.programs["config"], "--config", site.folder / "etc/config.conf"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 1
    assert "does not open vault" in p.stderr and "not the right one" not in p.stderr


def test_a_second_server_on_one_state_folder_is_refused(site):
    conf = (site.folder / "etc/config.conf").read_text()
    other = site.folder / "etc/other.conf"
    other.write_text(re.sub(r"(?m)^port = .*$", f"port = {free_port()}", conf))
    p = subprocess.run([site.programs["config"], "--config", other], capture_output=True, text=True, timeout=60)
    assert p.returncode == 1 and "another lifeboat-config" in p.stderr


def test_setup_can_be_run_again(site):
    before = {p: p.read_bytes() for p in (site.folder / "etc/config.conf", site.identity / "cert.pem",
                                          site.folder / "state/config/ca/ca.pem")}
    site.stop()
    site.make(site.port, site.process_port)
    for path, content in before.items():
        assert path.read_bytes() == content, path
    site.start()


def test_a_lost_server_is_rebuilt_from_the_vault(site, tmp_path):
    answer, _ = enrol_machine(site, tmp_path / "machine")
    site.lifeboat("machine", "protect", "web1", "--no-wait")
    site.lifeboat("policy", "set", "gold", "--rpo-threshold", 17)
    site.stop()
    for lost in ("state", "etc", "admin"):
        shutil.rmtree(site.folder / lost)
    site.make(site.port, site.process_port)
    site.start()
    assert {p["name"]: p["rpo_threshold_s"] for p in site.ask("policy", "list")["policies"]}["gold"] == 17
    machine = site.ask("machine", "list")["machines"][0]
    assert machine["id"] == answer["id"] and machine["enabled"] is True
    # its old identity is of a lost authority; it enrols anew and is the same machine
    again, _ = enrol_machine(site, tmp_path / "again")
    assert again["id"] == answer["id"]


def test_an_order_and_its_giver_are_in_the_audit_trail(site):
    site.lifeboat("policy", "set", "gold", "--rpo-threshold", 17)
    status, answer = Api(site, site.identity).ask("GET", "/v1/audit")
    assert status == 200
    line = next(a for a in answer["audits"] if a["path"] == "/v1/policy/gold")
    assert (line["who"], line["role"], line["method"], line["result"]) == ("administrator", "administrator", "PUT", "done")


def test_check_reads_the_configuration_and_ends(site):
    conf = site.folder / "etc/config.conf"
    assert subprocess.run([site.programs["config"], "--config", conf, "--check"], capture_output=True).returncode == 0
    broken = site.folder / "etc/broken.conf"
    broken.write_text(conf.read_text() + "prot = 9\n")
    p = subprocess.run([site.programs["config"], "--config", broken, "--check"], capture_output=True, text=True)
    assert p.returncode == 1 and "prot" in p.stderr
