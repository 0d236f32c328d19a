/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Builds extent maps from the newest checkpoint that serves, or the maps of spans, and the indexes of the segments
 * after it.
 */
#include "vault/chain.h"
#include "vault/map.h"
#include "vault/span.h"

struct lb_replay_stats {
	uint64_t objects_read, bytes_read;
	bool from_checkpoint;
	bool folded; /* the position lies in what was folded */
};

/* Opens the head of one segment of an object and checks it against the table's entry. */
int lb_segment_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_map_segment *place,
		    struct lb_hrl_segment **ret_segment);
/* The object's name: "m/<uuid>/e/...", for errors. */
int lb_segment_object(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine,
		      const struct lb_map_segment *place);
struct lb_map_segment lb_pack_segment(const struct lb_pack *p, uint32_t i);
/* Adds what segments [0, n) of an object hold that end at or before `until` (NULL: all). */
int lb_replay_pack(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_pack *p,
		   const struct lb_position *until, struct lb_map *map);

/*
 * The map at a position that the journal holds or at which a span ends, -ENOENT elsewhere; NULL: at its end.
 * `ret_chain` (may be NULL) is left after the last object read.
 */
int lb_replay(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
	      struct lb_map **ret_map, struct lb_chain *ret_chain, struct lb_replay_stats *ret_stats);
