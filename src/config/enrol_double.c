/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A double asks to be a machine of its own, every few seconds, from its start on. Known by its secret; until reprotect
 * is ordered it is told to wait, which is no failure and leaves no trace but the time at which it asked.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/doubles.h"
#include "config/enrol.h"
#include "config/reprotect.h"
#include "wire/told.h"

#define SECRET_TEXT_BYTES (LB_TOLD_HEX_BYTES - 1)

struct asking {
	struct lb_site *site;
	const struct lb_http_call *call;
	const json_t *body;
	const char *secret, *csr_pem;
	char double_name[LB_SUBJECT_BYTES];
	struct lb_reprotect row;
};

static void asking_clear(struct asking *a)
{
	lb_reprotect_clear(&a->row);
}

static int read_body(struct asking *a)
{
	int r;

	r = lb_json_get_str(a->body, "secret", &a->secret);
	if (r == 0 && strlen(a->secret) != SECRET_TEXT_BYTES)
		r = lb_fail(-EINVAL, "\"secret\" is no secret of a double");
	return r < 0 ? r : lb_json_get_str(a->body, "csr_pem", &a->csr_pem);
}

static int wait(const struct asking *a, struct lb_http_reply *reply)
{
	char text[200];

	snprintf(text, sizeof(text), "as a machine of its own it waits for `lifeboat failover reprotect %s`",
		 a->double_name);
	reply->status = 202;
	reply->json = json_pack("{s:s}", "wait", text);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

static bool may_enrol(const struct lb_reprotect *p)
{
	return strcmp(p->state, LB_REPROTECT_STARTING) != 0 && !lb_reprotect_goes_home(p) &&
	       strcmp(p->state, LB_REPROTECT_ENDING) != 0;
}

/* The machine that it becomes, or is already when an answer was lost. Within the transaction. */
static int find_machine(struct asking *a, struct lb_reg_machine *m)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine source = {0};
	const struct lb_reprotect *p = &a->row;
	char policy[LB_REG_NAME_BYTES + sizeof(LB_POLICY_FAILBACK_SUFFIX)];
	int r;

	if (p->back[0] != '\0')
		return lb_reg_machine_find(a->site->db, p->back, m);
	r = lb_reg_machine_find(a->site->db, p->machine, &source);
	if (r < 0 && r != -ENOENT)
		return r;
	memset(m, 0, sizeof(*m));
	m->created_ns = lb_now_ns(a->site->env);
	m->disks = json_array();
	snprintf(m->name, sizeof(m->name), "%s", p->back_name);
	memcpy(m->process, p->process, sizeof(m->process));
	snprintf(policy, sizeof(policy), "%s" LB_POLICY_FAILBACK_SUFFIX,
		 r == 0 ? source.policy : LB_POLICY_NAME_DEFAULT);
	snprintf(m->policy, sizeof(m->policy), "%.*s", LB_REG_NAME_BYTES - 1, policy);
	return lb_site_uuid(a->site, m->id);
}

static int enrol(struct asking *a, char id[LB_UUID_TEXT_BYTES], char **ret_cert_pem)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_free_ char *cert_pem = NULL;
	char key_hex[LB_REG_HEX_BYTES];
	struct lb_digest key;
	int r;

	r = lb_pki_request_key(a->csr_pem, &key);
	r = r < 0 ? r : lb_db_begin(a->site->db, &txn);
	if (r < 0)
		return r;
	lb_reprotect_clear(&a->row);
	r = lb_reprotect_find(a->site->db, a->double_name, &a->row);
	if (r < 0 || !may_enrol(&a->row))
		return -EAGAIN;
	lb_hex_encode(key.bytes, LB_DIGEST_BYTES, key_hex);
	if (a->row.key[0] != '\0' && strcmp(a->row.key, key_hex) != 0)
		return lb_fail(
			-EACCES,
			"%s has enrolled with another key already; `lifeboat failover reprotect %s --cancel`, then "
			"order it anew",
			a->double_name, a->double_name);
	r = find_machine(a, &m);
	r = r < 0 ? r : lb_enrol_double(a->site, a->call, a->body, a->csr_pem, &m, &cert_pem);
	if (r < 0)
		return r;
	memcpy(a->row.back, m.id, sizeof(a->row.back));
	memcpy(a->row.key, key_hex, sizeof(a->row.key));
	if (strcmp(a->row.state, LB_REPROTECT_ENROLLING) == 0)
		snprintf(a->row.state, sizeof(a->row.state), LB_REPROTECT_ENABLING);
	r = lb_reprotect_put(a->site->db, &a->row);
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r < 0)
		return r;
	memcpy(id, m.id, sizeof(m.id));
	*ret_cert_pem = lb_steal_ptr(cert_pem);
	return 0;
}

int lb_api_enrol_double(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_(asking_clear) struct asking a = {.site = arg, .call = call};
	_cleanup_json_ json_t *body = NULL;
	_cleanup_free_ char *cert_pem = NULL;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_api_body(call, &body);
	a.body = body;
	r = r < 0 ? r : read_body(&a);
	r = r < 0 ? r : lb_doubles_asked(a.site, a.secret, a.double_name);
	if (r < 0)
		return r;
	r = lb_reprotect_find(a.site->db, a.double_name, &a.row);
	if (r == -ENOENT || (r == 0 && !may_enrol(&a.row)))
		return wait(&a, reply);
	r = r < 0 ? r : enrol(&a, id, &cert_pem);
	if (r == -EAGAIN)
		return wait(&a, reply);
	if (r < 0)
		return r; /* said to the one who asks, who asks again: no trace of each */
	lb_fault_place("double %s: enrolled, not answered", a.double_name);
	lb_audit(a.site, call, r);
	lb_event(a.site, "info", a.row.back_name, "double %s enrolled from %s", a.double_name, call->peer.address);
	if (lb_reprotect_wake(a.site) < 0)
		lb_event(a.site, "warning", a.row.back_name, "its job could not be woken: %s", lb_err_text());
	reply->json = json_pack("{s:s,s:s,s:s,s:s}", "id", id, "name", a.row.back_name, "cert_pem", cert_pem, "ca_pem",
				a.site->ca_pem);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
