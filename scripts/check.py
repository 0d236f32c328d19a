#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test of the project and closes with one line: N passed, N failed, N skipped.

Stages: style, floors (includes point downwards only), unit and simulation tests, the same under ASan and UBSan,
clang-tidy, end-to-end tests. A test that needs what this machine lacks says so and counts as skipped; tests that
tests/never-skip.txt names count as failed when they are skipped while CI=true.
"""
import argparse
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

TOP = pathlib.Path(__file__).resolve().parent.parent
FLOORS = ["base", "hrl", "store", "vault", "wire", "capture", "fabric", "mobility", "process", "config", "nbd", "cli"]
LEVEL = {"base": 0, "hrl": 1, "store": 1, "vault": 2, "wire": 2, "capture": 3, "fabric": 3, "mobility": 4,
         "process": 4, "config": 4, "nbd": 4, "cli": 5}


class Results:
    def __init__(self):
        self.passed, self.failed, self.skipped = [], [], []

    def add(self, name, outcome, text=""):
        {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}[outcome].append(name)
        if outcome == "failed":
            print(f"FAILED  {name}\n{text}", flush=True)
        elif outcome == "skipped":
            print(f"skipped {name}: {text or 'no reason given'}", flush=True)


def run(cmd, **kw):
    return subprocess.run(cmd, cwd=TOP, text=True, **kw)


def tracked(*patterns):
    out = run(["git", "ls-files", *patterns], capture_output=True, check=True).stdout
    return [f for f in out.splitlines() if (TOP / f).exists()]


def stage_style(res, _args):
    files = tracked("*.c", "*.h")
    p = run(["clang-format", "--dry-run", "-Werror", *files], capture_output=True)
    bad = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", p.stderr, re.M)))
    res.add("style::every_c_file_is_formatted", "failed" if p.returncode else "passed",
            "run `make format`; not formatted: " + ", ".join(bad))


def stage_floors(res, _args):
    wrong = []
    for f in tracked("src/*.c", "src/*.h"):
        here = f.split("/")[1]
        for inc in re.findall(r'^#include "([a-z]+)/', (TOP / f).read_text(), re.M):
            if inc in LEVEL and inc != here and LEVEL[inc] >= LEVEL[here]:
                wrong.append(f"{f} includes {inc}/")
    res.add("style::includes_point_downwards_only", "failed" if wrong else "passed", "\n".join(wrong))


def setup(build, options):
    if not (TOP / build / "build.ninja").exists():
        p = run(["meson", "setup", build, *options], capture_output=True)
        if p.returncode:
            return p.stdout + p.stderr
    p = run(["ninja", "-C", build], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return p.stdout if p.returncode else None


def collect_cmocka(res, folder, prefix):
    seen = set()
    for xml in sorted(folder.glob("*.xml")):
        seen.add(xml.stem)
        for case in ET.parse(xml).getroot().iter("testcase"):
            name = f"{prefix}::{xml.stem}::{case.get('name')}"
            bad = case.find("failure") if case.find("failure") is not None else case.find("error")
            if bad is not None:
                res.add(name, "failed", bad.text or "")
            elif case.find("skipped") is not None:
                res.add(name, "skipped", "see the test's own message")
            else:
                res.add(name, "passed")
    return seen


def meson_tests(res, build, prefix, extra_env):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lb-check."))
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="XML", CMOCKA_XML_FILE=str(folder / "%g.xml"), **extra_env)
    log = TOP / build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    run(["meson", "test", "-C", build, "--no-rebuild", "-q", "--num-processes", "2"], env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen = collect_cmocka(res, folder, prefix)
    shutil.rmtree(folder)
    for line in log.read_text().splitlines() if log.exists() else []:
        t = json.loads(line)
        name = t["name"].split(" / ")[-1]
        if t["result"] in ("OK", "EXPECTEDFAIL") and name in seen:
            continue
        outcome = {"OK": "passed", "SKIP": "skipped"}.get(t["result"], "failed")
        text = (t.get("stdout") or "")[-3000:] + (t.get("stderr") or "")[-3000:]
        if outcome == "failed" or name not in seen:
            res.add(f"{prefix}::{name}", outcome, text)


def stage_unit(res, _args):
    broken = setup("build-check", ["-Dfault_injection=true"])
    res.add("build::everything_builds_without_a_warning", "failed" if broken else "passed", broken or "")
    if not broken:
        meson_tests(res, "build-check", "unit", {})


def stage_sanitize(res, _args):
    broken = setup("build-asan", ["-Dfault_injection=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"])
    res.add("build::everything_builds_with_sanitizers", "failed" if broken else "passed", broken or "")
    if not broken:
        meson_tests(res, "build-asan", "asan", {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
                                                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
                                                "LB_TEST_SLOW": "0"})


def stage_tidy(res, _args):
    files = [f for f in tracked("src/*.c") if not f.endswith(".bpf.c")]
    jobs = [files[i::2] for i in range(2)]
    procs = [subprocess.Popen(["clang-tidy", "-p", "build-check", "--quiet", "--warnings-as-errors=*", *j], cwd=TOP,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for j in jobs if j]
    outs = [p.communicate()[0] for p in procs]
    bad = any(p.returncode for p in procs)
    res.add("style::clang_tidy_finds_nothing", "failed" if bad else "passed", "\n".join(outs)[-8000:])


def stage_e2e(res, args):
    with tempfile.TemporaryDirectory(prefix="lb-check.") as tmp:
        xml = pathlib.Path(tmp) / "e2e.xml"
        env = dict(os.environ, LIFEBOAT_BUILD=str(TOP / "build-check"), PYTHONDONTWRITEBYTECODE="1")
        p = run(["/usr/bin/python3", "-m", "pytest", "-q", "-x" if args.stop else "-q", "-p", "no:cacheprovider",
                 f"--junitxml={xml}", *(args.only or ["tests/e2e"])], env=env)
        if not xml.exists():
            res.add("e2e::pytest_runs", "failed", f"exit status {p.returncode}, no report")
            return
        for case in ET.parse(xml).getroot().iter("testcase"):
            name = f"e2e::{case.get('classname').split('.')[-1]}::{case.get('name')}"
            bad = case.find("failure") if case.find("failure") is not None else case.find("error")
            skip = case.find("skipped")
            if bad is not None:
                res.add(name, "failed", (bad.get("message") or "")[:500])
            elif skip is not None:
                res.add(name, "skipped", skip.get("message"))
            else:
                res.add(name, "passed")


STAGES = {"style": stage_style, "floors": stage_floors, "unit": stage_unit, "sanitize": stage_sanitize,
          "tidy": stage_tidy, "e2e": stage_e2e}


def forbid_skips(res):
    listed = [l.strip() for l in (TOP / "tests/never-skip.txt").read_text().splitlines()
              if l.strip() and not l.startswith("#")]
    for name in list(res.skipped):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in listed):
            res.skipped.remove(name)
            res.add(name, "failed", "tests/never-skip.txt: this test may not be skipped in CI")
    for pattern in listed:
        if not any(fnmatch.fnmatchcase(n, pattern) for n in res.passed + res.failed + res.skipped):
            res.add(pattern, "failed", "tests/never-skip.txt names a test that did not run at all")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--stop", action="store_true", help="stop the end-to-end tests at the first failure")
    ap.add_argument("--only", nargs="*", help="end-to-end tests to run (pytest's names)")
    ap.add_argument("stages", nargs="*", help=f"of {', '.join(STAGES)}; all by default")
    args = ap.parse_args()
    res = Results()
    for name in args.stages or STAGES:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        STAGES[name](res, args)
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    if os.environ.get("CI") == "true" and not args.stages:
        forbid_skips(res)
    print(f"{len(res.passed)} passed, {len(res.failed)} failed, {len(res.skipped)} skipped")
    return 1 if res.failed else 0


if __name__ == "__main__":
    sys.exit(main())
