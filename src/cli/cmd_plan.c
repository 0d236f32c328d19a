/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery plans by order to the configuration server; with --vault, plan_direct.c does it here. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/plan_direct.h"
#include "fabric/plan.h"

#define PLAN_FILE_BYTES_MAX (1u << 20)

/* ---- showing ----------------------------------------------------------------------------------------------- */

static size_t machines_of(const json_t *plan)
{
	size_t n = 0, i;
	const json_t *group;

	json_array_foreach(json_object_get(plan, "groups"), i, group) n +=
		json_array_size(json_object_get(group, "machines"));
	return n;
}

static void print_actions(const json_t *group, const char *member)
{
	const json_t *action;
	size_t i;

	json_array_foreach(json_object_get(group, member), i, action)
	{
		const char *script = cli_text(action, "script"), *kind = cli_text(action, "for");

		printf("  %-7s", member);
		if (script[0] != '\0')
			printf("script %s, at most %" JSON_INTEGER_FORMAT " s%s", script,
			       cli_number(action, "timeout_s"),
			       strcmp(cli_text(action, "on_failure"), "continue") == 0 ? ", goes on when it fails"
										       : "");
		else
			printf("a person: %s", cli_text(action, "manual"));
		printf("%s%s\n", strcmp(kind, "both") == 0 ? "" : ", only in a ",
		       strcmp(kind, "both") == 0 ? "" : kind);
	}
}

static void print_machine(const json_t *machine)
{
	json_t *home = json_object_get(machine, "home"), *to = json_object_get(home, "to"), *path;
	const json_t *boot = json_object_get(home, "boot");
	const char *disk;

	printf("  machine %s", cli_text(machine, "machine"));
	if (cli_text(home, "target")[0] != '\0')
		printf(", home by %s%s", cli_text(home, "target"), json_is_string(to) ? ", its disks as they fit" : "");
	json_object_foreach(to, disk, path) printf(" %s=%s", disk, json_string_value(path));
	if (boot != NULL)
		printf(", then started by %s %s", cli_text(boot, "hook")[0] != '\0' ? "hook" : "domain",
		       cli_text(boot, "hook")[0] != '\0' ? cli_text(boot, "hook") : cli_text(boot, "domain"));
	printf("\n");
}

static void print_job(const json_t *plan)
{
	const json_t *job = json_object_get(plan, "job"), *result = json_object_get(job, "result"), *one;
	const json_t *waiting = json_object_get(result, "waiting");
	const char *name;

	if (!json_is_object(job))
		return;
	printf("Last order: %s by %s, %s%s%s (job %s)\n", cli_text(job, "kind"), cli_text(job, "made_by"),
	       cli_text(job, "state"), cli_text(job, "error")[0] != '\0' ? ": " : "", cli_text(job, "error"),
	       cli_text(job, "id"));
	json_object_foreach(json_object_get((json_t *)result, "machines"), name, one)
		printf("  %-24s %-24s %s%s%s\n", name, cli_text(one, "double"), cli_text(one, "state"),
		       cli_text(one, "error")[0] != '\0' ? ": " : "", cli_text(one, "error"));
	if (json_is_object(waiting))
		printf("It waits for a person: %s\n  lifeboat plan confirm %s --action %s\n", cli_text(waiting, "text"),
		       cli_text(plan, "name"), cli_text(waiting, "action"));
}

static void print_plan(const json_t *plan)
{
	char name[LB_PLAN_GROUP_NAME_BYTES];

	printf("%s: %zu groups, %zu machines. %s\n", cli_text(plan, "name"), lb_plan_groups(plan), machines_of(plan),
	       cli_text(plan, "description"));
	for (size_t i = 0; i < lb_plan_groups(plan); i++) {
		const json_t *group = lb_plan_group(plan, i), *machine;
		size_t k;

		printf("%zu. %s\n", i + 1, lb_plan_group_name(plan, i, name));
		print_actions(group, "before");
		json_array_foreach(json_object_get(group, "machines"), k, machine) print_machine(machine);
		print_actions(group, "after");
	}
	print_job(plan);
}

int cmd_plan_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *plan;
	size_t i;
	int r;

	r = cli_is_direct(c) ? cli_plan_list_direct(c, &reply) : cli_call(c, "GET", "/v1/plan", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("plans", json_incref(reply));
	if (json_array_size(json_object_get(reply, "plans")) == 0)
		printf("There are no recovery plans; `lifeboat plan create FILE` makes one.\n");
	else
		printf("%-24s %-7s %-9s %s\n", "PLAN", "GROUPS", "MACHINES", "LAST ORDER");
	json_array_foreach(json_object_get(reply, "plans"), i, plan)
	{
		const json_t *job = json_object_get(plan, "job");

		printf("%-24s %-7zu %-9zu %s %s%s\n", cli_text(plan, "name"), lb_plan_groups(plan), machines_of(plan),
		       cli_text(job, "kind"), cli_text(job, "state"),
		       json_is_object(json_object_get(json_object_get(job, "result"), "waiting")) ? " (for a person)"
												  : "");
	}
	return 0;
}

int cmd_plan_show(struct cli *c)
{
	_cleanup_json_ json_t *plan = NULL;
	int r;

	r = cli_is_direct(c) ? cli_plan_get_direct(c, c->args[0], &plan)
			     : cli_callf(c, "GET", NULL, &plan, "/v1/plan/%s", c->args[0]);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("plan", json_incref(plan));
	print_plan(plan);
	return 0;
}

/* ---- making -------------------------------------------------------------------------------------------------- */

static int read_file(struct cli *c, json_t **ret_plan)
{
	_cleanup_free_ uint8_t *text = NULL;
	_cleanup_json_ json_t *body = NULL;
	size_t size_bytes;
	int r;

	r = lb_file_read(c->env, c->args[0], PLAN_FILE_BYTES_MAX, &text, &size_bytes);
	r = r < 0 ? r : lb_json_parse(text, size_bytes, PLAN_FILE_BYTES_MAX, &body);
	if (r < 0)
		return lb_wrap(r == -EBADMSG ? -EINVAL : r, "%s", c->args[0]);
	/* what `plan show -o json` prints can be written back */
	json_object_del(body, "job");
	r = lb_plan_read(body, ret_plan);
	return r < 0 ? lb_wrap(r, "%s", c->args[0]) : 0;
}

static int store(struct cli *c, const char *method, bool is_new)
{
	_cleanup_json_ json_t *plan = NULL, *reply = NULL;
	char path[128];
	int r;

	r = read_file(c, &plan);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "%s recovery plan %s: %zu groups, %zu machines", is_new ? "make" : "replace",
				 cli_text(plan, "name"), lb_plan_groups(plan), machines_of(plan));
	snprintf(path, sizeof(path), is_new ? "/v1/plan" : "/v1/plan/%s", cli_text(plan, "name"));
	r = cli_call(c, method, path, plan, &reply);
	return r < 0 ? r
		     : cli_did(c, "plan", json_incref(reply),
			       "Recovery plan %s is %s; `lifeboat plan test %s` tries it.", cli_text(plan, "name"),
			       is_new ? "made" : "changed", cli_text(plan, "name"));
}

int cmd_plan_create(struct cli *c)
{
	return store(c, "POST", true);
}

int cmd_plan_update(struct cli *c)
{
	return store(c, "PUT", false);
}

int cmd_plan_delete(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = cli_confirm(c, "delete the recovery plan", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "delete recovery plan %s", c->args[0]);
	r = cli_callf(c, "DELETE", NULL, &reply, "/v1/plan/%s", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "plan", json_incref(reply), "Recovery plan %s is gone; its doubles stay.",
			       c->args[0]);
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

static int order(struct cli *c, const char *verb, const char *said)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL, *job = NULL, *plan = NULL;
	int r = 0;

	if (cli_value(c, "point") != NULL)
		r = lb_json_set_str(body, "point", cli_value(c, "point"));
	if (r == 0 && cli_value(c, "note") != NULL)
		r = lb_json_set_str(body, "note", cli_value(c, "note"));
	if (r == 0 && c->dry_run) {
		r = cli_callf(c, "GET", NULL, &plan, "/v1/plan/%s", c->args[0]);
		return r < 0 ? r
			     : cli_would(c, "%s recovery plan %s: %zu machines", verb, c->args[0], machines_of(plan));
	}
	r = r < 0 ? r : cli_callf(c, "POST", body, &reply, "/v1/plan/%s/%s", c->args[0], verb);
	r = r < 0 ? r : cli_order_follow(c, reply, &job);
	if (r != 0)
		return r < 0 ? r : 0; /* without waiting */
	return cli_did(c, "job", json_incref(job), "Plan %s %s.", c->args[0], said);
}

int cmd_plan_test(struct cli *c)
{
	return cli_is_direct(c) ? cli_plan_run_direct(c, false)
				: order(c, "test", "has its test doubles; `lifeboat plan cleanup` removes them");
}

int cmd_plan_failover(struct cli *c)
{
	int r = cli_confirm(c, "fence all machines, and start the doubles, of plan", c->args[0]);

	if (r < 0)
		return r;
	return cli_is_direct(c) ? cli_plan_run_direct(c, true)
				: order(c, "failover", "is failed over: its doubles run");
}

int cmd_plan_commit(struct cli *c)
{
	if (cli_is_direct(c))
		return cli_plan_commit_direct(c);
	return order(c, "commit", "is committed: its doubles stand by themselves");
}

int cmd_plan_cleanup(struct cli *c)
{
	int r = cli_confirm(c, "destroy the test doubles of plan", c->args[0]);

	if (r < 0)
		return r;
	return cli_is_direct(c) ? cli_plan_cleanup_direct(c) : order(c, "cleanup", "has no test doubles any more");
}

int cmd_plan_confirm(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL;
	int r = 0;

	if (cli_value(c, "action") != NULL)
		r = lb_json_set_str(body, "action", cli_value(c, "action"));
	if (r == 0 && c->dry_run)
		return cli_would(c, "confirm what plan %s waits for", c->args[0]);
	r = r < 0 ? r : cli_callf(c, "POST", body, &reply, "/v1/plan/%s/confirm", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "plan", json_incref(reply), "Confirmed: %s. Plan %s goes on.",
			       cli_text(json_object_get(reply, "confirmed"), "text"), c->args[0]);
}
