/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/readiness.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

static const char *sign(const char *level)
{
	if (strcmp(level, "error") == 0)
		return "STOPS ";
	if (strcmp(level, "warning") == 0)
		return "lacks ";
	return strcmp(level, "ok") == 0 ? "ok    " : "note  ";
}

static void print_finding(const json_t *f)
{
	printf("  %s %-12s %s\n", sign(cli_text(f, "level")), cli_text(f, "check"), cli_text(f, "text"));
	if (cli_text(f, "effect")[0] != '\0')
		printf("  %19s  at a failover: %s\n", "", cli_text(f, "effect"));
	if (cli_text(f, "cure")[0] != '\0')
		printf("  %19s  -> %s\n", "", cli_text(f, "cure"));
}

void cli_readiness_print(const struct cli *c, const json_t *machine)
{
	static const char *const order[] = {"error", "warning", "info", "ok"};
	const json_t *readiness = json_object_get(machine, "readiness"), *findings, *f;
	char age[CLI_AGE_BYTES];
	size_t i;

	findings = json_object_get(readiness, "findings");
	if (json_array_size(findings) == 0) {
		printf("Readiness of %s: not looked at yet.\n", cli_text(machine, "name"));
		return;
	}
	printf("Readiness of %s: %s (looked at %s ago)\n", cli_text(machine, "name"), cli_text(readiness, "verdict"),
	       cli_age(lb_now_ns(c->env) - cli_number(readiness, "checked_ns"), age));
	for (size_t k = 0; k < sizeof(order) / sizeof(order[0]); k++)
		json_array_foreach(findings, i, f)
		{
			if (strcmp(cli_text(f, "level"), order[k]) == 0)
				print_finding(f);
		}
}

bool cli_readiness_known(const json_t *machine)
{
	return json_array_size(json_object_get(json_object_get(machine, "readiness"), "findings")) > 0;
}

static json_t *mend_body(struct cli *c)
{
	json_t *what = json_array();

	if (cli_value(c, "network") != NULL)
		json_array_append_new(what, json_string("network"));
	if (cli_value(c, "initramfs") != NULL)
		json_array_append_new(what, json_string("initramfs"));
	return json_pack("{s:o}", "what", what);
}

int cmd_machine_mend(struct cli *c)
{
	_cleanup_json_ json_t *body = mend_body(c), *m = NULL, *reply = NULL, *job = NULL;
	const char *id;
	int r;

	r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", c->args[0]);
	if (r == 0 && c->dry_run)
		return cli_would(c, "mend on %s itself what a double of it would lack", c->args[0]);
	if (r == 0)
		r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/mend", c->args[0]);
	r = r < 0 ? r : lb_json_get_str(reply, "job", &id);
	if (r == 0 && cli_value(c, "no-wait") != NULL) {
		r = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", id);
		return r < 0 ? r
			     : cli_did(c, "job", json_incref(job),
				       "Job %s has begun; `lifeboat job watch %s` follows it.", id, id);
	}
	r = r < 0 ? r : cli_job_follow(c, id, &job);
	return r < 0 ? r
		     : cli_did(c, "job", json_incref(job), "%s is mended: %s.", c->args[0],
			       cli_text(json_object_get(job, "result"), "text"));
}

int cmd_machine_check(struct cli *c)
{
	_cleanup_json_ json_t *m = NULL;
	int r;

	if (c->dry_run)
		r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", c->args[0]);
	else
		r = cli_callf(c, "POST", NULL, &m, "/v1/machine/%s/check", c->args[0]);
	if (r < 0)
		return r;
	if (strcmp(cli_text(json_object_get(m, "readiness"), "verdict"), "blocked") == 0)
		c->degraded = true;
	if (c->json)
		return cli_print_json("readiness", json_incref(json_object_get(m, "readiness")));
	cli_readiness_print(c, m);
	return 0;
}
