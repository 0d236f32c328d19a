/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where the filesystems of a disk are: the whole disk, or its partitions (GPT, MBR with logical ones). The bytes are
 * those of a machine that may be hostile: everything is bounded, nothing is trusted. Pure but for the reads.
 */
#include <stddef.h>
#include <stdint.h>

#define LB_VOLUMES_MAX 128

/* A disk's bytes, read-only. Thread rules are the owner's. */
struct lb_disk_bytes {
	int (*pread)(void *arg, void *buf, size_t size_bytes, uint64_t offset_bytes);
	void *arg;
	uint64_t size_bytes;
	uint32_t sector_bytes;
};

struct lb_volume {
	uint32_t partition; /* as Linux numbers them; 0: the whole disk */
	uint64_t offset_bytes, size_bytes;
	const char *kind; /* "ext2/3/4", "xfs", "LVM", ...; "" when unknown */
};

struct lb_volumes {
	struct lb_volume at[LB_VOLUMES_MAX];
	uint32_t n;
};

#define LB_VOLUME_EXT "ext2/3/4" /* what ext.h reads */

int lb_volumes_find(const struct lb_disk_bytes *disk, struct lb_volumes *ret_volumes);
