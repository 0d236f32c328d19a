/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lost piece may have written: whatever its readable successors did not write again is known exactly by the
 * first checkpoint after it (extents of sources from the piece on), so that the ranges of the record are those, and the
 * points in between lack only what was not written again before them. Without such a checkpoint everything is suspect
 * that was not written since.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/catalog.h"
#include "vault/repair_parts.h"
#include "vault/replay.h"

#define SECTORS_ASSUMED                                                                                                \
	(UINT64_C(1) << 40) /* 512 TiB, of disks whose sizes nobody knows: a map bears as much of each */

/* ---- what may have been written ---------------------------------------------------------------------------- */

int lb_repair_add_range(struct lb_repair *r, uint16_t disk, uint64_t start, uint64_t sectors)
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
void lb_repair_bound_ranges(struct lb_repair *r)
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

	if (lb_hrl_kind_has_data(x->kind) ? lb_repair_position_before(&source, &g->r->from)
					  : s->epoch < g->r->from.epoch)
		return 0;
	return lb_repair_add_range(g->r, g->disk, x->start, x->sectors);
}

static int gather_all(struct lb_repair *r, const struct lb_map *map)
{
	struct gathering g = {.r = r, .map = map};
	int result = 0;

	for (uint32_t i = 0; result == 0 && i < lb_map_disks(map); i++) {
		g.disk = lb_map_disk_id(map, i);
		result = lb_map_walk(map, g.disk, 0, LB_REPAIR_SECTORS_MAX, gather, &g);
	}
	return result;
}

/* All of every disk: nobody knows better. */
static int whole_disks(struct lb_repair_work *w, struct lb_repair *r)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	int result;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	result = lb_catalog_get(w->v, &w->machine, item);
	if (result == -ENOENT || result == -EBADMSG) {
		lb_err_clear();
		for (uint16_t disk = 0; disk < LB_HRL_DISKS_MAX; disk++) {
			result = lb_repair_add_range(r, disk, 0, SECTORS_ASSUMED);
			if (result < 0)
				return result;
		}
		return 0;
	}
	for (uint32_t i = 0; result == 0 && i < item->n_disks; i++)
		result = lb_repair_add_range(r, item->disks[i].id, 0,
					     (item->disks[i].size_bytes + LB_HRL_SECTOR_BYTES - 1) /
						     LB_HRL_SECTOR_BYTES);
	return result;
}

/* From the first checkpoint after the piece that can be loaded. */
int lb_repair_find_ranges(struct lb_repair_work *w, struct lb_repair *r)
{
	const struct lb_place *end = (r->place.number & LB_REPAIR_FOLDED) != 0 ? &w->cut
				     : r->crosses                              ? &r->last
									       : &r->place;
	int result;

	for (size_t i = 0; i < w->checkpoints.n; i++) {
		_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
		_cleanup_(lb_map_freep) struct lb_map *map = NULL;

		if (lb_repair_place_before(&w->checkpoints.places[i], end))
			continue;
		result = lb_checkpoint_read(w->v, &w->machine, &w->checkpoints.places[i], &c);
		if (result == 0)
			result = lb_checkpoint_load(w->v, c, &map);
		if (lb_verify_is_damage(result))
			continue;
		r->is_exact = true;
		if (result == 0)
			result = gather_all(r, map);
		lb_repair_bound_ranges(r);
		return result;
	}
	lb_err_clear();
	return whole_disks(w, r);
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
static int is_damaged_at(struct lb_repair_work *w, const struct lb_repair *record, const struct lb_position *position)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	struct looking l = {.record = record};
	int r;

	r = lb_replay(w->v, &w->machine, position, &map, NULL, NULL);
	l.map = map;
	for (uint32_t i = 0; r == 0 && i < lb_map_disks(map); i++)
		r = lb_map_walk(map, lb_map_disk_id(map, i), 0, LB_REPAIR_SECTORS_MAX, look, &l);
	return lb_verify_is_damage(r) ? 1 : r;
}

/* What was written over once stays so: a search in halves. */
int lb_repair_find_until(struct lb_repair_work *w, const struct lb_repair *record, struct lb_position *ret_until)
{
	size_t lo = 0, hi = w->ends.n;
	int r;

	*ret_until = (struct lb_position){0};
	while (lo < hi && lb_repair_position_before(&w->ends.at[lo], &record->from))
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
