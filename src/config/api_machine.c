/* SPDX-License-Identifier: Apache-2.0 */
/* Machines: listing, protecting, pausing, comparing anew, forgetting. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/failovers.h"
#include "config/groups.h"
#include "config/live.h"
#include "config/moves.h"
#include "config/readiness.h"
#include "config/status.h"
#include "config/target.h"

#define REPORT_WAIT_MS 15000 /* a machine that has just been enrolled tells its disks within seconds */
#define CHECK_WAIT_S 45      /* an agent asks every few seconds what is wanted; unpacking an initramfs takes some */
#define CHECK_POLL_MS 1000

/* One order on disks and ids at a time. */
static pthread_mutex_t order_lock = PTHREAD_MUTEX_INITIALIZER;

int lb_api_status(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	(void)call;
	return lb_status_all(arg, &reply->json);
}

int lb_api_machine_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *status = NULL;
	int r;

	(void)call;
	r = lb_status_all(arg, &status);
	if (r < 0)
		return r;
	return lb_api_reply_list(reply, "machines", json_incref(json_object_get(status, "machines")));
}

int lb_api_machine_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_live_machine live = {0};
	json_t *readiness = NULL, *target = NULL;
	int r;

	r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0)
		r = lb_status_machine(site, &m, &reply->json);
	if (r == 0)
		r = lb_readiness_get(site, m.id, &readiness);
	if (r == 0)
		r = json_object_set_new(reply->json, "readiness", readiness);
	if (r == 0)
		r = lb_target_get(site, m.id, &target);
	if (r == 0)
		r = json_object_set_new(reply->json, "target", target);
	if (r == 0)
		r = lb_live_get(site->live, m.id, &live);
	if (r < 0)
		return r;
	r = json_object_set_new(reply->json, "hardware", json_string(m.hardware)) |
	    json_object_set_new(reply->json, "inventory",
				m.inventory != NULL ? json_incref(m.inventory) : json_null()) |
	    json_object_set_new(reply->json, "replication",
				live.process != NULL ? json_incref(live.process) : json_null());
	lb_live_machine_clear(&live);
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

static int find_with_inventory(struct lb_site *site, const char *name, struct lb_reg_machine *m)
{
	int r;

	r = lb_reg_machine_find(site->db, name, m);
	if (r < 0 || json_array_size(json_object_get(m->inventory, "disks")) > 0)
		return r;
	r = lb_live_agent_wait(site->live, m->id, 0, REPORT_WAIT_MS);
	if (r < 0)
		return lb_fail(
			-EAGAIN,
			"the agent of %s has not told its disks yet: start lifeboat-mobility there, then try again",
			m->name);
	lb_reg_machine_clear(m);
	return lb_reg_machine_find(site->db, name, m);
}

static int choose_process(struct lb_site *site, struct lb_reg_machine *m)
{
	struct lb_reg_process p;
	int r;

	if (m->process[0] != '\0')
		return 0;
	r = lb_reg_process_choose(site->db, lb_now_ns(site->env) - LB_PROCESS_ALIVE_S * LB_NS_PER_S, "", &p);
	if (r == 0)
		memcpy(m->process, p.id, sizeof(p.id));
	return r;
}

/* A failed-over machine may come back only when no double of it is left, and with a new certificate. */
static int check_fence(struct lb_site *site, struct lb_reg_machine *m)
{
	char fingerprint[LB_REG_HEX_BYTES];
	bool there;
	int r;

	if (!m->fenced)
		return 0;
	r = lb_failovers_live_of(site, m->id, NULL, &there);
	if (r < 0)
		return r;
	if (there)
		return lb_fail(-EBUSY,
			       "%s is failed over and its double exists; end it with `lifeboat failover cleanup` first",
			       m->name);
	if (lb_reg_cert_current(site->db, m->id, fingerprint) < 0)
		return lb_fail(-EACCES,
			       "%s was failed over and its certificate revoked: enrol it again first (`lifeboat token "
			       "create`)",
			       m->name);
	m->fenced = false;
	m->resync_generation++;
	return 0;
}

static int store_enabled(struct lb_site *site, const struct lb_reg_machine *wanted)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, wanted->id, &m);
	if (r < 0)
		return r;
	json_decref(m.disks);
	m.disks = json_incref(wanted->disks);
	memcpy(m.policy, wanted->policy, sizeof(m.policy));
	memcpy(m.process, wanted->process, sizeof(m.process));
	m.fenced = wanted->fenced;
	m.resync_generation = LB_MAX(m.resync_generation, wanted->resync_generation);
	if (!m.enabled)
		m.enabled_ns = lb_now_ns(site->env);
	m.enabled = true;
	r = lb_reg_machine_put(site->db, &m);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_api_machine_enable(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL;
	const json_t *disks;
	const char *policy_name;
	struct lb_policy policy;
	bool force = false;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_api_optional_str(body, "policy", &policy_name);
	if (r == 0 && policy_name != NULL)
		r = lb_reg_policy_get(site->db, policy_name, &policy);
	disks = json_object_get(body, "disks");
	if (r == 0 && disks != NULL && !json_is_array(disks))
		r = lb_fail(-EINVAL, "\"disks\" is not a list of names");
	if (r == 0 && json_object_get(body, "force") != NULL)
		r = lb_json_get_bool(body, "force", &force) < 0 ? lb_fail(-EINVAL, "\"force\" is true or false") : 0;
	if (r == 0)
		r = find_with_inventory(site, call->params[0], &m);
	if (r == 0 && !force && !m.enabled)
		r = lb_readiness_allows(site, &m);
	if (r != 0)
		return r;
	LB_LOCK_SCOPE(&order_lock);
	if (policy_name != NULL)
		snprintf(m.policy, sizeof(m.policy), "%s", policy.name);
	r = check_fence(site, &m);
	if (r == 0)
		r = lb_disks_choose(&m, disks);
	if (r == 0)
		r = choose_process(site, &m);
	/* what recovery needs is in the vault before anything is replicated */
	if (r == 0)
		r = lb_machine_publish(site, &m);
	if (r == 0)
		r = store_enabled(site, &m);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	m.enabled = true;
	lb_live_check_order(site->live, m.id, lb_now_ns(site->env));
	lb_event(site, "info", m.name, "replication enabled by %s (policy %s)", call->peer.name, m.policy);
	return lb_status_machine(site, &m, &reply->json);
}

static int checked_after(struct lb_site *site, const char *id, int64_t ordered_ns, bool *ret_done)
{
	_cleanup_json_ json_t *readiness = NULL;
	int r;

	r = lb_readiness_get(site, id, &readiness);
	if (r == 0)
		*ret_done = json_integer_value(json_object_get(readiness, "checked_ns")) != ordered_ns;
	return r;
}

/* Orders a look at the readiness and waits for what it finds. */
int lb_api_machine_check(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *before = NULL;
	int64_t now_ns = lb_now_ns(site->env), until_ns = lb_mono_ns(site->env) + CHECK_WAIT_S * LB_NS_PER_S;
	bool done = false;
	int r;

	r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0)
		r = lb_readiness_get(site, m.id, &before);
	if (r < 0)
		return r;
	lb_live_check_order(site->live, m.id, now_ns);
	while (r == 0 && !done && lb_mono_ns(site->env) < until_ns) {
		(void)lb_live_agent_wait(site->live, m.id, lb_now_ns(site->env), CHECK_POLL_MS);
		r = checked_after(site, m.id, json_integer_value(json_object_get(before, "checked_ns")), &done);
	}
	if (r < 0)
		return r;
	if (!done)
		return lb_fail(
			-EAGAIN,
			"the agent of %s has not looked yet: on %s, systemctl status lifeboat-mobility; then try "
			"again",
			m.name, m.name);
	return lb_api_machine_get(arg, call, reply);
}

/* Changes one machine in one transaction. */
static int change(struct lb_site *site, const char *name, void (*fn)(struct lb_reg_machine *m),
		  struct lb_reg_machine *ret_machine)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, name, &m);
	if (r < 0)
		return r;
	fn(&m);
	r = lb_reg_machine_put(site->db, &m);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	*ret_machine = m;
	memset(&m, 0, sizeof(m));
	return 0;
}

static void disable(struct lb_reg_machine *m)
{
	m->enabled = false;
}

static void next_generation(struct lb_reg_machine *m)
{
	m->resync_generation++;
}

int lb_api_machine_disable(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = change(site, call->params[0], disable, &m);
	if (r == 0)
		r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	lb_event(site, "warning", m.name, "replication ended by %s", call->peer.name);
	return lb_status_machine(site, &m, &reply->json);
}

int lb_api_machine_resync(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r < 0)
		return r;
	if (!m.enabled)
		return lb_fail(-EINVAL, "%s is not protected; `lifeboat machine protect %s` does that, comparing first",
			       m.name, m.name);
	lb_reg_machine_clear(&m);
	r = change(site, call->params[0], next_generation, &m);
	if (r < 0)
		return r;
	lb_event(site, "info", m.name, "resync ordered by %s", call->peer.name);
	return lb_status_machine(site, &m, &reply->json);
}

int lb_api_machine_remove(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0)
		r = lb_reg_certs_revoke(site->db, m.id, NULL, "machine removed", lb_now_ns(site->env));
	if (r == 0)
		r = lb_reg_group_leave(site->db, m.id);
	if (r == 0)
		r = lb_reg_machine_remove(site->db, m.id);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_live_forget(site->live, m.id);
	lb_anchor_forget(site, m.id);
	lb_event(site, "warning", m.name, "removed by %s; its recovery points stay in the vault", call->peer.name);
	r = lb_vault_copy_write(site);
	if (r < 0)
		return r;
	reply->json = json_object();
	return 0;
}
