/* SPDX-License-Identifier: Apache-2.0 */
/* Drills: started, scheduled, looked at; the configuration server does them. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "wire/client.h"

#define PICTURE_BYTES_MAX (64u << 20)

/* "90", "90s", "15m", "6h", "7d" */
static int read_duration(const char *option, const char *text, uint64_t *ret_s)
{
	static const char units[] = "smhd";
	static const uint64_t seconds[] = {1, 60, 3600, 86400};
	size_t length = strlen(text);
	const char *unit = length > 0 ? strchr(units, text[length - 1]) : NULL;
	char number[24];
	uint64_t value;

	snprintf(number, sizeof(number), "%.*s", (int)LB_MIN(length - (unit != NULL), sizeof(number) - 1), text);
	if (length == 0 || lb_u64_parse(number, 1000000000, &value) < 0)
		return lb_fail(-EINVAL, "--%s takes a time as 90s, 15m, 6h or 7d, not \"%.40s\"", option, text);
	*ret_s = value * (unit != NULL ? seconds[unit - units] : 1);
	return 0;
}

/* ---- what is asked for ------------------------------------------------------------------------------------------ */

static int set_ports(json_t *check, const char *list)
{
	_cleanup_free_ char *copy = strdup(list);
	json_t *ports = json_array();
	char *rest = copy, *one;
	uint64_t port;

	if (copy == NULL || json_object_set_new(check, "ports", ports) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((one = strsep(&rest, ",")) != NULL) {
		if (lb_u64_parse(one, 65535, &port) < 0 || port == 0)
			return lb_fail(-EINVAL, "--ports takes ports of the double by comma, not \"%.40s\"", one);
		if (json_array_append_new(ports, json_integer((json_int_t)port)) < 0)
			return lb_fail(-ENOMEM, "out of memory");
	}
	return 0;
}

/* Nothing named: the server's own, the word on the disk and a login. */
static int set_check(const struct cli *c, json_t *body)
{
	json_t *check = json_object();
	uint64_t timeout_s;
	int r = 0;

	if (check == NULL || json_object_set_new(body, "check", check) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	if (cli_value(c, "nonce") != NULL)
		r = lb_json_set_bool(check, "nonce", true);
	if (r == 0 && cli_value(c, "login") != NULL)
		r = lb_json_set_str(check, "login", cli_value(c, "login"));
	if (r == 0 && cli_value(c, "ports") != NULL)
		r = set_ports(check, cli_value(c, "ports"));
	if (r == 0 && cli_value(c, "script") != NULL)
		r = lb_json_set_str(check, "script", cli_value(c, "script"));
	if (r == 0 && cli_value(c, "timeout") != NULL) {
		r = read_duration("timeout", cli_value(c, "timeout"), &timeout_s);
		r = r < 0 ? r : lb_json_set_u64(check, "timeout_s", timeout_s);
	}
	return r;
}

static int drill_body(const struct cli *c, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	uint64_t value;
	int r;

	r = body == NULL ? lb_fail(-ENOMEM, "out of memory") : set_check(c, body);
	if (r == 0 && cli_value(c, "point") != NULL)
		r = lb_json_set_str(body, "point", cli_value(c, "point"));
	if (r == 0 && cli_value(c, "note") != NULL)
		r = lb_json_set_str(body, "note", cli_value(c, "note"));
	if (r == 0 && cli_value(c, "memory") != NULL) {
		r = lb_size_parse(cli_value(c, "memory"), &value);
		r = r < 0 ? r : lb_json_set_u64(body, "memory_bytes", value);
	}
	if (r == 0 && cli_value(c, "limit") != NULL) {
		r = read_duration("limit", cli_value(c, "limit"), &value);
		r = r < 0 ? r : lb_json_set_u64(body, "limit_s", value);
	}
	if (r < 0)
		return r;
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static const char *kind_of(const struct cli *c)
{
	return cli_value(c, "plan") != NULL ? "plan" : "machine";
}

/* ---- one now -------------------------------------------------------------------------------------------------- */

static void print_proof(const json_t *proof)
{
	static const char *const members[] = {"nonce", "login", "script", "stopped"};
	const json_t *one;
	size_t i;

	for (i = 0; i < LB_ARRAY_LEN(members); i++) {
		one = json_object_get(proof, members[i]);
		if (one != NULL)
			printf("  %-7s %-7s %s\n", members[i],
			       json_is_true(json_object_get(one, "passed")) ? "passed" : "failed",
			       cli_text(one, "text"));
	}
	json_array_foreach(json_object_get(proof, "ports"), i, one)
		printf("  %-7s %-7s %s\n", "port", json_is_true(json_object_get(one, "passed")) ? "passed" : "failed",
		       cli_text(one, "text"));
}

/* How its double was, of a drill or of a plan's. */
static void print_double(const json_t *drill)
{
	const json_t *one;
	size_t i;

	if (cli_text(drill, "mended")[0] != '\0')
		printf("  mended: %s\n", cli_text(drill, "mended"));
	if (cli_text(drill, "warning")[0] != '\0')
		printf("  mind: %s\n", cli_text(drill, "warning"));
	json_array_foreach(json_object_get(drill, "warnings"), i, one) printf("  mind: %s\n", json_string_value(one));
}

int cmd_drill_start(struct cli *c)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL, *job = NULL;
	int r;

	r = drill_body(c, &body);
	r = r < 0 ? r : lb_json_set_str(body, kind_of(c), c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "rehearse the recovery of %s %s", kind_of(c), c->args[0]);
	r = cli_call(c, "POST", "/v1/drill", body, &reply);
	r = r < 0 ? r : cli_order_follow(c, reply, &job);
	if (r != 0)
		return r < 0 ? r : 0; /* without waiting */
	if (!c->json) {
		print_proof(json_object_get(json_object_get(job, "result"), "proof"));
		print_double(json_object_get(job, "result"));
	}
	return cli_did(c, "job", json_incref(job), "%s is proven; its double is gone again.", c->args[0]);
}

/* ---- what they found ------------------------------------------------------------------------------------------ */

int cmd_drill_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *d;
	size_t i;
	int r;

	r = c->n_args > 0 ? cli_callf(c, "GET", NULL, &reply, "/v1/drill?machine=%s", c->args[0])
			  : cli_call(c, "GET", "/v1/drill", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("drills", json_incref(reply));
	if (json_array_size(json_object_get(reply, "drills")) == 0)
		printf("There was no drill yet.\n");
	json_array_foreach(json_object_get(reply, "drills"), i, d)
	{
		char when[LB_TIME_TEXT_BYTES];

		printf("%s  %-20s %-9s %s %s%s%s%s%s\n", lb_time_format(cli_number(d, "started_ns"), when),
		       cli_text(d, "machine_name"), cli_text(d, "state"), cli_text(d, "id"), cli_text(d, "error"),
		       cli_text(d, "error")[0] == '\0' && cli_text(d, "warning")[0] != '\0' ? "but " : "",
		       cli_text(d, "error")[0] == '\0' ? cli_text(d, "warning") : "",
		       cli_text(d, "note")[0] != '\0' ? "  # " : "", cli_text(d, "note"));
	}
	return 0;
}

static int fetch(struct cli *c, const char *id, const char *what, const char *file)
{
	_cleanup_(lb_http_response_free) struct lb_http_response response = {0};
	_cleanup_json_ json_t *drill = NULL;
	char url[1024];
	int r;

	snprintf(url, sizeof(url), "%s/v1/drill/%s/%s", c->server_url, id, what);
	r = lb_http_send(
		c->client,
		&(struct lb_http_request){.method = "GET", .url = url, .response_bytes_max = PICTURE_BYTES_MAX},
		&response);
	if (r < 0)
		return r;
	if (response.status == 404)
		return lb_fail(-ENOENT, "drill %s has no %s", id, what);
	if (response.status != 200)
		return lb_fail(-EREMOTEIO, "the server answers %u for the %s of drill %s", response.status, what, id);
	return lb_file_write(c->env, file, response.body.data != NULL ? (const char *)response.body.data : "",
			     response.body.size_bytes, 0644);
}

int cmd_drill_show(struct cli *c)
{
	_cleanup_json_ json_t *d = NULL;
	char when[LB_TIME_TEXT_BYTES], point[LB_TIME_TEXT_BYTES];
	int r;

	r = cli_callf(c, "GET", NULL, &d, "/v1/drill/%s", c->args[0]);
	if (r == 0 && cli_value(c, "screen") != NULL)
		r = fetch(c, c->args[0], "screen", cli_value(c, "screen"));
	if (r == 0 && cli_value(c, "console") != NULL)
		r = fetch(c, c->args[0], "console", cli_value(c, "console"));
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("drill", json_incref(d));
	printf("%s: %s at %s, from the point of %s%s%s\n", cli_text(d, "machine_name"), cli_text(d, "state"),
	       lb_time_format(cli_number(d, "started_ns"), when), lb_time_format(cli_number(d, "point_ns"), point),
	       cli_text(d, "error")[0] != '\0' ? ": " : "", cli_text(d, "error"));
	print_proof(json_object_get(d, "proof"));
	print_double(d);
	if (cli_text(d, "note")[0] != '\0')
		printf("  note    %s\n", cli_text(d, "note"));
	return 0;
}

/* ---- schedules -------------------------------------------------------------------------------------------------- */

int cmd_drill_schedule(struct cli *c)
{
	_cleanup_json_ json_t *request = NULL, *body = json_object(), *reply = NULL;
	char when[LB_TIME_TEXT_BYTES];
	uint64_t every_s;
	int r;

	if (cli_value(c, "every") == NULL)
		return lb_fail(-EINVAL, "how often? --every 7d, for example");
	r = read_duration("every", cli_value(c, "every"), &every_s);
	r = r < 0 ? r : drill_body(c, &request);
	r = r < 0 ? r : lb_json_set_u64(body, "every_s", every_s);
	if (r == 0 && cli_value(c, "at") != NULL)
		r = lb_json_set_str(body, "at", cli_value(c, "at"));
	if (r == 0 && json_object_set(body, "request", request) < 0)
		r = lb_fail(-ENOMEM, "out of memory");
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "rehearse the recovery of %s %s every %" PRIu64 " s", kind_of(c), c->args[0],
				 every_s);
	r = cli_callf(c, "PUT", body, &reply, "/v1/drill-schedule/%s/%s", kind_of(c), c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "drill-schedule", json_incref(reply),
			       "%s rehearses by itself; the next drill is at %s.", c->args[0],
			       lb_time_format(cli_number(reply, "next_ns"), when));
}

int cmd_drill_unschedule(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (c->dry_run)
		return cli_would(c, "end the scheduled drills of %s %s", kind_of(c), c->args[0]);
	r = cli_callf(c, "DELETE", NULL, &reply, "/v1/drill-schedule/%s/%s", kind_of(c), c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "drill-schedule", json_incref(reply), "%s rehearses no more by itself.", c->args[0]);
}

int cmd_drill_schedules(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *s;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/drill-schedule", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("drill-schedules", json_incref(reply));
	if (json_array_size(json_object_get(reply, "schedules")) == 0)
		printf("No drills are scheduled; `lifeboat drill schedule` does.\n");
	json_array_foreach(json_object_get(reply, "schedules"), i, s)
	{
		char when[LB_TIME_TEXT_BYTES];

		printf("%-7s %-24s every %" JSON_INTEGER_FORMAT " s, next at %s\n", cli_text(s, "kind"),
		       cli_text(s, "name"), cli_number(json_object_get(s, "schedule"), "every_s"),
		       lb_time_format(cli_number(s, "next_ns"), when));
	}
	return 0;
}
