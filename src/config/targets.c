/* SPDX-License-Identifier: Apache-2.0 */
#include "config/targets.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/catalog.h"

#define OPEN "state IN ('ordered', 'running', 'reached')"
#define HOLDS "kind IN ('follow', 'finish', 'back')" /* disks, while it is open */

static const char *const kinds[] = {"check", "follow", "finish", "back", "boot", "halt", "drop", "ready"};
/* What a newer order takes over from the one that it replaces, unless it says them itself. */
static const char *const inherited[] = {"to", "some", "overwrite", "undo_bytes", "undo_points"};

struct ordering {
	struct lb_site *site;
	const struct lb_targets_order *order;
	char server[LB_UUID_TEXT_BYTES], machine[LB_UUID_TEXT_BYTES];
	json_t *body;
};

static bool is(const struct ordering *o, const char *kind)
{
	return strcmp(o->order->kind, kind) == 0;
}

/* It is the machine that is meant, and not its disks. */
static bool is_power(const struct ordering *o)
{
	return is(o, "boot") || is(o, "halt") || is(o, "ready");
}

/* ---- what may be ordered ------------------------------------------------------------------------------- */

static int find_machine(struct ordering *o)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	int r;

	r = lb_reg_machine_find(o->site->db, o->order->machine, &m);
	if (r == 0)
		memcpy(o->machine, m.id, sizeof(o->machine));
	if (r != -ENOENT)
		return r;
	/* not enrolled here, but the vault may have its journal */
	r = item == NULL ? lb_fail(-ENOMEM, "out of memory") : lb_catalog_find(o->site->vault, o->order->machine, item);
	if (r == 0)
		lb_uuid_format(&item->machine, o->machine);
	return r;
}

static int check_to(const json_t *to)
{
	const char *disk;
	json_t *path;

	if (json_is_string(to))
		return strcmp(json_string_value(to), "auto") == 0
			       ? 0
			       : lb_fail(-EINVAL, "\"to\" is {DISK: PATH, ...} or \"auto\"");
	if (!json_is_object(to) || json_object_size(to) == 0 || json_object_size(to) > LB_HRL_DISKS_MAX)
		return lb_fail(-EINVAL, "\"to\" is {DISK: PATH, ...} of 1 to %d disks, or \"auto\"", LB_HRL_DISKS_MAX);
	json_object_foreach((json_t *)to, disk, path)
	{
		if (!json_is_string(path) || json_string_value(path)[0] != '/' || json_string_length(path) > 1000)
			return lb_fail(-EINVAL, "where disk %.60s goes is an absolute path", disk);
	}
	return 0;
}

static int check_number(const json_t *body, const char *member)
{
	uint64_t value;

	return json_object_get(body, member) == NULL ? 0 : lb_json_get_u64(body, member, &value);
}

static int check_boot(const json_t *body)
{
	const char *domain = json_string_value(json_object_get(body, "domain")),
		   *hook = json_string_value(json_object_get(body, "hook"));

	if ((domain == NULL) == (hook == NULL))
		return lb_fail(-EINVAL, "what is meant? Give a libvirt domain or a hook, one of both");
	return 0;
}

static int check_body(const struct ordering *o)
{
	static const char *const numbers[] = {"undo_bytes", "undo_points", "epoch", "seq", "points"};
	bool disks = !is_power(o) && !is(o, "drop");
	const json_t *to = json_object_get(o->body, "to");
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(numbers); i++)
		r = check_number(o->body, numbers[i]);
	if (r < 0)
		return lb_wrap(-EINVAL, "order");
	if (is_power(o))
		return check_boot(o->body);
	if (disks && to == NULL)
		return lb_fail(-EINVAL, "where to? Nothing of %s follows there yet: name its disks", o->order->machine);
	return disks ? check_to(to) : 0;
}

/* ---- beside what is under way --------------------------------------------------------------------------- */

static int inherit(struct ordering *o)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_json_ json_t *old = NULL;
	int r;

	if (json_object_get(o->body, "to") != NULL || is_power(o) || is(o, "drop"))
		return 0;
	r = lb_db_query(o->site->db, &rows,
			"SELECT body FROM target_order WHERE server = ? AND machine = ? AND " HOLDS
			" ORDER BY made_ns DESC, rowid DESC LIMIT 1",
			"ss", o->server, o->machine);
	if (r == 0)
		r = lb_db_next(o->site->db, rows);
	if (r <= 0)
		return r;
	old = lb_db_json(rows, 0);
	for (size_t i = 0; i < LB_ARRAY_LEN(inherited); i++) {
		json_t *value = json_object_get(old, inherited[i]);

		if (value != NULL && json_object_get(o->body, inherited[i]) == NULL &&
		    json_object_set(o->body, inherited[i], value) < 0)
			return lb_fail(-ENOMEM, "out of memory for an order");
	}
	return 0;
}

static int refuse_path(const struct ordering *o, const json_t *other_body, const char *other)
{
	json_t *to = json_object_get(o->body, "to"), *theirs = json_object_get(other_body, "to"), *path, *their_path;
	const char *disk, *their_disk;

	json_object_foreach(to, disk, path) json_object_foreach(theirs, their_disk, their_path)
	{
		if (json_equal(path, their_path))
			return lb_fail(-EBUSY,
				       "%s is disk %s of machine %s there, which has an order under way: `lifeboat "
				       "server show` tells which",
				       json_string_value(path), their_disk, other);
	}
	return 0;
}

/* A disk is one machine's; what only looks or starts finds nobody at work. */
static int check_beside(struct ordering *o)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	r = lb_db_query(o->site->db, &rows,
			"SELECT machine, kind, body FROM target_order WHERE server = ? AND " OPEN " AND " HOLDS, "s",
			o->server);
	while (r == 0 && (r = lb_db_next(o->site->db, rows)) == 1) {
		_cleanup_json_ json_t *body = lb_db_json(rows, 2);
		const char *machine = lb_db_text(rows, 0);

		if (strcmp(machine, o->machine) != 0)
			r = refuse_path(o, body, machine);
		else if (is(o, "check") || is_power(o))
			r = lb_fail(-EBUSY,
				    "its disks are being written there (order %s); `lifeboat failback finish %s` or "
				    "`lifeboat failback drop %s` comes first",
				    lb_db_text(rows, 1), o->order->machine, o->order->machine);
		else
			r = 0;
	}
	return r;
}

static int write_order(struct ordering *o, const char *key, const char *made_by, char id[LB_UUID_TEXT_BYTES])
{
	struct lb_db *db = o->site->db;
	int64_t now_ns = lb_now_ns(o->site->env);
	int r;

	r = lb_db_run(db,
		      "UPDATE target_order SET state = 'replaced', changed_ns = ? WHERE server = ? AND machine = ? "
		      "AND " OPEN,
		      "iss", now_ns, o->server, o->machine);
	if (r == 0)
		r = lb_site_uuid(o->site, id);
	if (r == 0)
		r = lb_db_run(
			db,
			"INSERT INTO target_order (id, key, server, machine, kind, body, state, made_by, made_ns, "
			"changed_ns) VALUES (?,?,?,?,?,?,'ordered',?,?,?)",
			"sssssjsii", id, key, o->server, o->machine, o->order->kind, o->body, made_by, now_ns, now_ns);
	if (r == 0)
		r = lb_db_run(db,
			      "DELETE FROM target_order WHERE id IN (SELECT id FROM target_order WHERE NOT " OPEN
			      " ORDER BY changed_ns DESC LIMIT -1 OFFSET ?)",
			      "i", (int64_t)LB_TARGETS_ORDERS_KEPT_MAX);
	return r;
}

/* 1: this key was put before. */
static int find_key(struct lb_db *db, const char *key, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	r = lb_db_query(db, &rows, "SELECT id FROM target_order WHERE key = ?", "s", key);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r > 0)
		snprintf(id, LB_UUID_TEXT_BYTES, "%s", lb_db_text(rows, 0));
	return r;
}

static int put(struct ordering *o, const char *key, const char *made_by, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_(lb_targets_server_clear) struct lb_targets_server server = {0};
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = lb_db_begin(o->site->db, &txn);
	if (r == 0)
		r = find_key(o->site->db, key, id);
	if (r != 0)
		return r < 0 ? r : 0;
	r = lb_targets_find(o->site->db, o->order->server, &server);
	if (r < 0)
		return r;
	memcpy(o->server, server.id, sizeof(o->server));
	r = inherit(o);
	if (r == 0)
		r = check_body(o);
	if (r == 0)
		r = check_beside(o);
	if (r == 0)
		r = write_order(o, key, made_by, id);
	return r < 0 ? r : lb_db_commit(&txn);
}

static int check_kind(const char *kind)
{
	for (size_t i = 0; i < LB_ARRAY_LEN(kinds); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return 0;
	return lb_fail(
		-EINVAL,
		"a target server can check, follow, finish, go back, boot, halt, drop or be ready, and knows no order "
		"\"%.40s\"",
		kind);
}

int lb_targets_order(struct lb_site *site, const struct lb_targets_order *order, const char *key, const char *made_by,
		     char ret_id[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *body = order->body != NULL ? json_deep_copy(order->body) : json_object();
	struct ordering o = {.site = site, .order = order, .body = body};
	char id[LB_UUID_TEXT_BYTES];
	int r;

	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	r = check_kind(order->kind);
	if (r == 0)
		r = find_machine(&o);
	if (r == 0)
		r = put(&o, key, made_by, id);
	if (r == 0)
		memcpy(ret_id, id, sizeof(id));
	return r;
}

/* ---- what became of it ------------------------------------------------------------------------------------ */

void lb_targets_state_clear(struct lb_targets_state *s)
{
	json_decref(s->report);
	s->report = NULL;
}

int lb_targets_state(struct lb_site *site, const char *id, struct lb_targets_state *ret_state)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	struct lb_targets_state s = {0};
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT target_server.name, kind, state, changed_ns, seen_ns, target_order.report FROM "
			"target_order JOIN target_server ON target_server.id = server WHERE target_order.id = ?",
			"s", id);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-ENOENT, "there is no order %.40s of a target server", id);
	snprintf(s.server, sizeof(s.server), "%s", lb_db_text(rows, 0));
	snprintf(s.kind, sizeof(s.kind), "%s", lb_db_text(rows, 1));
	snprintf(s.state, sizeof(s.state), "%s", lb_db_text(rows, 2));
	s.changed_ns = lb_db_int(rows, 3);
	s.seen_ns = lb_db_int(rows, 4);
	s.report = lb_db_null(rows, 5) ? json_object() : lb_db_json(rows, 5);
	*ret_state = s;
	return 0;
}

int lb_targets_withdraw(struct lb_site *site, const char *id)
{
	return lb_db_run(site->db, "UPDATE target_order SET state = 'replaced', changed_ns = ? WHERE id = ? AND " OPEN,
			 "is", lb_now_ns(site->env), id);
}

int lb_targets_withdraw_all(struct lb_site *site, const char *machine)
{
	return lb_db_run(site->db,
			 "UPDATE target_order SET state = 'replaced', changed_ns = ? WHERE machine = ? AND " OPEN, "is",
			 lb_now_ns(site->env), machine);
}

int lb_targets_booted(struct lb_site *site, const char *machine, bool *ret_booted)
{
	int64_t n = 0;
	int r;

	r = lb_db_get_int(site->db, &n, "SELECT count(*) FROM target_order WHERE machine = ? AND kind = 'boot'", "s",
			  machine);
	if (r == 0)
		*ret_booted = n > 0;
	return r;
}
