#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Lifeboat is built, tested and shown with: Debian 12's packages
# and nothing else. Only what is missing; a person is asked first.
set -euo pipefail

usage()
{
        cat <<'END'
usage: deps.sh [--yes] [--full] [--files] [--list]
  --yes   do not ask (also when CI=true)
  --full  also what `make demo-full` needs (libvirt)
  --files also what the test of files on xfs and LVM needs (guestfish: some 80 packages, udev and mdadm among them)
  --list  print the packages, one a line, and install nothing
END
}

BUILD="make git gcc libc6-dev meson ninja-build pkg-config clang llvm bpftool libbpf-dev libelf-dev zlib1g-dev libssl-dev
        libcurl4-openssl-dev libmicrohttpd-dev libgnutls28-dev libzstd-dev libxxhash-dev libsqlite3-dev libjansson-dev libxml2-dev
        libcap-dev libssh-dev libext2fs-dev libvirt-dev nbdkit nbdkit-plugin-dev libnbd-dev dpkg-dev fakeroot"
TEST="libcmocka-dev libclang-rt-14-dev clang-format clang-tidy python3 python3-pytest python3-pytest-xdist fio sqlite3
        e2fsprogs fdisk xfsprogs btrfs-progs dosfstools mtools shellcheck openssl curl iproute2 procps util-linux mount
        openssh-client openssh-server sudo radosgw ceph-osd ceph-mon postgresql mariadb-server-core mariadb-client-core"
DEMO="qemu-system-x86 qemu-utils seabios libnbd-bin busybox-static cpio kmod grub-common grub-pc-bin mmdebstrap
        xz-utils zstd ca-certificates xorriso ovmf"
FULL="libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base uidmap"
FILES="guestfish libguestfs-xfs"

# Azure's storage emulator is not in Debian: npm puts it into a folder of the tree, which git ignores.
AZURITE=azurite@3.35.0
AZURITE_FOLDER=$(dirname "$0")/../build-azurite
# Where another nodejs than Debian's brought its own npm, Debian's would take it away.
command -v npm >/dev/null || TEST="$TEST nodejs npm"

yes=${CI:-} full="" files="" list=""
while [ $# -gt 0 ]; do
        case $1 in
        --yes) yes=true ;;
        --full) full=yes ;;
        --files) files=yes ;;
        --list) list=yes ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
        esac
        shift
done

die()
{
        printf 'deps: %s\n' "$*" >&2
        exit 1
}

installed()
{
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# missing PACKAGE...: those that are not installed, on one line.
missing()
{
        local package text=""

        for package; do installed "$package" || text="$text $package"; done
        printf '%s' "${text# }"
}

check_system()
{
        local name

        # shellcheck disable=SC1091
        name=$(. /etc/os-release && printf '%s' "$PRETTY_NAME")
        # shellcheck disable=SC1091
        if ! (. /etc/os-release && [ "$ID" = debian ] && [ "${VERSION_ID:-}" = 12 ]); then
                die "this is $name; Lifeboat is built on Debian 12 (bookworm). On another system install what" \
                        "'scripts/deps.sh --list' names under that system's names, and run 'ninja' yourself"
        fi
}

tell()
{
        [ -z "$2" ] || printf '  to %-22s %s\n' "$1:" "$2"
}

ask()
{
        local answer

        [ "$yes" != true ] || return 0
        if [ ! -t 0 ] || [ ! -t 1 ]; then
                die "nobody to ask here: run 'make deps YES=1' to install them"
        fi
        read -r -p "Install them from Debian now? [Y/n] " answer
        case $answer in
        ''|y|Y|yes) ;;
        *) die "nothing was installed" ;;
        esac
}

azurite()
{
        local try

        [ ! -d "$AZURITE_FOLDER/node_modules/azurite" ] || return 0
        printf 'deps: fetching %s with npm, for the tests of Azure Blob stores\n' "$AZURITE"
        mkdir -p "$AZURITE_FOLDER"
        for try in 1 2 3; do
                npm install --prefix "$AZURITE_FOLDER" --no-audit --no-fund --no-update-notifier --loglevel error \
                        --fetch-retries 5 --fetch-timeout 120000 "$AZURITE" && return 0
                sleep "$((10 * try))"
        done
        printf 'deps: without it the tests of Azure Blob stores are skipped\n' >&2
}

# shellcheck disable=SC2086
if [ -n "$list" ]; then
        printf '%s\n' $BUILD $TEST $DEMO ${full:+$FULL} ${files:+$FILES}
        exit 0
fi
check_system
# shellcheck disable=SC2086
{
        build=$(missing $BUILD)
        test=$(missing $TEST)
        demo=$(missing $DEMO)
        more=$(missing ${full:+$FULL} ${files:+$FILES})
}
if [ -z "$build$test$demo$more" ]; then
        azurite
        printf 'deps: everything is installed\n'
        exit 0
fi
printf 'These Debian packages are missing\n'
tell 'build Lifeboat' "$build"
tell 'test it' "$test"
tell 'run the demo' "$demo"
tell 'do what was asked' "$more"
ask
# A mirror that is busy, a package manager that another process holds: both pass.
TRIES=5
as_root=()
if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "neither root nor sudo: become root and run 'scripts/deps.sh --yes'"
        as_root=(sudo)
fi
apt()
{
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -q -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 "$@"
}
install()
{
        # shellcheck disable=SC2086
        apt install -y --no-install-recommends $build $test $demo $more
}
# A new machine has no package lists; old ones may name what the mirror no longer has.
if [ -z "$(apt-cache show ninja-build 2>/dev/null)" ] || ! install; then
        for ((try = 1; ; try++)); do
                printf 'deps: fetching package lists\n'
                if apt update && install; then
                        break
                fi
                [ "$try" -lt "$TRIES" ] || die "apt could not install them in $TRIES tries: what it says stands above"
                printf 'deps: that failed; once more in %s s\n' "$((10 * try))" >&2
                sleep "$((10 * try))"
        done
fi
# shellcheck disable=SC2086
left=$(missing $BUILD $TEST $DEMO ${full:+$FULL} ${files:+$FILES})
[ -z "$left" ] || die "these are still missing: $left"
azurite
printf 'deps: everything is installed\n'
