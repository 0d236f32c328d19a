/* SPDX-License-Identifier: Apache-2.0 */
#include "config/jobs.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "config/registry.h"

#define PROGRESS_TELL_NS (500 * LB_NS_PER_MS)
#define PROGRESS_SCALE 1000000.0

static int poke(struct lb_site *site);

struct worker {
	pthread_t thread;
	struct lb_jobs *jobs;
};

struct lb_jobs {
	struct lb_site *site;
	const struct lb_job_kind *kinds;
	pthread_mutex_t lock; /* after the database's */
	pthread_cond_t work;
	bool stopping;
	uint64_t pokes; /* since the start */
	struct worker workers[LB_JOBS_RUNNING_MAX];
	unsigned int n_workers;
};

static bool is_stopping(struct lb_jobs *jobs)
{
	LB_LOCK_SCOPE(&jobs->lock);
	return jobs->stopping;
}

/* Where a test has the server die, or the job cancelled: at each step's begin, and before and after its end. */
static void fault(struct lb_job *job, const char *what)
{
	if (lb_fault_new("LIFEBOAT_FAULT_CANCELS", "%s of %s: %s", job->kind, job->target, what))
		(void)lb_job_cancel(job->site, job->id);
	lb_fault_place("%s of %s: %s", job->kind, job->target, what);
}

/* ---- inside a kind's function ------------------------------------------------------------------------ */

static int check_end(struct lb_job *job)
{
	int64_t cancel;
	int r;

	if (is_stopping(job->site->jobs))
		return lb_fail(-ESHUTDOWN, "the server is being stopped");
	r = lb_db_get_int(job->site->db, &cancel, "SELECT cancel FROM job WHERE id = ?", "s", job->id);
	if (r < 0)
		return r;
	return cancel ? lb_fail(-ECANCELED, "cancelled") : 0;
}

int lb_job_check(struct lb_job *job)
{
	return check_end(job);
}

static int end_step(struct lb_job *job, const char *state)
{
	if (job->n_step < 0)
		return 0;
	return lb_db_run(job->site->db,
			 "UPDATE job_step SET state = ?, ended_ns = ? WHERE job = ? AND n = ? AND state = 'running'",
			 "sisi", state, lb_now_ns(job->site->env), job->id, (int64_t)job->n_step);
}

int lb_job_step(struct lb_job *job, const char *name)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = check_end(job);
	if (r == 0)
		r = lb_db_begin(job->site->db, &txn);
	if (r == 0)
		r = end_step(job, "done");
	if (r < 0)
		return r;
	job->n_step++;
	r = lb_db_run(job->site->db,
		      "INSERT INTO job_step (job, n, name, state, started_ns) VALUES (?,?,?,'running',?)"
		      " ON CONFLICT(job, n) DO UPDATE SET name = excluded.name, state = 'running', text = '', ended_ns "
		      "= NULL",
		      "sisi", job->id, (int64_t)job->n_step, name, lb_now_ns(job->site->env));
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r == 0)
		fault(job, name);
	return r;
}

int lb_job_step_on(struct lb_job *job, const char *name)
{
	int64_t same;
	int r;

	r = lb_db_get_int(job->site->db, &same,
			  "SELECT count(*) FROM job_step WHERE job = ? AND n = ? AND name = ? AND state = 'running'",
			  "sis", job->id, (int64_t)job->n_step, name);
	if (r < 0)
		return r;
	return same > 0 ? check_end(job) : lb_job_step(job, name);
}

int lb_job_keep(struct lb_job *job)
{
	return lb_db_run(job->site->db, "UPDATE job SET result = ? WHERE id = ?", "js", job->result, job->id);
}

int lb_job_park(struct lb_job *job)
{
	int r = lb_job_keep(job);

	lb_fault_place("%s of %s: parked", job->kind, job->target);
	return r < 0 ? r : lb_fail(-EINPROGRESS, "job %s waits", job->id);
}

int lb_job_say(struct lb_job *job, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return lb_db_run(job->site->db, "UPDATE job_step SET text = ? WHERE job = ? AND n = ?", "ssi", text, job->id,
			 (int64_t)job->n_step);
}

int lb_job_progress(struct lb_job *job, double fraction)
{
	int64_t now_ns = lb_mono_ns(job->site->env);
	int r;

	if (now_ns - job->progress_told_ns < PROGRESS_TELL_NS)
		return 0;
	job->progress_told_ns = now_ns;
	r = lb_db_run(job->site->db, "UPDATE job SET progress = ? WHERE id = ?", "is",
		      (int64_t)(LB_MIN(LB_MAX(fraction, 0.0), 1.0) * PROGRESS_SCALE), job->id);
	return r < 0 ? r : check_end(job);
}

/* ---- workers --------------------------------------------------------------------------------------------- */

static const struct lb_job_kind *find_kind(const struct lb_jobs *jobs, const char *name)
{
	for (const struct lb_job_kind *k = jobs->kinds; k->name != NULL; k++)
		if (strcmp(k->name, name) == 0)
			return k;
	return NULL;
}

/* Steps of an earlier run stay to be seen. */
static int continue_steps(struct lb_db *db, struct lb_job *job)
{
	int64_t n;
	int r;

	r = lb_db_get_int(db, &n, "SELECT ifnull(max(n), -1) FROM job_step WHERE job = ?", "s", job->id);
	if (r == 0)
		job->n_step = (int)n;
	return r;
}

/* 1: taken; 0: nothing to do. A job whose target another one works on waits. */
static int take_next(struct lb_jobs *jobs, struct lb_job *job)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_rows_ lb_db_rows *rows = NULL;
	struct lb_db *db = jobs->site->db;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_query(
			db, &rows,
			"SELECT id, kind, target, request, result FROM job WHERE state = 'queued' AND NOT EXISTS"
			" (SELECT 1 FROM job AS other WHERE other.state = 'running' AND other.target = job.target)"
			" ORDER BY created_ns, rowid LIMIT 1",
			"");
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r <= 0)
		return r;
	memset(job, 0, sizeof(*job));
	job->site = jobs->site;
	snprintf(job->id, sizeof(job->id), "%s", lb_db_text(rows, 0));
	snprintf(job->kind, sizeof(job->kind), "%s", lb_db_text(rows, 1));
	snprintf(job->target, sizeof(job->target), "%s", lb_db_text(rows, 2));
	job->request = lb_db_json(rows, 3);
	job->result = lb_db_null(rows, 4) ? json_object() : lb_db_json(rows, 4);
	r = continue_steps(db, job);
	if (r == 0)
		r = lb_db_run(db,
			      "UPDATE job SET state = 'running', woken = 0, started_ns = ifnull(started_ns, ?) WHERE "
			      "id = ?",
			      "is", lb_now_ns(jobs->site->env), job->id);
	/* the statement must end before the transaction can */
	sqlite3_finalize(lb_steal_ptr(rows));
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r == 0)
		return 1;
	json_decref(job->request);
	json_decref(job->result);
	return r;
}

/* One of a job's own has ended, or a person has answered. One that is running now runs once more before it is parked.
 */
static int wake(struct lb_db *db, const char *id)
{
	return lb_db_run(
		db,
		"UPDATE job SET woken = 1, state = CASE state WHEN 'waiting' THEN 'queued' ELSE state END WHERE"
		" id = ? AND ended_ns IS NULL",
		"s", id);
}

int lb_job_wake(struct lb_site *site, const char *id)
{
	int r = wake(site->db, id);

	return r < 0 ? r : poke(site);
}

static int write_parked(struct lb_job *job)
{
	return lb_db_run(job->site->db,
			 "UPDATE job SET state = CASE WHEN woken = 1 OR cancel = 1 THEN 'queued' ELSE 'waiting' END "
			 "WHERE id = ?",
			 "s", job->id);
}

static int wake_parent(struct lb_db *db, const char *id)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	char parent[LB_UUID_TEXT_BYTES] = "";
	int r;

	r = lb_db_query(db, &rows, "SELECT parent FROM job WHERE id = ?", "s", id);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r > 0 && !lb_db_null(rows, 0))
		snprintf(parent, sizeof(parent), "%s", lb_db_text(rows, 0));
	return r < 0 ? r : parent[0] != '\0' ? wake(db, parent) : 0;
}

static int write_end(struct lb_job *job, const char *state, const char *error)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_db *db = job->site->db;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = end_step(job, state);
	if (r == 0)
		r = lb_db_run(db,
			      "UPDATE job SET state = ?, error = ?, result = ?, ended_ns = ?, progress = CASE ? WHEN "
			      "'done' THEN"
			      " 1000000 ELSE progress END WHERE id = ?",
			      "ssjiss", state, error, job->result, lb_now_ns(job->site->env), state, job->id);
	if (r == 0)
		r = wake_parent(db, job->id);
	if (r == 0)
		r = lb_db_run(db,
			      "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE ended_ns IS NOT NULL ORDER BY "
			      "ended_ns DESC"
			      " LIMIT -1 OFFSET ?)",
			      "i", (int64_t)LB_JOBS_KEPT_MAX);
	return r < 0 ? r : lb_db_commit(&txn);
}

static void run_one(struct lb_jobs *jobs, struct lb_job *job)
{
	const struct lb_job_kind *kind = find_kind(jobs, job->kind);
	char error[LB_ERR_TEXT_BYTES_MAX] = "";
	const char *state = "done";
	int r;

	lb_err_clear();
	if (kind == NULL)
		r = lb_fail(-EOPNOTSUPP, "this version knows no jobs of kind %s", job->kind);
	else if (job->request == NULL || job->result == NULL)
		r = lb_fail(-EBADMSG, "the job's request is damaged");
	else
		r = kind->run(job);
	if (r == -ESHUTDOWN && is_stopping(jobs))
		return; /* goes on at the next start */
	if (r == -EINPROGRESS) {
		if (write_parked(job) < 0)
			lb_error("job %s (%s of %s) waits, but that can't be written: %s", job->id, job->kind,
				 job->target, lb_err_text());
		return;
	}
	if (r < 0) {
		snprintf(error, sizeof(error), "%s", lb_err_text());
		state = r == -ECANCELED ? "cancelled" : "failed";
		lb_event(jobs->site, r == -ECANCELED ? "info" : "warning", job->target, "%s %s: %s", job->kind, state,
			 error);
	} else {
		lb_event(jobs->site, "info", job->target, "%s done", job->kind);
	}
	lb_fault_place("%s of %s: before its end", job->kind, job->target);
	if (write_end(job, state, r < 0 ? error : NULL) < 0)
		lb_error("job %s (%s of %s) ended, but that can't be written: %s", job->id, job->kind, job->target,
			 lb_err_text());
	lb_fault_place("%s of %s: after its end", job->kind, job->target);
}

/* Something may be there to do: whoever looked before looks again. */
static int poke(struct lb_site *site)
{
	struct lb_jobs *jobs = site->jobs;

	LB_LOCK_SCOPE(&jobs->lock);
	jobs->pokes++;
	pthread_cond_broadcast(&jobs->work);
	return 0;
}

static void *work(void *arg)
{
	struct lb_jobs *jobs = ((struct worker *)arg)->jobs;
	struct lb_job job;
	uint64_t seen;
	int r;

	pthread_mutex_lock(&jobs->lock);
	while (!jobs->stopping) {
		seen = jobs->pokes;
		pthread_mutex_unlock(&jobs->lock);
		r = take_next(jobs, &job);
		if (r < 0)
			lb_error("jobs can't be read: %s", lb_err_text());
		if (r > 0) {
			run_one(jobs, &job);
			json_decref(job.request);
			json_decref(job.result);
			/* its end may let another one on the same target begin */
			poke(jobs->site);
		}
		pthread_mutex_lock(&jobs->lock);
		while (!jobs->stopping && jobs->pokes == seen)
			pthread_cond_wait(&jobs->work, &jobs->lock);
	}
	pthread_mutex_unlock(&jobs->lock);
	return NULL;
}

static int take_up(struct lb_db *db)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_run(
			db,
			"UPDATE job_step SET state = 'interrupted' WHERE state = 'running' AND job IN (SELECT id FROM"
			" job WHERE state IN ('running', 'queued'))",
			"");
	if (r == 0)
		r = lb_db_run(db, "UPDATE job SET state = 'queued' WHERE state = 'running'", "");
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_jobs_start(struct lb_site *site, const struct lb_job_kind *kinds, struct lb_jobs **ret_jobs)
{
	struct lb_jobs *jobs = calloc(1, sizeof(*jobs));
	int r;

	if (jobs == NULL)
		return lb_fail(-ENOMEM, "out of memory for jobs");
	jobs->site = site;
	jobs->kinds = kinds;
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->work, NULL);
	/* what ran when we ended goes on first: it has the oldest times */
	r = take_up(site->db);
	site->jobs = jobs;
	*ret_jobs = jobs;
	while (r == 0 && jobs->n_workers < LB_JOBS_RUNNING_MAX) {
		struct worker *w = &jobs->workers[jobs->n_workers];

		w->jobs = jobs;
		r = -pthread_create(&w->thread, NULL, work, w);
		if (r < 0)
			r = lb_fail(r, "can't start a thread for jobs: %s", strerror(-r));
		else
			jobs->n_workers++;
	}
	if (r < 0)
		lb_jobs_stop(jobs);
	return r;
}

void lb_jobs_stop(struct lb_jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->stopping = true;
	pthread_cond_broadcast(&jobs->work);
	pthread_mutex_unlock(&jobs->lock);
	for (unsigned int i = 0; i < jobs->n_workers; i++)
		pthread_join(jobs->workers[i].thread, NULL);
	jobs->site->jobs = NULL;
	pthread_cond_destroy(&jobs->work);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

int lb_job_submit(struct lb_site *site, const char *kind, const char *target, const json_t *request,
		  const char *made_by, char ret_id[LB_UUID_TEXT_BYTES])
{
	return lb_job_submit_child(site, "", kind, target, request, made_by, ret_id);
}

int lb_job_submit_child(struct lb_site *site, const char *parent, const char *kind, const char *target,
			const json_t *request, const char *made_by, char ret_id[LB_UUID_TEXT_BYTES])
{
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_site_uuid(site, id);
	if (r == 0)
		r = lb_db_run(site->db,
			      "INSERT INTO job (id, kind, target, state, request, made_by, created_ns, parent) VALUES"
			      " (?,?,?,'queued',?,?,?,?)",
			      "sssjsis", id, kind, target, request, made_by, lb_now_ns(site->env),
			      parent[0] != '\0' ? parent : NULL);
	if (r < 0)
		return r;
	memcpy(ret_id, id, sizeof(id));
	return poke(site);
}

int lb_job_check_free(struct lb_site *site, const char *target, const char *what)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT id, kind, made_by FROM job WHERE target = ? AND ended_ns IS NULL LIMIT 1", "s", target);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r <= 0)
		return r;
	return lb_fail(-EEXIST,
		       "%s is being worked on: %s, ordered by %s, is under way; `lifeboat job watch %s` follows it, "
		       "`lifeboat job cancel %s` ends it",
		       what, lb_db_text(rows, 1), lb_db_text(rows, 2), lb_db_text(rows, 0), lb_db_text(rows, 0));
}

/* What had not begun ends here, the rest at its next step. */
static int cancel_where(struct lb_site *site, const char *column, const char *id, int64_t *ret_changes)
{
	_cleanup_free_ char *queued = NULL, *others = NULL;
	int64_t ended, asked;
	int r;

	/* a parked job runs once more, and may still have to wait for its own */
	if (asprintf(&queued,
		     "UPDATE job SET state = 'cancelled', error = 'cancelled before it began', ended_ns = ?, cancel = 1"
		     " WHERE %s = ? AND state = 'queued' AND started_ns IS NULL",
		     column) < 0 ||
	    asprintf(&others,
		     "UPDATE job SET cancel = 1, woken = 1, state = CASE state WHEN 'waiting' THEN 'queued' ELSE state "
		     "END"
		     " WHERE %s = ? AND ended_ns IS NULL",
		     column) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_db_run_changes(site->db, &ended, queued, "is", lb_now_ns(site->env), id);
	if (r == 0)
		r = lb_db_run_changes(site->db, &asked, others, "s", id);
	if (r == 0)
		*ret_changes = ended + asked;
	return r;
}

int lb_job_cancel(struct lb_site *site, const char *id)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t changes = 0, children;
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = cancel_where(site, "id", id, &changes);
	if (r == 0 && changes == 0) {
		r = lb_db_get_int(site->db, &changes, "SELECT 1 FROM job WHERE id = ?", "s", id);
		if (r == -ENOENT)
			return lb_fail(r, "there is no job %.40s; `lifeboat job list` shows them", id);
		return r < 0 ? r : lb_fail(-EINVAL, "job %s has ended already", id);
	}
	if (r == 0)
		r = cancel_where(site, "parent", id, &children);
	if (r == 0)
		r = wake_parent(site->db, id);
	if (r == 0)
		r = lb_db_commit(&txn);
	return r < 0 ? r : poke(site);
}
