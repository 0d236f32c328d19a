/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "vault/catalog.h"

#define WATCH_POLL_NS (500 * LB_NS_PER_MS)

static int list_one(void *arg, const struct lb_uuid *machine)
{
	struct cli *c = ((void **)arg)[0];
	json_t *list = ((void **)arg)[1];
	struct lb_catalog_item item;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(machine, id);
	r = lb_catalog_get(c->vault, machine, &item);
	if (r < 0 && r != -ENOENT)
		return r;
	return json_array_append_new(list, json_pack("{s:s,s:s,s:s}", "id", id, "name", r == 0 ? item.name : "-",
						     "state", "in the vault")) < 0
		       ? lb_fail(-ENOMEM, "out of memory for the list of machines")
		       : 0;
}

static int machines(struct cli *c, json_t **ret_reply)
{
	_cleanup_json_ json_t *list = NULL;
	void *arg[2];
	int r;

	if (!cli_is_direct(c))
		return cli_call(c, "GET", "/v1/machine", NULL, ret_reply);
	r = cli_vault_open(c);
	if (r < 0)
		return r;
	list = json_array();
	arg[0] = c;
	arg[1] = list;
	r = lb_vault_machines(c->vault, list_one, arg);
	if (r < 0)
		return r;
	*ret_reply = json_pack("{s:O}", "machines", list);
	return 0;
}

int cmd_machine_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *m;
	size_t i;
	int r;

	r = machines(c, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("machines", json_incref(reply));
	printf("%-24s %-38s %s\n", "NAME", "ID", "STATE");
	json_array_foreach(json_object_get(reply, "machines"), i, m)
		printf("%-24s %-38s %s\n", cli_text(m, "name"), cli_text(m, "id"), cli_text(m, "state"));
	return 0;
}

/* The agent's program does the looking: it stands beside this one, or on the path. */
int cmd_machine_assess(struct cli *c)
{
	const char *argv[] = {"lifeboat-mobility", "assess", "--seconds", "10", NULL, NULL};

	if (cli_value(c, "seconds") != NULL)
		argv[3] = cli_value(c, "seconds");
	if (c->json)
		argv[4] = "--json";
	cli_exec("mobility", argv);
	return lb_fail(-ENOENT,
		       "lifeboat-mobility is not beside this program and not on the path: copy it to this server "
		       "(nothing needs to be installed) and run it again");
}

/* ---- orders to the configuration server ---------------------------------------------------------------- */

static int wait_protected(struct cli *c, const char *machine)
{
	for (;;) {
		_cleanup_json_ json_t *m = NULL;
		const json_t *progress;
		const char *state;
		int r;

		r = cli_callf(c, "GET", NULL, &m, "/v1/machine/%s", machine);
		if (r == 0)
			r = lb_json_get_str(m, "state", &state);
		if (r != 0)
			return r;
		if (strcmp(state, "protected") == 0) {
			cli_progress_end(c);
			if (!c->json)
				printf("%s is protected.\n", machine);
			return 0;
		}
		if (strcmp(state, "refused") == 0) {
			cli_progress_end(c);
			return lb_fail(-EACCES, "%s can't be protected: %s", machine, cli_text(m, "error"));
		}
		progress = json_object_get(m, "progress");
		cli_progress(c, state, (uint64_t)json_integer_value(json_object_get(progress, "done_bytes")),
			     (uint64_t)json_integer_value(json_object_get(progress, "total_bytes")), true);
		c->env->ops->wait_until(c->env, lb_mono_ns(c->env) + WATCH_POLL_NS, -1);
	}
}

static int set_disks(json_t *body, const char *list)
{
	_cleanup_free_ char *copy = strdup(list);
	json_t *disks = json_array();
	char *rest = copy, *name;

	if (copy == NULL || json_object_set_new(body, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((name = strsep(&rest, ",")) != NULL)
		if (json_array_append_new(disks, json_string(name)) < 0)
			return lb_fail(-EINVAL, "\"%.60s\" is not a disk's name", name);
	return 0;
}

int cmd_machine_protect(struct cli *c)
{
	const char *policy = cli_value(c, "policy") != NULL ? cli_value(c, "policy") : "default";
	_cleanup_json_ json_t *body = json_pack("{s:s}", "policy", policy);
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (cli_value(c, "disks") != NULL) {
		r = set_disks(body, cli_value(c, "disks"));
		if (r < 0)
			return r;
	}
	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &reply, "/v1/machine/%s", c->args[0]);
		if (r == 0)
			printf("would protect %s by policy %s\n", c->args[0], policy);
		return r;
	}
	r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/enable", c->args[0]);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return 0;
	return wait_protected(c, c->args[0]);
}

static int simple_order(struct cli *c, const char *method, const char *verb, const char *said)
{
	int r;

	if (c->dry_run) {
		printf("would %s %s\n", verb, c->args[0]);
		return 0;
	}
	if (strcmp(method, "DELETE") == 0)
		r = cli_callf(c, method, NULL, NULL, "/v1/machine/%s", c->args[0]);
	else
		r = cli_callf(c, method, NULL, NULL, "/v1/machine/%s/%s", c->args[0], verb);
	if (r == 0 && !c->json)
		printf("%s %s.\n", c->args[0], said);
	return r;
}

int cmd_machine_pause(struct cli *c)
{
	return simple_order(c, "POST", "disable", "is no longer replicated; its recovery points stay in the vault");
}

int cmd_machine_resync(struct cli *c)
{
	int r;

	r = simple_order(c, "POST", "resync", "compares its disks with the vault and sends what differs");
	if (r < 0 || c->dry_run || cli_value(c, "no-wait") != NULL)
		return r;
	return wait_protected(c, c->args[0]);
}

int cmd_machine_remove(struct cli *c)
{
	int r;

	r = cli_confirm(c, "forget machine and revoke its certificate:", c->args[0]);
	if (r < 0)
		return r;
	return simple_order(c, "DELETE", "remove",
			    "is forgotten and its certificate revoked; its recovery points stay in the vault");
}
