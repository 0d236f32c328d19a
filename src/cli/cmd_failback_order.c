/* SPDX-License-Identifier: Apache-2.0 */
/* The way home as orders to a target server, which writes onto the disks of its own host. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"

bool cli_is_ordered(const struct cli *c)
{
	return cli_value(c, "target") != NULL;
}

static int set_to(const struct cli *c, json_t *body)
{
	_cleanup_free_ char *list = NULL;
	json_t *to;
	char *rest, *one;

	if (cli_value(c, "to") == NULL)
		return 0; /* as the order before it had them */
	if (strcmp(cli_value(c, "to"), "auto") == 0)
		return lb_json_set_str(body, "to", "auto");
	to = json_object();
	rest = list = strdup(cli_value(c, "to"));
	if (list == NULL || json_object_set_new(body, "to", to) < 0)
		return lb_fail(-ENOMEM, "out of memory for an order");
	while ((one = strsep(&rest, ",")) != NULL) {
		char *equals = strchr(one, '=');

		if (equals == NULL)
			return lb_fail(-EINVAL, "--to takes DISK=PATH[,DISK=PATH...], not \"%.60s\"", one);
		*equals = '\0';
		if (json_object_set_new(to, one, json_string(equals + 1)) < 0)
			return lb_fail(-EINVAL, "\"%.60s\" is no name of a disk", one);
	}
	return 0;
}

static int set_numbers(const struct cli *c, json_t *body)
{
	uint64_t points = 0, count = 0, bytes;
	int r;

	r = cli_value_u64(c, "keep-points", 64, &points);
	if (r == 0 && cli_value(c, "keep-points") != NULL)
		r = lb_json_set_u64(body, "undo_points", points);
	if (r == 0 && cli_value(c, "keep") != NULL) {
		r = lb_size_parse(cli_value(c, "keep"), &bytes);
		r = r < 0 ? r : lb_json_set_u64(body, "undo_bytes", bytes);
	}
	r = r < 0 ? r : cli_value_u64(c, "points", 64, &count);
	if (r == 0 && cli_value(c, "points") != NULL)
		r = lb_json_set_u64(body, "points", count);
	return r;
}

int cli_target_disks(const struct cli *c, json_t *body)
{
	static const char *const flags[] = {"some", "overwrite"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(flags) / sizeof(flags[0]); i++)
		if (cli_value(c, flags[i]) != NULL)
			r = lb_json_set_bool(body, flags[i], true);
	r = r < 0 ? r : set_to(c, body);
	return r < 0 ? r : set_numbers(c, body);
}

static int make_body(const struct cli *c, const char *kind, json_t **ret_body)
{
	static const char *const texts[] = {"point", "domain", "uri", "hook"};
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "kind", kind, "machine", c->args[0]);
	int r = body == NULL ? lb_fail(-ENOMEM, "out of memory for an order") : 0;

	for (size_t i = 0; r == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
		if (cli_value(c, texts[i]) != NULL)
			r = lb_json_set_str(body, texts[i], cli_value(c, texts[i]));
	r = r < 0 ? r : cli_target_disks(c, body);
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

static int told(struct cli *c, const char *kind, json_t *job)
{
	const json_t *result = json_object_get(job, "result"), *one;
	size_t i;

	if (!c->json)
		json_array_foreach(json_object_get(result, "findings"), i, one)
			printf("%-8s %s\n", cli_text(one, "level"), cli_text(one, "text"));
	return cli_did(c, "job", json_incref(job), "%s, target server %s: %s: %s.", c->args[0], cli_value(c, "target"),
		       kind, cli_text(result, "text"));
}

int cli_target_order(struct cli *c, const char *kind)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL, *job = NULL;
	const char *id;
	int r;

	if (cli_is_direct(c) || cli_value(c, "state") != NULL)
		return lb_fail(-EINVAL,
			       "--target SERVER orders a target server about; --vault and --state are for work "
			       "on this host");
	r = make_body(c, kind, &body);
	r = r < 0 ? r : cli_callf(c, "POST", body, &reply, "/v1/server/%s/order", cli_value(c, "target"));
	r = r < 0 ? r : lb_json_get_str(reply, "job", &id);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return cli_did(c, "job", json_incref(reply), "Ordered; `lifeboat job watch %s` follows it.", id);
	r = cli_job_follow(c, id, &job);
	return r < 0 ? r : told(c, kind, job);
}

/* A command that is for target servers alone. */
static int need_target(const struct cli *c)
{
	return cli_is_ordered(c) ? 0 : lb_fail(-EINVAL, "which target server? Give --target SERVER");
}

int cmd_failback_drop(struct cli *c)
{
	int r;

	r = need_target(c);
	r = r < 0 ? r : cli_confirm(c, "let its target server forget what it wrote of", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "let target server %s go of the disks of %s, as they are", cli_value(c, "target"),
				 c->args[0]);
	return cli_target_order(c, "drop");
}

int cmd_failback_boot(struct cli *c)
{
	int r;

	r = need_target(c);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "start the original of %s by target server %s", c->args[0], cli_value(c, "target"));
	return cli_target_order(c, "boot");
}

int cmd_failback_halt(struct cli *c)
{
	int r;

	r = need_target(c);
	r = r < 0 ? r : cli_confirm(c, "turn off the original of", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "turn the original of %s off by target server %s", c->args[0],
				 cli_value(c, "target"));
	return cli_target_order(c, "halt");
}

int cmd_server_show(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *one;
	size_t i;
	int r;

	r = cli_callf(c, "GET", NULL, &reply, "/v1/server/%s", c->args[0]);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("server", json_incref(reply));
	printf("%-10s %s\n%-10s %s\n%-10s %s: %s\n", "name", cli_text(reply, "name"), "kind", cli_text(reply, "kind"),
	       "health", cli_text(reply, "health"), cli_text(reply, "text"));
	if (cli_text(reply, "cure")[0] != '\0')
		printf("%-10s %s\n", "cure", cli_text(reply, "cure"));
	json_array_foreach(json_object_get(reply, "order_list"), i, one)
	{
		const json_t *report = json_object_get(one, "report");
		const char *name = cli_text(one, "machine_name");
		json_int_t total = cli_number(report, "total_bytes");

		printf("%-8s %-10s %-24s %s", cli_text(one, "kind"), cli_text(one, "state"),
		       name[0] != '\0' ? name : cli_text(one, "machine"), cli_text(report, "text"));
		if (strcmp(cli_text(one, "state"), "running") == 0 && total > 0)
			printf(" (%d%%)", (int)(cli_number(report, "done_bytes") * 100 / total));
		printf("\n");
	}
	return 0;
}
