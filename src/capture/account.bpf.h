/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/*
 * Bytes in flight per 1 MiB chunk: bytes and not events, because requests merge, split and complete in parts. A counter
 * below zero tells of a request that was never seen; it is put back to zero so that the audit goes on.
 */
#include "maps.bpf.h"

struct lb_flight {
	__u64 chunk; /* the index of the first */
	__u64 offset;
	__u64 end;
	__u32 subtract;
	__u32 underflow;
};

static __always_inline void lb_flight_subtract(struct lb_flight *f, __s64 *counter, __s64 part)
{
	__s64 now = __sync_fetch_and_add(counter, -part) - part;

	if (now < 0) {
		__sync_fetch_and_add(counter, -now < part ? -now : part);
		f->underflow = 1;
	}
}

static long lb_flight_step(__u32 i, void *arg)
{
	struct lb_flight *f = arg;
	__u32 index = f->chunk + i;
	__s64 *counter = bpf_map_lookup_elem(&inflight, &index);
	__u64 from = (f->offset & ~(__u64)(LB_CAPTURE_CHUNK_BYTES - 1)) + ((__u64)i << LB_CAPTURE_CHUNK_SHIFT);
	__u64 to = from + LB_CAPTURE_CHUNK_BYTES;

	if (counter == 0 || from >= f->end)
		return 1;
	if (from < f->offset)
		from = f->offset;
	if (to > f->end)
		to = f->end;
	if (f->subtract)
		lb_flight_subtract(f, counter, to - from);
	else
		__sync_fetch_and_add(counter, to - from);
	return 0;
}

#define LB_FLIGHT_CHUNKS_MAX (1u << 16) /* 64 GiB: more than any bio */

/* Adds to or subtracts from the counters of a range within the disk; 1 when a counter fell below zero. */
__noinline int lb_flight_range(__u32 id, __u64 offset, __u64 length, __u32 subtract)
{
	struct lb_capture_control *c = lb_control();
	if (c == 0 || length == 0)
		return 0;
	struct lb_capture_disk_slot *slot = lb_slot(c, id);
	if (length > slot->size_bytes || offset > slot->size_bytes - length)
		return 0;
	struct lb_flight f = {
		.chunk = slot->first_chunk + (offset >> LB_CAPTURE_CHUNK_SHIFT),
		.offset = offset,
		.end = offset + length,
		.subtract = subtract,
	};
	if (offset >> LB_CAPTURE_CHUNK_SHIFT == (f.end - 1) >> LB_CAPTURE_CHUNK_SHIFT)
		lb_flight_step(0, &f);
	else
		bpf_loop(LB_FLIGHT_CHUNKS_MAX, lb_flight_step, &f, 0);
	return f.underflow;
}

/* The end of a range: completed, failed, or put back into the queue. */
__noinline int lb_ended(__u32 id, __u64 offset, __u64 length, __u32 failed)
{
	struct lb_capture_control *c = lb_control();
	if (c == 0)
		return 0;
	int underflow = lb_flight_range(id, offset, length, 1);

	if (!failed && !underflow)
		return 0;
	if (lb_faulty(c, LB_FAULT_NO_FAILURE_DEBT))
		return 0;
	return lb_lose(id, offset, length, failed ? LB_REASON_FAILED : LB_REASON_UNDERFLOW);
}
