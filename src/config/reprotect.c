/* SPDX-License-Identifier: Apache-2.0 */
#include "config/reprotect.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/status.h"

#define COLUMNS "double, machine, name, back_name, back, key, process, state, request, job, made_ns"

void lb_reprotect_clear(struct lb_reprotect *p)
{
	json_decref(p->request);
	p->request = NULL;
}

bool lb_reprotect_landed(const struct lb_reprotect *p)
{
	return strcmp(p->state, LB_REPROTECT_LANDED) == 0 || strcmp(p->state, LB_REPROTECT_STARTED) == 0;
}

bool lb_reprotect_goes_home(const struct lb_reprotect *p)
{
	return strcmp(p->state, LB_REPROTECT_HOME) == 0 || lb_reprotect_landed(p);
}

static void copy(char *to, size_t room, const char *text)
{
	snprintf(to, room, "%s", text != NULL ? text : "");
}

static void read_row(lb_db_rows *rows, struct lb_reprotect *p)
{
	memset(p, 0, sizeof(*p));
	copy(p->double_name, sizeof(p->double_name), lb_db_text(rows, 0));
	copy(p->machine, sizeof(p->machine), lb_db_text(rows, 1));
	copy(p->name, sizeof(p->name), lb_db_text(rows, 2));
	copy(p->back_name, sizeof(p->back_name), lb_db_text(rows, 3));
	copy(p->back, sizeof(p->back), lb_db_text(rows, 4));
	copy(p->key, sizeof(p->key), lb_db_text(rows, 5));
	copy(p->process, sizeof(p->process), lb_db_text(rows, 6));
	copy(p->state, sizeof(p->state), lb_db_text(rows, 7));
	p->request = lb_db_json(rows, 8);
	copy(p->job, sizeof(p->job), lb_db_text(rows, 9));
	p->made_ns = lb_db_int(rows, 10);
}

static int find(struct lb_db *db, const char *where, const char *value, struct lb_reprotect *ret_reprotect)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	_cleanup_free_ char *sql = NULL;
	int r;

	if (asprintf(&sql, "SELECT " COLUMNS " FROM reprotect WHERE %s", where) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	LB_DB_SCOPE(db);
	r = lb_db_query(db, &rows, sql, "s", value);
	if (r == 0)
		r = lb_db_next(db, rows);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	read_row(rows, ret_reprotect);
	return 0;
}

int lb_reprotect_find(struct lb_db *db, const char *double_name, struct lb_reprotect *ret_reprotect)
{
	int r = find(db, "double = ?", double_name, ret_reprotect);

	return r == -ENOENT ? lb_fail(r, "%.64s is not reprotected", double_name) : r;
}

int lb_reprotect_of(struct lb_db *db, const char *machine, struct lb_reprotect *ret_reprotect)
{
	int r = find(db, "?1 IN (machine, back) ORDER BY made_ns DESC LIMIT 1", machine, ret_reprotect);

	return r == -ENOENT ? lb_fail(r, "no double of %.40s is reprotected", machine) : r;
}

int lb_reprotect_put(struct lb_db *db, const struct lb_reprotect *p)
{
	int r;

	r = lb_db_run(
		db,
		"INSERT INTO reprotect (" COLUMNS ") VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(double) DO UPDATE"
		" SET back = excluded.back, key = excluded.key, process = excluded.process, state = excluded.state,"
		" request = excluded.request, job = excluded.job",
		"ssssssssjsi", p->double_name, p->machine, p->name, p->back_name, p->back, p->key, p->process, p->state,
		p->request, p->job, p->made_ns);
	return r == -EEXIST ? lb_fail(r, "another double replicates back as %s already", p->back_name) : r;
}

int lb_reprotect_remove(struct lb_db *db, const char *double_name)
{
	return lb_db_run(db, "DELETE FROM reprotect WHERE double = ?", "s", double_name);
}

int lb_reprotect_wake(struct lb_site *site)
{
	_cleanup_json_ json_t *jobs = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	const json_t *one;
	size_t i;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT id FROM job WHERE kind = 'reprotect' AND state = 'waiting'", "");
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1)
		r = json_array_append_new(jobs, json_string(lb_db_text(rows, 0))) < 0
			    ? lb_fail(-ENOMEM, "out of memory for a list of jobs")
			    : 0;
	json_array_foreach(jobs, i, one) if (r == 0) r = lb_job_wake(site, json_string_value(one));
	return r;
}

/* ---- words ---------------------------------------------------------------------------------------------- */

static bool is(const struct lb_reprotect *p, const char *state)
{
	return strcmp(p->state, state) == 0;
}

/* What a person should know of the machine that it is itself. */
static void tell_machine(struct lb_site *site, const struct lb_reprotect *p, char *text, size_t room)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *status = NULL;
	const json_t *reason;
	const char *state, *why;

	if (lb_reg_machine_find(site->db, p->back, &m) < 0 || lb_status_machine(site, &m, &status) < 0) {
		lb_err_clear();
		return;
	}
	state = json_string_value(json_object_get(status, "state"));
	reason = json_array_get(json_object_get(status, "reasons"), 0);
	why = json_string_value(json_object_get(reason, "text"));
	snprintf(text, room, "it replicates back as %s, which is %s%s%s", p->back_name, state != NULL ? state : "there",
		 why != NULL && strcmp(json_string_value(json_object_get(status, "health")), "ok") != 0 ? ": " : "",
		 why != NULL && strcmp(json_string_value(json_object_get(status, "health")), "ok") != 0 ? why : "");
}

static void tell(struct lb_site *site, const struct lb_reprotect *p, char *text, size_t room)
{
	if (is(p, LB_REPROTECT_STARTING) && p->back[0] != '\0')
		snprintf(text, room,
			 "it replicated back as %s to a server that was lost: `lifeboat failover reprotect %s` goes on",
			 p->back_name, p->double_name);
	else if (is(p, LB_REPROTECT_STARTING))
		snprintf(text, room, "its temporary process server is being made");
	else if (is(p, LB_REPROTECT_ENROLLING))
		snprintf(text, room, "its agent may enrol as %s, and has not done so yet", p->back_name);
	else if (lb_reprotect_landed(p))
		snprintf(text, room, "its machine is at home%s: `lifeboat failback commit %s` ends this",
			 is(p, LB_REPROTECT_STARTED) ? " and was started" : "", p->double_name);
	else if (is(p, LB_REPROTECT_HOME))
		snprintf(text, room,
			 "its machine goes home: `lifeboat failback commit %s` ends that, `lifeboat failback undo %s` "
			 "keeps it here",
			 p->double_name, p->double_name);
	else if (is(p, LB_REPROTECT_ENDING))
		snprintf(text, room, "its way back is being taken away");
	else
		tell_machine(site, p, text, room);
}

int lb_reprotect_json(struct lb_site *site, const char *double_name, json_t **ret_object)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	char text[600] = "";
	int r;

	r = lb_reprotect_find(site->db, double_name, &p);
	if (r == -ENOENT) {
		lb_err_clear();
		*ret_object = json_null();
		return 0;
	}
	if (r < 0)
		return r;
	tell(site, &p, text, sizeof(text));
	*ret_object = json_pack("{s:s,s:s,s:s,s:s,s:O?}", "state", p.state, "text", text, "machine", p.back_name, "job",
				p.job, "target", json_object_get(p.request, "target"));
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
