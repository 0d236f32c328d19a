/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Consecutive segments of one epoch, read from the cache for one object of the vault. */
#include "process/machine.h"

struct lb_upload_pack {
	struct lb_buf bytes;
	struct lb_sealed_segment *segments; /* in `bytes` */
	size_t n;
	struct lb_position last;
	int64_t point_ns; /* receipt of its newest recovery point; 0: none */
};
void lb_upload_pack_free(struct lb_upload_pack *pack); /* for _cleanup_() */

/*
 * From `first` on, below `seq_end`, up to LB_PACK_BYTES_NOMINAL or one larger segment. -EBADMSG, -ENOENT or -EIO when
 * the cache is damaged.
 */
int lb_upload_pack_load(struct lb_machine *m, const struct lb_position *first, uint64_t seq_end,
			struct lb_upload_pack *ret_pack);
