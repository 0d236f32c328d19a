/* SPDX-License-Identifier: Apache-2.0 */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/registry.h"
#include "config/reprotect.h"

#define WARNINGS_MAX 200

/* ---- what is kept ------------------------------------------------------------------------------------------ */

size_t lb_plan_job_number(const struct lb_plan_job *run, const char *member)
{
	json_int_t n = json_integer_value(json_object_get(run->job->result, member));

	return n > 0 ? (size_t)n : 0;
}

bool lb_plan_job_is(const struct lb_plan_job *run, const char *phase)
{
	const char *is = json_string_value(json_object_get(run->job->result, "phase"));

	return is != NULL && strcmp(is, phase) == 0;
}

int lb_plan_job_set(struct lb_plan_job *run, const char *member, json_t *value)
{
	return json_object_set_new(run->job->result, member, value) < 0 ? lb_fail(-ENOMEM, "out of memory for a job")
									: 0;
}

int lb_plan_job_go_on(struct lb_plan_job *run, size_t group, const char *phase, size_t action)
{
	int r;

	r = lb_plan_job_set(run, "group", json_integer((json_int_t)group));
	r = r < 0 ? r : lb_plan_job_set(run, "phase", json_string(phase));
	r = r < 0 ? r : lb_plan_job_set(run, "action", json_integer((json_int_t)action));
	r = r < 0 ? r : lb_plan_job_set(run, "waiting", json_null());
	r = r < 0 ? r : lb_job_keep(run->job);
	if (r == 0)
		lb_fault_place("plan %s: noted: group %zu, %s, action %zu", run->name, group, phase, action);
	return r;
}

int lb_plan_job_warn(struct lb_plan_job *run, const char *fmt, ...)
{
	json_t *list = json_object_get(run->job->result, "warnings");
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lb_event(run->job->site, "warning", run->name, "%s", text);
	if (json_array_size(list) >= WARNINGS_MAX)
		return 0;
	return json_array_append_new(list, json_string(text)) < 0 ? lb_fail(-ENOMEM, "out of memory for a job") : 0;
}

int lb_plan_job_begin(struct lb_plan_job *run, struct lb_job *job, const char *kind)
{
	const char *point = json_string_value(json_object_get(job->request, "point"));
	json_t *first;

	*run = (struct lb_plan_job){.job = job,
				    .plan = json_object_get(job->request, "plan"),
				    .point = point != NULL ? point : "latest",
				    .kind = kind,
				    .table = "machines",
				    .home = strcmp(kind, "failback") == 0,
				    .live = strcmp(kind, "test") != 0 && strcmp(kind, "drill") != 0,
				    .drill = strcmp(kind, "drill") == 0};
	run->name = json_string_value(json_object_get(run->plan, "name"));
	if (run->name == NULL)
		return lb_fail(-EBADMSG, "the job's plan is damaged");
	if (json_object_get(job->result, "phase") != NULL)
		return 0;
	first = json_pack("{s:s,s:s,s:i,s:s,s:i,s:n,s:{},s:[]}", "plan", run->name, "kind", kind, "group", 0, "phase",
			  "check", "action", 0, "waiting", "machines", "warnings");
	if (first == NULL || json_object_update_new(job->result, first) < 0)
		return lb_fail(-ENOMEM, "out of memory for a job");
	return lb_job_keep(job);
}

/* ---- machines' jobs ------------------------------------------------------------------------------------------ */

static int child_of(struct lb_plan_job *run, const char *kind, const char *target, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	r = lb_db_query(run->job->site->db, &rows, "SELECT id FROM job WHERE parent = ? AND kind = ? AND target = ?",
			"sss", run->job->id, kind, target);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r > 0)
		snprintf(id, LB_UUID_TEXT_BYTES, "%s", lb_db_text(rows, 0));
	return r;
}

static json_t *table(struct lb_plan_job *run)
{
	json_t *machines = json_object_get(run->job->result, run->table);

	if (machines == NULL) {
		machines = json_object();
		if (json_object_set_new(run->job->result, run->table, machines) < 0)
			return NULL;
	}
	return machines;
}

static int order_child(struct lb_plan_job *run, const char *kind, const char *target, const json_t *request,
		       const char *by, char id[LB_UUID_TEXT_BYTES])
{
	static const char *const of_home[] = {"reprotect-check", "shut", "failback", "failback-commit"};
	struct lb_site *site = run->job->site;
	int r = 0;

	if (strcmp(kind, "reprotect") == 0)
		return lb_reprotect_order(site, run->job->id, target, request, by, id);
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(of_home); i++)
		if (strcmp(kind, of_home[i]) == 0)
			r = lb_job_check_free(site, target, target);
	return r < 0 ? r : lb_job_submit_child(site, run->job->id, kind, target, request, by, id);
}

int lb_plan_job_note(struct lb_plan_job *run, const char *machine, const char *double_name, const char *state,
		     const char *error)
{
	json_t *one = json_pack("{s:s?,s:n,s:s,s:s}", "double", double_name, "job", "state", state, "error", error);

	return one == NULL || json_object_set_new(table(run), machine, one) < 0
		       ? lb_fail(-ENOMEM, "out of memory for a job")
		       : 0;
}

/* Once, however often it is asked for. */
int lb_plan_job_submit(struct lb_plan_job *run, const char *kind, const char *machine, const char *target,
		       const json_t *request)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_site *site = run->job->site;
	json_t *machines = table(run);
	char id[LB_UUID_TEXT_BYTES], by[128];
	int r;

	snprintf(by, sizeof(by), "plan %s", run->name);
	r = lb_db_begin(site->db, &txn);
	/* what is cancelled begins nothing more: its cancellation reaches only those that are there */
	if (r == 0)
		r = lb_job_check(run->job);
	if (r == 0)
		r = child_of(run, kind, target, id);
	if (r == 0)
		r = order_child(run, kind, target, request, by, id);
	if (r >= 0)
		r = json_object_set_new(machines, machine,
					json_pack("{s:s,s:s,s:s}", "double", target, "job", id, "state", "queued")) < 0
			    ? lb_fail(-ENOMEM, "out of memory for a job")
			    : 0;
	/* with it, or a kill could let it end unseen */
	r = r < 0 ? r : lb_job_keep(run->job);
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r == 0)
		lb_fault_place("plan %s: %s of %s is ordered", run->name, kind, target);
	return r;
}

static void note_failed(struct lb_plan_count *count, const char *machine, const char *words)
{
	size_t used = strlen(count->told);

	if (count->failed++ < LB_PLAN_TOLD_MAX)
		snprintf(count->told + used, sizeof(count->told) - used, "%s%s: %.120s", used > 0 ? "; " : "", machine,
			 words);
}

static int look_at(struct lb_plan_job *run, const char *machine, json_t *one, struct lb_plan_count *count)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	const char *id = json_string_value(json_object_get(one, "job")), *state, *error;
	int r;

	if (id == NULL && json_string_length(json_object_get(one, "error")) > 0) { /* it could not be ordered */
		note_failed(count, machine, json_string_value(json_object_get(one, "error")));
		return 0;
	}
	if (id == NULL) { /* there was nothing to do */
		count->done++;
		return 0;
	}
	LB_DB_SCOPE(run->job->site->db);
	r = lb_db_query(run->job->site->db, &rows, "SELECT state, error FROM job WHERE id = ?", "s", id);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r < 0)
		return r;
	state = r > 0 ? lb_db_text(rows, 0) : "lost";
	error = r > 0 && lb_db_text(rows, 1) != NULL ? lb_db_text(rows, 1) : "";
	if (json_object_set_new(one, "state", json_string(state)) < 0 ||
	    json_object_set_new(one, "error", json_string(error)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a job");
	if (strcmp(state, "done") == 0) {
		count->done++;
	} else if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0 || strcmp(state, "lost") == 0) {
		note_failed(count, machine, error[0] != '\0' ? error : state);
	} else {
		count->active++;
	}
	return 0;
}

/* Of these machines (an array of plan entries; NULL: all that the job has begun). */
int lb_plan_job_look(struct lb_plan_job *run, const json_t *entries, struct lb_plan_count *ret_count)
{
	json_t *machines = json_object_get(run->job->result, run->table), *one;
	struct lb_plan_count count = {0};
	const json_t *entry;
	const char *name;
	size_t i;
	int r = 0;

	if (entries == NULL)
		json_object_foreach(machines, name, one) r = r < 0 ? r : look_at(run, name, one, &count);
	json_array_foreach(entries, i, entry)
	{
		name = json_string_value(json_object_get(entry, "machine"));
		one = json_object_get(machines, name);
		if (one != NULL)
			r = r < 0 ? r : look_at(run, name, one, &count);
	}
	if (r == 0)
		*ret_count = count;
	return r;
}

int lb_plan_job_child_result(struct lb_plan_job *run, const char *id, json_t **ret_result)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	json_t *result;
	int r;

	LB_DB_SCOPE(run->job->site->db);
	r = lb_db_query(run->job->site->db, &rows, "SELECT result FROM job WHERE id = ?", "s", id);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r < 0)
		return r;
	result = r > 0 && !lb_db_null(rows, 0) ? lb_db_json(rows, 0) : json_object();
	if (result == NULL)
		return lb_fail(-ENOMEM, "out of memory for a result");
	*ret_result = result;
	return 0;
}

int lb_plan_job_all_ended(struct lb_plan_job *run)
{
	struct lb_plan_count count = {0};
	int r;

	r = lb_plan_job_look(run, NULL, &count);
	r = r < 0 ? r
		  : lb_job_say(run->job, "%u done, %u failed, %u under way", count.done, count.failed, count.active);
	if (r < 0)
		return r;
	if (count.active > 0)
		return lb_job_park(run->job);
	return count.failed > 0 ? lb_fail(-EIO, "%u doubles of plan %s: %s", count.failed, run->name, count.told) : 0;
}

/* Its machines' jobs were cancelled with it; it has ended when they have. */
int lb_plan_job_cancelled(struct lb_plan_job *run)
{
	static const char *const tables[] = {"checks", "shut", "machines"};
	unsigned int active = 0;
	int r, looked = 0;

	r = lb_job_check(run->job);
	if (r != -ECANCELED)
		return r;
	for (size_t i = 0; looked == 0 && i < LB_ARRAY_LEN(tables); i++) {
		struct lb_plan_count count = {0};

		run->table = tables[i];
		looked = lb_plan_job_look(run, NULL, &count);
		active += count.active;
	}
	if (looked < 0)
		return looked;
	lb_plan_job_set(run, "waiting", json_null());
	return active > 0 ? lb_job_park(run->job) : lb_fail(-ECANCELED, "cancelled");
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

const char *lb_plan_target(const char *name, char target[LB_PLAN_TARGET_BYTES])
{
	snprintf(target, LB_PLAN_TARGET_BYTES, "plan:%.64s", name);
	return target;
}
