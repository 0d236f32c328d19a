/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files of an ext2, ext3 or ext4 filesystem, read-only and without mounting it: by libext2fs, straight from a disk's
 * bytes. Nothing is written, nothing reaches the kernel's filesystem code. The journal is not replayed: what the
 * machine had in it alone is as it was before (`needs_recovery`). One thread.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "files/volume.h"

#define LB_EXT_NAME_BYTES 256
#define LB_EXT_LINK_BYTES 4096

struct lb_ext;

struct lb_ext_file {
	uint32_t inode;
	mode_t mode; /* kind and permissions */
	uint32_t uid, gid;
	uint64_t size_bytes;
	int64_t mtime_s;
	uint32_t mtime_ns;
};

/* Borrows `disk`. -EBADMSG when it is damaged, -EOPNOTSUPP when it uses what we don't know. */
int lb_ext_open(const struct lb_disk_bytes *disk, const struct lb_volume *volume, struct lb_ext **ret_ext);
void lb_ext_close(struct lb_ext *e);
LB_DEFINE_CLEANUP(struct lb_ext *, lb_ext_close);
bool lb_ext_needs_recovery(const struct lb_ext *e);

/* Links on the way are followed inside the filesystem, a link at the end is not. -ENOENT names the path. */
int lb_ext_find(struct lb_ext *e, const char *path, struct lb_ext_file *ret_file);
int lb_ext_stat(struct lb_ext *e, uint32_t inode, struct lb_ext_file *ret_file);
int lb_ext_readlink(struct lb_ext *e, const struct lb_ext_file *file, char target[LB_EXT_LINK_BYTES]);

/* The entries of a folder, "." and ".." left out; names have no slash and no NUL. Non-zero ends it and is passed on. */
int lb_ext_list(struct lb_ext *e, const struct lb_ext_file *folder,
		int (*fn)(void *arg, const char *name, const struct lb_ext_file *file), void *arg);
/* The bytes of a file, in pieces in order. */
int lb_ext_read(struct lb_ext *e, const struct lb_ext_file *file,
		int (*fn)(void *arg, const void *data, size_t size_bytes, uint64_t offset_bytes), void *arg);
