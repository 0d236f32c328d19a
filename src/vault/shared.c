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
#include "vault/manifest.h"
#include "vault/pins.h"
#include "vault/site.h"

#define OBJECT_PREFIX "site/shared-"
#define VERSION 1
#define WRITE_ATTEMPTS_MAX 5
#define PRUNED_MIN 8     /* at once: each time the pins of all members are read */
#define MACHINES_MAX 128 /* that were members of the points that go; what more were members of stays */
#define NAMED_MAX (2 * LB_SHARED_KEPT_MAX) /* beyond it also what a pin names is a shared point no more */

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

/* The names that members gave to their points, each member's read once. */
struct names {
	struct lb_vault *v;
	struct lb_uuid machine[MACHINES_MAX];
	struct lb_pins pins[MACHINES_MAX];
	size_t n;
};

static void names_free(struct names **names)
{
	if (*names == NULL)
		return;
	for (size_t i = 0; i < (*names)->n; i++)
		lb_pins_free(&(*names)->pins[i]);
	free(*names);
}

/* NULL with 0: of too many machines. */
static int pins_of(struct names *names, const struct lb_uuid *machine, const struct lb_pins **ret_pins)
{
	int r;

	*ret_pins = NULL;
	for (size_t i = 0; i < names->n && *ret_pins == NULL; i++)
		if (lb_uuid_equal(&names->machine[i], machine))
			*ret_pins = &names->pins[i];
	if (*ret_pins != NULL || names->n == MACHINES_MAX)
		return 0;
	names->machine[names->n] = *machine;
	r = lb_pins_read(names->v, &names->machine[names->n], &names->pins[names->n]);
	if (r == 0)
		*ret_pins = &names->pins[names->n++];
	return r;
}

/* Also where a name can't be read: nobody knows what it protects. */
static int is_named(struct names *names, const struct lb_shared_point *p, bool *ret_named)
{
	const struct lb_pins *pins;
	bool named = false;

	for (unsigned int i = 0; i < p->n_members && !named; i++) {
		int r = pins_of(names, &p->members[i].machine, &pins);

		if (r < 0)
			return r;
		named = pins == NULL || pins->n_unreadable > 0;
		for (size_t k = 0; !named && k < pins->n; k++)
			named = lb_position_compare(&pins->points[k].position, &p->members[i].position) == 0;
	}
	*ret_named = named;
	return 0;
}

static int let_go(struct lb_vault *v, const struct lb_shared_point *p)
{
	char id[LB_UUID_TEXT_BYTES];
	int r = 0;

	lb_uuid_format(&p->id, id);
	for (unsigned int i = 0; i < p->n_members && r == 0; i++)
		r = lb_pin_shared_remove(v, &p->members[i].machine, id);
	return r;
}

static struct lb_point as_point(const struct lb_shared_point *p)
{
	return (struct lb_point){.time_ns = p->time_ns,
				 .until_ns = p->time_ns,
				 .flags = LB_HRL_POINT | LB_HRL_MARK_GROUP | (p->app ? LB_HRL_MARK_APP : 0)};
}

static int keep_parts(struct lb_vault *v, const struct lb_shared_point *p)
{
	struct lb_point part = as_point(p);
	char id[LB_UUID_TEXT_BYTES];
	int r = 0;

	lb_uuid_format(&p->id, id);
	for (unsigned int i = 0; i < p->n_members && r == 0; i++) {
		part.position = p->members[i].position;
		r = lb_pin_shared_put(v, &p->members[i].machine, &part, id);
	}
	return r;
}

/* How many of `n` points, oldest first, are to go by the ladder and by their number; go[i] of each. */
static size_t choose(const struct lb_shared_point *p, size_t n, const struct lb_retention *retention, int64_t now_ns,
		     struct lb_point *times, bool *go)
{
	size_t n_go = 0;

	for (size_t i = 0; i < n; i++)
		times[i] = as_point(&p[i]);
	memset(go, true, n * sizeof(*go));
	if (retention != NULL)
		lb_retention_keep(retention, times, n, now_ns, go);
	for (size_t i = 0; i < n; i++) {
		go[i] = !go[i] || (n > LB_SHARED_KEPT_MAX && i < n / 2 && i % 2 == 1);
		n_go += go[i];
	}
	return n_go;
}

static int drop(struct lb_vault *v, json_t *points, const struct lb_shared_point *p, const bool *go)
{
	_cleanup_(names_free) struct names *names = calloc(1, sizeof(*names));
	size_t n = json_array_size(points);
	int r = 0;

	if (names == NULL)
		return lb_fail(-ENOMEM, "out of memory for named points");
	names->v = v;
	for (size_t i = n; i-- > 0 && r == 0;) {
		bool named = false;

		if (!go[i])
			continue;
		if (n <= NAMED_MAX)
			r = is_named(names, &p[i], &named);
		if (r == 0 && !named) {
			r = let_go(v, &p[i]);
			json_array_remove(points, i);
		}
	}
	return r;
}

static int prune(struct lb_vault *v, json_t *points, const struct lb_retention *retention, int64_t now_ns)
{
	size_t n = json_array_size(points);
	_cleanup_free_ struct lb_shared_point *p = calloc(n, sizeof(*p));
	_cleanup_free_ struct lb_point *times = calloc(n, sizeof(*times));
	_cleanup_free_ bool *go = calloc(n, sizeof(*go));
	int r = 0;

	if (p == NULL || times == NULL || go == NULL)
		return lb_fail(-ENOMEM, "out of memory for shared points");
	for (size_t i = 0; i < n && r == 0; i++)
		r = parse_point(json_array_get(points, i), &p[i]);
	if (r < 0 || choose(p, n, retention, now_ns, times, go) < PRUNED_MIN)
		return r;
	return drop(v, points, p, go);
}

struct addition {
	const struct lb_shared_point *point;
	const struct lb_retention *retention;
	int64_t now_ns;
};

static int add_once(struct lb_vault *v, const struct addition *a, const char *name)
{
	const struct lb_shared_point *point = a->point;
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
	r = prune(v, points, a->retention, a->now_ns);
	if (r == 0)
		r = lb_json_dump(o, &text);
	return r < 0 || text == NULL ? r : lb_vault_site_put(v, name, text, strlen(text));
}

int lb_shared_add(struct lb_vault *v, const struct lb_shared_point *point, const struct lb_retention *retention,
		  int64_t now_ns)
{
	const struct addition a = {.point = point, .retention = retention, .now_ns = now_ns};
	char name[LB_SHARED_NAME_BYTES];
	int r;

	name_of(&point->group, name);
	/* first: what stands in the list is there at all members */
	r = keep_parts(v, point);
	if (r == -ESTALE) {
		(void)let_go(v, point);
		return lb_wrap(r, "shared points of group %s", point->group_name);
	}
	for (int i = 0; i < WRITE_ATTEMPTS_MAX && r == 0; i++) {
		r = add_once(v, &a, name);
		if (r != -ESTALE && r != -EEXIST)
			break;
		r = i + 1 < WRITE_ATTEMPTS_MAX ? 0 : -EAGAIN; /* somebody else wrote it */
	}
	return r < 0 ? lb_wrap(r, "shared points of group %s", point->group_name) : 0;
}

int lb_shared_let_go(struct lb_vault *v, const struct lb_uuid *group)
{
	_cleanup_json_ json_t *o = NULL;
	char name[LB_SHARED_NAME_BYTES];
	const json_t *one;
	size_t i;
	int r;

	name_of(group, name);
	r = read_group(v, name, &o);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	json_array_foreach(json_object_get(o, "points"), i, one)
	{
		struct lb_shared_point p = {0};

		if (r == 0)
			r = parse_point(one, &p);
		if (r == 0)
			r = let_go(v, &p);
	}
	return r;
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
