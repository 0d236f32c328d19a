/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The state of a repair, shared by the walk (repair_walk.c), the ranges (repair_ranges.c) and the act (repair.c). */
#include "vault/chain.h"
#include "vault/losses.h"
#include "vault/repair.h"
#include "vault/verify_parts.h"

#define LB_REPAIR_SECTORS_MAX (UINT64_C(1) << 54)

struct lb_repair_places {
	struct lb_place *at;
	size_t n, room;
};

struct lb_repair_ends { /* positions at which readable objects end, rising */
	struct lb_position *at;
	size_t n, room;
};

struct lb_repair_work {
	struct lb_vault *v;
	bool deep, dry_run;
	void (*tell)(void *arg, const struct lb_repair_told *t);
	void *arg;
	struct lb_repair_report report;
	/* of the machine under way */
	struct lb_uuid machine;
	struct lb_chain chain;
	struct lb_repair_places objects;
	struct lb_repair_ends ends;
	struct lb_place cut; /* of the folded journal */
	struct lb_checkpoint_list checkpoints;
	struct lb_repairs records; /* new ones and those that were there */
	bool *was_there;
	unsigned int checkpoints_damaged;
};

void lb_repair_say(struct lb_repair_work *w, const struct lb_repair *record, bool repaired, const char *object,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static inline bool lb_repair_place_before(const struct lb_place *a, const struct lb_place *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->number < b->number);
}

static inline bool lb_repair_position_before(const struct lb_position *a, const struct lb_position *b)
{
	return a->epoch < b->epoch || (a->epoch == b->epoch && a->seq < b->seq);
}

/* repair_walk.c: one object of the listing; then all of the journal: what can't be read becomes records. */
int lb_repair_add_object(void *arg, const char *name, uint64_t size_bytes);
int lb_repair_walk(struct lb_repair_work *w);
int lb_repair_add_end(struct lb_repair_ends *e, const struct lb_position *position);
/* Takes `record` over, also when it fails. */
int lb_repair_add_record(struct lb_repair_work *w, struct lb_repair *record, bool was_there);

/* repair_folded.c: maps of spans and what they refer to; a manifest with new maps is put. */
int lb_repair_spans(struct lb_repair_work *w, struct lb_manifest *m);

/* repair_ranges.c: what a lost piece may have written, and up to which position an image lacks it. */
int lb_repair_add_range(struct lb_repair *r, uint16_t disk, uint64_t start, uint64_t sectors);
void lb_repair_bound_ranges(struct lb_repair *r);
int lb_repair_find_ranges(struct lb_repair_work *w, struct lb_repair *r);
int lb_repair_find_until(struct lb_repair_work *w, const struct lb_repair *record, struct lb_position *ret_until);
