/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Folding: prunes recovery points by retention, puts maps in place of the journal behind the newest points, rewrites
 * objects with much dead data and deletes what nothing needs. One round makes at most one version of the manifest;
 * what it can't do yet (every step down waits for an earlier version to be durable) later rounds do. A round may be
 * killed at any instant; of two that race, one wins and the other one's objects are removed later. Needs the machine's
 * key.
 */
#include "vault/retention.h"

#define LB_FOLD_OBJECTS_MAX 1024               /* journal objects that one version folds */
#define LB_FOLD_REWRITE_BYTES_MAX (512u << 20) /* stored bytes that one round rewrites */
#define LB_FOLD_DEAD_PERCENT 15                /* of the live bytes may lie dead beside them before any are moved */
#define LB_FOLD_REWRITE_PERCENT 40             /* of the journal's bytes, beyond which only mostly dead objects are */
#define LB_FOLD_LIVE_PERCENT_MAX 90            /* objects with more live data than this are left alone */

struct lb_fold_options {
	struct lb_retention retention;
	bool dry_run;          /* only says what it would do */
	bool sweep;            /* looks for leftovers of rounds that died in any case, not only now and then */
	int64_t now_ns;        /* 0: lb_retention_now() */
	uint32_t live_percent; /* rewrites all with less live data, whatever it costs; 0: what is worth it */
	/* After each step that read or wrote so many bytes, so that a caller can wait; non-zero ends the round. */
	int (*pace)(void *arg, uint64_t bytes);
	void *arg;
};

/* Of what was folded, since the beginning. */
struct lb_fold_sizes {
	uint64_t journal_bytes; /* of the journal that was folded */
	uint64_t written_bytes; /* those, and what was rewritten, maps and manifests */
	uint64_t stored_bytes;  /* that it takes now, with what waits to be deleted */
	uint64_t needed_bytes;  /* of that: what the points that are kept refer to */
};

/* Write amplification and space, 0 while nothing was folded: written per byte of journal, stored per byte needed. */
double lb_fold_write_ratio(const struct lb_fold_sizes *sizes);
double lb_fold_space_ratio(const struct lb_fold_sizes *sizes);

struct lb_fold_report {
	uint64_t version; /* of the manifest that is now the newest */
	bool repaired;    /* nothing is folded: repair records lead over damage that the journal alone tells of */
	bool changed;     /* this round made it */
	bool raced;       /* another one was faster: nothing came of this round */
	uint64_t points, points_doomed, points_pruned;
	uint64_t objects_folded, objects_to_fold; /* of the journal: by this round, by the next one */
	uint64_t rewritten_bytes, map_bytes;
	uint64_t deleted_objects, deleted_bytes;
	struct lb_fold_sizes sizes; /* as they now are */
};

/* -EAGAIN when clocks disagree (lb_retention_now()); what pace() returned. */
int lb_fold_round(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_fold_options *options,
		  struct lb_fold_report *ret_report);
