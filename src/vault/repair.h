/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Repair of a vault that lost journal objects, segments or frames. Nothing is removed or replaced: a *repair record*,
 * m/<uuid>/r/<epoch>-<number>-<version>, put if absent, stands beside the damage that begins at that journal object and
 * tells readers how to step over it: the state of the chain behind it, and the ranges of the disks that may have been
 * written there. Those ranges are LB_MAP_LOST in the map until something later hides them: reading them is an error
 * that names the object, or zeroes where that was asked for. The newest version of a record counts.
 */
#include "vault/chain.h"
#include "vault/map.h"

#define LB_REPAIR_RANGES_MAX 16384 /* more are rounded out, to larger ones */
#define LB_REPAIR_SEGMENTS_MAX LB_PACK_SEGMENTS_MAX
#define LB_REPAIR_FRAMES_MAX 16384
#define LB_REPAIRS_MAX 4096
#define LB_REPAIR_TEXT_BYTES 256

#define LB_REPAIR_FOLDED (UINT64_C(1) << 39)

struct lb_lost_range {
	uint64_t start, sectors;
	uint16_t disk;
};

struct lb_lost_frame {
	uint64_t seq;
	uint32_t frame;
};

struct lb_repair {
	struct lb_place place; /* the journal object at which the damage begins */
	uint64_t version;
	/* of what was folded: place is no chain's then (LB_REPAIR_FOLDED in its number). The object that is lost, as
	 * maps name it (epoch 0: rewritten data); zeroes: the map of a span was, which has the ranges as lost since */
	struct lb_place folded;
	/* whole objects are lost, [place, last]: the state of the chain behind them */
	bool crosses;
	struct lb_place last;
	struct lb_digest last_digest;
	bool last_is_seal;
	struct lb_pack_after after;
	/* or segments and frames of that object alone */
	uint64_t *segments;
	size_t n_segments;
	struct lb_lost_frame *frames;
	size_t n_frames;
	/* points in [from, until) are damaged; until.epoch 0: all that there were when it was written */
	struct lb_position from, until;
	bool is_exact; /* the ranges are what was written there and little more; else all that was not written since */
	struct lb_lost_range *ranges;
	size_t n_ranges;
};

static inline bool lb_repair_is_of_data(const struct lb_repair *r)
{
	return r->folded.epoch != 0 || r->folded.number != 0;
}

void lb_repair_free(struct lb_repair *r);
LB_DEFINE_CLEANUP(struct lb_repair *, lb_repair_free);

/* ---- records (repair_record.c) ---- */

/* The newest version of the record of a place: -ENOENT when there is none. */
int lb_repair_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		   struct lb_repair **ret);
/* The next version of a record; its number is filled in. */
int lb_repair_put(struct lb_vault *v, const struct lb_uuid *machine, struct lb_repair *r);
int lb_repair_name_parse(const char *object, struct lb_place *ret_place, uint64_t *ret_version);

struct lb_repairs {
	struct lb_repair **r; /* by place, the newest versions */
	size_t n;
};
int lb_repairs_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_repairs *ret);
void lb_repairs_free(struct lb_repairs *list);
/* Whether one of them says that the point at this position is damaged. */
bool lb_repairs_damage(const struct lb_repairs *list, const struct lb_position *position);

/* The ranges become lost in a map that was built up to the damage. */
int lb_repair_apply(const struct lb_repair *r, struct lb_map *map);
bool lb_repair_has_segment(const struct lb_repair *r, uint64_t seq);
/* Whether an extent of a map lies in what this record says is lost. */
bool lb_repair_concerns(const struct lb_repair *r, const struct lb_map *map, const struct lb_map_extent *x);

/* ---- the act (repair.c) ---- */

struct lb_repair_told {
	struct lb_uuid machine;
	const char *object;
	const char *text;               /* what is lost, what was or would be done, or what can't be */
	const struct lb_repair *record; /* or NULL */
	bool is_repaired;
};

struct lb_repair_report {
	uint64_t repaired, beyond; /* pieces of damage */
	uint64_t recorded;         /* losses: what verification finds and from now on tells apart from new damage */
};

/*
 * Finds the damage of a machine (NULL: of all) and writes what lets everything else be recovered; `dry_run`: only says
 * so. `deep` looks at every frame, too. Nothing needs to be stopped; it can be run again at any time, and after a
 * resync it says since when everything is whole again.
 */
int lb_vault_repair(struct lb_vault *v, const struct lb_uuid *machine, bool deep, bool dry_run,
		    void (*tell)(void *arg, const struct lb_repair_told *t), void *arg,
		    struct lb_repair_report *ret_report);
