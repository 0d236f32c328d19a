/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "mobility/hardware.h"
#include "mobility/quiet.h"

#define COST_NS_PER_KIB_HIGH 1000

int lb_status_json(struct lb_env *env, const struct lb_session_status *st, json_t **ret_object)
{
	_cleanup_json_ json_t *o = json_object();

	if (o == NULL || lb_json_set_str(o, "state", lb_session_state_name(st->state)) < 0 ||
	    lb_json_set_str(o, "text", st->text) < 0 || lb_json_set_u64(o, "epoch", st->epoch) < 0 ||
	    lb_json_set_u64(o, "segments", st->segments) < 0 || lb_json_set_i64(o, "point_ns", st->point_ns) < 0 ||
	    lb_json_set_u64(o, "backlog_bytes", st->backlog_bytes) < 0 ||
	    lb_json_set_u64(o, "ring_bytes", st->ring_bytes) < 0 ||
	    lb_json_set_u64(o, "dirty_bytes", st->dirty_bytes) < 0 ||
	    lb_json_set_u64(o, "churn_bytes", st->churn_bytes) < 0 ||
	    lb_json_set_u64(o, "scan_done_bytes", st->scan_done_bytes) < 0 ||
	    lb_json_set_u64(o, "scan_total_bytes", st->scan_total_bytes) < 0 ||
	    lb_json_set_u64(o, "shipped_bytes", st->shipped_bytes) < 0 ||
	    lb_json_set_u64(o, "passes", st->passes) < 0 || lb_json_set_i64(o, "held_rpo_ns", st->held_rpo_ns) < 0 ||
	    lb_json_set_i64(o, "cost_ns_per_kib", st->cost_ns_per_kib) < 0 ||
	    lb_json_set_i64(o, "time_ns", lb_now_ns(env)) < 0)
		return lb_fail(-ENOMEM, "out of memory for the status");
	*ret_object = lb_steal_ptr(o);
	return 0;
}

static int finding(json_t *list, const char *level, const char *text, const char *cure)
{
	json_t *o = json_pack("{s:s,s:s,s:s}", "level", level, "text", text, "cure", cure);

	return o != NULL && json_array_append_new(list, o) == 0 ? 0 : -ENOMEM;
}

static int findings(json_t *list, const struct lb_session_status *st)
{
	char text[256];
	int r = 0;

	if (st->state == LB_SESSION_REFUSED)
		r = finding(list, "error", st->text, "see the text; the agent tries again every minute");
	if (r == 0 && st->passes > 0) {
		snprintf(text, sizeof(text),
			 "%u epochs in a row ended before a recovery point: more is written than can be sent",
			 st->passes);
		r = finding(list, "warning", text,
			    "raise the policy's ring_bytes, the link's bandwidth or its limit in the policy");
	}
	if (r == 0 && st->held_rpo_ns > 0) {
		snprintf(text, sizeof(text), "under the last overload the recovery point could be held to %ld s",
			 (long)(st->held_rpo_ns / LB_NS_PER_S));
		r = finding(list, "info", text, "raise the policy's ring_bytes or the link's bandwidth for less");
	}
	if (r == 0 && st->cost_ns_per_kib > COST_NS_PER_KIB_HIGH) {
		snprintf(text, sizeof(text), "capture costs %ld ns per KiB written", (long)st->cost_ns_per_kib);
		r = finding(list, "info", text, "see the histogram in `lifeboat-mobility status`");
	}
	return r;
}

int lb_report_json(struct lb_env *env, const char *hardware, const char *name, const struct lb_session_status *status,
		   json_t **ret_body)
{
	_cleanup_json_ json_t *body = NULL, *agent = NULL;
	json_t *list = NULL;
	int r;

	r = lb_hardware_json(env, "", &body);
	if (r < 0)
		return r;
	r = lb_status_json(env, status, &agent);
	if (r < 0)
		return r;
	list = json_array();
	if (list == NULL || json_object_set_new(body, "findings", list) < 0 || findings(list, status) < 0 ||
	    lb_json_set_str(body, "hardware", hardware) < 0 || lb_json_set_str(body, "name", name) < 0 ||
	    lb_json_set_str(body, "state", lb_session_state_name(status->state)) < 0 ||
	    lb_json_set_str(body, "error", status->text) < 0 || json_object_set(body, "agent", agent) < 0)
		return lb_fail(-ENOMEM, "out of memory for the report");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

int lb_status_write(struct lb_env *env, const char *run_folder, const struct lb_session_status *status)
{
	_cleanup_json_ json_t *object = NULL;
	_cleanup_free_ char *text = NULL;
	char path[512];
	int r;

	r = lb_status_json(env, status, &object);
	if (r < 0)
		return r;
	r = lb_json_dump(object, &text);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" LB_STATUS_NAME, run_folder);
	if (!lb_write_begin())
		return 0;
	r = lb_file_write(env, path, text, strlen(text), 0644);
	lb_write_end();
	return r;
}
