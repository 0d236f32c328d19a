#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds a small bootable disk with Debian's own kernel, without root, KVM or
# mounting anything: the protected server of the demo and of the tests.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/lib.sh"

usage()
{
        cat <<'END'
usage: build-guest.sh [options] OUT.img
  --program PATH[:DEST]     a program of this machine and its libraries (DEST: /usr/bin/NAME)
  --file SRC:DEST[:MODE]    a file or a folder
  --service NAME=COMMAND    a line of shell, started at boot and again whenever it ends
  --boot COMMAND            a line of shell, run once at boot before the services
  --fstab LINE              a line for /etc/fstab (other disks: 'LABEL=data /data ext4 defaults 0 0')
  --module NAME             a kernel module for modprobe, beside those always there
  --load NAME               the same, loaded at boot
  --user NAME:UID           a user and group of the guest
  --hostname NAME           (guest)
  --kernel-append TEXT      words for the kernel's command line
  --size-mib N              the disk's size (320); only what is used takes room
  --no-virtio               an initramfs without virtio, as of a physical server: it loads what its devices ask for
  --control                 lets a test run commands in the guest (TCP port 7001)
  --data-disk OUT:MIB:LABEL makes one more image: an empty ext4 over the whole disk
An image whose inputs have not changed, and which nobody has written to, is kept as it is.
LIFEBOAT_CACHE names the cache of kernels (default: ~/.cache/lifeboat).
END
}

# What can sit between the kernel and its root disk or its network.
INITRAMFS_MODULES="virtio_pci virtio_blk virtio_scsi sd_mod virtio_net virtio_console virtio_rng"
IDE_MODULES="sd_mod ata_piix"
ROOT_MODULES="loop dm_mod dm_snapshot nbd scsi_debug tun xfs btrfs vfat overlay md_mod raid1 raid0 qemu_fw_cfg sr_mod isofs"
CONTROL_PORT=7001

programs=() files=() services=() boots=() fstab=() modules=() loads=() users=() data_disks=()
hostname=guest append="" size_mib=320 control="" no_virtio="" out=""

parse_arguments()
{
        while [ $# -gt 0 ]; do
                case $1 in
                --help) usage; exit 0 ;;
                --control) control=yes; shift; continue ;;
                --no-virtio) no_virtio=yes; shift; continue ;;
                --*) [ $# -ge 2 ] || guest_die "$1 needs a value; see --help" ;;
                esac
                case $1 in
                --program) programs+=("$2") ;;
                --file) files+=("$2") ;;
                --service) services+=("$2") ;;
                --boot) boots+=("$2") ;;
                --fstab) fstab+=("$2") ;;
                --module) modules+=("$2") ;;
                --load) loads+=("$2"); modules+=("$2") ;;
                --user) users+=("$2") ;;
                --data-disk) data_disks+=("$2") ;;
                --hostname) hostname=$2 ;;
                --kernel-append) append=$2 ;;
                --size-mib) size_mib=$2 ;;
                -*) guest_die "unknown option $1; see --help" ;;
                *)
                        [ -z "$out" ] || guest_die "two images named: $out and $1; see --help"
                        out=$1
                        shift
                        continue ;;
                esac
                shift 2
        done
        [ -n "$out" ] || { usage >&2; exit 2; }
}

# The libraries of a program, and the loader that starts it.
program_libraries()
{
        local listing

        listing=$(ldd "$1" 2>/dev/null) || return 0     # static
        if grep -q 'not found' <<<"$listing"; then
                guest_die "$1 misses a library here: $(grep 'not found' <<<"$listing" | head -n 1)"
        fi
        sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' <<<"$listing"
}

# A digest of everything that goes into the image.
inputs_key()
{
        local entry

        {
                printf '%s\n' "$@"
                basename "$kernel"
                cat "$here/build-guest.sh" "$here/lib.sh" "$here"/root/*
                sha256sum /bin/busybox /usr/lib/grub/i386-pc/boot.img /usr/lib/grub/i386-pc/kernel.img
                for entry in "${programs[@]}"; do
                        sha256sum "${entry%%:*}"
                        program_libraries "${entry%%:*}" | xargs -r sha256sum
                done
                for entry in "${files[@]}"; do
                        find -L "${entry%%:*}" -type f -printf '%p %m\n' -exec sha256sum {} + | sort
                done
        } | sha256sum | cut -d ' ' -f 1
}

image_stamp()
{
        stat -c "$key %s %Y %y" "$out" 2>/dev/null
}

make_skeleton()
{
        local dir applet

        for dir in dev proc sys run tmp mnt root etc/lifeboat-guest/services.d var/lib var/log \
                   boot/grub usr/bin usr/sbin usr/lib usr/lib64 usr/local/bin usr/local/sbin usr/share; do
                mkdir -p "$tree/$dir"
        done
        chmod 1777 "$tree/tmp"
        chmod 700 "$tree/root"
        for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$tree/$dir"; done
        ln -s /run "$tree/var/run"
        cp /bin/busybox "$tree/usr/bin/busybox"
        for applet in $(/bin/busybox --list); do
                case $applet in
                busybox) ;;
                init|insmod|rmmod|modprobe|depmod|lsmod|mount|umount|switch_root|reboot|poweroff|halt|ip|losetup|fsfreeze|blockdev)
                        ln -s ../bin/busybox "$tree/usr/sbin/$applet" ;;
                *) ln -s busybox "$tree/usr/bin/$applet" ;;
                esac
        done
}

# put_file SRC DEST [MODE]: never through a link that is there already.
put_file()
{
        mkdir -p "$tree/$(dirname "$2")"
        if [ -d "$1" ]; then
                mkdir -p "$tree/$2"
                cp -rL --preserve=mode "$1/." "$tree/$2/"
        else
                cp -L --remove-destination --preserve=mode "$1" "$tree/$2"
        fi
        [ -z "${3:-}" ] || chmod "$3" "$tree/$2"
}

put_program()
{
        local path=${1%%:*} dest=${1#*:} library

        [ "$dest" != "$1" ] || dest=/usr/bin/$(basename "$path")
        [ -f "$path" ] || guest_die "--program: there is no $path"
        put_file "$path" "$dest" 755
        program_libraries "$path" | while read -r library; do
                [ -e "$tree/$library" ] || put_file "$library" "$library" 755
        done
}

put_modules()
{
        local file base=$kernel/lib/modules/$release

        mkdir -p "$tree/usr/lib/modules/$release"
        # shellcheck disable=SC2086
        for file in $(guest_module_files "$kernel" "$release" $ROOT_MODULES $INITRAMFS_MODULES "${modules[@]}"); do
                mkdir -p "$(dirname "$tree/usr/lib/modules/$release/${file#"$base"/}")"
                cp "$file" "$tree/usr/lib/modules/$release/${file#"$base"/}"
        done
        cp "$base"/modules.builtin "$base"/modules.builtin.modinfo "$base"/modules.order "$tree/usr/lib/modules/$release/"
        PATH=$PATH:/usr/sbin:/sbin depmod -b "$tree" "$release"
}

put_configuration()
{
        local entry name

        printf '%s\n' "$hostname" >"$tree/etc/hostname"
        printf '127.0.0.1 localhost %s\n10.0.2.2 host\n' "$hostname" >"$tree/etc/hosts"
        printf 'nameserver 10.0.2.3\n' >"$tree/etc/resolv.conf"
        printf 'UUID=%s / ext4 rw 0 1\n' "$uuid" >"$tree/etc/fstab"
        for entry in "${fstab[@]}"; do
                printf '%s\n' "$entry" >>"$tree/etc/fstab"
                mkdir -p "$tree/$(awk '{ print $2 }' <<<"$entry")"
        done
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' >"$tree/etc/passwd"
        printf 'root:x:0:\nnogroup:x:65534:\n' >"$tree/etc/group"
        for entry in "${users[@]}"; do
                printf '%s:x:%s:%s::/nonexistent:/bin/false\n' "${entry%%:*}" "${entry##*:}" "${entry##*:}" >>"$tree/etc/passwd"
                printf '%s:x:%s:\n' "${entry%%:*}" "${entry##*:}" >>"$tree/etc/group"
        done
        printf 'NAME="Lifeboat test guest"\nID=lifeboat-guest\n' >"$tree/etc/os-release"
        : >"$tree/etc/lifeboat-guest/modules"
        for entry in "${loads[@]}"; do printf '%s\n' "$entry"; done >>"$tree/etc/lifeboat-guest/modules"
        if [ ${#boots[@]} -gt 0 ]; then
                { printf '#!/bin/sh\n'; printf '%s\n' "${boots[@]}"; } >"$tree/etc/lifeboat-guest/boot"
                chmod 755 "$tree/etc/lifeboat-guest/boot"
        fi
        for entry in "${services[@]}"; do
                name=${entry%%=*}
                [ "$name" != "$entry" ] || guest_die "--service wants NAME=COMMAND and not '$entry'"
                printf '%s\n' "${entry#*=}" >"$tree/etc/lifeboat-guest/services.d/$name.sh"
        done
}

put_init()
{
        local service

        put_file "$here/root/rcS" /usr/lib/lifeboat-guest/rcS 755
        put_file "$here/root/run-service" /usr/lib/lifeboat-guest/run-service 755
        if [ -n "$control" ]; then
                put_file "$here/root/control.cgi" /usr/lib/lifeboat-guest/www/cgi-bin/control 755
                printf 'exec httpd -f -p %s -h /usr/lib/lifeboat-guest/www\n' "$CONTROL_PORT" \
                        >"$tree/etc/lifeboat-guest/services.d/control.sh"
        fi
        {
                printf '::sysinit:/usr/lib/lifeboat-guest/rcS\n'
                for service in "$tree"/etc/lifeboat-guest/services.d/*.sh; do
                        [ -e "$service" ] || continue
                        service=$(basename "$service" .sh)
                        printf '::respawn:/usr/lib/lifeboat-guest/run-service %s\n' "$service"
                done
                printf '::ctrlaltdel:/sbin/poweroff\n::shutdown:/bin/sync\n::shutdown:/sbin/umount -a -r\n'
        } >"$tree/etc/inittab"
}

make_initramfs()
{
        local dir=$work/initramfs file drivers=$INITRAMFS_MODULES

        mkdir -p "$dir/bin" "$dir/modules"
        cp /bin/busybox "$dir/bin/busybox"
        cp "$here/root/initramfs-init" "$dir/init"
        chmod 755 "$dir/init"
        [ -z "$no_virtio" ] || drivers=$IDE_MODULES
        # shellcheck disable=SC2086
        for file in $(guest_module_files "$kernel" "$release" $drivers); do
                cp "$file" "$dir/modules/"
                printf '/modules/%s\n' "$(basename "$file")" >>"$dir/modules.order"
        done
        # as of today's distributions: /lib is a link
        if [ -n "$no_virtio" ]; then
                mkdir -p "$dir/usr/lib/modules/$release"
                ln -s usr/lib "$dir/lib"
                : >"$dir/coldplug"
        fi
        find "$dir" -exec touch -h -d @0 {} +
        (cd "$dir" && find . -print0 | LC_ALL=C sort -z | cpio --quiet --null --create --format=newc --reproducible) \
                >"$tree/boot/initrd.img"
}

make_data_disk()
{
        local path mib label

        IFS=: read -r path mib label <<<"$1"
        rm -f "$path"
        truncate -s "${mib}M" "$path"
        PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -L "$label" -U "$(guest_uuid "$key $label")" \
                -E root_owner=0:0 "$path"
}

build()
{
        local entry source dest mode

        make_skeleton
        for entry in "${files[@]}"; do
                IFS=: read -r source dest mode <<<"$entry"
                [ -e "$source" ] || guest_die "--file: there is no $source"
                put_file "$source" "$dest" "$mode"
        done
        for entry in "${programs[@]}"; do put_program "$entry"; done
        put_modules
        put_configuration
        put_init
        cp "$kernel/boot/vmlinuz-$release" "$tree/boot/vmlinuz"
        make_initramfs
        guest_grub_cfg "$uuid" /boot/vmlinuz /boot/initrd.img \
                "rw console=ttyS0 panic=-1 loglevel=4 net.ifnames=0 $GUEST_KERNEL_WORDS $append" >"$tree/boot/grub/grub.cfg"
        find "$tree" -exec touch -h -d @0 {} +
        guest_make_image "$out.new" "$tree" "$size_mib" "$uuid" lifeboat-guest "$work"
        for entry in "${data_disks[@]}"; do make_data_disk "$entry"; done
        mv "$out.new" "$out"
        image_stamp >"$out.stamp"
}

data_disks_there()
{
        local entry

        for entry in "${data_disks[@]}"; do [ -e "${entry%%:*}" ] || return 1; done
}

parse_arguments "$@"
guest_need busybox mke2fs grub-mkimage cpio modprobe depmod dpkg-deb apt-get ldd
cache=$(guest_cache_dir)
kernel=$(guest_kernel "$cache")
if [ "$(id -u)" -ne 0 ] && [ -z "${FAKEROOTKEY:-}" ]; then
        # What the image holds must belong to root.
        guest_need fakeroot
        exec fakeroot -- "$0" "$@"
fi
release=$(cat "$kernel/release")
key=$(inputs_key "$@")
if [ -e "$out.stamp" ] && [ "$(image_stamp)" = "$(cat "$out.stamp")" ] && data_disks_there; then
        guest_say "$out is up to date"
        exit 0
fi
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.build-guest.XXXXXX")
trap 'rm -rf "$work" "$out.new"' EXIT
tree=$work/tree
uuid=$(guest_uuid "$key")
build
guest_say "$out: $size_mib MiB, $(du -m "$out" | cut -f 1) MiB used, kernel $release"
