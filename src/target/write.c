/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "target/internal.h"

#define BATCH_BYTES (8u << 20)
#define BATCH_RUNS 4096

struct run {
	uint64_t offset_bytes;
	uint32_t size_bytes, at; /* in `fresh` and `old` */
	uint16_t n;              /* of the disk */
	bool zero;
};

struct lb_target_batch {
	struct lb_target *t;
	struct lb_undo *undo; /* NULL: there will be no way back */
	struct run runs[BATCH_RUNS];
	uint32_t n_runs, used_bytes;
	uint64_t written_bytes;
	uint8_t *fresh, *old;
};

int lb_target_batch_new(struct lb_target *t, struct lb_undo *undo, struct lb_target_batch **ret_batch)
{
	_cleanup_(lb_target_batch_freep) struct lb_target_batch *b = calloc(1, sizeof(*b));

	if (b == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	b->t = t;
	b->undo = undo;
	b->fresh = malloc(BATCH_BYTES);
	b->old = undo != NULL ? malloc(BATCH_BYTES) : NULL;
	if (b->fresh == NULL || (undo != NULL && b->old == NULL))
		return lb_fail(-ENOMEM, "out of memory");
	*ret_batch = lb_steal_ptr(b);
	return 0;
}

void lb_target_batch_free(struct lb_target_batch *b)
{
	free(b->fresh);
	free(b->old);
	free(b);
}

uint64_t lb_target_batch_written(const struct lb_target_batch *b)
{
	return b->written_bytes;
}

/* One step that changes more than the way back may take: then there is none over it, nor to anything before. */
static int give_undo_up(struct lb_target_batch *b)
{
	struct lb_target_record *record = &b->t->record;
	uint32_t n = record->n_undo;
	int r;

	record->n_undo = 0;
	r = lb_target_record_write(b->t->env, b->t->folder, record);
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = lb_undo_remove(b->t->env, b->t->folder, record->undo[i].number);
	b->undo = NULL;
	lb_warning("%s: this step changes more than the undo files may hold: until it is done there is no way back",
		   record->machine_name);
	return r;
}

static int keep_old(struct lb_target_batch *b)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < b->n_runs; i++) {
		const struct run *run = &b->runs[i];

		for (uint32_t at = 0; r == 0 && at < run->size_bytes; at += LB_UNDO_DATA_BYTES_MAX)
			r = lb_undo_append(b->undo, b->t->own_item->disks[run->n].id, run->offset_bytes + at,
					   b->old + run->at + at,
					   LB_MIN(run->size_bytes - at, (uint32_t)LB_UNDO_DATA_BYTES_MAX));
	}
	r = r < 0 ? r : lb_undo_sync(b->undo);
	if (r == -ENOSPC || (r == 0 && b->undo->size_bytes > b->t->undo_bytes))
		r = give_undo_up(b);
	return r;
}

/* A test's way to be killed between two writes. */
static void die_if_told(void)
{
#ifdef LB_FAULT_INJECTION
	static unsigned long writes;
	const char *told = getenv("LIFEBOAT_FAULT_TARGET_WRITES");

	if (told != NULL && ++writes > strtoul(told, NULL, 10))
		raise(SIGKILL);
#endif
}

int lb_target_batch_flush(struct lb_target_batch *b)
{
	int r = 0;

	if (b->n_runs > 0 && b->undo != NULL)
		r = keep_old(b);
	for (uint32_t i = 0; r == 0 && i < b->n_runs; i++) {
		const struct run *run = &b->runs[i];
		struct lb_target_disk *d = &b->t->disks[run->n];

		die_if_told();
		r = run->zero ? d->ops->zero(d, run->size_bytes, run->offset_bytes)
			      : d->ops->pwrite(d, b->fresh + run->at, run->size_bytes, run->offset_bytes);
		if (r == 0)
			b->written_bytes += run->size_bytes;
	}
	if (r < 0)
		return r;
	b->n_runs = 0;
	b->used_bytes = 0;
	return 0;
}

static int add_run(struct lb_target_batch *b, uint32_t n, uint64_t offset_bytes, const uint8_t *fresh,
		   const uint8_t *old, size_t size_bytes)
{
	struct run *run;
	int r;

	if (b->n_runs == BATCH_RUNS || b->used_bytes + size_bytes > BATCH_BYTES) {
		r = lb_target_batch_flush(b);
		if (r < 0)
			return r;
	}
	run = &b->runs[b->n_runs++];
	*run = (struct run){.offset_bytes = offset_bytes,
			    .size_bytes = (uint32_t)size_bytes,
			    .at = b->used_bytes,
			    .n = (uint16_t)n,
			    .zero = fresh == NULL};
	if (fresh != NULL)
		memcpy(b->fresh + run->at, fresh, size_bytes);
	if (b->undo != NULL)
		memcpy(b->old + run->at, old, size_bytes);
	b->used_bytes += (uint32_t)size_bytes;
	return 0;
}

struct adding {
	struct lb_target_batch *b;
	uint32_t n;
	uint64_t offset_bytes;
	const uint8_t *fresh, *old;
};

static int add(void *arg, size_t at, size_t size_bytes)
{
	const struct adding *a = arg;

	return add_run(a->b, a->n, a->offset_bytes + at, a->fresh != NULL ? a->fresh + at : NULL, a->old + at,
		       size_bytes);
}

int lb_target_batch_add(struct lb_target_batch *b, uint32_t n, uint64_t offset_bytes, const uint8_t *fresh,
			const uint8_t *old, size_t size_bytes)
{
	struct adding a = {.b = b, .n = n, .offset_bytes = offset_bytes, .fresh = fresh, .old = old};

	return lb_compare_runs(offset_bytes, fresh, old, size_bytes, add, &a);
}
