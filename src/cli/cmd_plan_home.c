/* SPDX-License-Identifier: Apache-2.0 */
/* The way home of a plan's machines: what the command line says of each goes with the order. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"
#include "fabric/plan.h"

#define MACHINE_BYTES 80

static int no_memory(void)
{
	return lb_fail(-ENOMEM, "out of memory for an order");
}

static json_t *member(json_t *object, const char *name)
{
	json_t *there = json_object_get(object, name);

	if (there == NULL && json_object_set_new(object, name, json_object()) == 0)
		there = json_object_get(object, name);
	return there;
}

/* What one word of an option says of one machine. */
typedef int (*set_fn)(json_t *home, const char *word);

static int set_target(json_t *home, const char *word)
{
	return lb_json_set_str(home, "target", word);
}

static int set_to(json_t *home, const char *word)
{
	const char *equals = strchr(word, '=');
	char disk[MACHINE_BYTES];

	if (strcmp(word, "auto") == 0)
		return lb_json_set_str(home, "to", word);
	if (equals == NULL || equals == word || equals - word >= (int)sizeof(disk))
		return lb_fail(-EINVAL, "--to takes MACHINE:DISK=PATH[,...], not \"%.60s\"", word);
	snprintf(disk, sizeof(disk), "%.*s", (int)(equals - word), word);
	return lb_json_set_str(member(home, "to"), disk, equals + 1);
}

static int set_hook(json_t *home, const char *word)
{
	return lb_json_set_str(member(home, "boot"), "hook", word);
}

static int set_domain(json_t *home, const char *word)
{
	return lb_json_set_str(member(home, "boot"), "domain", word);
}

/* On a libvirt domain that was named for it. */
static int set_uri(json_t *home, const char *word)
{
	json_t *boot = json_object_get(home, "boot");

	return boot != NULL ? lb_json_set_str(boot, "uri", word) : 0;
}

static int set_flag(json_t *home, const char *word)
{
	return lb_json_set_bool(home, word, true);
}

struct all {
	json_t *homes;
	set_fn set;
	const char *word;
};

static int set_for(void *arg, size_t group, const json_t *machine)
{
	const struct all *a = arg;
	json_t *home = member(a->homes, cli_text(machine, "machine"));

	(void)group;
	return home != NULL ? a->set(home, a->word) : no_memory();
}

static int set_word(const json_t *plan, json_t *homes, set_fn set, const char *word)
{
	const char *colon = strchr(word, ':');
	char machine[MACHINE_BYTES];
	json_t *home;

	if (colon == NULL)
		return lb_plan_each(plan, set_for, &(struct all){homes, set, word});
	if (colon == word || colon - word >= (int)sizeof(machine))
		return lb_fail(-EINVAL, "\"%.60s\" names no machine before its colon", word);
	snprintf(machine, sizeof(machine), "%.*s", (int)(colon - word), word);
	home = member(homes, machine);
	return home != NULL ? set(home, colon + 1) : no_memory();
}

static int set_option(const struct cli *c, const json_t *plan, json_t *homes, const char *option, set_fn set)
{
	_cleanup_free_ char *list = NULL;
	char *rest, *word;
	int r = 0;

	if (cli_value(c, option) == NULL)
		return 0;
	rest = list = strdup(cli_value(c, option));
	if (list == NULL)
		return no_memory();
	while (r == 0 && (word = strsep(&rest, ",")) != NULL)
		r = set_word(plan, homes, set, word);
	return r < 0 ? r : 0;
}

static int set_homes(const struct cli *c, const json_t *plan, json_t *homes)
{
	static const char *const flags[] = {"some", "overwrite"};
	const char *uri = cli_value(c, "uri"); /* which has colons of its own */
	int r;

	r = set_option(c, plan, homes, "target", set_target);
	r = r < 0 ? r : set_option(c, plan, homes, "to", set_to);
	r = r < 0 ? r : set_option(c, plan, homes, "hook", set_hook);
	r = r < 0 ? r : set_option(c, plan, homes, "domain", set_domain);
	if (r == 0 && uri != NULL)
		r = lb_plan_each(plan, set_for, &(struct all){homes, set_uri, uri});
	for (size_t i = 0; r == 0 && i < sizeof(flags) / sizeof(flags[0]); i++)
		if (cli_value(c, flags[i]) != NULL)
			r = lb_plan_each(plan, set_for, &(struct all){homes, set_flag, flags[i]});
	return r;
}

static int make_body(struct cli *c, json_t **ret_body)
{
	_cleanup_json_ json_t *plan = NULL, *homes = json_object(), *body = json_object();
	uint64_t wait_s = 0;
	int r;

	if (homes == NULL || body == NULL)
		return no_memory();
	r = cli_callf(c, "GET", NULL, &plan, "/v1/plan/%s", c->args[0]);
	r = r < 0 ? r : set_homes(c, plan, homes);
	if (r == 0 && json_object_size(homes) > 0 && json_object_set(body, "home", homes) < 0)
		r = no_memory();
	if (r == 0 && c->dry_run)
		r = lb_json_set_bool(body, "dry_run", true);
	r = r < 0 ? r : cli_value_u64(c, "wait", LB_PLAN_HOME_WAIT_S_MAX, &wait_s);
	if (r == 0 && cli_value(c, "wait") != NULL)
		r = lb_json_set_u64(body, "wait_s", wait_s);
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

static int order(struct cli *c, const char *verb, const json_t *body, const char *said)
{
	_cleanup_json_ json_t *reply = NULL, *job = NULL;
	const char *id;
	int r;

	r = cli_callf(c, "POST", body, &reply, "/v1/plan/%s/%s", c->args[0], verb);
	r = r < 0 ? r : lb_json_get_str(reply, "job", &id);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL) {
		r = cli_order_follow(c, reply, &job);
		return r < 0 ? r : 0;
	}
	r = cli_follow_findings(c, id, &job);
	return r < 0 ? r : cli_did(c, "job", json_incref(job), "Plan %s %s.", c->args[0], said);
}

static int need_server(const struct cli *c)
{
	return cli_is_direct(c)
		       ? lb_fail(-EINVAL,
				 "only a configuration server leads a plan home; with --vault alone: `lifeboat "
				 "failback start` for each double")
		       : 0;
}

int cmd_plan_reprotect(struct cli *c)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = need_server(c);
	r = r < 0 ? r : make_body(c, &body);
	return r < 0 ? r
		     : order(c, "reprotect", body,
			     c->dry_run ? "could replicate back; nothing was begun"
					: "replicates back: each of its doubles as a machine of its own");
}

int cmd_plan_failback(struct cli *c)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = need_server(c);
	if (r == 0 && !c->dry_run)
		r = cli_confirm(c, "shut down for good the doubles of plan", c->args[0]);
	r = r < 0 ? r : make_body(c, &body);
	return r < 0 ? r
		     : order(c, "failback", body,
			     c->dry_run
				     ? "could go home; nothing was begun"
				     : "is at home; when its machines work, `lifeboat plan failback-commit` ends it");
}

int cmd_plan_failback_commit(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:b}", "new_hardware", cli_value(c, "new-hardware") != NULL);
	int r;

	r = need_server(c);
	r = r < 0 ? r
		  : cli_confirm(c, "let its machines replicate from home, and destroy, the doubles of plan",
				c->args[0]);
	if (r == 0 && c->dry_run)
		return cli_would(c, "give the machines of plan %s their replication back and destroy its doubles",
				 c->args[0]);
	return r < 0 ? r : order(c, "home", body, "replicates from home again; its doubles are gone");
}
