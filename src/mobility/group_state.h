/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a group's state machine, shared by group.c (the member) and group_lead.c (the coordinator). */
#include <pthread.h>

#include "mobility/group.h"

enum lb_group_stage {
	LB_STAGE_FREE,
	LB_STAGE_PREPARED,
	LB_STAGE_FROZEN, /* or on the way there */
	LB_STAGE_MARKED,
	LB_STAGE_THAWED,
	LB_STAGE_COMMITTED,
};

struct lb_group {
	struct lb_env *env;
	struct lb_uuid me;
	const struct lb_group_ops *ops;
	void *arg;

	pthread_mutex_t lock; /* who belongs to it and who leads it */
	struct lb_group_roster roster;
	uint64_t term;
	struct lb_uuid coordinator; /* of the term; zeroes: nobody yet */

	pthread_mutex_t doing; /* the point under way; held while a step of it is done, taken before `lock` */
	enum lb_group_stage stage;
	struct lb_uuid point;
	uint64_t term_of_point;
	bool app;
	int64_t until_ns; /* gives up after it */
	int64_t frozen_ns;
};

static inline bool lb_uuid_zero(const struct lb_uuid *id)
{
	static const struct lb_uuid zero;

	return lb_uuid_equal(id, &zero) != 0;
}

bool lb_group_has(const struct lb_group_roster *roster, const struct lb_uuid *id);
