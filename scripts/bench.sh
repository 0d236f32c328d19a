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
[ $# -gt 0 ] && case $1 in /*) build=$1 ;; *) build=$top/$1 ;; esac

[ -f "$build/build.ninja" ] || meson setup "$build" "$top" --buildtype=debugoptimized >&2
ninja -C "$build" src/cli/lifeboat src/config/lifeboat-config src/process/lifeboat-process src/mobility/lifeboat-mobility \
	src/capture/lifeboat-capture src/nbd/nbdkit-lifeboat-plugin.so tests/tools/mkvault tests/tools/recover tests/tools/segtool tests/tools/storetool \
	tests/tools/oracle_write tests/bench/capture_bench tests/bench/fold_bench tests/bench/folded_bench tests/bench/hrl_bench tests/bench/list_bench tests/bench/vault_bench >&2
exec /usr/bin/python3 "$top/scripts/bench_table.py" $quick "$build"
