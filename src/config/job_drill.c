/* SPDX-License-Identifier: Apache-2.0 */
/* One drill. Whatever happens in it, its double is removed at its end. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "config/drills.h"
#include "config/failovers.h"
#include "config/flush.h"
#include "config/plans.h"
#include "config/registry.h"
#include "fabric/check.h"
#include "fabric/proc.h"

#define FAILOVER_WAIT_S 300
#define REMOVE_WAIT_S_MAX 3600 /* for a libvirtd or a store that is away when the double is to go */
#define REMOVE_AGAIN_MS 2000

struct drill {
	struct lb_job *job;
	int64_t deadline_ns; /* wall clock */
	const json_t *check;
};

/* ---- orders -------------------------------------------------------------------------------------------------- */

int lb_drill_request(const json_t *body, json_t **ret_request, char *double_name)
{
	static const char *const not_ours[] = {"network",         "address",      "mac",
					       "shutdown_source", "wait_drained", "test_network"};
	_cleanup_json_ json_t *request = json_deep_copy(body), *check = NULL;
	const char *machine, *note = "", *name = json_string_value(json_object_get(body, "name"));
	uint64_t limit_s = LB_DRILL_LIMIT_S_DEFAULT;
	int r, n;

	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a drill");
	r = lb_json_get_str(body, "machine", &machine);
	r = r < 0 ? r : lb_check_read(json_object_get(body, "check"), &check);
	if (r == 0 && json_object_get(body, "limit_s") != NULL)
		r = lb_json_get_u64(body, "limit_s", &limit_s);
	if (r == 0 && json_object_get(body, "note") != NULL)
		r = lb_json_get_str(body, "note", &note);
	if (r < 0)
		return r;
	if (limit_s < LB_DRILL_LIMIT_S_MIN || limit_s > LB_DRILL_LIMIT_S_MAX)
		return lb_fail(-EINVAL, "a drill's limit is %d to %d seconds", LB_DRILL_LIMIT_S_MIN,
			       LB_DRILL_LIMIT_S_MAX);
	if (strlen(note) > LB_DRILL_NOTE_BYTES_MAX)
		return lb_fail(-EINVAL, "a note has at most %d characters", LB_DRILL_NOTE_BYTES_MAX);
	n = snprintf(double_name, LB_VM_NAME_BYTES, "%s-drill", name != NULL ? name : machine);
	if (n >= LB_VM_NAME_BYTES)
		return lb_fail(-EINVAL,
			       "machine %s: the name of its double would be too long; give it a shorter --name",
			       machine);
	r = lb_name_check("double", double_name);
	if (r < 0)
		return r;
	/* nothing but the forwards reaches it, and it reaches nothing */
	for (size_t i = 0; i < LB_ARRAY_LEN(not_ours); i++)
		json_object_del(request, not_ours[i]);
	if (json_object_set(request, "check", check) < 0 || lb_json_set_u64(request, "limit_s", limit_s) < 0 ||
	    lb_json_set_str(request, "kind", "test") < 0)
		return lb_fail(-ENOMEM, "out of memory for a drill");
	*ret_request = lb_steal_ptr(request);
	return 0;
}

int lb_drill_set_deadline(struct lb_site *site, json_t *request)
{
	json_int_t limit_s = json_integer_value(json_object_get(request, "limit_s"));

	return lb_json_set_i64(request, "deadline_ns", lb_now_ns(site->env) + limit_s * LB_NS_PER_S);
}

int lb_drill_folder(struct lb_site *site, const char *id, char *path)
{
	char folder[PATH_MAX];
	int r;

	r = lb_site_path(folder, site->settings.state_folder, "drills");
	return r < 0 ? r : lb_site_path(path, folder, id);
}

/* ---- the rehearsal ----------------------------------------------------------------------------------------------- */

static int64_t left_s(const struct drill *d)
{
	return (d->deadline_ns - lb_now_ns(d->job->site->env)) / LB_NS_PER_S;
}

static int check_time(const struct drill *d)
{
	if (left_s(d) > 0)
		return lb_job_check(d->job);
	return lb_fail(-ETIMEDOUT, "the drill's time is over (%" JSON_INTEGER_FORMAT " s)",
		       json_integer_value(json_object_get(d->job->request, "limit_s")));
}

static int before_step(void *arg, enum lb_failover_step step)
{
	struct drill *d = arg;
	int r;

	r = check_time(d);
	if (r < 0 || step == LB_STEP_DONE)
		return r;
	r = lb_job_step(d->job, lb_failover_step_name(step));
	return r < 0 ? r : lb_job_progress(d->job, 0.5 * (double)step / LB_STEP_DONE);
}

static int check_idle(void *arg)
{
	return check_time(arg);
}

static int open_double(struct lb_job *job, struct lb_failover **ret_f)
{
	const struct lb_vault_secret secret = {.passphrase_file = job->site->passphrase_path};
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = lb_failover_open(job->site->env, job->site->settings.vm_folder, job->target, &f);
	r = r < 0 ? r : lb_failover_secret_set(f, &secret);
	if (r < 0)
		return r;
	*ret_f = lb_steal_ptr(f);
	return 0;
}

static int begin_double(struct drill *d, struct lb_failover **ret_f)
{
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request request;
	int r;

	r = lb_failover_request_read(d->job->site, d->job->request, &request, forwards);
	r = r < 0 ? r : lb_check_forwards(d->check, forwards, &request.n_forwards);
	if (r == 0 && lb_flush_is_for(request.point))
		r = lb_flush(d->job, request.machine, left_s(d));
	r = r < 0 ? r : lb_job_step(d->job, "prepare");
	if (r < 0)
		return r;
	request.vm_name = d->job->target;
	request.wait_s = (uint32_t)LB_MIN(left_s(d), (int64_t)FAILOVER_WAIT_S);
	request.wait_s = LB_MAX(request.wait_s, 1u);
	return lb_failover_begin(d->job->site->env, &request, ret_f);
}

static int keep_report(struct drill *d, const struct lb_failover_report *report)
{
	char id[LB_UUID_TEXT_BYTES];
	json_t *j;

	lb_uuid_format(&report->machine, id);
	j = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s}", "machine", id, "machine_name", report->machine_name,
		      "double", report->vm_name, "point_ns", (json_int_t)report->point_time_ns, "epoch",
		      (json_int_t)report->position.epoch, "seq", (json_int_t)report->position.seq, "rto_ms",
		      (json_int_t)report->rto_ms, "mended", report->mended, "warning",
		      report->warning != NULL ? report->warning : "");
	if (j == NULL || json_object_update_new(d->job->result, j) < 0)
		return lb_fail(-ENOMEM, "out of memory for a drill");
	return lb_job_keep(d->job);
}

static int take_picture(struct drill *d, struct lb_failover *f)
{
	char folder[PATH_MAX], type[8] = "";
	int r;

	r = lb_drill_folder(d->job->site, d->job->id, folder);
	r = r < 0 ? r : lb_folder_make(d->job->site->env, folder, 0700);
	if (r < 0)
		return r;
	/* a screen that can't be had is no failure of the double */
	if (lb_failover_picture(f, folder, type) < 0)
		lb_job_say(d->job, "%s", lb_err_text());
	return lb_json_set_str(d->job->result, "screen", type);
}

static int prove(struct drill *d, struct lb_failover *f)
{
	const struct lb_check_run run = {.check = d->check,
					 .hook_folder = d->job->site->settings.hook_folder,
					 .limit_s = (uint32_t)LB_MAX(left_s(d), (int64_t)1),
					 .idle = check_idle,
					 .arg = d};
	json_t *proof = NULL;
	int r, pictured;

	r = lb_job_step(d->job, "prove the double");
	r = r < 0 ? r : lb_failover_check(f, &run, &proof);
	if (r == 0 && json_object_set_new(d->job->result, "proof", proof) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a drill");
	if (r < 0 && r != -ETIMEDOUT)
		return r;
	pictured = take_picture(d, f);
	if (r < 0 || pictured < 0)
		return r < 0 ? check_time(d) : pictured;
	return json_is_true(json_object_get(proof, "passed")) ? 0 : -ENODATA;
}

static void first_missing(const json_t *proof, char text[256])
{
	static const char *const members[] = {"stopped", "nonce", "login", "script"};
	const json_t *one;
	size_t i;

	snprintf(text, 256, "the double was not proven");
	json_array_foreach(json_object_get(proof, "ports"), i, one)
	{
		if (!json_is_true(json_object_get(one, "passed")))
			snprintf(text, 256, "%s", json_string_value(json_object_get(one, "text")));
	}
	for (i = LB_ARRAY_LEN(members); i > 0; i--) {
		one = json_object_get(proof, members[i - 1]);
		if (one != NULL && !json_is_true(json_object_get(one, "passed")))
			snprintf(text, 256, "%s", json_string_value(json_object_get(one, "text")));
	}
}

static int rehearse(struct drill *d)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	char text[256];
	int r;

	r = check_time(d);
	r = r < 0 ? r : open_double(d->job, &f);
	if (r == -ENOENT)
		r = begin_double(d, &f);
	if (r < 0)
		return r;
	lb_failover_idle_set(f, check_idle, d);
	lb_failover_report(f, &report);
	r = keep_report(d, &report);
	r = r < 0 ? r : lb_failover_run(f, before_step, d);
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	r = keep_report(d, &report);
	r = r < 0 ? r : prove(d, f);
	if (r != -ENODATA)
		return r;
	first_missing(json_object_get(d->job->result, "proof"), text);
	if (report.warning != NULL && report.warning[0] != '\0')
		return lb_fail(-EREMOTEIO, "%s (%s)", text, report.warning);
	return lb_fail(-EREMOTEIO, "%s", text);
}

/* ---- its end ----------------------------------------------------------------------------------------------------- */

static int try_removing(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = open_double(job, &f);
	if (r == -ENOENT)
		return 0;
	r = r < 0 ? r : lb_failover_cleanup(f, false);
	if (r == 0)
		f = NULL; /* freed with it */
	return r;
}

/* What it takes to remove it may be away for a while: a drill's double must not outlive its drill for that. */
static int remove_double(struct lb_job *job)
{
	int64_t end_ns = lb_mono_ns(job->site->env) + REMOVE_WAIT_S_MAX * LB_NS_PER_S;
	int r;

	/* also when the job was cancelled: then first of all */
	r = lb_job_step(job, "remove the double");
	if (r < 0 && r != -ECANCELED)
		return r;
	while ((r = try_removing(job)) < 0 && lb_mono_ns(job->site->env) < end_ns) {
		lb_job_say(job, "%s; it is tried again", lb_err_text());
		if (lb_job_check(job) == -ESHUTDOWN)
			return -ESHUTDOWN;
		lb_proc_pause(job->site->env, REMOVE_AGAIN_MS);
	}
	return r;
}

static void forget_pictures(struct lb_site *site, const char *id)
{
	static const char *const names[] = {"/screen.png", "/screen.ppm", "/console.txt", ""};
	char folder[PATH_MAX], path[PATH_MAX];

	for (size_t i = 0; i < LB_ARRAY_LEN(names); i++)
		if (lb_drill_folder(site, id, folder) == 0 &&
		    snprintf(path, sizeof(path), "%s%s", folder, names[i]) < (int)sizeof(path))
			(void)remove(path);
}

static int prune(struct lb_site *site, const char *machine)
{
	for (;;) {
		_cleanup_rows_ lb_db_rows *rows = NULL;
		char id[LB_UUID_TEXT_BYTES];
		int r;

		r = lb_db_query(site->db, &rows,
				"SELECT id FROM drill WHERE machine = ? ORDER BY started_ns DESC LIMIT 1 OFFSET ?",
				"si", machine, (int64_t)LB_DRILLS_KEPT_MAX);
		r = r < 0 ? r : lb_db_next(site->db, rows);
		if (r <= 0)
			return r;
		snprintf(id, sizeof(id), "%s", lb_db_text(rows, 0));
		forget_pictures(site, id);
		r = lb_db_run(site->db, "DELETE FROM drill WHERE id = ?", "s", id);
		if (r < 0)
			return r;
	}
}

/* What is known of it beyond the job's own life. */
static int write_row(struct lb_job *job, const char *state, const char *error)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *body = json_deep_copy(job->result);
	const char *machine = json_string_value(json_object_get(body, "machine"));
	const char *note = json_string_value(json_object_get(job->request, "note"));
	const char *warning = json_string_value(json_object_get(body, "warning"));
	int64_t now_ns = lb_now_ns(job->site->env), started_ns = now_ns;
	int r;

	if (machine == NULL)
		return 0; /* it ended before the vault was opened: the job's own error tells why */
	r = lb_db_begin(job->site->db, &txn);
	if (r == 0)
		r = lb_db_get_int(job->site->db, &started_ns,
				  "SELECT ifnull(started_ns, created_ns) FROM job WHERE id = ?", "s", job->id);
	r = r < 0 ? r : lb_json_set_str(body, "state", state);
	r = r < 0 ? r : lb_json_set_str(body, "error", error);
	r = r < 0 ? r : lb_json_set_str(body, "note", note != NULL ? note : "");
	r = r < 0 ? r : lb_json_set_i64(body, "started_ns", started_ns);
	r = r < 0 ? r : lb_json_set_i64(body, "ended_ns", now_ns);
	json_object_del(body, "checked");
	if (r == 0)
		r = lb_db_run(job->site->db,
			      "INSERT OR REPLACE INTO drill (id, machine, started_ns, body) VALUES (?,?,?,?)", "ssij",
			      job->id, machine, started_ns, body);
	if (r == 0 && strcmp(state, "passed") == 0)
		r = lb_reg_machine_proven(job->site->db, machine, now_ns,
					  (int64_t)json_integer_value(json_object_get(body, "point_ns")),
					  warning != NULL ? warning : "");
	r = r < 0 ? r : prune(job->site, machine);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_drill_run(struct lb_job *job)
{
	struct drill d = {.job = job,
			  .deadline_ns = json_integer_value(json_object_get(job->request, "deadline_ns")),
			  .check = json_object_get(job->request, "check")};
	char error[LB_ERR_TEXT_BYTES_MAX] = "";
	int r = 0, code = (int)json_integer_value(json_object_get(job->result, "code"));

	if (!json_is_true(json_object_get(job->result, "checked"))) {
		r = rehearse(&d);
		if (r == -ESHUTDOWN)
			return r;
		code = r;
		snprintf(error, sizeof(error), "%s", r < 0 ? lb_err_text() : "");
		r = lb_json_set_bool(job->result, "checked", true);
		r = r < 0 ? r : lb_json_set_i64(job->result, "code", code);
		r = r < 0 ? r : lb_json_set_str(job->result, "error", error);
		r = r < 0 ? r : lb_job_keep(job);
		if (r < 0)
			return r;
		lb_fault_place("drill of %s: its result is kept", job->target);
	}
	snprintf(error, sizeof(error), "%s", json_string_value(json_object_get(job->result, "error")));
	r = remove_double(job);
	if (r == -ESHUTDOWN)
		return r;
	if (r < 0)
		return lb_wrap(r, "the drill's double %s is still there (`lifeboat failover cleanup %s` removes it)",
			       job->target, job->target);
	lb_fault_place("drill of %s: the double is gone, its row is not written", job->target);
	r = write_row(job, code == 0 ? "passed" : code == -ECANCELED ? "cancelled" : "failed", error);
	if (r < 0)
		return r;
	return code < 0 ? lb_fail(code, "%s", error) : 0;
}

int lb_drill_last_failed(struct lb_db *db, const char *machine, int64_t proven_ns, char text[256],
			 int64_t *ret_ended_ns)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *body = NULL;
	int64_t ended_ns;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT body FROM drill WHERE machine = ? ORDER BY started_ns DESC LIMIT 1", "s",
			machine);
	r = r < 0 ? r : lb_db_next(db, rows);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	body = lb_db_json(rows, 0);
	ended_ns = json_integer_value(json_object_get(body, "ended_ns"));
	if (body == NULL || ended_ns <= proven_ns ||
	    strcmp(json_string_value(json_object_get(body, "state")), "failed") != 0)
		return -ENOENT;
	snprintf(text, 256, "%s", json_string_value(json_object_get(body, "error")));
	*ret_ended_ns = ended_ns;
	return 0;
}
