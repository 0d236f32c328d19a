/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens, certificates and their renewal. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "wire/pki.h"

static int read_kind(const json_t *body, struct lb_reg_token *t)
{
	const char *kind, *role, *name;
	int r;

	r = lb_json_get_str(body, "kind", &kind);
	if (r == 0)
		r = lb_api_optional_str(body, "role", &role);
	if (r == 0)
		r = lb_api_optional_str(body, "name", &name);
	if (r != 0)
		return r;
	if (strcmp(kind, "machine") == 0)
		t->role = LB_ROLE_MACHINE;
	else if (strcmp(kind, "process") == 0)
		t->role = LB_ROLE_PROCESS;
	else if (strcmp(kind, "target") == 0)
		t->role = LB_ROLE_TARGET;
	else if (strcmp(kind, "user") == 0)
		t->role = role != NULL ? lb_role_parse(role) : LB_ROLE_READER;
	else
		return lb_fail(-EINVAL, "a token is for a machine, a process, a target or a user, not for a \"%.40s\"",
			       kind);
	if (strcmp(kind, "user") == 0 && t->role != LB_ROLE_READER && t->role != LB_ROLE_OPERATOR &&
	    t->role != LB_ROLE_ADMIN)
		return lb_fail(-EINVAL, "a user's role is reader, operator or administrator");
	snprintf(t->kind, sizeof(t->kind), "%s", kind);
	if (name == NULL || *name == '\0')
		return 0;
	r = lb_name_check(kind, name);
	if (r == 0)
		memcpy(t->name, name, strlen(name) + 1);
	return r;
}

static int read_token(struct lb_site *site, const json_t *body, struct lb_reg_token *t)
{
	uint64_t valid_s = LB_TOKEN_VALID_S_DEFAULT;
	int r;

	r = read_kind(body, t);
	if (r == 0 && json_object_get(body, "valid_s") != NULL)
		r = lb_json_get_u64(body, "valid_s", &valid_s);
	if (r == 0 && json_object_get(body, "replace") != NULL)
		r = lb_json_get_bool(body, "replace", &t->replaces);
	if (r < 0)
		return r;
	if (valid_s == 0 || valid_s > LB_TOKEN_VALID_S_MAX)
		return lb_fail(-EINVAL, "a token is valid for 1 s to %d days", LB_TOKEN_VALID_S_MAX / 86400);
	t->expires_ns = lb_now_ns(site->env) + (int64_t)valid_s * LB_NS_PER_S;
	return 0;
}

static void config_url(const struct lb_site *site, char url[400])
{
	const char *host = site->settings.hosts[0];

	snprintf(url, 400, strchr(host, ':') != NULL ? "https://[%s]:%u" : "https://%s:%u", host,
		 (unsigned int)site->settings.port);
}

int lb_api_token_create(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	struct lb_reg_token token = {0};
	char text[LB_TOKEN_TEXT_BYTES], url[400];
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = read_token(site, body, &token);
	if (r == 0)
		r = lb_reg_token_make(site, &token, call->peer.name, text);
	if (r < 0)
		return r;
	config_url(site, url);
	reply->json = json_pack("{s:s,s:I,s:s,s:s}", "token", text, "expires_ns", (json_int_t)token.expires_ns,
				"ca_fingerprint", site->ca_fingerprint, "config_url", url);
	lb_wipe(text, sizeof(text));
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_api_cert_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	(void)call;
	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT fingerprint, holder, role, not_after_ns, issued_ns, revoked_ns, reason FROM certificate"
			" ORDER BY issued_ns DESC LIMIT 2000",
			"");
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		json_t *one =
			json_pack("{s:s,s:s,s:s,s:I,s:I,s:o,s:s?}", "fingerprint", lb_db_text(rows, 0), "holder",
				  lb_db_text(rows, 1), "role", lb_db_text(rows, 2), "not_after_ns",
				  (json_int_t)lb_db_int(rows, 3), "issued_ns", (json_int_t)lb_db_int(rows, 4),
				  "revoked_ns", lb_db_null(rows, 5) ? json_null() : json_integer(lb_db_int(rows, 5)),
				  "reason", lb_db_text(rows, 6));

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
	}
	return r < 0 ? r : lb_api_reply_list(reply, "certificates", lb_steal_ptr(list));
}

int lb_api_cert_revoke(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	char own[LB_REG_HEX_BYTES];
	int64_t changes;
	int r;

	lb_hex_encode(call->peer.fingerprint.bytes, LB_DIGEST_BYTES, own);
	if (strcmp(own, call->params[0]) == 0)
		return lb_fail(-EINVAL, "that is your own certificate: let another administrator revoke it");
	LB_DB_SCOPE(site->db);
	r = lb_db_run_changes(site->db, &changes,
			      "UPDATE certificate SET revoked_ns = ?, reason = ? WHERE fingerprint = ? AND"
			      " revoked_ns IS NULL",
			      "iss", lb_now_ns(site->env), "by order", call->params[0]);
	if (r < 0)
		return r;
	if (changes == 0)
		return lb_fail(-ENOENT, "no certificate that counts has this fingerprint");
	reply->json = json_object();
	return 0;
}

/* A renewal keeps role and holder; a machine's must come from the hardware that its identity is bound to. */
static int check_renewal(struct lb_site *site, const struct lb_http_call *call, const json_t *body)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	const char *hardware;
	int r;

	if (call->peer.role != LB_ROLE_MACHINE)
		return 0;
	r = lb_reg_machine_find(site->db, call->peer.name, &m);
	if (r == 0)
		r = lb_json_get_str(body, "hardware", &hardware);
	if (r != 0)
		return r;
	if (m.hardware[0] != '\0' && strcasecmp(hardware, m.hardware) != 0)
		return lb_fail(-EACCES,
			       "the identity of %s is bound to other hardware than this; enrol this machine under its "
			       "own name",
			       m.name);
	return 0;
}

static int renew_cert(struct lb_site *site, const struct lb_http_call *call, const char *csr_pem, char **ret_cert_pem)
{
	char san[LB_PUBLIC_HOSTS_MAX][300];
	const char *names[LB_PUBLIC_HOSTS_MAX + 1] = {0};
	struct lb_issue issue = {.common_name = call->peer.name,
				 .role = call->peer.role,
				 .now_ns = lb_now_ns(site->env),
				 .valid_days = LB_CERT_VALID_DAYS_DEFAULT};
	char *hosts[LB_PUBLIC_HOSTS_MAX] = {0};
	struct lb_reg_process p;
	unsigned int n = 0;
	int r = 0;

	if (call->peer.role == LB_ROLE_PROCESS) {
		r = lb_reg_process_find(site->db, call->peer.name, &p);
		if (r == 0)
			r = lb_hosts_split(p.hosts, hosts, &n);
		for (unsigned int i = 0; i < n; i++) {
			snprintf(san[i], sizeof(san[i]), "%s:%s", lb_host_is_address(hosts[i]) ? "IP" : "DNS",
				 hosts[i]);
			names[i] = san[i];
			free(hosts[i]);
		}
		issue.san = names;
	}
	return r < 0 ? r : lb_ca_issue(site->env, site->ca_folder, csr_pem, &issue, ret_cert_pem);
}

int lb_api_renew(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL;
	_cleanup_free_ char *cert_pem = NULL;
	struct lb_cert_info info;
	const char *csr_pem;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "csr_pem", &csr_pem);
	if (r == 0)
		r = check_renewal(site, call, body);
	if (r == 0)
		r = renew_cert(site, call, csr_pem, &cert_pem);
	if (r == 0)
		r = lb_cert_read(site->env, cert_pem, &info);
	/* the one before stays good to its end: the answer may be lost, and process servers learn of this one with a
	 * delay */
	if (r == 0)
		r = lb_reg_cert_put(site->db, &info, call->peer.name, lb_now_ns(site->env));
	if (r < 0)
		return r;
	reply->json = json_pack("{s:s,s:s}", "cert_pem", cert_pem, "ca_pem", site->ca_pem);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
