/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"

static int read_policy(lb_db_rows *rows, struct lb_policy *ret_policy)
{
	_cleanup_json_ json_t *body = lb_db_json(rows, 0);

	if (body == NULL)
		return lb_fail(-EBADMSG, "a policy in the database is damaged");
	return lb_policy_parse(body, false, ret_policy);
}

int lb_reg_policy_get(struct lb_db *db, const char *name, struct lb_policy *ret_policy)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT body FROM policy WHERE name = ?", "s", name);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-ENOENT, "there is no policy \"%.80s\"; `lifeboat policy list` shows them", name);
	return read_policy(rows, ret_policy);
}

int lb_reg_policy_put(struct lb_db *db, const struct lb_policy *policy, int64_t now_ns)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_policy_print(policy, &body);
	if (r < 0)
		return r;
	return lb_db_run(db,
			 "INSERT INTO policy (name, body, updated_ns) VALUES (?,?,?) ON CONFLICT(name) DO UPDATE SET"
			 " body = excluded.body, updated_ns = excluded.updated_ns, version = version + 1",
			 "sji", policy->name, body, now_ns);
}

int lb_reg_policy_version(struct lb_db *db, const char *name, int64_t *ret_version)
{
	return lb_db_get_int(db, ret_version, "SELECT ifnull((SELECT version FROM policy WHERE name = ?), 0)", "s",
			     name);
}

bool lb_policy_is_failback(const char *name)
{
	size_t length = strlen(name), suffix = strlen(LB_POLICY_FAILBACK_SUFFIX);

	return length > suffix && strcmp(name + length - suffix, LB_POLICY_FAILBACK_SUFFIX) == 0;
}

int lb_reg_policy_failback(struct lb_db *db, const struct lb_policy *policy, int64_t now_ns)
{
	struct lb_policy back = *policy;
	_cleanup_json_ json_t *body = NULL;
	int r;

	if (lb_policy_is_failback(policy->name))
		return 0;
	if (strlen(policy->name) + strlen(LB_POLICY_FAILBACK_SUFFIX) >= sizeof(back.name))
		return lb_fail(-EINVAL, "policy: a name of at most %zu characters leaves room for its \"%s\"",
			       sizeof(back.name) - 1 - strlen(LB_POLICY_FAILBACK_SUFFIX), LB_POLICY_FAILBACK_SUFFIX);
	snprintf(back.name, sizeof(back.name), "%s" LB_POLICY_FAILBACK_SUFFIX, policy->name);
	r = lb_policy_print(&back, &body);
	if (r < 0)
		return r;
	return lb_db_run(db, "INSERT OR IGNORE INTO policy (name, body, updated_ns) VALUES (?,?,?)", "sji", back.name,
			 body, now_ns);
}

int lb_reg_policies(struct lb_db *db, int (*fn)(void *arg, const struct lb_policy *policy), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT body FROM policy ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		struct lb_policy policy;

		r = read_policy(rows, &policy);
		if (r == 0)
			r = fn(arg, &policy);
	}
	return r;
}

int lb_reg_policy_init(struct lb_db *db, int64_t now_ns)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_policy_print(&lb_policy_default, &body);
	if (r < 0)
		return r;
	r = lb_db_run(db, "INSERT OR IGNORE INTO policy (name, body, updated_ns) VALUES (?,?,?)", "sji",
		      lb_policy_default.name, body, now_ns);
	return r < 0 ? r : lb_reg_policy_failback(db, &lb_policy_default, now_ns);
}
