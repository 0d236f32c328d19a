/* SPDX-License-Identifier: Apache-2.0 */
/* Collects writes in their order, within the limits of one segment. */
#include "hrl/builder.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/err.h"
#include "hrl/layout.h"

#define ROOM_FIRST 256
/*
 * The most extents that these ops can become: hiding cuts n ops into fewer than 2n parts; each zero block found within
 * a part adds at most two; each border of frames one; long zeroes are split.
 */
static uint64_t extents_worst(uint64_t n_ops, uint64_t data_bytes, uint64_t zero_splits)
{
	return 2 * n_ops + 2 * (data_bytes / LB_HRL_ZERO_BLOCK_BYTES) + data_bytes / LB_HRL_FRAME_BYTES_MAX +
	       zero_splits;
}

int lb_hrl_array_grow(void *array, uint32_t n, uint32_t n_max, size_t size_bytes, uint32_t *room)
{
	uint32_t wanted;
	void *grown;

	assert(n < n_max);
	if (n < *room)
		return 0;
	wanted = LB_MIN(LB_MAX(*room * 2, (uint32_t)ROOM_FIRST), n_max);
	grown = reallocarray(*(void **)array, wanted, size_bytes);
	if (grown == NULL)
		return lb_fail(-ENOMEM, "out of memory for %u extents of a segment", wanted);
	*(void **)array = grown;
	*room = wanted;
	return 0;
}

int lb_hrl_builder_new(size_t data_bytes_max, struct lb_hrl_builder **ret_builder)
{
	struct lb_hrl_builder *b;

	if (data_bytes_max == 0 || data_bytes_max > LB_HRL_DATA_BYTES_MAX)
		return lb_fail(-EINVAL, "a segment of %zu bytes of data is not possible; the limit is %u",
			       data_bytes_max, LB_HRL_DATA_BYTES_MAX);
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return lb_fail(-ENOMEM, "out of memory for a segment builder");
	b->data_bytes_max = data_bytes_max;
	*ret_builder = b;
	return 0;
}

void lb_hrl_builder_free(struct lb_hrl_builder *b)
{
	if (b == NULL)
		return;
	free(b->ops);
	free(b->copies);
	free(b);
}

static int check_add(uint16_t disk, enum lb_hrl_kind kind, uint64_t offset_bytes, uint64_t length_bytes,
		     const void *data)
{
	if (kind < LB_HRL_CAPTURED || kind > LB_HRL_SCANNED_ZERO)
		return lb_fail(-EINVAL, "extent kind %d is unknown", (int)kind);
	if (lb_hrl_kind_has_data(kind) != (data != NULL))
		return lb_fail(-EINVAL, "an extent of data needs its bytes, one of zeroes has none");
	if (length_bytes == 0 || (offset_bytes | length_bytes) % LB_HRL_SECTOR_BYTES != 0 ||
	    offset_bytes > (uint64_t)LB_HRL_OFFSET_BYTES_MAX || length_bytes > LB_HRL_OFFSET_BYTES_MAX - offset_bytes)
		return lb_fail(-EINVAL, "%" PRIu64 " bytes at %" PRIu64 " of disk %u are not whole sectors of a disk",
			       length_bytes, offset_bytes, disk);
	return 0;
}

static bool disk_known(const struct lb_hrl_builder *b, uint16_t disk)
{
	for (unsigned i = 0; i < b->n_disks; i++) {
		if (b->disks[i] == disk)
			return true;
	}
	return false;
}

int lb_hrl_builder_add(struct lb_hrl_builder *b, uint16_t disk, enum lb_hrl_kind kind, uint64_t offset_bytes,
		       uint64_t length_bytes, const void *data)
{
	uint64_t data_bytes = data != NULL ? length_bytes : 0;
	uint64_t zero_splits = data != NULL ? 0 : length_bytes / LB_HRL_ZERO_BYTES_MAX;
	bool known = disk_known(b, disk);
	int r;

	r = check_add(disk, kind, offset_bytes, length_bytes, data);
	if (r < 0)
		return r;
	if (data_bytes > b->data_bytes_max - b->data_bytes ||
	    extents_worst(b->n_ops + 1, b->data_bytes + data_bytes, b->zero_splits + zero_splits) >
		    LB_HRL_EXTENTS_MAX ||
	    (!known && b->n_disks == LB_HRL_DISKS_MAX))
		return lb_fail(-EMSGSIZE, "%" PRIu64 " bytes more don't fit this segment; they belong to the next",
			       length_bytes);
	r = lb_hrl_array_grow(&b->ops, b->n_ops, LB_HRL_EXTENTS_MAX / 2, sizeof(*b->ops), &b->room_ops);
	if (r < 0)
		return r;
	if (!known)
		b->disks[b->n_disks++] = disk;
	b->ops[b->n_ops] = (struct lb_hrl_op){.offset_bytes = offset_bytes,
					      .length_bytes = length_bytes,
					      .data = data,
					      .number = b->n_ops,
					      .disk = disk,
					      .kind = (uint8_t)kind};
	b->n_ops++;
	b->data_bytes += data_bytes;
	b->zero_splits += zero_splits;
	return 0;
}

size_t lb_hrl_builder_data_bytes(const struct lb_hrl_builder *b)
{
	return b->data_bytes;
}

size_t lb_hrl_builder_extents(const struct lb_hrl_builder *b)
{
	return extents_worst(b->n_ops, b->data_bytes, b->zero_splits);
}

int lb_hrl_builder_finish(struct lb_hrl_builder *b, const struct lb_hrl_header *header, struct lb_buf *out,
			  struct lb_digest *ret_digest)
{
	size_t before_bytes = out->size_bytes;
	int r;

	r = lb_hrl_header_check(header, b->n_ops);
	if (r < 0)
		return r;
	r = lb_hrl_pack(b, header, out, ret_digest);
	b->n_copies = 0;
	if (r < 0) {
		out->size_bytes = before_bytes;
		if (out->data != NULL)
			out->data[before_bytes] = '\0';
		return r;
	}
	b->n_ops = 0;
	b->data_bytes = 0;
	b->zero_splits = 0;
	b->n_disks = 0;
	return 0;
}
