#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets (clang, ASan, UBSan) and runs each on its corpus of tests/fuzz/corpus. What is found new stays
# in build-fuzz/found/TARGET, what crashes in build-fuzz/crashes: add it to the corpus with the fix.
#
# LIFEBOAT_SEED=N: the same inputs each time, as far as the time lets them come; otherwise others in each run.
# usage: scripts/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]     (default: 600 s each, all of them)
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:-600}
[ $# -eq 0 ] || shift
build=$top/build-fuzz

command -v clang >/dev/null || { echo "fuzz: clang is missing; run \`make deps\`" >&2; exit 1; }
[ -f "$build/build.ninja" ] || CC=clang meson setup "$build" "$top" -Dfuzz=true -Db_lundef=false >&2
if [ $# -eq 0 ]; then
	for file in "$top"/tests/fuzz/fuzz_*.c; do
		name=$(basename "$file" .c)
		set -- "$@" "${name#fuzz_}"
	done
fi

targets=
for name; do targets="$targets tests/fuzz/fuzz_$name"; done
# shellcheck disable=SC2086  # names without blanks
ninja -C "$build" $targets >&2

status=0
for name; do
	log=$build/$name.log
	mkdir -p "$build/found/$name" "$build/crashes"
	set -- -seed="${LIFEBOAT_SEED:-0}" -max_total_time="$seconds" -timeout=120 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$build/crashes/$name-" "$build/found/$name" "$top/tests/fuzz/corpus/$name"
	case $name in
	listing) set -- -dict="$top/tests/fuzz/listing.dict" "$@" ;;
	small_objects | messages | lines | vault_json | orders) set -- -dict="$top/tests/fuzz/json.dict" "$@" ;;
	volumes) set -- -max_len=131072 "$@" ;; # room for a filesystem
	esac
	if "$build/tests/fuzz/fuzz_$name" "$@" >"$log" 2>&1; then
		echo "ok $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
	else
		status=1
		echo "FAILED $name, see $log and $build/crashes:"
		tail -n 40 "$log"
	fi
done
exit $status
