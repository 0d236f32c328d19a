/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/plans.h"

static json_t *parsed(const char *text)
{
	return text != NULL ? json_loads(text, 0, NULL) : NULL;
}

/* The job that works on it, or the last one; null. */
static int add_job(struct lb_site *site, json_t *plan)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	char target[LB_PLAN_TARGET_BYTES];
	json_t *job;
	int r;

	lb_plan_target(json_string_value(json_object_get(plan, "name")), target);
	r = lb_db_query(
		site->db, &rows,
		"SELECT id, kind, state, error, result, made_by FROM job WHERE target = ? ORDER BY created_ns DESC,"
		" rowid DESC LIMIT 1",
		"s", target);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return json_object_set_new(plan, "job", json_null()) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
	job = json_pack("{s:s,s:s,s:s,s:s?,s:s,s:o}", "id", lb_db_text(rows, 0), "kind", lb_db_text(rows, 1), "state",
			lb_db_text(rows, 2), "error", lb_db_text(rows, 3), "made_by", lb_db_text(rows, 5), "result",
			!lb_db_null(rows, 4) ? parsed(lb_db_text(rows, 4)) : json_object());
	return json_object_set_new(plan, "job", job) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

struct listing {
	struct lb_site *site;
	json_t *list;
};

static int add_plan(void *arg, const json_t *plan)
{
	struct listing *l = arg;
	json_t *copy = json_copy((json_t *)plan);
	int r;

	if (copy == NULL || json_array_append_new(l->list, copy) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	r = add_job(l->site, copy);
	return r;
}

int lb_api_plan_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *list = json_array();
	struct listing l = {arg, list};
	int r;

	(void)call;
	r = lb_reg_plans(l.site->db, add_plan, &l);
	return r < 0 ? r : lb_api_reply_list(reply, "plans", lb_steal_ptr(list));
}

int lb_api_plan_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *plan = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_reg_plan_get(site->db, call->params[0], &plan);
	if (r == 0)
		r = add_job(site, plan);
	if (r == 0)
		reply->json = lb_steal_ptr(plan);
	return r;
}

static int store(struct lb_site *site, const struct lb_http_call *call, bool is_new, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL, *plan = NULL;
	const char *name;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_plan_read(body, &plan);
	if (r < 0)
		return r;
	name = json_string_value(json_object_get(plan, "name"));
	if (!is_new && strcmp(name, call->params[0]) != 0)
		return lb_fail(-EINVAL, "the plan is called \"%.64s\" in its text, not \"%.64s\"", name,
			       call->params[0]);
	r = lb_plan_check(site, plan);
	if (r == 0)
		r = lb_reg_plan_put(site->db, plan, is_new, lb_now_ns(site->env));
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", name, "recovery plan %s by %s", is_new ? "made" : "changed", call->peer.name);
	reply->json = lb_steal_ptr(plan);
	return 0;
}

int lb_api_plan_create(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return store(arg, call, true, reply);
}

int lb_api_plan_put(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return store(arg, call, false, reply);
}

int lb_api_plan_remove(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	char target[LB_PLAN_TARGET_BYTES], what[LB_PLAN_TARGET_BYTES + 8];
	int r;

	snprintf(what, sizeof(what), "plan %.64s", call->params[0]);
	{
		LB_DB_SCOPE(site->db);
		r = lb_job_check_free(site, lb_plan_target(call->params[0], target), what);
		if (r == 0)
			r = lb_reg_plan_remove(site->db, call->params[0]);
	}
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", call->params[0], "recovery plan deleted by %s", call->peer.name);
	reply->json = json_object();
	return 0;
}

/* ---- orders ---------------------------------------------------------------------------------------------- */

/* The members of an order that its job wants as they are. */
static const char *const of_reprotect[] = {"home", "dry_run", "note", NULL};
static const char *const of_failback[] = {"home", "dry_run", "wait_s", "note", NULL};
static const char *const of_failback_commit[] = {"new_hardware", "note", NULL};

static int check_home_body(const json_t *body)
{
	uint32_t wait_s;
	bool flag;
	int r = 0;

	if (json_object_get(body, "dry_run") != NULL)
		r = lb_json_get_bool(body, "dry_run", &flag);
	if (r == 0 && json_object_get(body, "new_hardware") != NULL)
		r = lb_json_get_bool(body, "new_hardware", &flag);
	if (r == 0 && json_object_get(body, "wait_s") != NULL)
		r = lb_json_get_u32(body, "wait_s", LB_PLAN_HOME_WAIT_S_MAX, &wait_s);
	return r;
}

/* What the order says of machines is a part of the plan that its job works on. */
static int take_home(const json_t *body, const char *const *members, json_t *request)
{
	json_t *plan = json_object_get(request, "plan"), *whole = NULL;
	int r;

	r = lb_plan_members(body, "the order", members);
	r = r < 0 ? r : check_home_body(body);
	if (r == 0 && json_object_get(body, "home") != NULL)
		r = lb_plan_homes_set(plan, json_object_get(body, "home"));
	r = r < 0 ? r : lb_plan_read(plan, &whole);
	if (r < 0)
		return r;
	r = json_object_set_new(request, "plan", whole) < 0 ? -ENOMEM : 0;
	for (; r == 0 && *members != NULL; members++)
		if (strcmp(*members, "home") != 0 && json_object_get(body, *members) != NULL)
			r = json_object_set(request, *members, json_object_get(body, *members)) < 0 ? -ENOMEM : 0;
	return r < 0 ? lb_fail(r, "out of memory for an order") : 0;
}

static int make_request(json_t *plan, const json_t *body, const char *const *members, json_t **ret_request)
{
	const char *point = NULL, *note = NULL;
	_cleanup_json_ json_t *request = NULL;
	int r;

	r = lb_api_optional_str(body, "point", &point);
	r = r < 0 ? r : lb_api_optional_str(body, "note", &note);
	if (r < 0)
		return r;
	request = json_pack("{s:O,s:s,s:s}", "plan", plan, "point", point != NULL ? point : "latest", "note",
			    note != NULL ? note : "");
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	r = members != NULL ? take_home(body, members, request) : 0;
	if (r == 0)
		*ret_request = lb_steal_ptr(request);
	return r;
}

/* Of two at once exactly one begins. `members`: what an order of the way home may say. */
static int order(struct lb_site *site, const struct lb_http_call *call, const char *kind, const char *const *members,
		 struct lb_http_reply *reply)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *body = NULL, *plan = NULL, *request = NULL;
	char target[LB_PLAN_TARGET_BYTES], what[LB_PLAN_TARGET_BYTES + 8], id[LB_UUID_TEXT_BYTES];
	int r;

	snprintf(what, sizeof(what), "plan %.64s", call->params[0]);
	lb_plan_target(call->params[0], target);
	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_plan_get(site->db, call->params[0], &plan);
	if (r == 0)
		r = lb_job_check_free(site, target, what);
	if (r == 0)
		r = make_request(plan, body, members, &request);
	if (r == 0)
		r = lb_job_submit(site, kind, target, request, call->peer.name, id);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_event(site, strcmp(kind, "plan-failover") == 0 ? "warning" : "info", call->params[0], "%s ordered by %s",
		 kind, call->peer.name);
	reply->json = json_pack("{s:s,s:s}", "job", id, "name", call->params[0]);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_api_plan_test(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-test", NULL, reply);
}

int lb_api_plan_failover(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-failover", NULL, reply);
}

int lb_api_plan_commit(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-commit", NULL, reply);
}

int lb_api_plan_reprotect(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-reprotect", of_reprotect, reply);
}

int lb_api_plan_failback(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-failback", of_failback, reply);
}

int lb_api_plan_home(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-failback-commit", of_failback_commit, reply);
}

int lb_api_plan_cleanup(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return order(arg, call, "plan-cleanup", NULL, reply);
}

/* What it waits for: the job and the action. -ENOENT when it waits for nobody. */
static int find_waiting(struct lb_site *site, const char *plan, char job[LB_UUID_TEXT_BYTES],
			char action[LB_PLAN_ACTION_BYTES], json_t **ret_waiting)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *result = NULL;
	char target[LB_PLAN_TARGET_BYTES];
	json_t *waiting;
	int r;

	r = lb_db_query(site->db, &rows, "SELECT id, result FROM job WHERE target = ? AND ended_ns IS NULL", "s",
			lb_plan_target(plan, target));
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	result = r > 0 ? lb_db_json(rows, 1) : NULL;
	waiting = json_object_get(result, "waiting");
	if (!json_is_object(waiting))
		return lb_fail(
			-ENOENT,
			"plan %.64s waits for nobody's confirmation; `lifeboat plan show %.64s` tells where it is",
			plan, plan);
	snprintf(job, LB_UUID_TEXT_BYTES, "%s", lb_db_text(rows, 0));
	r = lb_json_get_text(waiting, "action", action, LB_PLAN_ACTION_BYTES);
	if (r == 0)
		*ret_waiting = json_incref(waiting);
	return r;
}

int lb_api_plan_confirm(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *body = NULL, *plan = NULL, *waiting = NULL;
	char job[LB_UUID_TEXT_BYTES], action[LB_PLAN_ACTION_BYTES];
	const char *named = NULL;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_api_optional_str(body, "action", &named);
	if (r == 0)
		r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_plan_get(site->db, call->params[0], &plan);
	if (r == 0)
		r = find_waiting(site, call->params[0], job, action, &waiting);
	if (r < 0)
		return r;
	if (named != NULL && strcmp(named, action) != 0)
		return lb_fail(-ESTALE, "plan %.64s does not wait for %.40s, but for %s", call->params[0], named,
			       action);
	r = lb_db_run(site->db, "INSERT OR IGNORE INTO plan_confirmation (job, action, who, time_ns) VALUES (?,?,?,?)",
		      "sssi", job, action, call->peer.name, lb_now_ns(site->env));
	if (r == 0)
		r = lb_job_wake(site, job);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:s,s:s,s:O}", "job", job, "name", call->params[0], "confirmed", waiting);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
