/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/jobs.h"

#define JOBS_LISTED_MAX 500
#define COLUMNS "id, kind, target, state, error, result, progress, made_by, created_ns, started_ns, ended_ns, cancel"

static json_t *time_or_null(lb_db_rows *rows, int column)
{
	return lb_db_null(rows, column) ? json_null() : json_integer(lb_db_int(rows, column));
}

static json_t *job_json(lb_db_rows *rows)
{
	json_t *result = lb_db_json(rows, 5);

	return json_pack("{s:s,s:s,s:s,s:s,s:s?,s:o,s:f,s:s,s:I,s:o,s:o,s:b}", "id", lb_db_text(rows, 0), "kind",
			 lb_db_text(rows, 1), "target", lb_db_text(rows, 2), "state", lb_db_text(rows, 3), "error",
			 lb_db_text(rows, 4), "result", result != NULL ? result : json_object(), "progress",
			 (double)lb_db_int(rows, 6) / 1000000.0, "made_by", lb_db_text(rows, 7), "created_ns",
			 (json_int_t)lb_db_int(rows, 8), "started_ns", time_or_null(rows, 9), "ended_ns",
			 time_or_null(rows, 10), "cancelling", lb_db_int(rows, 11) != 0 && lb_db_null(rows, 10));
}

static int steps_json(struct lb_site *site, const char *id, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	r = lb_db_query(site->db, &rows,
			"SELECT name, state, text, started_ns, ended_ns FROM job_step WHERE job = ? ORDER BY n", "s",
			id);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		json_t *one = json_pack("{s:s,s:s,s:s,s:I,s:o}", "name", lb_db_text(rows, 0), "state",
					lb_db_text(rows, 1), "text", lb_db_text(rows, 2), "started_ns",
					(json_int_t)lb_db_int(rows, 3), "ended_ns", time_or_null(rows, 4));

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
	}
	return r;
}

int lb_job_json(struct lb_site *site, const char *id, json_t **ret_object)
{
	_cleanup_json_ json_t *steps = json_array(), *job = NULL;
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT " COLUMNS " FROM job WHERE id = ?", "s", id);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r == 0)
		return lb_fail(-ENOENT, "there is no job %.40s; `lifeboat job list` shows them", id);
	if (r < 0)
		return r;
	job = job_json(rows);
	r = steps_json(site, id, steps);
	if (r < 0)
		return r;
	if (job == NULL || json_object_set(job, "steps", steps) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	*ret_object = lb_steal_ptr(job);
	return 0;
}

int lb_api_job_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	(void)call;
	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT " COLUMNS " FROM job ORDER BY created_ns DESC, rowid DESC LIMIT ?",
			"i", (int64_t)JOBS_LISTED_MAX);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1)
		r = json_array_append_new(list, job_json(rows)) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer")
								    : 0;
	return r < 0 ? r : lb_api_reply_list(reply, "jobs", lb_steal_ptr(list));
}

int lb_api_job_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	return lb_job_json(arg, call->params[0], &reply->json);
}

int lb_api_job_cancel(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	int r = lb_job_cancel(arg, call->params[0]);

	return r < 0 ? r : lb_job_json(arg, call->params[0], &reply->json);
}
