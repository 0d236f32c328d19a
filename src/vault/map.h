/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The extent map: for each disk, which segment and frame holds each sector. Extents never overlap. Rank: what is
 * inserted hides what is there, except that scanned data never hides captured data of the same epoch (image of epoch e
 * = end of epoch e-1, then scan(e), then captured(e)). Segments are added in the order of their positions.
 *
 * Pure memory. One thread builds a map; many may read one that is finished. After -ENOMEM a map is only fit to be
 * freed.
 */
#include "hrl/hrl.h"

#define LB_MAP_EXTENTS_MAX (64u << 20)
#define LB_MAP_SEGMENTS_MAX (16u << 20)

struct lb_map_segment {
	uint64_t epoch, seq;
	uint64_t object;                               /* number of the journal object in that epoch */
	uint32_t offset_bytes, size_bytes, head_bytes; /* in the object */
	struct lb_digest digest;
};

/* A kind of the map's own: what was written there was lost with its object (vault/repair.h). Ranks as captured. */
#define LB_MAP_LOST 5

struct lb_map_extent {
	uint64_t start; /* in sectors of LB_HRL_SECTOR_BYTES */
	uint32_t sectors;
	uint32_t segment; /* index of lb_map_segment() */
	uint32_t frame;
	uint16_t frame_sector;
	uint8_t kind; /* enum lb_hrl_kind, or LB_MAP_LOST */
};

struct lb_map;
int lb_map_new(struct lb_map **ret_map);
void lb_map_free(struct lb_map *m);
LB_DEFINE_CLEANUP(struct lb_map *, lb_map_free);

int lb_map_segment_add(struct lb_map *m, const struct lb_map_segment *segment, uint32_t *ret_index);
const struct lb_map_segment *lb_map_segment(const struct lb_map *m, uint32_t index);
uint32_t lb_map_segments(const struct lb_map *m);

/* Inserts one extent of a segment that was added. */
int lb_map_insert(struct lb_map *m, uint16_t disk, const struct lb_map_extent *extent);
/* All extents of an opened segment. */
int lb_map_apply(struct lb_map *m, uint32_t segment, const struct lb_hrl_extent *extents, uint32_t n);

/* What `above` laid over `below` makes, in one pass over both, which are used up also when it fails. */
int lb_map_merge(struct lb_map *below, struct lb_map *above, struct lb_map **ret_map);

uint64_t lb_map_extents(const struct lb_map *m);
uint64_t lb_map_bytes(const struct lb_map *m); /* of memory */
uint32_t lb_map_disks(const struct lb_map *m);
uint16_t lb_map_disk_id(const struct lb_map *m, uint32_t i);

/* The extents that touch [start, start + sectors), clipped to it, in order; a non-zero return ends it and is passed on.
 */
typedef int (*lb_map_fn)(void *arg, const struct lb_map_extent *extent);
int lb_map_walk(const struct lb_map *m, uint16_t disk, uint64_t start, uint64_t sectors, lb_map_fn fn, void *arg);
