/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Long work: kept in the database before it begins, each step before it is done, so that what a crash interrupted goes
 * on at the next start. A kind's function may therefore run again from its beginning with the same job, and does only
 * what is left.
 *
 * At most LB_JOBS_RUNNING_MAX run at once, each on a thread of its own; others wait in their order. Two jobs on one
 * target never run at once. Cancelling is asked for; it takes effect at the next step.
 *
 * A job may make others and wait for them, or for a person, without holding a thread: it keeps what it needs in its
 * result, and returns lb_job_park(). Its function runs again when one of them has ended, or lb_job_wake() is called.
 */
#include <stdbool.h>

#include <jansson.h>

#include "config/site.h"

#define LB_JOBS_RUNNING_MAX 8
#define LB_JOBS_KEPT_MAX 2000 /* finished ones beyond it are forgotten, oldest first */

struct lb_job {
	struct lb_site *site;
	char id[LB_UUID_TEXT_BYTES];
	char kind[32];
	char target[80];
	json_t *request;
	json_t *result; /* filled by the kind's function; written at its end, by lb_job_keep() and by parking */
	int n_step;     /* of the step that runs; -1: none yet */
	int64_t progress_told_ns;
};

struct lb_job_kind {
	const char *name;
	/* 0, -ECANCELED, or an error with text: then the job has failed. */
	int (*run)(struct lb_job *job);
};

/* job_install.c */
int lb_job_install_run(struct lb_job *job);

/* job_kinds.c: all that this server knows; ends with a NULL name. */
extern const struct lb_job_kind lb_job_kinds[];

struct lb_jobs;
/* Takes what is in the database up again. `kinds` ends with a NULL name and must outlive the jobs. */
int lb_jobs_start(struct lb_site *site, const struct lb_job_kind *kinds, struct lb_jobs **ret_jobs);
/*
 * Running jobs are told to stop at their next step and stay in the database as running: they go on at the next start.
 * Waits for their threads.
 */
void lb_jobs_stop(struct lb_jobs *jobs);

/* Durable when it returns. */
int lb_job_submit(struct lb_site *site, const char *kind, const char *target, const json_t *request,
		  const char *made_by, char ret_id[LB_UUID_TEXT_BYTES]);
/* The same for a job that others wait for: `parent` may be "" (none). Within a transaction of the caller's, if any. */
int lb_job_submit_child(struct lb_site *site, const char *parent, const char *kind, const char *target,
			const json_t *request, const char *made_by, char ret_id[LB_UUID_TEXT_BYTES]);
/*
 * -EEXIST, naming the job and who ordered it, when a job works on `target` or waits to. Under the database's lock
 * together with the order that follows, of two operators exactly one succeeds.
 */
int lb_job_check_free(struct lb_site *site, const char *target, const char *what);
/* Its jobs are cancelled with it. -ENOENT; -EINVAL when it has ended. */
int lb_job_cancel(struct lb_site *site, const char *id);

/* ---- inside a kind's function ---- */

/* The next step is `name`: noted before it is done, the one before it noted as done. -ECANCELED when the job should
 * end. */
int lb_job_step(struct lb_job *job, const char *name);
/* The same, but nothing when the running step has this name already: for jobs that were parked in it. */
int lb_job_step_on(struct lb_job *job, const char *name);
/* Whether it was asked to end (-ECANCELED, -ESHUTDOWN), without a step. */
int lb_job_check(struct lb_job *job);
/* Writes the result down as it is now. */
int lb_job_keep(struct lb_job *job);
/* To be returned by the kind's function; never 0. */
int lb_job_park(struct lb_job *job);
/* Runs a parked job again; nothing for one that runs or has ended. */
int lb_job_wake(struct lb_site *site, const char *id);
/* What a person should know of the running step. */
int lb_job_say(struct lb_job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0..1; written down at most twice a second. -ECANCELED when the job should end. */
int lb_job_progress(struct lb_job *job, double fraction);

/* {"id","kind","target","state","steps","progress","error","result",...} */
int lb_job_json(struct lb_site *site, const char *id, json_t **ret_object);
