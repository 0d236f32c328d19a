/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where virtual machines are made. A backend is a table of operations; each of them is idempotent, because an
 * orchestration that was killed begins its step again. A VM is known by its name and its folder; the backend keeps
 * nothing else of ours.
 *
 * A struct lb_fabric is used by one thread at a time; several of them may work on different VMs at once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/text.h"
#include "fabric/network.h"

#define LB_VM_NAME_BYTES 65
#define LB_VM_DISKS_MAX 64
#define LB_VM_FORWARDS_MAX 16
#define LB_VM_MEMORY_BYTES_MIN (64u << 20)
#define LB_VM_CPUS_MAX 256
#define LB_VM_SERIAL_BYTES 21 /* 20 characters is what virtio-blk tells the guest */

struct lb_vm_disk {
	char *path;                      /* the overlay, qcow2 */
	char *nbd_socket;                /* what it rests on; NULL once it stands by itself */
	char serial[LB_VM_SERIAL_BYTES]; /* may be empty */
	bool boot;
};

struct lb_vm_forward {
	char address[64]; /* of this host */
	uint16_t host_port;
	uint16_t guest_port;
};

/* A disk controller and network card that the guest's kernel can be expected to know. */
enum lb_vm_bus { LB_VM_VIRTIO_BLK, LB_VM_VIRTIO_SCSI, LB_VM_SATA };

struct lb_vm_spec {
	char name[LB_VM_NAME_BYTES];
	char *folder; /* holds everything of this VM */
	struct lb_uuid uuid;
	char firmware[8]; /* "bios" or "uefi" */
	uint64_t memory_bytes;
	uint32_t cpus;
	enum lb_vm_bus bus;
	uint32_t n_disks;
	struct lb_vm_disk disks[LB_VM_DISKS_MAX];
	bool isolated;                       /* the guest reaches nothing but answers to forwards */
	char network[LB_VM_NETWORK_BYTES];   /* as network.h says; empty: user-mode networking with `forwards` */
	char mac[LB_MAC_TEXT_BYTES];         /* of its card; empty: one that follows from the UUID */
	char address[LB_ADDRESS_TEXT_BYTES]; /* that it is to have, or has of itself; empty: not known */
	uint32_t n_forwards;
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
	uint32_t n_oem_strings; /* SMBIOS type 11: how a double learns what it is */
	char *oem_strings[4];
	bool told; /* <folder>/LB_TOLD_FILE reaches the guest through its firmware (wire/told.h) */
};
void lb_vm_spec_clear(struct lb_vm_spec *vm); /* for _cleanup_() */

enum lb_vm_state {
	LB_VM_ABSENT, /* the fabric knows no such VM, or it does not run and nothing of it is kept by the fabric */
	LB_VM_STOPPED,
	LB_VM_STARTING, /* there, not yet running its guest */
	LB_VM_RUNNING,
	LB_VM_PAUSED,  /* also by an error of its disks: it goes on after lb_fabric_ops.resume */
	LB_VM_UNKNOWN, /* in lists only: the fabric does not answer, and the VM may well run */
};
const char *lb_vm_state_name(enum lb_vm_state state);

/* How far a disk's blocks have been copied from what it rests on. */
struct lb_vm_pull {
	bool running;
	bool complete;                    /* the disk rests on nothing any more */
	uint64_t done_bytes, total_bytes; /* while running */
};

struct lb_fabric;
typedef int (*lb_fabric_list_fn)(void *arg, const char *name, enum lb_vm_state state);

struct lb_fabric_ops {
	const char *name;
	/* Whether VMs can join this network: -ENOENT when there is none, with what there is or what to do. */
	int (*network)(struct lb_fabric *f, const char *network);
	/*
	 * Whether that network can give the VM its address: -EEXIST when it is another's there. NULL: this fabric's
	 * networks give out no addresses of themselves.
	 */
	int (*address)(struct lb_fabric *f, const struct lb_vm_spec *vm);
	int (*create)(struct lb_fabric *f, const struct lb_vm_spec *vm); /* makes it known; does not start it */
	int (*start)(struct lb_fabric *f, const struct lb_vm_spec *vm);
	/* `gracefully` presses the power button and returns; otherwise the VM is off at return. */
	int (*stop)(struct lb_fabric *f, const struct lb_vm_spec *vm, bool gracefully);
	int (*resume)(struct lb_fabric *f, const struct lb_vm_spec *vm);  /* paused -> running */
	int (*destroy)(struct lb_fabric *f, const struct lb_vm_spec *vm); /* off, and forgotten; its disks stay */
	int (*state)(struct lb_fabric *f, const struct lb_vm_spec *vm, enum lb_vm_state *ret_state);
	/* The VMs in `vm_folder` (libvirt: whose folder is below it). */
	int (*list)(struct lb_fabric *f, const char *vm_folder, lb_fabric_list_fn fn, void *arg);
	/*
	 * Writes what the guest's screen shows to `path`, and where `type` takes it ("png" or "ppm", 8 bytes) says as
	 * what.
	 */
	int (*screenshot)(struct lb_fabric *f, const struct lb_vm_spec *vm, const char *path, char type[8]);
	/* The file that takes the guest's serial console; free it. */
	int (*console)(struct lb_fabric *f, const struct lb_vm_spec *vm, char **ret_path);
	/* Copies the blocks of disk `n` behind the running guest; again with another rate: changes it. 0: no limit. */
	int (*pull)(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, uint64_t bytes_per_s);
	/*
	 * What the hypervisor holds of disk `n` is on stable storage at return. A pull that has ended needs it before
	 * anybody may rely on the disk standing by itself: QEMU drops the backing file from the header and still holds
	 * the tables of the blocks that it has copied.
	 */
	int (*flush)(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n);
	/* -EIO once when a pull has failed; it can be begun again and goes on where it was. */
	int (*pull_look)(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, struct lb_vm_pull *ret_pull);
	void (*free)(struct lb_fabric *f);
};

struct lb_fabric {
	const struct lb_fabric_ops *ops;
	struct lb_env *env;
};

/*
 * "qemu", "libvirt", or "auto": libvirt where it answers, else QEMU directly. -EOPNOTSUPP when this build or this
 * machine does not have it, with what to install.
 */
int lb_fabric_open(struct lb_env *env, const char *name, struct lb_fabric **ret_fabric);
void lb_fabric_free(struct lb_fabric *f);
LB_DEFINE_CLEANUP(struct lb_fabric *, lb_fabric_free);

/* "/path" with a socket in it must fit into a struct sockaddr_un; no commas or control characters either. */
int lb_vm_folder_check(const char *vm_folder, const char *name);
