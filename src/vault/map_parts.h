/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How a map lies in memory: for map.c and map_merge.c alone. */
#include "vault/map.h"

#define LB_MAP_LEAF_EXTENTS 340

struct lb_map_leaf {
	uint32_t n;
	struct lb_map_extent e[LB_MAP_LEAF_EXTENTS];
};

struct lb_map_disk {
	uint16_t id;
	size_t n, room;
	uint64_t *first; /* start of each leaf's first extent */
	struct lb_map_leaf **leaf;
};

struct lb_map {
	uint32_t n_disks;
	struct lb_map_disk disks[LB_HRL_DISKS_MAX];
	struct lb_map_segment *segments;
	uint32_t n_segments, room_segments;
	uint64_t extents;
};

static inline uint64_t lb_map_extent_end(const struct lb_map_extent *e)
{
	return e->start + e->sectors;
}

/* Cuts off what lies before `start`. */
void lb_map_extent_trim(struct lb_map_extent *e, uint64_t start);
int lb_map_disk_make(struct lb_map *m, uint16_t id, struct lb_map_disk **ret_disk);
/* Puts an extent behind all that is on the disk, as when a checkpoint is loaded. */
int lb_map_append(struct lb_map *m, struct lb_map_disk *d, const struct lb_map_extent *x);
