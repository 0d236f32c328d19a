/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"

#define POLICIES_MAX 1000

static int append(void *arg, const struct lb_policy *policy)
{
	json_t *one;
	int r;

	r = lb_policy_print(policy, &one);
	if (r < 0)
		return r;
	return json_array_append_new(arg, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

int lb_api_policy_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	int r;

	(void)call;
	r = lb_reg_policies(site->db, append, list);
	return r < 0 ? r : lb_api_reply_list(reply, "policies", lb_steal_ptr(list));
}

int lb_api_policy_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	struct lb_policy policy;
	int r;

	r = lb_reg_policy_get(site->db, call->params[0], &policy);
	return r < 0 ? r : lb_policy_print(&policy, &reply->json);
}

/* What the body names changes; the rest stays, or is the default's for a new policy. */
static int merge(struct lb_site *site, const char *name, const json_t *body, struct lb_policy *ret_policy)
{
	_cleanup_json_ json_t *merged = NULL;
	struct lb_policy policy;
	int r;

	r = lb_name_check("policy", name);
	if (r < 0)
		return r;
	r = lb_reg_policy_get(site->db, name, &policy);
	if (r == -ENOENT) {
		policy = lb_policy_default;
		r = 0;
	}
	if (r == 0)
		r = lb_policy_print(&policy, &merged);
	if (r < 0)
		return r;
	if (json_object_update(merged, (json_t *)body) < 0 || lb_json_set_str(merged, "name", name) < 0)
		return lb_fail(-ENOMEM, "out of memory for a policy");
	return lb_policy_parse(merged, true, ret_policy);
}

static int store(struct lb_site *site, const char *name, const json_t *body, struct lb_policy *ret_policy)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t n;
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_db_get_int(site->db, &n, "SELECT count(*) FROM policy WHERE name <> ?", "s", name);
	if (r == 0 && n >= POLICIES_MAX)
		r = lb_fail(-ENOSPC, "there are %d policies already", POLICIES_MAX);
	if (r == 0)
		r = merge(site, name, body, ret_policy);
	if (r == 0)
		r = lb_reg_policy_put(site->db, ret_policy, lb_now_ns(site->env));
	return r < 0 ? r : lb_db_commit(&txn);
}

static int collect_id(void *arg, const struct lb_reg_machine *m)
{
	void **args = arg;

	if (!m->enabled || strcmp(m->policy, args[1]) != 0)
		return 0;
	return json_array_append_new(args[0], json_string(m->id)) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

/* The catalog entries tell the interval to who recovers without us. */
static int republish(struct lb_site *site, const char *policy)
{
	_cleanup_json_ json_t *ids = json_array();
	void *args[] = {ids, (void *)policy};
	const json_t *id;
	size_t i;
	int r;

	r = lb_reg_machines(site->db, collect_id, args);
	json_array_foreach(ids, i, id)
	{
		_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};

		if (r < 0)
			break;
		r = lb_reg_machine_find(site->db, json_string_value(id), &m);
		r = r == -ENOENT ? 0 : r < 0 ? r : lb_machine_publish(site, &m);
	}
	return r;
}

int lb_api_policy_put(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	struct lb_policy policy;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = store(site, call->params[0], body, &policy);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r == 0)
		r = republish(site, policy.name);
	if (r < 0)
		return r;
	lb_event(site, "info", policy.name, "policy changed by %s", call->peer.name);
	return lb_policy_print(&policy, &reply->json);
}
