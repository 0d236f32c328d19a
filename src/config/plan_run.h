/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the parts of a plan's job share (config/plans.h tells what its result holds): job_plan.c goes through the
 * groups, plan_check.c looks before anything is touched, plan_action.c runs scripts and waits for people, plan_after.c
 * is for doubles that are there.
 */
#include "config/plans.h"
#include "fabric/failover.h"

#define LB_PLAN_TOLD_MAX 5 /* of what failed, or is in the way */

struct lb_plan_job {
	struct lb_job *job;
	const json_t *plan;
	const char *name, *point;
	bool live, drill;
	char group_name[LB_PLAN_GROUP_NAME_BYTES];
};

struct lb_plan_count {
	unsigned int active, done, failed;
	char told[400]; /* the first that failed, with their words */
};

/* plan_run.c: where the job stands */
int lb_plan_job_begin(struct lb_plan_job *run, struct lb_job *job, const char *kind);
size_t lb_plan_job_number(const struct lb_plan_job *run, const char *member);
int lb_plan_job_set(struct lb_plan_job *run, const char *member, json_t *value);                /* takes `value` over */
int lb_plan_job_go_on(struct lb_plan_job *run, size_t group, const char *phase, size_t action); /* durable */
int lb_plan_job_warn(struct lb_plan_job *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -ECANCELED when it was cancelled and its machines' jobs have ended; parks it until they have. */
int lb_plan_job_cancelled(struct lb_plan_job *run);

/* plan_run.c: its machines' jobs. Submitted once, however often it is asked for. */
int lb_plan_job_submit(struct lb_plan_job *run, const char *kind, const char *machine, const char *target,
		       const json_t *request);
/* Of these machines (an array of plan entries; NULL: all that the job has begun). */
int lb_plan_job_look(struct lb_plan_job *run, const json_t *entries, struct lb_plan_count *ret_count);

/* plan_check.c: all that can be known to fail is found before the first machine is touched. */
int lb_plan_job_check(struct lb_plan_job *run);
/* The doubles on this host that are of the plan's machines: tests by their names, live ones by their machines. */
int lb_plan_job_doubles(struct lb_plan_job *run, bool live,
			int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state),
			void *arg);

/* plan_action.c: the action that is next in `phase`, or on to the next phase when there is none. */
int lb_plan_job_action(struct lb_plan_job *run, const char *phase);
