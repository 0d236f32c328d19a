/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Enrolment: a one-time token and a certificate request become an identity. All of it is one transaction: a token is
 * used exactly when a certificate was issued for it. If the answer is lost, the same key may ask again.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/enrol.h"
#include "config/targets.h"
#include "wire/pki.h"

#define PROCESS_PORT_DEFAULT 9443

struct enrolment {
	struct lb_site *site;
	const struct lb_http_call *call;
	const json_t *body;
	struct lb_reg_token token;
	char holder[LB_REG_NAME_BYTES]; /* what becomes the certificate's CN */
	char name[LB_REG_NAME_BYTES];
	char hardware[LB_REG_HEX_BYTES];
	enum lb_role role;
	char *hosts[LB_PUBLIC_HOSTS_MAX]; /* of a process server */
	unsigned int n_hosts;
	int64_t now_ns;
};

static void enrolment_free(struct enrolment *e)
{
	for (unsigned int i = 0; i < e->n_hosts; i++)
		free(e->hosts[i]);
}

static int take_name(struct enrolment *e)
{
	const char *name;
	int r;

	r = lb_api_optional_str(e->body, "name", &name);
	if (r < 0)
		return r;
	if (e->token.name[0] != '\0' && name != NULL && *name != '\0' && strcmp(name, e->token.name) != 0)
		return lb_fail(-EACCES, "this token is for \"%s\", not for \"%.64s\"", e->token.name, name);
	if (e->token.name[0] != '\0')
		name = e->token.name;
	if (name == NULL)
		return lb_fail(-EINVAL, "a name is needed");
	r = lb_name_check(e->token.kind, name);
	if (r < 0)
		return r;
	memcpy(e->name, name, strlen(name) + 1);
	return 0;
}

static int take_hardware(struct enrolment *e)
{
	struct lb_digest digest;
	const char *text;
	int r;

	r = lb_json_get_str(e->body, "hardware", &text);
	if (r == 0)
		r = lb_hex_decode(text, LB_DIGEST_BYTES, digest.bytes);
	if (r < 0)
		return lb_wrap(-EINVAL, "the machine's hardware fingerprint");
	lb_hex_encode(digest.bytes, LB_DIGEST_BYTES, e->hardware);
	return 0;
}

/* What the body says of the machine, until its agent's first report. */
static json_t *inventory_of(const json_t *body)
{
	static const char *const members[] = {"architecture", "firmware", "cpus", "memory_bytes",
					      "kernel",       "disks",    "cards"};
	json_t *inventory;

	if (!json_is_array(json_object_get(body, "disks")))
		return NULL;
	inventory = json_object();
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		if (json_object_get(body, members[i]) != NULL)
			json_object_set(inventory, members[i], json_object_get(body, members[i]));
	return inventory;
}

/* The machine that asks: known by its hardware, or by a name that is free, or by one that the token may take over. */
static int find_machine(struct enrolment *e, struct lb_reg_machine *m)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine named = {0};
	struct lb_db *db = e->site->db;
	bool by_hardware, by_name;
	int r;

	r = lb_reg_machine_find_hardware(db, e->hardware, m);
	if (r < 0 && r != -ENOENT)
		return r;
	by_hardware = r == 0;
	r = lb_reg_machine_find(db, e->name, &named);
	if (r < 0 && r != -ENOENT)
		return r;
	by_name = r == 0;
	if (by_hardware && by_name && strcmp(named.id, m->id) != 0)
		return lb_fail(
			-EEXIST,
			"this hardware is machine \"%s\", and \"%s\" is another machine; enrol it as \"%s\", or remove "
			"one of both first",
			m->name, e->name, m->name);
	if (by_hardware)
		return 0;
	if (!by_name) {
		memset(m, 0, sizeof(*m));
		m->created_ns = e->now_ns;
		snprintf(m->policy, sizeof(m->policy), "%s", LB_POLICY_NAME_DEFAULT);
		m->disks = json_array();
		return lb_site_uuid(e->site, m->id);
	}
	if (named.hardware[0] != '\0' && !e->token.replaces)
		return lb_fail(-EEXIST,
			       "machine \"%s\" is enrolled with other hardware: choose another name, remove that "
			       "machine, or make "
			       "a token that may replace it (\"replace\": true)",
			       e->name);
	*m = named;
	memset(&named, 0, sizeof(named));
	if (m->hardware[0] != '\0')
		m->resync_generation++; /* other disks: compare everything */
	return 0;
}

static int enrol_machine(struct enrolment *e)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	json_t *inventory;
	int r;

	r = take_hardware(e);
	if (r == 0)
		r = find_machine(e, &m);
	if (r < 0)
		return r;
	if (e->token.used_by[0] != '\0' && strcmp(e->token.used_by, m.id) != 0)
		return lb_fail(-EACCES, "this token was used for another machine");
	memcpy(m.name, e->name, sizeof(m.name));
	memcpy(m.hardware, e->hardware, sizeof(m.hardware));
	inventory = inventory_of(e->body);
	if (inventory != NULL) {
		json_decref(m.inventory);
		m.inventory = inventory;
	}
	memcpy(e->holder, m.id, sizeof(m.id));
	e->role = LB_ROLE_MACHINE;
	return lb_reg_machine_put(e->site->db, &m);
}

static int take_hosts(struct enrolment *e)
{
	const json_t *hosts = json_object_get(e->body, "hosts"), *one;
	_cleanup_buf_ struct lb_buf list = LB_BUF(4096);
	size_t i;
	int r = 0;

	if (hosts != NULL && !json_is_array(hosts))
		return lb_fail(-EINVAL, "\"hosts\" is not a list of names and addresses");
	json_array_foreach(hosts, i, one) if (r == 0) r =
		json_is_string(one) ? lb_buf_printf(&list, "%s%s", i > 0 ? "," : "", json_string_value(one))
				    : lb_fail(-EINVAL, "\"hosts\" is not a list of names and addresses");
	if (r == 0 && list.size_bytes == 0)
		r = lb_buf_printf(&list, "%s,%s", e->name, e->call->peer.address);
	if (r == 0)
		r = lb_hosts_split((const char *)list.data, e->hosts, &e->n_hosts);
	if (r < 0)
		return r;
	for (unsigned int n = 0; n < e->n_hosts; n++)
		for (unsigned int k = 0; k < e->site->settings.n_hosts; k++)
			if (strcasecmp(e->hosts[n], e->site->settings.hosts[k]) == 0)
				return lb_fail(-EACCES,
					       "\"%s\" is this configuration server's own name: a process server "
					       "elsewhere can't "
					       "have it",
					       e->hosts[n]);
	return 0;
}

static int enrol_process(struct enrolment *e)
{
	struct lb_reg_process p = {.port = PROCESS_PORT_DEFAULT, .created_ns = e->now_ns};
	uint64_t port;
	size_t used = 0;
	int r;

	r = take_hosts(e);
	if (r == 0 && json_object_get(e->body, "port") != NULL) {
		r = lb_json_get_u64(e->body, "port", &port);
		if (r == 0 && (port == 0 || port > UINT16_MAX))
			r = lb_fail(-EINVAL, "\"port\" is no port");
		if (r == 0)
			p.port = (uint16_t)port;
	}
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < e->n_hosts && used < sizeof(p.hosts); i++)
		used += (size_t)snprintf(p.hosts + used, sizeof(p.hosts) - used, "%s%s", i > 0 ? "," : "", e->hosts[i]);
	if (used >= sizeof(p.hosts))
		return lb_fail(-EINVAL, "the host names are too long together");
	memcpy(p.name, e->name, sizeof(p.name));
	if (e->token.used_by[0] != '\0')
		memcpy(p.id, e->token.used_by, sizeof(p.id));
	else
		r = lb_site_uuid(e->site, p.id);
	if (r < 0)
		return r;
	memcpy(e->holder, p.id, sizeof(p.id));
	e->role = LB_ROLE_PROCESS;
	return lb_reg_process_put(e->site->db, &p);
}

/* A rescue medium that lost its memory is the target server that it was, with its orders. */
static int find_target(struct enrolment *e, char ret_id[LB_UUID_TEXT_BYTES])
{
	_cleanup_(lb_targets_server_clear) struct lb_targets_server named = {0};
	int r;

	if (e->token.used_by[0] != '\0') {
		memcpy(ret_id, e->token.used_by, LB_UUID_TEXT_BYTES);
		return 0;
	}
	r = lb_targets_find(e->site->db, e->name, &named);
	if (r == -ENOENT)
		return lb_site_uuid(e->site, ret_id);
	if (r < 0)
		return r;
	if (named.local)
		return lb_fail(-EEXIST,
			       "target server \"%s\" is part of the configuration server's host; choose another name",
			       e->name);
	if (!e->token.replaces)
		return lb_fail(-EEXIST,
			       "there is a target server \"%s\" already: choose another name, or take a token that may "
			       "replace "
			       "it (`lifeboat server add %s --kind target --replace`)",
			       e->name, e->name);
	memcpy(ret_id, named.id, sizeof(named.id));
	return 0;
}

/* Nobody calls it: it needs no names of hosts. */
static int enrol_target(struct enrolment *e)
{
	struct lb_targets_server t = {.created_ns = e->now_ns};
	int r;

	memcpy(t.name, e->name, sizeof(t.name));
	r = find_target(e, t.id);
	if (r < 0)
		return r;
	memcpy(e->holder, t.id, sizeof(t.id));
	e->role = LB_ROLE_TARGET;
	return lb_targets_put(e->site->db, &t);
}

/* `lifeboat server` orders both kinds about by their names. */
static int check_server_name(struct enrolment *e, const char *kind)
{
	int64_t others;
	int r;

	r = lb_db_get_int(
		e->site->db, &others,
		"SELECT (SELECT count(*) FROM process WHERE ? = 'target' AND name = ?) + (SELECT count(*) FROM "
		"target_server WHERE ? = 'process' AND name = ?)",
		"ssss", kind, e->name, kind, e->name);
	if (r < 0 || others == 0)
		return r;
	return lb_fail(-EEXIST, "there is a server \"%s\" of another kind; choose another name", e->name);
}

static int enrol_user(struct enrolment *e)
{
	struct lb_uuid uuid;

	if (lb_uuid_parse(e->name, &uuid) == 0 || strcmp(e->name, lb_role_name(LB_ROLE_CONFIG)) == 0)
		return lb_fail(-EINVAL, "\"%s\" can't be a user's name", e->name);
	memcpy(e->holder, e->name, sizeof(e->name));
	e->role = e->token.role;
	return 0;
}

static int issue(struct enrolment *e, const char *csr_pem, char **ret_cert_pem)
{
	_cleanup_free_ char *cert_pem = NULL;
	char san[LB_PUBLIC_HOSTS_MAX][300], fingerprint[LB_REG_HEX_BYTES];
	const char *names[LB_PUBLIC_HOSTS_MAX + 1] = {0};
	struct lb_issue issue = {.common_name = e->holder,
				 .role = e->role,
				 .hardware = e->hardware,
				 .now_ns = e->now_ns,
				 .valid_days = LB_CERT_VALID_DAYS_DEFAULT,
				 .san = e->n_hosts > 0 ? names : NULL};
	struct lb_cert_info info;
	int r;

	for (unsigned int i = 0; i < e->n_hosts; i++) {
		snprintf(san[i], sizeof(san[i]), "%s:%s", lb_host_is_address(e->hosts[i]) ? "IP" : "DNS", e->hosts[i]);
		names[i] = san[i];
	}
	r = lb_ca_issue(e->site->env, e->site->ca_folder, csr_pem, &issue, &cert_pem);
	if (r == 0)
		r = lb_cert_read(e->site->env, cert_pem, &info);
	if (r == 0)
		r = lb_reg_cert_put(e->site->db, &info, e->holder, e->now_ns);
	if (r < 0)
		return r;
	lb_hex_encode(info.fingerprint.bytes, LB_DIGEST_BYTES, fingerprint);
	/* a user may have several devices; a machine and a server are one */
	if (e->role == LB_ROLE_MACHINE || e->role == LB_ROLE_PROCESS || e->role == LB_ROLE_TARGET)
		r = lb_reg_certs_revoke(e->site->db, e->holder, fingerprint, "enrolled again", e->now_ns);
	if (r < 0)
		return r;
	*ret_cert_pem = lb_steal_ptr(cert_pem);
	return 0;
}

static int enrol(struct enrolment *e, const char *token, const char *kind, const char *csr_pem, char **ret_cert_pem)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_free_ char *cert_pem = NULL;
	struct lb_digest key;
	int r;

	r = lb_pki_request_key(csr_pem, &key);
	if (r == 0)
		r = lb_db_begin(e->site->db, &txn);
	if (r == 0)
		r = lb_reg_token_take(e->site->db, token, kind, &key, e->now_ns, &e->token);
	if (r == 0)
		r = take_name(e);
	if (r < 0)
		return r;
	r = check_server_name(e, kind);
	if (r < 0)
		return r;
	if (strcmp(kind, "machine") == 0)
		r = enrol_machine(e);
	else if (strcmp(kind, "process") == 0)
		r = enrol_process(e);
	else if (strcmp(kind, "target") == 0)
		r = enrol_target(e);
	else
		r = enrol_user(e);
	if (r == 0)
		r = issue(e, csr_pem, &cert_pem);
	if (r == 0)
		r = lb_reg_token_used(e->site->db, token, &key, e->holder, e->now_ns);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	*ret_cert_pem = lb_steal_ptr(cert_pem);
	return 0;
}

int lb_enrol_double(struct lb_site *site, const struct lb_http_call *call, const json_t *body, const char *csr_pem,
		    struct lb_reg_machine *m, char **ret_cert_pem)
{
	_cleanup_(enrolment_free) struct enrolment e = {
		.site = site, .call = call, .body = body, .role = LB_ROLE_MACHINE, .now_ns = lb_now_ns(site->env)};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine other = {0};
	json_t *inventory = inventory_of(body);
	int r;

	if (inventory != NULL) {
		json_decref(m->inventory);
		m->inventory = inventory;
	}
	r = take_hardware(&e);
	if (r < 0)
		return r;
	r = lb_reg_machine_find_hardware(site->db, e.hardware, &other);
	if (r == 0 && strcmp(other.id, m->id) != 0)
		return lb_fail(-EEXIST, "this double's hardware is machine \"%s\" already: remove that first",
			       other.name);
	if (r < 0 && r != -ENOENT)
		return r;
	memcpy(m->hardware, e.hardware, sizeof(m->hardware));
	memcpy(e.holder, m->id, sizeof(m->id));
	r = lb_reg_machine_put(site->db, m);
	return r < 0 ? r : issue(&e, csr_pem, ret_cert_pem);
}

int lb_api_enrol(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(enrolment_free) struct enrolment e = {.site = site, .call = call, .now_ns = lb_now_ns(site->env)};
	_cleanup_json_ json_t *body = NULL;
	_cleanup_free_ char *cert_pem = NULL;
	const char *token, *kind, *csr_pem;
	char vault_id[LB_UUID_TEXT_BYTES], url[1100] = "";
	struct lb_reg_process p;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "token", &token);
	if (r == 0)
		r = lb_json_get_str(body, "kind", &kind);
	if (r == 0)
		r = lb_json_get_str(body, "csr_pem", &csr_pem);
	if (r != 0)
		return r;
	e.body = body;
	r = enrol(&e, token, kind, csr_pem, &cert_pem);
	if (r < 0)
		return r;
	lb_event(site, "info", e.name, "enrolled as a %s from %s", kind, call->peer.address);
	if (lb_vault_copy_write(site) < 0)
		lb_event(site, "warning", e.name, "the vault's copy of the registry is not up to date: %s",
			 lb_err_text());
	if (e.role == LB_ROLE_MACHINE && lb_reg_process_choose(site->db, 0, "", &p) == 0)
		lb_api_process_url(site, p.id, call, url);
	lb_uuid_format(lb_vault_id(site->vault), vault_id);
	reply->json = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "id", e.holder, "name", e.name, "cert_pem", cert_pem,
				"ca_pem", site->ca_pem, "vault_id", vault_id, "process_url", url);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
