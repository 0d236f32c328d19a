/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/retention.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"

const struct lb_retention lb_retention_default = {
	.ladder = {.n = 4,
		   .rungs = {{0, 2 * 3600}, {3600, 24 * 3600}, {2 * 3600, 7 * 24 * 3600}, {4 * 3600, 15 * 24 * 3600}}},
	.delete_delay_s = 24 * 3600,
};

static const struct lb_ladder_rung *rung_of(const struct lb_ladder *ladder, int64_t age_ns)
{
	for (uint32_t i = 0; i < ladder->n; i++)
		if (age_ns <= ladder->rungs[i].for_s * LB_NS_PER_S)
			return &ladder->rungs[i];
	return NULL;
}

/* The times of a rung are cut at multiples of its step, so that the choice does not move as points age. */
static int64_t slot_of(const struct lb_ladder_rung *rung, int64_t time_ns)
{
	return time_ns / (rung->every_s * LB_NS_PER_S);
}

/* The first of its slot, or one that still held when a later slot began. */
static bool is_wanted(const struct lb_ladder_rung *rung, const struct lb_point *point, const struct lb_point *before)
{
	if (rung->every_s == 0 || before == NULL)
		return true;
	return slot_of(rung, point->time_ns) != slot_of(rung, before->time_ns) ||
	       slot_of(rung, point->until_ns) != slot_of(rung, point->time_ns);
}

void lb_retention_keep(const struct lb_retention *retention, const struct lb_point *points, size_t n, int64_t now_ns,
		       bool *keep)
{
	const struct lb_point *before = NULL; /* the last one kept */

	if (n > 0)
		now_ns = LB_MIN(now_ns, points[n - 1].until_ns);
	for (size_t i = 0; i < n; i++) {
		int64_t age_ns = now_ns - points[i].until_ns;
		const struct lb_ladder_rung *rung = rung_of(&retention->ladder, age_ns);

		keep[i] = i + 1 == n || (rung != NULL && is_wanted(rung, &points[i], before)) ||
			  ((points[i].flags & LB_HRL_MARK_APP) != 0 && age_ns <= retention->app_s * LB_NS_PER_S);
		if (keep[i])
			before = &points[i];
	}
}

int lb_retention_now(struct lb_store *store, int64_t *ret_now_ns)
{
	int64_t ours_ns = lb_now_ns(store->env), theirs_ns, apart_ns;
	int r;

	r = lb_store_now(store, &theirs_ns);
	if (r < 0)
		return r;
	apart_ns = ours_ns > theirs_ns ? ours_ns - theirs_ns : theirs_ns - ours_ns;
	if (apart_ns > LB_CLOCK_JUMP_NS)
		return lb_fail(-EAGAIN,
			       "the clock of this host and that of %s are %lld s apart: no point is pruned until they "
			       "agree to the hour; set the clock that is wrong",
			       store->url, (long long)(apart_ns / LB_NS_PER_S));
	*ret_now_ns = LB_MIN(ours_ns, theirs_ns);
	return 0;
}
