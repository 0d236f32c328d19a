/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A disk that is written to: a block device (a whole disk, an LVM volume), a raw file, or a qcow2 image (through
 * qemu-nbd). Ours alone while it is open: a disk that is mounted, part of something else, or used by a VM is refused.
 * Errors name the path. Used by one thread.
 */
#include <stdbool.h>

#include "base/env.h"
#include "vault/catalog.h"

#define LB_TARGET_PATH_BYTES 1024

enum lb_target_kind { LB_TARGET_DEVICE, LB_TARGET_RAW, LB_TARGET_QCOW2 };

struct lb_target_disk {
	struct lb_env *env;
	const struct lb_target_disk_ops *ops;
	enum lb_target_kind kind;
	char path[LB_TARGET_PATH_BYTES];
	char serial[LB_DISK_NAME_BYTES]; /* of a device, may be empty */
	uint64_t size_bytes;
	int fd;
	struct nbd_handle *nbd; /* qcow2 */
};

struct lb_target_disk_ops {
	int (*pread)(struct lb_target_disk *d, void *buf, size_t size_bytes, uint64_t offset_bytes);
	int (*pwrite)(struct lb_target_disk *d, const void *buf, size_t size_bytes, uint64_t offset_bytes);
	int (*zero)(struct lb_target_disk *d, uint64_t size_bytes, uint64_t offset_bytes);
	/* From `offset_bytes` on, where data may be: what lies before reads as zeroes. The disk's size: nowhere. */
	int (*next_data)(struct lb_target_disk *d, uint64_t offset_bytes, uint64_t *ret_offset_bytes);
	int (*flush)(struct lb_target_disk *d); /* durable at return */
	void (*close)(struct lb_target_disk *d);
};

/*
 * Opens what `path` names for a disk of `size_bytes`. A file that is not there is made, sparse; its name tells its kind
 * (.qcow2). -EINVAL: too small; -EBUSY: in use, and by whom if that can be told.
 */
int lb_target_disk_open(struct lb_env *env, const char *path, uint64_t size_bytes, struct lb_target_disk *ret_disk);
void lb_target_disk_close(struct lb_target_disk *d); /* an empty one is fine */

/* disk_qcow2.c */
int lb_target_qcow2_make(struct lb_env *env, const char *path, uint64_t size_bytes);
int lb_target_qcow2_open(struct lb_target_disk *d);
