/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/*
 * The capture program: sees each request that is given to a protected disk and, before the disk does, copies its data
 * into the ring, or marks its range in the bitmap when it can't. The rules that make a loss impossible to overlook are
 * in docs/architecture.md ("No silent loss"); the comments here name them.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "account.bpf.h"
#include "record.bpf.h"
#include "twice.bpf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define LB_BIOS_MAX (1u << 16) /* in one request */

static __always_inline void count_cost(struct lb_capture_control *c, __u64 start_ns)
{
	__u64 cost = bpf_ktime_get_ns() - start_ns;
	__u32 bucket = 0;

	if (cost >> 16)
		bucket += 16;
	if (cost >> (bucket + 8))
		bucket += 8;
	if (cost >> (bucket + 4))
		bucket += 4;
	if (cost >> (bucket + 2))
		bucket += 2;
	if (cost >> (bucket + 1))
		bucket += 1;
	__sync_fetch_and_add(&c->cost[bucket & (LB_CAPTURE_COST_BUCKETS - 1)], 1);
	__sync_fetch_and_add(&c->cost_ns_total, cost);
	__sync_fetch_and_add(&c->cost_count, 1);
}

/* 1 once: the write that a test makes vanish. */
static __always_inline int dropped(struct lb_capture_control *c)
{
	if (!lb_faulty(c, LB_FAULT_DROP_WRITE))
		return 0;
	__u32 faults = c->faults;
	return __sync_val_compare_and_swap(&c->faults, faults, faults & ~LB_FAULT_DROP_WRITE) == faults;
}

/* In debt: what the mode said when the request came counts, also when a new generation began since; the grace waits for
 * us. */
static __always_inline int mark_only(struct lb_capture_control *c, __u32 id, __u64 offset, __u32 length)
{
	struct lb_capture_disk_slot *slot = lb_slot(c, id);

	__sync_fetch_and_add(&slot->lost_bytes, length);
	__sync_fetch_and_add(&slot->lost_requests, 1);
	if (!lb_faulty(c, LB_FAULT_NO_MARK))
		lb_mark_range(id, offset, length);
	return 0;
}

#ifdef LB_FAULT_INJECTION
#define LB_SLOW_NS 200000000ULL

static long dawdle_step(__u32 i, void *until)
{
	return bpf_ktime_get_ns() >= *(__u64 *)until;
}

static __noinline int dawdle(void)
{
	__u64 until = bpf_ktime_get_ns() + LB_SLOW_NS;

	bpf_loop(1u << 23, dawdle_step, &until, 0);
	return 0;
}
#endif

/* Takes one range in the mode that stands now. Rule 1: the in-flight counter first, then the mode. */
__noinline int take_range(__u32 id, __u64 offset, __u32 length, __u64 bio, __u32 how)
{
	struct lb_capture_control *c = lb_control();
	if (c == 0)
		return 0;
	struct lb_capture_disk_slot *slot = lb_slot(c, id);
	struct lb_range r = {.offset = offset, .length = length, .id = id & (LB_CAPTURE_DISKS_MAX - 1)};
	__u32 reason;

	r.start_ns = bpf_ktime_get_ns();
	lb_flight_range(id, offset, length, 0);
	__u64 word = *(volatile __u64 *)&c->word;
	r.generation = word >> 32;
#ifdef LB_FAULT_INJECTION
	if (lb_faulty(c, LB_FAULT_SLOW))
		dawdle();
#endif
	if ((__u32)word == LB_CAPTURE_OFF)
		return 0;
	if (length > slot->size_bytes || offset > slot->size_bytes - length)
		return lb_lose(id, offset, length, LB_REASON_OUT_OF_RANGE);
	if ((__u32)word != LB_CAPTURE_RUNNING)
		return mark_only(c, id, offset, length);
	if (dropped(c))
		return 0;
	reason = bio != 0 ? lb_record_data(&r, bio, how) : lb_record_zero(&r);
	if (reason != LB_REASONS)
		return lb_lose(id, offset, length, reason);
	__sync_fetch_and_add(&slot->captured_bytes, length);
	__sync_fetch_and_add(&slot->captured_requests, 1);
	count_cost(c, r.start_ns);
	return 0;
}

/* A request of discards may hold several ranges, one in each bio; every other request is one range. */
struct discard_walk {
	__u64 bio;
	__u64 left;
	__u32 id;
	__u32 ended; /* 0: taken now, 1: completed, 2: failed */
};

static long discard_step(__u32 i, void *arg)
{
	struct discard_walk *w = arg;
	struct bio *bio = (void *)w->bio;
	struct lb_iter iter;

	if (bio == 0 || w->left == 0 || lb_bio_iter(w->bio, &iter) != 0)
		return 1;
	__u32 length = iter.size < w->left ? iter.size : w->left;
	w->left -= length;
	w->bio = (__u64)BPF_CORE_READ(bio, bi_next);
	if (w->ended)
		lb_ended(w->id, iter.sector << LB_SECTOR_SHIFT, length, w->ended == 2);
	else if (length != 0)
		take_range(w->id, iter.sector << LB_SECTOR_SHIFT, length, 0, 0);
	return 0;
}

__noinline int walk_discard(__u32 id, __u64 bio, __u32 length, __u32 ended)
{
	struct discard_walk w = {.bio = bio, .left = length, .id = id, .ended = ended};

	bpf_loop(LB_BIOS_MAX, discard_step, &w, 0);
	/* What the walk could not follow may be anywhere. */
	if (w.left != 0)
		lb_lose(id, 0, ~0ULL, LB_REASON_UNREADABLE);
	return 0;
}

static __always_inline void lose_disk(__u32 id, enum lb_op op)
{
	lb_lose(id, 0, ~0ULL, op == LB_OP_PASSTHROUGH ? LB_REASON_PASSTHROUGH : LB_REASON_UNKNOWN_OP);
}

/* The protected disk of a device number. Bio-based disks are seen at block_bio_queue, the others at block_rq_issue. */
static __always_inline int protected_disk(struct lb_capture_control *c, __u32 device, __u32 bio_based, __u32 *ret_id)
{
	__u32 *id = bpf_map_lookup_elem(&disks, &device);

	if (id == 0 || lb_slot(c, *id)->bio_based != bio_based)
		return 0;
	*ret_id = *id;
	return 1;
}

static __always_inline void count_seen(struct lb_capture_disk_slot *slot, enum lb_op op, __u64 bytes)
{
	__sync_fetch_and_add(op == LB_OP_DISCARD ? &slot->seen_discard_bytes : &slot->seen_write_bytes, bytes);
}

static __noinline int take_request(struct request *rq, __u32 how)
{
	struct lb_capture_control *c = lb_control();
	enum lb_op op = lb_op_of(rq->cmd_flags);
	__u32 id;

	if (op == LB_OP_IGNORE || c == 0 || !protected_disk(c, lb_request_device(rq), 0, &id))
		return 0;
	if (op == LB_OP_PASSTHROUGH || op == LB_OP_UNKNOWN) {
		lose_disk(id, op);
		return 1;
	}
	__u32 length = rq->__data_len;
	__u64 offset = rq->__sector << LB_SECTOR_SHIFT;
	__u64 bio = (__u64)BPF_CORE_READ(rq, bio);
	if (length == 0)
		return 0;
	count_seen(lb_slot(c, id), op, length);
	if (op == LB_OP_DISCARD)
		walk_discard(id, bio, length, 0);
	else
		take_range(id, offset, length, op == LB_OP_WRITE ? bio : 0, how | LB_HOW_CHAIN);
	return 1;
}

/* Rule 2: completions and requeues take back what the issue added, byte for byte. */
static __noinline int end_request(struct request *rq, __u32 bytes, __u32 failed, __u32 requeued)
{
	struct lb_capture_control *c = lb_control();
	enum lb_op op = lb_op_of(rq->cmd_flags);
	__u32 id;

	if (op == LB_OP_IGNORE || op == LB_OP_PASSTHROUGH || op == LB_OP_UNKNOWN || c == 0)
		return 0;
	if (!protected_disk(c, lb_request_device(rq), 0, &id))
		return 0;
	/* Never given to the disk: it was not counted, and a failure of it wrote nothing. */
	if (!lb_request_started(rq))
		return 1;
	__u32 length = bytes < rq->__data_len ? bytes : rq->__data_len;
	/* A failed flush after the data: what the disk holds of earlier writes is unknown. */
	if (length == 0 && failed)
		lb_lose(id, 0, ~0ULL, LB_REASON_FAILED);
	if (length == 0)
		return 1;
	if (requeued)
		count_seen(lb_slot(c, id), op, -(__u64)length);
	if (op == LB_OP_DISCARD)
		walk_discard(id, (__u64)BPF_CORE_READ(rq, bio), length, failed ? 2 : 1);
	else
		lb_ended(id, rq->__sector << LB_SECTOR_SHIFT, length, failed);
	return 1;
}

static __noinline int take_bio(struct bio *bio, __u64 key, __u32 how)
{
	struct lb_capture_control *c = lb_control();
	enum lb_op op = lb_op_of(bio->bi_opf);
	__u32 id;

	if (op == LB_OP_IGNORE || c == 0 || !protected_disk(c, lb_bio_device(bio), 1, &id))
		return 0;
	if (op == LB_OP_PASSTHROUGH || op == LB_OP_UNKNOWN) {
		lose_disk(id, op);
		return 1;
	}
	struct lb_bio_flight flight = {
		.offset_bytes = bio->bi_iter.bi_sector << LB_SECTOR_SHIFT,
		.length_bytes = bio->bi_iter.bi_size,
		.disk = id,
	};
	if (flight.length_bytes == 0)
		return 0;
	count_seen(lb_slot(c, id), op, flight.length_bytes);
	if (bpf_map_update_elem(&bios, &key, &flight, BPF_ANY) != 0)
		lb_lose(id, flight.offset_bytes, flight.length_bytes, LB_REASON_TABLE_FULL);
	take_range(id, flight.offset_bytes, flight.length_bytes, op == LB_OP_WRITE ? key : 0, how);
	return 1;
}

static __noinline int end_bio(struct bio *bio, __u64 key)
{
	struct lb_bio_flight *found = bpf_map_lookup_elem(&bios, &key);

	if (found == 0)
		return 0;
	struct lb_bio_flight flight = *found;
	bpf_map_delete_elem(&bios, &key);
	lb_ended(flight.disk, flight.offset_bytes, flight.length_bytes, bio->bi_status != 0);
	return 1;
}

/* An argument's address as a number: the verifier follows typed pointers and allows no arithmetic on them. */
static __always_inline __u64 address_of(const void *argument)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), argument);
	return address;
}

/* Every program twice: see twice.bpf.h. `call` returns whether the event was one of ours. */
#define LB_FIRST(object, event, call)                                                                                  \
	if (call)                                                                                                      \
		lb_note_push(object, event);                                                                           \
	return 0

#define LB_SECOND(object, event, call)                                                                                 \
	__u32 depth = 0;                                                                                               \
	if (!lb_note_pop(object, event, &depth))                                                                       \
		call;                                                                                                  \
	lb_note_cut(depth);                                                                                            \
	return 0

SEC("tp_btf/block_rq_issue")
int BPF_PROG(issue_first, struct request *rq)
{
	LB_FIRST(rq, LB_EVENT_ISSUE, take_request(rq, LB_HOW_REQUEST));
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(issue_second, struct request *rq)
{
	LB_SECOND(rq, LB_EVENT_ISSUE, take_request(rq, LB_HOW_REQUEST | LB_HOW_SECOND));
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(complete_first, struct request *rq, int error, unsigned int bytes)
{
	LB_FIRST(rq, LB_EVENT_COMPLETE, end_request(rq, bytes, (error & 0xff) != 0, 0));
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(complete_second, struct request *rq, int error, unsigned int bytes)
{
	LB_SECOND(rq, LB_EVENT_COMPLETE, end_request(rq, bytes, (error & 0xff) != 0, 0));
}

SEC("tp_btf/block_rq_requeue")
int BPF_PROG(requeue_first, struct request *rq)
{
	LB_FIRST(rq, LB_EVENT_REQUEUE, end_request(rq, ~0u, 0, 1));
}

SEC("tp_btf/block_rq_requeue")
int BPF_PROG(requeue_second, struct request *rq)
{
	LB_SECOND(rq, LB_EVENT_REQUEUE, end_request(rq, ~0u, 0, 1));
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(bio_queue_first, struct bio *bio)
{
	LB_FIRST(bio, LB_EVENT_BIO_QUEUE, take_bio(bio, address_of(&ctx[0]), LB_HOW_BIO));
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(bio_queue_second, struct bio *bio)
{
	LB_SECOND(bio, LB_EVENT_BIO_QUEUE, take_bio(bio, address_of(&ctx[0]), LB_HOW_BIO | LB_HOW_SECOND));
}

SEC("tp_btf/block_bio_complete")
int BPF_PROG(bio_complete_first, struct request_queue *q, struct bio *bio)
{
	LB_FIRST(bio, LB_EVENT_BIO_COMPLETE, end_bio(bio, address_of(&ctx[1])));
}

SEC("tp_btf/block_bio_complete")
int BPF_PROG(bio_complete_second, struct request_queue *q, struct bio *bio)
{
	LB_SECOND(bio, LB_EVENT_BIO_COMPLETE, end_bio(bio, address_of(&ctx[1])));
}
