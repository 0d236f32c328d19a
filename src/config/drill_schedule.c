/* SPDX-License-Identifier: Apache-2.0 */
/* What is due, what is over its time, what was left behind. Called by one thread. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "config/drills.h"
#include "config/failovers.h"
#include "config/plans.h"
#include "config/registry.h"
#include "fabric/check.h"

#define DRILL_SUFFIX "-drill"
#define CLEAN_AGAIN_NS (60 * LB_NS_PER_S)

/* ---- schedules ------------------------------------------------------------------------------------------------- */

int lb_drills_copy(struct lb_db *db, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT target, body, next_ns, made_by FROM drill_schedule ORDER BY target", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		json_t *body = lb_db_json(rows, 1);
		json_t *one = json_pack("{s:s,s:o,s:I,s:s}", "target", lb_db_text(rows, 0), "body",
					body != NULL ? body : json_object(), "next_ns", (json_int_t)lb_db_int(rows, 2),
					"made_by", lb_db_text(rows, 3));

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy")
							 : 0;
	}
	return r;
}

int lb_drills_restore(struct lb_db *db, const json_t *list)
{
	const char *target, *made_by;
	const json_t *one;
	int64_t next_ns;
	size_t i;
	int r = 0;

	json_array_foreach(list, i, one)
	{
		r = i < LB_DRILL_SCHEDULES_MAX ? lb_json_get_str(one, "target", &target) : -E2BIG;
		r = r < 0 ? r : lb_json_get_str(one, "made_by", &made_by);
		r = r < 0 ? r : lb_json_get_i64(one, "next_ns", &next_ns);
		r = r < 0 ? r
			  : lb_db_run(db,
				      "INSERT INTO drill_schedule (target, body, next_ns, made_by) VALUES (?,?,?,?)",
				      "sjis", target, json_object_get(one, "body"), next_ns, made_by);
		if (r < 0)
			return r;
	}
	return 0;
}

static int order_machine(struct lb_site *site, const char *name, const json_t *body, const char *by)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *order = json_deep_copy(body), *request = NULL;
	char double_name[LB_VM_NAME_BYTES], id[LB_UUID_TEXT_BYTES];
	int r;

	r = order == NULL ? lb_fail(-ENOMEM, "out of memory for a drill") : lb_json_set_str(order, "machine", name);
	r = r < 0 ? r : lb_drill_request(order, &request, double_name);
	r = r < 0 ? r : lb_drill_set_deadline(site, request);
	r = r < 0 ? r : lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_job_check_free(site, double_name, double_name);
	r = r < 0 ? r : lb_job_submit(site, "drill", double_name, request, by, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int order_plan(struct lb_site *site, const char *name, const json_t *body, const char *by)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *plan = NULL, *request = json_deep_copy(body);
	char target[LB_PLAN_TARGET_BYTES], id[LB_UUID_TEXT_BYTES];
	int r;

	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a drill");
	lb_plan_target(name, target);
	r = lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_reg_plan_get(site->db, name, &plan);
	r = r < 0 ? r : lb_job_check_free(site, target, target);
	if (r == 0 && json_object_set(request, "plan", plan) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a drill");
	r = r < 0 ? r : lb_job_submit(site, "plan-drill", target, request, by, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

/* Times that were missed are not made up for: one drill now, the next at its time. */
static int64_t next_after(int64_t next_ns, int64_t every_s, int64_t now_ns)
{
	int64_t every_ns = every_s * LB_NS_PER_S;

	return next_ns + ((now_ns - next_ns) / every_ns + 1) * every_ns;
}

static int take_due(struct lb_site *site, char target[LB_PLAN_TARGET_BYTES + 8], json_t **ret_body, char by[128])
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *body = NULL;
	int64_t now_ns = lb_now_ns(site->env), next_ns, every_s;
	int r;

	r = lb_db_begin(site->db, &txn);
	r = r < 0 ? r
		  : lb_db_query(site->db, &rows,
				"SELECT target, body, next_ns, made_by FROM drill_schedule WHERE next_ns <= ? ORDER BY "
				"next_ns LIMIT 1",
				"i", now_ns);
	r = r < 0 ? r : lb_db_next(site->db, rows);
	if (r <= 0)
		return r;
	snprintf(target, LB_PLAN_TARGET_BYTES + 8, "%s", lb_db_text(rows, 0));
	body = lb_db_json(rows, 1);
	next_ns = lb_db_int(rows, 2);
	snprintf(by, 128, "schedule of %s", lb_db_text(rows, 3));
	every_s = LB_MAX(json_integer_value(json_object_get(body, "every_s")), (json_int_t)LB_DRILL_EVERY_S_MIN);
	r = lb_db_run(site->db, "UPDATE drill_schedule SET next_ns = ? WHERE target = ?", "is",
		      next_after(next_ns, every_s, now_ns), target);
	sqlite3_finalize(lb_steal_ptr(rows));
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r < 0)
		return r;
	*ret_body = lb_steal_ptr(body);
	return 1;
}

static void order_due(struct lb_site *site)
{
	char target[LB_PLAN_TARGET_BYTES + 8], by[128];
	int r;

	for (unsigned int i = 0; i < LB_DRILL_SCHEDULES_MAX; i++) {
		_cleanup_json_ json_t *body = NULL;
		const json_t *request;
		const char *name;

		r = take_due(site, target, &body, by);
		if (r < 0)
			lb_warning("the drills' schedule can't be read: %s", lb_err_text());
		if (r <= 0)
			return;
		request = json_object_get(body, "request");
		name = strchr(target, ':') != NULL ? strchr(target, ':') + 1 : target;
		r = strncmp(target, "plan:", 5) == 0 ? order_plan(site, name, request, by)
						     : order_machine(site, name, request, by);
		if (r < 0)
			lb_event(site, "warning", name, "its scheduled drill was not begun: %s", lb_err_text());
	}
}

/* ---- what is over its time -------------------------------------------------------------------------------------- */

static void stop_overdue(struct lb_site *site)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *names = json_array();
	int64_t now_ns = lb_now_ns(site->env);
	const json_t *name;
	size_t i;
	int r;

	{
		LB_DB_SCOPE(site->db);
		r = lb_db_query(
			site->db, &rows,
			"SELECT target, request FROM job WHERE kind = 'drill' AND ended_ns IS NULL AND created_ns < ?",
			"i", now_ns - LB_DRILL_LIMIT_S_MIN * LB_NS_PER_S);
		while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
			_cleanup_json_ json_t *request = lb_db_json(rows, 1);

			if (json_integer_value(json_object_get(request, "deadline_ns")) < now_ns)
				json_array_append_new(names, json_string(lb_db_text(rows, 0)));
			r = 0;
		}
	}
	json_array_foreach(names, i, name)
	{
		r = lb_failover_kill(site->env, site->settings.vm_folder, json_string_value(name));
		if (r < 0)
			lb_warning("double %s of a drill is over its time and can't be turned off: %s",
				   json_string_value(name), lb_err_text());
	}
}

/* ---- what was left behind ------------------------------------------------------------------------------------------
 */

static int collect_left(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	size_t length = strlen(report->vm_name), suffix = strlen(DRILL_SUFFIX);

	(void)state;
	if (report->kind != LB_FAILOVER_TEST || length <= suffix ||
	    strcmp(report->vm_name + length - suffix, DRILL_SUFFIX) != 0)
		return 0;
	return json_array_append_new(arg, json_string(report->vm_name)) < 0 ? -ENOMEM : 0;
}

/* Its job could not remove it, or was lost with the database. */
static void remove_left(struct lb_site *site)
{
	_cleanup_json_ json_t *left = json_array(), *request = json_object();
	char id[LB_UUID_TEXT_BYTES];
	const json_t *one;
	size_t i;

	if (lb_failover_list(site->env, site->settings.vm_folder, collect_left, left) < 0) {
		lb_err_clear();
		return;
	}
	json_array_foreach(left, i, one)
	{
		const char *name = json_string_value(one);
		int64_t busy = 1;

		LB_DB_SCOPE(site->db);
		if (lb_db_get_int(site->db, &busy,
				  "SELECT count(*) FROM job WHERE target = ? AND (ended_ns IS NULL OR ended_ns > ?)",
				  "si", name, lb_now_ns(site->env) - CLEAN_AGAIN_NS) < 0 ||
		    busy > 0)
			continue;
		if (lb_job_submit(site, "cleanup", name, request, "drills", id) == 0)
			lb_event(site, "info", name, "a drill had left its double behind: it is being removed");
	}
}

void lb_drills_tick(struct lb_site *site)
{
	order_due(site);
	stop_overdue(site);
	remove_left(site);
}
