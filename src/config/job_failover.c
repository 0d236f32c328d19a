/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The job kinds of failover. Each can begin again at any point: what was done is in the failover's own record, in the
 * registry and in the vault, and is found there.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/drills.h"
#include "config/failover_source.h"
#include "config/failovers.h"
#include "config/flush.h"
#include "config/live.h"
#include "config/registry.h"
#include "config/reprotect.h"

#define DRAIN_POLL_NS (200 * LB_NS_PER_MS)

/* what a job keeps in its result */
#define BEGAN "began_anew"                    /* whether it removed what an order before it had begun */
#define SOURCE_WAS_FENCED "source_was_fenced" /* by an order before it */

/* ---- what the site does before the journal is fenced --------------------------------------------------- */

/* Of a server that has just been started again nobody has been heard yet: that is no silence. */
static bool may_still_speak(struct lb_site *site, const char *id)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};

	if (lb_now_ns(site->env) - site->started_ns > LB_DRAIN_HEARD_S * LB_NS_PER_S)
		return false;
	if (lb_reg_machine_find(site->db, id, &m) < 0)
		lb_err_clear();
	return m.process[0] != '\0';
}

bool lb_job_drained(struct lb_site *site, const char *id, int64_t since_ns, bool *ret_silent)
{
	struct lb_live_machine live = {0};
	const char *state;
	bool done = false;

	if (lb_live_get(site->live, id, &live) < 0)
		return false;
	*ret_silent = live.process == NULL && !may_still_speak(site, id);
	state = json_string_value(json_object_get(live.process, "state"));
	if (live.process_ns > since_ns && state != NULL && strcmp(state, "fenced") == 0)
		done = json_integer_value(json_object_get(live.process, "backlog_bytes")) == 0;
	lb_live_machine_clear(&live);
	return done;
}

/* What the process server has acknowledged goes to the vault first, if it is alive: then nothing acknowledged is lost.
 */
static int drain(struct lb_job *job, const char *id, int64_t since_ns)
{
	struct lb_env *env = job->site->env;
	int64_t until_ns = lb_mono_ns(env) + LB_DRAIN_S * LB_NS_PER_S;
	bool silent = false;
	int r;

	while (!lb_job_drained(job->site, id, since_ns, &silent)) {
		if (silent)
			return lb_job_say(job, "no process server speaks for it: the vault has what it has");
		if (lb_mono_ns(env) > until_ns)
			return lb_job_say(job,
					  "the process server did not send everything within %d s; the rest stays out",
					  LB_DRAIN_S);
		r = lb_job_progress(job, 0);
		if (r < 0)
			return r;
		env->ops->wait_until(env, lb_mono_ns(env) + DRAIN_POLL_NS, -1);
	}
	return lb_job_say(job, "everything acknowledged is in the vault");
}

struct run {
	struct lb_job *job;
	struct lb_failover *f;
};

/* Until the vault's fence a failover that ends leaves its source as it found it. */
static int note_source(struct lb_job *job, const struct lb_failover_report *report)
{
	bool fenced = false;
	int r;

	if (json_object_get(job->result, SOURCE_WAS_FENCED) != NULL)
		return 0;
	r = lb_source_is_fenced(job, report, &fenced);
	if (r == 0 && json_object_set_new(job->result, SOURCE_WAS_FENCED, json_boolean(fenced)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a result");
	return r < 0 ? r : lb_job_keep(job);
}

static int before_step(void *arg, enum lb_failover_step step)
{
	struct run *run = arg;
	struct lb_failover_report report;
	char id[LB_UUID_TEXT_BYTES];
	int64_t since_ns = lb_now_ns(run->job->site->env);
	int r;

	if (step == LB_STEP_DONE)
		return 0;
	lb_failover_report(run->f, &report);
	lb_uuid_format(&report.machine, id);
	if (step == LB_STEP_FENCE && report.kind == LB_FAILOVER_LIVE) {
		r = note_source(run->job, &report);
		r = r < 0 ? r : lb_source_prepare(run->job, &report);
		since_ns = lb_now_ns(run->job->site->env);
		if (r == 0)
			r = lb_job_step(run->job, "end the replication");
		if (r == 0)
			r = lb_reg_machine_fence(run->job->site->db, id, LB_REVOKED_FAILED_OVER,
						 lb_now_ns(run->job->site->env));
		if (r == 0)
			lb_fault_place("machine %s: fenced at the site, not in the vault", report.machine_name);
		if (r == 0)
			lb_vault_copy_try(run->job->site); /* a rebuilt server refuses it, too */
		if (r == 0)
			r = drain(run->job, id, since_ns);
		if (r < 0)
			return r;
	}
	r = step == LB_STEP_START ? lb_double_announce(run->job, &report) : 0;
	if (r == 0)
		r = lb_job_step(run->job, lb_failover_step_name(step));
	if (r == 0)
		r = lb_job_progress(run->job, (double)step / LB_STEP_DONE);
	return r;
}

/* ---- kinds ----------------------------------------------------------------------------------------------- */

static int secret_set(struct lb_job *job, struct lb_failover *f)
{
	const struct lb_vault_secret secret = {.passphrase_file = job->site->passphrase_path};

	return lb_failover_secret_set(f, &secret);
}

int lb_job_double_open(struct lb_job *job, struct lb_failover **ret_failover)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = lb_failover_open(job->site->env, job->site->settings.vm_folder, job->target, &f);
	if (r == 0)
		r = secret_set(job, f);
	if (r < 0)
		return r;
	*ret_failover = lb_steal_ptr(f);
	return 0;
}

/* A double that answered proves its machine's point; that a VM runs proves nothing. */
static int note_proof(struct lb_job *job, const struct lb_failover_report *report)
{
	char id[LB_UUID_TEXT_BYTES];

	if (!report->probed)
		return 0;
	lb_uuid_format(&report->machine, id);
	return lb_reg_machine_proven(job->site->db, id,
				     report->running_ns > 0 ? report->running_ns : lb_now_ns(job->site->env),
				     report->point_time_ns, report->warning != NULL ? report->warning : "");
}

/* Whether the vault is as new as this server knows that it was: told with the result; never in the way of a recovery.
 */
static void tell_freshness(struct lb_job *job, const struct lb_failover_report *report)
{
	json_t *freshness = NULL;

	if (lb_anchor_freshness(job->site, &report->machine, &freshness) < 0) {
		lb_warning("machine %s: how new the vault is can't be told: %s", report->machine_name, lb_err_text());
		lb_err_clear();
		return;
	}
	if (strcmp(json_string_value(json_object_get(freshness, "state")), "older") == 0)
		lb_event(job->site, "critical", report->machine_name, "recovering from an older vault: %s",
			 json_string_value(json_object_get(freshness, "text")));
	json_object_set_new(job->result, "freshness", freshness);
}

static int keep_going(void *job)
{
	return lb_job_check(job);
}

static int run_to_end(struct lb_job *job, struct lb_failover *f)
{
	struct run run = {job, f};
	struct lb_failover_report report;
	enum lb_vm_state state = LB_VM_RUNNING;
	json_t *result;
	int r;

	lb_failover_idle_set(f, keep_going, job);
	r = lb_failover_run(f, before_step, &run);
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	tell_freshness(job, &report);
	lb_failover_state(f, &state);
	result = lb_failover_json(&report, state);
	if (result == NULL || json_object_update_new(job->result, result) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	r = lb_double_tell(job, &report);
	return r < 0 ? r : note_proof(job, &report);
}

static int give_back(struct lb_job *job, const struct lb_failover_report *report)
{
	char id[LB_UUID_TEXT_BYTES];

	/* of a source that an order before this one had fenced nothing is known: `failover undo` gives it back */
	if (!json_is_false(json_object_get(job->result, SOURCE_WAS_FENCED)))
		return 0;
	lb_uuid_format(&report->machine, id);
	return lb_source_give_back(job, id, false);
}

/*
 * One that ended before it changed anything leaves nothing: a test that was cancelled, a live one whose machine's
 * replication goes on.
 */
static int undo(struct lb_job *job, struct lb_failover **f, int error)
{
	char text[LB_ERR_TEXT_BYTES_MAX];
	struct lb_failover_report report;

	lb_failover_report(*f, &report);
	if (report.kind == LB_FAILOVER_LIVE ? report.fenced || report.next > LB_STEP_FENCE || error == -ESHUTDOWN
					    : error != -ECANCELED)
		return error;
	snprintf(text, sizeof(text), "%s", lb_err_text());
	if (report.kind == LB_FAILOVER_LIVE && give_back(job, &report) < 0)
		return lb_wrap(error,
			       "it ended before its double was made, but %s does not replicate again; `lifeboat "
			       "failover undo %s` sees to that",
			       report.machine_name, job->target);
	if (lb_failover_cleanup(*f, true) < 0)
		return lb_wrap(
			error,
			"it ended, but its double %s could not be removed; `lifeboat failover cleanup %s` does it",
			job->target, job->target);
	*f = NULL; /* freed with it */
	return lb_fail(error, "%s", text);
}

/* ---- ordered again ----------------------------------------------------------------------------------------- */

/* Whether the order before this one for the same double said something else. */
static int says_else(struct lb_job *job, bool *ret_else)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *before = NULL;
	int r;

	LB_DB_SCOPE(job->site->db);
	r = lb_db_query(job->site->db, &rows,
			"SELECT request FROM job WHERE target = ? AND kind = 'failover' AND id <> ? AND created_ns <= "
			"(SELECT created_ns FROM job WHERE id = ?) ORDER BY created_ns DESC, rowid DESC LIMIT 1",
			"sss", job->target, job->id, job->id);
	r = r < 0 ? r : lb_db_next(job->site->db, rows);
	if (r < 0)
		return r;
	before = r > 0 ? lb_db_json(rows, 0) : NULL;
	*ret_else = before != NULL && !json_equal(before, job->request);
	return 0;
}

/*
 * A live failover that was cancelled or failed after its fence goes on where it was when the same is ordered again;
 * other words begin it anew. Decided once, before anything is there that this job has made.
 */
static int take_up(struct lb_job *job, struct lb_failover **f)
{
	struct lb_failover_report report;
	bool anew = false;
	int r = 0;

	if (json_object_get(job->result, BEGAN) != NULL)
		return *f != NULL ? 0 : -ENOENT;
	if (*f != NULL) {
		lb_failover_report(*f, &report);
		anew = report.cleaning; /* killed while it did so */
		if (lb_failovers_is_unfinished(&report))
			r = says_else(job, &anew);
	}
	if (r == 0 && anew) {
		r = lb_job_step(job, "remove what was begun before");
		r = r < 0 ? r : lb_failover_cleanup(*f, true);
		if (r == 0)
			*f = NULL; /* freed with it */
		lb_fault_place("failover to %s: what was begun before is gone", job->target);
	}
	if (r == 0 && json_object_set_new(job->result, BEGAN, json_boolean(anew)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a result");
	r = r < 0 ? r : lb_job_keep(job);
	return r < 0 || *f != NULL ? r : -ENOENT;
}

static int begin(struct lb_job *job, struct lb_failover **ret_failover)
{
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request request;
	int r;

	r = lb_failover_request_read(job->site, job->request, &request, forwards);
	/* a live one fences first, and then all that was received is there */
	if (r == 0 && request.kind == LB_FAILOVER_TEST && lb_flush_is_for(request.point))
		r = lb_flush(job, request.machine, LB_FLUSH_S);
	if (r == 0)
		r = lb_job_step(job, "prepare");
	request.vm_name = job->target;
	return r < 0 ? r : lb_failover_begin(job->site->env, &request, ret_failover);
}

int lb_job_failover_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	int r;

	r = lb_job_double_open(job, &f);
	if (r == 0 || r == -ENOENT)
		r = take_up(job, &f);
	if (r == -ENOENT)
		r = begin(job, &f);
	if (r < 0)
		return r;
	r = run_to_end(job, f);
	/* asked for while its last step was done: of a test nothing is to stay */
	if (r == 0) {
		lb_failover_report(f, &report);
		r = report.kind == LB_FAILOVER_TEST ? lb_job_check(job) : 0;
	}
	return r < 0 ? undo(job, &f, r) : 0;
}

int lb_job_cleanup_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	bool live_too = json_is_true(json_object_get(job->request, "live_too"));
	int r;

	r = lb_job_step(job, "remove the double");
	if (r == 0)
		r = lb_job_double_open(job, &f);
	if (r == -ENOENT)
		return lb_reprotect_end(job, job->target); /* an earlier run of this job did the rest */
	if (r == 0)
		r = lb_failover_cleanup(f, live_too);
	if (r == 0) {
		f = NULL; /* freed with it */
		r = lb_reprotect_end(job, job->target);
	}
	return r == -EPERM ? lb_fail(r, "%s; to lose that: `lifeboat failover cleanup %s --live`", lb_err_text(),
				     job->target)
			   : r;
}

static int pulled(void *arg, const struct lb_vm_pull *pull)
{
	return lb_job_progress(arg, pull->total_bytes > 0 ? (double)pull->done_bytes / (double)pull->total_bytes : 0);
}

int lb_job_commit_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = lb_job_step(job, "pull all of it in");
	if (r == 0)
		r = lb_job_double_open(job, &f);
	return r < 0 ? r : lb_failover_commit(f, pulled, job);
}

static int flush_for_test(struct lb_job *job, const struct lb_failover *f, const char *point)
{
	struct lb_failover_report report;

	lb_failover_report(f, &report);
	return report.kind == LB_FAILOVER_TEST && lb_flush_is_for(point)
		       ? lb_flush(job, report.machine_name, LB_FLUSH_S)
		       : 0;
}

int lb_job_repoint_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	const char *point;
	int r;

	r = lb_json_get_str(job->request, "point", &point);
	if (r == 0)
		r = lb_job_double_open(job, &f);
	if (r == 0)
		r = flush_for_test(job, f, point);
	if (r == 0)
		r = lb_job_step(job, "go back to the recovery point");
	if (r == 0)
		r = lb_failover_repoint(f, point);
	return r < 0 ? r : run_to_end(job, f);
}
