/* SPDX-License-Identifier: Apache-2.0 */
/* Generations: how an epoch begins (rule 4), and how user space declares a loss. */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/err.h"
#include "capture/internal.h"

uint32_t lb_capture_generation(const struct lb_capture *c)
{
	return (uint32_t)(lb_load(&c->control->word) >> 32);
}

enum lb_capture_mode lb_capture_mode(const struct lb_capture *c)
{
	return (enum lb_capture_mode)(uint32_t)lb_load(&c->control->word);
}

/* The kernel's global membarrier is an RCU grace period, but none where one CPU is online or CPUs run tickless. */
int lb_grace_membarrier(void)
{
	if (get_nprocs() < 2 || syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		return -EOPNOTSUPP;
	return 0;
}

static int grace(struct lb_capture *c)
{
	if (lb_fault(c, LB_FAULT_NO_GRACE) || lb_grace_membarrier() == 0)
		return 0;
	return c->ops->grace(c);
}

/*
 * One flip. The records that the ring still holds become marks only after the grace: until then a program that saw the
 * old generation may still add one.
 */
static int flip(struct lb_capture *c, uint64_t *ret_position)
{
	struct lb_capture_control *k = c->control;
	uint32_t generation = lb_capture_generation(c) + 1;

	lb_store(&k->loss_pos, LB_CAPTURE_NO_LOSS);
	lb_store(&k->word, (uint64_t)generation << 32 | LB_CAPTURE_RUNNING);
	int r = grace(c);
	if (r < 0)
		return r;
	uint64_t position = lb_capture_consumer(c), producer = lb_capture_producer(c);
	if (!lb_fault(c, LB_FAULT_KEEP_OLD_GENERATION)) {
		r = lb_ring_to_marks(c, position, producer);
		if (r < 0)
			return r;
	}
	lb_bitmap_exchange(c);
	*ret_position = position;
	return 0;
}

/* Gives back what stands before the first record that is new or not yet complete. */
static int skip_old(struct lb_capture *c, uint64_t *position)
{
	struct lb_capture_record record;
	uint64_t at = *position;

	int r = lb_capture_next(c, &at, lb_capture_producer(c), &record);
	if (r < 0)
		return r;
	*position = r == 1 ? record.position : at;
	return lb_capture_acknowledge(c, *position);
}

int lb_capture_begin_epoch(struct lb_capture *c, bool everything, uint32_t *ret_generation, uint64_t *ret_position)
{
	struct lb_capture_control *k = c->control;
	uint64_t position;

	if (everything)
		lb_scan_everything(c);
	for (int i = 0; i < LB_CAPTURE_BEGIN_TRIES; i++) {
		int r = flip(c, &position);
		if (r < 0)
			return r;
		/* A mark made by a loss after the flip may be in the scan set now, where captured data would hide it.
		 */
		if (lb_load(&k->loss_pos) != LB_CAPTURE_NO_LOSS)
			continue;
		r = skip_old(c, &position);
		if (r < 0)
			return r;
		lb_store(&k->epoch_ready, lb_capture_generation(c));
		*ret_generation = lb_capture_generation(c);
		*ret_position = position;
		return 0;
	}
	return lb_fail(-EAGAIN,
		       "writes were lost again while a new epoch began, %d times; the ring of %llu "
		       "bytes is too small for this load",
		       LB_CAPTURE_BEGIN_TRIES, k->ring_bytes);
}

int lb_capture_declare_loss(struct lb_capture *c, unsigned int disk, uint64_t offset_bytes, uint64_t length_bytes)
{
	struct lb_capture_control *k = c->control;
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, disk);
	if (s == NULL)
		return lb_fail(-ENOENT, "capture has no disk %u", disk);
	if (length_bytes == 0) {
		offset_bytes = 0;
		length_bytes = s->size_bytes;
	}
	__u64 none = LB_CAPTURE_NO_LOSS;
	__atomic_compare_exchange_n(&k->loss_pos, &none, lb_capture_producer(c), false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	lb_set_range(c, c->bitmap, disk, offset_bytes, length_bytes);
	__atomic_fetch_add(&k->reason[LB_REASON_DECLARED], 1, __ATOMIC_SEQ_CST);
	__u64 word = lb_load(&k->word);
	while ((uint32_t)word == LB_CAPTURE_RUNNING &&
	       !__atomic_compare_exchange_n(&k->word, &word, (word & ~0xffffffffULL) | LB_CAPTURE_DEBT, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return 0;
}

#ifdef LB_FAULT_INJECTION
void lb_capture_set_faults(struct lb_capture *c, uint32_t faults)
{
	__atomic_store_n(&c->control->faults, faults, __ATOMIC_SEQ_CST);
}

uint32_t lb_capture_faults(const struct lb_capture *c)
{
	return __atomic_load_n(&c->control->faults, __ATOMIC_SEQ_CST);
}
#endif
