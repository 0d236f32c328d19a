/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery points, straight from the vault: also of machines that this server never met. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/flush.h"
#include "config/jobs.h"
#include "config/point_orders.h"
#include "vault/catalog.h"
#include "vault/points.h"

#define POINTS_MAX 5000 /* of one answer: the newest ones */

/* The newest so many, in a ring. */
struct newest {
	struct lb_point *points;
	size_t room, n;
	struct lb_position before; /* exclusive: the page that was had already; epoch 0: none */
};

static int keep(void *arg, const struct lb_point *point)
{
	struct newest *newest = arg;
	const struct lb_position *at = &point->position, *before = &newest->before;

	if (before->epoch != 0 && (at->epoch > before->epoch || (at->epoch == before->epoch && at->seq >= before->seq)))
		return 0;
	newest->points[newest->n++ % newest->room] = *point;
	return 0;
}

static int find_machine(struct lb_site *site, const char *name_or_id, struct lb_uuid *ret_id)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_catalog_item *item;
	int r;

	r = lb_reg_machine_find(site->db, name_or_id, &m);
	if (r == 0)
		return lb_uuid_parse(m.id, ret_id);
	if (r != -ENOENT)
		return r;
	item = malloc(sizeof(*item));
	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_find(site->vault, name_or_id, item);
	if (r == 0)
		*ret_id = item->machine;
	free(item);
	return r;
}

static int points_json(struct lb_site *site, const struct lb_uuid *machine, const struct newest *newest,
		       json_t **ret_list)
{
	size_t n = LB_MIN(newest->n, newest->room);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct lb_point *p = &newest->points[(newest->n - n + i) % newest->room];

		if (json_array_append_new(list, lb_point_json(site, machine, p)) < 0) {
			json_decref(list);
			return lb_fail(-ENOMEM, "out of memory for the list of points");
		}
	}
	*ret_list = list;
	return 0;
}

/* "before=EPOCH:SEQUENCE": only points older than that one, for the next page. */
static int read_before(const struct lb_http_call *call, struct lb_position *ret_before)
{
	const char *text = lb_http_query(call, "before"), *colon = text != NULL ? strchr(text, ':') : NULL;
	char epoch[24];
	uint64_t number;

	if (text == NULL)
		return 0;
	if (colon == NULL || (size_t)(colon - text) >= sizeof(epoch))
		return lb_fail(-EINVAL, "query argument before is not EPOCH:SEQUENCE");
	snprintf(epoch, sizeof(epoch), "%.*s", (int)(colon - text), text);
	if (lb_u64_parse(epoch, INT64_MAX, &number) < 0 || lb_u64_parse(colon + 1, INT64_MAX, &ret_before->seq) < 0)
		return lb_wrap(-EINVAL, "query argument before");
	ret_before->epoch = number;
	return 0;
}

int lb_api_point_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	struct newest newest = {0};
	_cleanup_json_ json_t *freshness = NULL;
	int64_t from_ns = 0, to_ns = 0, limit = 0;
	json_t *list = NULL;
	struct lb_uuid id;
	int r;

	r = lb_api_query_i64(call, "from_ns", 0, &from_ns);
	if (r == 0)
		r = lb_api_query_i64(call, "to_ns", INT64_MAX, &to_ns);
	if (r == 0)
		r = lb_api_query_i64(call, "limit", POINTS_MAX, &limit);
	if (r == 0)
		r = read_before(call, &newest.before);
	if (r == 0)
		r = find_machine(site, call->params[0], &id);
	if (r < 0)
		return r;
	newest.room = (size_t)LB_MIN(LB_MAX(limit, 1), POINTS_MAX);
	newest.points = calloc(newest.room, sizeof(*newest.points));
	if (newest.points == NULL)
		return lb_fail(-ENOMEM, "out of memory for the list of points");
	r = lb_points_list(site->vault, &id, from_ns, to_ns, keep, &newest);
	if (r == 0 && lb_http_query(call, "freshness") != NULL)
		r = lb_anchor_freshness(site, &id, &freshness);
	if (r == 0)
		r = points_json(site, &id, &newest, &list);
	free(newest.points);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:o,s:I,s:b,s:O*}", "points", list, "total", (json_int_t)newest.n, "truncated",
				newest.n > newest.room, "freshness", freshness);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* A name that is taken is refused before anything is made for it. */
static int check_point_name(struct lb_site *site, const struct lb_reg_machine *m, const char *name)
{
	struct lb_point point;
	struct lb_uuid id;
	int r;

	r = lb_name_check("point", name);
	if (r == 0)
		r = lb_uuid_parse(m->id, &id);
	if (r < 0)
		return r;
	r = lb_point_find(site->vault, &id, name, &point);
	return r == 0 ? lb_fail(-EEXIST, "%s has a point \"%s\" already", m->name, name) : 0;
}

/* What the process server still holds comes first, by a job; 1: there is nobody to wait for. */
static int pin_latest(struct lb_site *site, const struct lb_http_call *call, const char *name,
		      struct lb_http_reply *reply)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *request = json_pack("{s:s}", "name", name);
	char job[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == -ENOENT || (r == 0 && (!m.enabled || m.fenced))) {
		lb_err_clear();
		return 1;
	}
	r = r < 0 ? r : check_point_name(site, &m, name);
	if (r < 0)
		return r;
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a job");
	r = lb_job_submit(site, "pin", m.id, request, call->peer.name, job);
	if (r < 0)
		return r;
	reply->status = 202;
	reply->json = json_pack("{s:s,s:s}", "job", job, "machine", m.name);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

static int pin_now(struct lb_site *site, const char *machine, const char *text, const char *name,
		   struct lb_http_reply *reply)
{
	struct lb_point point;
	struct lb_uuid id;
	int r;

	r = find_machine(site, machine, &id);
	if (r == 0)
		r = lb_point_find(site->vault, &id, text, &point);
	if (r == 0)
		r = lb_point_pin(site->vault, &id, &point, name);
	if (r != 0)
		return r;
	snprintf(point.name, sizeof(point.name), "%s", name);
	reply->json = lb_point_json(site, &id, &point);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_api_point_pin(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	const char *text, *name;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "name", &name);
	if (r == 0)
		r = lb_api_optional_str(body, "point", &text);
	if (r == 0)
		r = lb_name_check("point", name);
	if (r != 0)
		return r;
	if (lb_flush_is_for(text)) {
		r = pin_latest(site, call, name, reply);
		if (r <= 0)
			return r;
	}
	return pin_now(site, call->params[0], text != NULL ? text : "latest", name, reply);
}

int lb_api_point_unpin(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	struct lb_uuid id;
	int r;

	r = find_machine(site, call->params[0], &id);
	if (r == 0)
		r = lb_point_unpin(site->vault, &id, call->params[1]);
	if (r < 0)
		return r;
	reply->json = json_object();
	return 0;
}

int lb_api_point_create(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL, *request = NULL;
	char job[LB_UUID_TEXT_BYTES];
	const char *name = NULL;
	bool app = false;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0 && json_object_get(body, "app") != NULL)
		r = lb_json_get_bool(body, "app", &app);
	if (r == 0)
		r = lb_api_optional_str(body, "name", &name);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0 && name != NULL)
		r = check_point_name(site, &m, name);
	if (r < 0)
		return r;
	if (!m.enabled || m.fenced)
		return lb_fail(-EINVAL,
			       "%s is not protected: no point can be made of it; `lifeboat machine protect %s`", m.name,
			       m.name);
	request = json_pack("{s:b,s:s?}", "app", app, "name", name);
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a job");
	r = lb_job_submit(site, "point", m.id, request, call->peer.name, job);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:s,s:s}", "job", job, "machine", m.name);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
