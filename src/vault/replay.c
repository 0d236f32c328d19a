/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/replay.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "vault/repair.h"

/* A checkpoint is due when reading what came since costs a noticeable part of a second. */
#define CHECKPOINT_OBJECTS 64
#define CHECKPOINT_EXTENTS (128u << 10)

int lb_segment_object(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine,
		      const struct lb_map_segment *place)
{
	if ((place->object & LB_FOLDED_OBJECT) != 0)
		return lb_folded_name(name, machine, 'o', place->object);
	return lb_pack_name(name, machine, &(struct lb_place){.epoch = place->epoch, .number = place->object});
}

struct lb_map_segment lb_pack_segment(const struct lb_pack *p, uint32_t i)
{
	return (struct lb_map_segment){.epoch = p->place.epoch,
				       .seq = p->entries[i].seq,
				       .object = p->place.number,
				       .offset_bytes = p->entries[i].offset_bytes,
				       .size_bytes = p->entries[i].size_bytes,
				       .head_bytes = p->entries[i].head_bytes,
				       .digest = p->entries[i].digest};
}

int lb_segment_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_map_segment *place,
		    struct lb_hrl_segment **ret_segment)
{
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_hrl_header expect = {.vault = v->id, .machine = *machine, .epoch = place->epoch, .seq = place->seq};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(name, machine, place);
	if (r < 0)
		return r;
	r = lb_store_get(v->store, name, place->offset_bytes, place->head_bytes, &head);
	if (r == -ENOENT || r == -ENODATA)
		return lb_wrap(-EBADMSG, "segment %llu of epoch %llu is lost", (unsigned long long)place->seq,
			       (unsigned long long)place->epoch);
	if (r < 0)
		return r;
	if (head.size_bytes < LB_HRL_HEADER_BYTES)
		return lb_fail(-EBADMSG, "%s: object %s: %u bytes are no head of a segment", v->store->url, name,
			       place->head_bytes);
	r = lb_vault_key_to_open(v, machine, lb_hrl_sealed_salt(head.data), &key);
	if (r == 0)
		r = lb_hrl_open_sealed(&key, &expect, head.data, head.size_bytes, &s);
	if (r == 0 && !lb_equal_ct(lb_hrl_digest(s), &place->digest, sizeof(place->digest)))
		r = lb_fail(-EBADMSG, "segment %llu of epoch %llu is another one than the journal names",
			    (unsigned long long)place->seq, (unsigned long long)place->epoch);
	if (r < 0)
		return lb_wrap(r, "%s: object %s", v->store->url, name);
	*ret_segment = lb_steal_ptr(s);
	return 0;
}

static bool is_after(const struct lb_pack *p, uint32_t i, const struct lb_position *until)
{
	return until != NULL &&
	       (p->place.epoch > until->epoch || (p->place.epoch == until->epoch && p->entries[i].seq > until->seq));
}

/* A segment that can't be read: where a repair record knows of it, what it may have written is lost in the map. */
static int pass_over(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *object, uint64_t seq,
		     struct lb_map *map)
{
	_cleanup_(lb_repair_freep) struct lb_repair *record = NULL;
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r;

	snprintf(text, sizeof(text), "%s", lb_err_text());
	r = lb_repair_read(v, machine, object, &record);
	if (r == -ENOENT || (r == 0 && !lb_repair_has_segment(record, seq)))
		return lb_fail(-EBADMSG, "%s; `lifeboat vault repair` goes on behind it", text);
	return r < 0 ? r : lb_repair_apply(record, map);
}

int lb_replay_pack(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_pack *p,
		   const struct lb_position *until, struct lb_map *map)
{
	for (uint32_t i = 0; i < p->n && !is_after(p, i, until); i++) {
		_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
		struct lb_map_segment place = lb_pack_segment(p, i);
		const struct lb_hrl_extent *extents;
		uint32_t n, index;
		int r;

		if (p->entries[i].extents == 0)
			continue;
		r = lb_segment_read(v, machine, &place, &s);
		if (r == -EBADMSG) {
			r = pass_over(v, machine, &p->place, place.seq, map);
			if (r == 0)
				continue;
		}
		if (r < 0)
			return r;
		r = lb_map_segment_add(map, &place, &index);
		if (r < 0)
			return r;
		extents = lb_hrl_extents(s, &n);
		r = lb_map_apply(map, index, extents, n);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool reached(const struct lb_position *now, const struct lb_position *position)
{
	return position != NULL &&
	       (now->epoch > position->epoch || (now->epoch == position->epoch && now->seq >= position->seq));
}

/* Its map is whole only while all is there that was when it was made. */
static bool serves(const struct lb_checkpoint *checkpoint, const struct lb_manifest *m)
{
	return checkpoint->manifest >= m->deletable;
}

/* 1 when the newest checkpoint at or before the position was loaded. */
static int start_checkpoint(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m,
			    const struct lb_position *position, struct lb_chain *c, struct lb_map **ret_map,
			    struct lb_replay_stats *stats)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *checkpoint = NULL;
	int r;

	r = lb_checkpoint_find(v, machine, m, position, &checkpoint);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT || !serves(checkpoint, m)) {
		lb_err_clear();
		return 0;
	}
	r = lb_checkpoint_load(v, checkpoint, ret_map);
	if (r == 0) {
		stats->from_checkpoint = true;
		for (uint32_t i = 0; i < checkpoint->n_frames; i++)
			stats->bytes_read += checkpoint->frames[i].stored_bytes;
		r = lb_chain_after(c, v, checkpoint);
		c->manifest = checkpoint->manifest; /* the map also needs what was dropped since */
		return r < 0 ? r : 1;
	}
	if (r != -EBADMSG)
		return r;
	lb_warning("passing over a checkpoint: %s", lb_err_text());
	lb_err_clear();
	return 0;
}

/* From a checkpoint, from the maps up to the cut, or with an empty map at the beginning. */
static int start(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m,
		 const struct lb_position *position, struct lb_chain *c, struct lb_map **ret_map,
		 struct lb_replay_stats *stats)
{
	int r;

	r = start_checkpoint(v, machine, m, position, c, ret_map, stats);
	if (r != 0)
		return r < 0 ? r : 0;
	r = lb_chain_at_cut(c, v, machine, m);
	return r < 0 ? r : lb_spans_load(v, machine, m, m->n_spans, ret_map, &stats->bytes_read);
}

/* A position that was folded: only where a span ends. */
static int replay_folded(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m,
			 const struct lb_position *position, struct lb_map **ret_map, struct lb_replay_stats *stats)
{
	size_t i = lb_manifest_span(m, position);
	char uuid[LB_UUID_TEXT_BYTES];

	lb_uuid_format(machine, uuid);
	if (i == m->n_spans || lb_position_compare(&m->spans[i].point.position, position) != 0)
		return lb_fail(-ENOENT,
			       "position %llu:%llu of machine %s was pruned from %s by its retention policy; see "
			       "`lifeboat point list`",
			       (unsigned long long)position->epoch, (unsigned long long)position->seq, uuid,
			       v->store->url);
	stats->folded = true;
	return lb_spans_load(v, machine, m, i, ret_map, &stats->bytes_read);
}

static int no_position(const struct lb_chain *c, const struct lb_position *position)
{
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_chain_check_end(c);
	if (r < 0 && r != -EAGAIN)
		return r; /* what is missing, is named */
	lb_uuid_format(&c->machine, uuid);
	return lb_fail(
		-ENOENT,
		"machine %s has no position %llu:%llu in %s; its journal ends at %llu:%llu, see `lifeboat point list`",
		uuid, (unsigned long long)position->epoch, (unsigned long long)position->seq, c->v->store->url,
		(unsigned long long)c->after.position.epoch, (unsigned long long)c->after.position.seq);
}

static int step(struct lb_chain *c, const struct lb_position *position, struct lb_map *map,
		struct lb_replay_stats *stats)
{
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	int r;

	r = lb_chain_next(c, &p);
	if (r < 0)
		return r;
	stats->objects_read++;
	stats->bytes_read += p->head_bytes;
	for (uint32_t i = 0; i < p->n; i++)
		stats->bytes_read += p->entries[i].extents > 0 ? p->entries[i].head_bytes : 0;
	return lb_replay_pack(c->v, &c->machine, p, position, map);
}

struct crossing {
	const struct lb_position *position;
	struct lb_map *map;
};

/* What was lost with whole objects; a position among them is no place to stop at. */
static int crossed(void *arg, const struct lb_repair *record)
{
	const struct crossing *x = arg;

	if (reached(&record->after.position, x->position))
		return lb_fail(-EBADMSG,
			       "position %llu:%llu was lost with its object; the points around it are listed by "
			       "`lifeboat point list`",
			       (unsigned long long)x->position->epoch, (unsigned long long)x->position->seq);
	return lb_repair_apply(record, x->map);
}

static int replayed(const struct lb_replay_stats *stats, struct lb_replay_stats *ret_stats, struct lb_map **map,
		    struct lb_map **ret_map)
{
	lb_err_clear();
	*ret_map = lb_steal_ptr(*map);
	if (ret_stats != NULL)
		*ret_stats = *stats;
	return 0;
}

int lb_replay(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
	      struct lb_map **ret_map, struct lb_chain *ret_chain, struct lb_replay_stats *ret_stats)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	_cleanup_manifest_ struct lb_manifest *m = NULL;
	struct lb_replay_stats stats = {0};
	struct crossing x = {.position = position};
	struct lb_chain c = {0};
	int r;

	r = lb_vault_keyring(v, machine, false, &ring); /* whether it can be read at all */
	if (r == 0)
		r = lb_manifest_read(v, machine, &m);
	if (r < 0)
		return r;
	assert(m != NULL);
	if (position != NULL && lb_manifest_is_folded(m, position))
		r = replay_folded(v, machine, m, position, &map, &stats);
	else
		r = start(v, machine, m, position, &c, &map, &stats);
	if (r < 0)
		return r;
	if (stats.folded)
		return replayed(&stats, ret_stats, &map, ret_map);
	c.crossed = crossed;
	c.crossed_arg = &x;
	x.map = map;
	while (r == 0 && !reached(&c.after.position, position)) {
		r = step(&c, position, map, &stats);
		if (r == -ENOENT && position == NULL) {
			r = lb_chain_check_end(&c);
			if (r == 0)
				break;
			r = r == -EAGAIN ? 0 : r;
		}
	}
	if (r == -ENOENT && position != NULL)
		return no_position(&c, position);
	if (r < 0)
		return r;
	if (position != NULL && c.after.position.epoch != position->epoch)
		return no_position(&c, position);
	c.crossed = NULL;
	if (ret_chain != NULL)
		*ret_chain = c;
	return replayed(&stats, ret_stats, &map, ret_map);
}

/* Whether enough came since the newest checkpoint, from the heads alone. `ret_c` is left at the journal's end. */
static int is_due(struct lb_vault *v, const struct lb_uuid *machine, bool *ret_due, bool *ret_any)
{
	uint64_t objects = 0, extents = 0;
	struct lb_chain c;
	int r;

	r = lb_chain_newest(&c, v, machine);
	while (r == 0) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;

		r = lb_chain_next(&c, &p);
		if (r < 0)
			break;
		objects++;
		for (uint32_t i = 0; i < p->n; i++)
			extents += p->entries[i].extents;
		if (objects >= CHECKPOINT_OBJECTS || extents >= CHECKPOINT_EXTENTS)
			break;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_due = objects >= CHECKPOINT_OBJECTS || extents >= CHECKPOINT_EXTENTS;
	*ret_any = objects > 0;
	return 0;
}

int lb_checkpoint_write(struct lb_vault *v, const struct lb_uuid *machine, bool force, bool *ret_written)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *checkpoint = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	struct lb_chain c = {0};
	bool due, any;
	int r;

	r = is_due(v, machine, &due, &any);
	if (r < 0)
		return r;
	if (!due && !(force && any)) {
		*ret_written = false;
		return 0;
	}
	r = lb_replay(v, machine, NULL, &map, &c, NULL);
	if (r < 0)
		return r;
	checkpoint = calloc(1, sizeof(*checkpoint));
	if (checkpoint == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	checkpoint->machine = *machine;
	checkpoint->place = c.last;
	checkpoint->object_digest = c.last_digest;
	checkpoint->is_seal = c.last_is_seal;
	checkpoint->after = c.after;
	checkpoint->manifest = c.manifest;
	r = lb_checkpoint_put(v, checkpoint, map);
	if (r < 0 && r != -EEXIST)
		return r;
	lb_err_clear();
	*ret_written = r == 0;
	return 0;
}
