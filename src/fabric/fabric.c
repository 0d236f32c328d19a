/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/fabric.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/backends.h"

#define LONGEST_SOCKET_NAME "nbd63.sock"
#define USER_BASE 0x0a000200u /* 10.0.2.0: guests are told to find this host at .2 */
#define USER_PREFIX 24        /* where none is said */
#define USER_PREFIX_MAX 28
#define SEGMENT_BASE 0x0a400000u /* 10.64.0.0 */
#define SEGMENT_PREFIX_BITS 10
#define SEGMENT_FIRST 16u
#define VARIABLES_BYTES_MAX (64u << 20)

void lb_vm_spec_clear(struct lb_vm_spec *vm)
{
	free(vm->folder);
	for (uint32_t i = 0; i < LB_VM_DISKS_MAX; i++) {
		free(vm->disks[i].path);
		free(vm->disks[i].nbd_socket);
	}
	for (size_t i = 0; i < LB_ARRAY_LEN(vm->oem_strings); i++)
		free(vm->oem_strings[i]);
	*vm = (struct lb_vm_spec){0};
}

const char *lb_vm_state_name(enum lb_vm_state state)
{
	static const char *const names[] = {
		[LB_VM_ABSENT] = "absent",   [LB_VM_STOPPED] = "stopped", [LB_VM_STARTING] = "starting",
		[LB_VM_RUNNING] = "running", [LB_VM_PAUSED] = "paused",   [LB_VM_UNKNOWN] = "unknown",
	};

	return names[state];
}

int lb_fabric_open(struct lb_env *env, const char *name, struct lb_fabric **ret_fabric)
{
	int r;

	if (strcmp(name, "qemu") == 0)
		return lb_fabric_qemu(env, ret_fabric);
	if (strcmp(name, "libvirt") == 0)
		return lb_fabric_libvirt(env, ret_fabric);
	if (strcmp(name, "auto") != 0)
		return lb_fail(-EINVAL, "there is no fabric \"%.40s\", but: auto, libvirt, qemu", name);
	r = lb_fabric_libvirt(env, ret_fabric);
	if (r == -EOPNOTSUPP) {
		lb_err_clear();
		r = lb_fabric_qemu(env, ret_fabric);
	}
	return r;
}

void lb_fabric_free(struct lb_fabric *f)
{
	f->ops->free(f);
}

int lb_vm_folder_check(const char *vm_folder, const char *name)
{
	struct sockaddr_un address;
	int r;

	r = lb_name_check("VM", name);
	if (r < 0)
		return r;
	if (vm_folder[0] != '/')
		return lb_fail(-EINVAL, "the folder for VMs must be a full path, not \"%.200s\"", vm_folder);
	for (const char *p = vm_folder; *p != '\0'; p++)
		if (iscntrl((unsigned char)*p) || strchr(",\\\"'<>&", *p) != NULL)
			return lb_fail(-EINVAL,
				       "the folder for VMs must not have commas, quotes or control characters in its "
				       "path: \"%.200s\"",
				       vm_folder);
	if (strlen(vm_folder) + strlen(name) + strlen("//" LONGEST_SOCKET_NAME) >= sizeof(address.sun_path))
		return lb_fail(-ENAMETOOLONG,
			       "%s/%s is too long a path for sockets (%zu characters at most); choose a shorter "
			       "folder for VMs",
			       vm_folder, name, sizeof(address.sun_path) - strlen("/" LONGEST_SOCKET_NAME) - 1);
	return 0;
}

char *lb_vm_path(const struct lb_vm_spec *vm, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", vm->folder, name) < 0 ? NULL : path;
}

void lb_vm_mac(const struct lb_vm_spec *vm, char text[LB_MAC_TEXT_BYTES])
{
	const uint8_t *u = vm->uuid.bytes;

	/* 52:54:00 is what QEMU and libvirt use */
	if (vm->mac[0] != '\0')
		memcpy(text, vm->mac, LB_MAC_TEXT_BYTES);
	else
		snprintf(text, LB_MAC_TEXT_BYTES, "52:54:00:%02x:%02x:%02x", u[0], u[1], u[2]);
}

int lb_firmware_find(struct lb_firmware *ret_firmware)
{
	static const struct lb_firmware known[] = {
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
	};

	for (size_t i = 0; i < LB_ARRAY_LEN(known); i++) {
		if (access(known[i].code, R_OK) == 0 && access(known[i].variables, R_OK) == 0) {
			*ret_firmware = known[i];
			return 0;
		}
	}
	return lb_fail(-EOPNOTSUPP,
		       "this machine boots by UEFI and this host has no UEFI firmware for VMs; install ovmf");
}

int lb_firmware_variables_make(struct lb_env *env, const struct lb_vm_spec *vm, const struct lb_firmware *firmware)
{
	_cleanup_free_ char *path = lb_vm_path(vm, LB_FIRMWARE_VARIABLES);
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	int r;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (access(path, F_OK) == 0)
		return 0;
	r = lb_file_read(env, firmware->variables, VARIABLES_BYTES_MAX, &data, &size_bytes);
	return r < 0 ? r : lb_file_write(env, path, data, size_bytes, 0600);
}

static char *address_text(uint32_t address, char text[INET_ADDRSTRLEN])
{
	const struct in_addr in = {.s_addr = htonl(address)};

	inet_ntop(AF_INET, &in, text, INET_ADDRSTRLEN);
	return text;
}

/* User-mode networking in the range of the VM's address, which its DHCP gives to the guest. */
static int put_user_address(const struct lb_vm_spec *vm, bool segment, struct lb_buf *out, char guest[INET_ADDRSTRLEN])
{
	char net[INET_ADDRSTRLEN], host[INET_ADDRSTRLEN], dns[INET_ADDRSTRLEN];
	uint32_t address, prefix, base, own;
	int r;

	guest[0] = '\0';
	if (vm->address[0] == '\0' && !segment)
		return 0;
	/* on a segment each guest gets another one */
	address = SEGMENT_BASE + SEGMENT_FIRST + ((uint32_t)vm->uuid.bytes[0] << 12 | (uint32_t)vm->uuid.bytes[1] << 4);
	prefix = SEGMENT_PREFIX_BITS;
	r = vm->address[0] != '\0' ? lb_address_read(vm->address, &address, &prefix) : 0;
	if (r < 0)
		return r;
	/* it needs room for two addresses of its own; the usual one of a gateway first */
	prefix = prefix == 0 || prefix > USER_PREFIX_MAX ? USER_PREFIX : prefix;
	base = address & ~(UINT32_MAX >> prefix);
	own = base + (base == USER_BASE || address == base + 1 ? 2 : 1);
	own += own == address;
	return lb_buf_printf(out, ",net=%s/%u,host=%s,dns=%s,dhcpstart=%s", address_text(base, net), prefix,
			     address_text(own, host), address_text(own + 1 + (address == own + 1), dns),
			     address_text(address, guest));
}

int lb_vm_netdev(const struct lb_vm_spec *vm, struct lb_buf *out)
{
	bool segment = lb_network_segment(vm->network) != NULL;
	char guest[INET_ADDRSTRLEN];
	int r;

	r = lb_buf_printf(out, "user,id=%s%s", segment ? "user,ipv6=off" : "net0", vm->isolated ? ",restrict=on" : "");
	r = r < 0 ? r : put_user_address(vm, segment, out, guest);
	for (uint32_t i = 0; r == 0 && i < vm->n_forwards; i++)
		r = lb_buf_printf(out, ",hostfwd=tcp:%s:%u-%s:%u", vm->forwards[i].address, vm->forwards[i].host_port,
				  guest, vm->forwards[i].guest_port);
	return r < 0 ? lb_fail(r, "the network of VM %s can't be described", vm->name) : 0;
}

void lb_argv_add(struct lb_argv *a, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (a->error != 0)
		return;
	if (a->n == LB_ARGV_MAX) {
		a->error = -E2BIG;
		return;
	}
	va_start(ap, fmt);
	n = vasprintf(&a->argv[a->n], fmt, ap);
	va_end(ap);
	if (n < 0) {
		a->argv[a->n] = NULL;
		a->error = -ENOMEM;
		return;
	}
	a->argv[++a->n] = NULL;
}

void lb_argv_clear(struct lb_argv *a)
{
	for (unsigned int i = 0; i < a->n; i++)
		free(a->argv[i]);
	*a = (struct lb_argv){0};
}

int lb_overlay_sync(struct lb_env *env, const char *path)
{
	int fd = env->ops->open(env, path, O_RDONLY, 0), r;

	if (fd < 0)
		return lb_fail(fd, "can't open %s: %s", path, strerror(-fd));
	r = env->ops->fsync(env, fd);
	env->ops->close(env, fd);
	return r < 0 ? lb_fail(r, "can't make %s durable: %s", path, strerror(-r)) : 0;
}

int lb_overlay_rests(struct lb_env *env, const char *path, bool *ret_rests)
{
	const char *argv[] = {"qemu-img", "info", "-U", "--output=json", path, NULL};
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_PROC_OUTPUT_BYTES_MAX);
	_cleanup_json_ json_t *info = NULL;
	int r;

	r = lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = 60}, &out);
	if (r == 0)
		r = lb_json_parse(out.data, out.size_bytes, LB_PROC_OUTPUT_BYTES_MAX, &info);
	if (r < 0)
		return lb_wrap(r, "can't look at %s", path);
	*ret_rests = json_object_get(info, "backing-filename") != NULL;
	return 0;
}
