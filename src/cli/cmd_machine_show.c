/* SPDX-License-Identifier: Apache-2.0 */
/* `lifeboat machine show`: all that is known of one machine. */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/readiness.h"

static void line(const char *what, const char *text)
{
	if (*text != '\0')
		printf("  %-14s %s\n", what, text);
}

static void show_disks(const json_t *disks)
{
	char size[LB_SIZE_TEXT_BYTES];
	const json_t *d;
	size_t i;

	json_array_foreach(disks, i, d) printf("  %-14s %s, %s%s\n", i == 0 ? "disks" : "", cli_text(d, "name"),
					       lb_size_format((uint64_t)cli_number(d, "size_bytes"), size),
					       json_is_true(json_object_get(d, "boot")) ? ", boot" : "");
}

static void show_size(const char *what, json_int_t bytes, const char *unit)
{
	char size[LB_SIZE_TEXT_BYTES];

	if (bytes > 0)
		printf("  %-14s %s%s\n", what, lb_size_format((uint64_t)bytes, size), unit);
}

static void show_state(const json_t *m)
{
	const json_t *reason;
	size_t i;

	line("health", cli_text(m, "health"));
	line("state", cli_text(m, "state"));
	json_array_foreach(json_object_get(m, "reasons"), i, reason)
	{
		line("", cli_text(reason, "text"));
		if (cli_text(reason, "cure")[0] != '\0')
			printf("  %-14s -> %s\n", "", cli_text(reason, "cure"));
	}
}

static void show_proof(const struct cli *c, const json_t *m)
{
	char age[CLI_AGE_BYTES], when[LB_TIME_TEXT_BYTES];
	int64_t proven_ns = cli_number(m, "proven_ns");

	if (proven_ns <= 0)
		return;
	printf("  %-14s %s ago, from the point of %s\n", "proven", cli_age(lb_now_ns(c->env) - proven_ns, age),
	       lb_time_format(cli_number(m, "proven_point_ns"), when));
}

static void show_hardware(const json_t *inventory)
{
	if (!json_is_object(inventory))
		return;
	line("firmware", cli_text(inventory, "firmware"));
	line("kernel", cli_text(inventory, "kernel"));
	printf("  %-14s %" JSON_INTEGER_FORMAT "\n", "processors", cli_number(inventory, "cpus"));
	show_size("memory", cli_number(inventory, "memory_bytes"), "");
}

static void show_target(const json_t *target)
{
	if (json_object_get(target, "cpus") != NULL)
		printf("  %-14s %" JSON_INTEGER_FORMAT " processors\n", "doubles", cli_number(target, "cpus"));
	show_size("doubles", cli_number(target, "memory_bytes"), " of memory");
	line("network", cli_text(target, "network"));
	line("MAC", cli_text(target, "mac"));
	line("address", cli_text(target, "address"));
	line("test network", cli_text(target, "test_network"));
	line("test MAC", cli_text(target, "test_mac"));
	line("test address", cli_text(target, "test_address"));
	line("bus", cli_text(target, "bus"));
	if (json_object_get(target, "mend") != NULL)
		line("mending", json_is_true(json_object_get(target, "mend")) ? "on" : "off");
}

static void show_folded(const json_t *folded)
{
	char rewritten[LB_SIZE_TEXT_BYTES], deleted[LB_SIZE_TEXT_BYTES], taken[LB_SIZE_TEXT_BYTES];

	double write_ratio = json_number_value(json_object_get(folded, "write_ratio"));

	if (!json_is_object(folded))
		return;
	printf("  %-14s %" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT " pruned lately\n", "points",
	       cli_number(folded, "points"), cli_number(folded, "points_pruned"));
	printf("  %-14s %s rewritten and %s deleted while %s came\n", "pruning",
	       lb_size_format((uint64_t)cli_number(folded, "rewritten_bytes"), rewritten),
	       lb_size_format((uint64_t)cli_number(folded, "deleted_bytes"), deleted),
	       lb_size_format((uint64_t)cli_number(folded, "taken_bytes"), taken));
	if (write_ratio > 0)
		printf("  %-14s %.2f bytes written for each that came, %.2f kept for each that points need\n", "vault",
		       write_ratio, json_number_value(json_object_get(folded, "space_ratio")));
}

int cmd_machine_show(struct cli *c)
{
	_cleanup_json_ json_t *m = NULL;
	int r;

	r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", c->args[0]);
	if (r < 0)
		return r;
	if (strcmp(cli_text(m, "health"), "ok") != 0)
		c->degraded = true;
	if (c->json)
		return cli_print_json("machine", json_incref(m));
	printf("%s (%s)\n", cli_text(m, "name"), cli_text(m, "id"));
	show_state(m);
	show_proof(c, m);
	line("double of", cli_text(m, "double_of"));
	line("back as", cli_text(m, "replicates_back_as"));
	line("policy", cli_text(m, "policy"));
	show_size("bandwidth", cli_number(m, "bandwidth_bytes_per_s"), "/s now");
	show_size("backlog", cli_number(m, "backlog_bytes"), "");
	show_size("churn", cli_number(m, "churn_bytes_per_s"), "/s");
	show_folded(json_object_get(json_object_get(m, "replication"), "folded"));
	show_disks(json_object_get(m, "disks"));
	show_hardware(json_object_get(m, "inventory"));
	show_target(json_object_get(m, "target"));
	cli_readiness_print(c, m);
	return 0;
}
