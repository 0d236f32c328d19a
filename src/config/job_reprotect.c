/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The job of reprotect. It waits for agents and servers without a thread: how far it is stands in its row, and it goes
 * on from there whenever it is woken, after a restart, or when it is ordered again.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failovers.h"
#include "config/live.h"
#include "config/reprotect.h"
#include "config/status.h"
#include "config/temporary.h"

#define POLL_NS (200 * LB_NS_PER_MS)

struct work {
	struct lb_job *job;
	struct lb_site *site;
	struct lb_reprotect p;
};

static void work_clear(struct work *w)
{
	lb_reprotect_clear(&w->p);
}

/* An agent may enrol meanwhile: what it wrote stays. */
static int go_on(struct work *w, const char *from, const char *to)
{
	int64_t changes;
	int r;

	r = lb_db_run_changes(w->site->db, &changes,
			      "UPDATE reprotect SET state = ?, process = ? WHERE double = ? AND state = ?", "ssss", to,
			      w->p.process, w->p.double_name, from);
	if (r < 0)
		return r;
	lb_fault_place("reprotect of %s: noted: %s", w->job->target, to);
	lb_reprotect_clear(&w->p);
	return lb_reprotect_find(w->site->db, w->job->target, &w->p);
}

static bool is(const struct work *w, const char *state)
{
	return strcmp(w->p.state, state) == 0;
}

/* ---- the temporary process server ------------------------------------------------------------------------ */

static bool speaks(struct work *w, int64_t since_ns)
{
	_cleanup_json_ json_t *report = NULL;
	int64_t told_ns = 0;

	return lb_live_process_get(w->site->live, w->p.process, &report, &told_ns) == 0 && told_ns > since_ns;
}

/* One whose way back rests in the copy of a server that was lost: it knows that server until it is started again. */
static int tell_anew(struct work *w)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	enum lb_vm_state state = LB_VM_ABSENT;
	char url[LB_TOLD_URL_BYTES];
	bool changed = false;
	int r;

	r = lb_job_step_on(w->job, "tell the double of this server");
	r = r < 0 ? r : lb_job_double_open(w->job, &f);
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	lb_failovers_told_url(w->site, report.network[0] != '\0', url);
	r = lb_failover_tell_anew(f, url, w->site->ca_fingerprint, &changed);
	r = r < 0 ? r : lb_failover_state(f, &state);
	if (r == 0 && state != LB_VM_RUNNING && state != LB_VM_PAUSED)
		return lb_failover_run(f, NULL, NULL);
	if (r == 0 && changed)
		r = lb_fail(
			-EAGAIN,
			"%s knows the server that was lost, and is told of this one when it starts: shut it down from "
			"within, when it suits you, and order the same again, which starts it",
			w->p.double_name);
	return r;
}

static int start(struct work *w)
{
	struct lb_env *env = w->site->env;
	int64_t until_ns = lb_mono_ns(env) + LB_REPROTECT_START_S * LB_NS_PER_S;
	int r;

	r = w->p.back[0] != '\0' ? tell_anew(w) : 0;
	r = r < 0 ? r : lb_job_step_on(w->job, "start the temporary process server");
	r = r < 0 ? r : lb_temporary_start(w->site, w->p.process);
	while (r == 0 && !speaks(w, 0)) {
		if (lb_mono_ns(env) > until_ns)
			return lb_fail(-ETIMEDOUT,
				       "the temporary process server has not spoken for %d s; journalctl -u "
				       "lifeboat-config tells why",
				       LB_REPROTECT_START_S);
		r = lb_job_check(w->job);
		env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	}
	return r < 0 ? r : go_on(w, LB_REPROTECT_STARTING, LB_REPROTECT_ENROLLING);
}

/* ---- the double's own machine ----------------------------------------------------------------------------- */

static int enrolled(struct work *w)
{
	int r;

	r = lb_job_step_on(w->job, "wait for the double's agent to enrol");
	r = r < 0 ? r : lb_job_check(w->job);
	if (r < 0)
		return r;
	if (lb_now_ns(w->site->env) - w->p.made_ns > LB_REPROTECT_ENROL_S * LB_NS_PER_S)
		return lb_fail(
			-ETIMEDOUT,
			"the agent in %s has not enrolled within %d min; look on it at `lifeboat-mobility status`, "
			"then order the same again",
			w->p.double_name, LB_REPROTECT_ENROL_S / 60);
	return lb_job_park(w->job);
}

static int store_enabled(struct work *w, const struct lb_reg_machine *m)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine fresh = {0};
	int r;

	r = lb_db_begin(w->site->db, &txn);
	r = r < 0 ? r : lb_reg_machine_find(w->site->db, m->id, &fresh);
	if (r < 0)
		return r;
	json_decref(fresh.disks);
	fresh.disks = json_incref(m->disks);
	memcpy(fresh.policy, m->policy, sizeof(fresh.policy));
	memcpy(fresh.process, w->p.process, sizeof(fresh.process));
	if (!fresh.enabled)
		fresh.enabled_ns = lb_now_ns(w->site->env);
	fresh.enabled = true;
	r = lb_reg_machine_put(w->site->db, &fresh);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int enable(struct work *w)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_policy policy;
	int r;

	r = lb_job_step_on(w->job, "enable its replication");
	r = r < 0 ? r : lb_reg_machine_find(w->site->db, w->p.back, &m);
	if (r < 0)
		return r;
	/* a policy that was made before ways back had one of their own */
	if (lb_reg_policy_get(w->site->db, m.policy, &policy) < 0)
		snprintf(m.policy, sizeof(m.policy), "%s", LB_POLICY_NAME_DEFAULT);
	r = lb_reprotect_disks(w->site, &w->p, &m);
	r = r < 0 ? r : lb_machine_publish(w->site, &m);
	r = r < 0 ? r : store_enabled(w, &m);
	r = r < 0 ? r : lb_vault_copy_write(w->site);
	return r < 0 ? r : go_on(w, LB_REPROTECT_ENABLING, LB_REPROTECT_REPLICATING);
}

static int say_progress(struct work *w, const json_t *status)
{
	const json_t *progress = json_object_get(status, "progress");
	json_int_t done = json_integer_value(json_object_get(progress, "done_bytes")),
		   total = json_integer_value(json_object_get(progress, "total_bytes"));
	const char *state = json_string_value(json_object_get(status, "state")),
		   *error = json_string_value(json_object_get(status, "error"));
	int r;

	r = lb_job_say(w->job, "%s is %s%s%s", w->p.back_name, state, error != NULL ? ": " : "",
		       error != NULL ? error : "");
	if (r == 0 && total > 0)
		r = lb_job_progress(w->job, (double)done / (double)total);
	return r < 0 ? r : lb_job_check(w->job);
}

static int replicate(struct work *w)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *status = NULL;
	const char *state;
	int r;

	r = lb_job_step_on(w->job, "initial replication");
	r = r < 0 ? r : lb_reg_machine_find(w->site->db, w->p.back, &m);
	r = r < 0 ? r : lb_status_machine(w->site, &m, &status);
	if (r < 0)
		return r;
	state = json_string_value(json_object_get(status, "state"));
	if (strcmp(state, "protected") == 0 && json_is_true(json_object_get(status, "recoverable")))
		return go_on(w, LB_REPROTECT_REPLICATING, LB_REPROTECT_FOLLOWING);
	r = say_progress(w, status);
	return r < 0 ? r : lb_job_park(w->job);
}

/* ---- the job ----------------------------------------------------------------------------------------------- */

static int next(struct work *w)
{
	int r;

	if (is(w, LB_REPROTECT_STARTING))
		return start(w);
	if (is(w, LB_REPROTECT_ENROLLING))
		return enrolled(w);
	if (is(w, LB_REPROTECT_ENABLING))
		return enable(w);
	if (is(w, LB_REPROTECT_REPLICATING))
		return replicate(w);
	if (is(w, LB_REPROTECT_FOLLOWING)) {
		r = lb_reprotect_target_follow(w->job, &w->p);
		return r < 0 ? r : go_on(w, LB_REPROTECT_FOLLOWING, LB_REPROTECT_PROTECTED);
	}
	return lb_fail(-EINVAL, "%s is %s: it can't be reprotected now", w->p.double_name,
		       lb_reprotect_goes_home(&w->p) ? "on its way home" : "losing its way back");
}

static int describe(struct lb_job *job, struct lb_reprotect *p)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	int r;

	r = lb_job_double_open(job, &f);
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	*p = (struct lb_reprotect){.made_ns = lb_now_ns(job->site->env), .state = LB_REPROTECT_STARTING};
	snprintf(p->double_name, sizeof(p->double_name), "%.*s", LB_REG_NAME_BYTES - 1, job->target);
	snprintf(p->name, sizeof(p->name), "%s", report.machine_name);
	snprintf(p->back_name, sizeof(p->back_name), "%.*s" LB_BACK_SUFFIX,
		 (int)(sizeof(p->back_name) - sizeof(LB_BACK_SUFFIX)), report.machine_name);
	snprintf(p->job, sizeof(p->job), "%s", job->id);
	lb_uuid_format(&report.machine, p->machine);
	p->request = json_incref(job->request);
	return 0;
}

/* Before anything is made: the way back is clear, and the row is there. */
static int begin(struct work *w)
{
	json_t *findings = NULL;
	int r;

	r = lb_job_step_on(w->job, "check the way back");
	r = r < 0 ? r : lb_reprotect_check(w->job, &findings);
	if (findings != NULL && json_object_set_new(w->job->result, "findings", findings) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	if (r < 0 || json_is_true(json_object_get(w->job->request, "dry_run")))
		return r;
	r = describe(w->job, &w->p);
	r = r < 0 ? r : lb_reprotect_put(w->site->db, &w->p);
	lb_fault_place("reprotect of %s: noted: begun", w->job->target);
	return r;
}

/* One that failed before goes on where it was, with what is asked now. */
static int take_up(struct work *w)
{
	int r;

	if (strcmp(w->p.job, w->job->id) == 0)
		return 0;
	memcpy(w->p.job, w->job->id, sizeof(w->p.job));
	json_decref(w->p.request);
	w->p.request = json_incref(w->job->request);
	r = lb_db_run(w->site->db, "UPDATE reprotect SET job = ?, request = ?, made_ns = ? WHERE double = ?", "sjis",
		      w->p.job, w->p.request, lb_now_ns(w->site->env), w->p.double_name);
	return r < 0 ? r : go_on(w, "", "");
}

static int run(struct work *w)
{
	int r;

	r = lb_reprotect_find(w->site->db, w->job->target, &w->p);
	/* the rest of an end that was killed */
	if (r == 0 && is(w, LB_REPROTECT_ENDING)) {
		r = lb_job_check(w->job);
		r = r < 0 ? r : lb_reprotect_end(w->job, w->job->target);
		lb_reprotect_clear(&w->p);
		w->p = (struct lb_reprotect){0};
		r = r < 0 ? r : -ENOENT;
	}
	if (r == 0)
		r = take_up(w);
	else if (r == -ENOENT)
		r = begin(w);
	while (r == 0 && w->p.double_name[0] != '\0' && !is(w, LB_REPROTECT_PROTECTED))
		r = next(w);
	return r;
}

static int tell(struct work *w)
{
	json_t *result;

	if (w->p.double_name[0] == '\0')
		return 0; /* a dry run */
	result = json_pack("{s:s,s:s,s:s}", "machine", w->p.back_name, "id", w->p.back, "process", w->p.process);
	if (result == NULL || json_object_update_new(w->job->result, result) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	lb_event(w->site, "info", w->p.double_name, "it replicates back as %s", w->p.back_name);
	lb_vault_copy_try(w->site);
	return 0;
}

int lb_job_reprotect_run(struct lb_job *job)
{
	_cleanup_(work_clear) struct work w = {.job = job, .site = job->site};
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r;

	r = run(&w);
	if (r == 0)
		return tell(&w);
	if (r != -ECANCELED)
		return r;
	snprintf(text, sizeof(text), "%s", lb_err_text());
	r = lb_reprotect_end(job, job->target);
	return r < 0 ? lb_wrap(r,
			       "it was cancelled, but not all of it is gone; `lifeboat failover reprotect %s --cancel`",
			       job->target)
		     : lb_fail(-ECANCELED, "%s", text);
}

/* One of a plan's, before any of it is begun. */
int lb_job_reprotect_check_run(struct lb_job *job)
{
	json_t *findings = NULL;
	int r;

	r = lb_job_step(job, "check the way back");
	r = r < 0 ? r : lb_reprotect_check_body(job->site, job->request);
	r = r < 0 ? r : lb_reprotect_check(job, &findings);
	if (findings != NULL && json_object_set_new(job->result, "findings", findings) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	return r;
}

int lb_job_reprotect_cancel_run(struct lb_job *job)
{
	int r;

	r = lb_job_step(job, "take its way back away");
	return r < 0 ? r : lb_reprotect_end(job, job->target);
}

/* ---- ordering ---------------------------------------------------------------------------------------------- */

int lb_reprotect_order(struct lb_site *site, const char *parent, const char *double_name, const json_t *body,
		       const char *made_by, char ret_job[LB_UUID_TEXT_BYTES])
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	bool there = false;
	int r;

	r = lb_failovers_has(site, double_name, &there);
	if (r == 0 && !there)
		r = lb_fail(-ENOENT, "there is no double \"%.64s\"; `lifeboat failover list` shows them", double_name);
	r = r < 0 ? r : lb_reprotect_check_body(site, body);
	r = r < 0 ? r : lb_db_begin(site->db, &txn); /* of two operators exactly one */
	r = r < 0 ? r : lb_job_check_free(site, double_name, double_name);
	if (r < 0)
		return r;
	r = lb_reprotect_find(site->db, double_name, &p);
	if (r == 0 && (strcmp(p.state, LB_REPROTECT_PROTECTED) == 0 || lb_reprotect_goes_home(&p)))
		return lb_fail(
			-EEXIST,
			"%s is reprotected already, as %s; `lifeboat failover reprotect %s --cancel` takes that back",
			double_name, p.back_name, double_name);
	if (r < 0 && r != -ENOENT)
		return r;
	r = lb_job_submit_child(site, parent, "reprotect", double_name, body, made_by, ret_job);
	return r < 0 ? r : lb_db_commit(&txn);
}
