/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "config/api.h"
#include "config/drills.h"
#include "config/plans.h"
#include "fabric/check.h"
#include "fabric/hook.h"
#include "vault/catalog.h"

#define DRILLS_LISTED_MAX 500
#define DAY_S 86400

static int check_machine(struct lb_site *site, const char *name)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));

	return item == NULL ? lb_fail(-ENOMEM, "out of memory for a catalog entry")
			    : lb_catalog_find(site->vault, name, item);
}

static int check_script(struct lb_site *site, const json_t *request)
{
	const char *script = json_string_value(json_object_get(json_object_get(request, "check"), "script"));

	return script != NULL ? lb_hook_check(site->settings.hook_folder, script) : 0;
}

/* ---- one now ---------------------------------------------------------------------------------------------------- */

static int order_plan(struct lb_site *site, const struct lb_http_call *call, const char *name, const json_t *body,
		      char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *plan = NULL, *request = json_deep_copy(body), *check = NULL;
	char target[LB_PLAN_TARGET_BYTES];
	int r;

	lb_plan_target(name, target);
	r = lb_check_read(json_object_get(body, "check"), &check);
	r = r < 0 ? r : lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_reg_plan_get(site->db, name, &plan);
	r = r < 0 ? r : lb_job_check_free(site, target, target);
	if (r == 0 && (request == NULL || json_object_set(request, "plan", plan) < 0))
		r = lb_fail(-ENOMEM, "out of memory for an order");
	r = r < 0 ? r : lb_job_submit(site, "plan-drill", target, request, call->peer.name, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int order_machine(struct lb_site *site, const struct lb_http_call *call, const char *name, const json_t *body,
			 char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *request = NULL;
	char double_name[LB_VM_NAME_BYTES];
	int r;

	r = lb_drill_request(body, &request, double_name);
	r = r < 0 ? r : check_machine(site, name);
	r = r < 0 ? r : check_script(site, request);
	r = r < 0 ? r : lb_drill_set_deadline(site, request);
	r = r < 0 ? r : lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_job_check_free(site, double_name, double_name);
	r = r < 0 ? r : lb_job_submit(site, "drill", double_name, request, call->peer.name, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_api_drill_start(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	const char *machine = NULL, *plan = NULL;
	char id[LB_UUID_TEXT_BYTES] = "";
	int r;

	r = lb_api_body(call, &body);
	r = r < 0 ? r : lb_api_optional_str(body, "machine", &machine);
	r = r < 0 ? r : lb_api_optional_str(body, "plan", &plan);
	if (r == 0 && (machine == NULL) == (plan == NULL))
		r = lb_fail(-EINVAL, "a drill is of a \"machine\" or of a \"plan\"");
	if (r < 0)
		return r;
	r = machine != NULL ? order_machine(arg, call, machine, body, id) : order_plan(arg, call, plan, body, id);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:s,s:s}", "job", id, "name", machine != NULL ? machine : plan);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- what they found ------------------------------------------------------------------------------------------- */

static int append_row(lb_db_rows *rows, json_t *list)
{
	json_t *body = lb_db_json(rows, 1);

	if (body == NULL || lb_json_set_str(body, "id", lb_db_text(rows, 0)) < 0 ||
	    json_array_append_new(list, body) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	return 0;
}

int lb_api_drill_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	const char *machine = lb_http_query(call, "machine");
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(
		site->db, &rows,
		"SELECT id, body FROM drill WHERE ? IS NULL OR machine = ? OR json_extract(body, '$.machine_name') = ?"
		" ORDER BY started_ns DESC LIMIT ?",
		"sssi", machine, machine, machine, (int64_t)DRILLS_LISTED_MAX);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1)
		r = append_row(rows, list);
	return r < 0 ? r : lb_api_reply_list(reply, "drills", lb_steal_ptr(list));
}

static int find(struct lb_site *site, const char *id, json_t **ret_drill)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *list = json_array();
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT id, body FROM drill WHERE id = ?", "s", id);
	r = r < 0 ? r : lb_db_next(site->db, rows);
	if (r == 0)
		return lb_fail(-ENOENT, "there is no drill %.40s; `lifeboat drill list` shows them", id);
	r = r < 0 ? r : append_row(rows, list);
	if (r == 0)
		*ret_drill = json_incref(json_array_get(list, 0));
	return r;
}

int lb_api_drill_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return find(arg, call->params[0], &reply->json);
}

static int reply_file(struct lb_site *site, const char *id, const char *name, const char *type,
		      struct lb_http_reply *reply)
{
	char folder[PATH_MAX], path[PATH_MAX];
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	int r;

	r = lb_drill_folder(site, id, folder);
	r = r < 0 ? r : lb_site_path(path, folder, name);
	r = r < 0 ? r : lb_file_read(site->env, path, 64u << 20, &data, &size_bytes);
	if (r < 0)
		return r;
	reply->bytes = LB_BUF(64u << 20);
	reply->content_type = type;
	return lb_buf_append(&reply->bytes, data, size_bytes);
}

int lb_api_drill_screen(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *drill = NULL;
	const char *type;
	int r;

	/* an id of ours, and so no path */
	r = find(arg, call->params[0], &drill);
	if (r < 0)
		return r;
	type = json_string_value(json_object_get(drill, "screen"));
	if (type == NULL || type[0] == '\0')
		return lb_fail(-ENOENT, "drill %.40s has no picture of the screen", call->params[0]);
	return strcmp(type, "png") == 0
		       ? reply_file(arg, call->params[0], LB_PICTURE_SCREEN ".png", "image/png", reply)
		       : reply_file(arg, call->params[0], LB_PICTURE_SCREEN ".ppm", "image/x-portable-pixmap", reply);
}

int lb_api_drill_console(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *drill = NULL;
	int r;

	r = find(arg, call->params[0], &drill);
	return r < 0 ? r : reply_file(arg, call->params[0], LB_PICTURE_CONSOLE, "text/plain; charset=utf-8", reply);
}

/* ---- schedules ----------------------------------------------------------------------------------------------------
 */

/* "03:00", UTC -> seconds of the day; -1: at no time of its own. */
static int read_at(const json_t *body, int64_t *ret_at_s)
{
	const char *text = NULL;
	unsigned int hour, minute;
	char rest;
	int r;

	*ret_at_s = -1;
	r = lb_api_optional_str(body, "at", &text);
	if (r < 0 || text == NULL)
		return r;
	if (strlen(text) != 5 || sscanf(text, "%2u:%2u%c", &hour, &minute, &rest) != 2 || hour > 23 || minute > 59)
		return lb_fail(-EINVAL, "\"at\" is a time of the day in UTC, as 03:00, not \"%.40s\"", text);
	*ret_at_s = (int64_t)hour * 3600 + (int64_t)minute * 60;
	return 0;
}

static int64_t first_time(int64_t now_ns, int64_t at_s, int64_t every_s)
{
	int64_t now_s = now_ns / LB_NS_PER_S, next_s;

	if (at_s < 0)
		return now_ns + every_s * LB_NS_PER_S;
	next_s = now_s / DAY_S * DAY_S + at_s;
	return (next_s > now_s ? next_s : next_s + DAY_S) * LB_NS_PER_S;
}

static int schedule_of(const struct lb_http_call *call, char target[LB_PLAN_TARGET_BYTES + 8])
{
	if (strcmp(call->params[0], "machine") != 0 && strcmp(call->params[0], "plan") != 0)
		return lb_fail(-ENOENT, "drills are of a machine or of a plan, not of a \"%.20s\"", call->params[0]);
	snprintf(target, LB_PLAN_TARGET_BYTES + 8, "%.8s:%.64s", call->params[0], call->params[1]);
	return 0;
}

static int check_schedule(struct lb_site *site, const struct lb_http_call *call, const json_t *request)
{
	_cleanup_json_ json_t *full = NULL, *plan = NULL, *order = json_deep_copy(request);
	char double_name[LB_VM_NAME_BYTES];
	int r;

	if (order == NULL)
		return lb_fail(-EINVAL, "\"request\" is an object");
	r = strcmp(call->params[0], "plan") == 0 ? lb_reg_plan_get(site->db, call->params[1], &plan)
						 : check_machine(site, call->params[1]);
	r = r < 0 ? r : lb_json_set_str(order, "machine", plan != NULL ? "any" : call->params[1]);
	r = r < 0 ? r : lb_drill_request(order, &full, double_name);
	return r < 0 ? r : check_script(site, full);
}

int lb_api_drill_schedule(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL, *kept = NULL;
	char target[LB_PLAN_TARGET_BYTES + 8];
	int64_t at_s = -1, now_ns = lb_now_ns(site->env), next_ns, n = 0;
	uint64_t every_s = 0;
	json_t *request;
	int r;

	r = lb_api_body(call, &body);
	r = r < 0 ? r : schedule_of(call, target);
	r = r < 0 ? r : lb_json_get_u64(body, "every_s", &every_s);
	r = r < 0 ? r : read_at(body, &at_s);
	if (r == 0 && (every_s < LB_DRILL_EVERY_S_MIN || every_s > LB_DRILL_EVERY_S_MAX))
		r = lb_fail(-EINVAL, "a drill is scheduled every %d s to %u s", LB_DRILL_EVERY_S_MIN,
			    LB_DRILL_EVERY_S_MAX);
	if (r < 0)
		return r;
	request = json_object_get(body, "request");
	kept = json_pack("{s:I,s:O?,s:o}", "every_s", (json_int_t)every_s, "at", json_object_get(body, "at"), "request",
			 request != NULL ? json_incref(request) : json_object());
	r = kept == NULL ? lb_fail(-ENOMEM, "out of memory for a schedule")
			 : check_schedule(site, call, json_object_get(kept, "request"));
	if (r == 0)
		r = lb_db_get_int(site->db, &n, "SELECT count(*) FROM drill_schedule WHERE target <> ?", "s", target);
	if (r == 0 && n >= LB_DRILL_SCHEDULES_MAX)
		r = lb_fail(-ENOSPC, "%d drills are scheduled already", LB_DRILL_SCHEDULES_MAX);
	if (r < 0)
		return r;
	next_ns = first_time(now_ns, at_s, (int64_t)every_s);
	r = lb_db_run(site->db,
		      "INSERT INTO drill_schedule (target, body, next_ns, made_by) VALUES (?,?,?,?) ON "
		      "CONFLICT(target) DO UPDATE"
		      " SET body = excluded.body, next_ns = excluded.next_ns, made_by = excluded.made_by",
		      "sjis", target, kept, next_ns, call->peer.name);
	r = r < 0 ? r : lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", call->params[1], "drills scheduled by %s", call->peer.name);
	reply->json = json_pack("{s:s,s:s,s:I,s:O}", "kind", call->params[0], "name", call->params[1], "next_ns",
				(json_int_t)next_ns, "schedule", kept);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_api_drill_unschedule(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	char target[LB_PLAN_TARGET_BYTES + 8];
	int64_t changes = 0;
	int r;

	r = schedule_of(call, target);
	r = r < 0 ? r
		  : lb_db_run_changes(site->db, &changes, "DELETE FROM drill_schedule WHERE target = ?", "s", target);
	if (r == 0 && changes == 0)
		r = lb_fail(-ENOENT, "no drills are scheduled for %s; `lifeboat drill schedules` shows what is",
			    target);
	r = r < 0 ? r : lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", call->params[1], "drills no more scheduled, by %s", call->peer.name);
	reply->json = json_object();
	return 0;
}

int lb_api_drill_schedules(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	(void)call;
	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT target, body, next_ns, made_by FROM drill_schedule ORDER BY next_ns",
			"");
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		const char *target = lb_db_text(rows, 0), *colon = strchr(target, ':');
		json_t *body = lb_db_json(rows, 1);
		json_t *one = json_pack("{s:s%,s:s,s:I,s:s,s:o}", "kind", target, (size_t)(colon - target), "name",
					colon + 1, "next_ns", (json_int_t)lb_db_int(rows, 2), "made_by",
					lb_db_text(rows, 3), "schedule", body != NULL ? body : json_object());

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
	}
	return r < 0 ? r : lb_api_reply_list(reply, "schedules", lb_steal_ptr(list));
}
