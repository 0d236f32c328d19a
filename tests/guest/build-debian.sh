#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds a whole Debian 12 server as a bootable disk: systemd, Debian's kernel
# with its own initramfs, PostgreSQL with a pgbench database. Without root it
# needs uidmap and user namespaces.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$here/../../scripts/apt-host.sh"

usage()
{
        cat <<'END'
usage: build-debian.sh [options] OUT.img
  --deb PATH              a package to install, with what it depends on from Debian
  --package NAME          one of Debian's packages, with what it depends on
  --file SRC:DEST[:MODE]  a file
  --hostname NAME         (debian)
  --kernel-append TEXT    words for the kernel's command line
  --size-mib N            the disk's size (2048); only what is used takes room
  --scale N               pgbench's scale (4: about 60 MiB)
  --control               lets a test run commands in the guest (TCP port 7001)
The root without the packages of --deb is cached for a week in LIFEBOAT_CACHE (~/.cache/lifeboat).
PostgreSQL listens on 10.0.2.15:5432 and trusts QEMU's user network; the database is 'lifeboat', its user 'postgres'.
`systemctl start pgbench` in the guest puts it under load. 'lifeboat-guest: up' on the serial line: the database answers.
END
}

BASE_PACKAGES="linux-image-cloud-amd64 initramfs-tools systemd systemd-sysv udev dbus kmod e2fsprogs iproute2 procps
        ca-certificates zstd postgresql-15 busybox-static"
# PostgreSQL's compiler, a fifth of the whole root; it is switched off below.
UNUSED=(--dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/libLLVM*' --dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/libz3*'
        --dpkgopt='path-exclude=/usr/lib/postgresql/15/lib/bitcode/*')
ROOT_CACHE_AGE_MIN_MAX=$((7 * 24 * 60))
CONTROL_PORT=7001

debs=() files=() packages=()
hostname=debian append="" size_mib=2048 scale=4 control="" out=""

parse_arguments()
{
        while [ $# -gt 0 ]; do
                case $1 in
                --help) usage; exit 0 ;;
                --control) control=yes; shift; continue ;;
                --*) [ $# -ge 2 ] || guest_die "$1 needs a value; see --help" ;;
                esac
                case $1 in
                --deb) debs+=("$2") ;;
                --package) packages+=("$2") ;;
                --file) files+=("$2") ;;
                --hostname) hostname=$2 ;;
                --kernel-append) append=$2 ;;
                --size-mib) size_mib=$2 ;;
                --scale) scale=$2 ;;
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

# What the given packages depend on, so that the cached root has it already.
deb_dependencies()
{
        local deb

        [ ${#packages[@]} -eq 0 ] || printf '%s\n' "${packages[@]}" | sort -u
        for deb in "${debs[@]}"; do
                [ -f "$deb" ] || guest_die "--deb: there is no $deb"
                { dpkg-deb -f "$deb" Pre-Depends; dpkg-deb -f "$deb" Depends; } |
                        tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:any//; s/ //g' | grep -v '^$' || true
        done | sort -u | while read -r name; do
                # A package of ours that depends on another of ours.
                printf '%s\n' "${own_names[@]}" | grep -qxF "$name" || printf '%s\n' "$name"
        done
}

# What mmdebstrap runs in the finished root ($1): a database with something in it.
# shellcheck disable=SC2016
PREPARE_DATABASE='
set -e
chroot "$1" pg_conftool 15 main set listen_addresses "*"
chroot "$1" pg_conftool 15 main set jit off
printf "host all all 10.0.2.0/24 trust\nlocal all all trust\n" >"$1/etc/postgresql/15/main/pg_hba.conf"
chroot "$1" pg_ctlcluster 15 main start
chroot "$1" runuser -u postgres -- createdb lifeboat
chroot "$1" runuser -u postgres -- /usr/lib/postgresql/15/bin/pgbench -q -i -s "$SCALE" lifeboat 2>/dev/null
chroot "$1" runuser -u postgres -- psql -q lifeboat -c "CREATE TABLE entry(n bigint PRIMARY KEY, amount bigint NOT NULL)" \
        -c "CREATE TABLE total(id int PRIMARY KEY CHECK (id = 1), entries bigint NOT NULL, amount bigint NOT NULL)" \
        -c "INSERT INTO total VALUES(1, 0, 0)" -c "CREATE EXTENSION amcheck"
chroot "$1" pg_ctlcluster 15 main stop
'

make_base()
{
        local tar=$1 try option apt_options=() mirror=()

        guest_say "making a Debian root in $tar"
        while read -r option; do
                [ -z "$option" ] || apt_options+=("--aptopt=${option%;}")
        done < <(host_apt_options)
        host_debian_sources >"$work/sources.list"
        [ ! -s "$work/sources.list" ] || mirror=("$work/sources.list")
        apt_options+=('--aptopt=Acquire::Retries "5"')
        for try in 1 2 3; do
                if make_base_once; then
                        mv "$tar.new" "$tar"
                        find "$cache" -maxdepth 1 -name 'debian-12-*.tar*' -mmin "+$ROOT_CACHE_AGE_MIN_MAX" -delete
                        return 0
                fi
                guest_say "mmdebstrap failed ($try of 3): $(tail -n 1 "$work/mmdebstrap.log")"
                sleep "$((10 * try))"
        done
        tail -n 30 "$work/mmdebstrap.log" >&2
        guest_die "mmdebstrap could not make the root; 'apt-get update' may help"
}

# With make_base's variables. A mirror that is busy just then is tried again.
make_base_once()
{
        rm -f "$tar.new"
        # shellcheck disable=SC2086
        SCALE=$scale mmdebstrap --quiet --variant=minbase --format=tar "${apt_options[@]}" \
                --include="$(printf '%s,' $BASE_PACKAGES $dependencies | sed 's/,$//')" \
                --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
                --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
                "${UNUSED[@]}" \
                --customize-hook="$PREPARE_DATABASE" \
                bookworm "$tar.new" "${mirror[@]}" >"$work/mmdebstrap.log" 2>&1
}

base_root()
{
        local key tar

        key=$(printf '%s\n' "$dependencies" "$BASE_PACKAGES" "${UNUSED[*]}" "$scale" "$PREPARE_DATABASE" | sha256sum | cut -c 1-16)
        tar=$cache/debian-12-$key.tar
        [ -n "$(find "$tar" -mmin "-$ROOT_CACHE_AGE_MIN_MAX" 2>/dev/null)" ] || make_base "$tar"
        # Device nodes are the kernel's to make, at boot.
        tar -C "$tree" -xpf "$tar" --exclude='./dev/*' --numeric-owner --xattrs --xattrs-include='*'
}

install_debs()
{
        local deb

        [ ${#debs[@]} -gt 0 ] || return 0
        mkdir "$tree/debs"
        for deb in "${debs[@]}"; do cp "$deb" "$tree/debs/"; done
        printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
        chmod 755 "$tree/usr/sbin/policy-rc.d"
        # Expanded by the inner shells.
        # shellcheck disable=SC2016
        DEBIAN_FRONTEND=noninteractive unshare --mount --propagation private sh -ec '
                mount --rbind /dev "$1/dev"
                mount --rbind /proc "$1/proc"
                chroot "$1" sh -c "dpkg -i /debs/*.deb"' install "$tree" >"$work/dpkg.log" 2>&1 || {
                cat "$work/dpkg.log" >&2
                guest_die "the package did not install"
        }
        rm -rf "$tree/debs" "$tree/usr/sbin/policy-rc.d"
}

unit()
{
        cat >"$tree/etc/systemd/system/$1.service"
        [ -z "${2:-}" ] || ln -sf "../$1.service" "$tree/etc/systemd/system/$2.wants/$1.service"
}

configure()
{
        local source dest mode entry timer

        printf '%s\n' "$hostname" >"$tree/etc/hostname"
        printf '127.0.0.1 localhost %s\n10.0.2.2 host\n' "$hostname" >"$tree/etc/hosts"
        printf 'nameserver 10.0.2.3\n' >"$tree/etc/resolv.conf"
        printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$uuid" >"$tree/etc/fstab"
        # A server that has been running for a while: no first-boot work.
        printf '%s\n' "${key:0:32}" >"$tree/etc/machine-id"
        touch "$tree/etc/.updated" "$tree/var/.updated"
        printf '[Match]\nName=en* eth*\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\n' \
                >"$tree/etc/systemd/network/50-lifeboat.network"
        mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
        ln -sf /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
        # Work that a freshly started server would do on its own, and that TCG takes minutes for.
        for timer in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
                     systemd-networkd-wait-online.service e2scrub_reap.service; do
                ln -sf /dev/null "$tree/etc/systemd/system/$timer"
        done
        for entry in "${files[@]}"; do
                IFS=: read -r source dest mode <<<"$entry"
                mkdir -p "$(dirname "$tree/$dest")"
                cp -L --remove-destination --preserve=mode "$source" "$tree/$dest"
                [ -z "$mode" ] || chmod "$mode" "$tree/$dest"
        done
}

put_units()
{
        unit lifeboat-guest-up multi-user.target <<'END'
[Unit]
Description=Tell the serial line that the server serves
After=postgresql@15-main.service systemd-networkd.service
Wants=postgresql@15-main.service

[Service]
Type=oneshot
User=postgres
ExecStart=/usr/bin/psql -q -o /dev/null -c "SELECT 1" lifeboat
ExecStart=+/bin/sh -c 'echo "lifeboat-guest: up" >/dev/ttyS0'
END
        unit pgbench <<'END'
[Unit]
Description=pgbench against the lifeboat database
After=postgresql@15-main.service

[Service]
User=postgres
ExecStart=/usr/lib/postgresql/15/bin/pgbench -c 2 -T 86400 -P 10 lifeboat
END
        [ -n "$control" ] || return 0
        mkdir -p "$tree/usr/lib/lifeboat-guest/www/cgi-bin"
        cp "$here/root/control.cgi" "$tree/usr/lib/lifeboat-guest/www/cgi-bin/control"
        unit lifeboat-guest-control multi-user.target <<END
[Unit]
Description=Run what a test asks for

[Service]
ExecStart=/bin/busybox httpd -f -p $CONTROL_PORT -h /usr/lib/lifeboat-guest/www
END
}

build()
{
        base_root
        install_debs
        configure
        put_units
        mkdir -p "$tree/boot/grub"
        guest_grub_cfg "$uuid" /vmlinuz /initrd.img "ro console=ttyS0 panic=-1 quiet $GUEST_KERNEL_WORDS $append" >"$tree/boot/grub/grub.cfg"
        guest_make_image "$out.new" "$tree" "$size_mib" "$uuid" debian "$work"
        mv "$out.new" "$out"
        stat -c "$key %s %y" "$out" >"$out.stamp"
}

inputs_key()
{
        {
                printf '%s\n' "$@"
                cat "$here/build-debian.sh" "$here/lib.sh" "$here/root/control.cgi"
                [ ${#debs[@]} -eq 0 ] || sha256sum "${debs[@]}"
                for entry in "${files[@]}"; do sha256sum "${entry%%:*}"; done
        } | sha256sum | cut -d ' ' -f 1
}

parse_arguments "$@"
guest_need mmdebstrap mke2fs grub-mkimage dpkg-deb
cache=$(guest_cache_dir)
if [ "$(id -u)" -ne 0 ]; then
        guest_need newuidmap newgidmap
        # A namespace where this user is root and the subordinate ids are everybody else.
        LIFEBOAT_CACHE=$cache exec unshare --user --map-root-user --map-auto --mount --pid --fork --mount-proc "$0" "$@"
fi
key=$(inputs_key "$@")
if [ -e "$out.stamp" ] && [ "$(stat -c "$key %s %y" "$out" 2>/dev/null)" = "$(cat "$out.stamp")" ]; then
        guest_say "$out is up to date"
        exit 0
fi
own_names=("")
for deb in "${debs[@]}"; do own_names+=("$(dpkg-deb -f "$deb" Package)"); done
dependencies=$(deb_dependencies)
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$(readlink -f "$out")")/.build-debian.XXXXXX")
trap 'rm -rf "$work" "$out.new"' EXIT
tree=$work/tree
mkdir "$tree"
uuid=$(guest_uuid "$key")
build
guest_say "$out: $size_mib MiB, $(du -m "$out" | cut -f 1) MiB used"
