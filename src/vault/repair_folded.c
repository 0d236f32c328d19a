/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repair of what was folded. A span whose map is lost gets a map in its place that has as lost what the span may have
 * written, so that what was written since can be read; a lost object stays in the maps, and a record says which points
 * lack what it held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vault/repair_parts.h"
#include "vault/replay.h"
#include "vault/span.h"

#define DAMAGED_MAX 4096 /* objects told one by one */

static struct lb_position after_span(const struct lb_manifest *m, size_t i)
{
	if (i == 0)
		return (struct lb_position){0};
	return (struct lb_position){.epoch = m->spans[i - 1].point.position.epoch,
				    .seq = m->spans[i - 1].point.position.seq + 1};
}

/* A record of a place that no chain goes through. */
static struct lb_repair *record_new(const struct lb_manifest *m, size_t span, uint64_t number)
{
	struct lb_repair *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->place = (struct lb_place){.epoch = m->spans[span].point.position.epoch,
				     .number = LB_REPAIR_FOLDED | (number & (LB_REPAIR_FOLDED - 1))};
	r->from = after_span(m, span);
	return r;
}

/* ---- maps ------------------------------------------------------------------------------------------------ */

static int replace_map(struct lb_repair_work *w, struct lb_manifest *m, size_t i, struct lb_repair *record)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	int r;

	r = lb_map_new(&map);
	if (r == 0)
		r = lb_repair_apply(record, map);
	if (r == 0)
		r = lb_repair_put(w->v, &w->machine, record);
	return r < 0 ? r : lb_span_put(w->v, &w->machine, m->version + 1, map, &m->spans[i]);
}

static int lost_span(struct lb_repair_work *w, struct lb_manifest *m, size_t i, bool *replaced)
{
	_cleanup_(lb_repair_freep) struct lb_repair *record = record_new(m, i, m->spans[i].map);
	int r;

	if (record == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	r = lb_repair_find_ranges(w, record);
	if (r == 0 && !w->dry_run)
		r = replace_map(w, m, i, record);
	if (r < 0)
		return r;
	*replaced = true;
	return lb_repair_add_record(w, lb_steal_ptr(record), false);
}

/* ---- data ------------------------------------------------------------------------------------------------ */

struct damaged {
	struct lb_place object; /* as in a map's segment; epoch 0 for rewritten data */
	struct lb_repair *record;
};

struct looking {
	struct lb_repair_work *w;
	const struct lb_manifest *m;
	size_t span;
	const struct lb_map *map;
	uint16_t disk;
	uint8_t *state; /* of the map's segments: 0 not looked at, 1 whole, 2 lost */
	bool **frames;  /* of those that are whole but for frames: which are lost */
	struct damaged *damaged;
	size_t n_damaged;
};

static bool is_frame_lost(struct lb_repair_work *w, const char *object, const struct lb_map_segment *place,
			  const struct lb_hrl_segment *s, uint32_t frame, uint8_t *raw, int *error)
{
	_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_frame_place at;
	int r = lb_hrl_frame_place(s, frame, &at);

	if (r == 0 && at.raw_bytes > LB_HRL_FRAME_BYTES_MAX)
		return true;
	if (r == 0)
		r = lb_store_get(w->v->store, object, place->offset_bytes + at.offset_bytes, at.stored_bytes, &stored);
	if (r == 0)
		r = lb_hrl_frame_open(s, frame, stored.data, stored.size_bytes, raw);
	*error = r < 0 && !lb_verify_is_damage(r) ? r : 0;
	return lb_verify_is_damage(r);
}

static int look_at_frames(struct looking *l, uint32_t segment, const char *object, const struct lb_hrl_segment *s)
{
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	bool *lost = calloc(lb_hrl_frames(s) + 1, sizeof(*lost));
	int r = 0;

	l->frames[segment] = lost;
	if (raw == NULL || lost == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	for (uint32_t i = 0; r == 0 && i < lb_hrl_frames(s); i++)
		lost[i] = is_frame_lost(l->w, object, lb_map_segment(l->map, segment), s, i, raw, &r);
	return r;
}

static int look_at_segment(struct looking *l, uint32_t segment)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	const struct lb_map_segment *place = lb_map_segment(l->map, segment);
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(object, &l->w->machine, place);
	if (r == 0)
		r = lb_segment_read(l->w->v, &l->w->machine, place, &s);
	l->state[segment] = lb_verify_is_damage(r) ? 2 : 1;
	if (r == 0 && l->w->deep)
		r = look_at_frames(l, segment, object, s);
	return lb_verify_is_damage(r) ? 0 : r;
}

/* The record of a lost object, made at the first span that refers to it. */
static int record_of(struct looking *l, const struct lb_map_segment *s, struct lb_repair **ret)
{
	struct lb_place object = {.epoch = (s->object & LB_FOLDED_OBJECT) != 0 ? 0 : s->epoch, .number = s->object};
	struct damaged *grown;

	for (size_t i = 0; i < l->n_damaged; i++)
		if (memcmp(&l->damaged[i].object, &object, sizeof(object)) == 0) {
			*ret = l->damaged[i].record;
			return 0;
		}
	if (l->n_damaged >= DAMAGED_MAX)
		return lb_fail(-EOVERFLOW, "more than %d objects of the folded journal are lost", DAMAGED_MAX);
	grown = reallocarray(l->damaged, l->n_damaged + 1, sizeof(*grown));
	if (grown == NULL)
		return lb_fail(-ENOMEM, "out of memory for a list of lost objects");
	l->damaged = grown;
	*ret = record_new(l->m, l->span, object.number ^ object.epoch << 24);
	if (*ret == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	(*ret)->is_exact = true;
	(*ret)->folded = object;
	l->damaged[l->n_damaged++] = (struct damaged){.object = object, .record = *ret};
	return 0;
}

static int look_at_extent(void *arg, const struct lb_map_extent *x)
{
	struct looking *l = arg;
	struct lb_repair *record;
	int r = 0;

	if (!lb_hrl_kind_has_data(x->kind))
		return 0;
	if (l->state[x->segment] == 0)
		r = look_at_segment(l, x->segment);
	if (r < 0 || (l->state[x->segment] == 1 && (l->frames[x->segment] == NULL || !l->frames[x->segment][x->frame])))
		return r;
	r = record_of(l, lb_map_segment(l->map, x->segment), &record);
	return r < 0 ? r : lb_repair_add_range(record, l->disk, x->start, x->sectors);
}

static int look_at_map(struct looking *l, const struct lb_map *map)
{
	uint32_t n = lb_map_segments(map);
	int r = 0;

	l->map = map;
	l->state = calloc(n + 1, sizeof(*l->state));
	l->frames = calloc(n + 1, sizeof(*l->frames));
	if (l->state == NULL || l->frames == NULL)
		r = lb_fail(-ENOMEM, "out of memory for a look at a span");
	for (uint32_t i = 0; r == 0 && i < lb_map_disks(map); i++) {
		l->disk = lb_map_disk_id(map, i);
		r = lb_map_walk(map, l->disk, 0, LB_REPAIR_SECTORS_MAX, look_at_extent, l);
	}
	for (uint32_t i = 0; l->frames != NULL && i < n; i++)
		free(l->frames[i]);
	free(l->frames);
	free(l->state);
	l->frames = NULL;
	l->state = NULL;
	return r;
}

static bool same_ranges(const struct lb_repair *a, const struct lb_repair *b)
{
	bool same = a->n_ranges == b->n_ranges;

	for (size_t i = 0; same && i < a->n_ranges; i++)
		same = a->ranges[i].disk == b->ranges[i].disk && a->ranges[i].start == b->ranges[i].start &&
		       a->ranges[i].sectors == b->ranges[i].sectors;
	return same;
}

static int add_damaged(struct lb_repair_work *w, struct looking *l)
{
	int r = 0;

	for (size_t i = 0; i < l->n_damaged; i++) {
		_cleanup_(lb_repair_freep) struct lb_repair *record = l->damaged[i].record, *there = NULL;
		bool is_known = false;

		if (r == 0) {
			lb_repair_bound_ranges(record);
			r = lb_repair_read(w->v, &w->machine, &record->place, &there);
			is_known = r == 0 && same_ranges(record, there);
			r = r == -ENOENT || r == -EBADMSG ? 0 : r;
		}
		if (r == 0) {
			record->until = is_known ? there->until : record->until;
			r = lb_repair_add_record(w, lb_steal_ptr(record), is_known);
		}
	}
	free(l->damaged);
	l->damaged = NULL;
	l->n_damaged = 0;
	return r;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

/* Records of spans whose maps were replaced: since when all is whole again may have changed. */
static int take_up_records(struct lb_repair_work *w)
{
	_cleanup_(lb_repairs_free) struct lb_repairs list = {0};
	int r = lb_repairs_read(w->v, &w->machine, &list);

	for (size_t i = 0; r == 0 && i < list.n; i++) {
		struct lb_repair *record = list.r[i];

		if ((record->place.number & LB_REPAIR_FOLDED) == 0 || lb_repair_is_of_data(record))
			continue;
		list.r[i] = NULL;
		r = lb_repair_add_record(w, record, true);
	}
	return r;
}

static int look_at_span(struct looking *l, struct lb_manifest *m, size_t i, bool *replaced)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	int r;

	l->span = i;
	r = lb_span_load(l->w->v, &l->w->machine, &m->spans[i], &map);
	if (lb_verify_is_damage(r))
		return lost_span(l->w, m, i, replaced);
	return r < 0 ? r : look_at_map(l, map);
}

int lb_repair_spans(struct lb_repair_work *w, struct lb_manifest *m)
{
	struct looking l = {.w = w, .m = m};
	bool replaced = false;
	int r, added;

	w->cut = m->cut;
	r = take_up_records(w);
	for (size_t i = 0; r == 0 && i < m->n_spans; i++) {
		if ((m->spans[i].point.flags & LB_HRL_POINT) != 0)
			r = lb_repair_add_end(&w->ends, &m->spans[i].point.position);
		if (r == 0)
			r = look_at_span(&l, m, i, &replaced);
	}
	added = add_damaged(w, &l);
	if (r == 0)
		r = added;
	if (r < 0 || !replaced || w->dry_run)
		return r;
	m->version++;
	r = lb_manifest_put(w->v, &w->machine, m);
	return r == -EEXIST ? lb_fail(-EAGAIN, "the journal was folded while it is repaired; try again") : r;
}
