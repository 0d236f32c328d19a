/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"

static int order(const struct cli *c, json_t **ret_body)
{
	*ret_body = json_pack("{s:s*,s:b}", "to", cli_value(c, "to"), "now", cli_value(c, "now") != NULL);
	return *ret_body != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an order");
}

int cmd_machine_move(struct cli *c)
{
	_cleanup_json_ json_t *machine = NULL, *body = NULL, *reply = NULL, *job = NULL;
	int r;

	r = cli_callf(c, "GET", NULL, &machine, "/v1/machine/%s", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "move %s from its process server to %s", c->args[0],
				 cli_value(c, "to") != NULL ? cli_value(c, "to") : "the least loaded other one");
	r = order(c, &body);
	if (r == 0)
		r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/move", c->args[0]);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return cli_did(c, "job", json_incref(reply), "%s moves; `lifeboat job watch %s` follows it.",
			       c->args[0], cli_text(reply, "job"));
	r = cli_job_follow(c, cli_text(reply, "job"), &job);
	return r < 0 ? r : cli_did(c, "job", json_incref(job), "%s has moved.", c->args[0]);
}

/* Each to its end; the first that fails is told when all have ended. */
static int follow_all(struct cli *c, const json_t *jobs)
{
	char text[LB_ERR_TEXT_BYTES_MAX] = "";
	const json_t *one;
	int first = 0;
	size_t i;

	json_array_foreach(jobs, i, one)
	{
		_cleanup_json_ json_t *job = NULL;
		int r = cli_job_follow(c, cli_text(one, "job"), &job);

		if (r == 0 || first != 0)
			continue;
		first = r;
		snprintf(text, sizeof(text), "%s: %s", cli_text(one, "machine"), lb_err_text());
	}
	return first == 0 ? 0 : lb_fail(first, "%s", text);
}

int cmd_server_drain(struct cli *c)
{
	_cleanup_json_ json_t *body = NULL, *reply = NULL;
	const json_t *jobs;
	int r;

	if (c->dry_run)
		return cli_would(c, "move all machines of process server %s to others", c->args[0]);
	r = order(c, &body);
	if (r == 0)
		r = cli_callf(c, "POST", body, &reply, "/v1/server/%s/drain", c->args[0]);
	if (r < 0)
		return r;
	jobs = json_object_get(reply, "jobs");
	if (cli_value(c, "no-wait") == NULL)
		r = follow_all(c, jobs);
	if (r < 0)
		return r;
	return cli_did(c, "jobs", json_incref(reply),
		       cli_value(c, "no-wait") != NULL
			       ? "%zu machines move away from %s; `lifeboat job list` shows how far."
			       : "%zu machines moved away from %s.",
		       json_array_size(jobs), c->args[0]);
}

int cmd_server_remove(struct cli *c)
{
	int r;

	r = cli_confirm(c, "revoke the certificate of server", c->args[0]);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "revoke the certificate of server %s and forget it", c->args[0]);
	r = cli_callf(c, "DELETE", NULL, NULL, "/v1/server/%s", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "server", json_pack("{s:s,s:s}", "name", c->args[0], "state", "removed"),
			       "Server %s is forgotten and its certificate revoked.", c->args[0]);
}

int cmd_server_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *s;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/server", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("servers", json_incref(reply));
	printf("%-24s %-10s %-38s %-10s %s\n", "NAME", "KIND", "ID", "HEALTH", "");
	json_array_foreach(json_object_get(reply, "servers"), i, s)
		printf("%-24s %-10s %-38s %-10s %s\n", cli_text(s, "name"), cli_text(s, "kind"), cli_text(s, "id"),
		       cli_text(s, "health"), cli_text(s, "text"));
	return 0;
}

int cmd_server_port(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object(), *reply = NULL;
	uint64_t port = 0, keep_s = 0;
	int r;

	r = lb_u64_parse(c->args[1], UINT16_MAX, &port);
	if (r < 0 || port == 0)
		return lb_fail(-EINVAL, "\"%.20s\" is no port from 1 to 65535", c->args[1]);
	r = cli_value_u64(c, "keep-old", INT64_MAX, &keep_s);
	if (r == 0 && cli_value(c, "keep-old") != NULL)
		r = lb_json_set_u64(body, "keep_old_s", keep_s);
	if (r == 0)
		r = lb_json_set_u64(body, "port", port);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "change the port of %s to %s", c->args[0], c->args[1]);
	r = cli_callf(c, "PUT", body, &reply, "/v1/server/%s/port", c->args[0]);
	return r < 0 ? r
		     : cli_did(c, "server", json_incref(reply),
			       "%s opens port %s; agents follow, then the old one is closed (`lifeboat server list`).",
			       c->args[0], c->args[1]);
}
