/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/internal.h"
#include "vault/site.h"

#define OBJECT_PREFIX "site/shared-"
#define VERSION 1
#define WRITE_ATTEMPTS_MAX 5

static void name_of(const struct lb_uuid *group, char name[LB_SHARED_NAME_BYTES])
{
	char text[LB_UUID_TEXT_BYTES];

	lb_uuid_format(group, text);
	snprintf(name, LB_SHARED_NAME_BYTES, "shared-%s", text);
}

/* ---- JSON
 * -------------------------------------------------------------------------------------------------------------- */

static int print_point(const struct lb_shared_point *p, json_t **ret_json)
{
	_cleanup_json_ json_t *o = json_object();
	json_t *members = json_array();
	char id[LB_UUID_TEXT_BYTES];

	for (unsigned int i = 0; i < p->n_members; i++) {
		const struct lb_shared_member *m = &p->members[i];

		lb_uuid_format(&m->machine, id);
		if (json_array_append_new(members,
					  json_pack("{s:s,s:I,s:I,s:I}", "machine", id, "epoch",
						    (json_int_t)m->position.epoch, "seq", (json_int_t)m->position.seq,
						    "frozen_ns", (json_int_t)m->frozen_ns)) < 0)
			break;
	}
	if (o == NULL || json_object_set_new(o, "members", members) < 0 || lb_json_set_uuid(o, "id", &p->id) < 0 ||
	    lb_json_set_bool(o, "app", p->app) < 0 || lb_json_set_i64(o, "time_ns", p->time_ns) < 0)
		return lb_fail(-ENOMEM, "out of memory for a shared point");
	*ret_json = lb_steal_ptr(o);
	return 0;
}

static int parse_member(const json_t *o, struct lb_shared_member *m)
{
	int r;

	if ((r = lb_json_get_uuid(o, "machine", &m->machine)) < 0 ||
	    (r = lb_json_get_u64(o, "epoch", &m->position.epoch)) < 0 ||
	    (r = lb_json_get_u64(o, "seq", &m->position.seq)) < 0 ||
	    (r = lb_json_get_i64(o, "frozen_ns", &m->frozen_ns)) < 0)
		return r;
	return 0;
}

static int parse_point(const json_t *o, struct lb_shared_point *p)
{
	const json_t *members = json_object_get(o, "members");
	int r;

	if ((r = lb_json_get_uuid(o, "id", &p->id)) < 0 || (r = lb_json_get_bool(o, "app", &p->app)) < 0 ||
	    (r = lb_json_get_i64(o, "time_ns", &p->time_ns)) < 0)
		return r;
	if (!json_is_array(members) || json_array_size(members) > LB_SHARED_MEMBERS_MAX)
		return lb_fail(-EBADMSG, "\"members\" is not a list of at most %d", LB_SHARED_MEMBERS_MAX);
	p->n_members = (unsigned int)json_array_size(members);
	for (unsigned int i = 0; i < p->n_members && r == 0; i++)
		r = parse_member(json_array_get(members, i), &p->members[i]);
	return r;
}

/* A group's object; -ENOENT when it has none. */
static int read_group(struct lb_vault *v, const char *name, json_t **ret_object)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SITE_BYTES_MAX);
	_cleanup_json_ json_t *o = NULL;
	uint64_t version = 0;
	int r;

	r = lb_vault_site_get(v, name, &text);
	if (r < 0)
		return r;
	r = lb_json_parse(text.data, text.size_bytes, LB_SITE_BYTES_MAX, &o);
	if (r == 0)
		r = lb_json_get_u64(o, "version", &version);
	if (r < 0)
		return lb_wrap(r, "object site/%s", name);
	if (version != VERSION || !json_is_array(json_object_get(o, "points")))
		return lb_fail(-EPROTONOSUPPORT, "object site/%s is of version %" PRIu64 ": a newer program wrote it",
			       name, version);
	*ret_object = lb_steal_ptr(o);
	return 0;
}

/* ---- writing
 * ------------------------------------------------------------------------------------------------------------ */

static bool has_point(const json_t *points, const struct lb_uuid *id)
{
	const json_t *one;
	size_t i;

	json_array_foreach(points, i, one)
	{
		struct lb_uuid other;

		if (lb_json_get_uuid(one, "id", &other) == 0 && lb_uuid_equal(&other, id))
			return true;
	}
	return false;
}

static void thin(json_t *points)
{
	size_t half = json_array_size(points) / 2;

	if (json_array_size(points) <= LB_SHARED_KEPT_MAX)
		return;
	for (size_t i = half - half % 2; i >= 2; i -= 2)
		json_array_remove(points, i - 1);
}

static int add_once(struct lb_vault *v, const struct lb_shared_point *point, const char *name)
{
	_cleanup_json_ json_t *o = NULL;
	_cleanup_free_ char *text = NULL;
	json_t *one, *points;
	int r;

	r = read_group(v, name, &o);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT)
		o = json_pack("{s:i,s:[]}", "version", VERSION, "points");
	points = json_object_get(o, "points");
	if (has_point(points, &point->id))
		return 0;
	r = print_point(point, &one);
	if (r < 0)
		return r;
	if (json_array_append_new(points, one) < 0 || lb_json_set_str(o, "name", point->group_name) < 0 ||
	    lb_json_set_uuid(o, "group", &point->group) < 0)
		return lb_fail(-ENOMEM, "out of memory for shared points");
	thin(points);
	r = lb_json_dump(o, &text);
	return r < 0 ? r : lb_vault_site_put(v, name, text, strlen(text));
}

int lb_shared_add(struct lb_vault *v, const struct lb_shared_point *point)
{
	char name[LB_SHARED_NAME_BYTES];
	int r = 0;

	name_of(&point->group, name);
	for (int i = 0; i < WRITE_ATTEMPTS_MAX; i++) {
		r = add_once(v, point, name);
		if (r != -ESTALE && r != -EEXIST)
			break;
	}
	return r < 0 ? lb_wrap(r, "shared points of group %s", point->group_name) : 0;
}

/* ---- reading
 * ------------------------------------------------------------------------------------------------------------ */

void lb_shared_free(struct lb_shared_points *points)
{
	free(points->points);
	*points = (struct lb_shared_points){0};
}

const struct lb_position *lb_shared_position(const struct lb_shared_point *point, const struct lb_uuid *machine)
{
	for (unsigned int i = 0; i < point->n_members; i++)
		if (lb_uuid_equal(&point->members[i].machine, machine))
			return &point->members[i].position;
	return NULL;
}

const struct lb_shared_point *lb_shared_at(const struct lb_shared_points *points, const struct lb_uuid *machine,
					   const struct lb_position *position)
{
	for (size_t i = 0; i < points->n; i++) {
		const struct lb_position *p = lb_shared_position(&points->points[i], machine);

		if (p != NULL && p->epoch == position->epoch && p->seq == position->seq)
			return &points->points[i];
	}
	return NULL;
}

struct listing {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	struct lb_shared_points *points;
};

static int keep(struct lb_shared_points *points, const struct lb_shared_point *p)
{
	if (points->n == points->room) {
		size_t room = points->room > 0 ? 2 * points->room : 32;
		struct lb_shared_point *grown = realloc(points->points, room * sizeof(*grown));

		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for shared points");
		points->points = grown;
		points->room = room;
	}
	points->points[points->n++] = *p;
	return 0;
}

static int list_group(void *arg, const char *object, uint64_t size_bytes)
{
	struct listing *l = arg;
	_cleanup_json_ json_t *o = NULL;
	const char *group_name = "";
	struct lb_uuid group = {0};
	const json_t *one;
	size_t i;
	int r;

	(void)size_bytes;
	r = read_group(l->v, object + strlen("site/"), &o);
	if (r == 0)
		r = lb_json_get_uuid(o, "group", &group);
	if (r == 0)
		r = lb_json_get_str(o, "name", &group_name);
	json_array_foreach(json_object_get(o, "points"), i, one)
	{
		struct lb_shared_point p = {.group = group};

		if (r < 0)
			break;
		snprintf(p.group_name, sizeof(p.group_name), "%s", group_name);
		r = parse_point(one, &p);
		if (r == 0 && lb_shared_position(&p, l->machine) != NULL)
			r = keep(l->points, &p);
	}
	return r < 0 ? lb_wrap(r, "%s", object) : 0;
}

static int newer_first(const void *a, const void *b)
{
	const struct lb_shared_point *x = a, *y = b;

	return x->time_ns < y->time_ns ? 1 : x->time_ns > y->time_ns ? -1 : 0;
}

int lb_shared_list(struct lb_vault *v, const struct lb_uuid *machine, struct lb_shared_points *ret_points)
{
	struct lb_shared_points points = {0};
	struct listing l = {.v = v, .machine = machine, .points = &points};
	int r;

	*ret_points = points;
	if (!v->has_key)
		return 0;
	r = lb_store_list(v->store, OBJECT_PREFIX, list_group, &l);
	if (r < 0) {
		lb_shared_free(&points);
		return r;
	}
	if (points.n > 0)
		qsort(points.points, points.n, sizeof(points.points[0]), newer_first);
	*ret_points = points;
	return 0;
}
