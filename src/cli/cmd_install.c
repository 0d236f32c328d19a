/* SPDX-License-Identifier: Apache-2.0 */
/* Push install: the order to a process server to bring the agent to a host by SSH. */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"

#define SECRET_BYTES_MAX (32u << 10)
#define SSH_PORT_DEFAULT 22

struct secret {
	uint8_t *data;
	size_t size_bytes;
};

static void secret_wipe(struct secret *s)
{
	if (s->data != NULL)
		lb_wipe(s->data, s->size_bytes);
	free(s->data);
}

/* The file's text as a member; of a password only its first line. */
static int add_secret(struct cli *c, json_t *body, const char *member, const char *path, bool first_line)
{
	_cleanup_(secret_wipe) struct secret s = {0};
	json_t *text;
	int r;

	if (path == NULL)
		return 0;
	r = lb_file_read(c->env, path, SECRET_BYTES_MAX, &s.data, &s.size_bytes);
	if (r < 0)
		return r;
	text = json_stringn((const char *)s.data,
			    first_line && memchr(s.data, '\n', s.size_bytes) != NULL
				    ? (size_t)((const uint8_t *)memchr(s.data, '\n', s.size_bytes) - s.data)
				    : s.size_bytes);
	if (text == NULL)
		return lb_fail(-EINVAL, "%s holds no text", path);
	return json_object_set_new(body, member, text) < 0 ? lb_fail(-ENOMEM, "out of memory for an order") : 0;
}

static void wipe_order(json_t **body)
{
	static const char *const secrets[] = {"key", "password", NULL};

	lb_json_wipe(*body, secrets);
	json_decref(*body);
}

static int make_order(struct cli *c, json_t **ret_body)
{
	const char *action = cli_value(c, "action"), *user = cli_value(c, "user"), *name = cli_value(c, "name");
	_cleanup_(wipe_order) json_t *body = NULL;
	uint64_t port = SSH_PORT_DEFAULT;
	int r;

	if (cli_value(c, "key-file") == NULL && cli_value(c, "password-file") == NULL)
		return lb_fail(-EINVAL, "how to log in there? Give --key-file FILE or --password-file FILE");
	r = cli_value_u64(c, "port", UINT16_MAX, &port);
	if (r < 0)
		return r;
	body = json_pack("{s:s,s:s,s:s,s:s,s:I,s:b,s:b,s:s*,s:s*}", "action", action != NULL ? action : "install",
			 "host", c->args[0], "user", user != NULL ? user : "root", "name",
			 name != NULL ? name : c->args[0], "port", (json_int_t)port, "accept_new_host_key",
			 cli_value(c, "accept-new-host-key") != NULL, "replace", cli_value(c, "replace") != NULL,
			 "host_key", cli_value(c, "host-key"), "process", cli_value(c, "process-server"));
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	r = add_secret(c, body, "key", cli_value(c, "key-file"), false);
	if (r == 0)
		r = add_secret(c, body, "password", cli_value(c, "password-file"), true);
	if (r < 0)
		return r;
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static void print_findings(const struct cli *c, const json_t *fitness)
{
	const json_t *one;
	size_t i;

	if (c->json)
		return;
	json_array_foreach(json_object_get(fitness, "findings"), i, one)
		printf("%s %s\n     %s\n", json_is_true(json_object_get(one, "blocks")) ? "NO " : "?  ",
		       cli_text(one, "text"), cli_text(one, "cure"));
}

static int tell_end(struct cli *c, const json_t *body, const json_t *job)
{
	const json_t *fitness = json_object_get(json_object_get(job, "result"), "fitness");
	const char *action = cli_text(body, "action"), *name = cli_text(body, "name");

	print_findings(c, fitness);
	if (strcmp(action, "assess") == 0) {
		c->degraded = !json_is_true(json_object_get(fitness, "fit"));
		return cli_did(c, "fitness", json_incref((json_t *)fitness),
			       c->degraded ? "%s can't be protected as it is." : "%s can be protected.", c->args[0]);
	}
	if (strcmp(action, "install") == 0)
		return cli_did(c, "job", json_incref((json_t *)job),
			       "The agent is on %s and enrolled as %s; `lifeboat machine protect %s` is next.",
			       c->args[0], name, name);
	return cli_did(c, "job", json_incref((json_t *)job),
		       strcmp(action, "remove") == 0
			       ? "The agent is gone from %s; `lifeboat machine remove` forgets the machine."
			       : "The agent on %s is upgraded.",
		       c->args[0]);
}

int cmd_machine_install(struct cli *c)
{
	_cleanup_(wipe_order) json_t *body = NULL;
	_cleanup_json_ json_t *reply = NULL, *job = NULL;
	int r;

	r = make_order(c, &body);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "%s the agent on %s as %s", cli_text(body, "action"), c->args[0],
				 cli_text(body, "user"));
	r = cli_call(c, "POST", "/v1/install", body, &reply);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") != NULL)
		return cli_did(c, "job", json_incref(reply), "It is under way; `lifeboat job watch %s` follows it.",
			       cli_text(reply, "job"));
	r = cli_job_follow(c, cli_text(reply, "job"), &job);
	return r < 0 ? r : tell_end(c, body, job);
}
