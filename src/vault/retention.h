/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which recovery points a policy keeps. Pure, but for the clock. */
#include "base/ladder.h"
#include "vault/points.h"

#define LB_CLOCK_JUMP_NS (3600 * INT64_C(1000000000))

struct lb_retention {
	struct lb_ladder ladder;
	uint32_t app_s;          /* application-consistent points are all kept this long; 0: as others */
	uint32_t delete_delay_s; /* between dropping an object and deleting it */
	uint32_t age_min_s;      /* objects that are younger are neither rewritten nor deleted */
};

/* The ladder that a policy has by default, a day's delay. */
extern const struct lb_retention lb_retention_default;

/*
 * Sets keep[i] for each of `n` points, from the oldest to the newest. Ages count from `now_ns` or from the newest
 * point, whichever is earlier: when points stop coming, those that are there stay. The newest is always kept.
 */
void lb_retention_keep(const struct lb_retention *retention, const struct lb_point *points, size_t n, int64_t now_ns,
		       bool *keep);

/* The clock to prune by: the lower of ours and the store's. -EAGAIN when they are more than an hour apart. */
int lb_retention_now(struct lb_store *store, int64_t *ret_now_ns);
