/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"

#define ROWS_DEFAULT 200
#define ROWS_MAX 2000

static int list(struct lb_site *site, const struct lb_http_call *call, const char *sql, const char *name,
		const char *const *columns, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *found = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int64_t limit, before;
	int r;

	r = lb_api_query_i64(call, "limit", ROWS_DEFAULT, &limit);
	if (r == 0)
		r = lb_api_query_i64(call, "before", INT64_MAX, &before);
	if (r != 0)
		return r;
	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, sql, "ii", before, LB_MIN(LB_MAX(limit, 1), (int64_t)ROWS_MAX));
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		json_t *one = json_pack("{s:I,s:I}", "id", (json_int_t)lb_db_int(rows, 0), "time_ns",
					(json_int_t)lb_db_int(rows, 1));

		r = 0;
		for (int i = 0; r == 0 && columns[i] != NULL; i++)
			r = lb_json_set_str(one, columns[i], lb_db_text(rows, i + 2));
		if (json_array_append_new(found, one) < 0)
			r = lb_fail(-ENOMEM, "out of memory for an answer");
	}
	return r < 0 ? r : lb_api_reply_list(reply, name, lb_steal_ptr(found));
}

int lb_api_event_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	static const char *const columns[] = {"level", "subject", "text", NULL};

	return list(arg, call,
		    "SELECT id, time_ns, level, subject, text FROM event WHERE id < ? ORDER BY id DESC LIMIT ?",
		    "events", columns, reply);
}

int lb_api_audit_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	static const char *const columns[] = {"who", "role", "address", "method", "path", "result", NULL};

	return list(arg, call,
		    "SELECT id, time_ns, who, role, address, method, path, result FROM audit WHERE id < ?"
		    " ORDER BY id DESC LIMIT ?",
		    "audits", columns, reply);
}
