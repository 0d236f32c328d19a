/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The consumer's side of the BPF ring buffer. libbpf's own moves its position after each callback; ours moves only when
 * what was read is durable elsewhere, so the records are walked at a position of the caller's.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/bpf.h>

#include "base/err.h"
#include "capture/internal.h"

#define RECORD_HEADER_BYTES BPF_RINGBUF_HDR_SZ
#define RECORD_FLAGS (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)
#define RECORD_BYTES_MAX (LB_CAPTURE_REQUEST_BYTES_MAX + sizeof(struct lb_capture_entry))

uint64_t lb_capture_producer(const struct lb_capture *c)
{
	return lb_load(c->producer);
}

uint64_t lb_capture_consumer(const struct lb_capture *c)
{
	return lb_load(c->consumer);
}

/* Rule 3: the producer's position first; a record before it depends only on losses that loss_pos already tells. */
void lb_capture_limit(const struct lb_capture *c, uint64_t *ret_limit, bool *ret_in_debt)
{
	uint64_t limit = lb_capture_producer(c);
	uint64_t loss = lb_load(&c->control->loss_pos);
	bool lost = loss != LB_CAPTURE_NO_LOSS && !lb_fault(c, LB_FAULT_CUT_PAST_LOSS);

	*ret_in_debt = lost;
	*ret_limit = lost && loss < limit ? loss : limit;
}

static int position_fail(uint64_t position, const char *what)
{
	return lb_fail(-EUCLEAN, "capture ring: %s at position %" PRIu64 "; detach and resync this machine", what,
		       position);
}

static uint64_t record_next(uint64_t position, uint32_t bytes)
{
	return (position + RECORD_HEADER_BYTES + bytes + 7) & ~UINT64_C(7);
}

/* The raw record at a position: its flags and its payload. */
static int record_at(const struct lb_capture *c, uint64_t position, uint64_t limit, uint32_t *ret_flags,
		     const struct lb_capture_entry **ret_entry, uint32_t *ret_bytes)
{
	const uint8_t *at = c->ring + (position & (c->control->ring_bytes - 1));
	uint32_t word = __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	uint32_t bytes = word & ~RECORD_FLAGS;

	if (bytes < sizeof(struct lb_capture_entry) || bytes > RECORD_BYTES_MAX || record_next(position, bytes) > limit)
		return position_fail(position, "no record begins");
	*ret_flags = word & RECORD_FLAGS;
	*ret_entry = (const struct lb_capture_entry *)(at + RECORD_HEADER_BYTES);
	*ret_bytes = bytes;
	return 0;
}

static int entry_check(const struct lb_capture *c, const struct lb_capture_entry *e, uint32_t bytes, uint64_t position)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, e->disk);
	bool data = e->kind == LB_CAPTURE_DATA;

	if (s == NULL || e->length_bytes == 0 || e->offset_bytes > s->size_bytes ||
	    e->length_bytes > s->size_bytes - e->offset_bytes || (!data && e->kind != LB_CAPTURE_ZERO) ||
	    bytes != sizeof(*e) + (data ? e->length_bytes : 0))
		return position_fail(position, "an impossible record stands");
	return 0;
}

static int position_check(const struct lb_capture *c, uint64_t position)
{
	uint64_t producer = lb_capture_producer(c);

	if ((position & 7) != 0 || position > producer || producer - position > c->control->ring_bytes ||
	    position < lb_capture_consumer(c))
		return lb_fail(-EINVAL,
			       "capture ring: position %" PRIu64 " is outside of what is kept, %" PRIu64 "..%" PRIu64,
			       position, lb_capture_consumer(c), producer);
	return 0;
}

int lb_capture_next(const struct lb_capture *c, uint64_t *position, uint64_t limit,
		    struct lb_capture_record *ret_record)
{
	uint32_t generation = lb_capture_generation(c);
	uint64_t producer = lb_capture_producer(c);
	int r = position_check(c, *position);
	if (r < 0)
		return r;
	if (limit > producer)
		limit = producer;
	while (*position < limit) {
		const struct lb_capture_entry *e;
		uint32_t flags, bytes;
		r = record_at(c, *position, producer, &flags, &e, &bytes);
		if (r < 0)
			return r;
		if (flags & BPF_RINGBUF_BUSY_BIT)
			return 0;
		uint64_t at = *position, next = record_next(at, bytes);
		if (flags & BPF_RINGBUF_DISCARD_BIT) {
			*position = next;
			continue;
		}
		r = entry_check(c, e, bytes, at);
		if (r < 0)
			return r;
		*position = next;
		if (e->generation != generation && !lb_fault(c, LB_FAULT_KEEP_OLD_GENERATION))
			continue;
		*ret_record = (struct lb_capture_record){
			.position = at,
			.next_position = next,
			.offset_bytes = e->offset_bytes,
			.ktime_ns = e->ktime_ns,
			.data = e->kind == LB_CAPTURE_DATA ? (const uint8_t *)(e + 1) : NULL,
			.length_bytes = e->length_bytes,
			.generation = e->generation,
			.disk = e->disk,
			.kind = e->kind,
		};
		return 1;
	}
	return 0;
}

int lb_capture_acknowledge(struct lb_capture *c, uint64_t position)
{
	int r = position_check(c, position);
	if (r < 0)
		return r;
	lb_store(c->consumer, position);
	return 0;
}

/* After the grace every record of an older generation is committed or discarded, so a busy one is newer. */
int lb_ring_to_marks(struct lb_capture *c, uint64_t from, uint64_t to)
{
	uint32_t generation = lb_capture_generation(c);

	while (from < to) {
		const struct lb_capture_entry *e;
		uint32_t flags, bytes;
		int r = record_at(c, from, to, &flags, &e, &bytes);
		if (r < 0)
			return r;
		if (flags == 0) {
			r = entry_check(c, e, bytes, from);
			if (r < 0)
				return r;
			if (e->generation != generation)
				lb_set_range(c, c->scan, e->disk, e->offset_bytes, e->length_bytes);
		}
		from = record_next(from, bytes);
	}
	return 0;
}
