/* SPDX-License-Identifier: Apache-2.0 */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"
#include "fabric/hook.h"

static int keep_going(void *arg)
{
	return lb_job_check(arg);
}

/* A drill is a test. */
static const char *applies_as(const struct lb_plan_job *run)
{
	return run->home ? "failback" : run->live ? "failover" : "test";
}

static int run_script(struct lb_plan_job *run, const json_t *action, const char *phase)
{
	const char *script = json_string_value(json_object_get(action, "script")), *values[8];
	bool goes_on = strcmp(json_string_value(json_object_get(action, "on_failure")), "continue") == 0;
	char texts[6][LB_PLAN_TEXT_BYTES_MAX], line[LB_PROC_LAST_LINE_BYTES] = "", step[200];
	struct lb_hook hook = {.folder = run->job->site->settings.hook_folder,
			       .name = script,
			       .timeout_s = (uint32_t)json_integer_value(json_object_get(action, "timeout_s")),
			       .values = values,
			       .idle = keep_going,
			       .arg = run->job};
	unsigned int n = 0;
	int r;

	snprintf(step, sizeof(step), "%s: script %s", run->group_name, script);
	r = lb_job_step(run->job, step);
	if (r < 0)
		return r;
	snprintf(texts[0], sizeof(texts[0]), "LIFEBOAT_PLAN=%s", run->name);
	snprintf(texts[1], sizeof(texts[1]), "LIFEBOAT_GROUP=%s", run->group_name);
	snprintf(texts[2], sizeof(texts[2]), "LIFEBOAT_KIND=%s", applies_as(run));
	snprintf(texts[3], sizeof(texts[3]), "LIFEBOAT_PHASE=%s", phase);
	snprintf(texts[4], sizeof(texts[4]), "LIFEBOAT_JOB=%s", run->job->id);
	snprintf(texts[5], sizeof(texts[5]), "LIFEBOAT_POINT=%s", run->point);
	for (; n < 6; n++)
		values[n] = texts[n];
	values[n] = NULL;
	r = lb_hook_run(run->job->site->env, &hook, line);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	if (r == 0)
		return line[0] != '\0' ? lb_job_say(run->job, "%s", line) : 0;
	if (!goes_on)
		return lb_wrap(r, "%s: script %s", run->group_name, script);
	r = lb_job_say(run->job, "failed, and the plan goes on: %s", lb_err_text());
	return r < 0 ? r : lb_plan_job_warn(run, "%s: script %s failed: %s", run->group_name, script, lb_err_text());
}

/* 1: confirmed. */
static int is_confirmed(struct lb_plan_job *run, const char *action, char who[128])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(run->job->site->db);
	r = lb_db_query(run->job->site->db, &rows, "SELECT who FROM plan_confirmation WHERE job = ? AND action = ?",
			"ss", run->job->id, action);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r > 0)
		snprintf(who, 128, "%s", lb_db_text(rows, 0));
	return r;
}

static int wait_for_person(struct lb_plan_job *run, const json_t *action, const char *phase)
{
	const char *text = json_string_value(json_object_get(action, "manual"));
	char id[LB_PLAN_ACTION_BYTES], who[128], step[LB_PLAN_GROUP_NAME_BYTES + LB_PLAN_ACTION_BYTES + 24];
	bool told = json_is_object(json_object_get(run->job->result, "waiting"));
	int r;

	snprintf(id, sizeof(id), "%zu-%s-%zu", lb_plan_job_number(run, "group") + 1, phase,
		 lb_plan_job_number(run, "action") + 1);
	snprintf(step, sizeof(step), "%s: wait for a person (%s)", run->group_name, id);
	r = lb_job_step_on(run->job, step);
	if (r == 0)
		r = is_confirmed(run, id, who);
	if (r > 0)
		return lb_job_say(run->job, "confirmed by %s: %s", who, text);
	if (r < 0)
		return r;
	r = lb_plan_job_set(run, "waiting", json_pack("{s:s,s:s}", "action", id, "text", text));
	if (r == 0)
		r = lb_job_say(run->job, "%s", text);
	if (r == 0 && !told)
		lb_event(run->job->site, "warning", run->name,
			 "the plan waits for a person: %s; `lifeboat plan confirm %s`", text, run->name);
	return r < 0 ? r : lb_job_park(run->job);
}

int lb_plan_job_action(struct lb_plan_job *run, const char *phase)
{
	size_t group = lb_plan_job_number(run, "group"), n = lb_plan_job_number(run, "action");
	const json_t *list = json_object_get(lb_plan_group(run->plan, group), phase);
	const json_t *action = json_array_get(list, n);
	int r = 0;

	if (action == NULL) {
		/* of a way home the first group's is done while the doubles still work */
		if (strcmp(phase, "before") == 0 && run->home && group == 0)
			return lb_plan_job_go_on(run, lb_plan_groups(run->plan) - 1, "shut", 0);
		if (strcmp(phase, "before") == 0)
			return lb_plan_job_go_on(run, group, "machines", 0);
		return lb_plan_job_go_on(run, group + 1, "before", 0);
	}
	if (lb_plan_action_applies(action, applies_as(run)))
		r = json_object_get(action, "script") != NULL ? run_script(run, action, phase)
							      : wait_for_person(run, action, phase);
	return r < 0 ? r : lb_plan_job_go_on(run, group, phase, n + 1);
}
