/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The machines of a plan's group, worked on at once without a server: at most CLI_PLAN_AT_ONCE_MAX of them. */
#include <pthread.h>

#include "cli/cli.h"
#include "fabric/plan.h"

#define CLI_PLAN_AT_ONCE_MAX 8

struct cli_plan_run {
	struct cli *c;
	const char *vm_folder, *point;
	bool live;
	/* borrowed: set before machines are worked on; for commit and cleanup the plan suffices */
	const json_t *plan, *copy;
	json_t *points; /* {machine: "E:S"}: what the point is now it is for all groups */

	pthread_mutex_t lock; /* of what follows */
	json_t *done;         /* for JSON: {"machine", "double", "error"} */
	unsigned int failed;
	char told[400]; /* the first that failed, with their words */
};

enum cli_plan_work { CLI_PLAN_START, CLI_PLAN_COMMIT, CLI_PLAN_CLEANUP };

int cli_plan_run_begin(struct cli_plan_run *run, struct cli *c, bool live);
void cli_plan_run_clear(struct cli_plan_run *run); /* of a zeroed one, too */
void cli_plan_say(const struct cli_plan_run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* All of a group; `ret_failed` of them failed, with their words in `run`. Those that have no double are passed over by
 * commit and cleanup. */
int cli_plan_machines(struct cli_plan_run *run, const json_t *group, enum cli_plan_work work, unsigned int *ret_failed);
