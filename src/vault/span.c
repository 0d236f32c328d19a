/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/span.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

#define NAME_ATTEMPTS_MAX 8
#define SECTORS_ALL (UINT64_C(1) << 54)

static int add_data(void *arg, const struct lb_map_extent *x)
{
	if (lb_hrl_kind_has_data(x->kind))
		*(uint64_t *)arg += (uint64_t)x->sectors * LB_HRL_SECTOR_BYTES;
	return 0;
}

static int each_extent(const struct lb_map *map, lb_map_fn fn, void *arg)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_map_disks(map); i++)
		r = lb_map_walk(map, lb_map_disk_id(map, i), 0, SECTORS_ALL, fn, arg);
	return r;
}

/* A number that is free: what a round that died left, has others. */
static int put_named(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version, const struct lb_map *map,
		     struct lb_span *span)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = calloc(1, sizeof(*c));
	uint32_t random;
	int r;

	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for the map of a span");
	r = lb_vault_random(v, &random, sizeof(random));
	if (r < 0)
		return r;
	c->machine = *machine;
	c->place.number = version << 32 | random;
	c->after.position = span->point.position;
	c->after.receipt_ns = span->point.time_ns;
	c->after.flags = span->point.flags;
	c->manifest = version;
	r = lb_checkpoint_put(v, c, map);
	if (r < 0)
		return r;
	span->map = c->place.number;
	span->map_bytes = c->stored_bytes;
	return 0;
}

int lb_span_put(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version, const struct lb_map *map,
		struct lb_span *span)
{
	int r = -EEXIST;

	for (int i = 0; i < NAME_ATTEMPTS_MAX && r == -EEXIST; i++)
		r = put_named(v, machine, version, map, span);
	if (r < 0)
		return r;
	span->data_bytes = 0;
	return each_extent(map, add_data, &span->data_bytes);
}

int lb_span_load(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_span *span, struct lb_map **ret_map)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	struct lb_place place = {.number = span->map};
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_checkpoint_read(v, machine, &place, &c);
	if (r == 0 && lb_position_compare(&c->after.position, &span->point.position) != 0)
		r = lb_fail(-EBADMSG, "it is of another span than the manifest names");
	if (r == 0)
		r = lb_checkpoint_load(v, c, ret_map);
	if (r == 0 || lb_checkpoint_name(name, machine, &place) < 0)
		return r;
	return lb_wrap(r == -ENOENT ? -EBADMSG : r, "%s: map %s, without which no point from %llu:%llu on can be read",
		       v->store->url, name, (unsigned long long)span->point.position.epoch,
		       (unsigned long long)span->point.position.seq);
}

struct overlay {
	struct lb_map *map;
	const struct lb_map *above;
	uint32_t *index; /* of above's segments in map, +1; 0: not there yet */
	uint16_t disk;
};

static int overlay_extent(void *arg, const struct lb_map_extent *x)
{
	struct overlay *o = arg;
	struct lb_map_extent mine = *x;
	int r;

	if (o->index[x->segment] == 0) {
		r = lb_map_segment_add(o->map, lb_map_segment(o->above, x->segment), &o->index[x->segment]);
		if (r < 0)
			return r;
		o->index[x->segment]++;
	}
	mine.segment = o->index[x->segment] - 1;
	return lb_map_insert(o->map, o->disk, &mine);
}

int lb_map_overlay(struct lb_map *map, const struct lb_map *above)
{
	struct overlay o = {.map = map, .above = above};
	_cleanup_free_ uint32_t *index = calloc(lb_map_segments(above) + 1, sizeof(*index));
	int r = 0;

	if (index == NULL)
		return lb_fail(-ENOMEM, "out of memory for an extent map");
	o.index = index;
	for (uint32_t i = 0; r == 0 && i < lb_map_disks(above); i++) {
		o.disk = lb_map_disk_id(above, i);
		r = lb_map_walk(above, o.disk, 0, SECTORS_ALL, overlay_extent, &o);
	}
	return r;
}

struct counting {
	const struct lb_map *map;
	uint64_t *raw_bytes; /* by segment */
};

static int count_extent(void *arg, const struct lb_map_extent *x)
{
	struct counting *c = arg;

	return add_data(&c->raw_bytes[x->segment], x);
}

int lb_map_objects(const struct lb_map *map, int (*fn)(void *arg, uint64_t epoch, uint64_t number, uint64_t raw_bytes),
		   void *arg)
{
	_cleanup_free_ uint64_t *raw_bytes = calloc(lb_map_segments(map) + 1, sizeof(*raw_bytes));
	struct counting c = {.map = map, .raw_bytes = raw_bytes};
	int r;

	if (raw_bytes == NULL)
		return lb_fail(-ENOMEM, "out of memory for counting an extent map");
	r = each_extent(map, count_extent, &c);
	for (uint32_t i = 0; r == 0 && i < lb_map_segments(map); i++) {
		const struct lb_map_segment *s = lb_map_segment(map, i);

		if (raw_bytes[i] == 0)
			continue;
		r = fn(arg, (s->object & LB_FOLDED_OBJECT) != 0 ? 0 : s->epoch, s->object, raw_bytes[i]);
	}
	return r;
}
