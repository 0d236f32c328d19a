/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"

#define POLICIES_MAX 1000

/* The policy, and what only the registry knows of it. */
static int print(struct lb_site *site, const struct lb_policy *policy, json_t **ret_object)
{
	_cleanup_json_ json_t *object = NULL;
	char back[LB_POLICY_NAME_BYTES + sizeof(LB_POLICY_FAILBACK_SUFFIX)];
	int64_t version;
	int r;

	snprintf(back, sizeof(back), "%s" LB_POLICY_FAILBACK_SUFFIX, policy->name);
	r = lb_reg_policy_version(site->db, policy->name, &version);
	if (r == 0)
		r = lb_policy_print(policy, &object);
	if (r < 0)
		return r;
	if (json_object_set_new(object, "failback_policy",
				lb_policy_is_failback(policy->name) ? json_null() : json_string(back)) < 0 ||
	    json_object_set_new(object, "version", json_integer(version)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a policy");
	*ret_object = lb_steal_ptr(object);
	return 0;
}

static int append(void *arg, const struct lb_policy *policy)
{
	void **args = arg;
	json_t *one;
	int r;

	r = print(args[0], policy, &one);
	if (r < 0)
		return r;
	return json_array_append_new(args[1], one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

int lb_api_policy_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	void *args[] = {site, list};
	int r;

	(void)call;
	r = lb_reg_policies(site->db, append, args);
	return r < 0 ? r : lb_api_reply_list(reply, "policies", lb_steal_ptr(list));
}

int lb_api_policy_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	struct lb_policy policy;
	int r;

	r = lb_reg_policy_get(site->db, call->params[0], &policy);
	return r < 0 ? r : print(site, &policy, &reply->json);
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

/* A change that names the version it was made from is refused when another operator was there in between. */
static int check_version(struct lb_site *site, const char *name, json_t *body)
{
	int64_t version = 0, wanted = 0;
	int r;

	/* what an answer carries may come back; neither is a setting */
	json_object_del(body, "failback_policy");
	if (json_object_get(body, "version") == NULL)
		return 0;
	r = lb_json_get_i64(body, "version", &wanted);
	if (r == 0)
		r = lb_reg_policy_version(site->db, name, &version);
	if (r < 0)
		return r == -EBADMSG ? -EINVAL : r;
	json_object_del(body, "version");
	if (version != wanted)
		return lb_fail(-ESTALE,
			       "policy %s was changed by someone else: it is at version %lld, not %lld; look at it "
			       "again (`lifeboat policy show %s`), then repeat your change",
			       name, (long long)version, (long long)wanted, name);
	return 0;
}

static int check_zone(struct lb_site *site, const struct lb_policy *policy)
{
	struct lb_zone zone;

	return lb_zone_find(site->env, policy->bandwidth.time_zone, lb_now_ns(site->env) / LB_NS_PER_S, &zone);
}

static int store(struct lb_site *site, const char *name, json_t *body, struct lb_policy *ret_policy)
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
		r = check_version(site, name, body);
	if (r == 0)
		r = merge(site, name, body, ret_policy);
	if (r == 0)
		r = check_zone(site, ret_policy);
	if (r == 0)
		r = lb_reg_policy_put(site->db, ret_policy, lb_now_ns(site->env));
	if (r == 0)
		r = lb_reg_policy_failback(site->db, ret_policy, lb_now_ns(site->env));
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
	return print(site, &policy, &reply->json);
}
