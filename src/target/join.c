/* SPDX-License-Identifier: Apache-2.0 */
#include "target/join.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "wire/client.h"
#include "wire/pki.h"
#include "wire/token.h"

#define CONF_BYTES_MAX (8u << 10)

static int ask(const struct lb_target_join *j, const struct lb_token_text *token, const char *csr_pem,
	       json_t **ret_reply)
{
	static const char *const secrets[] = {"token", NULL};
	const struct lb_http_client_options options = {.identity_folder = j->identity_folder,
						       .ca_fingerprint_hex = j->ca_fingerprint};
	_cleanup_(lb_http_client_freep) struct lb_http_client *client = NULL;
	_cleanup_json_ json_t *body = NULL;
	char url[600];
	int r;

	body = json_pack("{s:s,s:s,s:s,s:s}", "token", token->text, "kind", "target", "name", j->name, "csr_pem",
			 csr_pem);
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for the enrolment");
	snprintf(url, sizeof(url), "%.500s/v1/enrol", j->server_url);
	r = lb_http_client_new(&options, &client);
	r = r < 0 ? r : lb_http_json(client, "POST", url, body, ret_reply);
	lb_json_wipe(body, secrets);
	return r;
}

static int write_settings(struct lb_env *env, const struct lb_target_join *j)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(CONF_BYTES_MAX);
	int r;

	r = lb_buf_printf(&text, "# written by lifeboat-target join\nconfig_url = %s\nidentity_folder = %s\n",
			  j->server_url, j->identity_folder);
	if (r == 0 && j->state_folder != NULL)
		r = lb_buf_printf(&text, "state_folder = %s\n", j->state_folder);
	r = r < 0 ? r : lb_file_write_new(env, j->settings_path, text.data, text.size_bytes, 0644);
	return r == -EEXIST ? 0 : r; /* joins again; what the administrator wrote stands */
}

int lb_target_join(struct lb_env *env, const struct lb_target_join *j)
{
	_cleanup_(lb_token_text_wipe) struct lb_token_text token = {0};
	_cleanup_free_ char *csr_pem = NULL;
	_cleanup_json_ json_t *reply = NULL;
	const char *cert, *ca;
	int r;

	if (strncmp(j->server_url, "https://", 8) != 0)
		return lb_fail(-EINVAL, "--server takes https://HOST[:PORT], not \"%.80s\"", j->server_url);
	r = lb_name_check("target server", j->name);
	r = r < 0 ? r : lb_token_text_read(env, j->token_file, &token);
	r = r < 0 ? r : lb_folder_make(env, j->identity_folder, 0700);
	r = r < 0 ? r : lb_pki_request(env, j->identity_folder, j->name, &csr_pem);
	r = r < 0 ? r : ask(j, &token, csr_pem, &reply);
	r = r < 0 ? r : lb_json_get_str(reply, "cert_pem", &cert);
	r = r < 0 ? r : lb_json_get_str(reply, "ca_pem", &ca);
	r = r < 0 ? r : lb_pki_install(env, j->identity_folder, cert, ca, j->ca_fingerprint);
	return r < 0 ? r : write_settings(env, j);
}
