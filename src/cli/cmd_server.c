/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/io.h"
#include "base/json.h"

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
	json_array_foreach(json_object_get(reply, "servers"), i, s)
		printf("%-24s %-10s %-38s %s\n", cli_text(s, "name"), cli_text(s, "kind"), cli_text(s, "id"),
		       cli_text(s, "health"));
	return 0;
}

/* The token is a secret: it goes to a file of its own, or to the terminal of the person who asked. */
static int give_token(struct cli *c, const json_t *reply, const char *file)
{
	const char *token, *fingerprint;
	int r;

	r = lb_json_get_str(reply, "token", &token);
	if (r == 0)
		r = lb_json_get_str(reply, "ca_fingerprint", &fingerprint);
	if (r != 0)
		return r;
	if (file != NULL) {
		r = lb_file_write(c->env, file, token, strlen(token), 0600);
		if (r < 0)
			return r;
	}
	if (c->json)
		return cli_print_json("token", json_pack("{s:s,s:s?,s:s?,s:s}", "ca_fingerprint", fingerprint, "file",
							 file, "token", file == NULL ? token : NULL, "config_url",
							 cli_text(reply, "config_url")));
	printf("Configuration server: %s\nCA fingerprint:       %s\n", cli_text(reply, "config_url"), fingerprint);
	if (file != NULL)
		printf("Token:                in %s (good once)\n", file);
	else
		printf("Token:                %s (good once)\n", token);
	return 0;
}

static int make_token(struct cli *c, json_t *body, const char *file)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (c->dry_run) {
		printf("would make a one-time token\n");
		return 0;
	}
	r = cli_call(c, "POST", "/v1/token", body, &reply);
	if (r < 0)
		return r;
	return give_token(c, reply, file);
}

int cmd_token_create(struct cli *c)
{
	const char *kind = cli_value(c, "kind") != NULL ? cli_value(c, "kind") : "machine";
	_cleanup_json_ json_t *body = json_pack("{s:s}", "kind", kind);
	uint64_t valid_s = 3600;
	int r;

	r = cli_value_u64(c, "valid", 30 * 86400, &valid_s);
	if (r == 0)
		r = lb_json_set_u64(body, "valid_s", valid_s);
	if (r == 0 && cli_value(c, "name") != NULL)
		r = lb_json_set_str(body, "name", cli_value(c, "name"));
	if (r == 0 && cli_value(c, "role") != NULL)
		r = lb_json_set_str(body, "role", cli_value(c, "role"));
	if (r == 0 && cli_value(c, "replace") != NULL)
		r = lb_json_set_bool(body, "replace", true);
	if (r < 0)
		return r;
	return make_token(c, body, cli_value(c, "file"));
}

int cmd_server_add(struct cli *c)
{
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "kind", "process", "name", c->args[0]);
	int r;

	r = make_token(c, body, NULL);
	if (r == 0 && !c->json && !c->dry_run)
		printf("On %s: lifeboat-process enrol --config-url URL --ca-fingerprint HEX --token-file FILE --name "
		       "%s\n",
		       c->args[0], c->args[0]);
	return r;
}
