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
	int64_t point_ns = cli_number(m, "point_ns"), proven_ns = cli_number(m, "proven_ns");

	if (!json_is_true(json_object_get(m, "recoverable")) || point_ns == 0) {
		printf("can NOT be recovered yet");
		return;
	}
	printf("recoverable to %s (%s ago)", lb_time_format(point_ns, when),
	       cli_age(lb_now_ns(c->env) - point_ns, age));
	if (proven_ns > 0)
		printf(", proven %s ago", cli_age(lb_now_ns(c->env) - proven_ns, age));
	else
		printf(", never proven");
}

static void print_reasons(const json_t *reasons)
{
	const json_t *reason;
	size_t i;

	json_array_foreach(reasons, i, reason)
	{
		printf("           %s\n", cli_text(reason, "text"));
		if (cli_text(reason, "cure")[0] != '\0')
			printf("           -> %s\n", cli_text(reason, "cure"));
	}
}

static void print_machine(const struct cli *c, const json_t *m)
{
	const json_t *progress = json_object_get(m, "progress");
	char done[LB_SIZE_TEXT_BYTES], total[LB_SIZE_TEXT_BYTES];

	printf("%s %s: ", mark(cli_text(m, "health")), cli_text(m, "name"));
	print_point(c, m);
	printf("; %s", cli_text(m, "state"));
	if (cli_number(progress, "total_bytes") > 0)
		printf(" %s of %s", lb_size_format((uint64_t)cli_number(progress, "done_bytes"), done),
		       lb_size_format((uint64_t)cli_number(progress, "total_bytes"), total));
	if (cli_number(m, "bandwidth_bytes_per_s") > 0)
		printf("; limited to %s/s now", lb_size_format((uint64_t)cli_number(m, "bandwidth_bytes_per_s"), done));
	printf("\n");
	print_reasons(json_object_get(m, "reasons"));
}

/* ---- one shape, whether the server or the vault is asked ------------------------------------------------ */

/* Only the machine that was asked for stays in the list. */
static int choose(const struct cli *c, json_t *reply)
{
	_cleanup_json_ json_t *chosen = json_array();
	json_t *m;
	size_t i;

	if (c->n_args == 0)
		return 0;
	json_array_foreach(json_object_get(reply, "machines"), i, m)
	{
		if (strcmp(c->args[0], cli_text(m, "name")) == 0 || strcmp(c->args[0], cli_text(m, "id")) == 0)
			json_array_append(chosen, m);
	}
	if (json_array_size(chosen) == 0)
		return lb_fail(-ENOENT, "there is no machine \"%.64s\"; `lifeboat machine list` shows them",
			       c->args[0]);
	return json_object_set(reply, "machines", chosen) < 0 ? lb_fail(-ENOMEM, "out of memory for a status") : 0;
}

static int count(const struct cli *c, json_t *reply)
{
	const json_t *machines = json_object_get(reply, "machines"), *m;
	json_int_t recoverable = 0;
	size_t i;

	json_array_foreach(machines, i, m) recoverable += json_is_true(json_object_get(m, "recoverable"));
	if (json_object_set_new(reply, "summary",
				json_pack("{s:I,s:I}", "machines", (json_int_t)json_array_size(machines), "recoverable",
					  recoverable)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a status");
	if (!c->json && json_array_size(machines) > 1)
		printf("%" JSON_INTEGER_FORMAT " of %zu machines can be recovered.\n", recoverable,
		       json_array_size(machines));
	return 0;
}

static void find_degraded(struct cli *c, const json_t *list)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		if (strcmp(cli_text(one, "health"), "ok") != 0)
			c->degraded = true;
	}
}

static void print_servers(const json_t *servers)
{
	const json_t *s;
	size_t i;

	json_array_foreach(servers, i, s)
	{
		printf("%s server %s (%s) %s\n", mark(cli_text(s, "health")), cli_text(s, "name"), cli_text(s, "kind"),
		       cli_text(s, "text"));
		if (cli_text(s, "cure")[0] != '\0')
			printf("           -> %s\n", cli_text(s, "cure"));
	}
}

static int tell(struct cli *c, json_t *reply, const char *nothing)
{
	const json_t *machines, *servers = json_object_get(reply, "servers"), *m;
	size_t i;
	int r;

	r = choose(c, reply);
	if (r == 0)
		r = count(c, reply);
	if (r < 0)
		return r;
	machines = json_object_get(reply, "machines");
	find_degraded(c, machines);
	find_degraded(c, servers);
	if (c->json)
		return cli_print_json("status", json_incref(reply));
	json_array_foreach(machines, i, m) print_machine(c, m);
	if (json_array_size(machines) == 0)
		printf("%s\n", nothing);
	print_servers(servers);
	return 0;
}

static int status_server(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = cli_call(c, "GET", "/v1/status", NULL, &reply);
	if (r < 0)
		return r;
	return tell(c, reply, "No machine is enrolled. `lifeboat token create` makes the token with which one enrols.");
}

/* ---- the vault alone ------------------------------------------------------------------------------------ */

static json_t *unrecoverable(const char *id, const char *name, const char *why)
{
	char cure[LB_MACHINE_NAME_BYTES + 40];

	snprintf(cure, sizeof(cure), "lifeboat vault verify %s", name);
	return json_pack("{s:s,s:s,s:s,s:b,s:n,s:n,s:s,s:n,s:n,s:[{s:s,s:s}]}", "id", id, "name", name, "health",
			 "critical", "recoverable", 0, "point_ns", "rpo_s", "state", "in the vault", "progress",
			 "proven_ns", "reasons", "text", why, "cure", cure);
}

static json_t *recoverable(const struct cli *c, const char *id, const char *name, const struct lb_point *point)
{
	int64_t until_ns = LB_MAX(point->time_ns, point->until_ns);

	return json_pack("{s:s,s:s,s:s,s:b,s:I,s:I,s:s,s:n,s:n,s:[]}", "id", id, "name", name, "health", "ok",
			 "recoverable", 1, "point_ns", (json_int_t)until_ns, "rpo_s",
			 (json_int_t)((lb_now_ns(c->env) - until_ns) / LB_NS_PER_S), "state", "in the vault",
			 "progress", "proven_ns", "reasons");
}

struct machines {
	const struct cli *c;
	json_t *bad, *good;
	struct lb_catalog_item item;
};

static int status_of_vault_machine(void *arg, const struct lb_uuid *machine)
{
	struct machines *all = arg;
	struct lb_point point;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, id);
	r = lb_catalog_get(all->c->vault, machine, &all->item);
	if (r < 0)
		snprintf(all->item.name, sizeof(all->item.name), "%s", id);
	r = lb_point_find(all->c->vault, machine, "latest", &point);
	if (r < 0)
		r = json_array_append_new(all->bad, unrecoverable(id, all->item.name, lb_err_text()));
	else
		r = json_array_append_new(all->good, recoverable(all->c, id, all->item.name, &point));
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for a status") : 0;
}

static int status_vault(struct cli *c)
{
	_cleanup_json_ json_t *bad = json_array(), *good = json_array(), *reply = NULL;
	_cleanup_free_ struct machines *all = calloc(1, sizeof(*all));
	int r;

	if (all == NULL || bad == NULL || good == NULL)
		return lb_fail(-ENOMEM, "out of memory for a status");
	*all = (struct machines){.c = c, .bad = bad, .good = good};
	r = cli_vault_open(c);
	if (r == 0)
		r = lb_vault_machines(c->vault, status_of_vault_machine, all);
	if (r < 0)
		return r;
	json_array_extend(bad, good);
	reply = json_pack("{s:O,s:[]}", "machines", bad, "servers");
	if (reply == NULL)
		return lb_fail(-ENOMEM, "out of memory for a status");
	return tell(c, reply, "The vault holds no machine.");
}

int cmd_status(struct cli *c)
{
	return cli_is_direct(c) ? status_vault(c) : status_server(c);
}
