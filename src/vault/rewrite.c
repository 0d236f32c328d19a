/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves what is still alive out of objects with much dead data. The spans that refer to them get new maps, in which
 * those extents point into new objects; kinds and epochs stay, and with them the rank.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/fold_parts.h"
#include "vault/image.h"
#include "vault/replay.h"

#define CANDIDATES_MAX 65536
#define OBJECT_BYTES_NOMINAL (8u << 20)
#define OBJECT_BYTES_MAX (48u << 20)
#define CACHE_BYTES (32u << 20)
#define ZSTD_LEVEL 3
#define SECTORS_ALL (UINT64_C(1) << 54)

struct candidate {
	uint64_t epoch, number;
	size_t first_span, last_span;
	uint64_t cost_bytes, gain_bytes; /* as stored */
};

struct rewriting {
	struct lb_fold *f;
	struct candidate *chosen; /* rising by epoch and number */
	size_t n;
	uint64_t live_bytes, dead_bytes; /* of all objects, as stored */
	/* of the span under way */
	const struct lb_span *span;
	const struct lb_map *from;
	struct lb_image *image; /* over `from` */
	struct lb_map *to;
	uint32_t *index; /* of from's segments in `to`, + 1 */
	uint8_t *moves;  /* by segment of `from`: its object is chosen */
	uint16_t disk;
	uint64_t epoch; /* of the pass */
	struct lb_hrl_builder *builder;
	uint8_t *data;
	size_t data_bytes;
	struct lb_buf object;
	uint64_t object_number;
	struct lb_live live; /* of the object under way */
};

static void span_free(struct rewriting *w)
{
	if (w->image != NULL)
		lb_image_free(w->image); /* and with it `from` */
	else if (w->from != NULL)
		lb_map_free((struct lb_map *)w->from);
	if (w->to != NULL)
		lb_map_free(w->to);
	free(w->index);
	free(w->moves);
	w->image = NULL;
	w->from = NULL;
	w->to = NULL;
	w->index = NULL;
	w->moves = NULL;
}

static void rewriting_free(struct rewriting *w)
{
	span_free(w);
	free(w->chosen);
	free(w->data);
	lb_buf_free(&w->object);
	if (w->builder != NULL)
		lb_hrl_builder_free(w->builder);
}

/* ---- choosing ---- */

static int by_ratio(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	double p = (double)x->gain_bytes / (double)(x->cost_bytes + 1),
	       q = (double)y->gain_bytes / (double)(y->cost_bytes + 1);

	return p < q ? 1 : p > q ? -1 : 0;
}

static int by_object(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static bool is_candidate(const struct lb_fold *f, const struct lb_live *o)
{
	uint32_t percent = f->options->live_percent > 0 ? f->options->live_percent : LB_FOLD_LIVE_PERCENT_MAX;

	return o->live_bytes > 0 && o->live_bytes * 100 < o->raw_bytes * percent &&
	       o->created_ns + f->options->retention.age_min_s * LB_NS_PER_S <= f->now_ns;
}

static int find_candidates(struct rewriting *w)
{
	const struct lb_manifest *m = w->f->m;

	w->chosen = calloc(LB_MIN(m->n_live + 1, (size_t)CANDIDATES_MAX), sizeof(*w->chosen));
	if (w->chosen == NULL)
		return lb_fail(-ENOMEM, "out of memory for a list of objects");
	for (size_t i = 0; i < m->n_live; i++) {
		const struct lb_live *o = &m->live[i];
		struct candidate c = {.epoch = o->epoch, .number = o->number};
		double live = o->raw_bytes == 0 ? 0 : (double)o->live_bytes / (double)o->raw_bytes;

		c.cost_bytes = (uint64_t)((double)o->size_bytes * live);
		c.gain_bytes = o->size_bytes - c.cost_bytes;
		w->live_bytes += c.cost_bytes;
		w->dead_bytes += c.gain_bytes;
		if (w->n == CANDIDATES_MAX || !is_candidate(w->f, o))
			continue;
		c.first_span = lb_manifest_span(m, &o->first);
		c.last_span = lb_manifest_span(m, &o->last);
		if (c.last_span < m->n_spans)
			w->chosen[w->n++] = c;
	}
	return 0;
}

/* What is left of the share of the journal's bytes that may go into moving what is not mostly dead. */
static uint64_t allowance(const struct lb_fold_totals *t)
{
	uint64_t share = t->journal_bytes / 100 * LB_FOLD_REWRITE_PERCENT;

	return share - LB_MIN(share, t->rewritten_bytes);
}

/* Maps of spans that are not yet to be written for this round. */
static uint64_t map_bytes(const struct rewriting *w, const struct candidate *c, const bool *touched)
{
	uint64_t bytes = 0;

	for (size_t i = c->first_span; i <= c->last_span; i++)
		bytes += touched[i] ? 0 : w->f->m->spans[i].map_bytes;
	return bytes;
}

/* Whether it is moved for this price: what is mostly dead at any time, the rest within the allowance. */
static bool is_worth(const struct candidate *c, uint64_t price, uint64_t allowed)
{
	return c->gain_bytes > price || (price <= allowed && c->gain_bytes + c->cost_bytes > price);
}

/*
 * The best ones that fit the round, while more is dead than is borne; new maps of the spans that they touch are part of
 * the price. What is rewritten is wholly alive, and stays out until some of it dies: where nothing dies any more this
 * comes to an end.
 */
static void choose(struct rewriting *w, bool *touched)
{
	bool forced = w->f->options->live_percent > 0;
	uint64_t borne = forced ? 0 : w->live_bytes / 100 * LB_FOLD_DEAD_PERCENT;
	uint64_t allowed = allowance(&w->f->m->totals), left = LB_FOLD_REWRITE_BYTES_MAX;
	size_t n = 0;

	qsort(w->chosen, w->n, sizeof(*w->chosen), by_ratio);
	for (size_t i = 0; i < w->n && w->dead_bytes > borne; i++) {
		struct candidate c = w->chosen[i];
		uint64_t price = c.cost_bytes + map_bytes(w, &c, touched);

		if (price > left || (!forced && !is_worth(&c, price, allowed)))
			continue;
		for (size_t k = c.first_span; k <= c.last_span; k++)
			touched[k] = true;
		left -= price;
		allowed -= LB_MIN(allowed, price);
		w->dead_bytes -= c.gain_bytes;
		w->chosen[n++] = c;
	}
	w->n = n;
	qsort(w->chosen, w->n, sizeof(*w->chosen), by_object);
}

static bool is_chosen(const struct rewriting *w, const struct lb_map_segment *s)
{
	struct candidate key = {.epoch = (s->object & LB_FOLDED_OBJECT) != 0 ? 0 : s->epoch, .number = s->object};

	return bsearch(&key, w->chosen, w->n, sizeof(key), by_object) != NULL;
}

/* ---- the new objects ---- */

static int object_begin(struct rewriting *w)
{
	uint32_t random;
	int r;

	r = lb_vault_random(w->f->v, &random, sizeof(random));
	if (r < 0)
		return r;
	w->object_number = LB_FOLDED_OBJECT | w->f->m->version << 32 | random;
	w->object.size_bytes = 0;
	w->live = (struct lb_live){.number = w->object_number,
				   .first = w->span->point.position,
				   .last = w->span->point.position,
				   .created_ns = w->f->now_ns};
	return 0;
}

static int object_end(struct rewriting *w)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	if (w->object.size_bytes == 0)
		return 0;
	r = lb_folded_name(name, w->f->machine, 'o', w->object_number);
	if (r == 0)
		r = lb_store_put_new(w->f->v->store, name, w->object.data, w->object.size_bytes);
	if (r < 0)
		return r;
	w->live.size_bytes = (uint32_t)w->object.size_bytes;
	w->f->m->totals.rewritten_bytes += w->object.size_bytes;
	w->f->report.rewritten_bytes += w->object.size_bytes;
	r = lb_manifest_live_add(w->f->m, &w->live);
	if (r == 0)
		r = lb_fold_pace(w->f, 2 * w->object.size_bytes); /* read and written */
	return r < 0 ? r : object_begin(w);
}

/* The sealed segment at the end of the object enters the new map. */
static int map_segment(struct rewriting *w, const struct lb_hrl_segment *plain, size_t offset_bytes)
{
	struct lb_map_segment place = {.epoch = w->epoch,
				       .seq = w->object_number,
				       .object = w->object_number,
				       .offset_bytes = (uint32_t)offset_bytes,
				       .size_bytes = (uint32_t)(w->object.size_bytes - offset_bytes),
				       .digest = *lb_hrl_digest(plain)};
	const struct lb_hrl_extent *extents;
	uint64_t head_bytes, total_bytes;
	uint32_t n, index, raw_bytes;
	int r;

	r = lb_hrl_sealed_sizes(w->object.data + offset_bytes, &head_bytes, &total_bytes);
	if (r < 0)
		return r;
	place.head_bytes = (uint32_t)head_bytes;
	for (uint32_t i = 0; i < lb_hrl_frames(plain); i++) {
		lb_hrl_frame_plain(plain, i, &raw_bytes);
		w->live.raw_bytes += raw_bytes;
	}
	r = lb_map_segment_add(w->to, &place, &index);
	if (r < 0)
		return r;
	extents = lb_hrl_extents(plain, &n);
	return lb_map_apply(w->to, index, extents, n);
}

static int segment_end(struct rewriting *w)
{
	_cleanup_buf_ struct lb_buf plain = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_hrl_header header = {
		.vault = w->f->v->id, .machine = *w->f->machine, .epoch = w->epoch, .seq = w->object_number};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	size_t offset_bytes = w->object.size_bytes;
	uint8_t salt[LB_SALT_BYTES];
	struct lb_digest digest;
	int r;

	if (w->data_bytes == 0)
		return 0;
	if ((r = lb_hrl_builder_finish(w->builder, &header, &plain, &digest)) < 0 ||
	    (r = lb_hrl_open_plain(plain.data, plain.size_bytes, &s)) < 0 ||
	    (r = lb_vault_key_to_seal(w->f->v, w->f->machine, salt, &key)) < 0 ||
	    (r = lb_hrl_seal(s, &key, 0, salt, ZSTD_LEVEL, &w->object)) < 0 ||
	    (r = map_segment(w, s, offset_bytes)) < 0)
		return r;
	w->data_bytes = 0;
	return w->object.size_bytes >= OBJECT_BYTES_NOMINAL ? object_end(w) : 0;
}

static int move_extent(struct rewriting *w, const struct lb_map_extent *x)
{
	size_t bytes = (size_t)x->sectors * LB_HRL_SECTOR_BYTES;
	int r;

	if (w->data_bytes + bytes > LB_HRL_DATA_BYTES_NOMINAL ||
	    lb_hrl_builder_extents(w->builder) + 2 >= LB_HRL_EXTENTS_MAX / 2) {
		r = segment_end(w);
		if (r < 0)
			return r;
	}
	r = lb_image_pread(w->image, w->disk, w->data + w->data_bytes, bytes, x->start * LB_HRL_SECTOR_BYTES);
	if (r == 0)
		r = lb_hrl_builder_add(w->builder, w->disk, x->kind, x->start * LB_HRL_SECTOR_BYTES, bytes,
				       w->data + w->data_bytes);
	w->data_bytes += bytes;
	return r;
}

/* ---- a span ---- */

static int copy_extent(void *arg, const struct lb_map_extent *x)
{
	struct rewriting *w = arg;
	struct lb_map_extent mine = *x;
	int r;

	if (w->moves[x->segment] != 0 && lb_hrl_kind_has_data(x->kind))
		return 0;
	if (w->index[x->segment] == 0) {
		r = lb_map_segment_add(w->to, lb_map_segment(w->from, x->segment), &w->index[x->segment]);
		if (r < 0)
			return r;
		w->index[x->segment]++;
	}
	mine.segment = w->index[x->segment] - 1;
	return lb_map_insert(w->to, w->disk, &mine);
}

static int move_of_epoch(void *arg, const struct lb_map_extent *x)
{
	struct rewriting *w = arg;

	if (w->moves[x->segment] == 0 || !lb_hrl_kind_has_data(x->kind) ||
	    lb_map_segment(w->from, x->segment)->epoch != w->epoch)
		return 0;
	return move_extent(w, x);
}

static int each_disk(struct rewriting *w, lb_map_fn fn)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_map_disks(w->from); i++) {
		w->disk = lb_map_disk_id(w->from, i);
		r = lb_map_walk(w->from, w->disk, 0, SECTORS_ALL, fn, w);
	}
	return r;
}

/* Marks what moves; the next epoch above `w->epoch` that has any goes there, or 0. */
static void next_epoch(struct rewriting *w)
{
	uint64_t next = 0;

	for (uint32_t i = 0; i < lb_map_segments(w->from); i++) {
		uint64_t epoch = lb_map_segment(w->from, i)->epoch;

		if (w->moves[i] != 0 && epoch > w->epoch && (next == 0 || epoch < next))
			next = epoch;
	}
	w->epoch = next;
}

static int move_all(struct rewriting *w)
{
	int r;

	w->epoch = 0;
	r = object_begin(w);
	for (next_epoch(w); r == 0 && w->epoch != 0; next_epoch(w)) {
		r = each_disk(w, move_of_epoch);
		if (r == 0)
			r = segment_end(w);
	}
	return r < 0 ? r : object_end(w);
}

static int open_span(struct rewriting *w)
{
	struct lb_map *map = NULL;
	uint32_t n;
	int r;

	r = lb_span_load(w->f->v, w->f->machine, w->span, &map);
	if (r < 0)
		return r;
	w->from = map;
	n = lb_map_segments(map);
	w->index = calloc(n + 1, sizeof(*w->index));
	w->moves = calloc(n + 1, sizeof(*w->moves));
	if (w->index == NULL || w->moves == NULL)
		return lb_fail(-ENOMEM, "out of memory for an extent map");
	for (uint32_t i = 0; i < n; i++)
		w->moves[i] = is_chosen(w, lb_map_segment(map, i));
	r = lb_map_new(&w->to);
	return r < 0 ? r : lb_image_over(w->f->v, w->f->machine, map, CACHE_BYTES, &w->image);
}

static int rewrite_span(struct rewriting *w, struct lb_span *span)
{
	struct lb_span fresh = {.point = span->point, .doomed = span->doomed};
	int r;

	w->span = span;
	r = open_span(w);
	if (r == 0)
		r = lb_fold_account(w->f, w->from, -1);
	if (r == 0)
		r = each_disk(w, copy_extent);
	if (r == 0)
		r = move_all(w);
	if (r == 0)
		r = lb_fold_put_map(w->f, w->to, &fresh);
	if (r == 0)
		r = lb_fold_drop_map(w->f, span);
	if (r == 0) {
		*span = fresh;
		w->f->changed = true;
	}
	span_free(w);
	return r;
}

int lb_fold_rewrite(struct lb_fold *f)
{
	_cleanup_(rewriting_free) struct rewriting w = {.f = f, .object = LB_BUF(OBJECT_BYTES_MAX)};
	_cleanup_free_ bool *touched = calloc(f->m->n_spans + 1, sizeof(*touched));
	int r;

	if (touched == NULL)
		return lb_fail(-ENOMEM, "out of memory for a list of spans");
	r = find_candidates(&w);
	if (r < 0)
		return r;
	choose(&w, touched);
	if (w.n == 0)
		return 0;
	w.data = malloc(LB_HRL_DATA_BYTES_NOMINAL + LB_HRL_FRAME_BYTES_MAX);
	if (w.data == NULL)
		return lb_fail(-ENOMEM, "out of memory for rewriting objects");
	r = lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &w.builder);
	for (size_t i = 0; r == 0 && i < f->m->n_spans; i++)
		if (touched[i])
			r = rewrite_span(&w, &f->m->spans[i]);
	return r;
}
