/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of the target share. */
#include "target/compare.h"
#include "target/target.h"
#include "target/undo.h"

struct lb_target {
	struct lb_env *env;
	struct lb_vault *vault;
	const struct lb_catalog_item *item; /* of the disks that are written */
	struct lb_catalog_item *own_item;
	char folder[LB_TARGET_PATH_BYTES];
	int lock_fd;
	bool overwrite;
	uint64_t undo_bytes;
	uint32_t undo_points;
	struct lb_target_record record;
	struct lb_target_disk disks[LB_HRL_DISKS_MAX]; /* as own_item->disks */
};

/* check.c: -EPERM unless the disk is blank, or is known to be the machine's (serial, partition table's identity). */
int lb_target_check_disk(const struct lb_target *t, uint32_t n, struct lb_image *image);
/* -ESTALE when the disk is not the one that the record is of. */
int lb_target_check_same(const struct lb_target *t, uint32_t n, struct lb_image *image);
/* -ENOSPC when files of this delta's data would not fit into their filesystems, with what they have already. */
int lb_target_check_room(const struct lb_target *t, const struct lb_delta *delta);

/* write.c: what is to be written, gathered; what it replaces goes into the undo file first. */
struct lb_target_batch;
int lb_target_batch_new(struct lb_target *t, struct lb_undo *undo, struct lb_target_batch **ret_batch);
void lb_target_batch_free(struct lb_target_batch *b);
LB_DEFINE_CLEANUP(struct lb_target_batch *, lb_target_batch_free);
/* Blocks in which `fresh` (NULL: zeroes) and `old` differ are written; both are copied. */
int lb_target_batch_add(struct lb_target_batch *b, uint32_t n, uint64_t offset_bytes, const uint8_t *fresh,
			const uint8_t *old, size_t size_bytes);
int lb_target_batch_flush(struct lb_target_batch *b);
uint64_t lb_target_batch_written(const struct lb_target_batch *b);
