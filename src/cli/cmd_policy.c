/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "wire/bandwidth.h"

static const struct {
	const char *option, *member;
	enum { NUMBER, SIZE, TEXT } kind;
} settings[] = {
	{"rpo-threshold", "rpo_threshold_s", NUMBER},
	{"consistency-interval", "consistency_interval_s", NUMBER},
	{"upload-interval", "upload_interval_s", NUMBER},
	{"heartbeat-interval", "heartbeat_interval_s", NUMBER},
	{"compression", "zstd_level", NUMBER},
	{"ring", "ring_bytes", SIZE},
	{"bandwidth", "bandwidth_bytes_per_s", SIZE},
	{"app-consistent-interval", "app_consistent_interval_s", NUMBER},
	{"retention", "retention", TEXT},
	{"app-retention", "app_retention_days", NUMBER},
	{"delete-delay", "delete_delay_s", NUMBER},
	{"early-deletion", "early_deletion_days", NUMBER},
	{"object-lock", "object_lock_days", NUMBER},
};

static void print_setting(size_t k, const json_t *value)
{
	printf("%s %s ", k > 0 ? "," : "", settings[k].option);
	if (json_is_string(value))
		printf("\"%s\"", json_string_value(value));
	else
		printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
}

int cmd_policy_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *p;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/policy", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("policies", json_incref(reply));
	json_array_foreach(json_object_get(reply, "policies"), i, p)
	{
		printf("%s:", json_string_value(json_object_get(p, "name")));
		for (size_t k = 0; k < sizeof(settings) / sizeof(settings[0]); k++)
			print_setting(k, json_object_get(p, settings[k].member));
		printf("\n");
	}
	return 0;
}

static int set_one(const struct cli *c, json_t *body, size_t k, bool *changed)
{
	const char *text = cli_value(c, settings[k].option);
	uint64_t value;
	int r;

	if (text == NULL)
		return 0;
	*changed = true;
	if (settings[k].kind == TEXT)
		return lb_json_set_str(body, settings[k].member, text);
	r = settings[k].kind == SIZE ? lb_size_parse(text, &value) : lb_u64_parse(text, INT64_MAX, &value);
	if (r < 0)
		return lb_wrap(-EINVAL, "--%s", settings[k].option);
	return lb_json_set_u64(body, settings[k].member, value);
}

static void show_windows(const json_t *policy)
{
	struct lb_bandwidth b = {0};
	char text[LB_BANDWIDTH_TEXT_BYTES];

	if (lb_bandwidth_windows_parse(json_object_get(policy, "bandwidth_windows"), &b) < 0)
		return;
	for (uint32_t i = 0; i < b.n_windows; i++)
		printf("  window                   %s/s\n", lb_bandwidth_text(&b.windows[i], text));
	printf("  time-zone                %s\n", cli_text(policy, "time_zone"));
}

int cmd_policy_show(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const char *back;
	int r;

	r = cli_callf(c, "GET", NULL, &reply, "/v1/policy/%s", c->args[0]);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("policy", json_incref(reply));
	back = cli_text(reply, "failback_policy");
	printf("%s, version %" JSON_INTEGER_FORMAT "\n", cli_text(reply, "name"), cli_number(reply, "version"));
	for (size_t k = 0; k < sizeof(settings) / sizeof(settings[0]); k++)
		if (settings[k].kind == TEXT)
			printf("  %-24s %s\n", settings[k].option, cli_text(reply, settings[k].member));
		else
			printf("  %-24s %" JSON_INTEGER_FORMAT "\n", settings[k].option,
			       cli_number(reply, settings[k].member));
	show_windows(reply);
	if (back[0] != '\0')
		printf("  way back                 %s\n", back);
	return 0;
}

/* What is not a number. */
static int set_others(const struct cli *c, json_t *body, bool *changed)
{
	const char *windows = cli_value(c, "bandwidth-windows"), *zone = cli_value(c, "time-zone");
	uint64_t version = 0;
	json_t *list;
	int r = 0;

	if (windows != NULL) {
		r = lb_bandwidth_text_parse(windows, &list);
		if (r < 0)
			return lb_wrap(-EINVAL, "--bandwidth-windows");
		r = json_object_set_new(body, "bandwidth_windows", list) < 0 ? -ENOMEM : 0;
	}
	if (r == 0 && zone != NULL)
		r = lb_json_set_str(body, "time_zone", zone);
	*changed = *changed || windows != NULL || zone != NULL;
	if (r == 0)
		r = cli_value_u64(c, "if-version", INT64_MAX, &version);
	if (r == 0 && cli_value(c, "if-version") != NULL)
		r = lb_json_set_u64(body, "version", version);
	return r == -ENOMEM ? lb_fail(r, "out of memory for a policy") : r;
}

/* Only what is named changes: the server keeps the rest of an existing policy, and its defaults for a new one. */
int cmd_policy_set(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL;
	bool changed = false;
	int r;

	for (size_t k = 0; k < sizeof(settings) / sizeof(settings[0]); k++) {
		r = set_one(c, body, k, &changed);
		if (r < 0)
			return r;
	}
	r = set_others(c, body, &changed);
	if (r < 0)
		return r;
	if (!changed)
		return lb_fail(-EINVAL, "nothing to set; see `lifeboat policy set --help`");
	if (c->dry_run) {
		r = cli_call(c, "GET", "/v1/policy", NULL, &reply);
		return r < 0 ? r : cli_would(c, "set policy %s", c->args[0]);
	}
	r = cli_callf(c, "PUT", body, &reply, "/v1/policy/%s", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "policy", json_incref(reply), "Policy %s is set; machines follow within seconds.",
			       c->args[0]);
}
