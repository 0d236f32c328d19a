/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery points from the heads of journal objects. Walks begin at the newest checkpoint that serves: "latest" reads
 * a handful of objects, however long the journal is.
 */
#include "vault/points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vault/catalog.h"
#include "vault/chain.h"
#include "vault/manifest.h"
#include "vault/pins.h"
#include "vault/repair.h"
#include "vault/shared.h"

#define BEGINNING SIZE_MAX /* in place of a checkpoint's index */
#define MARKS (LB_HRL_MARK_APP | LB_HRL_MARK_GROUP)

typedef int (*point_fn)(void *arg, const struct lb_point *point);

struct walk {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	const struct lb_checkpoint_list *checkpoints;
	struct lb_manifest *m; /* what was folded, and what is about to be */
	bool doomed;           /* also points that are about to be pruned */
	bool every;            /* also boundaries at which nothing was written since the point before */
	int64_t to_ns;         /* ends the walk */
	point_fn fn;
	void *arg;
	bool has_pending; /* the point whose `until` is not known yet */
	struct lb_point pending;
};

/* Whether the walk is over: 1. */
#define WALK_OVER 1

static int flush(struct walk *w)
{
	if (!w->has_pending)
		return 0;
	w->has_pending = false;
	if (!w->doomed && !lb_manifest_offers(w->m, &w->pending.position))
		return 0;
	return w->fn(w->arg, &w->pending);
}

static int boundary(struct walk *w, struct lb_position position, uint32_t flags, int64_t time_ns)
{
	int r;

	if (lb_manifest_is_folded(w->m, &position))
		return 0;
	if (w->has_pending && !w->every && (flags & LB_HRL_HEARTBEAT) != 0 && (flags & MARKS) == 0 &&
	    w->pending.position.epoch == position.epoch) {
		w->pending.until_ns = time_ns;
		return 0;
	}
	r = flush(w);
	if (r != 0)
		return r;
	if (time_ns > w->to_ns)
		return WALK_OVER;
	if ((flags & LB_HRL_POINT) == 0 || (flags & LB_HRL_SCANNING) != 0)
		return 0;
	w->has_pending = true;
	w->pending = (struct lb_point){.position = position, .time_ns = time_ns, .until_ns = time_ns, .flags = flags};
	return 0;
}

static int walk_start(struct walk *w, size_t index, struct lb_chain *c)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *checkpoint = NULL;
	int r;

	w->has_pending = false;
	if (index == BEGINNING)
		return lb_chain_at_cut(c, w->v, w->machine, w->m);
	r = lb_checkpoint_read(w->v, w->machine, &w->checkpoints->places[index], &checkpoint);
	if (r < 0)
		return r;
	r = lb_chain_after(c, w->v, checkpoint);
	if (r < 0 || c->after.position.epoch == 0)
		return r;
	return boundary(w, c->after.position, c->after.flags, c->after.receipt_ns);
}

/* The journal's end: an idle machine's heartbeat says that its newest point still holds. */
static int walk_end(struct walk *w, const struct lb_chain *c)
{
	int64_t until_ns;
	int r;

	r = lb_chain_check_end(c);
	if (r < 0 && r != -EAGAIN)
		return r;
	if (!w->has_pending)
		return 0;
	r = lb_heartbeat_get(w->v, w->machine, &c->after.position, &until_ns);
	if (r == 0 && until_ns > w->pending.until_ns)
		w->pending.until_ns = until_ns;
	if (r < 0 && r != -ENOENT)
		return r;
	return flush(w);
}

/* Points from a checkpoint on (its own included) up to the object `stop` (NULL: the journal's end). */
static int walk_span(struct walk *w, size_t index, const struct lb_place *stop)
{
	struct lb_chain c;
	int r;

	r = walk_start(w, index, &c);
	while (r == 0) {
		_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;

		if (stop != NULL && c.last.epoch == stop->epoch && c.last.number == stop->number)
			return flush(w);
		r = lb_chain_next(&c, &p);
		if (r == -ENOENT)
			return walk_end(w, &c);
		for (uint32_t i = 0; r == 0 && i < p->n; i++)
			r = boundary(w, (struct lb_position){.epoch = p->place.epoch, .seq = p->entries[i].seq},
				     p->entries[i].flags, p->entries[i].receipt_ns);
	}
	return r == WALK_OVER ? 0 : r;
}

/* What the spans offer, from the oldest to the newest. */
static int walk_folded(struct walk *w)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->m->n_spans; i++) {
		const struct lb_point *point = &w->m->spans[i].point;

		if (point->time_ns <= w->to_ns && lb_manifest_offers(w->m, &point->position))
			r = w->fn(w->arg, point);
	}
	return r;
}

static void walk_free(struct walk *w)
{
	if (w->m != NULL)
		lb_manifest_free(w->m);
}

static int walk_open(struct walk *w, struct lb_checkpoint_list *checkpoints)
{
	int r;

	r = lb_manifest_read(w->v, w->machine, &w->m);
	if (r == 0 && checkpoints != NULL)
		r = lb_checkpoint_list(w->v, w->machine, checkpoints);
	if (r == 0 && checkpoints != NULL)
		lb_checkpoint_list_cut(checkpoints, w->m);
	return r;
}

static void list_freep(struct lb_checkpoint_list *list)
{
	lb_checkpoint_list_free(list);
}

static bool is_before_time(const void *arg, const struct lb_checkpoint *c)
{
	return c->after.receipt_ns < *(const int64_t *)arg;
}

/* The newest checkpoint whose journal lies before the time. */
static int index_before(struct walk *w, size_t n, int64_t time_ns, size_t *ret_index)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	int r;

	*ret_index = BEGINNING;
	r = lb_checkpoint_search(w->v, w->machine, w->checkpoints, n, is_before_time, &time_ns, &c, ret_index);
	return r == -ENOENT ? 0 : r;
}

struct listing {
	const struct lb_uuid *machine;
	const struct lb_shared_points *shared;
	const struct lb_pins *pins;
	const struct lb_repairs *repairs;
	int64_t from_ns, to_ns;
	point_fn fn;
	void *arg;
	int result; /* what the caller's function ended the walk with */
};

static int list_point(void *arg, const struct lb_point *point)
{
	struct listing *l = arg;
	struct lb_point named = *point;

	if (point->time_ns < l->from_ns || point->time_ns > l->to_ns)
		return 0;
	named.is_damaged = lb_repairs_damage(l->repairs, &point->position);
	lb_pins_apply(l->pins, &named);
	/* a mark that the rest of the group didn't make is none */
	if (lb_shared_at(l->shared, l->machine, &point->position) == NULL)
		named.flags &= ~(uint32_t)LB_HRL_MARK_GROUP;
	l->result = l->fn(l->arg, &named);
	return l->result == 0 ? 0 : WALK_OVER;
}

static void pins_freep(struct lb_pins *pins)
{
	lb_pins_free(pins);
}

static void shared_freep(struct lb_shared_points *shared)
{
	lb_shared_free(shared);
}

int lb_points_list(struct lb_vault *v, const struct lb_uuid *machine, int64_t from_ns, int64_t to_ns, point_fn fn,
		   void *arg)
{
	_cleanup_(list_freep) struct lb_checkpoint_list checkpoints = {0};
	_cleanup_(pins_freep) struct lb_pins pins = {0};
	_cleanup_(shared_freep) struct lb_shared_points shared = {0};
	_cleanup_(lb_repairs_free) struct lb_repairs repairs = {0};
	struct listing l = {.machine = machine,
			    .shared = &shared,
			    .pins = &pins,
			    .repairs = &repairs,
			    .from_ns = from_ns,
			    .to_ns = to_ns,
			    .fn = fn,
			    .arg = arg};
	_cleanup_(walk_free) struct walk w = {
		.v = v, .machine = machine, .checkpoints = &checkpoints, .to_ns = to_ns, .fn = list_point, .arg = &l};
	size_t index;
	int r;

	r = lb_pins_read(v, machine, &pins);
	if (r == 0)
		r = lb_repairs_read(v, machine, &repairs);
	if (r == 0)
		r = lb_shared_list(v, machine, &shared);
	if (r == 0)
		r = walk_open(&w, &checkpoints);
	if (r == 0)
		r = walk_folded(&w);
	if (r == 0)
		r = index_before(&w, checkpoints.n, from_ns, &index);
	if (r == 0)
		r = walk_span(&w, index, NULL);
	if (r == WALK_OVER)
		r = 0;
	if (r < 0)
		return r;
	if (l.result == 0)
		lb_err_clear();
	return l.result;
}

int lb_points_list_journal(struct lb_vault *v, const struct lb_uuid *machine, point_fn fn, void *arg)
{
	_cleanup_(walk_free) struct walk w = {
		.v = v, .machine = machine, .to_ns = INT64_MAX, .doomed = true, .fn = fn, .arg = arg};
	int r;

	r = walk_open(&w, NULL);
	return r < 0 ? r : walk_span(&w, BEGINNING, NULL);
}

struct newest {
	uint32_t flags; /* that it must have */
	const struct lb_repairs *repairs;
	bool found;
	struct lb_point point;
};

static int note_newest(void *arg, const struct lb_point *point)
{
	struct newest *n = arg;

	if ((point->flags & n->flags) == n->flags && !lb_repairs_damage(n->repairs, &point->position)) {
		n->found = true;
		n->point = *point;
	}
	return 0;
}

/* The newest point at or before a time that has the flags, from span to span backwards. -ENOENT without text. */
static int find_newest(struct lb_vault *v, const struct lb_uuid *machine, int64_t time_ns, uint32_t flags,
		       struct lb_point *ret_point)
{
	_cleanup_(list_freep) struct lb_checkpoint_list checkpoints = {0};
	_cleanup_(lb_repairs_free) struct lb_repairs repairs = {0};
	struct newest newest = {.flags = flags, .repairs = &repairs};
	_cleanup_(walk_free) struct walk w = {.v = v,
					      .machine = machine,
					      .checkpoints = &checkpoints,
					      .to_ns = time_ns,
					      .fn = note_newest,
					      .arg = &newest};
	const struct lb_place *stop = NULL;
	size_t index, n;
	int r;

	r = lb_repairs_read(v, machine, &repairs);
	if (r == 0)
		r = walk_open(&w, &checkpoints);
	n = checkpoints.n;
	while (r == 0) {
		r = index_before(&w, n, time_ns, &index);
		if (r == 0)
			r = walk_span(&w, index, stop);
		if (r == 0 && index == BEGINNING && !newest.found)
			r = walk_folded(&w);
		if (r < 0)
			break;
		if (newest.found) {
			*ret_point = newest.point;
			lb_err_clear();
			return 0;
		}
		if (index == BEGINNING)
			return -ENOENT;
		stop = &checkpoints.places[index];
		n = index;
	}
	return r;
}

struct oldest {
	bool found;
	struct lb_point point;
};

static int note_oldest(void *arg, const struct lb_point *point)
{
	struct oldest *o = arg;

	o->found = true;
	o->point = *point;
	return WALK_OVER;
}

/* -ENOENT with what there is instead. */
static int no_point(struct lb_vault *v, const struct lb_uuid *machine, const char *text)
{
	char label[LB_MACHINE_LABEL_BYTES], from[LB_TIME_TEXT_BYTES], to[LB_TIME_TEXT_BYTES];
	struct oldest oldest = {0};
	_cleanup_(walk_free) struct walk w = {
		.v = v, .machine = machine, .to_ns = INT64_MAX, .fn = note_oldest, .arg = &oldest};
	struct lb_point newest;
	int r;

	r = find_newest(v, machine, INT64_MAX, 0, &newest);
	if (r == 0)
		r = walk_open(&w, NULL);
	if (r == 0)
		r = walk_folded(&w);
	if (r == 0)
		r = walk_span(&w, BEGINNING, NULL);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT || !oldest.found)
		return lb_fail(-ENOENT,
			       "machine %s has no recovery point in %s yet; its first one comes when its initial "
			       "replication ends",
			       lb_catalog_label(v, machine, label), v->store->url);
	return lb_fail(-ENOENT, "machine %s has no point \"%s\"; its points go from %s (%llu:%llu) to %s (%llu:%llu)",
		       lb_catalog_label(v, machine, label), text, lb_time_format(oldest.point.time_ns, from),
		       (unsigned long long)oldest.point.position.epoch, (unsigned long long)oldest.point.position.seq,
		       lb_time_format(newest.time_ns, to), (unsigned long long)newest.position.epoch,
		       (unsigned long long)newest.position.seq);
}

struct exact {
	struct lb_position position;
	bool found;
	struct lb_point point;
};

static int note_exact(void *arg, const struct lb_point *point)
{
	struct exact *e = arg;

	if (point->position.epoch == e->position.epoch && point->position.seq == e->position.seq) {
		e->found = true;
		e->point = *point;
	}
	return e->found || point->position.epoch > e->position.epoch ? WALK_OVER : 0;
}

static bool is_at_or_before(const void *arg, const struct lb_checkpoint *c)
{
	const struct lb_position *p = arg;

	return c->after.position.epoch < p->epoch ||
	       (c->after.position.epoch == p->epoch && c->after.position.seq <= p->seq);
}

static int note_damage(struct lb_vault *v, const struct lb_uuid *machine, struct lb_point *point)
{
	_cleanup_(lb_repairs_free) struct lb_repairs repairs = {0};
	int r = lb_repairs_read(v, machine, &repairs);

	if (r == 0)
		point->is_damaged = lb_repairs_damage(&repairs, &point->position);
	return r;
}

static int find_exact(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
		      struct lb_point *ret_point)
{
	_cleanup_(list_freep) struct lb_checkpoint_list checkpoints = {0};
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	struct exact exact = {.position = *position};
	_cleanup_(walk_free) struct walk w = {.v = v,
					      .machine = machine,
					      .checkpoints = &checkpoints,
					      .every = true,
					      .to_ns = INT64_MAX,
					      .fn = note_exact,
					      .arg = &exact};
	size_t index = BEGINNING;
	int r;

	r = walk_open(&w, &checkpoints);
	if (r == 0)
		r = walk_folded(&w);
	if (r == 0)
		r = lb_checkpoint_search(v, machine, &checkpoints, checkpoints.n, is_at_or_before, position, &c,
					 &index);
	if (r == 0 || (r == -ENOENT && !exact.found))
		r = walk_span(&w, index, NULL);
	if (r < 0)
		return r;
	if (!exact.found)
		return -ENOENT;
	*ret_point = exact.point;
	return note_damage(v, machine, ret_point);
}

static int parse_position(const char *text, struct lb_position *ret_position)
{
	char epoch[24];
	const char *colon = strchr(text, ':');
	struct lb_position p;

	if (colon == NULL || (size_t)(colon - text) >= sizeof(epoch))
		return -EINVAL;
	snprintf(epoch, sizeof(epoch), "%.*s", (int)(colon - text), text);
	if (lb_u64_parse(epoch, UINT64_MAX, &p.epoch) < 0 || lb_u64_parse(colon + 1, UINT64_MAX, &p.seq) < 0)
		return -EINVAL;
	*ret_position = p;
	return 0;
}

/* Every member that the vault still knows has the point; a machine that was erased is no longer a member. */
static int all_have(struct lb_vault *v, const struct lb_shared_point *p, const struct lb_uuid *machine,
		    struct lb_point *ret_point)
{
	for (unsigned int i = 0; i < p->n_members; i++) {
		const struct lb_shared_member *m = &p->members[i];
		_cleanup_(lb_key_wipe) struct lb_key key = {0};
		struct lb_point point = {0};
		int r;

		r = lb_vault_machine_key(v, &m->machine, false, &key);
		if (r == 0)
			r = find_exact(v, &m->machine, &m->position, &point);
		else if (r == -ENOENT && !lb_uuid_equal(&m->machine, machine))
			continue;
		r = r < 0 ? r : note_damage(v, &m->machine, &point);
		if (r < 0)
			return r;
		if (point.is_damaged)
			return -ENOENT;
		if (lb_uuid_equal(&m->machine, machine))
			*ret_point = point;
	}
	return 0;
}

/* `id` NULL: the newest. -ENOENT without text. */
static int find_shared(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_uuid *id,
		       struct lb_point *ret_point, struct lb_uuid *ret_id)
{
	_cleanup_(shared_freep) struct lb_shared_points shared = {0};
	int r;

	r = lb_shared_list(v, machine, &shared);
	if (r < 0)
		return r;
	for (size_t i = 0; i < shared.n; i++) {
		if (id != NULL && !lb_uuid_equal(&shared.points[i].id, id))
			continue;
		r = all_have(v, &shared.points[i], machine, ret_point);
		if (r == 0)
			*ret_id = shared.points[i].id;
		if (r != -ENOENT)
			return r;
	}
	return -ENOENT;
}

int lb_point_shared_text(struct lb_vault *v, const struct lb_uuid *machine, const char *text,
			 char ret_text[LB_POINT_NAME_BYTES])
{
	char id_text[LB_UUID_TEXT_BYTES];
	struct lb_point point;
	struct lb_uuid id;
	int r;

	if (strcmp(text, "latest-multi-vm") != 0) {
		snprintf(ret_text, LB_POINT_NAME_BYTES, "%s", text);
		return 0;
	}
	r = find_shared(v, machine, NULL, &point, &id);
	if (r == -ENOENT)
		return no_point(v, machine, text);
	if (r < 0)
		return r;
	lb_uuid_format(&id, id_text);
	snprintf(ret_text, LB_POINT_NAME_BYTES, LB_SHARED_PREFIX "%s", id_text);
	return 0;
}

static int find(struct lb_vault *v, const struct lb_uuid *machine, const char *text, struct lb_point *ret_point)
{
	struct lb_position position;
	int64_t time_ns;
	int r;

	/* what is not in the vault yet is brought there before, by who can: here both are the same */
	if (strcmp(text, "latest") == 0 || strcmp(text, "latest-processed") == 0)
		return find_newest(v, machine, INT64_MAX, 0, ret_point);
	if (strcmp(text, "latest-app") == 0)
		return find_newest(v, machine, INT64_MAX, LB_HRL_MARK_APP, ret_point);
	if (strcmp(text, "latest-multi-vm") == 0)
		return find_shared(v, machine, NULL, ret_point, &(struct lb_uuid){0});
	if (strncmp(text, LB_SHARED_PREFIX, strlen(LB_SHARED_PREFIX)) == 0) {
		struct lb_uuid id;

		if (lb_uuid_parse(text + strlen(LB_SHARED_PREFIX), &id) < 0)
			return lb_fail(-EINVAL, "\"%s\" names no shared point: give " LB_SHARED_PREFIX "UUID", text);
		return find_shared(v, machine, &id, ret_point, &(struct lb_uuid){0});
	}
	if (parse_position(text, &position) == 0)
		return find_exact(v, machine, &position, ret_point);
	if (lb_time_parse(text, &time_ns) == 0)
		return find_newest(v, machine, time_ns, 0, ret_point);
	if (lb_name_check("point", text) == 0) {
		r = lb_pin_find(v, machine, text, ret_point);
		return r < 0 ? r : note_damage(v, machine, ret_point);
	}
	return lb_fail(-EINVAL,
		       "\"%s\" is no recovery point: give latest, latest-processed, latest-app, latest-multi-vm, "
		       "shared:UUID, a pin's name, "
		       "EPOCH:SEQUENCE, or a time "
		       "such as 2026-01-31T08:15:00Z",
		       text);
}

int lb_point_find(struct lb_vault *v, const struct lb_uuid *machine, const char *text, struct lb_point *ret_point)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_point point;
	int r;

	r = lb_vault_machine_key(v, machine, false, &key);
	if (r < 0)
		return r;
	r = find(v, machine, text, &point);
	if (r == -ENOENT)
		return no_point(v, machine, text);
	if (r < 0)
		return r;
	lb_err_clear();
	*ret_point = point;
	return 0;
}
