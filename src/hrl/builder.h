/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The builder's inside: writes are collected (builder.c), overlaps resolved (resolve.c), the rest packed (pack.c). */
#include "base/buf.h"
#include "hrl/hrl.h"

struct lb_hrl_op {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	const uint8_t *data;
	uint32_t number; /* in the order of adding */
	uint16_t disk;
	uint8_t kind;
};

/* Raw bytes on their way into a frame. */
struct lb_hrl_copy {
	const uint8_t *from;
	size_t size_bytes;
};

struct lb_hrl_builder {
	size_t data_bytes_max;
	size_t data_bytes;
	uint64_t zero_splits; /* extents that long zero ops need beyond their first */
	struct lb_hrl_op *ops;
	uint32_t n_ops, room_ops;
	struct lb_hrl_copy *copies;
	uint32_t n_copies, room_copies;
	uint16_t disks[LB_HRL_DISKS_MAX];
	unsigned n_disks;
};

/* Makes room for one more in an array of `size_bytes` large members that holds at most `n_max`. */
int lb_hrl_array_grow(void *array, uint32_t n, uint32_t n_max, size_t size_bytes, uint32_t *room);

/* One part of one op that nothing hides; parts come sorted by (disk, offset). */
typedef int (*lb_hrl_part_fn)(void *arg, const struct lb_hrl_op *op, uint64_t begin_bytes, uint64_t end_bytes);
/* Sorts `ops` and calls `fn` for at most 2 * n_ops parts. */
int lb_hrl_resolve(struct lb_hrl_op *ops, uint32_t n_ops, lb_hrl_part_fn fn, void *arg);

int lb_hrl_pack(struct lb_hrl_builder *b, const struct lb_hrl_header *header, struct lb_buf *out,
		struct lb_digest *ret_digest);
