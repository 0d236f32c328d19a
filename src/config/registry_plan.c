/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/plans.h"
#include "config/registry.h"
#include "fabric/hook.h"
#include "vault/catalog.h"

#define TOLD_MAX 8 /* of what is missing */

int lb_reg_plan_get(struct lb_db *db, const char *name, json_t **ret_plan)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	json_t *plan;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT body FROM plan WHERE name = ?", "s", name);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-ENOENT, "there is no recovery plan \"%.80s\"; `lifeboat plan list` shows them", name);
	plan = lb_db_json(rows, 0);
	if (plan == NULL)
		return lb_fail(-EBADMSG,
			       "recovery plan %s is damaged in the database; `lifeboat plan update` replaces it", name);
	*ret_plan = plan;
	return 0;
}

int lb_reg_plan_put(struct lb_db *db, const json_t *plan, bool must_be_new, int64_t now_ns)
{
	const char *name = json_string_value(json_object_get(plan, "name"));
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t there = 0, n = 0;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_get_int(db, &there, "SELECT count(*) FROM plan WHERE name = ?", "s", name);
	if (r == 0)
		r = lb_db_get_int(db, &n, "SELECT count(*) FROM plan", "");
	if (r < 0)
		return r;
	if (must_be_new && there > 0)
		return lb_fail(-EEXIST, "there is a recovery plan %s already; `lifeboat plan update` changes it", name);
	if (!must_be_new && there == 0)
		return lb_fail(-ENOENT, "there is no recovery plan %s; `lifeboat plan create` makes it", name);
	if (there == 0 && n >= LB_PLANS_MAX)
		return lb_fail(-ENOSPC, "there are %d recovery plans already", LB_PLANS_MAX);
	r = lb_db_run(db,
		      "INSERT INTO plan (name, body, updated_ns) VALUES (?,?,?) ON CONFLICT(name) DO UPDATE SET"
		      " body = excluded.body, updated_ns = excluded.updated_ns",
		      "sji", name, plan, now_ns);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_reg_plan_remove(struct lb_db *db, const char *name)
{
	int64_t changes;
	int r;

	r = lb_db_run_changes(db, &changes, "DELETE FROM plan WHERE name = ?", "s", name);
	if (r < 0)
		return r;
	return changes == 0
		       ? lb_fail(-ENOENT, "there is no recovery plan \"%.80s\"; `lifeboat plan list` shows them", name)
		       : 0;
}

int lb_reg_plans(struct lb_db *db, int (*fn)(void *arg, const json_t *plan), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT body FROM plan ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		_cleanup_json_ json_t *plan = lb_db_json(rows, 0);

		r = plan == NULL ? lb_fail(-EBADMSG, "a recovery plan in the database is damaged") : fn(arg, plan);
	}
	return r;
}

/* ---- whether it can be done ---------------------------------------------------------------------------- */

struct missing {
	struct lb_site *site;
	struct lb_catalog_item *item;
	char names[512];
	unsigned int n;
};

static void note(struct missing *m, const char *name)
{
	size_t used = strlen(m->names);

	if (m->n++ < TOLD_MAX)
		snprintf(m->names + used, sizeof(m->names) - used, "%s%s", used > 0 ? ", " : "", name);
}

static int look_for_machine(void *arg, size_t group, const json_t *machine)
{
	struct missing *m = arg;
	const char *name = json_string_value(json_object_get(machine, "machine"));
	char double_name[LB_MACHINE_NAME_BYTES];
	int r;

	(void)group;
	r = lb_plan_double(machine, true, double_name);
	if (r < 0)
		return r;
	r = lb_catalog_find(m->site->vault, name, m->item);
	if (r == -ENOENT)
		note(m, name);
	return r == -ENOENT ? 0 : r;
}

int lb_plan_check_scripts(struct lb_site *site, const json_t *plan)
{
	static const char *const lists[] = {"before", "after"};
	char group[LB_PLAN_GROUP_NAME_BYTES];
	const json_t *action;
	size_t k;
	int r;

	for (size_t i = 0; i < lb_plan_groups(plan) * 2; i++) {
		json_array_foreach(json_object_get(lb_plan_group(plan, i / 2), lists[i % 2]), k, action)
		{
			const char *script = json_string_value(json_object_get(action, "script"));

			r = script != NULL ? lb_hook_check(site->settings.hook_folder, script) : 0;
			if (r < 0)
				return lb_wrap(r, "%s", lb_plan_group_name(plan, i / 2, group));
		}
	}
	return 0;
}

int lb_plan_check(struct lb_site *site, const json_t *plan)
{
	struct missing m = {.site = site, .item = malloc(sizeof(*m.item))};
	int r;

	if (m.item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_plan_each(plan, look_for_machine, &m);
	free(m.item);
	if (r < 0)
		return r;
	if (m.n > 0)
		return lb_fail(-ENOENT, "the vault has no machine %s%s; `lifeboat machine list` shows them", m.names,
			       m.n > TOLD_MAX ? ", ..." : "");
	return lb_plan_check_scripts(site, plan);
}
