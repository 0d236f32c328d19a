/* SPDX-License-Identifier: Apache-2.0 */
/* The walk of a repair over a machine's journal: what can't be read, and how the chain goes on behind it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/repair_parts.h"
#include "vault/replay.h"

#define OBJECTS_MAX (16u << 20)

/* ---- lists --------------------------------------------------------------------------------------------- */

int lb_repair_add_object(void *arg, const char *name, uint64_t size_bytes)
{
	struct lb_repair_places *p = arg;
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

int lb_repair_add_end(struct lb_repair_ends *e, const struct lb_position *position)
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

int lb_repair_add_record(struct lb_repair_work *w, struct lb_repair *record, bool was_there)
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

static struct lb_position next_position(const struct lb_chain *c, const struct lb_place *place)
{
	if (place->epoch == c->after.position.epoch)
		return (struct lb_position){.epoch = place->epoch, .seq = c->after.position.seq + 1};
	return (struct lb_position){.epoch = place->epoch};
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
			result = lb_repair_add_range(r, x[i].disk, x[i].offset_bytes / LB_HRL_SECTOR_BYTES,
						     x[i].length_bytes / LB_HRL_SECTOR_BYTES);
	return result;
}

static int check_frames(struct lb_repair_work *w, struct lb_repair *r, const char *object,
			const struct lb_map_segment *place, const struct lb_hrl_segment *s)
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

static int check_object(struct lb_repair_work *w, const struct lb_pack *p)
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

		result = lb_segment_read(w->v, &w->machine, &place, &s);
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
	result = r->n_segments > 0 ? lb_repair_find_ranges(w, r) : 0;
	lb_repair_bound_ranges(r);
	return result < 0 ? result : lb_repair_add_record(w, lb_steal_ptr(r), false);
}

/* ---- objects that are lost --------------------------------------------------------------------------------- */

/* The chain's state just before object `b`, as it names it. */
static int state_before(struct lb_repair_work *w, const struct lb_pack *b, struct lb_repair *r)
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
	result = lb_segment_read(w->v, &w->machine, &place, &s);
	if (result == 0)
		r->after.digest = lb_hrl_header(s)->prev_digest;
	return lb_verify_is_damage(result) ? 0 : result;
}

/* 1 when a checkpoint behind the damage leads on. */
static int state_of_checkpoint(struct lb_repair_work *w, struct lb_repair *r)
{
	for (size_t i = w->checkpoints.n; i-- > 0;) {
		_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
		int result;

		if (lb_repair_place_before(&w->checkpoints.places[i], &r->place))
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
static int lost_objects(struct lb_repair_work *w, const struct lb_place *place, bool is_there)
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

		if (!lb_repair_place_before(place, &w->objects.at[i]))
			continue;
		result = lb_pack_read(w->v, &w->machine, &w->objects.at[i], &b);
		if (lb_verify_is_damage(result))
			continue;
		if (result < 0)
			return result;
		if (lb_repair_place_before(&b->prev, place))
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
	result = lb_repair_find_ranges(w, r);
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
	result = lb_repair_add_record(w, lb_steal_ptr(r), false);
	return result < 0 ? result : 1;
}

static bool is_listed(const struct lb_repair_work *w, const struct lb_place *place)
{
	for (size_t i = 0; i < w->objects.n; i++)
		if (w->objects.at[i].epoch == place->epoch && w->objects.at[i].number == place->number)
			return true;
	return false;
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

static int note_crossed(void *arg, const struct lb_repair *record)
{
	struct lb_repair_work *w = arg;
	struct lb_repair *again = NULL;
	int r = lb_repair_read(w->v, &w->machine, &record->place, &again);

	return r < 0 ? r : lb_repair_add_record(w, again, true);
}

static int one_object(struct lb_repair_work *w, const struct lb_pack *p)
{
	_cleanup_(lb_repair_freep) struct lb_repair *there = NULL;
	size_t had = w->records.n;
	int r;

	r = lb_repair_add_end(&w->ends, &p->after.position);
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
 * Checkpoints that were made with the version in between refer to what it alone had rewritten, which is garbage now:
 * with what may be gone up to this version they serve no more. What waits to be deleted waits on behind that.
 */
static void make_newest(struct lb_manifest *m, uint64_t version)
{
	for (size_t i = 0; i < m->n_garbage; i++)
		if (m->garbage[i].version > m->deletable)
			m->garbage[i].version = version + 1;
	m->deletable = m->version = version;
}

/*
 * The version before a damaged newest one becomes the newest again: what the damaged one dropped can't have been
 * deleted yet, for that takes a later version, and what it folded is still in the journal.
 */
static int repair_manifest(struct lb_repair_work *w, struct lb_manifest **ret)
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
		lb_repair_say(w, NULL, false, object,
			      "the newest manifest of the folded journal, and the one before it, can't be read: "
			      "no point that was folded can be recovered");
		return -ENOKEY;
	}
	if (r == 0)
		r = lb_manifest_name(object, &w->machine, newest + 1);
	if (r < 0 || m == NULL)
		return r;
	make_newest(m, newest + 1);
	if (!w->dry_run)
		r = lb_manifest_put(w->v, &w->machine, m);
	if (r == 0)
		lb_repair_say(w, NULL, true, object,
			      "version %llu of the manifest, the newest that can be read, %s the newest again; "
			      "points that only version %llu had pruned are back",
			      (unsigned long long)newest - 1, w->dry_run ? "would be" : "is",
			      (unsigned long long)newest);
	*ret = lb_steal_ptr(m);
	return r;
}

int lb_repair_walk(struct lb_repair_work *w)
{
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	int r;

	r = repair_manifest(w, &m);
	if (r == 0)
		r = lb_repair_spans(w, m);
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
