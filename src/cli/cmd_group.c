/* SPDX-License-Identifier: Apache-2.0 */
/* Replication groups, by order to the configuration server. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"

#define POINTS_SHOWN_MAX 20

static void print_group(const json_t *g)
{
	const json_t *m;
	size_t i;

	printf("%-24s every %" JSON_INTEGER_FORMAT " s", cli_text(g, "name"), cli_number(g, "interval_s"));
	if (cli_number(g, "app_interval_s") > 0)
		printf(", application-consistent every %" JSON_INTEGER_FORMAT " s", cli_number(g, "app_interval_s"));
	printf(":");
	json_array_foreach(json_object_get(g, "members"), i, m) printf(" %s", cli_text(m, "name"));
	printf("\n");
}

int cmd_group_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *g;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/group", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("groups", json_incref(reply));
	json_array_foreach(json_object_get(reply, "groups"), i, g) print_group(g);
	if (json_array_size(json_object_get(reply, "groups")) == 0)
		printf("There are no replication groups; `lifeboat group create` makes one.\n");
	return 0;
}

int cmd_group_show(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *p;
	size_t i;
	int r;

	r = cli_callf(c, "GET", NULL, &reply, "/v1/group/%s", c->args[0]);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("group", json_incref(reply));
	print_group(reply);
	printf("  shared points are kept by %s at all members alike (the longest of their policies)\n",
	       cli_text(reply, "retention"));
	json_array_foreach(json_object_get(reply, "points"), i, p)
	{
		char when[LB_TIME_TEXT_BYTES];

		if (i == POINTS_SHOWN_MAX)
			break;
		lb_time_format(cli_number(p, "made_ns"), when);
		printf("  %s  %-7s %-6s frozen %6.1f ms  shared:%s\n", when, cli_text(p, "state"),
		       json_is_true(json_object_get(p, "app")) ? "app" : "crash",
		       (double)cli_number(p, "frozen_ns") / (double)LB_NS_PER_MS, cli_text(p, "id"));
	}
	if (json_array_size(json_object_get(reply, "points")) == 0)
		printf("  no shared point yet\n");
	return 0;
}

static int set_intervals(const struct cli *c, json_t *body)
{
	static const char *const names[][2] = {{"interval", "interval_s"}, {"app-interval", "app_interval_s"}};
	uint64_t value;
	int r = 0;

	for (size_t i = 0; i < 2 && r == 0; i++) {
		if (cli_value(c, names[i][0]) == NULL)
			continue;
		r = cli_value_u64(c, names[i][0], INT32_MAX, &value);
		if (r == 0)
			r = lb_json_set_u64(body, names[i][1], value);
	}
	return r;
}

static int set_machines(const struct cli *c, json_t *body)
{
	const char *list = cli_value(c, "machines");
	_cleanup_free_ char *copy = list != NULL ? strdup(list) : NULL;
	json_t *machines = json_array();
	char *rest = copy, *one;

	if (json_object_set_new(body, "machines", machines) < 0 || (list != NULL && copy == NULL))
		return lb_fail(-ENOMEM, "out of memory");
	while (rest != NULL && (one = strsep(&rest, ",")) != NULL)
		if (json_array_append_new(machines, json_string(one)) < 0)
			return lb_fail(-EINVAL, "--machines takes names, by comma");
	return 0;
}

int cmd_group_create(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "name", c->args[0]), *reply = NULL;
	int r;

	r = set_intervals(c, body);
	if (r == 0)
		r = set_machines(c, body);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "make replication group %s", c->args[0]);
	r = cli_call(c, "POST", "/v1/group", body, &reply);
	return r < 0 ? r : cli_did(c, "group", json_incref(reply), "Replication group %s is made.", c->args[0]);
}

int cmd_group_set(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL;
	int r;

	r = set_intervals(c, body);
	if (r == 0 && json_object_size(body) == 0)
		return lb_fail(-EINVAL, "nothing to set; see `lifeboat group set --help`");
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "change replication group %s", c->args[0]);
	r = cli_callf(c, "PUT", body, &reply, "/v1/group/%s", c->args[0]);
	return r < 0 ? r : cli_did(c, "group", json_incref(reply), "Replication group %s is changed.", c->args[0]);
}

static int change(struct cli *c, const char *verb, const char *said)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "machine", c->args[1]), *reply = NULL;
	int r;

	if (c->dry_run)
		return cli_would(c, "%s %s: replication group %s", verb, c->args[1], c->args[0]);
	r = cli_callf(c, "POST", body, &reply, "/v1/group/%s/%s", c->args[0], verb);
	return r < 0 ? r : cli_did(c, "group", json_incref(reply), "%s %s %s.", c->args[1], said, c->args[0]);
}

int cmd_group_add(struct cli *c)
{
	return change(c, "add", "is in replication group");
}

int cmd_group_remove(struct cli *c)
{
	return change(c, "remove", "is no longer in replication group");
}

int cmd_group_delete(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = cli_confirm(c, "delete the replication group", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "delete replication group %s", c->args[0]);
	r = cli_callf(c, "DELETE", NULL, &reply, "/v1/group/%s", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "group", json_pack("{s:s}", "name", c->args[0]),
			       "Replication group %s is deleted; its points stay.", c->args[0]);
}
