/* SPDX-License-Identifier: Apache-2.0 */
/* Replication groups: made, changed, shown, and asked for points. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/groups.h"
#include "vault/shared.h"

static int reply_group(struct lb_site *site, const char *id, struct lb_http_reply *reply)
{
	struct lb_reg_group g;
	int r = lb_reg_group_find(site->db, id, &g);

	return r < 0 ? r : lb_group_json(site, &g, &reply->json);
}

static int read_interval(const json_t *body, const char *member, int64_t *value)
{
	int r;

	if (json_object_get(body, member) == NULL)
		return 0;
	r = lb_json_get_i64(body, member, value);
	if (r < 0)
		return r;
	if (*value != 0 && (*value < LB_GROUP_INTERVAL_S_MIN || *value > LB_GROUP_INTERVAL_S_MAX))
		return lb_fail(-EINVAL, "%s must be 0 (on demand) or from %d to %d", member, LB_GROUP_INTERVAL_S_MIN,
			       LB_GROUP_INTERVAL_S_MAX);
	return 0;
}

static int add_machine(struct lb_site *site, const char *group, const char *name_or_id)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_reg_machine_find(site->db, name_or_id, &m);
	if (r == 0)
		r = lb_reg_group_add(site->db, group, m.id);
	return r < 0 && r != -ENOENT ? lb_wrap(r, "machine %s", m.name) : r;
}

static int add_machines(struct lb_site *site, const char *group, const json_t *names)
{
	const json_t *one;
	size_t i;
	int r = 0;

	if (names != NULL && !json_is_array(names))
		return lb_fail(-EINVAL, "\"machines\" is not a list of names");
	json_array_foreach(names, i, one)
	{
		if (r == 0 && json_string_value(one) == NULL)
			r = lb_fail(-EINVAL, "\"machines\" is not a list of names");
		if (r == 0)
			r = add_machine(site, group, json_string_value(one));
	}
	return r;
}

int lb_api_group_create(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *body = NULL;
	struct lb_reg_group g = {.interval_s = LB_GROUP_INTERVAL_S_DEFAULT, .created_ns = lb_now_ns(site->env)};
	const char *name = "";
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "name", &name);
	if (r == 0)
		r = lb_name_check("replication group", name);
	if (r == 0)
		r = read_interval(body, "interval_s", &g.interval_s);
	if (r == 0)
		r = read_interval(body, "app_interval_s", &g.app_interval_s);
	if (r == 0)
		r = lb_site_uuid(site, g.id);
	if (r < 0)
		return r;
	snprintf(g.name, sizeof(g.name), "%s", name);
	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_group_put(site->db, &g);
	if (r == 0)
		r = add_machines(site, g.id, json_object_get(body, "machines"));
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", g.name, "replication group made by %s", call->peer.name);
	return reply_group(site, g.id, reply);
}

static int append(void *arg, const struct lb_reg_group *g)
{
	void **both = arg;
	json_t *one;
	int r = lb_group_json(both[0], g, &one);

	if (r < 0)
		return r;
	return json_array_append_new(both[1], one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

int lb_api_group_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	void *both[2] = {site, list};
	int r;

	(void)call;
	r = lb_reg_groups(site->db, append, both);
	return r < 0 ? r : lb_api_reply_list(reply, "groups", lb_steal_ptr(list));
}

int lb_api_group_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	json_t *points = NULL;
	char ladder[LB_LADDER_TEXT_BYTES];
	struct lb_retention retention;
	struct lb_reg_group g;
	int r;

	r = lb_reg_group_find(site->db, call->params[0], &g);
	if (r == 0)
		r = lb_group_retention(site->db, g.id, &retention);
	if (r == 0)
		r = lb_group_points_json(site, g.id, &points);
	if (r == 0)
		r = lb_group_json(site, &g, &reply->json);
	if (r == 0 &&
	    (json_object_set_new(reply->json, "points", points) < 0 ||
	     json_object_set_new(reply->json, "retention", json_string(lb_ladder_format(&retention.ladder, ladder))) <
		     0 ||
	     json_object_set_new(reply->json, "app_retention_days", json_integer(retention.app_s / (24 * 3600))) < 0))
		return lb_fail(-ENOMEM, "out of memory for an answer");
	if (r < 0)
		json_decref(points);
	return r;
}

int lb_api_group_set(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	struct lb_reg_group g;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_reg_group_find(site->db, call->params[0], &g);
	if (r == 0)
		r = read_interval(body, "interval_s", &g.interval_s);
	if (r == 0)
		r = read_interval(body, "app_interval_s", &g.app_interval_s);
	if (r == 0)
		r = lb_reg_group_put(site->db, &g);
	if (r == 0)
		r = lb_vault_copy_write(site);
	return r < 0 ? r : reply_group(site, g.id, reply);
}

int lb_api_group_delete(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	struct lb_reg_group g;
	struct lb_uuid id;
	int r;

	r = lb_reg_group_find(site->db, call->params[0], &g);
	if (r == 0)
		r = lb_uuid_parse(g.id, &id);
	if (r == 0)
		r = lb_shared_let_go(site->vault, &id);
	if (r == 0)
		r = lb_reg_group_delete(site->db, g.id);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", g.name, "replication group deleted by %s; its points stay", call->peer.name);
	reply->json = json_object();
	return 0;
}

static int change(struct lb_site *site, const struct lb_http_call *call, bool add, struct lb_http_reply *reply)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL;
	struct lb_reg_group g;
	const char *machine;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "machine", &machine);
	if (r == 0)
		r = lb_reg_group_find(site->db, call->params[0], &g);
	if (r == 0)
		r = lb_reg_machine_find(site->db, machine, &m);
	if (r < 0)
		return r;
	r = add ? lb_reg_group_add(site->db, g.id, m.id) : lb_reg_group_remove(site->db, g.id, m.id);
	if (r < 0)
		return lb_wrap(r, "machine %s", m.name);
	r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "info", m.name, "%s replication group %s by %s", add ? "added to" : "taken out of", g.name,
		 call->peer.name);
	return reply_group(site, g.id, reply);
}

int lb_api_group_add(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return change(arg, call, true, reply);
}

int lb_api_group_remove(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return change(arg, call, false, reply);
}

int lb_api_group_point(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL, *request = NULL;
	char job[LB_UUID_TEXT_BYTES];
	const char *name = NULL;
	struct lb_reg_group g;
	bool app = false;
	int64_t n = 0;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0 && json_object_get(body, "app") != NULL)
		r = lb_json_get_bool(body, "app", &app);
	if (r == 0)
		r = lb_api_optional_str(body, "name", &name);
	if (r == 0 && name != NULL)
		r = lb_name_check("point", name);
	if (r == 0)
		r = lb_reg_group_find(site->db, call->params[0], &g);
	if (r == 0)
		r = lb_db_get_int(site->db, &n, "SELECT count(*) FROM group_member WHERE grp = ?", "s", g.id);
	if (r < 0)
		return r;
	if (n == 0)
		return lb_fail(-EINVAL, "replication group %s has no machines; `lifeboat group add %s MACHINE`", g.name,
			       g.name);
	request = json_pack("{s:b,s:s?}", "app", app, "name", name);
	r = request == NULL ? lb_fail(-ENOMEM, "out of memory for a job")
			    : lb_job_submit(site, "group-point", g.id, request, call->peer.name, job);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:s,s:s}", "job", job, "group", g.name);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* What a coordinator tells. */
int lb_api_agent_group_point(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_group_point_take(site, call->peer.name, body);
	if (r < 0)
		return r;
	reply->json = json_object();
	return 0;
}
