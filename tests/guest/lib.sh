# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What build-guest.sh and build-debian.sh share: Debian's kernel, the boot
# loader, the disk image. Sourced by bash; nothing here needs root.

GUEST_ARCH=amd64
# The partition begins at 1 MiB, as every partitioning tool of today aligns it;
# the boot loader's core image lives in the gap before it.
PART_START_SECTORS=2048
# A cached kernel younger than this is used without asking apt: 7 days.
KERNEL_CACHE_AGE_MIN_MAX=$((7 * 24 * 60))

# Under TCG every mitigation is pure cost (page table isolation flushes all
# translations at each system call), and nobody in a test guest is to be kept out.
# shellcheck disable=SC2034
GUEST_KERNEL_WORDS="mitigations=off"

guest_say()
{
        printf '%s: %s\n' "${0##*/}" "$*" >&2
}

guest_die()
{
        guest_say "$*"
        exit 1
}

guest_cache_dir()
{
        local dir=${LIFEBOAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat}

        mkdir -p "$dir" || guest_die "cannot make the cache directory $dir; set LIFEBOAT_CACHE to a writable one"
        printf '%s\n' "$dir"
}

guest_need()
{
        local tool missing=""

        for tool; do
                PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing="$missing $tool"
        done
        [ -z "$missing" ] || guest_die "these tools are missing:$missing; run 'make deps'"
}

# apt with package lists of our own below the cache: for a user who is not root
# on a machine whose lists are empty or older than the mirror.
guest_apt_private()
{
        local state=$1
        shift
        apt-get -q -o Acquire::Retries=5 \
                -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" \
                -o Debug::NoLocking=1 "$@"
}

guest_kernel_package()
{
        local -a options=()

        [ -z "${1:-}" ] || options=(-o "Dir::State::Lists=$1/lists" -o "Dir::Cache=$1/cache")
        apt-cache "${options[@]}" depends --important "linux-image-cloud-$GUEST_ARCH" 2>/dev/null |
                sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

# guest_fetch_kernel_deb DIR: leaves Debian's current cloud kernel package in DIR.
guest_fetch_kernel_deb()
{
        local dir=$1 state package

        package=$(guest_kernel_package)
        if [ -n "$package" ] && (cd "$dir" && apt-get -q -o Acquire::Retries=5 download "$package") >"$dir/apt.log" 2>&1; then
                return 0
        fi
        state=$dir/apt
        mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
        guest_apt_private "$state" update >>"$dir/apt.log" 2>&1 || true
        package=$(guest_kernel_package "$state")
        if [ -z "$package" ]; then
                cat "$dir/apt.log" >&2
                guest_die "apt knows no linux-image-cloud-$GUEST_ARCH; check /etc/apt/sources.list and the network"
        fi
        if ! (cd "$dir" && guest_apt_private "$state" download "$package") >>"$dir/apt.log" 2>&1; then
                cat "$dir/apt.log" >&2
                guest_die "could not download $package; run 'apt-get update' and try again"
        fi
}

# Prints the directory of an extracted kernel package: boot/ and lib/modules/. Of several at once one fetches it.
guest_kernel()
{
        mkdir -p "$1/kernel"
        (
                flock 9
                guest_kernel_locked "$1" 9>&-
        ) 9>"$1/kernel/.lock"
}

guest_kernel_locked()
{
        local cache=$1 current=$1/kernel/current tmp deb release

        if [ -e "$current/.complete" ] &&
           [ -n "$(find "$current/.complete" -mmin "-$KERNEL_CACHE_AGE_MIN_MAX")" ]; then
                readlink -f "$current"
                return 0
        fi
        tmp=$(mktemp -d "$cache/kernel/.new.XXXXXX")
        guest_say "fetching Debian's cloud kernel into $cache/kernel"
        guest_fetch_kernel_deb "$tmp"
        deb=$(find "$tmp" -maxdepth 1 -name 'linux-image-*.deb' | head -n 1)
        mkdir "$tmp/tree"
        dpkg-deb -x "$deb" "$tmp/tree"
        release=$(ls "$tmp/tree/lib/modules")
        PATH=$PATH:/usr/sbin:/sbin depmod -b "$tmp/tree" "$release"
        printf '%s\n' "$release" >"$tmp/tree/release"
        : >"$tmp/tree/.complete"
        rm -rf "$cache/kernel/$release.old"
        [ ! -e "$cache/kernel/$release" ] || mv "$cache/kernel/$release" "$cache/kernel/$release.old"
        mv "$tmp/tree" "$cache/kernel/$release"
        ln -sfn "$release" "$current"
        rm -rf "$tmp" "$cache/kernel/$release.old"
        readlink -f "$current"
}

# guest_module_files KERNEL RELEASE NAME...: the modules' files, each after what
# it depends on, without repeats; one that is built in gives nothing.
guest_module_files()
{
        local kernel=$1 release=$2 name out
        shift 2

        for name; do
                out=$(PATH=$PATH:/usr/sbin:/sbin modprobe -d "$kernel" -S "$release" --show-depends "$name" 2>&1) ||
                        guest_die "kernel $release has no module $name: $out"
                printf '%s\n' "$out" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
        done | awk '!seen[$0]++'
}

# A UUID made from a text, so that the same inputs give the same image.
guest_uuid()
{
        printf '%s' "$1" | sha256sum |
                sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)\(.\{12\}\).*/\1-\2-4\3-8\4-\5/'
}

# guest_put_mbr IMAGE IMAGE_SECTORS SIGNATURE: one bootable Linux partition from 1 MiB to
# the end, and a disk signature. Only the table is written: GRUB fills the rest.
guest_put_mbr()
{
        local image=$1 sectors=$2 signature=$3 count

        count=$((sectors - PART_START_SECTORS))
        {
                guest_unhex "$signature"                    # 440: disk signature
                printf '\0\0'                               # 444: not copy-protected
                printf '\200\376\377\377\203\376\377\377'   # bootable, CHS unused, type 83
                guest_le32 "$PART_START_SECTORS"
                guest_le32 "$count"
                head -c 48 /dev/zero
                printf '\125\252'
        } | dd of="$image" bs=1 seek=440 conv=notrunc status=none
}

guest_unhex()
{
        local i

        for ((i = 0; i < ${#1}; i += 2)); do printf '%b' "\\x${1:i:2}"; done
}

guest_le32()
{
        local v=$1

        printf '%b' "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' \
                $((v & 255)) $((v >> 8 & 255)) $((v >> 16 & 255)) $((v >> 24 & 255)))"
}

# guest_put_grub IMAGE ROOT_UUID WORKDIR: makes the disk boot by itself from a
# BIOS. boot.img's first 440 bytes are code; the partition table after them
# stays. core.img begins in sector 1, where boot.img looks unpatched.
guest_put_grub()
{
        local image=$1 root_uuid=$2 work=$3 dir=/usr/lib/grub/i386-pc size

        [ -e "$dir/boot.img" ] || guest_die "$dir/boot.img is missing: install grub-pc-bin ('make deps')"
        # Braces of grub's own language, expanded by grub and not by the shell.
        # shellcheck disable=SC2016
        printf '%s\n' \
                "search.fs_uuid $root_uuid root" \
                'set prefix=($root)/boot/grub' \
                'configfile $prefix/grub.cfg' >"$work/embedded.cfg"
        grub-mkimage -O i386-pc -d "$dir" -o "$work/core.img" -c "$work/embedded.cfg" -p /boot/grub \
                biosdisk part_msdos ext2 search search_fs_uuid normal configfile linux serial terminal \
                echo test sleep reboot halt
        size=$(stat -c %s "$work/core.img")
        [ "$size" -le $(((PART_START_SECTORS - 1) * 512)) ] ||
                guest_die "GRUB's core image of $size bytes does not fit before the partition"
        dd if="$dir/boot.img" of="$image" bs=440 count=1 conv=notrunc status=none
        dd if="$work/core.img" of="$image" bs=512 seek=1 conv=notrunc status=none
}

# guest_grub_cfg ROOT_UUID LINUX INITRD APPEND
guest_grub_cfg()
{
        printf '%s\n' \
                'serial --unit=0 --speed=115200' \
                'terminal_input serial' \
                'terminal_output serial' \
                "linux $2 root=UUID=$1 $4" \
                "initrd $3" \
                'boot'
}

# guest_make_image OUT TREE SIZE_MIB ROOT_UUID LABEL WORKDIR: a sparse raw disk
# with TREE as its only file system. Run it under fakeroot (or as root), so
# that what it holds belongs to root.
guest_make_image()
{
        local out=$1 tree=$2 size_mib=$3 uuid=$4 label=$5 work=$6 sectors blocks

        sectors=$((size_mib * 2048))
        blocks=$(((sectors - PART_START_SECTORS) / 8))
        rm -f "$out"
        truncate -s "${size_mib}M" "$out"
        # GRUB 2.06 cannot read a file system with metadata_csum_seed or
        # orphan_file, which later e2fsprogs turn on by themselves.
        E2FSPROGS_FAKE_TIME=1 PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -b 4096 -m 1 \
                -O '^metadata_csum_seed,^orphan_file' \
                -U "$uuid" -L "$label" -d "$tree" \
                -E "offset=$((PART_START_SECTORS * 512)),hash_seed=$uuid,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" \
                "$out" "$blocks" 2>"$work/mke2fs.log" ||
                guest_die "mke2fs could not fill $out ($size_mib MiB): $(cat "$work/mke2fs.log"); give a larger --size-mib"
        guest_put_mbr "$out" "$sectors" "${uuid:0:8}"
        guest_put_grub "$out" "$uuid" "$work"
}
