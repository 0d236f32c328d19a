/* SPDX-License-Identifier: Apache-2.0 */
/* One-time tokens: made by an administrator, used by who joins. Machines use theirs by `lifeboat-mobility enrol`. */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/buf.h"
#include "base/io.h"
#include "base/json.h"
#include "cli/service.h"
#include "wire/client.h"
#include "wire/pki.h"
#include "wire/token.h"

#define VALID_S_MAX (30 * 86400)
#define PROCESS_PORT_DEFAULT 9443
#define PROCESS_CONF_BYTES_MAX 4096

/* ---- create ------------------------------------------------------------------------------------------- */

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
		return cli_print_json("token", json_pack("{s:s,s:s?,s:s?,s:s,s:I}", "ca_fingerprint", fingerprint,
							 "file", file, "token", file == NULL ? token : NULL,
							 "config_url", cli_text(reply, "config_url"), "expires_ns",
							 cli_number(reply, "expires_ns")));
	printf("Configuration server: %s\nCA fingerprint:       %s\n", cli_text(reply, "config_url"), fingerprint);
	if (file != NULL)
		printf("Token:                in %s (good once)\n", file);
	else
		printf("Token:                %s (good once)\n", token);
	return 0;
}

/* What to type where it is used. */
static void print_next(const json_t *body, const json_t *reply, const char *file)
{
	const char *kind = cli_text(body, "kind"), *name = cli_text(body, "name");
	const char *url = cli_text(reply, "config_url"), *fingerprint = cli_text(reply, "ca_fingerprint");

	if (file == NULL)
		file = "FILE";
	if (strcmp(kind, "machine") == 0)
		printf("There: lifeboat-mobility enrol --config-url %s --ca-fingerprint %s --token-file %s%s%s\n", url,
		       fingerprint, file, name[0] != '\0' ? " --name " : "", name);
	else if (strcmp(kind, "target") == 0)
		printf("There: lifeboat-target join %s --server %s --ca-fingerprint %s --token-file %s\n",
		       name[0] != '\0' ? name : "NAME", url, fingerprint, file);
	else
		printf("There: lifeboat token use %s --kind %s --server %s --ca-fingerprint %s --token-file %s "
		       "%s\n",
		       name[0] != '\0' ? name : "NAME", kind, url, fingerprint, file,
		       strcmp(kind, "process") == 0 ? "--public-host HOST" : "--identity FOLDER");
}

static int make_token(struct cli *c, const json_t *body, const char *file)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (c->dry_run)
		return cli_would(c, "make a one-time token for a %s%s%s", cli_text(body, "kind"),
				 cli_text(body, "name")[0] != '\0' ? " named " : "", cli_text(body, "name"));
	r = cli_call(c, "POST", "/v1/token", body, &reply);
	if (r < 0)
		return r;
	r = give_token(c, reply, file);
	if (r == 0 && !c->json)
		print_next(body, reply, file);
	return r;
}

static int check_kind(const char *kind)
{
	if (strcmp(kind, "machine") == 0 || strcmp(kind, "process") == 0 || strcmp(kind, "target") == 0 ||
	    strcmp(kind, "user") == 0)
		return 0;
	return lb_fail(-EINVAL, "--kind takes machine, process, target or user, not \"%.40s\"", kind);
}

int cmd_token_create(struct cli *c)
{
	const char *kind = cli_value(c, "kind") != NULL ? cli_value(c, "kind") : "machine";
	_cleanup_json_ json_t *body = json_pack("{s:s}", "kind", kind);
	uint64_t valid_s = 3600;
	int r;

	r = check_kind(kind);
	if (r == 0)
		r = cli_value_u64(c, "valid", VALID_S_MAX, &valid_s);
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
	const char *kind = cli_value(c, "kind") != NULL ? cli_value(c, "kind") : "process";
	_cleanup_json_ json_t *body = json_pack("{s:s,s:s}", "kind", kind, "name", c->args[0]);

	if (strcmp(kind, "process") != 0 && strcmp(kind, "target") != 0)
		return lb_fail(-EINVAL, "--kind takes process or target, not \"%.40s\"", kind);
	if (cli_value(c, "replace") != NULL && strcmp(kind, "target") != 0)
		return lb_fail(-EINVAL, "--replace is for target servers: a process server's name stays its own");
	if (cli_value(c, "replace") != NULL && json_object_set_new(body, "replace", json_true()) < 0)
		return lb_fail(-ENOMEM, "out of memory for a request");
	return make_token(c, body, cli_value(c, "file"));
}

/* ---- use ---------------------------------------------------------------------------------------------- */

/* A process server tells where machines reach it. */
static int set_hosts(const struct cli *c, json_t *body)
{
	_cleanup_free_ char *copy = NULL;
	uint64_t port = PROCESS_PORT_DEFAULT;
	json_t *hosts = json_array();
	char *rest, *host;
	int r;

	if (cli_value(c, "public-host") == NULL) {
		json_decref(hosts);
		return lb_fail(-EINVAL,
			       "by which names do machines reach this process server? Give --public-host NAME");
	}
	rest = copy = strdup(cli_value(c, "public-host"));
	if (copy == NULL || json_object_set_new(body, "hosts", hosts) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	while ((host = strsep(&rest, ",")) != NULL)
		json_array_append_new(hosts, json_string(host));
	r = cli_value_u64(c, "port", 65535, &port);
	return r < 0 ? r : lb_json_set_u64(body, "port", port);
}

static int enrol(struct cli *c, const char *kind, const char *token, json_t **ret_reply)
{
	const struct lb_http_client_options options = {.identity_folder = c->identity_folder,
						       .ca_fingerprint_hex = cli_value(c, "ca-fingerprint")};
	_cleanup_free_ char *csr_pem = NULL;
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_folder_make(c->env, c->identity_folder, 0700);
	if (r == 0)
		r = lb_pki_request(c->env, c->identity_folder, c->args[0], &csr_pem);
	if (r < 0)
		return r;
	body = json_pack("{s:s,s:s,s:s,s:s}", "token", token, "kind", kind, "name", c->args[0], "csr_pem", csr_pem);
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for the enrolment");
	r = kind[0] == 'p' ? set_hosts(c, body) : 0;
	if (r == 0)
		r = lb_http_client_new(&options, &c->client);
	return r < 0 ? r : cli_call(c, "POST", "/v1/enrol", body, ret_reply);
}

/* What the unit of a process server reads, unless it is there. */
static int settle_process(const struct cli *c)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(PROCESS_CONF_BYTES_MAX);
	int r;

	r = lb_buf_printf(&text,
			  "# written by lifeboat token use\nport = %s\nconfig_url = %s\nidentity_folder = %s\n"
			  "cache_folder = " CLI_PROCESS_FOLDER "/cache\n",
			  cli_value(c, "port") != NULL ? cli_value(c, "port") : "9443", c->server_url,
			  c->identity_folder);
	if (r == 0)
		r = lb_folder_make(c->env, CLI_ETC_FOLDER, 0755);
	if (r == 0)
		r = lb_file_write_new(c->env, CLI_PROCESS_CONF, text.data, text.size_bytes, 0644);
	if (r < 0 && r != -EEXIST)
		return r;
	if (!c->json)
		printf("Settings are in " CLI_PROCESS_CONF ".\nNow: systemctl enable --now lifeboat-process\n");
	return cli_service_give(CLI_PROCESS_FOLDER);
}

int cmd_token_use(struct cli *c)
{
	const char *kind = cli_value(c, "kind") != NULL ? cli_value(c, "kind") : "user", *cert, *ca, *id;
	/* of this host, not of a person, unless a folder was named */
	const bool in_place = strcmp(kind, "process") == 0 && strcmp(c->identity_folder, CLI_ADMIN_FOLDER) == 0;
	_cleanup_(lb_token_text_wipe) struct lb_token_text token = {0};
	_cleanup_json_ json_t *reply = NULL;
	int r;

	r = check_kind(kind);
	if (r == 0 && kind[0] == 'm')
		r = lb_fail(-EINVAL, "a machine enrols by `lifeboat-mobility enrol`, on the machine itself");
	if (r == 0 && kind[0] == 't')
		r = lb_fail(-EINVAL, "a target server joins by `lifeboat-target join`, on its own host");
	if (r == 0 && cli_value(c, "ca-fingerprint") == NULL)
		r = lb_fail(-EINVAL, "whose certificates are to be trusted? Give --ca-fingerprint HEX, which came with "
				     "the token");
	if (r == 0 && cli_value(c, "token-file") == NULL)
		r = lb_fail(-EINVAL, "give the token by --token-file FILE, and --ca-fingerprint HEX");
	if (r == 0)
		r = lb_token_text_read(c->env, cli_value(c, "token-file"), &token);
	if (r < 0)
		return r;
	if (in_place)
		c->identity_folder = CLI_PROCESS_FOLDER "/identity";
	if (c->dry_run)
		return cli_would(c, "enrol as %s %s and keep the identity in %s", kind, c->args[0], c->identity_folder);
	r = enrol(c, kind, token.text, &reply);
	if (r == 0)
		r = lb_json_get_str(reply, "cert_pem", &cert);
	if (r == 0)
		r = lb_json_get_str(reply, "ca_pem", &ca);
	if (r == 0)
		r = lb_json_get_str(reply, "id", &id);
	if (r != 0)
		return r;
	r = lb_pki_install(c->env, c->identity_folder, cert, ca, cli_value(c, "ca-fingerprint"));
	if (r == 0 && in_place)
		r = settle_process(c);
	return r < 0 ? r
		     : cli_did(c, "identity",
			       json_pack("{s:s,s:s,s:s,s:s}", "kind", kind, "name", c->args[0], "id", id, "folder",
					 c->identity_folder),
			       "Enrolled as %s %s; key and certificate are in %s.", kind, c->args[0],
			       c->identity_folder);
}
