/* SPDX-License-Identifier: Apache-2.0 */
/* The way home of a plan's machines: which target server writes each onto which disks, and what is started then. */
#include "fabric/plan.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define TAKEN_BYTES 512

static int no_memory(void)
{
	return lb_fail(-ENOMEM, "out of memory for a recovery plan");
}

static const char *text_of(const json_t *object, const char *member)
{
	return json_string_value(json_object_get(object, member));
}

static int check_type(const json_t *home, const char *member, bool (*is_right)(const json_t *value), const char *words)
{
	const json_t *value = json_object_get(home, member);

	return value == NULL || is_right(value) ? 0 : lb_fail(-EINVAL, "\"%s\" is %s", member, words);
}

static bool is_text(const json_t *value)
{
	return json_string_length(value) > 0;
}

static bool is_bool(const json_t *value)
{
	return json_is_boolean(value);
}

static bool is_count(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool is_seconds(const json_t *value)
{
	return is_count(value) && json_integer_value(value) <= LB_PLAN_HOME_WAIT_S_MAX;
}

static bool is_disks(const json_t *value)
{
	const char *disk;
	const json_t *path;

	if (json_is_string(value))
		return strcmp(json_string_value(value), "auto") == 0;
	json_object_foreach((json_t *)(uintptr_t)value, disk, path)
	{
		if (disk[0] == '\0' || json_string_length(path) == 0 || json_string_value(path)[0] != '/')
			return false;
	}
	return json_object_size(value) > 0;
}

static int check_boot(const json_t *home)
{
	static const char *const known[] = {"domain", "uri", "hook", NULL};
	const json_t *boot = json_object_get(home, "boot");
	bool domain = is_text(json_object_get(boot, "domain")), hook = is_text(json_object_get(boot, "hook"));
	int r;

	if (boot == NULL)
		return 0;
	r = lb_plan_members(boot, "\"boot\"", known);
	if (r == 0 && domain == hook)
		r = lb_fail(-EINVAL, "\"boot\" names a libvirt \"domain\", or a \"hook\", of the target server's host");
	return r < 0 ? r : check_type(boot, "uri", is_text, "a text");
}

int lb_plan_home_check(const json_t *home)
{
	static const char *const known[] = {"target",      "to",   "some",   "overwrite", "undo_bytes",
					    "undo_points", "boot", "wait_s", NULL};
	int r;

	if (!json_is_object(home))
		return lb_fail(-EINVAL, "\"home\" is an object");
	r = lb_plan_members(home, "\"home\"", known);
	r = r < 0 ? r : check_type(home, "target", is_text, "the name of a target server");
	r = r < 0 ? r : check_type(home, "to", is_disks, "{DISK: \"/path\", ...} or \"auto\"");
	r = r < 0 ? r : check_type(home, "some", is_bool, "true or false");
	r = r < 0 ? r : check_type(home, "overwrite", is_bool, "true or false");
	r = r < 0 ? r : check_type(home, "undo_bytes", is_count, "a number of bytes");
	r = r < 0 ? r : check_type(home, "undo_points", is_count, "a number");
	r = r < 0 ? r : check_type(home, "wait_s", is_seconds, "a number of seconds, at most a day");
	if (r == 0 && (json_object_get(home, "target") == NULL) != (json_object_get(home, "to") == NULL))
		r = lb_fail(-EINVAL, "a target server and its disks go together: \"target\" and \"to\"");
	return r < 0 ? r : check_boot(home);
}

/* ---- all machines of a plan --------------------------------------------------------------------------------- */

static int take_path(const char *machine, const char *server, const char *path, json_t *taken)
{
	char key[TAKEN_BYTES];
	const char *by;

	if (snprintf(key, sizeof(key), "%s:%s", server, path) >= (int)sizeof(key))
		return lb_fail(-EINVAL, "machine %s: the path of a disk is too long", machine);
	by = text_of(taken, key);
	if (by != NULL)
		return lb_fail(-EINVAL, "machines %s and %s would both be written onto %s of target server %s", by,
			       machine, path, server);
	return json_object_set_new(taken, key, json_string(machine)) < 0 ? no_memory() : 0;
}

static int take_paths(void *arg, size_t group, const json_t *machine)
{
	const json_t *home = json_object_get(machine, "home"), *path;
	json_t *to = json_object_get(home, "to");
	const char *server = text_of(home, "target"), *disk;
	int r = 0;

	(void)group;
	if (server == NULL || !json_is_object(to))
		return 0;
	json_object_foreach(to, disk, path) r =
		r < 0 ? r : take_path(text_of(machine, "machine"), server, json_string_value(path), arg);
	return r;
}

int lb_plan_homes_check(const json_t *plan)
{
	_cleanup_json_ json_t *taken = json_object();

	return taken == NULL ? no_memory() : lb_plan_each(plan, take_paths, taken);
}

struct setting {
	const char *machine;
	const json_t *home;
};

/* What the order says of it counts, member by member; what it leaves out is the plan's. */
static int set_one(void *arg, size_t group, const json_t *machine)
{
	const struct setting *s = arg;
	json_t *own = json_object_get(machine, "home");
	_cleanup_json_ json_t *merged = own != NULL ? json_copy(own) : json_object();

	(void)group;
	if (strcmp(text_of(machine, "machine"), s->machine) != 0)
		return 0;
	if (merged == NULL || json_object_update(merged, (json_t *)(uintptr_t)s->home) < 0 ||
	    json_object_set((json_t *)(uintptr_t)machine, "home", merged) < 0)
		return no_memory();
	return 1;
}

int lb_plan_homes_set(json_t *plan, const json_t *homes)
{
	struct setting s;
	int r;

	if (!json_is_object(homes))
		return lb_fail(-EINVAL, "\"home\" is {MACHINE: {\"target\", \"to\", ...}, ...}");
	json_object_foreach((json_t *)(uintptr_t)homes, s.machine, s.home)
	{
		if (!json_is_object(s.home))
			return lb_fail(-EINVAL, "machine %.64s: \"home\" is an object", s.machine);
		r = lb_plan_each(plan, set_one, &s);
		if (r == 0)
			return lb_fail(-ENOENT, "plan %s has no machine %.64s", text_of(plan, "name"), s.machine);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- orders --------------------------------------------------------------------------------------------------- */

static int copy_members(const json_t *from, const char *const *members, json_t *to)
{
	for (; *members != NULL; members++) {
		json_t *value = json_object_get(from, *members);

		if (value != NULL && json_object_set(to, *members, value) < 0)
			return no_memory();
	}
	return 0;
}

static int make_order(const json_t *machine, const char *const *members, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	int r;

	r = body == NULL ? no_memory() : copy_members(json_object_get(machine, "home"), members, body);
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

int lb_plan_reprotect_order(const json_t *machine, json_t **ret_body)
{
	static const char *const members[] = {"target", "to", "some", "overwrite", "undo_bytes", "undo_points", NULL};

	return make_order(machine, members, ret_body);
}

int lb_plan_failback_order(const json_t *machine, json_t **ret_body)
{
	static const char *const members[] = {"boot", "wait_s", NULL};

	return make_order(machine, members, ret_body);
}
