/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "config/registry.h"

#define SELECT                                                                                                         \
	"SELECT id, name, hosts, port, local, created_ns, seen_ns,"                                                    \
	" (SELECT count(*) FROM machine WHERE machine.process = process.id AND machine.enabled) AS machines, "         \
	"temporary FROM "                                                                                              \
	"process "

static void read_row(lb_db_rows *rows, struct lb_reg_process *p)
{
	memset(p, 0, sizeof(*p));
	snprintf(p->id, sizeof(p->id), "%s", lb_db_text(rows, 0));
	snprintf(p->name, sizeof(p->name), "%s", lb_db_text(rows, 1));
	snprintf(p->hosts, sizeof(p->hosts), "%s", lb_db_text(rows, 2));
	p->port = (uint16_t)lb_db_int(rows, 3);
	p->local = lb_db_int(rows, 4) != 0;
	p->created_ns = lb_db_int(rows, 5);
	p->seen_ns = lb_db_int(rows, 6);
	p->machines = lb_db_int(rows, 7);
	p->temporary = lb_db_int(rows, 8) != 0;
}

int lb_reg_process_find(struct lb_db *db, const char *name_or_id, struct lb_reg_process *ret_process)
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
		return lb_fail(-ENOENT, "there is no process server \"%.80s\"; `lifeboat server list` shows them",
			       name_or_id);
	read_row(rows, ret_process);
	return 0;
}

int lb_reg_processes(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_process *process), void *arg)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, SELECT "ORDER BY name", "");
	while (r == 0 && (r = lb_db_next(db, rows)) == 1) {
		struct lb_reg_process p;

		read_row(rows, &p);
		r = fn(arg, &p);
	}
	return r;
}

int lb_reg_process_put(struct lb_db *db, const struct lb_reg_process *p)
{
	int r;

	r = lb_db_run(
		db,
		"INSERT INTO process (id, name, hosts, port, local, created_ns, seen_ns, temporary) VALUES "
		"(?,?,?,?,?,?,?,?)"
		" ON CONFLICT(id) DO UPDATE SET name = excluded.name, hosts = excluded.hosts, port = excluded.port,"
		" local = excluded.local, seen_ns = excluded.seen_ns",
		"sssiiiii", p->id, p->name, p->hosts, (int64_t)p->port, (int64_t)p->local, p->created_ns, p->seen_ns,
		(int64_t)p->temporary);
	return r == -EEXIST ? lb_fail(r, "there is another process server \"%s\"", p->name) : r;
}

int lb_reg_process_remove(struct lb_db *db, const char *id)
{
	return lb_db_run(db, "DELETE FROM process WHERE id = ?", "s", id);
}

int lb_reg_process_choose(struct lb_db *db, int64_t alive_since_ns, const char *except,
			  struct lb_reg_process *ret_process)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows,
			SELECT
			"WHERE id <> ? AND temporary = 0 ORDER BY seen_ns >= ? DESC, machines + (SELECT count(*) FROM "
			"job WHERE kind = "
			"'move' AND state IN ('queued', 'running') AND json_extract(request, '$.to') = process.id),"
			" local DESC, name LIMIT 1",
			"si", except, alive_since_ns);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r < 0)
		return r;
	if (r == 0)
		return lb_fail(-ENOENT,
			       "there is no process server; `lifeboat server add` makes the token for one, or set "
			       "process_server = yes here");
	read_row(rows, ret_process);
	return 0;
}
