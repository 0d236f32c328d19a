/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The act of repair. One walk over the journal finds what can't be read and makes a record for each piece; a second
 * look at the maps says which ranges and which points that concerns; then the records are put.
 *
 * What a lost piece may have written: whatever its readable successors did not write again is known exactly by the
 * first checkpoint after it (extents of sources from the piece on), so that the ranges of the record are those, and the
 * points in between lack only what was not written again before them. Without such a checkpoint everything is suspect
 * that was not written since.
 */
#include "vault/repair.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/catalog.h"
#include "vault/replay.h"
#include "vault/span.h"
#include "vault/verify_parts.h"

#define SECTORS_MAX (UINT64_C(1) << 54)
#define OBJECTS_MAX (16u << 20)
#define RANGES_TOLD 6

struct places {
	struct lb_place *at;
	size_t n, room;
};

struct ends { /* positions at which readable objects end, rising */
	struct lb_position *at;
	size_t n, room;
};

struct work {
	struct lb_vault *v;
	bool deep, dry_run;
	void (*tell)(void *arg, const struct lb_repair_told *t);
	void *arg;
	struct lb_repair_report report;
	/* of the machine under way */
	struct lb_uuid machine;
	struct lb_key key;
	struct lb_chain chain;
	struct places objects;
	struct ends ends;
	struct lb_checkpoint_list checkpoints;
	struct lb_repairs records; /* new ones and those that were there */
	bool *was_there;
	unsigned int checkpoints_damaged;
};

static void work_clear(struct work *w)
{
	free(w->objects.at);
	free(w->ends.at);
	free(w->was_there);
	lb_checkpoint_list_free(&w->checkpoints);
	lb_repairs_free(&w->records);
	w->objects = (struct places){0};
	w->ends = (struct ends){0};
	w->was_there = NULL;
	w->checkpoints_damaged = 0;
}

static void say(struct work *w, const struct lb_repair *record, bool repaired, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

static void say(struct work *w, const struct lb_repair *record, bool repaired, const char *object, const char *fmt, ...)
{
	struct lb_repair_told t = {.machine = w->machine, .object = object, .record = record, .is_repaired = repaired};
	char text[LB_ERR_TEXT_BYTES_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	t.text = text;
	if (repaired)
		w->report.repaired++;
	else
		w->report.beyond++;
	w->tell(w->arg, &t);
}

/* ---- lists --------------------------------------------------------------------------------------------- */

static int add_object(void *arg, const char *name, uint64_t size_bytes)
{
	struct places *p = arg;
	struct lb_place place, *grown;

	(void)size_bytes;
	if (lb_pack_name_parse(name, &place) < 0)
		return 0;
	if (p->n >= OBJECTS_MAX)
		return lb_fail(-EOVERFLOW, "more than %u journal objects", OBJECTS_MAX);
	if (p->n == p->room) {
		p->room = p->room > 0 ? 2 * p->room : 256;
		grown = reallocarray(p->at, p->room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of objects");
		p->at = grown;
	}
	p->at[p->n++] = place;
	return 0;
}

static int add_end(struct ends *e, const struct lb_position *position)
{
	struct lb_position *grown;

	if (e->n == e->room) {
		e->room = e->room > 0 ? 2 * e->room : 256;
		grown = reallocarray(e->at, e->room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of positions");
		e->at = grown;
	}
	e->at[e->n++] = *position;
	return 0;
}

/* Takes `record` over, also when it fails. */
static int add_record(struct work *w, struct lb_repair *record, bool was_there)
{
	struct lb_repair **grown = reallocarray(w->records.r, w->records.n + 1, sizeof(struct lb_repair *));
	bool *flags = reallocarray(w->was_there, w->records.n + 1, sizeof(*flags));

	w->records.r = grown != NULL ? grown : w->records.r;
	w->was_there = flags != NULL ? flags : w->was_there;
	if (grown == NULL || flags == NULL || w->records.n >= LB_REPAIRS_MAX) {
		lb_repair_free(record);
		return lb_fail(-ENOMEM, "out of memory or room for repair records");
	}
	w->was_there[w->records.n] = was_there;
	w->records.r[w->records.n++] = record;
	return 0;
}

static bool place_before(const struct lb_place *a, const struct lb_place *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->number < b->number);
}

static bool position_before(const struct lb_position *a, const struct lb_position *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->seq < b->seq);
}

/* The position after the chain's, if it goes on at `place`. */
static struct lb_position next_position(const struct lb_chain *c, const struct lb_place *place)
{
	if (place->epoch == c->after.position.epoch)
		return (struct lb_position){.epoch = place->epoch, .seq = c->after.position.seq + 1};
	return (struct lb_position){.epoch = place->epoch};
}

/* ---- what may have been written ---------------------------------------------------------------------------- */

static int add_range(struct lb_repair *r, uint16_t disk, uint64_t start, uint64_t sectors)
{
	struct lb_lost_range *last = r->n_ranges > 0 ? &r->ranges[r->n_ranges - 1] : NULL, *grown;

	if (last != NULL && last->disk == disk && last->start + last->sectors >= start) {
		last->sectors = LB_MAX(last->start + last->sectors, start + sectors) - last->start;
		return 0;
	}
	if (r->ranges == NULL || r->n_ranges % 1024 == 0) {
		grown = reallocarray(r->ranges, r->n_ranges + 1024, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for ranges");
		r->ranges = grown;
	}
	r->ranges[r->n_ranges++] = (struct lb_lost_range){.disk = disk, .start = start, .sectors = sectors};
	return 0;
}

/* Rounds ranges out until they are few enough: what is said to be lost only grows. */
static void bound_ranges(struct lb_repair *r)
{
	for (uint64_t gap = 8; r->n_ranges > LB_REPAIR_RANGES_MAX; gap *= 2) {
		size_t n = 0;

		for (size_t i = 0; i < r->n_ranges; i++) {
			struct lb_lost_range *last = n > 0 ? &r->ranges[n - 1] : NULL, x = r->ranges[i];

			if (last != NULL && last->disk == x.disk && last->start + last->sectors + gap >= x.start)
				last->sectors = x.start + x.sectors - last->start;
			else
				r->ranges[n++] = x;
		}
		r->n_ranges = n;
	}
}

struct gathering {
	struct lb_repair *r;
	const struct lb_map *map;
	uint16_t disk;
};

/* Zeroes are joined over segments of an epoch in a map: all of that epoch's count. */
static int gather(void *arg, const struct lb_map_extent *x)
{
	const struct gathering *g = arg;
	const struct lb_map_segment *s = lb_map_segment(g->map, x->segment);
	struct lb_position source = {.epoch = s->epoch, .seq = s->seq};

	if (lb_hrl_kind_has_data(x->kind) ? position_before(&source, &g->r->from) : s->epoch < g->r->from.epoch)
		return 0;
	return add_range(g->r, g->disk, x->start, x->sectors);
}

static int gather_all(struct lb_repair *r, const struct lb_map *map)
{
	struct gathering g = {.r = r, .map = map};
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < lb_map_disks(map); i++) {
		g.disk = lb_map_disk_id(map, i);
		result = lb_map_walk(map, g.disk, 0, SECTORS_MAX, gather, &g);
	}
	return result;
}

/* All of every disk: nobody knows better. */
static int whole_disks(struct work *w, struct lb_repair *r)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	int result;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	result = lb_catalog_get(w->v, &w->machine, item);
	if (result == -ENOENT || result == -EBADMSG) {
		lb_err_clear();
		for (uint16_t disk = 0; disk < LB_HRL_DISKS_MAX; disk++) {
			result = add_range(r, disk, 0, SECTORS_MAX);
			if (result < 0)
				return result;
		}
		return 0;
	}
	for (uint32_t i = 0; result == 0 && i < item->n_disks; i++)
		result = add_range(r, item->disks[i].id, 0,
				   (item->disks[i].size_bytes + LB_HRL_SECTOR_BYTES - 1) / LB_HRL_SECTOR_BYTES);
	return result;
}

/* From the first checkpoint after the piece that can be loaded. */
static int find_ranges(struct work *w, struct lb_repair *r)
{
	const struct lb_place *end = r->crosses ? &r->last : &r->place;
	int result;

	for (size_t i = 0; !r->is_tail && i < w->checkpoints.n; i++) {
		_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
		_cleanup_(lb_map_freep) struct lb_map *map = NULL;

		if (place_before(&w->checkpoints.places[i], end))
			continue;
		result = lb_checkpoint_read(w->v, &w->machine, &w->checkpoints.places[i], &c);
		if (result == 0)
			result = lb_checkpoint_load(w->v, c, &map);
		if (lb_verify_is_damage(result))
			continue;
		r->is_exact = true;
		if (result == 0)
			result = gather_all(r, map);
		bound_ranges(r);
		return result;
	}
	lb_err_clear();
	return whole_disks(w, r);
}

/* ---- segments and frames of an object that can be read ---------------------------------------------------- */

static int add_segment(struct lb_repair *r, uint64_t seq)
{
	if (r->segments == NULL) {
		r->segments = calloc(LB_REPAIR_SEGMENTS_MAX, sizeof(*r->segments));
		if (r->segments == NULL)
			return lb_fail(-ENOMEM, "out of memory for a repair record");
	}
	r->segments[r->n_segments++] = seq;
	return 0;
}

static int add_frame(struct lb_repair *r, const struct lb_hrl_segment *s, uint64_t seq, uint32_t frame)
{
	const struct lb_hrl_extent *x;
	uint32_t n;
	int result = 0;

	if (r->n_frames >= LB_REPAIR_FRAMES_MAX)
		return lb_fail(-EOVERFLOW, "more than %d frames of one object are lost", LB_REPAIR_FRAMES_MAX);
	if (r->frames == NULL) {
		r->frames = calloc(LB_REPAIR_FRAMES_MAX, sizeof(*r->frames));
		if (r->frames == NULL)
			return lb_fail(-ENOMEM, "out of memory for a repair record");
	}
	r->frames[r->n_frames++] = (struct lb_lost_frame){.seq = seq, .frame = frame};
	x = lb_hrl_extents(s, &n);
	for (uint32_t i = 0; result == 0 && i < n; i++)
		if (lb_hrl_kind_has_data(x[i].kind) && x[i].frame == frame)
			result = add_range(r, x[i].disk, x[i].offset_bytes / LB_HRL_SECTOR_BYTES,
					   x[i].length_bytes / LB_HRL_SECTOR_BYTES);
	return result;
}

static int check_frames(struct work *w, struct lb_repair *r, const char *object, const struct lb_map_segment *place,
			const struct lb_hrl_segment *s)
{
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	int result = 0;

	if (raw == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	for (uint32_t i = 0; result == 0 && i < lb_hrl_frames(s); i++) {
		_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
		struct lb_hrl_frame_place at;

		result = lb_hrl_frame_place(s, i, &at);
		if (result == 0 && at.raw_bytes > LB_HRL_FRAME_BYTES_MAX)
			result = -EBADMSG;
		if (result == 0)
			result = lb_store_get(w->v->store, object, place->offset_bytes + at.offset_bytes,
					      at.stored_bytes, &stored);
		if (result == 0)
			result = lb_hrl_frame_open(s, i, stored.data, stored.size_bytes, raw);
		if (lb_verify_is_damage(result))
			result = add_frame(r, s, place->seq, i);
	}
	return result;
}

static int check_object(struct work *w, const struct lb_pack *p)
{
	_cleanup_(lb_repair_freep) struct lb_repair *r = calloc(1, sizeof(*r));
	char object[LB_OBJECT_NAME_BYTES];
	int result;

	if (r == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	r->place = p->place;
	result = lb_pack_name(object, &w->machine, &p->place);
	for (uint32_t i = 0; result == 0 && i < p->n; i++) {
		_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
		struct lb_map_segment place = lb_pack_segment(p, i);
		size_t had = r->n_frames + r->n_segments;

		result = lb_segment_read(w->v, &w->machine, &w->key, &place, &s);
		if (lb_verify_is_damage(result))
			result = add_segment(r, place.seq);
		else if (result == 0 && w->deep)
			result = check_frames(w, r, object, &place, s);
		if (had == 0 && r->n_frames + r->n_segments > 0)
			r->from = (struct lb_position){.epoch = p->place.epoch, .seq = place.seq};
	}
	if (result < 0 || r->n_frames + r->n_segments == 0)
		return result;
	r->is_exact = r->n_segments == 0;
	result = r->n_segments > 0 ? find_ranges(w, r) : 0;
	bound_ranges(r);
	return result < 0 ? result : add_record(w, lb_steal_ptr(r), false);
}

/* ---- objects that are lost --------------------------------------------------------------------------------- */

/* The chain's state just before object `b`, as it names it. */
static int state_before(struct work *w, const struct lb_pack *b, struct lb_repair *r)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_map_segment place;
	int result;

	r->last = b->prev;
	r->last_digest = b->prev_digest;
	r->last_is_seal = b->place.number == 0;
	r->after = w->chain.after;
	if (b->kind == LB_PACK_SEAL) {
		r->after = b->after;
		return 0;
	}
	if (b->entries[0].seq > 0)
		r->after.position = (struct lb_position){.epoch = b->place.epoch, .seq = b->entries[0].seq - 1};
	r->after.flags = 0;
	place = lb_pack_segment(b, 0);
	result = lb_segment_read(w->v, &w->machine, &w->key, &place, &s);
	if (result == 0)
		r->after.digest = lb_hrl_header(s)->prev_digest;
	return lb_verify_is_damage(result) ? 0 : result;
}

/* 1 when a checkpoint behind the damage leads on. */
static int state_of_checkpoint(struct work *w, struct lb_repair *r)
{
	for (size_t i = w->checkpoints.n; i-- > 0;) {
		_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
		int result;

		if (place_before(&w->checkpoints.places[i], &r->place))
			return 0;
		result = lb_checkpoint_read(w->v, &w->machine, &w->checkpoints.places[i], &c);
		if (lb_verify_is_damage(result))
			continue;
		if (result < 0)
			return result;
		r->last = c->place;
		r->last_digest = c->object_digest;
		r->last_is_seal = c->is_seal;
		r->after = c->after;
		return 1;
	}
	return 0;
}

/* Makes the record of the damage that begins at `place`; 1, 0 when nothing was lost there after all. */
static int lost_objects(struct work *w, const struct lb_place *place, bool is_there)
{
	_cleanup_(lb_repair_freep) struct lb_repair *r = calloc(1, sizeof(*r));
	bool is_tail = false;
	int result = 0;

	if (r == NULL)
		return lb_fail(-ENOMEM, "out of memory for a repair record");
	r->place = *place;
	r->crosses = true;
	r->from = next_position(&w->chain, place);
	for (size_t i = 0; i < w->objects.n && r->last.epoch == 0; i++) {
		_cleanup_(lb_pack_freep) struct lb_pack *b = NULL;

		if (!place_before(place, &w->objects.at[i]))
			continue;
		result = lb_pack_read(w->v, &w->machine, &w->objects.at[i], &b);
		if (lb_verify_is_damage(result))
			continue;
		if (result < 0)
			return result;
		if (place_before(&b->prev, place))
			continue; /* of a history that leaves the damage out: never offered */
		result = state_before(w, b, r);
		if (result < 0)
			return result;
	}
	if (r->last.epoch == 0) {
		result = state_of_checkpoint(w, r);
		if (result < 0)
			return result;
	}
	if (r->last.epoch == 0) {
		if (!is_there)
			return 0; /* the end: what may have been cut off leaves no trace */
		r->last = *place;
		r->after = w->chain.after;
		is_tail = true;
	}
	result = find_ranges(w, r);
	if (result < 0)
		return result;
	lb_chain_cross(&w->chain, r);
	/* its writer, if it still lives, must not go on from what nobody can read */
	if (is_tail && !w->dry_run)
		result = lb_journal_seal_at(&w->chain, "the object before was lost; repaired");
	if (result < 0)
		return result == -EEXIST || result == -ESTALE
			       ? lb_fail(-EAGAIN, "the journal goes on while it is repaired; try again")
			       : result;
	result = add_record(w, lb_steal_ptr(r), false);
	return result < 0 ? result : 1;
}

static bool is_listed(const struct work *w, const struct lb_place *place)
{
	for (size_t i = 0; i < w->objects.n; i++)
		if (w->objects.at[i].epoch == place->epoch && w->objects.at[i].number == place->number)
			return true;
	return false;
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

static int note_crossed(void *arg, const struct lb_repair *record)
{
	struct work *w = arg;
	struct lb_repair *again = NULL;
	int r = lb_repair_read(w->v, &w->machine, &record->place, &again);

	return r < 0 ? r : add_record(w, again, true);
}

static int one_object(struct work *w, const struct lb_pack *p)
{
	_cleanup_(lb_repair_freep) struct lb_repair *there = NULL;
	size_t had = w->records.n;
	int r;

	r = add_end(&w->ends, &p->after.position);
	if (r == 0)
		r = check_object(w, p);
	if (r < 0 || w->records.n == had)
		return r;
	r = lb_repair_read(w->v, &w->machine, &p->place, &there);
	if (r == -ENOENT)
		return 0;
	/* known already, if it knows of as much */
	w->was_there[had] = r == 0 && there->n_segments >= w->records.r[had]->n_segments &&
			    there->n_frames >= w->records.r[had]->n_frames;
	if (w->was_there[had]) {
		lb_repair_free(w->records.r[had]);
		w->records.r[had] = lb_steal_ptr(there);
	}
	return r == -EBADMSG ? 0 : r;
}

static int note_manifest(void *arg, const char *object, uint64_t size_bytes)
{
	uint64_t *newest = arg, version;

	(void)size_bytes;
	if (lb_u64_parse(strrchr(object, '/') + 1, LB_MANIFEST_VERSION_MAX, &version) == 0 && version > *newest)
		*newest = version;
	return 0;
}

/*
 * The version before a damaged newest one becomes the newest again: what the damaged one dropped can't have been
 * deleted yet, for that takes a later version, and what it folded is still in the journal.
 */
static int repair_manifest(struct work *w, struct lb_manifest **ret)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	uint64_t newest = 0;
	int r;

	r = lb_manifest_read(w->v, &w->machine, ret);
	if (!lb_verify_is_damage(r))
		return r;
	r = lb_vault_name(object, &w->machine, "f/");
	if (r == 0)
		r = lb_store_list(w->v->store, object, note_manifest, &newest);
	if (r == 0)
		r = newest > 1 ? lb_manifest_get(w->v, &w->machine, newest - 1, &m) : -ENOENT;
	if (lb_verify_is_damage(r)) {
		say(w, NULL, false, object,
		    "the newest manifest of the folded journal, and the one before it, can't be read: "
		    "no point that was folded can be recovered");
		return -ENOKEY;
	}
	if (r == 0)
		r = lb_manifest_name(object, &w->machine, newest + 1);
	if (r < 0 || m == NULL)
		return r;
	m->version = newest + 1;
	if (!w->dry_run)
		r = lb_manifest_put(w->v, &w->machine, m);
	if (r == 0)
		say(w, NULL, true, object,
		    "version %llu of the manifest, the newest that can be read, %s the newest again; "
		    "points that only version %llu had pruned are back",
		    (unsigned long long)newest - 1, w->dry_run ? "would be" : "is", (unsigned long long)newest);
	*ret = lb_steal_ptr(m);
	return r;
}

/* The maps of what was folded: there is only one of each. */
static int look_at_spans(struct work *w, const struct lb_manifest *m)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->n_spans; i++) {
		_cleanup_(lb_map_freep) struct lb_map *map = NULL;
		char object[LB_OBJECT_NAME_BYTES];

		r = lb_folded_name(object, &w->machine, 'd', m->spans[i].map);
		if (r == 0)
			r = lb_span_load(w->v, &w->machine, &m->spans[i], &map);
		if (!lb_verify_is_damage(r))
			continue;
		say(w, NULL, false, object, "%s: put the object back from a copy of the vault", lb_err_text());
		r = 0;
	}
	return r;
}

static int walk(struct work *w)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	int r;

	/* what was folded has no chain: what it lost, verification names by point */
	r = repair_manifest(w, &m);
	if (r == 0)
		r = look_at_spans(w, m);
	if (r == -ENOKEY)
		return 0; /* told */
	if (r == 0)
		r = lb_chain_at_cut(&w->chain, w->v, &w->machine, m);
	w->chain.crossed = note_crossed;
	w->chain.crossed_arg = w;
	while (r == 0) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
		struct lb_place place;

		r = lb_chain_next(&w->chain, &p);
		if (r == 0) {
			r = one_object(w, p);
			continue;
		}
		if (r != -ENOENT && r != -EBADMSG)
			return r;
		place = lb_chain_next_place(&w->chain);
		r = lost_objects(w, &place, r == -EBADMSG && is_listed(w, &place));
		if (r == 0) {
			lb_err_clear();
			return 0;
		}
		r = r < 0 ? r : 0;
	}
	return r;
}

/* ---- since when it is whole again ---------------------------------------------------------------------------- */

struct looking {
	const struct lb_repair *record;
	const struct lb_map *map;
};

static int look(void *arg, const struct lb_map_extent *x)
{
	const struct looking *l = arg;

	return lb_repair_concerns(l->record, l->map, x) ? 1 : 0;
}

/* 1: the image there lacks something of the record. */
static int is_damaged_at(struct work *w, const struct lb_repair *record, const struct lb_position *position)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	struct looking l = {.record = record};
	int r;

	r = lb_replay(w->v, &w->machine, position, &map, NULL, NULL);
	l.map = map;
	for (uint32_t i = 0; r == 0 && i < lb_map_disks(map); i++)
		r = lb_map_walk(map, lb_map_disk_id(map, i), 0, SECTORS_MAX, look, &l);
	return lb_verify_is_damage(r) ? 1 : r;
}

/* What was written over once stays so: a search in halves. */
static int find_until(struct work *w, const struct lb_repair *record, struct lb_position *ret_until)
{
	size_t lo = 0, hi = w->ends.n;
	int r;

	*ret_until = (struct lb_position){0};
	while (lo < hi && position_before(&w->ends.at[lo], &record->from))
		lo++;
	if (lo == hi)
		return 0;
	r = is_damaged_at(w, record, &w->ends.at[hi - 1]);
	if (r != 0)
		return r < 0 ? r : 0;
	hi--;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		r = is_damaged_at(w, record, &w->ends.at[mid]);
		if (r < 0)
			return r;
		if (r == 1)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_until = w->ends.at[hi];
	return 0;
}

/* ---- telling and putting ---------------------------------------------------------------------------------------- */

static void ranges_text(const struct lb_repair *r, char *text, size_t size_bytes)
{
	uint64_t bytes = 0;
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < r->n_ranges; i++)
		bytes += r->ranges[i].sectors * LB_HRL_SECTOR_BYTES;
	for (size_t i = 0; i < r->n_ranges && i < RANGES_TOLD && used < size_bytes; i++)
		used += (size_t)snprintf(
			text + used, size_bytes - used, "%sdisk %u bytes %llu..%llu", i > 0 ? ", " : "",
			r->ranges[i].disk, (unsigned long long)r->ranges[i].start * LB_HRL_SECTOR_BYTES,
			(unsigned long long)(r->ranges[i].start + r->ranges[i].sectors) * LB_HRL_SECTOR_BYTES - 1);
	if (used < size_bytes && r->n_ranges > RANGES_TOLD)
		snprintf(text + used, size_bytes - used, " and %zu more, %llu bytes together",
			 r->n_ranges - RANGES_TOLD, (unsigned long long)bytes);
}

static void tell_record(struct work *w, const struct lb_repair *r, bool was_there)
{
	const char *how = r->is_exact ? "" : "whatever was not written again since of ";
	char object[LB_OBJECT_NAME_BYTES] = "?", lost[160] = "", until[80], ranges[512];

	lb_pack_name(object, &w->machine, &r->place);
	ranges_text(r, ranges, sizeof(ranges));
	if (r->until.epoch != 0)
		snprintf(until, sizeof(until), "until %llu:%llu", (unsigned long long)r->until.epoch,
			 (unsigned long long)r->until.seq);
	else
		snprintf(until, sizeof(until),
			 "on, to the newest, until the machine is compared (`lifeboat machine resync`)");
	if (r->crosses)
		snprintf(lost, sizeof(lost),
			 "journal objects %llu:%llu to %llu:%llu are lost, with the points in them; ",
			 (unsigned long long)r->place.epoch, (unsigned long long)r->place.number,
			 (unsigned long long)r->last.epoch, (unsigned long long)r->last.number);
	else
		snprintf(lost, sizeof(lost), "%zu segments and %zu frames of it are lost; ", r->n_segments,
			 r->n_frames);
	say(w, r, true, object, "%spoints from %llu:%llu %s lack %s%s; %s", lost, (unsigned long long)r->from.epoch,
	    (unsigned long long)r->from.seq, until, how, ranges,
	    was_there    ? "known already"
	    : w->dry_run ? "a repair record would lead over it"
			 : "a repair record leads over it");
}

static int finish_records(struct work *w)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->records.n; i++) {
		struct lb_repair *record = w->records.r[i];
		struct lb_position until;

		r = find_until(w, record, &until);
		if (r < 0)
			return r;
		w->was_there[i] &= until.epoch == record->until.epoch && until.seq == record->until.seq;
		record->until = until;
	}
	for (size_t i = 0; r == 0 && i < w->records.n; i++) {
		if (!w->dry_run && !w->was_there[i])
			r = lb_repair_put(w->v, &w->machine, w->records.r[i]);
		if (r == 0)
			tell_record(w, w->records.r[i], w->was_there[i]);
	}
	return r;
}

/* ---- small objects and checkpoints --------------------------------------------------------------------------------
 */

/* The newest readable catalog entry becomes the newest one again. */
static int repair_catalog(struct work *w)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	char object[LB_OBJECT_NAME_BYTES];
	uint64_t newest;
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_get(w->v, &w->machine, item);
	if (r == 0 || !lb_verify_is_damage(r))
		return r;
	r = lb_catalog_version(w->v, &w->machine, &newest);
	for (uint64_t version = newest; r == 0 && version > 0; version--) {
		_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SMALL_BYTES_MAX);

		r = lb_vault_name(object, &w->machine, "item/%08llu", (unsigned long long)version);
		if (r == 0)
			r = lb_small_get(w->v, &w->machine, object, &text);
		if (lb_verify_is_damage(r)) {
			r = 0;
			continue;
		}
		if (r == 0)
			r = lb_vault_name(object, &w->machine, "item/%08llu", (unsigned long long)newest + 1);
		if (r == 0 && !w->dry_run)
			r = lb_small_put_new(w->v, &w->machine, object, text.data, text.size_bytes);
		if (r == 0)
			say(w, NULL, true, object,
			    "entry %llu of the catalog, the newest that can be read, %s the newest again",
			    (unsigned long long)version, w->dry_run ? "would be" : "is");
		return r;
	}
	if (r == 0 && lb_vault_name(object, &w->machine, "item/") == 0)
		say(w, NULL, false, object,
		    "no catalog entry can be read: sizes and order of the disks are lost from the "
		    "vault; a configuration server that knows the machine writes them again, when "
		    "it is protected again");
	return r;
}

static int count_checkpoint(struct work *w, const struct lb_place *place)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_checkpoint_read(w->v, &w->machine, place, &c);
	if (r == 0)
		r = lb_checkpoint_load(w->v, c, &map);
	if (r == 0 || !lb_verify_is_damage(r))
		return r;
	w->checkpoints_damaged++;
	return lb_checkpoint_name(object, &w->machine, place);
}

/* Names are not used again: what a damaged one saved in time, one at the journal's end saves. */
static int repair_checkpoints(struct work *w)
{
	char object[LB_OBJECT_NAME_BYTES];
	bool written = false;
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->checkpoints.n; i++)
		r = count_checkpoint(w, &w->checkpoints.places[i]);
	if (r == 0)
		r = lb_vault_name(object, &w->machine, "c/");
	if (r < 0 || w->checkpoints_damaged == 0)
		return r;
	if (!w->dry_run)
		r = lb_checkpoint_write(w->v, &w->machine, true, &written);
	if (r == 0)
		say(w, NULL, true, object, "%u checkpoints can't be used, which costs time and no point; %s",
		    w->checkpoints_damaged,
		    w->dry_run ? "a new one would be written at the journal's end"
		    : written  ? "a new one is written at the journal's end"
			       : "the next one comes as the journal grows");
	return r;
}

static int repair_machine(struct work *w, const struct lb_uuid *machine)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	w->machine = *machine;
	r = w->v->has_key ? lb_vault_machine_key_check(w->v, machine) : 0;
	if (r == 0)
		r = lb_vault_machine_key(w->v, machine, false, &w->key);
	if (lb_verify_is_damage(r) && lb_vault_name(object, machine, "key") == 0) {
		say(w, NULL, false, object,
		    "%s: nothing of this machine can be recovered without it; put the object back from "
		    "a copy of the vault",
		    lb_err_text());
		return 0;
	}
	if (r == 0)
		r = lb_vault_name(object, machine, "e/");
	if (r == 0)
		r = lb_store_list(w->v->store, object, add_object, &w->objects);
	if (r == 0)
		r = lb_checkpoint_list(w->v, machine, &w->checkpoints);
	if (r == 0)
		r = walk(w);
	w->v->repairs_pending = &w->records;
	if (r == 0)
		r = finish_records(w);
	if (r == 0)
		r = repair_catalog(w);
	if (r == 0)
		r = repair_checkpoints(w);
	w->v->repairs_pending = NULL;
	return r;
}

static int repair_one(void *arg, const struct lb_uuid *machine)
{
	struct work *w = arg;
	int r = repair_machine(w, machine);

	work_clear(w);
	return r;
}

int lb_vault_repair(struct lb_vault *v, const struct lb_uuid *machine, bool deep, bool dry_run,
		    void (*tell)(void *arg, const struct lb_repair_told *t), void *arg,
		    struct lb_repair_report *ret_report)
{
	struct work w = {.v = v, .deep = deep, .dry_run = dry_run, .tell = tell, .arg = arg};
	int r;

	r = dry_run ? 0 : lb_vault_prove(v);
	if (r == 0)
		r = machine != NULL ? repair_one(&w, machine) : lb_vault_machines(v, repair_one, &w);
	lb_key_wipe(&w.key);
	if (r < 0)
		return r;
	lb_err_clear();
	*ret_report = w.report;
	return 0;
}
