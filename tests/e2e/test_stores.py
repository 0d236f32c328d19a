# SPDX-License-Identifier: Apache-2.0
"""What every store must do, whichever it is; and what those in the cloud do when networks and servers misbehave."""
import base64
import contextlib
import errno
import json
import os
import subprocess
import time
import urllib.parse
import uuid

import pytest

import object_stores
from fault_proxy import (Answer, FaultProxy, cut_answer, flood, garble, hold, lose_answer, lose_request, shorten, stall, status)
from object_stores import KEY, Folder, Tool, account_sas, secret_file
from process_site import Site
from provoked import wait_for

if not object_stores.STORETOOL.exists():
    pytest.skip(f"{object_stores.STORETOOL} is not built", allow_module_level=True)

CLOUD = ("azurite", "radosgw")
PAGE = 1000  # names in one page of a listing


@pytest.fixture(scope="module")
def folder_store():
    s = Folder()
    yield s
    s.stop()


@pytest.fixture(params=("folder_store", *CLOUD), ids=("dir", "azure", "s3"))
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=CLOUD, ids=("azure", "s3"))
def cloud(request):
    return request.getfixturevalue(request.param)


def new_name():
    return f"t{uuid.uuid4().hex[:20]}"


@pytest.fixture
def tool(server):
    with Tool(server.url(new_name()), "--create") as t:
        yield t


@pytest.fixture
def proxy(cloud):
    p = FaultProxy(cloud.port)
    yield p
    p.close()


@pytest.fixture
def container(cloud):
    name = new_name()
    with Tool(cloud.url(name), "--create"):
        pass
    return name


@pytest.fixture
def direct(cloud, container):
    """The store without the proxy."""
    with Tool(cloud.url(container)) as t:
        yield t


@pytest.fixture
def through(cloud, container, proxy):
    """The store behind the proxy; what opening it took is forgotten."""
    with Tool(cloud.url(container, port=proxy.port, more="&timeout=20")) as t:
        proxy.heal()
        yield t


def fails(answer, code, *texts):
    assert answer["r"] == -code, answer
    for text in texts:
        assert text in answer["error"], answer


# ---- every store ------------------------------------------------------------------------------------------------

def test_of_sixteen_that_put_one_name_exactly_one_succeeds(tool):
    for n in range(5):
        assert tool("race", f"race/{n}", 16) == {"winners": 1, "taken": 15, "errors": 0, "whole": True, "r": 0}


def test_sixteen_that_replace_by_condition_lose_no_update(tool):
    assert tool("put", "counter", "0")["r"] == 0
    assert tool("count", "counter", 16, 2) == {"errors": 0, "r": 0}
    assert tool.text("counter", 2) == "32"


def test_an_object_is_never_overwritten_by_a_put(tool):
    assert tool("put", "m/1", "first")["r"] == 0
    fails(tool("put", "m/1", "other"), errno.EEXIST, "m/1")
    fails(tool("replace", "m/1", "-", "other"), errno.EEXIST, "m/1")
    assert tool.text("m/1", 5) == "first"


def test_a_replacement_needs_the_object_as_it_was_seen(tool):
    assert tool("put", "a", "first")["r"] == 0
    etag = tool("stat", "a")["etag"]
    assert tool("replace", "a", etag, "second")["r"] == 0
    fails(tool("replace", "a", etag, "third"), errno.ESTALE, "changed")
    assert tool.text("a", 6) == "second"
    assert tool("remove", "a")["r"] == 0
    fails(tool("replace", "a", etag, "fourth"), errno.ESTALE)
    fails(tool("stat", "a"), errno.ENOENT, "a")


def test_ranges_are_read_to_the_byte(tool):
    assert tool("put", "digits", "0123456789")["r"] == 0
    for offset, size in ((0, 10), (0, 1), (9, 1), (3, 4), (10, 0), (0, 0)):
        assert tool.text("digits", size, offset) == "0123456789"[offset:offset + size]
    for offset, size in ((0, 11), (9, 2), (10, 1), (1 << 40, 1)):
        fails(tool("get", "digits", offset, size), errno.ENODATA, "digits", "truncated")
    fails(tool("get", "nothing", 0, 1), errno.ENOENT, "nothing")
    fails(tool("get", "nothing", 0, 0), errno.ENOENT, "nothing")


def test_a_listing_past_one_page_is_whole_and_in_order(tool):
    n = PAGE + 105
    assert tool("fill", "m/a-", n)["r"] == 0
    for name in ("m/a/1", "m/b", "m-/c", "M/d", "m0", "m/a.b/2"):
        assert tool("put", name, "x")["r"] == 0
    all_names = sorted([f"m/a-{i:06}" for i in range(n)] + ["m/a/1", "m/b", "m-/c", "M/d", "m0", "m/a.b/2"])
    assert tool.names() == all_names
    assert tool.names("m/a") == [x for x in all_names if x.startswith("m/a")]
    assert tool.names("m/a-00100") == [f"m/a-00100{i}" for i in range(10)]
    assert tool.names("none") == []
    assert ["m/b", 1] in tool("list", "m/")["objects"]


def test_folders_are_listed_without_what_is_in_them(tool):
    for name in ("m/1/a", "m/1/b", "m/2-3/c/d", "m/file", "n/x", "top"):
        assert tool("put", name, "x")["r"] == 0
    assert tool("folders", "-")["folders"] == ["m", "n"]
    assert tool("folders", "m/")["folders"] == ["1", "2-3"]
    assert tool("folders", "m/2-3/")["folders"] == ["c"]
    assert tool("folders", "none/")["folders"] == []


def test_many_folders_come_on_more_than_one_page(server, tool):
    if server.kind == "dir":
        n = 20
    else:
        n = PAGE + 20
    for i in range(n):
        tool.send("put", f"f/{i:05}/x", "x")
    assert all(tool.read()["r"] == 0 for _ in range(n))
    assert tool("folders", "f/")["folders"] == [f"{i:05}" for i in range(n)]


def test_a_removal_can_be_repeated_and_the_second_is_told(tool):
    assert tool("put", "a", "x")["r"] == 0
    assert tool("remove", "a")["r"] == 0
    fails(tool("remove", "a"), errno.ENOENT, "a")
    assert tool("put", "a", "again")["r"] == 0


def test_the_store_tells_its_own_time(tool):
    assert abs(tool("now")["now"] - time.time()) < 3600


def test_the_store_passes_its_proof_and_keeps_nothing_of_it(tool):
    assert tool("prove")["r"] == 0
    assert tool.names() == []


def test_a_missing_container_is_told_and_only_made_when_asked(server):
    name = new_name()
    with Tool(server.url(name), check=False) as t:
        fails(t.opened, errno.ENOENT, "`lifeboat vault create` makes it")
    with Tool(server.url(name), "--create") as t:
        assert t("put", "a", "x")["r"] == 0
    with Tool(server.url(name), "--create") as t:
        assert t.names() == ["a"]


def test_names_that_no_store_takes_are_refused(tool):
    for name in ("a//b", "/a", "a/", ".a", "a/..", "a%2fb", "a?b", "x" * 201):
        assert tool("put", name, "x")["r"] == -errno.EINVAL, name


# ---- networks and servers that misbehave ----------------------------------------------------------------------------

@pytest.mark.parametrize("code", (503, 429, 500))
def test_an_overloaded_server_is_asked_again_and_not_before_it_said(through, proxy, code):
    rule = proxy.add(status(code, Retry_After="1"), times=2)
    assert through("put", "a", "x")["r"] == 0
    times = [q.time for q in proxy.requests]
    assert len(rule.hits) == 2 and len(times) == 3
    assert all(b - a >= 1 for a, b in zip(times, times[1:]))


def test_a_server_that_asks_for_more_patience_than_there_is_is_told(through, proxy):
    proxy.add(status(503, b"<?xml version='1.0'?><Error><Code>ServerBusy</Code><Message>later</Message></Error>",
                     Retry_After="3000"), times=99)
    fails(through("put", "a", "x"), errno.EIO, "503", "ServerBusy", "wait 3000 s")
    assert len(proxy.requests) == 1


def insists_on_a_checksum(code, message):
    """A bucket with object lock."""
    def insist(_, request, forward):
        if any(k.lower() == "content-md5" for k, _ in request.headers):
            return forward()
        return Answer(400, [], f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())
    return insist


@pytest.mark.parametrize("code, message", (
    ("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"),
    ("MissingContentMD5", "Missing required header for this request: Content-Md5.")))
def test_a_bucket_that_insists_on_a_checksum_gets_it_once_it_said_so(radosgw, code, message):
    bucket = new_name()
    proxy = FaultProxy(radosgw.port)
    with contextlib.closing(proxy), Tool(radosgw.url(bucket), "--create") as direct, \
            Tool(radosgw.url(bucket, port=proxy.port)) as through:
        proxy.heal()
        proxy.add(insists_on_a_checksum(code, message), times=99, match=lambda q: q.method == "PUT")
        assert through("put", "a", "first")["r"] == 0
        assert through("put", "b", "second")["r"] == 0
        assert direct.text("a", 5) == "first"
        puts = [any(k.lower() == "content-md5" for k, _ in q.headers) for q in proxy.requests if q.method == "PUT"]
        assert puts == [False, True, True]


def test_a_checksum_goes_along_only_where_it_is_asked_for(cloud, container):
    proxy = FaultProxy(cloud.port)
    with contextlib.closing(proxy):
        for more, expected in (("", False), ("&checksum=md5", True)):
            proxy.heal()
            with Tool(cloud.url(container, port=proxy.port, more=more)) as t:
                assert t("put", f"x{len(more)}", "text")["r"] == 0
            puts = [q for q in proxy.requests if q.method == "PUT"]
            assert puts and all(any(k.lower() == "content-md5" for k, _ in q.headers) == expected for q in puts)


def test_a_put_whose_answer_got_lost_is_settled_as_done(through, proxy, direct):
    rule = proxy.add(lose_answer, match=lambda q: q.method == "PUT")
    assert through("put", "a", "mine")["r"] == 0
    assert len(rule.hits) == 1 and direct.text("a", 4) == "mine"
    fails(direct("put", "a", "other"), errno.EEXIST)


def test_a_put_that_lost_against_another_while_its_answer_was_lost_is_taken(through, proxy, direct):
    def late(p, request, forward):
        assert direct("put", "a", "mine")["r"] == 0  # the same bytes, and yet not ours
        return lose_answer(p, request, forward)
    proxy.add(late, match=lambda q: q.method == "PUT")
    fails(through("put", "a", "mine"), errno.EEXIST)


def test_a_replacement_whose_answer_got_lost_is_settled_as_done(through, proxy, direct):
    assert through("put", "a", "one")["r"] == 0
    etag = through("stat", "a")["etag"]
    proxy.add(lose_answer, match=lambda q: q.method == "PUT")
    assert through("replace", "a", etag, "two")["r"] == 0
    assert direct.text("a", 3) == "two"


def test_a_removal_whose_answer_got_lost_is_done(through, proxy, direct):
    """Whether it says that the object was gone already depends on who tried again: we, or libcurl."""
    assert through("put", "a", "x")["r"] == 0
    proxy.add(lose_answer, match=lambda q: q.method == "DELETE")
    assert through("remove", "a")["r"] in (0, -errno.ENOENT)
    assert direct.names() == []


def test_requests_that_are_reset_on_their_way_are_made_again(through, proxy):
    proxy.add(lose_request, times=3)
    assert through("put", "a", "x")["r"] == 0
    proxy.add(lose_request, times=2)
    assert through.names() == ["a"]


def test_a_download_that_is_cut_in_its_middle_is_made_again_whole(through, proxy):
    text = "0123456789" * 300
    assert through("put", "a", text)["r"] == 0
    rule = proxy.add(cut_answer, times=2)
    assert through.text("a", 3000) == text
    assert len(rule.hits) == 2


def test_a_whole_answer_with_too_few_bytes_is_never_taken_for_the_object(through, proxy):
    assert through("put", "a", "0123456789")["r"] == 0
    proxy.add(shorten, times=1, match=lambda q: q.method == "GET")
    assert through.text("a", 10) == "0123456789"
    proxy.add(shorten, times=99, match=lambda q: q.method == "GET")
    fails(through("get", "a", 0, 10), errno.EIO, "10", "damaged")


@pytest.mark.parametrize("damage", (shorten, garble, cut_answer))
def test_a_damaged_listing_is_asked_for_again_and_never_taken_for_a_shorter_one(through, proxy, damage):
    for name in ("a", "b", "c", "d"):
        assert through("put", name, "x")["r"] == 0
    rule = proxy.add(damage, times=1, match=lambda q: "list" in q.path)
    assert through.names() == ["a", "b", "c", "d"]
    assert len(rule.hits) == 1


def test_a_listing_that_stays_damaged_is_an_error(through, proxy):
    proxy.add(garble, times=99, match=lambda q: "list" in q.path)
    fails(through("list", "-"), errno.EIO, "damaged")


def test_an_answer_larger_than_any_may_be_is_refused(through, proxy):
    proxy.add(flood, times=99, match=lambda q: "list" in q.path)
    fails(through("list", "-"), errno.EMSGSIZE, "larger")


def test_a_server_that_says_nothing_is_left_after_the_timeout(cloud, container, proxy):
    with Tool(cloud.url(container, port=proxy.port, more="&timeout=1")) as t:
        proxy.heal()
        rule = proxy.add(stall, match=lambda q: q.method == "PUT")
        assert t("put", "a", "x")["r"] == 0
        assert len(rule.hits) == 1


def test_a_late_put_after_the_removal_brings_back_at_most_what_was_there(cloud, container, proxy, direct):
    """Names are never used twice, so that this is garbage and never another content."""
    with Tool(cloud.url(container, port=proxy.port, more="&timeout=1")) as t:
        proxy.heal()
        proxy.add(hold, match=lambda q: q.method == "PUT")
        assert t("put", "a", "mine")["r"] == 0  # by its second attempt
        assert direct("remove", "a")["r"] == 0
        proxy.released.set()
        wait_for(direct.names, "the late put arrives")
        assert direct.text("a", 4) == "mine"
        fails(direct("put", "a", "other"), errno.EEXIST)
        assert direct("remove", "a")["r"] == 0
        assert direct.names() == []


def test_a_late_put_never_overwrites_what_another_put_meanwhile(cloud, container, proxy, direct):
    with Tool(cloud.url(container, port=proxy.port, more="&timeout=4")) as t:
        proxy.heal()
        rule = proxy.add(hold, match=lambda q: q.method == "PUT")
        t.send("put", "a", "mine")
        wait_for(lambda: rule.hits, "the put is on its way")
        assert direct("put", "a", "other")["r"] == 0
        fails(t.read(), errno.EEXIST)
        proxy.released.set()
        assert t("put", "b", "x")["r"] == 0
        assert direct.text("a", 5) == "other"


def test_a_store_that_ignores_the_condition_is_refused(cloud, container, proxy):
    """As servers do that do not know If-None-Match: they overwrite, and say that all is well."""
    def ignore(p, request, forward):
        if request.path.split("?")[0].rsplit("/", 1)[-1] not in seen:
            seen.add(request.path.split("?")[0].rsplit("/", 1)[-1])
            return forward()
        return status(200 if cloud.kind == "s3" else 201, ETag='"x"')(p, request, forward)
    seen = set()
    with Tool(cloud.url(container, port=proxy.port)) as t:
        proxy.add(ignore, times=999, match=lambda q: q.method == "PUT")
        fails(t("prove"), errno.EOPNOTSUPP, "two objects of one name")


def test_a_store_that_replaces_whatever_was_changed_is_refused(cloud, container, proxy):
    with Tool(cloud.url(container, port=proxy.port)) as t:
        proxy.add(status(200 if cloud.kind == "s3" else 201, ETag='"x"'), times=999,
                  match=lambda q: any(k.lower() == "if-match" for k, _ in q.headers))
        fails(t("prove"), errno.EOPNOTSUPP, "changed meanwhile")


def test_a_clock_that_is_hours_wrong_is_corrected_by_the_answers(cloud, container):
    for offset in (-5 * 3600, 7 * 3600):
        with Tool(cloud.url(container), "--clock-offset", offset) as t:
            assert t("put", f"a{abs(offset)}", "x")["r"] == 0
            assert abs(t("now")["now"] - time.time()) < 3600


def test_a_skewed_clock_is_told_by_the_date_of_the_refusal(cloud, container, proxy):
    """A server that is an hour ahead of us, and refuses what is not signed at its own time."""
    rule = proxy.add(status(403, b"<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>",
                            Date=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 600))))
    header = "x-ms-date" if cloud.kind == "azure" else "x-amz-date"
    with Tool(cloud.url(container, port=proxy.port)):
        first, second = (dict((k.lower(), v) for k, v in q.headers)[header] for q in proxy.requests[:2])
    assert len(rule.hits) == 1 and first != second


# ---- credentials ------------------------------------------------------------------------------------------------

def good(cloud):
    return dict(account_key=KEY) if cloud.kind == "azure" else dict(access_key=cloud.ACCESS, secret_key=cloud.SECRET)


def bad(cloud):
    if cloud.kind == "azure":
        return dict(account_key=base64.b64encode(b"another key").decode())
    return dict(access_key=cloud.ACCESS, secret_key="another")


def test_wrong_credentials_are_told_with_where_they_come_from(cloud, container, tmp_path):
    where = secret_file(tmp_path / "c", **bad(cloud))
    with Tool(cloud.url(container, credentials=where), check=False) as t:
        fails(t.opened, errno.EACCES, "access is denied (403", str(where), "correct them there")
        for value in bad(cloud).values():
            assert value == getattr(cloud, "ACCESS", None) or value not in t.opened["error"]


def test_credentials_that_are_renewed_in_their_file_are_used_without_a_restart(cloud, container, tmp_path):
    where = secret_file(tmp_path / "c", **good(cloud))
    with Tool(cloud.url(container, credentials=where)) as t:
        assert t("put", "a", "x")["r"] == 0
        secret_file(where, **bad(cloud))
        fails(t("put", "b", "x"), errno.EACCES, str(where))
        secret_file(where, **good(cloud))
        assert t("put", "b", "x")["r"] == 0


def test_credentials_come_from_the_environment_too(cloud, container):
    url = cloud.url(container).split("&credentials=")[0]
    names = {"account_key": "AZURE_STORAGE_KEY", "access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "AWS_", "LIFEBOAT_", "CREDENTIALS_"))}
    with Tool(url, env=dict(env, **{names[k]: v for k, v in good(cloud).items()})) as t:
        assert t("put", "a", "x")["r"] == 0
    with Tool(url, env=dict(env, **{names[k]: v for k, v in bad(cloud).items()}), check=False) as t:
        fails(t.opened, errno.EACCES, "the environment")
    with Tool(url, env=dict(env, LIFEBOAT_STORE_CREDENTIALS=str(cloud.credentials))) as t:
        assert t.names() == ["a"]


def test_a_sas_opens_an_account_until_its_end_which_is_told(azurite, tmp_path):
    where = secret_file(tmp_path / "c", sas="?" + account_sas(time.time() + 3600))
    with Tool(azurite.url(new_name(), credentials=where), "--create") as t:
        assert t("put", "a", "x")["r"] == 0
        assert t("race", "r", 8)["winners"] == 1
        assert t.names() == ["a", "r"]
        secret_file(where, sas=account_sas(time.time() - 60))
        fails(t("put", "b", "x"), errno.EACCES, "the SAS ended at ", "make a new one", str(where))
        secret_file(where, sas=account_sas(time.time() + 3600))
        assert t("put", "b", "x")["r"] == 0


def test_a_sas_without_a_right_says_which_ones_are_needed(azurite, tmp_path):
    name = new_name()
    with Tool(azurite.url(name), "--create"):
        pass
    where = secret_file(tmp_path / "c", sas=account_sas(time.time() + 3600, "rl"))
    with Tool(azurite.url(name, credentials=where)) as t:
        fails(t("put", "a", "x"), errno.EACCES, "rcwdl")


def test_no_secret_is_in_an_error(cloud, container, proxy, tmp_path):
    secrets = dict(sas=account_sas(time.time() - 60)) if cloud.kind == "azure" else bad(cloud)
    where = secret_file(tmp_path / "c", **secrets)
    with Tool(cloud.url(container, port=proxy.port, credentials=where), check=False) as t:
        error = t.opened["error"]
    assert "sig=" not in error and "another" not in error and urllib.parse.quote("sig=") not in error


# ---- ways there -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    folder / "key.pem", "-out", folder / "cert.pem", "-days", "30", "-subj", "/CN=store", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_authority_of_ones_own_is_given_in_the_address(cloud, container, certificate):
    p = FaultProxy(cloud.port, tls=certificate)
    try:
        url = cloud.url(container, port=p.port).replace("http://", "https://")
        with Tool(url, check=False) as t:
            fails(t.opened, errno.EACCES, "certificate", "ca=/path/of/its.pem")
        with Tool(f"{url}&ca={certificate[0]}") as t:
            assert t("put", "a", "x")["r"] == 0
            assert t.text("a", 1) == "x"
        assert p.requests
    finally:
        p.close()


def test_requests_go_through_the_proxy_that_the_address_names(cloud, container, proxy):
    with Tool(cloud.url(container, more=f"&proxy=http://127.0.0.1:{proxy.port}")) as t:
        assert t("put", "a", "x")["r"] == 0
    assert all(q.path.startswith(f"http://127.0.0.1:{cloud.port}/") for q in proxy.requests) and proxy.requests


def test_nobody_there_is_told_with_the_address(azurite):
    port = object_stores.free_port()
    with Tool(azurite.url("vault", port=port, more="&timeout=1"), check=False) as t:
        fails(t.opened, errno.EIO, f"127.0.0.1 port {port}", "firewall")


# ---- one writer --------------------------------------------------------------------------------------------------

SHAPE = ["--epochs", "1", "--data-bytes", "20000", "--compressible", "30"]


def digests(site, machine):
    return site.segtool("digests", *site.vault_args(), "--machine", machine.id).splitlines()


def test_a_writer_that_comes_back_with_a_full_cache_finds_the_seal_and_adds_nothing(cloud, proxy, tmp_path):
    """Its uploads are kept from the store while a failover takes its machine's journal over."""
    name = new_name()
    with Tool(cloud.url(name), "--create"):
        pass
    direct_url, patient = cloud.url(name), "&timeout=5"
    site = Site(tmp_path / "site", vault_url=direct_url)
    machine = site.machines[0]
    try:
        site.vault_url = cloud.url(name, port=proxy.port, more=patient)
        site.start()
        agent = site.agent(machine, *SHAPE, "--segments", 5)
        assert agent.wait(120) == 0, agent.stderr.read()
        wait_for(lambda: len(digests(site, machine)) == 5, "five segments are in the vault")
        proxy.add(status(503, Retry_After="1"), times=1 << 30, match=lambda q: q.method == "PUT")
        agent = site.agent(machine, *SHAPE, "--segments", 9)
        assert agent.wait(120) == 0, agent.stderr.read()
        assert machine.last_acked() == (1, 8)  # durable in its cache, and nowhere else
        site.vault_url = direct_url
        run = subprocess.run([object_stores.BUILD / "tests/tools/segtool", "seal", *site.vault_args(), "--machine", machine.id],
                             capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        before = digests(site, machine)
        proxy.heal()
        wait_for(lambda: "taken over" in json.dumps(site.request(machine, "GET", "/v1/journal")), "the process server finds the seal", 180)
        assert digests(site, machine) == before and len(before) == 5
        site.assert_image(machine, (1, 4), *SHAPE, "--segments", 5)
    except BaseException:
        print((site.folder / "log").read_text())
        raise
    finally:
        site.close()
