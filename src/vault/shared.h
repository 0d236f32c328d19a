/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Shared (multi-VM consistent) recovery points: which position of each member's journal belongs to one point of a
 * replication group. One object per group, `site/shared-<group>`, sealed under the vault key and replaced as a whole: a
 * point is there for all of its members or for none. It is written when every member's journal is in the vault up to
 * its mark.
 *
 * Which of them stay is decided here alone, by one ladder, and told to who folds by an object beside each member's
 * journal (pins.h): no member's own ladder prunes what the group keeps. What any member's pin or hold names stays at
 * all. Beyond LB_SHARED_KEPT_MAX the older half is thinned to every second one. Thread-safe.
 */
#include <stdbool.h>

#include "vault/retention.h"

#define LB_SHARED_MEMBERS_MAX 32
#define LB_SHARED_KEPT_MAX 512
#define LB_SHARED_NAME_BYTES 65
#define LB_SHARED_PREFIX "shared:" /* a point's text, as lb_point_find() takes it: shared:UUID */

struct lb_shared_member {
	struct lb_uuid machine;
	struct lb_position position;
	int64_t frozen_ns; /* for so long its filesystems stood still */
};

struct lb_shared_point {
	struct lb_uuid id, group;
	char group_name[LB_SHARED_NAME_BYTES];
	bool app;
	int64_t time_ns; /* when it was made, on the configuration server's clock */
	struct lb_shared_member members[LB_SHARED_MEMBERS_MAX];
	unsigned int n_members;
};

/*
 * Needs the vault key. The same point again changes nothing. What the ladder no longer keeps at `now_ns` goes (NULL:
 * nothing goes for its age), some at a time. -ESTALE: a member pruned its part before it could be kept.
 */
int lb_shared_add(struct lb_vault *v, const struct lb_shared_point *point, const struct lb_retention *retention,
		  int64_t now_ns);
/* The group is no more: each member's own ladder says what stays of its points. */
int lb_shared_let_go(struct lb_vault *v, const struct lb_uuid *group);

struct lb_shared_points {
	struct lb_shared_point *points; /* newest first */
	size_t n, room;
};
/* Those of which the machine is a member; without the vault key there are none. */
int lb_shared_list(struct lb_vault *v, const struct lb_uuid *machine, struct lb_shared_points *ret_points);
void lb_shared_free(struct lb_shared_points *points);
/* Where the machine's part of a point is; NULL: it has none. */
const struct lb_position *lb_shared_position(const struct lb_shared_point *point, const struct lb_uuid *machine);
/* The point that has this position of the machine; NULL: none. */
const struct lb_shared_point *lb_shared_at(const struct lb_shared_points *points, const struct lb_uuid *machine,
					   const struct lb_position *position);
