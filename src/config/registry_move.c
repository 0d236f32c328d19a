/* SPDX-License-Identifier: Apache-2.0 */
/* Moves of machines between process servers: what the one before is told of a machine, while it moves and after. */
#include <errno.h>

#include "base/err.h"
#include "config/registry.h"

#define HANDOVER "handover" /* the one it has takes nothing more and sends the rest */
#define OPENING "opening"   /* the other one has it and opens its journal; its agent stays where it was until then */
#define MOVED "moved"       /* the one it had may drop what its cache holds, as in the state before */

static int put(struct lb_db *db, const char *machine, const char *from, const char *state, int64_t now_ns)
{
	return lb_db_run(
		db,
		"INSERT INTO move (machine, from_process, state, changed_ns) VALUES (?,?,?,?) ON CONFLICT(machine) "
		"DO UPDATE SET from_process = excluded.from_process, state = excluded.state, changed_ns = "
		"excluded.changed_ns",
		"sssi", machine, from, state, now_ns);
}

int lb_reg_move_begin(struct lb_db *db, const char *machine, const char *from, int64_t now_ns)
{
	return put(db, machine, from, HANDOVER, now_ns);
}

int lb_reg_move_switch(struct lb_db *db, const char *machine, const char *from, int64_t now_ns)
{
	return put(db, machine, from, OPENING, now_ns);
}

int lb_reg_move_end(struct lb_db *db, const char *machine)
{
	return lb_db_run(db, "UPDATE move SET state = '" MOVED "' WHERE machine = ?", "s", machine);
}

int lb_reg_move_cancel(struct lb_db *db, const char *machine)
{
	return lb_db_run(db, "DELETE FROM move WHERE machine = ? AND state = '" HANDOVER "'", "s", machine);
}

int lb_reg_move_under_way(struct lb_db *db, const char *machine, bool *ret_under_way)
{
	int64_t n;
	int r;

	r = lb_db_get_int(db, &n, "SELECT count(*) FROM move WHERE machine = ? AND state = '" HANDOVER "'", "s",
			  machine);
	if (r == 0)
		*ret_under_way = n > 0;
	return r;
}

int lb_reg_moves_from(struct lb_db *db, const char *process, json_t **ret_machines)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	json_t *list = json_array();
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(
		db, &rows,
		"SELECT move.machine FROM move JOIN machine ON machine.id = move.machine WHERE move.state <> '" HANDOVER
		"' AND move.from_process = ? AND machine.process <> move.from_process",
		"s", process);
	while (r == 0 && (r = lb_db_next(db, rows)) == 1)
		r = json_array_append_new(list, json_string(lb_db_text(rows, 0))) < 0
			    ? lb_fail(-ENOMEM, "out of memory for a list of machines")
			    : 0;
	if (r < 0) {
		json_decref(list);
		return r;
	}
	*ret_machines = list;
	return 0;
}

int lb_reg_move_stand_in(struct lb_db *db, const char *machine, char process[LB_UUID_TEXT_BYTES])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, "SELECT from_process FROM move WHERE machine = ? AND state = '" OPENING "'", "s",
			machine);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r == 1)
		snprintf(process, LB_UUID_TEXT_BYTES, "%s", lb_db_text(rows, 0));
	return r < 0 ? r : 0;
}
