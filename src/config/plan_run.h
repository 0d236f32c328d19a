/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the parts of a plan's job share (config/plans.h tells what its result holds): job_plan.c goes through the
 * groups, plan_check.c looks before anything is touched, plan_action.c runs scripts and waits for people, plan_after.c
 * is for doubles that are there, plan_reprotect.c and plan_failback.c for their way home.
 */
#include "config/plans.h"
#include "fabric/failover.h"
#include "vault/points.h"

#define LB_PLAN_TOLD_MAX 5 /* of what failed, or is in the way */

struct lb_plan_job {
	struct lb_job *job;
	const json_t *plan;
	const char *name, *point;
	const char *kind;  /* "test", "drill", "failover", "failback", ... */
	const char *table; /* of the result: where its machines' jobs are noted; "machines", but for looks and ends */
	bool live, drill, home;
	char group_name[LB_PLAN_GROUP_NAME_BYTES];
};

struct lb_plan_count {
	unsigned int active, done, failed;
	char told[400]; /* the first that failed, with their words */
};

/* plan_run.c: where the job stands */
int lb_plan_job_begin(struct lb_plan_job *run, struct lb_job *job, const char *kind);
size_t lb_plan_job_number(const struct lb_plan_job *run, const char *member);
bool lb_plan_job_is(const struct lb_plan_job *run, const char *phase);
int lb_plan_job_set(struct lb_plan_job *run, const char *member, json_t *value);                /* takes `value` over */
int lb_plan_job_go_on(struct lb_plan_job *run, size_t group, const char *phase, size_t action); /* durable */
int lb_plan_job_warn(struct lb_plan_job *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -ECANCELED when it was cancelled and its machines' jobs have ended; parks it until they have. */
int lb_plan_job_cancelled(struct lb_plan_job *run);

/* plan_run.c: its machines' jobs. Submitted once, however often it is asked for; -EEXIST of a way home: another order
 * works on the double. */
int lb_plan_job_submit(struct lb_plan_job *run, const char *kind, const char *machine, const char *target,
		       const json_t *request);
/* Instead of a job: there is nothing to do, or (`error` is not empty) nothing could be ordered. */
int lb_plan_job_note(struct lb_plan_job *run, const char *machine, const char *double_name, const char *state,
		     const char *error);
/* What one of them has told so far; an empty object when it is forgotten. */
int lb_plan_job_child_result(struct lb_plan_job *run, const char *id, json_t **ret_result);
/* Of these machines (an array of plan entries; NULL: all that the job has begun). */
int lb_plan_job_look(struct lb_plan_job *run, const json_t *entries, struct lb_plan_count *ret_count);
/* The end of an order for all at once: parks until all have ended; -EIO tells those that failed. */
int lb_plan_job_all_ended(struct lb_plan_job *run);

/* plan_check.c: all that can be known to fail is found before the first machine is touched. */
int lb_plan_job_check(struct lb_plan_job *run);
/* The doubles on this host that are of the plan's machines: tests by their names, live ones by their machines. */
int lb_plan_job_doubles(struct lb_plan_job *run, bool live,
			int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state),
			void *arg);

/* The live double of a machine. */
struct lb_plan_live {
	char name[LB_VM_NAME_BYTES];
	bool there, runs, committed;
};
int lb_plan_job_live(struct lb_plan_job *run, const char *machine, struct lb_plan_live *ret_live);

/* plan_findings.c: the result's "findings", {MACHINE: [{"level", "what", "text"}]} */
struct lb_plan_findings {
	struct lb_plan_job *run;
	const char *machine; /* that is looked at */
	unsigned int errors;
	char told[1200];
};
int lb_plan_findings_begin(struct lb_plan_job *run);
int lb_plan_found(struct lb_plan_findings *f, const char *level, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* -EINVAL with the errors of all machines. */
int lb_plan_findings_end(const struct lb_plan_findings *f);

/* plan_failback.c: its phases, and one machine of a group */
int lb_plan_failback_check(struct lb_plan_job *run);
int lb_plan_failback_shut(struct lb_plan_job *run);
int lb_plan_failback_begin(struct lb_plan_job *run, const json_t *machine);

/* plan_check.c: whether what is the newest point now is so for all groups, however late their turns come. */
bool lb_plan_fixes_points(const struct lb_plan_job *run);
/* plan_pins.c: held by a name of the job's; lets all of them go. -ESTALE: it was pruned meanwhile. */
int lb_plan_pin(struct lb_plan_job *run, const struct lb_uuid *machine, const struct lb_point *point);
void lb_plan_unpin(struct lb_plan_job *run);

/* plan_action.c: the action that is next in `phase`, or on to the next phase when there is none. */
int lb_plan_job_action(struct lb_plan_job *run, const char *phase);
