#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lifeboat in figures, on this machine: builds as the packages are (-O2, no faults to inject), runs tests/bench/*, prints one table with ratios.
# What the machine can't do is skipped and says why. Nothing here passes or fails: figures depend on the machine.
#
# usage: scripts/bench.sh [--quick] [BUILD]     (BUILD is made if missing; default build-bench)
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
quick=
[ "${1:-}" = --quick ] && { quick=--quick; shift; }
build=$top/build-bench
[ $# -gt 0 ] && case $1 in /*) build=$1-bench ;; *) build=$top/$1-bench ;; esac

[ -f "$build/build.ninja" ] || meson setup "$build" "$top" --buildtype=debugoptimized >&2
ninja -C "$build" >&2
ninja -C "$build" tests/bench/capture_bench tests/bench/hrl_bench tests/bench/vault_bench >&2
exec /usr/bin/python3 "$top/scripts/bench_table.py" $quick "$build"
