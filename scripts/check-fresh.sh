#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a newcomer gets: the README's commands in a newly made minimal Debian,
# on a clone of the last commit, where nothing of ours or of a developer's was
# ever installed. Of this machine it uses the kernel, the network and how apt
# reaches Debian; nothing else is visible in there.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR
. "$top/scripts/apt-host.sh"

usage()
{
        cat <<'END'
usage: check-fresh.sh [--full] [--keep] [--in DIR] [--run COMMAND]
  --full         also `make check` (25 minutes), not only `make demo`
  --keep         leave the Debian root for a look
  --in DIR       where to make it (/var/tmp; it takes about 4 GiB)
  --run COMMAND  run this in the root, and not the README's commands
END
}

# What the README asks for beside Debian itself.
README_PACKAGES=make,ca-certificates

full="" keep="" run="" where=/var/tmp
while [ $# -gt 0 ]; do
        case $1 in
        --full) full=yes ;;
        --keep) keep=yes ;;
        --in) where=${2:?--in needs a folder}; shift ;;
        --run) run=${2:?--run needs a command}; shift ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
        esac
        shift
done

die()
{
        printf 'check-fresh: %s\n' "$*" >&2
        exit 1
}

say()
{
        printf '\ncheck-fresh: %s\n' "$*"
}

[ "$(id -u)" -eq 0 ] || die "a chroot needs root: sudo make check-fresh"
for tool in mmdebstrap git unshare; do
        command -v $tool >/dev/null || die "$tool is missing; run 'make deps'"
done

work=$(mktemp -d "$where/lifeboat-fresh.XXXXXX")
root=$work/root
child=""
clean()
{
        # unshare ignores gentler signals; its namespace dies with it.
        [ -z "$child" ] || { kill -KILL "$child" 2>/dev/null && wait "$child" 2>/dev/null; } || true
        # What is mounted in the root is so in a namespace that ended before this runs.
        if [ -n "$keep" ]; then
                printf 'check-fresh: the root is left in %s\n' "$root"
        else
                rm -rf --one-file-system "$work"
        fi
}
trap clean EXIT
trap 'exit 130' INT TERM

make_root()
{
        local option options=() mirror=()

        host_apt_options >"$work/apt.conf"
        while read -r option; do
                [ -z "$option" ] || options+=("--aptopt=${option%;}")
        done <"$work/apt.conf"
        host_debian_sources >"$work/sources.list"
        [ ! -s "$work/sources.list" ] || mirror=("$work/sources.list")
        mmdebstrap --quiet --variant=minbase --include=$README_PACKAGES "${options[@]}" \
                bookworm "$root" "${mirror[@]}" >"$work/mmdebstrap.log" 2>&1 ||
                { tail -n 30 "$work/mmdebstrap.log" >&2; die "mmdebstrap could not make a root"; }
        cp "$work/apt.conf" "$root/etc/apt/apt.conf.d/90host"
        cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
        # A newcomer's machine has no package lists of today.
        rm -rf "$root"/var/lib/apt/lists/*
        git clone -q --no-hardlinks "$top" "$root/root/lifeboat"
        git -C "$root/root/lifeboat" remote remove origin
}

# Runs a command in the root, in namespaces of its own: when it ends, however
# it ends, nothing of it is left running or mounted.
in_root()
{
        local variable environment=()

        for variable in http_proxy https_proxy no_proxy TERM; do
                [ -z "${!variable:-}" ] || environment+=("$variable=${!variable}")
        done
        # Expanded by the shell inside.
        # shellcheck disable=SC2016
        unshare --mount --propagation private --pid --fork --kill-child bash -c '
                set -e
                root=$1
                shift
                mount -t proc proc "$root/proc"
                mount --rbind /sys "$root/sys"
                mount --rbind /dev "$root/dev"
                mount -t tmpfs -o mode=755 tmpfs "$root/run"
                # Not exec: the first process of a namespace has to reap.
                chroot "$root" "$@"
        ' in_root "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                HOME=/root LANG=C.UTF-8 CI="${CI:-}" "${environment[@]}" \
                bash -c "cd /root/lifeboat && $1" </dev/null &
        # In the background, so that a signal to this script is heard at once.
        child=$!
        wait "$child"
        child=""
}

# Each command must be one that the README gives; YES=1 answers for the person.
step()
{
        local began=$SECONDS

        grep -qF "$1" "$root/root/lifeboat/README.md" || die "README.md does not give '$1'"
        say "$1"
        in_root "$1 YES=1" || die "'$1' failed in a fresh Debian 12"
        say "'$1' took $((SECONDS - began)) s, with what it installed"
}

say "making a minimal Debian 12"
make_root
if [ -n "$run" ]; then
        in_root "$run"
        exit 0
fi
step 'make demo'
[ -z "$full" ] || step 'make check'
say "a newcomer gets through"
