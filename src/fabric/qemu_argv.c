/* SPDX-License-Identifier: Apache-2.0 */
/* A VM as a command line of QEMU. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "fabric/accel.h"
#include "fabric/backends.h"
#include "wire/told.h"

/* Slots of a q35's root bus that are left for disks; ports of its SATA controller. */
#define VIRTIO_BLK_DISKS_MAX 24
#define SATA_DISKS_MAX 6

void lb_argv_add_accelerator(struct lb_env *env, struct lb_argv *a)
{
	const char *why;
	bool kvm = lb_kvm_works(env, &why);

	lb_argv_add(a, "-accel");
	lb_argv_add(a, "%s", kvm ? "kvm" : "tcg,thread=multi");
	lb_argv_add(a, "-cpu");
	lb_argv_add(a, "%s", kvm ? "host" : "max,la57=off");
}

static void add_machine(struct lb_env *env, const struct lb_vm_spec *vm, struct lb_argv *a)
{
	char uuid[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&vm->uuid, uuid);
	lb_argv_add(a, "-name");
	lb_argv_add(a, "%s", vm->name);
	lb_argv_add(a, "-uuid");
	lb_argv_add(a, "%s", uuid);
	lb_argv_add(a, "-nodefaults");
	lb_argv_add(a, "-no-user-config");
	lb_argv_add(a, "-display");
	lb_argv_add(a, "none");
	lb_argv_add_accelerator(env, a);
	lb_argv_add(a, "-m");
	lb_argv_add(a, "%" PRIu64 "M", vm->memory_bytes >> 20);
	lb_argv_add(a, "-smp");
	lb_argv_add(a, "%u", vm->cpus);
	lb_argv_add(a, "-rtc");
	lb_argv_add(a, "base=utc");
	lb_argv_add(a, "-sandbox");
	lb_argv_add(a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	for (uint32_t i = 0; i < vm->n_oem_strings; i++) {
		lb_argv_add(a, "-smbios");
		lb_argv_add(a, "type=11,value=%s", vm->oem_strings[i]);
	}
	if (vm->told) {
		lb_argv_add(a, "-fw_cfg");
		lb_argv_add(a, "name=" LB_TOLD_FWCFG ",file=%s/" LB_TOLD_FILE, vm->folder);
	}
}

static int add_firmware(const struct lb_vm_spec *vm, struct lb_argv *a)
{
	struct lb_firmware firmware;
	int r;

	lb_argv_add(a, "-machine");
	if (strcmp(vm->firmware, "uefi") != 0) {
		lb_argv_add(a, "q35");
		return 0;
	}
	r = lb_firmware_find(&firmware);
	if (r < 0)
		return r;
	lb_argv_add(a, "q35,pflash0=uefi-code,pflash1=uefi-variables");
	lb_argv_add(a, "-blockdev");
	lb_argv_add(a, "driver=raw,node-name=uefi-code,read-only=on,file.driver=file,file.filename=%s", firmware.code);
	lb_argv_add(a, "-blockdev");
	lb_argv_add(a, "driver=raw,node-name=uefi-variables,file.driver=file,file.filename=%s/" LB_FIRMWARE_VARIABLES,
		    vm->folder);
	return 0;
}

static void add_disk(const struct lb_vm_spec *vm, uint32_t n, struct lb_argv *a)
{
	const struct lb_vm_disk *disk = &vm->disks[n];
	char boot[24] = "", serial[LB_VM_SERIAL_BYTES + 8] = "";

	if (disk->boot)
		snprintf(boot, sizeof(boot), ",bootindex=1");
	if (disk->serial[0] != '\0')
		snprintf(serial, sizeof(serial), ",serial=%s", disk->serial);
	lb_argv_add(a, "-blockdev");
	lb_argv_add(a,
		    "driver=qcow2,node-name=disk%u,discard=unmap,file.driver=file,file.discard=unmap,file.filename=%s",
		    n, disk->path);
	/* A disk that can't be read pauses the double rather than telling its file system so: the vault may come back.
	 */
	lb_argv_add(a, "-device");
	if (vm->bus == LB_VM_VIRTIO_BLK)
		lb_argv_add(a, "virtio-blk-pci,drive=disk%u,rerror=stop,werror=stop%s%s", n, boot, serial);
	else if (vm->bus == LB_VM_VIRTIO_SCSI)
		lb_argv_add(a, "scsi-hd,drive=disk%u,bus=scsi0.0,lun=%u,rerror=stop,werror=stop%s%s", n, n, boot,
			    serial);
	else
		lb_argv_add(a, "ide-hd,drive=disk%u,bus=ide.%u,rerror=stop,werror=stop%s%s", n, n, boot, serial);
}

static int add_disks(const struct lb_vm_spec *vm, struct lb_argv *a)
{
	uint32_t max = vm->bus == LB_VM_SATA         ? SATA_DISKS_MAX
		       : vm->bus == LB_VM_VIRTIO_BLK ? VIRTIO_BLK_DISKS_MAX
						     : LB_VM_DISKS_MAX;

	if (vm->n_disks > max)
		return lb_fail(-E2BIG, "VM %s has %u disks and this kind of controller takes %u; use --bus scsi",
			       vm->name, vm->n_disks, max);
	if (vm->bus == LB_VM_VIRTIO_SCSI) {
		lb_argv_add(a, "-device");
		lb_argv_add(a, "virtio-scsi-pci,id=scsi0");
	}
	for (uint32_t i = 0; i < vm->n_disks; i++)
		add_disk(vm, i, a);
	return 0;
}

/* The guest's card, the segment and its own user-mode networking (for forwards and DHCP) at one hub. */
static void add_hub(int tap_fd, struct lb_argv *a)
{
	lb_argv_add(a, "-netdev");
	lb_argv_add(a, "tap,id=segment,fd=%d", tap_fd);
	lb_argv_add(a, "-netdev");
	lb_argv_add(a, "hubport,id=hub-user,hubid=0,netdev=user");
	lb_argv_add(a, "-netdev");
	lb_argv_add(a, "hubport,id=hub-segment,hubid=0,netdev=segment");
	lb_argv_add(a, "-netdev");
	lb_argv_add(a, "hubport,id=net0,hubid=0");
}

static int add_network(const struct lb_vm_spec *vm, int tap_fd, struct lb_argv *a)
{
	_cleanup_buf_ struct lb_buf netdev = LB_BUF(8192);
	char mac[LB_MAC_TEXT_BYTES];
	int r;

	if (tap_fd >= 0 && lb_network_segment(vm->network) == NULL)
		r = lb_buf_printf(&netdev, "tap,id=net0,fd=%d", tap_fd);
	else
		r = lb_vm_netdev(vm, &netdev);
	if (r < 0)
		return r;
	lb_vm_mac(vm, mac);
	lb_argv_add(a, "-netdev");
	lb_argv_add(a, "%s", (char *)netdev.data);
	if (lb_network_segment(vm->network) != NULL)
		add_hub(tap_fd, a);
	lb_argv_add(a, "-device");
	lb_argv_add(a, "%s,netdev=net0,mac=%s", vm->bus == LB_VM_SATA ? "e1000e" : "virtio-net-pci", mac);
	return 0;
}

static void add_consoles(const struct lb_vm_spec *vm, struct lb_argv *a)
{
	lb_argv_add(a, "-chardev");
	lb_argv_add(a, "file,id=console,append=on,path=%s/console.log", vm->folder);
	lb_argv_add(a, "-serial");
	lb_argv_add(a, "chardev:console");
	lb_argv_add(a, "-chardev");
	lb_argv_add(a, "file,id=proof,append=on,path=%s/" LB_PROOF_FILE, vm->folder);
	lb_argv_add(a, "-serial");
	lb_argv_add(a, "chardev:proof");
	/* nobody looks at it, but boot loaders and kernels expect one */
	lb_argv_add(a, "-device");
	lb_argv_add(a, "VGA");
	lb_argv_add(a, "-device");
	lb_argv_add(a, "virtio-rng-pci");
	lb_argv_add(a, "-qmp");
	lb_argv_add(a, "unix:%s/qmp.sock,server=on,wait=off", vm->folder);
	lb_argv_add(a, "-pidfile");
	lb_argv_add(a, "%s/qemu.pid", vm->folder);
}

int lb_qemu_argv(struct lb_env *env, const struct lb_vm_spec *vm, int tap_fd, struct lb_argv *argv)
{
	int r;

	lb_argv_add(argv, LB_QEMU_PROGRAM);
	add_machine(env, vm, argv);
	r = add_firmware(vm, argv);
	if (r == 0)
		r = add_disks(vm, argv);
	if (r == 0)
		r = add_network(vm, tap_fd, argv);
	if (r < 0)
		return r;
	add_consoles(vm, argv);
	return argv->error != 0 ? lb_fail(argv->error, "the command line of VM %s can't be made", vm->name) : 0;
}
