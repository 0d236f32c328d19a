/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Recovery plans (fabric/plan.h) at the site: kept in the registry and in its copy in the vault; run as jobs of kind
 * plan-test, plan-failover, plan-commit, plan-cleanup, plan-reprotect, plan-failback and plan-failback-commit on the
 * target "plan:NAME". A plan's job works on the plan as it was when it was ordered; each machine is a job of its own,
 * whose parent is the plan's.
 *
 * Where a job stands is in its result:
 *
 *   {"plan", "kind", "group", "phase", "action", "waiting": null | {"action", "text"},
 *    "machines": {NAME: {"double", "job", "state", "error"}}, "warnings": [TEXT]}
 *
 * and of the way home also "findings" {NAME: [{"level", "what", "text"}]}, and "checks" (reprotect) and "shut"
 * (failback), each like "machines".
 */
#include "config/jobs.h"
#include "fabric/plan.h"

#define LB_PLANS_MAX 256
#define LB_PLAN_TARGET_BYTES 72 /* "plan:NAME" */
#define LB_PLAN_ACTION_BYTES 64 /* "GROUP-before-N", from 1 */

/* In the registry. Errors: -ENOENT names the cure. */
int lb_reg_plan_get(struct lb_db *db, const char *name, json_t **ret_plan);
/* A full plan; -EEXIST when `must_be_new` and it is there, -ENOENT when not and it isn't. */
int lb_reg_plan_put(struct lb_db *db, const json_t *plan, bool must_be_new, int64_t now_ns);
int lb_reg_plan_remove(struct lb_db *db, const char *name);
/* In the order of names. */
int lb_reg_plans(struct lb_db *db, int (*fn)(void *arg, const json_t *plan), void *arg);

/* That its machines are in the vault and its scripts on this host; -ENOENT lists what is not. */
int lb_plan_check(struct lb_site *site, const json_t *plan);
/* The scripts alone. */
int lb_plan_check_scripts(struct lb_site *site, const json_t *plan);

const char *lb_plan_target(const char *name, char target[LB_PLAN_TARGET_BYTES]);

/* The kinds' functions. */
int lb_plan_run_test(struct lb_job *job);
int lb_plan_run_failover(struct lb_job *job);
int lb_plan_run_commit(struct lb_job *job);
int lb_plan_run_cleanup(struct lb_job *job);
int lb_plan_run_reprotect(struct lb_job *job);
int lb_plan_run_failback(struct lb_job *job);
int lb_plan_run_failback_commit(struct lb_job *job);
