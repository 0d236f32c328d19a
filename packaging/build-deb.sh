#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds lifeboat-mobility (agent and capture helper) and lifeboat (servers, command, NBD plugin) as Debian packages from a
# finished build folder: packaging/build-deb.sh BUILD [OUT]. Needs dpkg-deb; with dpkg-shlibdeps (dpkg-dev) the
# dependencies are found from the programs, otherwise those of Debian 12 are written down.
set -euo pipefail

usage() {
	echo "usage: packaging/build-deb.sh BUILD [OUT]" >&2
	exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
build=$(cd "$1" && pwd)
out=${2:-$build/deb}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

arch=$(dpkg --print-architecture)
version=$(sed -n "s/^  version: '\(.*\)',$/\1/p" "$root/meson.build" | head -n 1)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}

need() {
	[ -e "$1" ] || { echo "build-deb: $1 is missing; build it first: ninja -C $build" >&2; exit 1; }
}

program() { # SOURCE DESTINATION
	need "$1"
	install -D -m 0755 "$1" "$2"
	strip --strip-unneeded "$2" 2>/dev/null || true
}

plain() {
	need "$1"
	install -D -m 0644 "$1" "$2"
}

fallback_depends() {
	case $1 in
	lifeboat-mobility) echo "libbpf1, libcap2, libcurl4, libjansson4, libssl3, libxxhash0, libzstd1, libgnutls30, libmicrohttpd12" ;;
	lifeboat) echo "libcurl4, libext2fs2, libjansson4, libssl3, libxxhash0, libzstd1, libgnutls30, libmicrohttpd12, libsqlite3-0, libssh-4, libxml2, libnbd0" ;;
	esac
}

depends() { # PACKAGE
	local tree=$work/$1 programs found
	mapfile -t programs < <(find "$tree" -type f -perm -u+x ! -path "*/DEBIAN/*" ! -name '*.sh')
	programs+=($(find "$tree" -name '*.so'))
	if command -v dpkg-shlibdeps >/dev/null; then
		mkdir -p "$work/shlibs/debian"
		printf 'Source: lifeboat\n\nPackage: %s\nArchitecture: any\n' "$1" >"$work/shlibs/debian/control"
		found=$(cd "$work/shlibs" && dpkg-shlibdeps -O "${programs[@]}" 2>/dev/null | sed -n 's/^shlibs:Depends=//p') || true
	fi
	echo "${found:-$(fallback_depends "$1")}"
}

control() { # PACKAGE SUMMARY MORE-DEPENDS RECOMMENDS DESCRIPTION
	local tree=$work/$1 size
	size=$(du -sk "$tree" | cut -f 1)
	mkdir -p "$tree/DEBIAN"
	{
		echo "Package: $1"
		echo "Version: $version"
		echo "Architecture: $arch"
		echo "Maintainer: The Lifeboat project <lifeboat@localhost>"
		echo "Section: admin"
		echo "Priority: optional"
		echo "Installed-Size: $size"
		echo "Depends: $(depends "$1")${3:+, $3}"
		[ -z "$4" ] || echo "Recommends: $4"
		echo "Description: $2"
		echo " $5"
	} >"$tree/DEBIAN/control"
	for script in postinst prerm postrm; do
		[ ! -e "$here/debian/$1.$script" ] || install -m 0755 "$here/debian/$1.$script" "$tree/DEBIAN/$script"
	done
	find "$tree" -exec touch -h -d "@$epoch" {} +
	SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group --build "$tree" "$out/$1_${version}_${arch}.deb" >/dev/null
	echo "$out/$1_${version}_${arch}.deb"
}

documents() { # PACKAGE
	plain "$root/LICENSE" "$work/$1/usr/share/doc/$1/copyright"
	[ ! -e "$root/docs/operations.md" ] || plain "$root/docs/operations.md" "$work/$1/usr/share/doc/$1/operations.md"
}

mobility() {
	local tree=$work/lifeboat-mobility
	program "$build/src/mobility/lifeboat-mobility" "$tree/usr/sbin/lifeboat-mobility"
	program "$build/src/capture/lifeboat-capture" "$tree/usr/libexec/lifeboat/lifeboat-capture"
	plain "$here/systemd/lifeboat-mobility.service" "$tree/lib/systemd/system/lifeboat-mobility.service"
	plain "$here/systemd/lifeboat-capture.service" "$tree/lib/systemd/system/lifeboat-capture.service"
	plain "$here/systemd/lifeboat-mend.service" "$tree/lib/systemd/system/lifeboat-mend.service"
	plain "$here/systemd/lifeboat-mend.path" "$tree/lib/systemd/system/lifeboat-mend.path"
	for script in "$here"/scripts.d/*.example; do
		name=$(basename "$script" .example)
		plain "$script" "$tree/usr/share/doc/lifeboat-mobility/examples/scripts.d/$name"
	done
	documents lifeboat-mobility
	control lifeboat-mobility "protects a running server: the agent" "passwd" "" \
		"Captures every write of the machine's disks and keeps a bootable double of it a few seconds behind, in a vault that you own."
}

servers() {
	local tree=$work/lifeboat plugins file
	plugins=$(pkg-config --variable=plugindir nbdkit 2>/dev/null || echo "/usr/lib/$(uname -m)-linux-gnu/nbdkit/plugins")
	program "$build/src/cli/lifeboat" "$tree/usr/bin/lifeboat"
	program "$build/src/config/lifeboat-config" "$tree/usr/sbin/lifeboat-config"
	program "$build/src/process/lifeboat-process" "$tree/usr/sbin/lifeboat-process"
	program "$build/src/fabric/lifeboat-segment" "$tree/usr/sbin/lifeboat-segment"
	program "$build/src/target/lifeboat-target" "$tree/usr/sbin/lifeboat-target"
	plain "$build/src/nbd/nbdkit-lifeboat-plugin.so" "$tree$plugins/nbdkit-lifeboat-plugin.so"
	plain "$here/systemd/lifeboat-config.service" "$tree/lib/systemd/system/lifeboat-config.service"
	plain "$here/systemd/lifeboat-process.service" "$tree/lib/systemd/system/lifeboat-process.service"
	plain "$here/systemd/lifeboat-target.service" "$tree/lib/systemd/system/lifeboat-target.service"
	for file in lifeboat-rescue-build init boot-hook udhcpc.script; do
		install -D -m 0755 "$here/rescue/$file" "$tree/usr/lib/lifeboat/rescue/$file"
	done
	install -D -m 0755 "$here/mender/init" "$tree/usr/lib/lifeboat/mender/init"
	plain "$out/lifeboat-mobility_${version}_${arch}.deb" "$tree/usr/share/lifeboat/lifeboat-mobility.deb"
	documents lifeboat
	control lifeboat "site recovery for servers: configuration, process and target servers" "passwd, nbdkit" \
		"qemu-system-x86, qemu-utils, libvirt-daemon-system, xorriso, mtools, grub-common, grub-pc-bin, busybox-static, cpio, zstd, kmod" \
		"Keeps the vault, the registry and the jobs of a site, and starts the double of a machine that was lost."
}

mobility
servers
