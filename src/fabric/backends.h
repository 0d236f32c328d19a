/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The fabrics that fabric.c chooses from, and what they share. */
#include "base/buf.h"
#include "fabric/fabric.h"
#include "fabric/proc.h"

int lb_fabric_qemu(struct lb_env *env, struct lb_fabric **ret_fabric);
/* -EOPNOTSUPP: not built with it, or no libvirtd answers. */
int lb_fabric_libvirt(struct lb_env *env, struct lb_fabric **ret_fabric);

#define LB_QEMU_PROGRAM "qemu-system-x86_64"

/* <folder>/<name>; free it. NULL when memory is out. */
char *lb_vm_path(const struct lb_vm_spec *vm, const char *name);
/* The chosen MAC address, or a locally administered one that follows from the VM's UUID. */
void lb_vm_mac(const struct lb_vm_spec *vm, char text[LB_MAC_TEXT_BYTES]);

/* Takes the guest's second serial port, on which a double shows what it was started from. */
#define LB_PROOF_FILE "proof.log"

/* UEFI: the code of the firmware, and a template of its variables. -EOPNOTSUPP says what to install. */
struct lb_firmware {
	const char *code, *variables;
};
int lb_firmware_find(struct lb_firmware *ret_firmware);
/* Copies the template to <folder>/uefi-variables.fd unless it is there. */
int lb_firmware_variables_make(struct lb_env *env, const struct lb_vm_spec *vm, const struct lb_firmware *firmware);
#define LB_FIRMWARE_VARIABLES "uefi-variables.fd"

/* "user,id=net0,...": user-mode networking with the VM's forwards. */
int lb_vm_netdev(const struct lb_vm_spec *vm, struct lb_buf *out);

/* A command line being made. Its own copies; freed whole. */
#define LB_ARGV_MAX 1024
struct lb_argv {
	char *argv[LB_ARGV_MAX + 1];
	unsigned int n;
	int error; /* the first failure; checked once at the end */
};
void lb_argv_add(struct lb_argv *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lb_argv_clear(struct lb_argv *a);                               /* for _cleanup_() */
void lb_argv_add_accelerator(struct lb_env *env, struct lb_argv *a); /* KVM where it works, and the processor */

/* The command line of a VM for QEMU without libvirt. `tap_fd`: inherited, its network; -1: user-mode. -E2BIG,
 * -EOPNOTSUPP, -ENOMEM. */
int lb_qemu_argv(struct lb_env *env, const struct lb_vm_spec *vm, int tap_fd, struct lb_argv *argv);

/* fsync of an image that a VM uses. */
int lb_overlay_sync(struct lb_env *env, const char *path);

/* Whether an image rests on another file, by qemu-img, also while a VM uses it. */
int lb_overlay_rests(struct lb_env *env, const char *path, bool *ret_rests);
