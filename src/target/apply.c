/* SPDX-License-Identifier: Apache-2.0 */
/* From one point to another. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "target/internal.h"

struct applying {
	struct lb_target *t;
	struct lb_image *image;
	struct lb_delta delta;
	struct lb_undo undo;
	struct lb_target_batch *batch;
	lb_target_progress_fn progress;
	void *arg;
};

static void applying_free(struct applying *a)
{
	if (a->batch != NULL)
		lb_target_batch_free(a->batch);
	lb_undo_close(&a->undo);
	lb_delta_clear(&a->delta);
	if (a->image != NULL)
		lb_image_free(a->image);
	free(a);
}
LB_DEFINE_CLEANUP(struct applying *, applying_free);

static int take(void *arg, uint32_t n, uint64_t offset_bytes, const uint8_t *image, const uint8_t *disk,
		size_t size_bytes)
{
	return lb_target_batch_add(arg, n, offset_bytes, image, disk, size_bytes);
}

static int take_all(struct applying *a)
{
	const struct lb_compare_sink sink = {
		.take = take, .arg = a->batch, .progress = a->progress, .progress_arg = a->arg};
	int r;

	r = lb_compare_disks(a->image, a->t->own_item, a->t->disks, &a->delta, &sink);
	r = r != 0 ? r : lb_target_batch_flush(a->batch);
	for (uint32_t i = 0; r == 0 && i < a->t->own_item->n_disks; i++)
		r = a->t->disks[i].ops->flush(&a->t->disks[i]);
	return r;
}

static int check_disks(struct applying *a)
{
	bool known = a->t->record.applied.position.epoch != 0;
	int r = 0;

	/* while the first point is being written the disks are neither what they were nor what they will be */
	if (!known && a->t->record.goal.position.epoch != 0)
		return 0;
	for (uint32_t i = 0; r == 0 && i < a->t->own_item->n_disks; i++)
		r = known ? lb_target_check_same(a->t, i, a->image) : lb_target_check_disk(a->t, i, a->image);
	return r;
}

static int compare(const struct lb_position *a, const struct lb_position *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/* Oldest first, until those that are left are few enough to make room for one more. */
static int trim_undo(struct lb_target *t, uint32_t keep)
{
	struct lb_target_record *record = &t->record;
	int r = 0;

	while (r == 0 && record->n_undo > keep) {
		uint64_t number = record->undo[0].number;

		memmove(record->undo, record->undo + 1, --record->n_undo * sizeof(*record->undo));
		r = lb_target_record_write(t->env, t->folder, record);
		r = r < 0 ? r : lb_undo_remove(t->env, t->folder, number);
	}
	return r;
}

static int trim_undo_bytes(struct lb_target *t)
{
	struct lb_target_record *record = &t->record;
	uint64_t sum = 0;
	uint32_t keep = 0;

	while (keep < record->n_undo) {
		struct lb_undo undo;
		int r = lb_undo_open(t->env, t->folder, record->undo[record->n_undo - 1 - keep].number, &undo);

		if (r < 0)
			return r;
		sum += undo.size_bytes;
		lb_undo_close(&undo);
		if (sum > t->undo_bytes)
			break;
		keep++;
	}
	return trim_undo(t, keep);
}

/* From a known point, or on from where a step to a point before it was broken off. */
static bool is_forward(const struct lb_target *t, const struct lb_point *point)
{
	const struct lb_target_record *record = &t->record;

	return record->applied.position.epoch != 0 && compare(&point->position, &record->applied.position) >= 0 &&
	       (record->goal.position.epoch == 0 || compare(&point->position, &record->goal.position) >= 0);
}

/*
 * A step forward from a known point keeps the way back. One that was broken off goes on with its own undo file, also to
 * another point after the one it was for; any other way nothing that was kept leads anywhere.
 */
static int begin_step(struct applying *a, const struct lb_point *point, bool forward)
{
	struct lb_target_record *record = &a->t->record;
	bool broken = record->goal.position.epoch != 0;
	bool undo = forward && a->t->undo_points > 0 && a->t->undo_bytes > 0;
	int r = 0;

	if (!forward)
		record->applied = (struct lb_target_point){0};
	if (!undo || (broken && record->n_undo == 0))
		r = trim_undo(a->t, 0);
	else if (!broken) {
		r = trim_undo(a->t, a->t->undo_points - 1);
		record->undo[record->n_undo++] =
			(struct lb_target_undo_entry){.number = record->undo_next++, .point = record->applied};
	}
	record->goal = (struct lb_target_point){.position = point->position, .time_ns = point->time_ns};
	r = r < 0 ? r : lb_target_record_write(a->t->env, a->t->folder, record);
	if (r == 0 && record->n_undo > 0)
		r = lb_undo_open(a->t->env, a->t->folder, record->undo[record->n_undo - 1].number, &a->undo);
	return r;
}

static int end_step(struct lb_target *t)
{
	int r;

	t->record.applied = t->record.goal;
	t->record.goal = (struct lb_target_point){0};
	r = lb_target_record_write(t->env, t->folder, &t->record);
	return r < 0 ? r : trim_undo_bytes(t);
}

static int apply(struct applying *a, const struct lb_point *point, bool dry_run)
{
	struct lb_target *t = a->t;
	struct lb_position since;
	bool forward;
	int r;

	r = lb_image_open(t->vault, &t->item->machine, &point->position, LB_IMAGE_CACHE_BYTES_DEFAULT, &a->image);
	r = r < 0 ? r : check_disks(a);
	if (r < 0)
		return r;
	since = t->record.applied.position;
	forward = is_forward(t, point);
	/* before anything is begun: what the vault has lost, what has no room */
	r = lb_delta_make(a->image, t->own_item, forward ? &since : NULL, false, &a->delta);
	r = r < 0 || forward ? r : lb_target_check_room(t, &a->delta);
	if (r < 0 || dry_run)
		return r;
	r = begin_step(a, point, forward);
	r = r < 0 ? r : lb_target_batch_new(t, a->undo.fd >= 0 ? &a->undo : NULL, &a->batch);
	r = r < 0 ? r : take_all(a);
	if (r == 0)
		lb_fault_server_place("target server, %s, epoch %" PRIu64 ": the disks are written, which is not noted",
				      t->record.machine_name, point->position.epoch);
	return r != 0 ? r : end_step(t);
}

int lb_target_apply(struct lb_target *t, const struct lb_point *point, lb_target_progress_fn progress, void *arg,
		    struct lb_target_stats *ret_stats)
{
	_cleanup_(applying_freep) struct applying *a = calloc(1, sizeof(*a));
	struct lb_image_stats read;
	int r;

	if (a == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	a->t = t;
	a->undo.fd = -1;
	a->progress = progress;
	a->arg = arg;
	r = apply(a, point, false);
	if (r < 0)
		return lb_wrap(r, "machine %s", t->record.machine_name);
	if (r > 0 || ret_stats == NULL)
		return r;
	lb_image_stats(a->image, &read);
	*ret_stats = (struct lb_target_stats){.compared_bytes = a->delta.data_bytes + a->delta.zero_bytes,
					      .written_bytes = lb_target_batch_written(a->batch),
					      .fetched_bytes = read.bytes_read};
	return 0;
}

int lb_target_check(struct lb_target *t, const struct lb_point *point, uint64_t *ret_data_bytes)
{
	_cleanup_(applying_freep) struct applying *a = calloc(1, sizeof(*a));
	int r;

	if (a == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	a->t = t;
	a->undo.fd = -1;
	r = apply(a, point, true);
	if (r < 0)
		return lb_wrap(r, "machine %s", t->record.machine_name);
	*ret_data_bytes = a->delta.data_bytes;
	return 0;
}

/* ---- back ------------------------------------------------------------------------------------------------ */

static int put_back(void *arg, uint16_t disk, uint64_t offset_bytes, const void *old, size_t size_bytes)
{
	struct lb_target *t = arg;
	struct lb_target_disk *d = &t->disks[lb_delta_disk(t->own_item, disk)];

	if (offset_bytes > d->size_bytes || size_bytes > d->size_bytes - offset_bytes)
		return lb_fail(-EBADMSG, "an undo file of %s names bytes past the end of %s", t->folder, d->path);
	return d->ops->pwrite(d, old, size_bytes, offset_bytes);
}

/* Between the newest undo file's point and where the disks are; they may be anywhere there. */
static int begin_back(struct lb_target *t)
{
	struct lb_target_record *record = &t->record;
	const struct lb_target_undo_entry *newest;

	if (record->n_undo == 0)
		return lb_fail(-ENOENT,
			       "%s: no older point is kept at the target; give --point to take one from the vault",
			       record->machine_name);
	newest = &record->undo[record->n_undo - 1];
	if (record->goal.position.epoch != 0)
		return 0;
	record->goal = record->applied;
	record->applied = newest->point;
	return lb_target_record_write(t->env, t->folder, record);
}

int lb_target_back(struct lb_target *t)
{
	struct lb_target_record *record = &t->record;
	struct lb_undo undo;
	uint64_t number;
	int r;

	r = begin_back(t);
	if (r < 0)
		return r;
	number = record->undo[record->n_undo - 1].number;
	r = lb_undo_open(t->env, t->folder, number, &undo);
	if (r < 0)
		return r;
	r = lb_undo_play(&undo, put_back, t);
	lb_undo_close(&undo);
	for (uint32_t i = 0; r == 0 && i < t->own_item->n_disks; i++)
		r = t->disks[i].ops->flush(&t->disks[i]);
	if (r < 0)
		return r;
	record->n_undo--;
	record->goal = (struct lb_target_point){0};
	r = lb_target_record_write(t->env, t->folder, record);
	return r < 0 ? r : lb_undo_remove(t->env, t->folder, number);
}
