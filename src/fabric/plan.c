/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/plan.h"

#include "fabric/fabric.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "fabric/hook.h"

static int no_memory(void)
{
	return lb_fail(-ENOMEM, "out of memory for a recovery plan");
}

/* A misspelt member would be passed over in silence, on the worst of days. */
int lb_plan_members(const json_t *object, const char *where, const char *const *known)
{
	const char *name;
	const json_t *value;

	json_object_foreach((json_t *)object, name, value)
	{
		size_t i = 0;

		while (known[i] != NULL && strcmp(known[i], name) != 0)
			i++;
		if (known[i] == NULL)
			return lb_fail(-EINVAL, "%s: there is no \"%.40s\" here", where, name);
	}
	return 0;
}

static int check_choice(const json_t *object, const char *where, const char *member, const char *const *choices)
{
	const json_t *value = json_object_get(object, member);
	const char *text = json_string_value(value);

	char list[80] = "";

	for (size_t i = 0; value != NULL && choices[i] != NULL; i++) {
		size_t used = strlen(list);

		if (text != NULL && strcmp(text, choices[i]) == 0)
			return 0;
		snprintf(list + used, sizeof(list) - used, "%s\"%s\"", used > 0 ? " or " : "", choices[i]);
	}
	return value == NULL ? 0 : lb_fail(-EINVAL, "%s: \"%s\" is %s", where, member, list);
}

static int set_default(json_t *object, const char *member, json_t *value)
{
	if (json_object_get(object, member) != NULL) {
		json_decref(value);
		return 0;
	}
	return json_object_set_new(object, member, value) < 0 ? no_memory() : 0;
}

static const char *const failure_choices[] = {"stop", "continue", NULL};

static int read_script(json_t *action, const char *where)
{
	static const char *const known[] = {"script", "timeout_s", "on_failure", "for", NULL};
	uint64_t timeout_s;
	const char *name;
	int r;

	r = lb_plan_members(action, where, known);
	r = r < 0 ? r : set_default(action, "timeout_s", json_integer(LB_HOOK_TIMEOUT_S_DEFAULT));
	r = r < 0 ? r : set_default(action, "on_failure", json_string("stop"));
	r = r < 0 ? r : check_choice(action, where, "on_failure", failure_choices);
	r = r < 0 ? r : lb_json_get_str(action, "script", &name);
	r = r < 0 ? r : lb_name_check("script", name);
	r = r < 0 ? r : lb_json_get_u64(action, "timeout_s", &timeout_s);
	if (r < 0)
		return lb_wrap(-EINVAL, "%s", where);
	if (timeout_s == 0 || timeout_s > LB_HOOK_TIMEOUT_S_MAX)
		return lb_fail(-EINVAL, "%s: \"timeout_s\" is 1 to %d seconds", where, LB_HOOK_TIMEOUT_S_MAX);
	return 0;
}

static int read_manual(const json_t *action, const char *where)
{
	static const char *const known[] = {"manual", "for", NULL};
	const char *text;
	int r;

	r = lb_plan_members(action, where, known);
	r = r < 0 ? r : lb_json_get_str(action, "manual", &text);
	if (r < 0)
		return lb_wrap(-EINVAL, "%s", where);
	if (text[0] == '\0' || strlen(text) > LB_PLAN_TEXT_BYTES_MAX)
		return lb_fail(-EINVAL, "%s: \"manual\" says in 1 to %d characters what a person is to do", where,
			       LB_PLAN_TEXT_BYTES_MAX);
	return 0;
}

static int read_action(const json_t *from, const char *where, json_t *list)
{
	static const char *const kinds[] = {"test", "failover", "both", "failback", NULL};
	_cleanup_json_ json_t *action = json_deep_copy(from);
	bool script = json_object_get(from, "script") != NULL, manual = json_object_get(from, "manual") != NULL;
	int r;

	if (!json_is_object(from) || script == manual)
		return lb_fail(-EINVAL, "%s: an action is {\"script\": NAME, ...} or {\"manual\": TEXT}", where);
	if (action == NULL)
		return no_memory();
	r = set_default(action, "for", json_string("both"));
	r = r < 0 ? r : check_choice(action, where, "for", kinds);
	r = r < 0 ? r : script ? read_script(action, where) : read_manual(action, where);
	if (r < 0)
		return r;
	return json_array_append(list, action) < 0 ? no_memory() : 0;
}

static int read_actions(const json_t *group, const char *name, const char *member, json_t *ret_group)
{
	const json_t *from = json_object_get(group, member), *one;
	_cleanup_json_ json_t *list = json_array();
	char where[128];
	size_t i;
	int r;

	if (from != NULL && (!json_is_array(from) || json_array_size(from) > LB_PLAN_ACTIONS_MAX))
		return lb_fail(-EINVAL, "%s: \"%s\" is a list of at most %d actions", name, member,
			       LB_PLAN_ACTIONS_MAX);
	json_array_foreach(from, i, one)
	{
		snprintf(where, sizeof(where), "%s, %s %zu", name, member, i + 1);
		r = read_action(one, where, list);
		if (r < 0)
			return r;
	}
	return json_object_set(ret_group, member, list) < 0 ? no_memory() : 0;
}

static const char *const machine_members[] = {
	"machine",      "name",   "memory_bytes", "cpus",          "bus",   "network", "forwards", "probe_port",
	"probe_send",   "wait_s", "no_pull",      "test_network",  "check", "address", "mac",      "shutdown_source",
	"wait_drained", "home",   "mend",         "mend_required", NULL};

static int read_machine(const json_t *from, const char *where, json_t *seen, json_t *list)
{
	_cleanup_json_ json_t *machine =
		json_is_string(from) ? json_pack("{s:O}", "machine", (json_t *)from) : json_deep_copy(from);
	const char *name;
	int r;

	if (!json_is_object(machine))
		return lb_fail(-EINVAL, "%s: a machine is a name, or {\"machine\": NAME, ...}", where);
	r = lb_plan_members(machine, where, machine_members);
	r = r < 0 ? r : lb_json_get_str(machine, "machine", &name);
	r = r < 0 ? r : lb_name_check("machine", name);
	if (r < 0)
		return lb_wrap(-EINVAL, "%s", where);
	r = json_object_get(machine, "home") != NULL ? lb_plan_home_check(json_object_get(machine, "home")) : 0;
	if (r < 0)
		return lb_wrap(r, "%s: machine %s", where, name);
	if (json_object_get(seen, name) != NULL)
		return lb_fail(-EINVAL, "%s: machine %s is in this plan already", where, name);
	if (json_object_size(seen) >= LB_PLAN_MACHINES_MAX)
		return lb_fail(-EINVAL, "a plan has at most %d machines", LB_PLAN_MACHINES_MAX);
	if (json_object_set_new(seen, name, json_true()) < 0 || json_array_append(list, machine) < 0)
		return no_memory();
	return 0;
}

static int read_machines(const json_t *group, const char *name, json_t *seen, json_t *ret_group)
{
	const json_t *from = json_object_get(group, "machines"), *one;
	_cleanup_json_ json_t *list = json_array();
	size_t i;
	int r;

	if (!json_is_array(from))
		return lb_fail(-EINVAL, "%s: \"machines\" is a list of names", name);
	json_array_foreach(from, i, one)
	{
		r = read_machine(one, name, seen, list);
		if (r < 0)
			return r;
	}
	return json_object_set(ret_group, "machines", list) < 0 ? no_memory() : 0;
}

static int read_group(const json_t *group, size_t n, json_t *seen, json_t *groups)
{
	static const char *const known[] = {"name", "machines", "before", "after", "on_failure", NULL};
	_cleanup_json_ json_t *full = json_object();
	const char *name = json_string_value(json_object_get(group, "name"));
	char where[64];
	int r;

	snprintf(where, sizeof(where), "group %zu", n + 1);
	if (full == NULL)
		return no_memory();
	if (!json_is_object(group) || (json_object_get(group, "name") != NULL &&
				       (name == NULL || name[0] == '\0' || strlen(name) >= LB_PLAN_GROUP_NAME_BYTES)))
		return lb_fail(-EINVAL, "%s: a group is an object; its \"name\" is a text of less than %d characters",
			       where, LB_PLAN_GROUP_NAME_BYTES);
	r = lb_plan_members(group, where, known);
	r = r < 0 ? r : check_choice(group, where, "on_failure", failure_choices);
	if (r < 0)
		return r;
	if (name != NULL && json_object_set(full, "name", json_object_get(group, "name")) < 0)
		return no_memory();
	if (json_object_get(group, "on_failure") != NULL &&
	    json_object_set(full, "on_failure", json_object_get(group, "on_failure")) < 0)
		return no_memory();
	r = set_default(full, "on_failure", json_string("stop"));
	r = r < 0 ? r : read_machines(group, where, seen, full);
	r = r < 0 ? r : read_actions(group, where, "before", full);
	r = r < 0 ? r : read_actions(group, where, "after", full);
	if (r < 0)
		return r;
	return json_array_append(groups, full) < 0 ? no_memory() : 0;
}

int lb_plan_read(const json_t *body, json_t **ret_plan)
{
	static const char *const known[] = {"name", "description", "groups", NULL};
	const json_t *from = json_object_get(body, "groups"), *group,
		     *description = json_object_get(body, "description");
	_cleanup_json_ json_t *groups = json_array(), *seen = json_object(), *plan = NULL;
	const char *name;
	size_t i;
	int r;

	r = lb_plan_members(body, "the plan", known);
	r = r < 0 ? r : lb_json_get_str(body, "name", &name);
	r = r < 0 ? r : lb_name_check("plan", name);
	if (r < 0)
		return lb_wrap(-EINVAL, "a recovery plan");
	if (description != NULL &&
	    (!json_is_string(description) || json_string_length(description) > LB_PLAN_TEXT_BYTES_MAX))
		return lb_fail(-EINVAL, "\"description\" is a text of at most %d characters", LB_PLAN_TEXT_BYTES_MAX);
	if (!json_is_array(from) || json_array_size(from) == 0 || json_array_size(from) > LB_PLAN_GROUPS_MAX)
		return lb_fail(-EINVAL, "plan %s: \"groups\" is a list of 1 to %d groups", name, LB_PLAN_GROUPS_MAX);
	json_array_foreach(from, i, group)
	{
		r = read_group(group, i, seen, groups);
		if (r < 0)
			return lb_wrap(r, "plan %s", name);
	}
	if (json_object_size(seen) == 0)
		return lb_fail(-EINVAL, "plan %s has no machine", name);
	plan = json_pack("{s:s,s:s,s:O}", "name", name, "description",
			 description != NULL ? json_string_value(description) : "", "groups", groups);
	if (plan == NULL)
		return no_memory();
	r = lb_plan_homes_check(plan);
	if (r == 0)
		*ret_plan = lb_steal_ptr(plan);
	return r < 0 ? lb_wrap(r, "plan %s", name) : 0;
}

size_t lb_plan_groups(const json_t *plan)
{
	return json_array_size(json_object_get(plan, "groups"));
}

const json_t *lb_plan_group(const json_t *plan, size_t n)
{
	return json_array_get(json_object_get(plan, "groups"), n);
}

const char *lb_plan_group_name(const json_t *plan, size_t n, char text[LB_PLAN_GROUP_NAME_BYTES])
{
	const char *name = json_string_value(json_object_get(lb_plan_group(plan, n), "name"));

	if (name != NULL)
		snprintf(text, LB_PLAN_GROUP_NAME_BYTES, "%s", name);
	else
		snprintf(text, LB_PLAN_GROUP_NAME_BYTES, "group %zu", n + 1);
	return text;
}

bool lb_plan_action_applies(const json_t *action, const char *kind)
{
	const char *wanted = json_string_value(json_object_get(action, "for"));

	/* "both" are the ways there: what moves a name or an address there must not do so again on the way home */
	if (wanted == NULL || strcmp(wanted, "both") == 0)
		return strcmp(kind, "failback") != 0;
	return strcmp(wanted, kind) == 0;
}

int lb_plan_order(const json_t *machine, bool live, const char *point, json_t **ret_body)
{
	static const char *const live_only[] = {"network", "address", "mac", "shutdown_source", "wait_drained"};
	_cleanup_json_ json_t *body = json_deep_copy(machine);

	if (body == NULL)
		return no_memory();
	for (size_t i = 0; !live && i < LB_ARRAY_LEN(live_only); i++)
		json_object_del(body, live_only[i]);
	if (!live && json_object_get(machine, "test_network") != NULL &&
	    json_object_set(body, "network", json_object_get(machine, "test_network")) < 0)
		return no_memory();
	json_object_del(body, "test_network");
	json_object_del(body, "home");
	if (json_object_set_new(body, "kind", json_string(live ? "live" : "test")) < 0 ||
	    json_object_set_new(body, "point", json_string(point)) < 0)
		return no_memory();
	*ret_body = lb_steal_ptr(body);
	return 0;
}

int lb_plan_double(const json_t *machine, bool live, char *double_name)
{
	const char *name = json_string_value(json_object_get(machine, "name"));
	const char *base = name != NULL ? name : json_string_value(json_object_get(machine, "machine"));
	int n;

	n = snprintf(double_name, LB_VM_NAME_BYTES, "%s%s", base, !live ? "-test" : name != NULL ? "" : "-double");
	if (n >= LB_VM_NAME_BYTES)
		return lb_fail(-EINVAL,
			       "machine %s: the name of its double would be too long; give it a shorter \"name\"",
			       base);
	return lb_name_check("double", double_name);
}

int lb_plan_each(const json_t *plan, int (*fn)(void *arg, size_t group, const json_t *machine), void *arg)
{
	const json_t *group, *machine;
	size_t i, k;
	int r;

	json_array_foreach(json_object_get(plan, "groups"), i, group)
	{
		json_array_foreach(json_object_get(group, "machines"), k, machine)
		{
			r = fn(arg, i, machine);
			if (r != 0)
				return r;
		}
	}
	return 0;
}
