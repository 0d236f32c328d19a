/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/verify_parts.h"

void lb_verify_parts_free(struct lb_verify *w)
{
	if (w->map != NULL)
		lb_map_free(w->map);
	w->map = NULL;
	lb_checkpoint_list_free(&w->checkpoints);
	w->checkpoint_next = 0;
}

struct comparing {
	const struct lb_map *ours, *theirs;
	uint16_t disk;
	bool differ;
};

static bool same_source(const struct comparing *c, const struct lb_map_extent *a, const struct lb_map_extent *b)
{
	const struct lb_map_segment *sa = lb_map_segment(c->ours, a->segment),
				    *sb = lb_map_segment(c->theirs, b->segment);

	if (a->kind != b->kind || a->start != b->start || a->sectors != b->sectors || sa->epoch != sb->epoch)
		return false;
	return !lb_hrl_kind_has_data(a->kind) ||
	       (sa->seq == sb->seq && a->frame == b->frame && a->frame_sector == b->frame_sector);
}

struct looking {
	struct comparing *c;
	const struct lb_map_extent *ours;
	uint64_t covered;
};

static int compare_piece(void *arg, const struct lb_map_extent *their)
{
	struct looking *l = arg;
	struct lb_map_extent part = *l->ours;
	uint64_t cut = their->start - part.start;

	part.start = their->start;
	part.sectors = their->sectors;
	if (lb_hrl_kind_has_data(part.kind))
		part.frame_sector += (uint16_t)cut;
	l->covered += their->sectors;
	if (!same_source(l->c, &part, their))
		l->c->differ = true;
	return l->c->differ;
}

static int compare_extent(void *arg, const struct lb_map_extent *ours)
{
	struct comparing *c = arg;
	struct looking l = {.c = c, .ours = ours};

	lb_map_walk(c->theirs, c->disk, ours->start, ours->sectors, compare_piece, &l);
	c->differ |= l.covered != ours->sectors;
	return c->differ;
}

static int count_sectors(void *arg, const struct lb_map_extent *x)
{
	*(uint64_t *)arg += x->sectors;
	return 0;
}

/* Every piece of ours is theirs, and they cover no more than we do. */
static bool maps_differ(const struct lb_map *ours, const struct lb_map *theirs)
{
	struct comparing c = {.ours = ours, .theirs = theirs};
	uint64_t our_sectors = 0, their_sectors = 0;

	for (uint32_t i = 0; i < lb_map_disks(ours) && !c.differ; i++) {
		c.disk = lb_map_disk_id(ours, i);
		lb_map_walk(ours, c.disk, 0, UINT64_C(1) << 54, compare_extent, &c);
		lb_map_walk(ours, c.disk, 0, UINT64_C(1) << 54, count_sectors, &our_sectors);
	}
	for (uint32_t i = 0; i < lb_map_disks(theirs); i++)
		lb_map_walk(theirs, lb_map_disk_id(theirs, i), 0, UINT64_C(1) << 54, count_sectors, &their_sectors);
	return c.differ || our_sectors != their_sectors;
}

static int check_checkpoint(struct lb_verify *w, const char *object, const struct lb_place *place)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	int r;

	w->report.done.objects++;
	r = lb_checkpoint_read(w->v, &w->machine, place, &c);
	if (r == 0)
		r = lb_checkpoint_load(w->v, c, &map);
	if (lb_verify_is_damage(r)) {
		lb_verify_find(w, object, "%s: it costs no point, only time; remove it", lb_err_text());
		return 0;
	}
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < c->n_frames; i++)
		w->report.done.bytes += c->frames[i].stored_bytes;
	if (w->prev_is_known && !lb_equal_ct(&c->object_digest, &w->chain.last_digest, sizeof(c->object_digest)))
		lb_verify_find(
			w, object,
			"it was made of another journal object than the one of its number: points after it can't be "
			"opened through it; remove it");
	else if (w->deep && w->map_is_whole && maps_differ(w->map, map))
		lb_verify_find(w, object, "it does not hold what the journal up to it says; remove it");
	return 0;
}

static int compare_places(const struct lb_place *a, const struct lb_place *b)
{
	if (a->epoch != b->epoch)
		return a->epoch < b->epoch ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

static void no_such_object(struct lb_verify *w, const struct lb_place *place)
{
	char object[LB_OBJECT_NAME_BYTES];

	if (lb_checkpoint_name(object, &w->machine, place) == 0)
		lb_verify_find(w, object,
			       "it is of a journal object that is not there: the journal was cut after it was made");
}

int lb_verify_checkpoint_at(struct lb_verify *w, const struct lb_place *place)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	while (w->checkpoint_next < w->checkpoints.n) {
		const struct lb_place *next = &w->checkpoints.places[w->checkpoint_next];
		int order = compare_places(next, place);

		if (order > 0)
			return 0;
		w->checkpoint_next++;
		if (order < 0) {
			no_such_object(w, next);
			continue;
		}
		r = lb_checkpoint_name(object, &w->machine, next);
		return r < 0 ? r : check_checkpoint(w, object, next);
	}
	return 0;
}

static int checkpoint_object(void *arg, const char *object, uint64_t size_bytes)
{
	const char *name = strrchr(object, '/') + 1;
	struct lb_verify *w = arg;
	struct lb_place place;

	(void)size_bytes;
	/* parts end in "-<16 hex>-<4 hex>"; their heads name them, and those of a crash are only in the way */
	if (lb_checkpoint_name_parse(object, &place) < 0 && strlen(name) != 8 + 1 + 10 + 1 + 16 + 1 + 4)
		lb_verify_find(w, object, "it is no checkpoint: foreign");
	return 0;
}

int lb_verify_checkpoints_end(struct lb_verify *w)
{
	char prefix[LB_OBJECT_NAME_BYTES];
	int r;

	for (; w->checkpoint_next < w->checkpoints.n; w->checkpoint_next++)
		no_such_object(w, &w->checkpoints.places[w->checkpoint_next]);
	r = lb_vault_name(prefix, &w->machine, "c/");
	return r < 0 ? r : lb_store_list(w->v->store, prefix, checkpoint_object, w);
}
