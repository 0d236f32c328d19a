/* SPDX-License-Identifier: Apache-2.0 */
/* A VM as a domain of libvirt. Paths and names have been checked to hold nothing that XML would take for its own. */
#include "fabric/libvirt_xml.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/accel.h"
#include "fabric/backends.h"
#include "fabric/serve.h"
#include "wire/told.h"

/* A slot of the root bus that libvirt, counting from below, does not reach. */
#define NETWORK_SLOT "0x1b"

struct xml {
	struct lb_buf *out;
	int error;
};

static void put(struct xml *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct xml *x, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;
	int n;

	if (x->error != 0)
		return;
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	x->error = n < 0 ? -ENOMEM : lb_buf_append(x->out, text, (size_t)n);
}

void lb_libvirt_target(const struct lb_vm_spec *vm, uint32_t n, char target[LB_TARGET_BYTES])
{
	const char *prefix = vm->bus == LB_VM_VIRTIO_BLK ? "vd" : "sd";

	if (n < 26)
		snprintf(target, LB_TARGET_BYTES, "%s%c", prefix, 'a' + (int)n);
	else
		snprintf(target, LB_TARGET_BYTES, "%s%c%c", prefix, 'a' + (int)(n / 26 - 1), 'a' + (int)(n % 26));
}

static void put_head(struct xml *x, struct lb_env *env, const struct lb_vm_spec *vm)
{
	char uuid[LB_UUID_TEXT_BYTES];
	const char *why;
	bool kvm = lb_kvm_works(env, &why);

	lb_uuid_format(&vm->uuid, uuid);
	put(x, "<domain type='%s' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>", kvm ? "kvm" : "qemu");
	put(x, "<name>%s</name><uuid>%s</uuid>", vm->name, uuid);
	put(x, "<metadata><vm xmlns='" LB_LIBVIRT_NAMESPACE "' folder='%s'/></metadata>", vm->folder);
	put(x, "<memory unit='b'>%" PRIu64 "</memory><vcpu>%u</vcpu>", vm->memory_bytes, vm->cpus);
	put(x, "<sysinfo type='smbios'><oemStrings>");
	for (uint32_t i = 0; i < vm->n_oem_strings; i++)
		put(x, "<entry>%s</entry>", vm->oem_strings[i]);
	put(x, "</oemStrings></sysinfo>");
	if (vm->told)
		put(x, "<sysinfo type='fwcfg'><entry name='" LB_TOLD_FWCFG "' file='%s/" LB_TOLD_FILE "'/></sysinfo>",
		    vm->folder);
	put(x, "<features><acpi/><apic/></features>");
	put(x, "%s<clock offset='utc'/>",
	    kvm ? "<cpu mode='host-passthrough'/>"
		: "<cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>");
	put(x, "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>");
}

static int put_firmware(struct xml *x, const struct lb_vm_spec *vm)
{
	struct lb_firmware firmware;
	int r;

	put(x, "<os><type arch='x86_64' machine='q35'>hvm</type>");
	if (strcmp(vm->firmware, "uefi") == 0) {
		r = lb_firmware_find(&firmware);
		if (r < 0)
			return r;
		put(x, "<loader readonly='yes' type='pflash'>%s</loader><nvram>%s/" LB_FIRMWARE_VARIABLES "</nvram>",
		    firmware.code, vm->folder);
	}
	put(x, "<smbios mode='sysinfo'/></os>");
	return 0;
}

static int put_disk(struct xml *x, struct lb_env *env, const struct lb_vm_spec *vm, uint32_t n)
{
	static const char *const buses[] = {"virtio", "scsi", "sata"};
	const struct lb_vm_disk *disk = &vm->disks[n];
	char target[LB_TARGET_BYTES];
	bool rests;
	int r;

	r = lb_overlay_rests(env, disk->path, &rests);
	if (r < 0)
		return r;
	lb_libvirt_target(vm, n, target);
	/* A disk that can't be read pauses the double rather than telling its file system so: the vault may come back.
	 */
	put(x,
	    "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap' error_policy='stop' "
	    "rerror_policy='stop'/><source file='%s'/>",
	    disk->path);
	if (rests)
		put(x,
		    "<backingStore type='network'><format type='raw'/><source protocol='nbd'><host transport='unix' "
		    "socket='%s'/><reconnect delay='%d'/></source><backingStore/></backingStore>",
		    disk->nbd_socket, LB_SERVE_RECONNECT_S);
	else
		put(x, "<backingStore/>");
	put(x, "<target dev='%s' bus='%s'/>", target, buses[vm->bus]);
	if (disk->serial[0] != '\0')
		put(x, "<serial>%s</serial>", disk->serial);
	put(x, "%s</disk>", disk->boot ? "<boot order='1'/>" : "");
	return 0;
}

static void put_argument(struct xml *x, const char *name, const char *value)
{
	put(x, "<qemu:arg value='%s'/><qemu:arg value='%s'/>", name, value);
}

/* libvirt has no words for forwards and for isolation of user-mode networking, nor for a hub (qemu_argv.c). */
static void put_own_network(struct xml *x, const struct lb_vm_spec *vm)
{
	static const char *const hub[] = {"hubport,id=hub-user,hubid=0,netdev=user",
					  "hubport,id=hub-segment,hubid=0,netdev=segment", "hubport,id=net0,hubid=0"};
	_cleanup_buf_ struct lb_buf netdev = LB_BUF(8192);
	bool segment = lb_network_segment(vm->network) != NULL;
	char mac[LB_MAC_TEXT_BYTES];

	x->error = x->error != 0 ? x->error : lb_vm_netdev(vm, &netdev);
	put(x, "<qemu:commandline>");
	put_argument(x, "-netdev", netdev.data != NULL ? (char *)netdev.data : "");
	if (segment)
		put(x,
		    "<qemu:arg value='-netdev'/><qemu:arg value='stream,id=segment,server=off,addr.type=unix,"
		    "addr.path=%s/" LB_LIBVIRT_SEGMENT_SOCKET "'/>",
		    vm->folder);
	for (size_t i = 0; segment && i < LB_ARRAY_LEN(hub); i++)
		put_argument(x, "-netdev", hub[i]);
	lb_vm_mac(vm, mac);
	put(x,
	    "<qemu:arg value='-device'/><qemu:arg value='%s,netdev=net0,mac=%s,bus=pcie.0,addr=" NETWORK_SLOT
	    "'/></qemu:commandline>",
	    vm->bus == LB_VM_SATA ? "e1000e" : "virtio-net-pci", mac);
}

/* Whether QEMU gets it by arguments of ours, and libvirt knows of no card. */
static bool has_own_network(const struct lb_vm_spec *vm)
{
	return vm->network[0] == '\0' || lb_network_segment(vm->network) != NULL;
}

static int put_devices(struct xml *x, struct lb_env *env, const struct lb_vm_spec *vm)
{
	const char *bridge = lb_network_bridge(vm->network);
	char mac[LB_MAC_TEXT_BYTES];
	int r = 0;

	put(x, "<devices><controller type='usb' model='none'/><memballoon model='none'/>");
	if (vm->bus == LB_VM_VIRTIO_SCSI)
		put(x, "<controller type='scsi' model='virtio-scsi'/>");
	for (uint32_t i = 0; r == 0 && i < vm->n_disks; i++)
		r = put_disk(x, env, vm, i);
	put(x, "<serial type='file'><source path='%s/console.log' append='on'/><target port='0'/></serial>",
	    vm->folder);
	put(x, "<serial type='file'><source path='%s/" LB_PROOF_FILE "' append='on'/><target port='1'/></serial>",
	    vm->folder);
	put(x, "<video><model type='vga'/></video><rng model='virtio'><backend "
	       "model='random'>/dev/urandom</backend></rng>");
	lb_vm_mac(vm, mac);
	if (!has_own_network(vm))
		put(x, "<interface type='%s'><source %s='%s'/><mac address='%s'/><model type='%s'/></interface>",
		    bridge != NULL ? "bridge" : "network", bridge != NULL ? "bridge" : "network",
		    bridge != NULL ? bridge : vm->network, mac, vm->bus == LB_VM_SATA ? "e1000e" : "virtio");
	put(x, "</devices>");
	return r;
}

int lb_libvirt_xml(struct lb_env *env, const struct lb_vm_spec *vm, bool apparmor, struct lb_buf *out)
{
	struct xml x = {.out = out};
	int r;

	put_head(&x, env, vm);
	r = put_firmware(&x, vm);
	r = r < 0 ? r : put_devices(&x, env, vm);
	if (r < 0)
		return r;
	/* QEMU runs as who we are, because overlays and sockets are ours and stay so */
	put(&x, "<seclabel type='static' model='dac' relabel='no'><label>+%u:+%u</label></seclabel>", getuid(),
	    getgid());
	/* libvirt's AppArmor profile knows files and no unix sockets of NBD */
	if (apparmor)
		put(&x, "<seclabel type='none' model='apparmor'/>");
	if (has_own_network(vm))
		put_own_network(&x, vm);
	put(&x, "</domain>");
	return x.error != 0 ? lb_fail(x.error, "the domain of VM %s can't be described", vm->name) : 0;
}
