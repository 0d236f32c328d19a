/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/catalog.h"
#include "vault/points.h"

static const char *text_of(const json_t *object, const char *member)
{
	const json_t *v = json_object_get(object, member);

	return json_is_string(v) ? json_string_value(v) : "";
}

static const char *mark(const char *health)
{
	bool color = isatty(STDOUT_FILENO);

	if (strcmp(health, "ok") == 0)
		return color ? "\033[32mok      \033[0m" : "ok      ";
	if (strcmp(health, "warning") == 0)
		return color ? "\033[33mwarning \033[0m" : "warning ";
	return color ? "\033[31mcritical\033[0m" : "critical";
}

static void print_point(const struct cli *c, const json_t *m)
{
	char when[LB_TIME_TEXT_BYTES], age[CLI_AGE_BYTES];
	const json_t *point = json_object_get(m, "point_ns"), *proven = json_object_get(m, "proven_ns");

	if (!json_is_true(json_object_get(m, "recoverable")) || !json_is_integer(point)) {
		printf("can NOT be recovered yet");
	} else {
		int64_t t = json_integer_value(point);

		printf("recoverable to %s (%s ago)", lb_time_format(t, when), cli_age(lb_now_ns(c->env) - t, age));
	}
	if (json_is_integer(proven))
		printf(", proven %s ago", cli_age(lb_now_ns(c->env) - json_integer_value(proven), age));
	else
		printf(", never proven by a test failover");
}

static void print_reasons(const json_t *reasons)
{
	const json_t *reason;
	size_t i;

	json_array_foreach(reasons, i, reason)
	{
		printf("           %s\n", text_of(reason, "text"));
		if (text_of(reason, "cure")[0] != '\0')
			printf("           -> %s\n", text_of(reason, "cure"));
	}
}

static void print_machine(const struct cli *c, const json_t *m)
{
	const json_t *progress = json_object_get(m, "progress");
	char done[LB_SIZE_TEXT_BYTES], total[LB_SIZE_TEXT_BYTES];

	printf("%s %s: ", mark(text_of(m, "health")), text_of(m, "name"));
	print_point(c, m);
	printf("; %s", text_of(m, "state"));
	if (json_is_object(progress) && json_integer_value(json_object_get(progress, "total_bytes")) > 0)
		printf(" %s of %s",
		       lb_size_format((uint64_t)json_integer_value(json_object_get(progress, "done_bytes")), done),
		       lb_size_format((uint64_t)json_integer_value(json_object_get(progress, "total_bytes")), total));
	printf("\n");
	print_reasons(json_object_get(m, "reasons"));
}

static int status_server(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *m;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/status", NULL, &reply);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(reply, "machines"), i, m)
	{
		if (strcmp(text_of(m, "health"), "ok") != 0)
			c->degraded = true;
		if (c->json || (c->n_args > 0 && strcmp(c->args[0], text_of(m, "name")) != 0))
			continue;
		print_machine(c, m);
	}
	if (c->json)
		return cli_print_json("status", json_incref(reply));
	if (json_array_size(json_object_get(reply, "machines")) == 0)
		printf("No machine is enrolled. `lifeboat token create` makes the token with which one enrols.\n");
	json_array_foreach(json_object_get(reply, "servers"), i, m)
	{
		printf("%s server %s (%s) %s\n", mark(text_of(m, "health")), text_of(m, "name"), text_of(m, "kind"),
		       text_of(m, "text"));
		if (text_of(m, "cure")[0] != '\0')
			printf("           -> %s\n", text_of(m, "cure"));
	}
	return 0;
}

static int status_of_vault_machine(void *arg, const struct lb_uuid *machine)
{
	struct cli *c = ((void **)arg)[0];
	json_t *list = ((void **)arg)[1], *j;
	struct lb_catalog_item item;
	struct lb_point point;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, id);
	r = lb_catalog_get(c->vault, machine, &item);
	if (r < 0)
		snprintf(item.name, sizeof(item.name), "%s", id);
	r = lb_point_find(c->vault, machine, "latest", &point);
	if (r < 0) {
		c->degraded = true;
		j = json_pack("{s:s,s:s,s:s,s:b,s:s,s:[{s:s,s:s}]}", "id", id, "name", item.name, "health", "critical",
			      "recoverable", 0, "state", "in the vault", "reasons", "text", lb_err_text(), "cure", "");
	} else {
		j = json_pack("{s:s,s:s,s:s,s:b,s:I,s:s,s:[]}", "id", id, "name", item.name, "health", "ok",
			      "recoverable", 1, "point_ns", (json_int_t)point.until_ns, "state", "in the vault",
			      "reasons");
	}
	return json_array_append_new(list, j) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

static int status_vault(struct cli *c)
{
	_cleanup_json_ json_t *list = json_array();
	void *arg[] = {c, list};
	const json_t *m;
	size_t i;
	int r;

	r = cli_vault_open(c);
	if (r < 0)
		return r;
	r = lb_vault_machines(c->vault, status_of_vault_machine, arg);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("status", json_pack("{s:O,s:[]}", "machines", list, "servers"));
	json_array_foreach(list, i, m) print_machine(c, m);
	return 0;
}

int cmd_status(struct cli *c)
{
	return cli_is_direct(c) ? status_vault(c) : status_server(c);
}
