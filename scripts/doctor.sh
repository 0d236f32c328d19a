#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Says what works on this machine and what doesn't, what each thing is needed
# for, and the cure. Tries things rather than reading versions; changes nothing
# and leaves nothing behind. Exit code 0: `make demo` can run here; 1: it can't.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin

MEMORY_MIB_MIN=1536
DISK_MIB_MIN=4096
# A stock kernel under a working KVM gives up its root after a second or two;
# under one that hangs it never does.
PROBE_S_MAX=20

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=""
[ "$(id -u)" -ne 0 ] || root=yes
demo_runs=yes
unseen=0

# works WHAT FOUND
works()
{
        printf '%-8s %-18s %s\n' ok "$1" "$2"
}

# line missing|unseen WHAT NEEDED-FOR FOUND CURE
line()
{
        printf '%-8s %-18s %s\n' "$1" "$2" "$4"
        printf '%27s needed for %s\n%27s cure: %s\n' '' "$3" '' "$5"
        [ "$1" != unseen ] || unseen=$((unseen + 1))
}

# The same, for what `make demo` cannot do without.
vital()
{
        demo_runs=""
        line "$@"
}

check_system()
{
        local name left

        # shellcheck disable=SC1091
        name=$(. /etc/os-release && printf '%s' "$PRETTY_NAME")
        # shellcheck disable=SC1091
        if (. /etc/os-release && [ "$ID" = debian ] && [ "${VERSION_ID:-}" = 12 ]); then
                works system "$name, $(uname -m), kernel $(uname -r), $(nproc) processors"
        else
                line missing system "building and testing" "$name is not Debian 12" \
                        "use Debian 12 (bookworm); 'scripts/deps.sh --list' names what is needed elsewhere"
        fi
        left=$(for p in $(scripts/deps.sh --list); do
                [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf ' %s' "$p"
        done)
        if [ -z "$left" ]; then
                works packages "all of 'make deps' are installed"
        else
                vital missing packages "building, testing, the demo" "not installed:$left" "make deps"
        fi
}

check_btf()
{
        local btf=/sys/kernel/btf/vmlinux

        if [ ! -r $btf ]; then
                line missing BTF "capture on this machine" "$btf is not there" \
                        "a kernel with CONFIG_DEBUG_INFO_BTF (every Debian kernel from 11 on)"
        elif grep -q btf_trace_block_rq_issue $btf; then
                works BTF "the kernel describes block_rq_issue"
        else
                line missing BTF "capture on this machine" "the kernel has no block_rq_issue tracepoint" \
                        "a kernel with CONFIG_BLOCK and CONFIG_TRACEPOINTS"
        fi
}

# A program of the kind that capture uses, really given to the kernel.
check_bpf()
{
        local pin=/sys/fs/bpf/lifeboat-doctor-$$

        if [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ]; then
                works bpffs "/sys/fs/bpf is mounted"
        else
                line missing bpffs "pinned capture, which survives the agent's restart" "/sys/fs/bpf is not a bpf file system" \
                        "mount -t bpf bpf /sys/fs/bpf"
                return 0
        fi
        if [ -z "$root" ]; then
                line unseen BPF "capture on this machine" "only root may load programs" "sudo make doctor"
                return 0
        fi
        if ! command -v clang >/dev/null || ! command -v bpftool >/dev/null; then
                line unseen BPF "capture on this machine" "clang or bpftool is missing" "make deps"
                return 0
        fi
        cat >"$work/probe.c" <<'END'
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "Dual BSD/GPL";
SEC("tp_btf/block_rq_issue") int probe(void *ctx)
{
	return 0;
}
END
        if clang -target bpf -g -O2 -I"/usr/include/$(gcc -print-multiarch)" -c "$work/probe.c" -o "$work/probe.o" 2>"$work/log" &&
           bpftool prog load "$work/probe.o" "$pin" >>"$work/log" 2>&1; then
                works BPF "the kernel takes a tp_btf program"
        else
                line missing BPF "capture on this machine" "refused: $(tail -n 1 "$work/log")" \
                        "CONFIG_BPF_SYSCALL, no kernel lockdown, and CAP_BPF for whoever asks"
        fi
        rm -f "$pin"
}

check_loop()
{
        local device

        if [ -z "$root" ]; then
                line unseen "loop devices" "the crash-consistency tests" "only root may attach them" "sudo make doctor"
                return 0
        fi
        truncate -s 1M "$work/loop"
        if device=$(losetup --find --show "$work/loop" 2>"$work/log"); then
                losetup -d "$device"
                works "loop devices" "a file can be attached"
        else
                line missing "loop devices" "the crash-consistency tests" "$(cat "$work/log")" "modprobe loop"
        fi
}

# 440 bytes of boot sector that tell QEMU to exit with 33: mov $0x10,%al;
# out %al,$0xf4; hlt; jmp to the hlt.
put_boot_sector()
{
        printf '\260\020\346\364\364\353\375' >"$work/boot"
        truncate -s 510 "$work/boot"
        printf '\125\252' >>"$work/boot"
}

# boots ACCEL: whether the boot sector ran.
boots()
{
        local code=0

        timeout -k 2 "$PROBE_S_MAX" qemu-system-x86_64 -accel "$1" -cpu max -m 64 -nodefaults -display none \
                -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=1 -drive "file=$work/boot,format=raw,if=ide" \
                >"$work/log" 2>&1 </dev/null || code=$?
        [ "$code" = 33 ]
}

# A stock kernel without any root: when it gets as far as to complain, it runs.
kernel_boots()
{
        timeout -k 2 "$PROBE_S_MAX" qemu-system-x86_64 -accel "$1" -cpu max -m 256 -smp 2 -nodefaults -display none \
                -no-reboot -serial "file:$work/serial" -kernel "$2" -append "console=ttyS0 panic=-1" \
                >"$work/log" 2>&1 </dev/null || true
        grep -q 'Unable to mount root fs' "$work/serial"
}

check_qemu()
{
        local kernel cache=${LIFEBOAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat}

        if ! command -v qemu-system-x86_64 >/dev/null; then
                vital missing QEMU "failover, the demo, the guest tests" "qemu-system-x86_64 is missing" "make deps"
                return 0
        fi
        put_boot_sector
        if boots tcg; then
                works TCG "QEMU boots without KVM (slow, works everywhere)"
        else
                vital missing TCG "failover, the demo, the guest tests" "QEMU does not boot: $(tail -n 1 "$work/log")" \
                        "reinstall qemu-system-x86 and seabios"
        fi
        kernel=$(find "$cache/kernel/current/boot" -name 'vmlinuz-*' 2>/dev/null | head -n 1 || true)
        if [ ! -e /dev/kvm ]; then
                line missing KVM "failover at full speed" "there is no /dev/kvm; TCG is used" \
                        "switch on virtualisation in the firmware, or nested virtualisation in the hypervisor"
        elif [ ! -w /dev/kvm ]; then
                line unseen KVM "failover at full speed" "you may not use /dev/kvm; TCG is used" "adduser $(id -un) kvm"
        elif ! boots kvm; then
                line missing KVM "failover at full speed" "/dev/kvm is there and nothing boots on it; TCG is used" \
                        "none here: the hypervisor below must offer working nested virtualisation"
        elif [ -z "$kernel" ]; then
                line unseen KVM "failover at full speed" \
                        "a boot sector runs; whether a kernel does is not known until one is cached" \
                        "tests/guest/build-guest.sh $work/guest.img, then make doctor"
        elif kernel_boots kvm "$kernel"; then
                works KVM "a Debian kernel boots on it"
        else
                line missing KVM "failover at full speed" "a boot sector runs on it, a Debian kernel hangs; TCG is used" \
                        "none here: the hypervisor below must offer working nested virtualisation"
        fi
}

check_libvirt()
{
        local version uri=qemu:///system

        if ! command -v virsh >/dev/null; then
                line missing libvirt "make demo-full; without it QEMU is started directly" "not installed" "make deps-full"
        elif version=$(timeout 20 virsh -q -c "$uri" version 2>"$work/log"); then
                works libvirt "answers at $uri ($(sed -n 's/^Using library: //p' <<<"$version"))"
        elif [ -z "$root" ]; then
                line unseen libvirt "make demo-full; without it QEMU is started directly" \
                        "no answer at $uri to this user" "adduser $(id -un) libvirt, or start libvirtd"
        else
                line missing libvirt "make demo-full; without it QEMU is started directly" \
                        "no answer at $uri: $(tail -n 1 "$work/log")" "virtlogd -d; libvirtd -d (or systemctl start libvirtd)"
        fi
}

check_port()
{
        if ! command -v ss >/dev/null; then
                line unseen "port $1" "$2" "ss is missing" "make deps"
        elif [ -n "$(ss -Hltn "sport = :$1")" ]; then
                line missing "port $1" "$2" "another program listens there" "stop it, or choose another port in $3"
        else
                works "port $1" "free"
        fi
}

check_room()
{
        local memory_mib disk_mib

        memory_mib=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
        disk_mib=$(df -m --output=avail . | tail -n 1 | tr -d ' ')
        if [ "$memory_mib" -ge "$MEMORY_MIB_MIN" ]; then
                works memory "$memory_mib MiB available"
        else
                vital missing memory "the demo (a server and its double)" \
                        "$memory_mib MiB available, $MEMORY_MIB_MIN wanted" "stop something, or add memory"
        fi
        if [ "$disk_mib" -ge "$DISK_MIB_MIN" ]; then
                works "disk room" "$disk_mib MiB free here"
        else
                vital missing "disk room" "building, the demo" "$disk_mib MiB free here, $DISK_MIB_MIN wanted" "make room"
        fi
}

check_system
check_btf
check_bpf
check_loop
check_qemu
check_libvirt
check_port 443 "the configuration server" "config.conf"
check_port 9443 "the process server" "config.conf"
check_room
[ "$unseen" -eq 0 ] || [ -n "$root" ] || printf '\n%d could not be seen as %s; run it as root to see all.\n' "$unseen" "$(id -un)"
if [ -z "$demo_runs" ]; then
        printf '\nmake demo cannot run here yet: see what is missing above.\n'
        exit 1
fi
printf '\nmake demo can run here.\n'
