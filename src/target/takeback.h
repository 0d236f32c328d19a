/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The other direction: a committed double is shut down for good, and the last of what it wrote becomes a point. */
#include "fabric/failover.h"
#include "target/gather.h"

#define LB_TAKEBACK_WAIT_S_DEFAULT 180

struct lb_takeback {
	bool gracefully; /* the double went down by itself */
	struct lb_point point;
	struct lb_gather_stats stats;
};
/*
 * Into the journal of `machine` (NULL: of the one whose double it is), whose disks have the numbers of that one's. Can
 * be begun again after a kill. Non-zero of `progress` (may be NULL) ends it and is passed on.
 */
int lb_takeback_run(struct lb_env *env, struct lb_vault *v, struct lb_failover *f, const struct lb_uuid *machine,
		    uint32_t wait_s, int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes), void *arg,
		    struct lb_takeback *ret_takeback);
