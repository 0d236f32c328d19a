/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files of filesystems that we don't read ourselves (xfs, btrfs, NTFS, what lies in LVM or md): by guestfish, a program
 * of its own that opens the disk inside a small virtual machine. It is given the point over NBD, read-only; a
 * filesystem's log is replayed there, onto nothing that stays. Needs guestfish and a kernel; says so when they are
 * missing.
 */
#include "files/restore.h"
#include "vault/catalog.h"
#include "vault/points.h"

#define GUESTFS_WANT_BYTES 300

struct guestfs {
	struct lb_env *env;
	struct lb_vault *vault;
	const char *vault_url;
	const struct lb_catalog_item *item;
	const struct lb_catalog_disk *disk;
	struct lb_position position;
	char want[GUESTFS_WANT_BYTES]; /* "/dev/sda2", "/dev/vg/root"; a partition with LVM means what is in it */
};

/* The entries of a folder, or the one that `path` names; a link at its end is not followed. `target` of a link. */
int guestfs_list(const struct guestfs *g, const char *path,
		 int (*fn)(void *arg, const char *name, const struct lb_ext_file *file, const char *target), void *arg);
/* By the rules of lb_restore(). */
int guestfs_get(const struct guestfs *g, const char *path, int folder_fd, const char *name, struct lb_restore *r);
