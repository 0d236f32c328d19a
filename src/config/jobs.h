/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Long work: kept in the database before it begins, each step before it is done, so that what a crash interrupted goes
 * on at the next start. A kind's function may therefore run again from its beginning with the same job, and does only
 * what is left.
 *
 * At most LB_JOBS_RUNNING_MAX run at once, each on a thread of its own; others wait in their order. Two jobs on one
 * target never run at once. Cancelling is asked for; it takes effect at the next step.
 */
#include <stdbool.h>

#include <jansson.h>

#include "config/site.h"

#define LB_JOBS_RUNNING_MAX 4
#define LB_JOBS_KEPT_MAX 2000 /* finished ones beyond it are forgotten, oldest first */

struct lb_job {
	struct lb_site *site;
	char id[LB_UUID_TEXT_BYTES];
	char kind[32];
	char target[65];
	json_t *request;
	json_t *result; /* filled by the kind's function */
	int n_step;     /* of the step that runs; -1: none yet */
	int64_t progress_told_ns;
};

struct lb_job_kind {
	const char *name;
	/* 0, -ECANCELED, or an error with text: then the job has failed. */
	int (*run)(struct lb_job *job);
};

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
/* -ENOENT; -EINVAL when it has ended. */
int lb_job_cancel(struct lb_site *site, const char *id);

/* ---- inside a kind's function ---- */

/* The next step is `name`: noted before it is done, the one before it noted as done. -ECANCELED when the job should
 * end. */
int lb_job_step(struct lb_job *job, const char *name);
/* What a person should know of the running step. */
int lb_job_say(struct lb_job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0..1; written down at most twice a second. -ECANCELED when the job should end. */
int lb_job_progress(struct lb_job *job, double fraction);

/* {"id","kind","target","state","steps","progress","error","result",...} */
int lb_job_json(struct lb_site *site, const char *id, json_t **ret_object);
