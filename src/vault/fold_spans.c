/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an earlier version announced: doomed spans are merged with the next one, and the journal up to the next cut
 * becomes spans. Both are work on indexes: no data moves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/chain.h"
#include "vault/fold_parts.h"
#include "vault/replay.h"

/* A merge that would rewrite a large map for small ones waits until these are some, or together a sixteenth of it. */
#define MERGE_WAIT_RATIO 16
#define MERGE_WAIT_SPANS 8
#define TAIL_BYTES_MAX (1u << 20)

struct building {
	struct lb_fold *f;
	struct lb_span *spans; /* of the new version */
	size_t n, room;
	struct lb_map *map; /* of the span under way; NULL: nothing yet */
	struct lb_chain chain;
	struct lb_point *ends; /* where spans of the journal end, rising */
	size_t n_ends, end_next;
	uint64_t point_epoch; /* of the journal's point just passed; 0: none */
};

static void building_free(struct building *b)
{
	free(b->spans);
	free(b->ends);
	if (b->map != NULL)
		lb_map_free(b->map);
}

static int add_span(struct building *b, const struct lb_span *span)
{
	if (b->n == b->room) {
		size_t room = b->room > 0 ? 2 * b->room : 64;
		struct lb_span *grown = reallocarray(b->spans, room, sizeof(*grown));

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for spans");
		b->spans = grown;
		b->room = room;
	}
	b->spans[b->n++] = *span;
	return 0;
}

/* Lays an old span over what is under way; its own map goes. */
static int absorb(struct building *b, const struct lb_span *span)
{
	_cleanup_(lb_map_freep) struct lb_map *one = NULL;
	int r;

	r = lb_span_load(b->f->v, b->f->machine, span, &one);
	if (r == 0)
		r = lb_fold_account(b->f, one, -1);
	if (r == 0)
		r = lb_fold_drop_map(b->f, span);
	if (r == 0)
		r = lb_fold_pace(b->f, span->map_bytes);
	if (r < 0)
		return r;
	b->f->changed = true;
	if (b->map != NULL)
		return lb_map_overlay(b->map, one);
	b->map = lb_steal_ptr(one);
	return 0;
}

/* What is under way ends here. */
static int finish(struct building *b, const struct lb_point *point)
{
	struct lb_span span = {.point = *point};
	int r = 0;

	if (b->map == NULL)
		r = lb_map_new(&b->map);
	if (r == 0)
		r = lb_fold_put_map(b->f, b->map, &span);
	if (r < 0)
		return r;
	lb_map_free(lb_steal_ptr(b->map));
	b->f->changed = true;
	return add_span(b, &span);
}

static bool is_point(const struct lb_span *s)
{
	return (s->point.flags & LB_HRL_POINT) != 0;
}

/* Whether [from, to], which ends at the cut, is laid under what the journal adds; a large map stays as it is. */
static bool may_go_on(const struct lb_fold *f, size_t from, size_t to)
{
	uint64_t bytes = 0;

	for (size_t i = from; i <= to; i++)
		bytes += f->old->spans[i].map_bytes;
	return bytes <= TAIL_BYTES_MAX || to - from >= MERGE_WAIT_SPANS;
}

/* Whether [from, to] is worth merging now. */
static bool is_worth(const struct lb_fold *f, size_t from, size_t to)
{
	uint64_t largest = 0, sum = 0;

	for (size_t i = from; i <= to && i < f->old->n_spans; i++) {
		largest = LB_MAX(largest, f->old->spans[i].map_bytes);
		sum += f->old->spans[i].map_bytes;
	}
	return to - from >= MERGE_WAIT_SPANS || (sum - largest) * MERGE_WAIT_RATIO >= largest;
}

static bool must_merge(const struct lb_fold *f, size_t i)
{
	const struct lb_span *s = &f->old->spans[i];

	return !is_point(s) || (s->doomed && !lb_fold_is_pinned(f, &s->point.position));
}

/* [from, to] stay as they are; what was pinned is doomed no more. */
static int keep(struct building *b, size_t from, size_t to)
{
	int r = 0;

	for (size_t i = from; r == 0 && i <= to; i++) {
		struct lb_span span = b->f->old->spans[i];

		span.doomed = span.doomed && must_merge(b->f, i);
		b->f->changed = b->f->changed || span.doomed != b->f->old->spans[i].doomed;
		r = add_span(b, &span);
	}
	return r;
}

/* [from, to] become one, which ends as the last did; `open`: which goes on into the journal. */
static int join(struct building *b, size_t from, size_t to, bool open)
{
	struct lb_point end = b->f->old->spans[to].point;
	int r = 0;

	if (must_merge(b->f, to))
		end.flags = 0;
	for (size_t i = from; r == 0 && i <= to; i++) {
		if (is_point(&b->f->old->spans[i]) && must_merge(b->f, i))
			b->f->report.points_pruned++;
		r = absorb(b, &b->f->old->spans[i]);
	}
	return r < 0 || open ? r : finish(b, &end);
}

/* The last span, alone, is no point any more. */
static int unmark(struct building *b, size_t i)
{
	struct lb_span span = b->f->old->spans[i];

	if (is_point(&span)) {
		b->f->changed = true;
		b->f->report.points_pruned++;
	}
	span.point.flags = 0;
	span.doomed = false;
	return add_span(b, &span);
}

/* The spans of the old version, in groups of which all but the last are to be merged, or all. */
static int merge(struct building *b)
{
	struct lb_fold *f = b->f;
	bool moving = f->old->next.epoch != 0;
	size_t n = f->old->n_spans;
	int r = 0;

	for (size_t i = 0, to; r == 0 && i < n; i = to + 1) {
		bool runs_off;

		for (to = i; to + 1 < n && must_merge(f, to); to++)
			;
		runs_off = must_merge(f, to);
		if (runs_off && moving && may_go_on(f, i, to))
			r = join(b, i, to, true);
		else if (runs_off && to == i)
			r = unmark(b, i);
		else if (to > i && is_worth(f, i, to))
			r = join(b, i, to, false);
		else
			r = keep(b, i, to);
	}
	return r;
}

static int compare_points(const void *a, const void *b)
{
	const struct lb_point *x = a, *y = b;

	return lb_position_compare(&x->position, &y->position);
}

/* What was announced as kept, and what was pinned. */
static int make_ends(struct building *b)
{
	struct lb_fold *f = b->f;

	b->ends = calloc(f->old->n_kept + f->pins.n + 1, sizeof(*b->ends));
	if (b->ends == NULL)
		return lb_fail(-ENOMEM, "out of memory for the points of a journal");
	for (size_t i = 0; i < f->old->n_kept; i++)
		b->ends[b->n_ends++] = f->old->kept[i];
	for (size_t i = 0; i < f->pins.n; i++) {
		const struct lb_point *pin = &f->pins.points[i];
		bool known = false;

		for (size_t k = 0; k < f->old->n_kept; k++)
			known = known || lb_position_compare(&f->old->kept[k].position, &pin->position) == 0;
		for (size_t k = f->old->n_kept; k < b->n_ends; k++)
			known = known || lb_position_compare(&b->ends[k].position, &pin->position) == 0;
		if (known || lb_manifest_is_folded(f->old, &pin->position) ||
		    lb_position_compare(&pin->position, &f->old->next_end) > 0)
			continue;
		b->ends[b->n_ends] = *pin;
		b->ends[b->n_ends++].flags |= LB_HRL_POINT;
	}
	qsort(b->ends, b->n_ends, sizeof(*b->ends), compare_points);
	return 0;
}

static int add_segment(struct building *b, const struct lb_pack *p, uint32_t i)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_map_segment place = lb_pack_segment(p, i);
	struct lb_live *live = lb_manifest_live(b->f->m, p->place.epoch, p->place.number);
	const struct lb_hrl_extent *extents;
	struct lb_hrl_frame_place frame;
	uint32_t n = 0, index = 0;
	int r;

	if (p->entries[i].extents == 0)
		return 0;
	r = lb_segment_read(b->f->v, b->f->machine, &place, &s);
	for (uint32_t k = 0; r == 0 && k < lb_hrl_frames(s); k++) {
		r = lb_hrl_frame_place(s, k, &frame);
		if (r == 0)
			live->raw_bytes += frame.raw_bytes;
	}
	if (r == 0 && b->map == NULL)
		r = lb_map_new(&b->map);
	if (r == 0)
		r = lb_map_segment_add(b->map, &place, &index);
	if (r < 0)
		return r;
	extents = lb_hrl_extents(s, &n);
	r = lb_map_apply(b->map, index, extents, n);
	return r < 0 ? r : lb_fold_pace(b->f, place.head_bytes);
}

/* As points.c tells them: a segment in which nothing was written only says that the point before it still holds. */
static bool passes_point(struct building *b, const struct lb_pack *p, uint32_t i)
{
	uint32_t flags = p->entries[i].flags;

	if (b->point_epoch == p->place.epoch && (flags & LB_HRL_HEARTBEAT) != 0 &&
	    (flags & (LB_HRL_MARK_APP | LB_HRL_MARK_GROUP)) == 0)
		return false;
	b->point_epoch = (flags & LB_HRL_POINT) != 0 && (flags & LB_HRL_SCANNING) == 0 ? p->place.epoch : 0;
	return b->point_epoch != 0;
}

static int add_pack(struct building *b, const struct lb_pack *p)
{
	struct lb_live live = {.epoch = p->place.epoch,
			       .number = p->place.number,
			       .first = {.epoch = p->place.epoch},
			       .last = {.epoch = p->place.epoch},
			       .size_bytes = (uint32_t)p->total_bytes,
			       .created_ns = p->time_ns};
	int r;

	if (p->n > 0) {
		live.first.seq = p->entries[0].seq;
		live.last.seq = p->entries[p->n - 1].seq;
	}
	r = lb_manifest_live_add(b->f->m, &live);
	for (uint32_t i = 0; r == 0 && i < p->n; i++) {
		struct lb_position at = {.epoch = p->place.epoch, .seq = p->entries[i].seq};
		bool is_point = passes_point(b, p, i);

		r = add_segment(b, p, i);
		while (b->end_next < b->n_ends && lb_position_compare(&b->ends[b->end_next].position, &at) < 0)
			b->end_next++; /* a pin of a position that never was */
		if (r == 0 && b->end_next < b->n_ends && lb_position_compare(&b->ends[b->end_next].position, &at) == 0)
			r = finish(b, &b->ends[b->end_next++]);
		else if (is_point)
			b->f->report.points_pruned++;
	}
	b->f->m->totals.journal_bytes += p->total_bytes;
	b->f->report.objects_folded++;
	return r < 0 ? r : lb_fold_pace(b->f, p->head_bytes);
}

static bool at_next(const struct building *b)
{
	const struct lb_place *next = &b->f->old->next;

	return b->chain.last.epoch == next->epoch && b->chain.last.number == next->number;
}

static int fold_journal(struct building *b)
{
	struct lb_manifest *m = b->f->m;
	struct lb_point end = {0};
	int r;

	r = lb_chain_at_cut(&b->chain, b->f->v, b->f->machine, b->f->old);
	if (r == 0)
		r = make_ends(b);
	while (r == 0 && !at_next(b)) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;

		r = lb_chain_next(&b->chain, &p);
		if (r == 0)
			r = add_pack(b, p);
	}
	if (r < 0)
		return r;
	m->cut = b->chain.last;
	m->cut_digest = b->chain.last_digest;
	m->cut_is_seal = b->chain.last_is_seal;
	m->cut_after = b->chain.after;
	end.position = b->chain.after.position;
	end.time_ns = end.until_ns = b->chain.after.receipt_ns;
	if (b->map == NULL && b->n > 0 && lb_position_compare(&b->spans[b->n - 1].point.position, &end.position) == 0)
		return 0;
	return finish(b, &end);
}

int lb_fold_spans(struct lb_fold *f)
{
	_cleanup_(building_free) struct building b = {.f = f};
	int r;

	r = merge(&b);
	if (r == 0 && f->old->next.epoch != 0)
		r = fold_journal(&b);
	if (r < 0)
		return r;
	free(f->m->spans);
	f->m->spans = lb_steal_ptr(b.spans);
	f->m->n_spans = b.n;
	return 0;
}
