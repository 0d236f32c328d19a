/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "config/targets.h"

#define SELECT                                                                                                         \
	"SELECT id, name, local, created_ns, seen_ns, report, (SELECT count(*) FROM target_order WHERE server = "      \
	"target_server.id AND state IN ('ordered', 'running', 'reached')) FROM target_server "

void lb_targets_server_clear(struct lb_targets_server *s)
{
	json_decref(s->report);
	s->report = NULL;
}

static void read_row(lb_db_rows *rows, struct lb_targets_server *s)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->id, sizeof(s->id), "%s", lb_db_text(rows, 0));
	snprintf(s->name, sizeof(s->name), "%s", lb_db_text(rows, 1));
	s->local = lb_db_int(rows, 2) != 0;
	s->created_ns = lb_db_int(rows, 3);
	s->seen_ns = lb_db_int(rows, 4);
	s->report = lb_db_null(rows, 5) ? NULL : lb_db_json(rows, 5);
	s->orders = lb_db_int(rows, 6);
}

int lb_targets_find(struct lb_db *db, const char *name_or_id, struct lb_targets_server *ret_server)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, SELECT "WHERE id = ? OR name = ?", "ss", name_or_id, name_or_id);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(
			-ENOENT,
			"there is no target server \"%.80s\"; `lifeboat server list` shows them, `lifeboat server "
			"add NAME --kind target` makes the token for one",
			name_or_id);
	read_row(rows, ret_server);
	return 0;
}

int lb_targets_each(struct lb_db *db, int (*fn)(void *arg, const struct lb_targets_server *server), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, SELECT "ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		_cleanup_(lb_targets_server_clear) struct lb_targets_server s = {0};

		read_row(rows, &s);
		r = fn(arg, &s);
	}
	return r;
}

int lb_targets_speaks(struct lb_site *site, const struct lb_targets_server *s)
{
	int64_t since_ns = lb_now_ns(site->env) - LB_TARGETS_LOST_S * LB_NS_PER_S;

	if (s->seen_ns >= since_ns)
		return 0;
	if (LB_MAX(s->created_ns, site->started_ns) >= since_ns)
		return lb_fail(-EAGAIN, "target server %s has not spoken yet", s->name);
	return lb_fail(-EHOSTDOWN,
		       "target server %s has not spoken for %d s: look at it, and at the link to it; on it, journalctl "
		       "-u lifeboat-target",
		       s->name, LB_TARGETS_LOST_S);
}

int lb_targets_put(struct lb_db *db, const struct lb_targets_server *s)
{
	int r;

	r = lb_db_run(db,
		      "INSERT INTO target_server (id, name, local, created_ns, seen_ns) VALUES (?,?,?,?,?)"
		      " ON CONFLICT(id) DO UPDATE SET name = excluded.name, local = excluded.local",
		      "ssiii", s->id, s->name, (int64_t)s->local, s->created_ns, s->seen_ns);
	return r == -EEXIST ? lb_fail(r, "there is another target server \"%s\"", s->name) : r;
}

/* In one transaction: an order that is given to it meanwhile would wait for ever. */
int lb_targets_remove(struct lb_site *site, const struct lb_targets_server *server)
{
	_cleanup_(lb_targets_server_clear) struct lb_targets_server now = {0};
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_targets_find(site->db, server->id, &now);
	if (r < 0)
		return r;
	if (now.local)
		return lb_fail(-EINVAL,
			       "target server %s is part of this host: set target_server = no in config.conf instead",
			       now.name);
	if (now.orders > 0)
		return lb_fail(
			-EBUSY,
			"target server %s has %lld orders (`lifeboat server show %s`); end them first: `lifeboat "
			"failback finish|drop MACHINE --target %s`",
			now.name, (long long)now.orders, now.name, now.name);
	r = lb_reg_certs_revoke(site->db, now.id, NULL, "target server removed", lb_now_ns(site->env));
	if (r == 0)
		r = lb_db_run(site->db, "DELETE FROM target_order WHERE server = ?", "s", now.id);
	if (r == 0)
		r = lb_db_run(site->db, "DELETE FROM target_server WHERE id = ?", "s", now.id);
	return r < 0 ? r : lb_db_commit(&txn);
}
