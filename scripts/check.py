#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test of the project and closes with one line: N passed, N failed, N skipped.

Stages: style, floors (includes point downwards only), unit and simulation tests, the same under ASan and UBSan,
clang-tidy, end-to-end tests, fuzz targets for a few seconds each. A stage that fails, or breaks, hides none of the
later ones. A test that needs what this machine lacks says so and counts as skipped; tests that tests/never-skip.txt names count as failed when they are
skipped, or are not there at all, while CI=true.
"""
import argparse
import contextlib
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ET

TOP = pathlib.Path(__file__).resolve().parent.parent
LEVEL = {"base": 0, "hrl": 1, "store": 1, "vault": 2, "wire": 2, "capture": 3, "fabric": 3, "files": 3, "mobility": 4,
         "process": 4, "config": 4, "nbd": 4, "target": 3.5, "cli": 5}
OUTPUT_CHARS_MAX = 4000  # of a failed test's output; the whole of it stays in meson-logs/testlog.txt
FUZZ_S = 6  # per target; `make fuzz` runs for long
E2E_S_MAX = 55 * 60
MESON_TIMEOUT_FACTOR = 4  # a limit for tests that hang, not for slow machines
JOBS = os.cpu_count() or 1


class Results:
    def __init__(self):
        self.passed, self.failed, self.skipped = [], [], []

    def add(self, name, outcome, text=""):
        {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}[outcome].append(name)
        if outcome == "failed":
            print(f"FAILED  {name}", *indented(text), sep="\n", flush=True)
        elif outcome == "skipped":
            print(f"skipped {name}: {text or 'it gives no reason'}", flush=True)

    def check(self, name, problem):
        self.add(name, "failed" if problem else "passed", problem)

    def names(self):
        return self.passed + self.failed + self.skipped

    def closing_line(self):
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def indented(text):
    text = text.strip()
    if len(text) > OUTPUT_CHARS_MAX:
        text = "[...]" + text[-OUTPUT_CHARS_MAX:]
    return ["    " + line for line in text.splitlines()]


def run(cmd, **kw):
    return subprocess.run(cmd, cwd=TOP, text=True, errors="replace", **kw)


def tracked(*patterns):
    out = run(["git", "ls-files", *patterns], stdout=subprocess.PIPE, check=True).stdout
    return [f for f in out.splitlines() if (TOP / f).exists()]


# ---- style ------------------------------------------------------------------------------------------------------

def stage_style(res, _args):
    p = run(["clang-format", "--dry-run", "-Werror", *tracked("*.c", "*.h")], stderr=subprocess.PIPE)
    bad = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", p.stderr, re.M)))
    res.check("style::every_c_file_is_formatted",
              "run `make format`; not formatted: " + (", ".join(bad) or p.stderr) if p.returncode else "")


    wrong = [p.stderr for f in shell_scripts() if (p := run(["bash", "-n", f], stderr=subprocess.PIPE)).returncode]
    res.check("style::every_script_can_be_parsed", "".join(wrong))
    p = run(["git", "grep", "-nE", "^(<<<<<<< |>>>>>>> )"], stdout=subprocess.PIPE)
    res.check("style::no_merge_is_left_half_done", p.stdout)


def shell_scripts():
    return [f for f in tracked("*.sh", "packaging/**", "tests/guest/**", ".ci/run")
            if f.endswith(".sh") or (TOP / f).read_bytes()[:64].startswith((b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"))]


def stage_floors(res, _args):
    wrong = []
    for f in tracked("src/*.c", "src/*.h"):
        here = f.split("/")[1]
        for inc in re.findall(r'^\s*#\s*include\s+"([a-z]+)/', (TOP / f).read_text(), re.M):
            if inc != here and LEVEL[inc] >= LEVEL[here]:
                wrong.append(f"{f} includes {inc}/")
    res.check("style::includes_point_downwards_only", "\n".join(wrong))


def stage_tidy(res, args):
    if not built(res, "build-check"):
        return
    todo = [f for f in tracked("src/*.c") if not f.endswith(".bpf.c")]
    todo.sort(key=lambda f: (TOP / f).stat().st_size)
    running, found = [], []
    while todo or running:
        while todo and len(running) < args.jobs:
            running.append(subprocess.Popen(["clang-tidy", "-p", "build-check", "--quiet", "--warnings-as-errors=*",
                                             todo.pop()], cwd=TOP, text=True, errors="replace",
                                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        first = running.pop(0)
        out = first.communicate()[0]
        if first.returncode:
            found += re.findall(r"^.*: error: .*$", out, re.M) or [f"{first.args[-1]}: exit status {first.returncode}"]
    res.check("style::clang_tidy_finds_nothing", "\n".join(sorted(set(found))))


# ---- unit and simulation tests -------------------------------------------------------------------------------------

BUILDS = {
    "build-check": ("build::everything_builds_without_a_warning", ["-Dfault_injection=true"]),
    "build-asan": ("build::everything_builds_with_sanitizers",
                   ["-Dfault_injection=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"]),
}


def built(res, build):
    """Builds it unless a stage before has; says whether it stands."""
    name, options = BUILDS[build]
    if name not in res.names():
        res.check(name, make(build, options))
    return name in res.passed


def make(build, options):
    steps = [["ninja", "-k", "0", "-C", build]]
    if not (TOP / build / "build.ninja").exists():
        steps.insert(0, ["meson", "setup", build, *options])
    for step in steps:
        p = run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if p.returncode:
            lines = p.stdout.splitlines()
            return "\n".join([l for l in lines if re.search(r"error|warning|undefined|FAILED|ERROR", l)] or lines)
    return ""


def cmocka_cases(xml):
    """(name, outcome, text) of each test in one group's report."""
    cases = []
    for case in ET.parse(xml).getroot().iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None:
            cases.append((case.get("name"), "failed", bad.text or ""))
        elif case.find("skipped") is not None:
            cases.append((case.get("name"), "skipped", ""))
        else:
            cases.append((case.get("name"), "passed", ""))
    return cases


def add_group(res, prefix, cases, output):
    """Skipped tests print their reason, in the order in which they ran."""
    reasons = re.findall(r"^skipped: (.*)$", output, re.M)
    for name, outcome, text in cases:
        if outcome == "skipped":
            text = reasons.pop(0) if reasons else ""
        res.add(f"{prefix}::{name}", outcome, text)


def add_meson_test(res, prefix, test, reports):
    """One line of testlog.json. A unit test has a report of its group; without one, whatever it returned, it failed."""
    suite, name = test["name"].split(":")[-1].split(" / ", 1)
    output = (test.get("stdout") or "") + (test.get("stderr") or "")
    told = f"{test['result']}, exit status {test.get('returncode')}\n{output}"
    if suite != "unit":
        outcome = {"OK": "passed", "SKIP": "skipped"}.get(test["result"], "failed")
        res.add(f"{prefix}::{name}", outcome, told)
        return
    report = reports / f"{name}.xml"
    try:
        cases = cmocka_cases(report)
    except (OSError, ET.ParseError):
        res.add(f"{prefix}::{name}::runs_to_its_end", "failed", "it left no report: " + told)
        return
    add_group(res, f"{prefix}::{name}", cases, output)
    if test["result"] != "OK" and not any(c[1] == "failed" for c in cases):
        res.add(f"{prefix}::{name}::ends_well", "failed", told)


def meson_tests(res, build, prefix, extra_env):
    log = TOP / build / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="lb-check.") as tmp:
        reports = pathlib.Path(tmp)
        env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="XML", CMOCKA_XML_FILE=str(reports / "%g.xml"), **extra_env)
        p = run(["meson", "test", "-C", build, "--no-rebuild", "--quiet", "--num-processes", str(JOBS),
                 "--timeout-multiplier", str(MESON_TIMEOUT_FACTOR)],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        ran = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        for test in ran:
            add_meson_test(res, prefix, test, reports)
    listed = json.loads(run(["meson", "introspect", "--tests", build], stdout=subprocess.PIPE, check=True).stdout)
    res.check(f"{prefix}::every_test_of_the_build_ran",
              f"{len(ran)} of {len(listed)} ran\n{p.stdout}" if len(ran) != len(listed) else "")


def stage_unit(res, _args):
    nameless = [f for f in tracked("tests/unit/test_*.c")
                if f'cmocka_run_group_tests_name("{pathlib.Path(f).stem[5:]}",' not in re.sub(r"\s+", " ", (TOP / f).read_text())]
    res.check("unit::every_group_bears_its_module_s_name", ", ".join(nameless))
    if built(res, "build-check"):
        meson_tests(res, "build-check", "unit", {})


def stage_sanitize(res, _args):
    if built(res, "build-asan"):
        meson_tests(res, "build-asan", "asan", {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
                                                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})


# ---- end-to-end tests -----------------------------------------------------------------------------------------------

# The failures that judge nothing, by the exception that a test ended with; what its text quotes does not count. NotProvoked: the machine
# was too quick, or too quiet, for what a test is about (tests/e2e/provoked.py). The others are waits that ran out: it was too slow, or
# something hangs. What the data are is never given a second try.
ENDED_WITH = re.compile(r'(?:failed on (?:setup|teardown) with ")?(?:\w+\.)*(\w+)(?:: (.*)|$)', re.S)
RAN_OUT = re.compile(r"\bassert .*?([\d.]+) < ([\d.]+).*?\n +\+ +where \1 = <built-in function monotonic>", re.S)


def judged_nothing(message):
    """Whether this failure, as pytest's report has it, says nothing of the product."""
    ended = ENDED_WITH.match(message)
    kind, said = ended.groups() if ended else (None, None)
    if kind in ("SiteError", "GuestError", "LedgerError", "BankError"):
        return re.search(r"\bwithin \d", (said or "").split("\n--- ")[0]) is not None
    if kind in ("NotProvoked", "TimeoutExpired", "TimeoutError"):
        return True
    late = RAN_OUT.search(message)  # `assert time.monotonic() < end`
    return late is not None and float(late[1]) >= float(late[2])


def run_pytest(res, args, xml, tests):
    """Runs end-to-end tests to a report; False when there is none."""
    env = dict(os.environ, LIFEBOAT_BUILD=str(TOP / "build-check"), PYTHONDONTWRITEBYTECODE="1")
    cmd = ["timeout", "--signal=INT", "--kill-after=60", str(E2E_S_MAX), "/usr/bin/python3", "-m", "pytest", "-q",
           "--tb=short", "--durations=15", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", f"--junitxml={xml}"]
    p = run(cmd + (["-x"] if args.stop else []) + tests, env=env)
    if not xml.exists():
        res.add("e2e::pytest_runs_to_its_end", "failed", f"exit status {p.returncode}, no report")
    elif p.returncode not in (0, 1):
        res.add("e2e::pytest_runs_to_its_end", "failed",
                f"exit status {p.returncode}; 2 is an interruption, after {E2E_S_MAX} s by this runner")
    return xml.exists()


def stage_e2e(res, args):
    if not built(res, "build-check"):
        return
    with tempfile.TemporaryDirectory(prefix="lb-check.") as tmp:
        first, second = pathlib.Path(tmp) / "first.xml", pathlib.Path(tmp) / "second.xml"
        if not run_pytest(res, args, first, args.only or ["tests/e2e"]):
            return
        again = add_pytest(res, first, once_more=True)
        if again:
            print(f"unsteady: a wait ran out or nothing was provoked, tried once more: {', '.join(again)}", flush=True)
            if run_pytest(res, args, second, again):
                add_pytest(res, second, once_more=False)


def add_pytest(res, xml, once_more):
    """Takes a report in; with `once_more`, returns the tests that judged nothing instead of calling them failed."""
    again, failed = {}, set()
    for case in ET.parse(xml).getroot().iter("testcase"):
        if not case.get("name"):
            continue  # what an interruption left
        module = (case.get("classname") or case.get("name")).split(".")[-1]
        name = f"e2e::{module}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if bad is not None and once_more and judged_nothing(bad.get("message") or ""):
            again[name] = f"tests/e2e/{module}.py::{case.get('name')}"
        elif bad is not None:
            failed.add(name)
            res.add(name, "failed", bad.get("message") or "")
        elif skip is not None:
            res.add(name, "skipped", skip.get("message"))
        else:
            res.add(name, "passed")
    return [test for name, test in again.items() if name not in failed]


# ---- fuzzing ------------------------------------------------------------------------------------------------------

def stage_fuzz(res, _args):
    """Each target for a few seconds from its corpus: what once crashed does not again, and the targets build. No search for what is
    new, which would be found, or not, by chance: that is `make fuzz`."""
    p = run(["scripts/fuzz.sh", str(FUZZ_S)], env=dict(os.environ, LIFEBOAT_SEED="1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told = dict(re.findall(r"^(?:(?:ok|FAILED) (\w+)[:,])(.*?)(?=^(?:ok|FAILED) |\Z)", p.stdout, re.M | re.S))
    for file in tracked("tests/fuzz/fuzz_*.c"):
        name = pathlib.Path(file).stem.removeprefix("fuzz_")
        fine = re.search(rf"^ok {name}: \d+ inputs$", p.stdout, re.M)
        res.check(f"fuzz::{name}_takes_whatever_comes", "" if fine else told.get(name) or p.stdout)


STAGES = {"style": stage_style, "floors": stage_floors, "unit": stage_unit, "e2e": stage_e2e, "tidy": stage_tidy,
          "sanitize": stage_sanitize, "fuzz": stage_fuzz}


@contextlib.contextmanager
def bpf_file_system():
    """What the capture's pins need; a machine without systemd may not have mounted it. Left as it was found."""
    where = "/sys/fs/bpf"
    mounted = os.geteuid() == 0 and os.path.isdir(where) and not os.path.ismount(where) and \
        run(["mount", "-t", "bpf", "bpf", where], stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield
    finally:
        if mounted:
            run(["umount", where])


def never_skip_patterns():
    lines = (TOP / "tests/never-skip.txt").read_text().splitlines()
    return [l.strip() for l in lines if l.strip() and not l.startswith("#")]


def forbid_skips(res, patterns):
    for name in list(res.skipped):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            res.skipped.remove(name)
            res.add(name, "failed", "tests/never-skip.txt: this test may not be skipped in CI")
    for pattern in patterns:
        if not fnmatch.filter(res.names(), pattern):
            res.add(pattern, "failed", "tests/never-skip.txt names a test that did not run at all")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-j", "--jobs", type=int, default=JOBS, help=f"how many clang-tidy at once ({JOBS})")
    ap.add_argument("--stop", action="store_true", help="stop the end-to-end tests at the first failure")
    ap.add_argument("--only", action="append", metavar="TEST", help="an end-to-end test to run, as pytest names it")
    ap.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; all by default")
    args = ap.parse_args()
    if unknown := [s for s in args.stages if s not in STAGES]:
        ap.error(f"no stage is called {unknown[0]}: {', '.join(STAGES)}")
    res = Results()
    for name in args.stages or STAGES:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            with bpf_file_system():
                STAGES[name](res, args)
        except Exception:  # a broken stage hides none of the later ones
            res.add(f"check::{name}", "failed", traceback.format_exc())
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    if os.environ.get("CI") == "true" and not args.stages:
        forbid_skips(res, never_skip_patterns())
    for name in res.failed:
        print(f"FAILED  {name}")
    print(res.closing_line())
    return 1 if res.failed else 0


if __name__ == "__main__":
    sys.exit(main())
