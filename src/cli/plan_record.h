/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How far a plan that is run from the vault alone has come: <vm folder>/plan-NAME-failover.json (or -test), written
 * before anything is begun and after each action, gone when the plan is done. A run that was killed, or failed, goes on
 * from it: with the plan and the points it had, leaving out the actions that are done. One process at a time has a plan
 * (-EBUSY for others).
 */
#include <limits.h>
#include <stdbool.h>

#include <jansson.h>

#include "base/env.h"

struct cli_plan_record {
	struct lb_env *env;
	char path[PATH_MAX], lock_path[PATH_MAX];
	int lock_fd;  /* -1: not locked */
	json_t *body; /* {"plan", "point", "points": {MACHINE: "E:S"}, "pin", "pinned", "done": {ACTION: true},
			 "begun_ns"} */
	bool goes_on; /* it was there */
};

/* Locks the plan and reads what is there; `body` is NULL where nothing is. */
int cli_plan_record_open(struct lb_env *env, const char *vm_folder, const char *plan, bool live,
			 struct cli_plan_record *ret_record);
int cli_plan_record_begin(struct cli_plan_record *record, const json_t *plan, const char *point, const json_t *points);
/* The points are kept in the vault, by the name "pin". Durable at return. */
int cli_plan_record_pinned(struct cli_plan_record *record);
/* "2-before-1": durable at return. */
int cli_plan_record_done(struct cli_plan_record *record, const char *action);
bool cli_plan_record_is_done(const struct cli_plan_record *record, const char *action);
/* The plan has come to its end. */
int cli_plan_record_remove(struct cli_plan_record *record);
void cli_plan_record_close(struct cli_plan_record *record); /* for _cleanup_(); of a zeroed one with lock_fd -1, too */
