/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "config/registry.h"

#define COLUMNS                                                                                                        \
	"id, name, hardware, policy, process, enabled, fenced, resync_generation, disks, inventory, created_ns, "      \
	"enabled_ns,"                                                                                                  \
	" seen_ns, proven_ns, proven_point_ns"
#define SELECT_MACHINE "SELECT " COLUMNS ", proven_warning FROM machine"

void lb_reg_machine_clear(struct lb_reg_machine *m)
{
	json_decref(m->disks);
	json_decref(m->inventory);
	m->disks = m->inventory = NULL;
}

static void copy_text(char *to, size_t room, const char *text)
{
	snprintf(to, room, "%s", text != NULL ? text : "");
}

static void read_row(lb_db_rows *rows, struct lb_reg_machine *m)
{
	memset(m, 0, sizeof(*m));
	copy_text(m->id, sizeof(m->id), lb_db_text(rows, 0));
	copy_text(m->name, sizeof(m->name), lb_db_text(rows, 1));
	copy_text(m->hardware, sizeof(m->hardware), lb_db_text(rows, 2));
	copy_text(m->policy, sizeof(m->policy), lb_db_text(rows, 3));
	copy_text(m->process, sizeof(m->process), lb_db_text(rows, 4));
	m->enabled = lb_db_int(rows, 5) != 0;
	m->fenced = lb_db_int(rows, 6) != 0;
	m->resync_generation = lb_db_int(rows, 7);
	m->disks = lb_db_json(rows, 8);
	m->inventory = lb_db_json(rows, 9);
	m->created_ns = lb_db_int(rows, 10);
	m->enabled_ns = lb_db_int(rows, 11);
	m->seen_ns = lb_db_int(rows, 12);
	m->proven_ns = lb_db_int(rows, 13);
	m->proven_point_ns = lb_db_int(rows, 14);
	copy_text(m->proven_warning, sizeof(m->proven_warning), lb_db_text(rows, 15));
	if (!json_is_array(m->disks)) {
		json_decref(m->disks);
		m->disks = json_array();
	}
}

static int find(struct lb_db *db, const char *sql, const char *value, struct lb_reg_machine *ret_machine)
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
	read_row(rows, ret_machine);
	return 0;
}

int lb_reg_machine_find(struct lb_db *db, const char *name_or_id, struct lb_reg_machine *ret_machine)
{
	struct lb_uuid uuid;
	int r;

	if (lb_uuid_parse(name_or_id, &uuid) == 0) {
		char id[LB_UUID_TEXT_BYTES];

		lb_uuid_format(&uuid, id); /* in lower case, as it is kept */
		r = find(db, SELECT_MACHINE " WHERE id = ?", id, ret_machine);
	} else {
		r = find(db, SELECT_MACHINE " WHERE name = ?", name_or_id, ret_machine);
	}
	if (r == -ENOENT)
		return lb_fail(r, "there is no machine \"%.80s\"; `lifeboat machine list` shows them", name_or_id);
	return r;
}

int lb_reg_machine_find_hardware(struct lb_db *db, const char *hardware, struct lb_reg_machine *ret_machine)
{
	int r = find(db, SELECT_MACHINE " WHERE hardware = ? LIMIT 1", hardware, ret_machine);

	return r == -ENOENT ? lb_fail(r, "no machine has this hardware") : r;
}

int lb_reg_machines(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_machine *machine), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, SELECT_MACHINE " ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m;

		read_row(rows, &m);
		r = fn(arg, &m);
	}
	return r;
}

int lb_reg_machine_put(struct lb_db *db, const struct lb_reg_machine *m)
{
	int r;

	r = lb_db_run(
		db,
		"INSERT INTO machine (" COLUMNS ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET"
		" name = excluded.name, hardware = excluded.hardware, policy = excluded.policy, process = "
		"excluded.process,"
		" enabled = excluded.enabled, fenced = excluded.fenced, resync_generation = excluded.resync_generation,"
		" disks = excluded.disks, inventory = excluded.inventory, enabled_ns = excluded.enabled_ns,"
		" seen_ns = excluded.seen_ns, proven_ns = excluded.proven_ns, proven_point_ns = "
		"excluded.proven_point_ns",
		"sssssiiijjiiiii", m->id, m->name, m->hardware, m->policy, m->process[0] != '\0' ? m->process : NULL,
		(int64_t)m->enabled, (int64_t)m->fenced, m->resync_generation, m->disks, m->inventory, m->created_ns,
		m->enabled_ns, m->seen_ns, m->proven_ns, m->proven_point_ns);
	return r == -EEXIST ? lb_fail(r, "there is another machine \"%s\"", m->name) : r;
}

int lb_reg_machine_proven(struct lb_db *db, const char *id, int64_t proven_ns, int64_t point_ns, const char *warning)
{
	return lb_db_run(db, "UPDATE machine SET proven_ns = ?, proven_point_ns = ?, proven_warning = ? WHERE id = ?",
			 "iiss", proven_ns, point_ns, warning, id);
}

int lb_reg_machine_remove(struct lb_db *db, const char *id)
{
	return lb_db_run(db, "DELETE FROM machine WHERE id = ?", "s", id);
}

int lb_reg_machine_fence(struct lb_db *db, const char *id, const char *reason, int64_t now_ns)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(db, &txn);
	if (r < 0)
		return r;
	r = lb_reg_machine_find(db, id, &m);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	m.fenced = true;
	r = lb_reg_machine_put(db, &m);
	if (r == 0)
		r = lb_reg_certs_revoke(db, m.id, NULL, reason, now_ns);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_reg_machine_unfence(struct lb_db *db, const char *id, const char *reason, bool new_hardware, int64_t now_ns)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(db, &txn);
	r = r < 0 ? r : lb_reg_machine_find(db, id, &m);
	if (r < 0 || !m.fenced)
		return r;
	m.fenced = false;
	m.resync_generation++;
	if (new_hardware)
		m.hardware[0] = '\0';
	r = lb_reg_machine_put(db, &m);
	r = r < 0 ? r : lb_reg_certs_reinstate(db, m.id, reason, now_ns);
	return r < 0 ? r : lb_db_commit(&txn);
}
