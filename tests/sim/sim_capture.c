/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of capture/capture.h in memory, with the faults that take single rules out. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "sim/sim.h"

#define HEADER_BYTES 48
#define GRANULE LB_CAPTURE_GRANULE_BYTES
#define CHUNK LB_CAPTURE_CHUNK_BYTES

struct lb_capture {
	struct sim_kernel *k;
	bool resumed;
};

static bool fault(uint32_t f)
{
	return (sim->kernel.faults & f) != 0;
}

/* ---- what the program does --------------------------------------------------------------------------- */

static void mark(bool set[SIM_DISKS][SIM_GRANULES], unsigned int disk, uint64_t offset, uint64_t length)
{
	for (uint64_t g = offset / GRANULE; g <= (offset + length - 1) / GRANULE && g < SIM_GRANULES; g++)
		set[disk][g] = true;
}

static void lose(unsigned int disk, uint64_t offset, uint64_t length)
{
	struct sim_kernel *k = &sim->kernel;

	if (!fault(LB_FAULT_NO_MARK))
		mark(k->bitmap, disk, offset, length);
	if (!fault(LB_FAULT_NO_LOSS_POS) && k->loss_pos == LB_CAPTURE_NO_LOSS)
		k->loss_pos = k->producer;
	if (k->mode == LB_CAPTURE_RUNNING && !fault(LB_FAULT_NO_LOSS_POS))
		k->mode = LB_CAPTURE_DEBT;
}

static void append(const struct sim_write *w, uint64_t length)
{
	struct sim_kernel *k = &sim->kernel;
	struct sim_record *r;

	if (k->n_records == k->room) {
		k->room = k->room > 0 ? k->room * 2 : 64;
		k->records = realloc(k->records, k->room * sizeof(k->records[0]));
		assert(k->records != NULL);
	}
	r = &k->records[k->n_records++];
	*r = (struct sim_record){
		.position = k->producer,
		.next_position = k->producer + HEADER_BYTES + (w->zero ? 0 : length),
		.offset_bytes = w->block * SIM_BLOCK_BYTES,
		.length_bytes = length,
		.generation = w->generation,
		.ktime_ns = w->submitted_ns,
		.disk = w->disk,
		.zero = w->zero,
	};
	k->producer = r->next_position;
	if (w->zero)
		return;
	r->data = malloc(length);
	assert(r->data != NULL);
	for (uint64_t i = 0; i < length; i += 8)
		lb_put_le64(r->data + i, w->value);
}

void sim_kernel_record(struct sim_write *w)
{
	struct sim_kernel *k = &sim->kernel;
	uint64_t offset = w->block * SIM_BLOCK_BYTES, length = w->n_blocks * SIM_BLOCK_BYTES;
	uint64_t need = HEADER_BYTES + (w->zero ? 0 : length);

	sim->disks[w->disk].kernel_bytes += length;
	sim->disks[w->disk].seen_bytes += length;
	sim->disks[w->disk].churn_bytes += length;
	if (!k->attached || w->mode == LB_CAPTURE_OFF)
		return;
	if (w->mode == LB_CAPTURE_RUNNING && k->producer - k->consumer + need <= SIM_RING_BYTES) {
		if (fault(LB_FAULT_DROP_WRITE)) {
			k->faults &= ~(uint32_t)LB_FAULT_DROP_WRITE;
			return;
		}
		append(w, length);
	} else if (w->mode == LB_CAPTURE_DEBT && k->mode == LB_CAPTURE_RUNNING) {
		/* it saw the old word; the flip's grace waits for it before the bitmap is exchanged */
		if (!fault(LB_FAULT_NO_MARK))
			mark(k->bitmap, w->disk, offset, length);
	} else {
		lose(w->disk, offset, length);
	}
}

void sim_kernel_ends(struct sim_write *w, bool failed)
{
	struct sim_kernel *k = &sim->kernel;

	for (uint64_t b = w->block; b < w->block + w->n_blocks; b++) {
		uint64_t chunk = b * SIM_BLOCK_BYTES / CHUNK;

		if (k->inflight[w->disk][chunk] > 0 && --k->inflight[w->disk][chunk] == 0)
			k->ready[w->disk][chunk] = k->generation;
	}
	if (failed && k->attached && !fault(LB_FAULT_NO_FAILURE_DEBT))
		lose(w->disk, w->block * SIM_BLOCK_BYTES, w->n_blocks * SIM_BLOCK_BYTES);
}

static void drop_records(uint64_t before)
{
	struct sim_kernel *k = &sim->kernel;
	size_t n = 0;

	while (n < k->n_records && k->records[n].next_position <= before)
		free(k->records[n++].data);
	if (n > 0)
		memmove(k->records, k->records + n, (k->n_records - n) * sizeof(k->records[0]));
	k->n_records -= n;
}

void sim_kernel_forget(void)
{
	const uint32_t faults = sim->kernel.faults;

	drop_records(UINT64_MAX);
	free(sim->kernel.records);
	memset(&sim->kernel, 0, sizeof(sim->kernel));
	sim->kernel.faults = faults;
}

/* ---- opening ----------------------------------------------------------------------------------------- */

static struct lb_capture *view(bool resumed)
{
	struct lb_capture *c = calloc(1, sizeof(*c));

	assert(c != NULL);
	c->k = &sim->kernel;
	c->resumed = resumed;
	return c;
}

int lb_capture_open(const char *socket_path, struct lb_capture **ret)
{
	(void)socket_path;
	sim_kill_point();
	if (sim->kernel.helper_away)
		return lb_fail(-ECONNREFUSED, "nobody listens");
	if (!sim->kernel.attached)
		return lb_fail(-ENOENT, "nothing is attached");
	*ret = view(true);
	return 0;
}

int lb_capture_attach(const char *socket_path, const struct lb_capture_params *params, struct lb_capture **ret)
{
	struct sim_kernel *k = &sim->kernel;

	(void)socket_path;
	assert(params->disk_count == SIM_DISKS);
	sim_kill_point();
	if (k->helper_away)
		return lb_fail(-ECONNREFUSED, "nobody listens");
	if (k->attached)
		return lb_fail(-EEXIST, "already attached");
	/* queues are drained before counting begins */
	sim_quiesce();
	sim_kernel_forget();
	k->attached = true;
	k->loss_pos = LB_CAPTURE_NO_LOSS;
	for (size_t i = 0; i < sizeof(k->instance.bytes); i++)
		k->instance.bytes[i] = (uint8_t)sim_random();
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		sim->disks[d].seen_bytes = sim->disks[d].kernel_bytes;
	*ret = view(false);
	return 0;
}

void lb_capture_free(struct lb_capture *c)
{
	free(c);
}

int lb_capture_detach(struct lb_capture *c)
{
	(void)c;
	sim_kernel_forget();
	return 0;
}

int lb_capture_detach_pinned(const char *socket_path)
{
	(void)socket_path;
	sim_kernel_forget();
	return 0;
}

void lb_capture_info(const struct lb_capture *c, struct lb_capture_info *ret)
{
	*ret = (struct lb_capture_info){
		.instance = c->k->instance,
		.resumed = c->resumed,
		.epoch_pending = c->k->ready_generation != c->k->generation || c->k->generation == 0,
		.generation = c->k->generation,
		.mode = c->k->mode,
		.ring_bytes = SIM_RING_BYTES,
		.disk_count = SIM_DISKS,
	};
}

int lb_capture_disk(const struct lb_capture *c, unsigned int id, struct lb_capture_disk *ret)
{
	(void)c;
	*ret = (struct lb_capture_disk){.id = (uint16_t)id, .size_bytes = SIM_DISK_BYTES, .logical_block_bytes = 512};
	snprintf(ret->name, sizeof(ret->name), "sim%u", id);
	return 0;
}

int lb_capture_disk_fd(const struct lb_capture *c, unsigned int id)
{
	(void)c;
	return (int)id;
}

/* ---- the ring ---------------------------------------------------------------------------------------- */

uint64_t lb_capture_producer(const struct lb_capture *c)
{
	return c->k->producer;
}

uint64_t lb_capture_consumer(const struct lb_capture *c)
{
	return c->k->consumer;
}

void lb_capture_limit(const struct lb_capture *c, uint64_t *ret_limit, bool *ret_in_debt)
{
	*ret_in_debt = c->k->loss_pos != LB_CAPTURE_NO_LOSS;
	*ret_limit = *ret_in_debt ? c->k->loss_pos : c->k->producer;
	if (fault(LB_FAULT_CUT_PAST_LOSS)) {
		*ret_in_debt = false;
		*ret_limit = c->k->producer;
	}
}

int lb_capture_next(const struct lb_capture *c, uint64_t *position, uint64_t limit, struct lb_capture_record *ret)
{
	for (size_t i = 0; i < c->k->n_records; i++) {
		const struct sim_record *r = &c->k->records[i];

		if (r->position < *position)
			continue;
		if (r->position != *position)
			return lb_fail(-EUCLEAN, "position %lu is no record's beginning", (unsigned long)*position);
		if (*position >= limit)
			return 0;
		*position = r->next_position;
		if (r->generation != c->k->generation && !fault(LB_FAULT_KEEP_OLD_GENERATION))
			continue;
		*ret = (struct lb_capture_record){
			.position = r->position,
			.next_position = r->next_position,
			.offset_bytes = r->offset_bytes,
			.length_bytes = r->length_bytes,
			.data = r->data,
			.generation = r->generation,
			.ktime_ns = (uint64_t)r->ktime_ns,
			.disk = (uint16_t)r->disk,
			.kind = r->zero ? LB_CAPTURE_ZERO : LB_CAPTURE_DATA,
		};
		return 1;
	}
	return 0;
}

int lb_capture_acknowledge(struct lb_capture *c, uint64_t position)
{
	sim_kill_point();
	if (position < c->k->consumer || position > c->k->producer)
		return lb_fail(-EINVAL, "position %lu is not between %lu and %lu", (unsigned long)position,
			       (unsigned long)c->k->consumer, (unsigned long)c->k->producer);
	c->k->consumer = position;
	drop_records(position);
	return 0;
}

/* ---- epochs ------------------------------------------------------------------------------------------ */

/* Programs that run now end: those that read the word before the flip write what they have to. */
static void grace(void)
{
	for (unsigned int i = 0; i < SIM_WRITES_MAX; i++) {
		struct sim_write *w = &sim->writes[i];

		if (w->stage == SIM_SUBMITTED) {
			unsigned int d = w->disk;

			w->value = w->zero ? 0 : sim->next_index;
			for (uint64_t b = w->block; b < w->block + w->n_blocks; b++) {
				struct sim_history *h = &sim->disks[d].history[b];

				if (h->n == h->room) {
					h->room *= 2;
					h->versions = realloc(h->versions, h->room * sizeof(h->versions[0]));
					assert(h->versions != NULL);
				}
				h->versions[h->n++] = (struct sim_version){.index = sim->next_index, .value = w->value};
			}
			w->index = sim->next_index++;
			sim_kernel_record(w);
			w->stage = SIM_RECORDED;
		}
	}
}

int lb_capture_begin_epoch(struct lb_capture *c, bool everything, uint32_t *ret_generation, uint64_t *ret_position)
{
	struct sim_kernel *k = c->k;

	sim_kill_point();
	if (everything)
		memset(k->scan, true, sizeof(k->scan));
	k->loss_pos = LB_CAPTURE_NO_LOSS;
	k->generation++;
	k->mode = LB_CAPTURE_RUNNING;
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (unsigned int i = 0; i < SIM_CHUNKS; i++)
			if (k->inflight[d][i] == 0)
				k->ready[d][i] = k->generation;
	sim_kill_point();
	if (!fault(LB_FAULT_NO_GRACE))
		grace();
	for (size_t i = 0; i < k->n_records; i++)
		if (k->records[i].generation != k->generation && !fault(LB_FAULT_KEEP_OLD_GENERATION))
			mark(k->scan, k->records[i].disk, k->records[i].offset_bytes, k->records[i].length_bytes);
	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (unsigned int g = 0; g < SIM_GRANULES; g++) {
			k->scan[d][g] = k->scan[d][g] || k->bitmap[d][g];
			k->bitmap[d][g] = false;
		}
	if (k->loss_pos != LB_CAPTURE_NO_LOSS)
		return lb_fail(-EAGAIN, "lost again");
	/* the old generation's records are marks now */
	if (!fault(LB_FAULT_KEEP_OLD_GENERATION)) {
		k->consumer = k->producer;
		drop_records(k->producer);
	}
	sim_kill_point();
	k->ready_generation = k->generation;
	*ret_generation = k->generation;
	*ret_position = k->consumer;
	return 0;
}

uint32_t lb_capture_generation(const struct lb_capture *c)
{
	return c->k->generation;
}

enum lb_capture_mode lb_capture_mode(const struct lb_capture *c)
{
	return c->k->mode;
}

int lb_capture_declare_loss(struct lb_capture *c, unsigned int disk, uint64_t offset, uint64_t length)
{
	(void)c;
	lose(disk, offset, length == 0 ? SIM_DISK_BYTES : length);
	return 0;
}

static uint64_t count(bool set[SIM_DISKS][SIM_GRANULES])
{
	uint64_t n = 0;

	for (unsigned int d = 0; d < SIM_DISKS; d++)
		for (unsigned int g = 0; g < SIM_GRANULES; g++)
			n += set[d][g];
	return n * GRANULE;
}

uint64_t lb_capture_debt_bytes(const struct lb_capture *c)
{
	return count(c->k->bitmap);
}

uint64_t lb_capture_note_get(const struct lb_capture *c, unsigned int slot)
{
	return c->k->notes[slot];
}

void lb_capture_note_set(struct lb_capture *c, unsigned int slot, uint64_t value)
{
	sim_kill_point();
	c->k->notes[slot] = value;
}

/* ---- the scan set ------------------------------------------------------------------------------------ */

int lb_capture_scan_next(const struct lb_capture *c, uint64_t cursor, uint64_t length_bytes_max,
			 struct lb_capture_range *ret, uint64_t *ret_cursor)
{
	const uint64_t per_chunk = CHUNK / GRANULE;

	for (uint64_t i = cursor; i < SIM_DISKS * SIM_GRANULES; i++) {
		uint64_t d = i / SIM_GRANULES, g = i % SIM_GRANULES, n = 0;

		if (!c->k->scan[d][g])
			continue;
		while (g + n < SIM_GRANULES && c->k->scan[d][g + n] && (g + n) / per_chunk == g / per_chunk &&
		       (n + 1) * GRANULE <= length_bytes_max)
			n++;
		*ret = (struct lb_capture_range){
			.disk = (uint16_t)d, .offset_bytes = g * GRANULE, .length_bytes = n * GRANULE};
		*ret_cursor = i + n;
		return 1;
	}
	return 0;
}

static void change(struct lb_capture *c, const struct lb_capture_range *range, bool value)
{
	for (uint64_t g = range->offset_bytes / GRANULE; g * GRANULE < range->offset_bytes + range->length_bytes; g++)
		c->k->scan[range->disk][g] = value;
}

void lb_capture_scan_clear(struct lb_capture *c, const struct lb_capture_range *range)
{
	sim_kill_point();
	change(c, range, false);
}

void lb_capture_scan_mark(struct lb_capture *c, const struct lb_capture_range *range)
{
	change(c, range, true);
}

uint64_t lb_capture_scan_bytes(const struct lb_capture *c)
{
	return count(c->k->scan);
}

int lb_capture_chunk_ready(const struct lb_capture *c, const struct lb_capture_range *range)
{
	uint64_t chunk = range->offset_bytes / CHUNK;

	return fault(LB_FAULT_IGNORE_INFLIGHT) || c->k->inflight[range->disk][chunk] == 0 ||
	       c->k->ready[range->disk][chunk] == c->k->generation;
}

int lb_capture_drain(struct lb_capture *c, unsigned int disk, unsigned int timeout_ms)
{
	(void)timeout_ms;
	if (c->k->stuck)
		return lb_fail(-ETIMEDOUT, "the queue did not empty");
	sim_quiesce();
	for (unsigned int i = 0; i < SIM_CHUNKS; i++)
		c->k->ready[disk][i] = c->k->generation;
	return 0;
}

/* ---- watching ---------------------------------------------------------------------------------------- */

int lb_capture_reconcile(struct lb_capture *c, unsigned int id, struct lb_capture_reconciled *ret)
{
	struct sim_disk *disk = &sim->disks[id];

	(void)c;
	*ret = (struct lb_capture_reconciled){.fit = LB_CAPTURE_FIT_OK, .size_bytes = disk->size_bytes, .exact = true};
	if (disk->gone)
		ret->fit = LB_CAPTURE_FIT_GONE;
	else if (disk->size_bytes != SIM_DISK_BYTES)
		ret->fit = LB_CAPTURE_FIT_GROWN;
	else if (disk->kernel_bytes != disk->seen_bytes) {
		ret->fit = LB_CAPTURE_FIT_MISSED;
		ret->missed_bytes = disk->kernel_bytes - disk->seen_bytes;
		/* marked before it is forgotten */
		lose(id, 0, SIM_DISK_BYTES);
		sim_kill_point();
		disk->seen_bytes = disk->kernel_bytes;
		sim_kill_point();
	}
	return 0;
}

int lb_capture_disk_stats(const struct lb_capture *c, unsigned int disk, struct lb_capture_disk_stats *ret)
{
	(void)c;
	*ret = (struct lb_capture_disk_stats){.written_bytes = sim->disks[disk].churn_bytes};
	return 0;
}

void lb_capture_stats(const struct lb_capture *c, struct lb_capture_stats *ret)
{
	(void)c;
	memset(ret, 0, sizeof(*ret));
}

int lb_capture_skipped(struct lb_capture *c, uint64_t *ret)
{
	if (!c->k->attached)
		return lb_fail(-ENODEV, "nothing is attached any more");
	*ret = c->k->skipped;
	return 0;
}

#ifdef LB_FAULT_INJECTION
uint32_t lb_capture_faults(const struct lb_capture *c)
{
	return c->k->faults;
}
#endif
