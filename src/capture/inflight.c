/* SPDX-License-Identifier: Apache-2.0 */
/* Rule 5: a chunk may be read when no write from before the flip is in flight to it. */
#include <errno.h>

#include "base/err.h"
#include "capture/internal.h"

int lb_capture_chunk_ready(const struct lb_capture *c, const struct lb_capture_range *range)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, range->disk);
	if (s == NULL || range->length_bytes == 0 || range->offset_bytes >= s->size_bytes ||
	    range->length_bytes > s->size_bytes - range->offset_bytes)
		return lb_fail(-EINVAL, "capture: a range outside of disk %u", range->disk);
	if (lb_fault(c, LB_FAULT_IGNORE_INFLIGHT) || lb_load(&s->drained_generation) == lb_capture_generation(c))
		return 1;
	uint64_t first = range->offset_bytes >> LB_CAPTURE_CHUNK_SHIFT;
	uint64_t last = (range->offset_bytes + range->length_bytes - 1) >> LB_CAPTURE_CHUNK_SHIFT;
	for (uint64_t i = first; i <= last; i++)
		if (__atomic_load_n(&c->inflight[s->first_chunk + i], __ATOMIC_SEQ_CST) > 0)
			return 0;
	return 1;
}

int lb_capture_drain(struct lb_capture *c, unsigned int disk, unsigned int timeout_ms)
{
	if (lb_disk_slot(c, disk) == NULL)
		return lb_fail(-ENOENT, "capture has no disk %u", disk);
	uint64_t generation = lb_capture_generation(c);
	int r = c->ops->drain(c, disk, timeout_ms);
	if (r < 0)
		return r;
	lb_store(&c->control->disk[disk].drained_generation, generation);
	return 0;
}
