/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/*
 * One request becomes one record: room for all of it is reserved at once, so the ring's own busy bit makes it whole or
 * absent, and the order of reservation is the order of the writes. The bytes come from the kernel's direct map.
 */
#include "maps.bpf.h"
#include "bio_access.bpf.h"

#define LB_PIECE_LARGE 65536u
#define LB_PIECE_PAGE 4096u
#define LB_PIECE_SECTOR 512u
#define LB_STEPS_MAX (1u << 17) /* pieces, pages and bios of one request */

/* How a request is to be copied: which scratch (one for each program that copies: they can interrupt one another) ...
 */
#define LB_HOW_REQUEST 0u
#define LB_HOW_BIO 2u
#define LB_HOW_SECOND 1u
#define LB_HOW_SCRATCH 3u
#define LB_SCRATCHES 4
/* ... and whether the bio is the first of a chain. */
#define LB_HOW_CHAIN 4u

/* Where the copy stands. In a per-CPU map and not on the stack: there newer verifiers follow every value of it. */
struct lb_copy {
	__u64 bio;
	__u64 vectors;
	__u64 source;
	__u32 source_left;
	__u32 index;
	__u32 done;
	__u32 bio_left;
	__u32 offset; /* in the record */
	__u32 left;   /* of the request */
	__u32 chain;
	__u32 reason; /* LB_REASONS: none */
	__u8 bounce[LB_PIECE_SECTOR];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LB_SCRATCHES);
	__type(key, __u32);
	__type(value, struct lb_copy);
} scratch SEC(".maps");

struct lb_copy_arg {
	struct bpf_dynptr record;
	struct lb_copy *copy;
};

static __always_inline long lb_copy_fail(struct lb_copy *c, __u32 reason)
{
	c->reason = reason;
	return 1;
}

static __always_inline long lb_copy_bio(struct lb_copy *c)
{
	struct lb_iter iter;
	struct bio *bio = (void *)c->bio;

	if (bio == 0 || lb_bio_iter(c->bio, &iter) != 0)
		return lb_copy_fail(c, LB_REASON_UNREADABLE);
	if (lb_bio_encrypted(c->bio))
		return lb_copy_fail(c, LB_REASON_ENCRYPTED);
	c->vectors = (__u64)BPF_CORE_READ(bio, bi_io_vec);
	c->index = iter.index;
	c->done = iter.done;
	c->bio_left = iter.size;
	c->bio = c->chain ? (__u64)BPF_CORE_READ(bio, bi_next) : 0;
	return 0;
}

static __always_inline long lb_copy_vector(struct lb_copy *c)
{
	struct lb_bvec v;

	if (bpf_probe_read_kernel(&v, sizeof(v), (void *)(c->vectors + (__u64)c->index * sizeof(v))) != 0)
		return lb_copy_fail(c, LB_REASON_UNREADABLE);
	__u32 length = v.length - c->done;
	if (v.length < c->done || v.page < lb_vmemmap_base)
		return lb_copy_fail(c, LB_REASON_UNREADABLE);
	if (length > c->bio_left)
		length = c->bio_left;
	c->source = lb_direct_base + ((v.page - lb_vmemmap_base) / lb_page_struct_bytes << lb_page_shift) + v.offset +
		    c->done;
	c->source_left = length < c->left ? length : c->left;
	c->bio_left -= length;
	c->index++;
	c->done = 0;
	return 0;
}

static __always_inline long lb_copy_rest(struct lb_copy_arg *a, struct lb_copy *c)
{
	__u32 n = c->source_left & (LB_PIECE_SECTOR - 1);

	return bpf_probe_read_kernel(c->bounce, n, (void *)c->source) != 0 ||
	       bpf_dynptr_write(&a->record, c->offset, c->bounce, n, 0) != 0;
}

#define LB_COPY_PIECE(size)                                                                                            \
	{                                                                                                              \
		n = (size);                                                                                            \
		void *to = bpf_dynptr_data(&a->record, c->offset, (size));                                             \
		failed = to == 0 || bpf_probe_read_kernel(to, (size), (void *)c->source) != 0;                         \
	}

static long lb_copy_step(__u32 i, void *arg)
{
	struct lb_copy_arg *a = arg;
	struct lb_copy *c = a->copy;
	long failed;
	__u32 n;

	if (c->left == 0)
		return 1;
	if (c->source_left == 0) {
		if (c->bio_left == 0 && lb_copy_bio(c) != 0)
			return 1;
		if (c->bio_left == 0)
			return 0;
		if (lb_copy_vector(c) != 0)
			return 1;
	}
	if (c->source_left >= LB_PIECE_LARGE)
		LB_COPY_PIECE(LB_PIECE_LARGE)
	else if (c->source_left >= LB_PIECE_PAGE)
		LB_COPY_PIECE(LB_PIECE_PAGE)
	else if (c->source_left >= LB_PIECE_SECTOR)
		LB_COPY_PIECE(LB_PIECE_SECTOR)
	else {
		n = c->source_left;
		failed = lb_copy_rest(a, c);
	}
	if (failed)
		return lb_copy_fail(c, LB_REASON_UNREADABLE);
	c->offset += n;
	c->source += n;
	c->source_left -= n;
	c->left -= n;
	return c->left == 0;
}

struct lb_range {
	__u64 offset;
	__u64 start_ns;
	__u32 length;
	__u32 id;
	__u32 generation;
};

static __always_inline void lb_entry_fill(struct lb_capture_entry *e, const struct lb_range *r, __u8 kind)
{
	e->offset_bytes = r->offset;
	e->ktime_ns = r->start_ns;
	e->length_bytes = r->length;
	e->generation = r->generation;
	e->disk = r->id;
	e->kind = kind;
	e->flags = 0;
	e->reserved = 0;
}

/* The reason why the data is not in the ring, or LB_REASONS when it is. */
static __always_inline __u32 lb_record_data(const struct lb_range *r, __u64 bio, __u32 how)
{
	__u32 which = how & LB_HOW_SCRATCH;
	struct lb_copy *c = bpf_map_lookup_elem(&scratch, &which);
	struct lb_copy_arg a = {.copy = c};

	if (c == 0 || !lb_can_read || !lb_layout_known())
		return LB_REASON_UNREADABLE;
	if (r->length > LB_CAPTURE_REQUEST_BYTES_MAX)
		return LB_REASON_TOO_LARGE;
	c->bio = bio;
	c->chain = how & LB_HOW_CHAIN;
	c->source_left = 0;
	c->bio_left = 0;
	c->offset = sizeof(struct lb_capture_entry);
	c->left = r->length;
	c->reason = LB_REASONS;
	if (bpf_ringbuf_reserve_dynptr(&ring, sizeof(struct lb_capture_entry) + r->length, 0, &a.record) != 0) {
		bpf_ringbuf_discard_dynptr(&a.record, BPF_RB_NO_WAKEUP);
		return LB_REASON_RING_FULL;
	}
	bpf_loop(LB_STEPS_MAX, lb_copy_step, &a, 0);
	struct lb_capture_entry *e = bpf_dynptr_data(&a.record, 0, sizeof(*e));
	if (e == 0 || c->left != 0 || c->reason != LB_REASONS) {
		bpf_ringbuf_discard_dynptr(&a.record, BPF_RB_NO_WAKEUP);
		return c->reason != LB_REASONS ? c->reason : LB_REASON_UNREADABLE;
	}
	lb_entry_fill(e, r, LB_CAPTURE_DATA);
	bpf_ringbuf_submit_dynptr(&a.record, BPF_RB_NO_WAKEUP);
	return LB_REASONS;
}

static __always_inline __u32 lb_record_zero(const struct lb_range *r)
{
	struct lb_capture_entry *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (e == 0)
		return LB_REASON_RING_FULL;
	lb_entry_fill(e, r, LB_CAPTURE_ZERO);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return LB_REASONS;
}
