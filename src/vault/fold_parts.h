/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A round of folding under way, shared by its steps: fold.c, fold_spans.c, fold_plan.c, rewrite.c, collect.c. */
#include "vault/fold.h"
#include "vault/manifest.h"
#include "vault/pins.h"
#include "vault/span.h"

struct lb_fold {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	const struct lb_fold_options *options;
	int64_t now_ns;
	struct lb_manifest *old; /* as read */
	struct lb_manifest *m;   /* the next version, being built */
	struct lb_pins pins;     /* read after `old` */
	bool changed;
	struct lb_fold_report report;
};

int lb_fold_pace(struct lb_fold *f, uint64_t bytes);
bool lb_fold_is_pinned(const struct lb_fold *f, const struct lb_position *position);
/* Adds (sign 1) or takes away (-1) what a map refers to. */
int lb_fold_account(struct lb_fold *f, const struct lb_map *map, int sign);
/* The map of a span that is replaced. */
int lb_fold_drop_map(struct lb_fold *f, const struct lb_span *span);
/* Puts `map` for a span, which is filled in, and accounts for it. */
int lb_fold_put_map(struct lb_fold *f, const struct lb_map *map, struct lb_span *span);

/* Does what `old` announced: merges doomed spans, folds the journal up to `old->next`. */
int lb_fold_spans(struct lb_fold *f);
/* Announces what the version after this one may do. */
int lb_fold_plan(struct lb_fold *f);
/* Moves live data out of objects with much dead data. */
int lb_fold_rewrite(struct lb_fold *f);
/* Deletes garbage that `old` called deletable and no lease protects. */
int lb_fold_delete(struct lb_fold *f);
/* Drops objects without live data, checkpoints before the cut; says what is now deletable. */
int lb_fold_drop(struct lb_fold *f);
/* Removes old versions of the manifest and leftovers of rounds that died. Failures cost nothing. */
void lb_fold_sweep(struct lb_fold *f);
