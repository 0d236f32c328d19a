/* SPDX-License-Identifier: Apache-2.0 */
/* Failover by order to the configuration server; with --vault, failover_direct.c does it here. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/failover_direct.h"
#include "fabric/network.h"

static const char *point_text(const struct cli *c)
{
	const char *text = cli_value(c, "point");

	return text != NULL ? text : "latest";
}

/* ---- list ---------------------------------------------------------------------------------------------- */

static void print_double(const json_t *d)
{
	char when[LB_TIME_TEXT_BYTES];
	const json_t *forward;
	size_t i;

	lb_time_format(json_integer_value(json_object_get(d, "point_ns")), when);
	printf("%-24s %-5s %-20s %-10s %s", cli_text(d, "name"), cli_text(d, "kind"), cli_text(d, "machine_name"),
	       cli_text(d, "state"), when);
	json_array_foreach(json_object_get(d, "forwards"), i, forward)
		printf("%s port %" JSON_INTEGER_FORMAT " -> %" JSON_INTEGER_FORMAT, i > 0 ? "," : "  ",
		       json_integer_value(json_object_get(forward, "host_port")),
		       json_integer_value(json_object_get(forward, "guest_port")));
	printf("\n");
	if (json_is_object(json_object_get(d, "reprotect")))
		printf("%-24s %s\n", "", cli_text(json_object_get(d, "reprotect"), "text"));
}

int cmd_failover_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *d;
	size_t i;
	int r;

	r = cli_is_direct(c) ? cli_failover_list_direct(c, &reply) : cli_call(c, "GET", "/v1/failover", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("failovers", json_incref(reply));
	if (json_array_size(json_object_get(reply, "failovers")) > 0)
		printf("%-24s %-5s %-20s %-10s %s\n", "DOUBLE", "KIND", "MACHINE", "STATE", "POINT (UTC), PORTS");
	json_array_foreach(json_object_get(reply, "failovers"), i, d) print_double(d);
	if (json_array_size(json_object_get(reply, "failovers")) == 0)
		printf("There are no doubles.\n");
	return 0;
}

/* ---- orders ---------------------------------------------------------------------------------------------- */

static int follow(struct cli *c, const json_t *reply, const char *said)
{
	_cleanup_json_ json_t *job = NULL;
	const json_t *result;
	int r;

	r = cli_order_follow(c, reply, &job);
	if (r != 0)
		return r < 0 ? r : 0; /* without waiting */
	r = cli_did(c, "job", json_incref(job), "%s %s.", c->args[0], said);
	result = json_object_get(job, "result");
	if (!c->json && cli_text(result, "mended")[0] != '\0')
		printf("  mended: %s\n", cli_text(result, "mended"));
	if (!c->json && cli_text(result, "warning")[0] != '\0')
		printf("  mind: %s\n", cli_text(result, "warning"));
	return r;
}

static int set_forwards(json_t *body, const char *list)
{
	_cleanup_free_ char *copy = strdup(list);
	json_t *forwards = json_array();
	char *rest = copy, *one;

	if (copy == NULL || json_object_set_new(body, "forwards", forwards) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((one = strsep(&rest, ",")) != NULL) {
		uint64_t host, guest;
		char *colon = strchr(one, ':');

		if (colon == NULL)
			return lb_fail(-EINVAL, "--forward takes HOST:GUEST ports, not \"%.40s\"", one);
		*colon = '\0';
		if (lb_u64_parse(one, 65535, &host) < 0 || lb_u64_parse(colon + 1, 65535, &guest) < 0)
			return lb_wrap(-EINVAL, "--forward");
		if (json_array_append_new(forwards, json_sprintf("tcp:%" PRIu64 ":%" PRIu64, host, guest)) < 0)
			return lb_fail(-ENOMEM, "out of memory");
	}
	return 0;
}

/* What is to become of the source. */
static int set_source(const struct cli *c, json_t *body)
{
	static const struct {
		const char *option, *member;
	} flags[] = {{"shutdown-source", "shutdown_source"},
		     {"wait-drained", "wait_drained"},
		     {"require-fence", "fence_required"},
		     {"planned", "planned"}};
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(flags); i++)
		if (cli_value(c, flags[i].option) != NULL)
			r = lb_json_set_bool(body, flags[i].member, true);
	return r;
}

static int set_mend(const struct cli *c, json_t *body)
{
	bool wanted = cli_value(c, "mend") != NULL, required = cli_value(c, "require-mend") != NULL;

	if (cli_value(c, "no-mend") != NULL)
		return wanted || required ? lb_fail(-EINVAL, "--no-mend together with --mend or --require-mend")
					  : lb_json_set_bool(body, "mend", false);
	if (required && lb_json_set_bool(body, "mend_required", true) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return wanted || required ? lb_json_set_bool(body, "mend", true) : 0;
}

int cli_failover_body(const struct cli *c, const char *kind, json_t **ret_body)
{
	static const char *const texts[] = {"name", "network", "mac", "address"};
	_cleanup_json_ json_t *body =
		json_pack("{s:s,s:s,s:s}", "machine", c->args[0], "point", point_text(c), "kind", kind);
	uint64_t value;
	int r = 0;

	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(texts); i++)
		if (cli_value(c, texts[i]) != NULL)
			r = lb_json_set_str(body, texts[i], cli_value(c, texts[i]));
	if (r == 0 && cli_value(c, "memory") != NULL) {
		r = lb_size_parse(cli_value(c, "memory"), &value);
		if (r == 0)
			r = lb_json_set_u64(body, "memory_bytes", value);
	}
	if (r == 0 && cli_value(c, "cpus") != NULL) {
		r = cli_value_u64(c, "cpus", 256, &value);
		if (r == 0)
			r = lb_json_set_u64(body, "cpus", value);
	}
	if (r == 0 && cli_value(c, "forward") != NULL)
		r = set_forwards(body, cli_value(c, "forward"));
	r = r < 0 ? r : set_mend(c, body);
	r = r < 0 || kind[0] != 'l' ? r : set_source(c, body);
	if (r < 0)
		return r;
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static int get_preview(struct cli *c, const char *kind, json_t **ret_preview)
{
	const char *network = cli_value(c, "network");
	int r;

	r = network != NULL ? lb_network_check(network) : 0;
	if (r < 0)
		return r;
	return cli_callf(c, "GET", NULL, ret_preview, "/v1/machine/%s/preview?point=%s&kind=%s%s%s", c->args[0],
			 point_text(c), kind, network != NULL ? "&network=" : "", network != NULL ? network : "");
}

static void print_preview(struct cli *c, const json_t *p)
{
	char when[LB_TIME_TEXT_BYTES], age[CLI_AGE_BYTES], known[CLI_AGE_BYTES];
	int64_t until_ns = cli_number(p, "until_ns"), loses_ns = cli_number(p, "loses_known_ns");
	int64_t proven_ns = cli_number(p, "proven_ns"), now_ns = lb_now_ns(c->env);

	printf("%s recovery point holds everything up to %s, %s ago; what came later is lost.\n",
	       strcmp(point_text(c), "latest") == 0 ? "The newest" : "This", lb_time_format(until_ns, when),
	       cli_age(now_ns - until_ns, age));
	if (loses_ns > 0)
		printf("The vault holds %s more than this point.\n", cli_age(loses_ns, known));
	if (proven_ns > 0)
		printf("Last proven %s ago, from the point of %s%s%s.\n", cli_age(now_ns - proven_ns, age),
		       lb_time_format(cli_number(p, "proven_point_ns"), when),
		       cli_text(p, "proven_warning")[0] != '\0' ? "; of its double: " : "",
		       cli_text(p, "proven_warning"));
	else
		printf("Its recovery was never proven; `lifeboat drill start %s` does.\n", c->args[0]);
	if (cli_text(p, "network")[0] != '\0')
		printf("The double joins network %s%s%s.\n", cli_text(p, "network"),
		       cli_text(p, "address")[0] != '\0' ? " as " : "", cli_text(p, "address"));
	if (cli_text(p, "network_error")[0] != '\0')
		printf("It can't be started: %s\n", cli_text(p, "network_error"));
	if (json_is_true(json_object_get(p, "has_live_double")))
		printf("It has a live double already: `lifeboat failover list`.\n");
}

int cmd_failover_preview(struct cli *c)
{
	_cleanup_json_ json_t *preview = NULL;
	int r;

	r = get_preview(c, "live", &preview);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("preview", json_incref(preview));
	print_preview(c, preview);
	return 0;
}

static int tell_preview(struct cli *c, const char *kind)
{
	_cleanup_json_ json_t *preview = NULL;
	int r;

	r = get_preview(c, kind, &preview);
	if (r < 0)
		return r;
	if (!c->json)
		print_preview(c, preview);
	if (cli_text(preview, "network_error")[0] != '\0')
		return lb_fail(-ENOENT, "%s", cli_text(preview, "network_error"));
	return 0;
}

/* What this point would lose, before anything is done. */
static int tell_point(struct cli *c, const char *kind)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *points, *freshness;
	int r;

	r = cli_callf(c, "GET", NULL, &reply, "/v1/machine/%s/point?limit=1&freshness=1", c->args[0]);
	if (r < 0)
		return r;
	points = json_object_get(reply, "points");
	if (json_array_size(points) == 0)
		return lb_fail(-ENOENT, "%s has no recovery point yet; `lifeboat status %s` says why", c->args[0],
			       c->args[0]);
	freshness = json_object_get(reply, "freshness");
	if (freshness != NULL && !c->json)
		fprintf(stderr, "lifeboat: %s\n", cli_text(freshness, "text"));
	return tell_preview(c, kind);
}

/* Options that only mean something here, where nobody is asked. */
static int check_no_local_options(const struct cli *c)
{
	if (cli_value(c, "anchor") != NULL)
		return lb_fail(-EINVAL, "--anchor is for work on the vault alone (--vault URL)");
	if (cli_value(c, "folder") != NULL || cli_value(c, "fabric") != NULL)
		return lb_fail(-EINVAL, "--folder and --fabric are for work on the vault alone (--vault URL); the "
					"configuration server has its own settings for them");
	return 0;
}

static int order_failover(struct cli *c, const char *kind, const char *said)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	int r;

	r = check_no_local_options(c);
	if (r == 0)
		r = cli_failover_body(c, kind, &body);
	if (r < 0)
		return r;
	r = tell_point(c, kind);
	if (r < 0)
		return r;
	if (kind[0] == 'l') {
		r = cli_confirm(c, "fence, and start the double of,", c->args[0]);
		if (r < 0)
			return r;
	}
	if (c->dry_run)
		return cli_would(c, "start a %s double of %s from %s", kind, c->args[0], point_text(c));
	r = cli_call(c, "POST", "/v1/failover", body, &reply);
	if (r < 0)
		return r;
	return follow(c, reply, said);
}

int cmd_failover_test(struct cli *c)
{
	if (cli_is_direct(c))
		return cli_failover_direct(c, LB_FAILOVER_TEST);
	return order_failover(c, "test", "has a double on an isolated network; `lifeboat failover list` names it");
}

int cmd_failover_start(struct cli *c)
{
	if (cli_is_direct(c))
		return cli_failover_direct(c, LB_FAILOVER_LIVE);
	return order_failover(c, "live", "is failed over: its double is running");
}

static int check_double(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *d;
	size_t i;
	int r;

	r = check_no_local_options(c);
	if (r == 0)
		r = cli_call(c, "GET", "/v1/failover", NULL, &reply);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(reply, "failovers"), i, d)
	{
		if (strcmp(cli_text(d, "name"), c->args[0]) == 0)
			return 0;
	}
	return lb_fail(-ENOENT, "there is no double \"%.64s\"; `lifeboat failover list` shows them", c->args[0]);
}

static int order_double(struct cli *c, const char *verb, const json_t *body, const char *said)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = check_double(c);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "%s %s", verb, c->args[0]);
	r = cli_callf(c, "POST", body, &reply, "/v1/failover/%s/%s", c->args[0], verb);
	if (r < 0)
		return r;
	return follow(c, reply, said);
}

int cmd_failover_cleanup(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:b}", "live_too", cli_value(c, "live") != NULL);
	int r;

	r = cli_confirm(c, "destroy the double", c->args[0]);
	if (r < 0)
		return r;
	return cli_is_direct(c) ? cli_failover_cleanup_direct(c)
				: order_double(c, "cleanup", body, "is gone without trace");
}

int cmd_failover_repoint(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:s}", "point", point_text(c));
	int r;

	r = cli_confirm(c, "give up everything that was written on the double", c->args[0]);
	if (r < 0)
		return r;
	return cli_is_direct(c) ? cli_failover_repoint_direct(c)
				: order_double(c, "repoint", body, "runs from the other point");
}

int cmd_failover_commit(struct cli *c)
{
	return cli_is_direct(c) ? cli_failover_commit_direct(c)
				: order_double(c, "commit", NULL, "is committed: it stands by itself now");
}

/* A machine whose double is gone is undone by its own name, so it is the server that looks the name up. */
int cmd_failover_undo(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (cli_is_direct(c))
		return lb_fail(
			-EINVAL,
			"only the configuration server gives a machine its replication back; without one, `lifeboat "
			"failover cleanup %s --live` removes the double",
			c->args[0]);
	r = cli_confirm(c, "give up, with all that was written on it, the double", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "end %s and let its machine replicate again", c->args[0]);
	r = cli_callf(c, "POST", NULL, &reply, "/v1/failover/%s/undo", c->args[0]);
	return r < 0 ? r : follow(c, reply, "is given up: its machine works and replicates again");
}
