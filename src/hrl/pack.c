/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a plain segment of resolved writes: zero blocks found, neighbours merged, data packed into frames. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "hrl/builder.h"
#include "hrl/layout.h"

/* The index is written into `out` as it becomes known; the data follows when the index is whole. */
struct pack {
	struct lb_hrl_builder *b;
	struct lb_buf *out;
	struct lb_hrl_extent last; /* may still grow; length 0: none yet */
	uint32_t n_extents;
	uint64_t data_bytes;
};

static bool is_zero_block(const uint8_t *p)
{
	static const uint8_t zero[16];

	return memcmp(p, zero, sizeof(zero)) == 0 &&
	       memcmp(p, p + sizeof(zero), LB_HRL_ZERO_BLOCK_BYTES - sizeof(zero)) == 0;
}

static int flush_extent(struct pack *p)
{
	uint8_t bytes[LB_HRL_EXTENT_BYTES];

	if (p->last.length_bytes == 0)
		return 0;
	lb_hrl_extent_encode(&p->last, bytes);
	p->last.length_bytes = 0;
	p->n_extents++;
	return lb_buf_append(p->out, bytes, sizeof(bytes));
}

static int put_extent(struct pack *p, const struct lb_hrl_extent *e)
{
	struct lb_hrl_extent *last = &p->last;
	uint64_t both_bytes = (uint64_t)last->length_bytes + e->length_bytes;
	int r;

	if (last->length_bytes > 0 && last->disk == e->disk && last->kind == e->kind &&
	    last->offset_bytes + last->length_bytes == e->offset_bytes && last->frame == e->frame &&
	    both_bytes <= LB_HRL_ZERO_BYTES_MAX) {
		last->length_bytes = (uint32_t)both_bytes;
		return 0;
	}
	r = flush_extent(p);
	if (r < 0)
		return r;
	*last = *e;
	return 0;
}

static int put_zeroes(struct pack *p, const struct lb_hrl_op *op, uint64_t at_bytes, uint64_t end_bytes)
{
	bool scanned = lb_hrl_kind_is_scanned(op->kind);

	while (at_bytes < end_bytes) {
		uint32_t length_bytes = (uint32_t)LB_MIN(end_bytes - at_bytes, (uint64_t)LB_HRL_ZERO_BYTES_MAX);
		struct lb_hrl_extent e = {.disk = op->disk,
					  .kind = scanned ? LB_HRL_SCANNED_ZERO : LB_HRL_CAPTURED_ZERO,
					  .offset_bytes = at_bytes,
					  .length_bytes = length_bytes};
		int r = put_extent(p, &e);

		if (r < 0)
			return r;
		at_bytes += length_bytes;
	}
	return 0;
}

static int put_copy(struct lb_hrl_builder *b, const uint8_t *from, size_t size_bytes)
{
	int r = lb_hrl_array_grow(&b->copies, b->n_copies, LB_HRL_EXTENTS_MAX, sizeof(*b->copies), &b->room_copies);

	if (r < 0)
		return r;
	b->copies[b->n_copies++] = (struct lb_hrl_copy){.from = from, .size_bytes = size_bytes};
	return 0;
}

static int put_data(struct pack *p, const struct lb_hrl_op *op, uint64_t at_bytes, uint64_t end_bytes)
{
	while (at_bytes < end_bytes) {
		uint32_t frame_offset_bytes = (uint32_t)(p->data_bytes % LB_HRL_FRAME_BYTES_MAX);
		uint32_t left_bytes = LB_HRL_FRAME_BYTES_MAX - frame_offset_bytes;
		uint32_t length_bytes = (uint32_t)LB_MIN(end_bytes - at_bytes, (uint64_t)left_bytes);
		struct lb_hrl_extent e = {.disk = op->disk,
					  .kind = op->kind,
					  .offset_bytes = at_bytes,
					  .length_bytes = length_bytes,
					  .frame = (uint32_t)(p->data_bytes / LB_HRL_FRAME_BYTES_MAX),
					  .frame_offset_bytes = frame_offset_bytes};
		int r;

		r = put_copy(p->b, op->data + (at_bytes - op->offset_bytes), length_bytes);
		if (r < 0)
			return r;
		r = put_extent(p, &e);
		if (r < 0)
			return r;
		p->data_bytes += length_bytes;
		at_bytes += length_bytes;
	}
	return 0;
}

/* One part of one write: whole blocks of zeroes are told from data, in runs. */
static int put_part(void *arg, const struct lb_hrl_op *op, uint64_t begin_bytes, uint64_t end_bytes)
{
	uint64_t run_bytes = begin_bytes, at_bytes = begin_bytes;
	bool run_zero = false;
	struct pack *p = arg;
	int r = 0;

	if (op->data == NULL)
		return put_zeroes(p, op, begin_bytes, end_bytes);
	while (at_bytes < end_bytes && r == 0) {
		uint64_t next_bytes = LB_MIN((at_bytes | (LB_HRL_ZERO_BLOCK_BYTES - 1)) + 1, end_bytes);
		bool zero = next_bytes - at_bytes == LB_HRL_ZERO_BLOCK_BYTES &&
			    is_zero_block(op->data + (at_bytes - op->offset_bytes));

		if (zero != run_zero) {
			r = run_zero ? put_zeroes(p, op, run_bytes, at_bytes) : put_data(p, op, run_bytes, at_bytes);
			run_bytes = at_bytes;
			run_zero = zero;
		}
		at_bytes = next_bytes;
	}
	if (r < 0)
		return r;
	return run_zero ? put_zeroes(p, op, run_bytes, end_bytes) : put_data(p, op, run_bytes, end_bytes);
}

/* Gathers the data behind the index, frame by frame, and hashes each frame while it is in the processor's cache. */
static int write_frames(struct pack *p, uint32_t n_frames)
{
	const struct lb_hrl_copy *copy = p->b->copies;
	size_t frames_bytes = (size_t)n_frames * LB_HRL_FRAME_BYTES;
	uint8_t *entry, *data;
	int r;

	r = lb_buf_reserve(p->out, frames_bytes + p->data_bytes);
	if (r < 0)
		return r;
	entry = p->out->data + p->out->size_bytes;
	data = entry + frames_bytes;
	for (uint32_t i = 0; i < n_frames; i++, entry += LB_HRL_FRAME_BYTES) {
		uint64_t left_bytes = p->data_bytes - (uint64_t)i * LB_HRL_FRAME_BYTES_MAX;
		uint32_t raw_bytes = (uint32_t)LB_MIN(left_bytes, (uint64_t)LB_HRL_FRAME_BYTES_MAX);
		uint32_t filled_bytes = 0;

		for (; filled_bytes < raw_bytes; copy++) {
			memcpy(data + filled_bytes, copy->from, copy->size_bytes);
			filled_bytes += (uint32_t)copy->size_bytes;
		}
		assert(filled_bytes == raw_bytes);
		lb_put_le32(entry + LB_HRL_FRAME_AT_RAW, raw_bytes);
		lb_hrl_frame_hash(data, raw_bytes, entry + LB_HRL_FRAME_AT_HASH);
		data += raw_bytes;
	}
	assert(copy == p->b->copies + p->b->n_copies);
	p->out->size_bytes += frames_bytes + p->data_bytes;
	p->out->data[p->out->size_bytes] = '\0';
	return 0;
}

static int write_header(const struct pack *p, const struct lb_hrl_header *header, uint32_t n_frames, uint8_t *at,
			struct lb_digest *ret_digest)
{
	struct lb_hrl_head head = {.header = *header,
				   .form = LB_HRL_PLAIN,
				   .n_extents = p->n_extents,
				   .n_frames = n_frames,
				   .data_bytes = p->data_bytes};
	struct lb_digest digest;
	int r;

	head.index_stored_bytes = lb_hrl_index_canonical_bytes(&head);
	head.total_bytes = LB_HRL_HEADER_BYTES + (uint64_t)head.index_stored_bytes + head.data_bytes;
	lb_hrl_head_encode(&head, at);
	r = lb_hrl_digest_compute(at, at + LB_HRL_HEADER_BYTES, head.index_stored_bytes, &digest);
	if (r < 0)
		return r;
	memcpy(at + LB_HRL_AT_DIGEST, digest.bytes, LB_DIGEST_BYTES);
	*ret_digest = digest;
	return 0;
}

int lb_hrl_pack(struct lb_hrl_builder *b, const struct lb_hrl_header *header, struct lb_buf *out,
		struct lb_digest *ret_digest)
{
	static const uint8_t no_header[LB_HRL_HEADER_BYTES];
	struct pack p = {.b = b, .out = out};
	size_t begin_bytes = out->size_bytes;
	uint32_t n_frames;
	int r;

	r = lb_buf_append(out, no_header, sizeof(no_header));
	if (r < 0)
		return r;
	r = lb_hrl_resolve(b->ops, b->n_ops, put_part, &p);
	if (r < 0)
		return r;
	r = flush_extent(&p);
	if (r < 0)
		return r;
	assert(p.n_extents <= LB_HRL_EXTENTS_MAX && p.data_bytes <= b->data_bytes);
	n_frames = (uint32_t)((p.data_bytes + LB_HRL_FRAME_BYTES_MAX - 1) / LB_HRL_FRAME_BYTES_MAX);
	r = write_frames(&p, n_frames);
	if (r < 0)
		return r;
	return write_header(&p, header, n_frames, out->data + begin_bytes, ret_digest);
}
