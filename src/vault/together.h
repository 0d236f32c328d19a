/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Points of several machines that are recovered together. Members of one replication group get the same shared point,
 * also when a newer one is made in between. One thread at a time.
 */
#include "vault/points.h"

#define LB_TOGETHER_GROUPS_MAX                                                                                         \
	16 /* different groups among them; the points of more are looked for machine by machine */

struct lb_together {
	char shared[LB_TOGETHER_GROUPS_MAX][LB_POINT_NAME_BYTES]; /* "shared:UUID" of those looked up so far */
	unsigned int n;
};

/* As lb_point_find(), for the next machine of those that `t` (zeroed before the first) has seen. */
int lb_point_find_together(struct lb_together *t, struct lb_vault *v, const struct lb_uuid *machine, const char *text,
			   struct lb_point *ret_point);
