/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/groups.h"
#include "config/live.h"

#define COLUMNS "id, name, version, interval_s, app_interval_s, created_ns"

static void read_row(lb_db_rows *rows, struct lb_reg_group *g)
{
	*g = (struct lb_reg_group){.version = lb_db_int(rows, 2),
				   .interval_s = lb_db_int(rows, 3),
				   .app_interval_s = lb_db_int(rows, 4),
				   .created_ns = lb_db_int(rows, 5)};
	snprintf(g->id, sizeof(g->id), "%s", lb_db_text(rows, 0));
	snprintf(g->name, sizeof(g->name), "%s", lb_db_text(rows, 1));
}

static int find(struct lb_db *db, const char *sql, const char *value, struct lb_reg_group *ret_group)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, sql, "s", value);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	read_row(rows, ret_group);
	return 0;
}

int lb_reg_group_find(struct lb_db *db, const char *name_or_id, struct lb_reg_group *ret_group)
{
	int r = find(db, "SELECT " COLUMNS " FROM replication_group WHERE name = ?1 OR id = ?1", name_or_id, ret_group);

	if (r == -ENOENT)
		return lb_fail(r, "there is no replication group \"%.80s\"; `lifeboat group list` shows them",
			       name_or_id);
	return r;
}

int lb_reg_group_of(struct lb_db *db, const char *machine, struct lb_reg_group *ret_group)
{
	return find(db,
		    "SELECT " COLUMNS
		    " FROM replication_group WHERE id = (SELECT grp FROM group_member WHERE machine = ?)",
		    machine, ret_group);
}

int lb_reg_groups(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_group *group), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT " COLUMNS " FROM replication_group ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		struct lb_reg_group g;

		read_row(rows, &g);
		r = fn(arg, &g);
	}
	return r;
}

int lb_reg_group_put(struct lb_db *db, const struct lb_reg_group *g)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t n = 0;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_get_int(db, &n, "SELECT count(*) FROM replication_group WHERE id != ?", "s", g->id);
	if (r < 0)
		return r;
	if (n >= LB_GROUPS_MAX)
		return lb_fail(-ENOSPC, "there are %d replication groups already", LB_GROUPS_MAX);
	r = lb_db_run(db,
		      "INSERT INTO replication_group (" COLUMNS ") VALUES (?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET"
		      " interval_s = excluded.interval_s, app_interval_s = excluded.app_interval_s",
		      "ssiiii", g->id, g->name, g->version, g->interval_s, g->app_interval_s, g->created_ns);
	if (r == -EEXIST)
		return lb_fail(r, "there is another replication group \"%s\"", g->name);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int new_version(struct lb_db *db, const char *id)
{
	return lb_db_run(db, "UPDATE replication_group SET version = version + 1 WHERE id = ?", "s", id);
}

int lb_reg_group_delete(struct lb_db *db, const char *id)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_run(db, "DELETE FROM group_member WHERE grp = ?", "s", id);
	if (r == 0)
		r = lb_db_run(db, "DELETE FROM group_order WHERE grp = ?", "s", id);
	if (r == 0)
		r = lb_db_run(db, "DELETE FROM replication_group WHERE id = ?", "s", id);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_reg_group_add(struct lb_db *db, const char *id, const char *machine)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_reg_group other;
	int64_t n = 0;
	int r;

	r = lb_db_begin(db, &txn);
	if (r < 0)
		return r;
	r = lb_reg_group_of(db, machine, &other);
	if (r == 0)
		return lb_fail(-EEXIST,
			       "the machine is in replication group %s already; `lifeboat group remove %s` first",
			       other.name, other.name);
	if (r == -ENOENT)
		r = lb_db_get_int(db, &n, "SELECT count(*) FROM group_member WHERE grp = ?", "s", id);
	if (r < 0)
		return r;
	if (n >= LB_GROUP_SIZE_MAX)
		return lb_fail(-ENOSPC, "a replication group has at most %d machines", LB_GROUP_SIZE_MAX);
	r = lb_db_run(db, "INSERT INTO group_member (machine, grp) VALUES (?,?)", "ss", machine, id);
	if (r == 0)
		r = new_version(db, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_reg_group_remove(struct lb_db *db, const char *id, const char *machine)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t changed = 0;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_run_changes(db, &changed, "DELETE FROM group_member WHERE grp = ? AND machine = ?", "ss", id,
				      machine);
	if (r == 0 && changed == 0)
		return lb_fail(
			-ENOENT,
			"the machine is not in this replication group; `lifeboat group show` lists those that are");
	if (r == 0)
		r = new_version(db, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_reg_group_leave(struct lb_db *db, const char *machine)
{
	struct lb_reg_group g;
	int r = lb_reg_group_of(db, machine, &g);

	return r == -ENOENT ? 0 : r < 0 ? r : lb_reg_group_remove(db, g.id, machine);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------
 */

static int members_json(struct lb_site *site, const char *group, json_t **ret_list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *list = json_array();
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(
		site->db, &rows,
		"SELECT m.id, m.name FROM machine m JOIN group_member g ON g.machine = m.id WHERE g.grp = ? ORDER BY "
		"m.id",
		"s", group);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		char host[LB_LIVE_HOST_BYTES];
		uint16_t port;

		lb_live_reach_get(site->live, lb_db_text(rows, 0), host, &port);
		r = json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:i}", "id", lb_db_text(rows, 0), "name",
							  lb_db_text(rows, 1), "host", host, "port", (int)port)) < 0
			    ? lb_fail(-ENOMEM, "out of memory for a replication group")
			    : 0;
	}
	if (r == 0)
		*ret_list = lb_steal_ptr(list);
	return r;
}

static int order_json(struct lb_site *site, const char *group, json_t **ret_order)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT generation, app FROM group_order WHERE grp = ? AND result IS NULL",
			"s", group);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	*ret_order = r == 0 ? NULL
			    : json_pack("{s:I,s:b}", "generation", (json_int_t)lb_db_int(rows, 0), "app",
					lb_db_int(rows, 1) != 0);
	return 0;
}

int lb_group_json(struct lb_site *site, const struct lb_reg_group *g, json_t **ret_object)
{
	json_t *members = NULL, *order = NULL;
	int r;

	r = members_json(site, g->id, &members);
	if (r == 0)
		r = order_json(site, g->id, &order);
	if (r < 0) {
		json_decref(members);
		return r;
	}
	*ret_object = json_pack("{s:s,s:s,s:I,s:I,s:I,s:o,s:o?}", "id", g->id, "name", g->name, "version",
				(json_int_t)g->version, "interval_s", (json_int_t)g->interval_s, "app_interval_s",
				(json_int_t)g->app_interval_s, "members", members, "order", order);
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a replication group");
}

static bool is_longer(const struct lb_ladder *a, const struct lb_ladder *than)
{
	uint32_t a_s = a->rungs[a->n - 1].for_s, than_s = than->rungs[than->n - 1].for_s;

	return a_s > than_s || (a_s == than_s && a->rungs[0].for_s > than->rungs[0].for_s);
}

static int list_policies(struct lb_db *db, const char *group, json_t *names)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(
		db, &rows,
		"SELECT DISTINCT policy FROM machine WHERE id IN (SELECT machine FROM group_member WHERE grp = ?)"
		" ORDER BY policy",
		"s", group);
	while (r == 0 && (r = lb_db_next(db, rows)) == 1)
		r = json_array_append_new(names, json_string(lb_db_text(rows, 0))) < 0
			    ? lb_fail(-ENOMEM, "out of memory for policies")
			    : 0;
	return r;
}

int lb_group_retention(struct lb_db *db, const char *group, struct lb_retention *ret_retention)
{
	_cleanup_json_ json_t *names = json_array();
	struct lb_retention longest = lb_retention_default;
	const json_t *one;
	size_t i;
	int r;

	r = list_policies(db, group, names);
	json_array_foreach(names, i, one)
	{
		struct lb_policy policy;

		if (r < 0)
			break;
		r = lb_reg_policy_get(db, json_string_value(one), &policy);
		if (r == -ENOENT) {
			policy = lb_policy_default;
			r = 0;
		}
		if (r == 0 && (i == 0 || is_longer(&policy.retention, &longest.ladder)))
			longest.ladder = policy.retention;
		if (r == 0)
			longest.app_s = LB_MAX(longest.app_s, policy.app_retention_days * 24 * 3600);
	}
	if (r == 0)
		*ret_retention = longest;
	return r;
}

/* ---- the copy in the vault
 * -------------------------------------------------------------------------------------------- */

int lb_groups_copy(struct lb_db *db, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows,
			"SELECT " COLUMNS
			", ifnull((SELECT json_group_array(machine) FROM group_member WHERE grp = id), '[]')"
			" FROM replication_group ORDER BY name",
			"");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		json_t *one =
			json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:o}", "id", lb_db_text(rows, 0), "name",
				  lb_db_text(rows, 1), "version", (json_int_t)lb_db_int(rows, 2), "interval_s",
				  (json_int_t)lb_db_int(rows, 3), "app_interval_s", (json_int_t)lb_db_int(rows, 4),
				  "created_ns", (json_int_t)lb_db_int(rows, 5), "machines", lb_db_json(rows, 6));

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy")
							 : 0;
	}
	return r;
}

static int restore_one(struct lb_db *db, const json_t *j)
{
	struct lb_reg_group g = {0};
	const char *id, *name;
	const json_t *machine;
	size_t i;
	int r;

	if ((r = lb_json_get_str(j, "id", &id)) < 0 || (r = lb_json_get_str(j, "name", &name)) < 0 ||
	    (r = lb_json_get_i64(j, "version", &g.version)) < 0 ||
	    (r = lb_json_get_i64(j, "interval_s", &g.interval_s)) < 0 ||
	    (r = lb_json_get_i64(j, "app_interval_s", &g.app_interval_s)) < 0 ||
	    (r = lb_json_get_i64(j, "created_ns", &g.created_ns)) < 0)
		return r;
	snprintf(g.id, sizeof(g.id), "%s", id);
	snprintf(g.name, sizeof(g.name), "%s", name);
	r = lb_reg_group_put(db, &g);
	json_array_foreach(json_object_get(j, "machines"), i, machine)
	{
		const char *text = json_string_value(machine);

		if (r == 0 && text != NULL)
			r = lb_reg_group_add(db, g.id, text);
	}
	return r;
}

int lb_groups_restore(struct lb_db *db, const json_t *list)
{
	const json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach(list, i, one) if (r == 0) r = restore_one(db, one);
	return r;
}
