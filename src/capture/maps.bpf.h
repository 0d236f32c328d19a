/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/* The maps, and what every rule needs: marking a range and declaring a loss. Sizes are set when the disks are known. */
#include "abi.h"

/* Found by calibrate.c; page = vmemmap_base + frame * page_struct_bytes, address = direct_base + frame << page_shift */
const volatile __u64 lb_direct_base;
const volatile __u64 lb_vmemmap_base;
const volatile __u64 lb_page_struct_bytes = 64;
const volatile __u32 lb_page_shift = 12;
const volatile __u32 lb_can_read; /* 0: marking only */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lb_capture_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bitmap SEC(".maps");

/* Only user space touches it; here because it must live as long as the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} scan SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __s64);
} inflight SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LB_CAPTURE_DISKS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} disks SEC(".maps");

/* Bios in flight on bio-based disks: a bio's own position has moved on when it completes. */
struct lb_bio_flight {
	__u64 offset_bytes;
	__u32 length_bytes;
	__u32 disk;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct lb_bio_flight);
} bios SEC(".maps");

static __always_inline struct lb_capture_control *lb_control(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct lb_capture_disk_slot *lb_slot(struct lb_capture_control *c, __u32 id)
{
	return &c->disk[id & (LB_CAPTURE_DISKS_MAX - 1)];
}

static __always_inline int lb_faulty(struct lb_capture_control *c, __u32 fault)
{
#ifdef LB_FAULT_INJECTION
	return (*(volatile __u32 *)&c->faults & fault) != 0;
#else
	return 0;
#endif
}

/*
 * Functions that are not static are checked once, by themselves, for every argument; that keeps the verifier's work
 * small. The loops work from their index and leave their argument alone: newer verifiers follow every value that a loop
 * changes.
 */
struct lb_mark {
	__u64 word;
	__u64 first;
	__u64 last;
};

static long lb_mark_step(__u32 i, void *arg)
{
	struct lb_mark *m = arg;
	__u64 base = (m->first & ~63ULL) + (__u64)i * 64;
	__u64 mask = ~0ULL;
	__u32 index = m->word + i;
	__u64 *word = bpf_map_lookup_elem(&bitmap, &index);

	if (word == 0 || base > m->last)
		return 1;
	if (i == 0)
		mask <<= m->first & 63;
	if (m->last - base < 63)
		mask &= ~0ULL >> (63 - (m->last - base));
	if ((*word & mask) != mask)
		__sync_fetch_and_or(word, mask);
	return 0;
}

#define LB_MARK_WORDS_MAX (1u << 20) /* 4 TiB: more than any request */

/* Marks [offset, offset + length); what does not lie within the disk marks all of it. */
__noinline int lb_mark_range(__u32 id, __u64 offset, __u64 length)
{
	struct lb_capture_control *c = lb_control();
	if (c == 0 || length == 0)
		return 0;
	struct lb_capture_disk_slot *slot = lb_slot(c, id);
	if (length > slot->size_bytes || offset > slot->size_bytes - length) {
		*(volatile __u64 *)&slot->whole = 1;
		return 0;
	}
	struct lb_mark m = {
		.first = offset >> LB_CAPTURE_GRANULE_SHIFT,
		.last = (offset + length - 1) >> LB_CAPTURE_GRANULE_SHIFT,
	};
	m.word = slot->first_word + (m.first >> 6);
	if (m.last >> 6 == m.first >> 6)
		lb_mark_step(0, &m);
	else
		bpf_loop(LB_MARK_WORDS_MAX, lb_mark_step, &m, 0);
	return 0;
}

/*
 * Rule 1. The loss position comes before the mark: user space looks at it after it moved the bitmap into the scan set,
 * so no mark of a newer loss can hide in there. Both come before the request is given to the disk.
 */
__noinline int lb_lose(__u32 id, __u64 offset, __u64 length, __u32 reason)
{
	struct lb_capture_control *c = lb_control();
	if (c == 0)
		return 0;
	struct lb_capture_disk_slot *slot = lb_slot(c, id);
	__u64 word = *(volatile __u64 *)&c->word;

	__sync_fetch_and_add(&slot->lost_bytes, length);
	__sync_fetch_and_add(&slot->lost_requests, 1);
	if (reason < LB_REASONS)
		__sync_fetch_and_add(&c->reason[reason], 1);
	if ((__u32)word == LB_CAPTURE_OFF)
		return 0;
	if ((__u32)word == LB_CAPTURE_RUNNING && !lb_faulty(c, LB_FAULT_NO_LOSS_POS))
		__sync_val_compare_and_swap(&c->loss_pos, LB_CAPTURE_NO_LOSS,
					    bpf_ringbuf_query(&ring, BPF_RB_PROD_POS));
	if (!lb_faulty(c, LB_FAULT_NO_MARK))
		lb_mark_range(id, offset, length);
	if ((__u32)word == LB_CAPTURE_RUNNING)
		__sync_val_compare_and_swap(&c->word, word, (word & ~0xffffffffULL) | LB_CAPTURE_DEBT);
	return 0;
}
