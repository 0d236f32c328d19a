/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a coordinator's word to a point: it is remembered, and written into the vault when the vault holds the journals
 * of all members up to their marks. Until then there is no such point.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/flush.h"
#include "config/groups.h"
#include "config/point_orders.h"
#include "vault/points.h"
#include "vault/shared.h"

#define POLL_NS (200 * LB_NS_PER_MS)

static pthread_mutex_t settle_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- what coordinators tell
 * -------------------------------------------------------------------------------------------- */

static int read_members(const json_t *outcome, struct lb_shared_point *p)
{
	const json_t *list = json_object_get(outcome, "members"), *one;
	size_t i;
	int r = 0;

	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > LB_SHARED_MEMBERS_MAX)
		return lb_fail(-EBADMSG, "\"members\" is not a list of 1 to %d", LB_SHARED_MEMBERS_MAX);
	json_array_foreach(list, i, one)
	{
		struct lb_shared_member *m = &p->members[i];

		if (r == 0)
			r = lb_json_get_uuid(one, "machine", &m->machine);
		if (r == 0)
			r = lb_json_get_u64(one, "epoch", &m->position.epoch);
		if (r == 0)
			r = lb_json_get_u64(one, "seq", &m->position.seq);
		if (r == 0)
			r = lb_json_get_i64(one, "frozen_ns", &m->frozen_ns);
	}
	p->n_members = (unsigned int)json_array_size(list);
	return r;
}

/* All of the group as it is now, and nobody else: a member that came or went in mid-point voids it. */
static int check_members(struct lb_site *site, const struct lb_reg_group *g, const struct lb_shared_point *p)
{
	int64_t n, theirs = 0, is = 0;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_db_get_int(site->db, &n, "SELECT count(*) FROM group_member WHERE grp = ?", "s", g->id);
	for (unsigned int i = 0; i < p->n_members && r == 0; i++) {
		lb_uuid_format(&p->members[i].machine, id);
		r = lb_db_get_int(site->db, &is, "SELECT count(*) FROM group_member WHERE grp = ? AND machine = ?",
				  "ss", g->id, id);
		theirs += is;
	}
	if (r == 0 && (theirs != n || n != (int64_t)p->n_members))
		return lb_fail(-EINVAL, "the point is not of all members of group %s", g->name);
	return r;
}

static int keep_pending(struct lb_site *site, const char *id, const struct lb_reg_group *g, const json_t *outcome)
{
	int r;

	r = lb_db_run(site->db,
		      "INSERT OR IGNORE INTO shared_point (id, grp, state, body, made_ns) VALUES (?,?,'pending',?,?)",
		      "ssji", id, g->id, outcome, lb_now_ns(site->env));
	if (r < 0)
		return r;
	return lb_db_run(
		site->db,
		"DELETE FROM shared_point WHERE state != 'pending' AND id NOT IN (SELECT id FROM shared_point ORDER BY "
		"made_ns DESC LIMIT ?)",
		"i", (int64_t)LB_GROUP_POINTS_MAX);
}

static int answer_order(struct lb_site *site, const struct lb_reg_group *g, const json_t *outcome)
{
	int64_t generation;
	int r = lb_json_get_i64(outcome, "generation", &generation);

	if (r < 0 || generation == 0)
		return r;
	return lb_db_run(site->db,
			 "UPDATE group_order SET result = ? WHERE grp = ? AND generation = ? AND result IS NULL", "jsi",
			 outcome, g->id, generation);
}

int lb_group_point_take(struct lb_site *site, const char *machine, const json_t *outcome)
{
	struct lb_shared_point p = {0};
	struct lb_reg_group g;
	const char *group, *id, *text = NULL;
	int64_t version;
	bool ok, app;
	int r;

	if ((r = lb_json_get_str(outcome, "group", &group)) < 0 || (r = lb_json_get_str(outcome, "point", &id)) < 0 ||
	    (r = lb_json_get_i64(outcome, "version", &version)) < 0 || (r = lb_json_get_bool(outcome, "ok", &ok)) < 0 ||
	    (r = lb_json_get_bool(outcome, "app", &app)) < 0 || (r = lb_json_get_uuid(outcome, "point", &p.id)) < 0 ||
	    (r = lb_json_get_str(outcome, "text", &text)) < 0)
		return r;
	r = lb_reg_group_of(site->db, machine, &g);
	if (r == -ENOENT || (r == 0 && strcmp(g.id, group) != 0))
		return lb_fail(-EACCES, "the machine is not in that replication group");
	if (r < 0)
		return r;
	if (ok && version != g.version)
		return lb_fail(-EINVAL, "the members of group %s have changed while the point was made", g.name);
	if (ok) {
		r = read_members(outcome, &p);
		if (r == 0)
			r = check_members(site, &g, &p);
		if (r == 0)
			r = keep_pending(site, id, &g, outcome);
	} else {
		lb_event(site, "warning", g.name, "no shared%s recovery point was made: %s",
			 app ? " application-consistent" : "", text);
	}
	return r < 0 ? r : answer_order(site, &g, outcome);
}

/* ---- into the vault
 * --------------------------------------------------------------------------------------------------- */

static bool all_in_vault(struct lb_site *site, const struct lb_shared_point *p)
{
	char id[LB_UUID_TEXT_BYTES];

	for (unsigned int i = 0; i < p->n_members; i++) {
		lb_uuid_format(&p->members[i].machine, id);
		if (!lb_point_in_vault(site, id, p->members[i].position.epoch, p->members[i].position.seq))
			return false;
	}
	return true;
}

static int set_state(struct lb_site *site, const char *id, const char *state)
{
	return lb_db_run(site->db, "UPDATE shared_point SET state = ? WHERE id = ? AND state = 'pending'", "ss", state,
			 id);
}

/* Clocks that disagree prune nothing. */
static int add_to_vault(struct lb_site *site, const struct lb_shared_point *p)
{
	struct lb_retention retention;
	char group[LB_UUID_TEXT_BYTES];
	int64_t now_ns = 0;
	bool prunes;
	int r;

	lb_uuid_format(&p->group, group);
	r = lb_group_retention(site->db, group, &retention);
	if (r < 0)
		return r;
	r = lb_retention_now(site->store, &now_ns);
	prunes = r == 0;
	if (r == -EAGAIN)
		lb_err_clear();
	else if (r < 0)
		return r;
	return lb_shared_add(site->vault, p, prunes ? &retention : NULL, now_ns);
}

static int publish(struct lb_site *site, const char *id_text, const struct lb_shared_point *p)
{
	char machine[LB_UUID_TEXT_BYTES];
	int64_t longest_ns = 0;
	int r;

	r = add_to_vault(site, p);
	if (r == -ESTALE) {
		lb_event(site, "warning", p->group_name, "a shared recovery point came to nothing: %s", lb_err_text());
		lb_err_clear();
		return set_state(site, id_text, "failed");
	}
	for (unsigned int i = 0; i < p->n_members && r == 0; i++) {
		lb_uuid_format(&p->members[i].machine, machine);
		r = lb_point_note_put(site, machine, p->members[i].position.epoch, p->members[i].position.seq,
				      p->members[i].frozen_ns, id_text);
		longest_ns = LB_MAX(longest_ns, p->members[i].frozen_ns);
	}
	if (r == 0)
		r = set_state(site, id_text, "there");
	return r;
}

static int settle_one(struct lb_site *site, const char *id, const char *group, const json_t *body, int64_t made_ns)
{
	struct lb_shared_point p = {.time_ns = made_ns};
	struct lb_reg_group g;
	int r;

	r = lb_reg_group_find(site->db, group, &g);
	if (r == -ENOENT)
		return set_state(site, id, "failed");
	if (r == 0)
		r = lb_json_get_uuid(body, "point", &p.id);
	if (r == 0)
		r = lb_uuid_parse(group, &p.group);
	if (r == 0)
		r = lb_json_get_bool(body, "app", &p.app);
	if (r == 0)
		r = read_members(body, &p);
	if (r < 0)
		return r;
	snprintf(p.group_name, sizeof(p.group_name), "%s", g.name);
	if (all_in_vault(site, &p))
		return publish(site, id, &p);
	if (lb_now_ns(site->env) - made_ns < LB_GROUP_VAULT_S * LB_NS_PER_S)
		return 0;
	lb_event(site, "warning", g.name,
		 "a shared recovery point came to nothing: not all members' journals reached the vault within %d s",
		 LB_GROUP_VAULT_S);
	return set_state(site, id, "failed");
}

static int list_pending(struct lb_site *site, json_t *pending)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT id, grp, body, made_ns FROM shared_point WHERE state = 'pending' ORDER BY made_ns", "");
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		json_t *one = json_pack("{s:s,s:s,s:o,s:I}", "id", lb_db_text(rows, 0), "group", lb_db_text(rows, 1),
					"body", lb_db_json(rows, 2), "made_ns", (json_int_t)lb_db_int(rows, 3));

		r = json_array_append_new(pending, one) < 0 ? lb_fail(-ENOMEM, "out of memory for shared points") : 0;
	}
	return r;
}

int lb_group_points_settle(struct lb_site *site)
{
	_cleanup_json_ json_t *pending = json_array();
	const json_t *one;
	size_t i;
	int r;

	LB_LOCK_SCOPE(&settle_lock);
	r = list_pending(site, pending);
	json_array_foreach(pending, i, one)
	{
		if (r == 0)
			r = settle_one(site, json_string_value(json_object_get(one, "id")),
				       json_string_value(json_object_get(one, "group")), json_object_get(one, "body"),
				       json_integer_value(json_object_get(one, "made_ns")));
	}
	return r;
}

int lb_group_points_json(struct lb_site *site, const char *group, json_t **ret_list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *list = json_array();
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(
		site->db, &rows,
		"SELECT id, state, body, made_ns FROM shared_point WHERE grp = ? ORDER BY made_ns DESC LIMIT 1000", "s",
		group);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		_cleanup_json_ json_t *body = lb_db_json(rows, 2);
		json_t *p = json_pack("{s:s,s:s,s:O?,s:I,s:O?,s:O?}", "id", lb_db_text(rows, 0), "state",
				      lb_db_text(rows, 1), "app", json_object_get(body, "app"), "made_ns",
				      (json_int_t)lb_db_int(rows, 3), "frozen_ns", json_object_get(body, "frozen_ns"),
				      "members", json_object_get(body, "members"));

		r = json_array_append_new(list, p) < 0 ? lb_fail(-ENOMEM, "out of memory for shared points") : 0;
	}
	if (r == 0)
		*ret_list = lb_steal_ptr(list);
	return r;
}

/* ---- the job
 * ------------------------------------------------------------------------------------------------------------ */

static int ask(struct lb_job *job, bool app)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_db *db = job->site->db;
	int64_t n, now_ns = lb_now_ns(job->site->env);
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_get_int(db, &n, "SELECT count(*) FROM group_order WHERE grp = ? AND job = ?", "ss",
				  job->target, job->id);
	if (r == 0 && n == 0)
		r = lb_db_run(
			db,
			"INSERT INTO group_order (grp, generation, app, job, result) VALUES (?,?,?,?,NULL) ON "
			"CONFLICT(grp)"
			" DO UPDATE SET generation = max(generation + 1, excluded.generation), app = excluded.app,"
			" job = excluded.job, result = NULL",
			"siis", job->target, now_ns, (int64_t)app, job->id);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int one_json(struct lb_site *site, const char *sql, const char *a, const char *b, json_t **ret_json)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, sql, "ss", a, b);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	*ret_json = r == 1 ? lb_db_json(rows, 0) : NULL;
	return 0;
}

static int pause_job(struct lb_job *job, int64_t until_ns, const char *late)
{
	struct lb_env *env = job->site->env;

	if (lb_mono_ns(env) > until_ns)
		return lb_fail(-ETIMEDOUT, "%s", late);
	env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	return lb_job_progress(job, 0);
}

static int wait_coordinator(struct lb_job *job, json_t **ret_outcome)
{
	int64_t until_ns = lb_mono_ns(job->site->env) + LB_POINT_AGENT_S * LB_NS_PER_S;
	int r;

	for (;;) {
		r = one_json(job->site, "SELECT result FROM group_order WHERE grp = ? AND job = ?", job->target,
			     job->id, ret_outcome);
		if (r < 0 || *ret_outcome != NULL)
			return r;
		r = pause_job(job, until_ns,
			      "no member of the group answered in time; do their agents reach one another on "
			      "their group port (20004)?");
		if (r < 0) {
			(void)lb_db_run(job->site->db, "UPDATE group_order SET result = '{}' WHERE grp = ? AND job = ?",
					"ss", job->target, job->id);
			return r;
		}
	}
}

static int wait_vault(struct lb_job *job, const char *point)
{
	int64_t until_ns = lb_mono_ns(job->site->env) + (LB_GROUP_VAULT_S + 60) * LB_NS_PER_S, n = 0;
	int r = 0;

	while (r == 0) {
		r = lb_db_get_int(job->site->db, &n,
				  "SELECT count(*) FROM shared_point WHERE id = ? AND state = 'there'", "s", point);
		if (r == 0 && n > 0)
			return 0;
		if (r == 0)
			r = lb_db_get_int(job->site->db, &n,
					  "SELECT count(*) FROM shared_point WHERE id = ? AND state = 'pending'", "s",
					  point);
		if (r == 0 && n == 0)
			return lb_fail(-ETIMEDOUT, "the journals of not all members reached the vault in time");
		if (r == 0)
			r = pause_job(job, until_ns, "the journals of not all members reached the vault in time");
	}
	return r;
}

/* The same name at every member. */
static int name_it(struct lb_job *job, const char *point_id, const json_t *outcome, const char *name)
{
	const json_t *one;
	char text[64];
	size_t i;
	int r = 0;

	snprintf(text, sizeof(text), LB_SHARED_PREFIX "%s", point_id);
	json_array_foreach(json_object_get(outcome, "members"), i, one)
	{
		struct lb_point point;
		struct lb_uuid machine;

		if (r == 0)
			r = lb_json_get_uuid(one, "machine", &machine);
		if (r == 0)
			r = lb_point_find(job->site->vault, &machine, text, &point);
		if (r == 0)
			r = lb_point_pin(job->site->vault, &machine, &point, name);
		if (r == -EEXIST)
			r = lb_fail(r, "a member has a point \"%s\" already", name);
	}
	return r;
}

static void flush_members(struct lb_site *site, const json_t *outcome)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(outcome, "members"), i, one)
	{
		const char *machine = json_string_value(json_object_get(one, "machine"));

		if (machine != NULL)
			lb_flush_order(site, machine);
	}
}

int lb_group_point_job_run(struct lb_job *job)
{
	_cleanup_json_ json_t *outcome = NULL;
	const char *name = json_string_value(json_object_get(job->request, "name")), *point = NULL, *text;
	int r;

	r = lb_job_step(job, "ask the group");
	if (r == 0)
		r = ask(job, json_is_true(json_object_get(job->request, "app")));
	if (r == 0)
		r = lb_job_step(job, "make the point");
	if (r == 0)
		r = wait_coordinator(job, &outcome);
	if (r < 0)
		return r;
	text = json_string_value(json_object_get(outcome, "text"));
	if (!json_is_true(json_object_get(outcome, "ok")))
		return lb_fail(-EREMOTEIO, "%s", text != NULL && text[0] != '\0' ? text : "no shared point was made");
	json_object_update(job->result, outcome);
	r = lb_json_get_str(outcome, "point", &point);
	if (r == 0)
		r = lb_job_step(job, "bring all journals into the vault");
	if (r == 0)
		flush_members(job->site, outcome);
	if (r == 0)
		r = wait_vault(job, point);
	if (r == 0 && name != NULL)
		r = name_it(job, point, outcome, name);
	return r;
}
