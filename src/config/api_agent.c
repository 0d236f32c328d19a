/* SPDX-License-Identifier: Apache-2.0 */
/* What agents ask and tell. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/groups.h"
#include "config/live.h"
#include "config/point_orders.h"
#include "config/readiness.h"
#include "config/reprotect.h"
#include "vault/proof.h"

#define SEEN_INTERVAL_S 60 /* how often "last seen" is written down */

static int disks_for_agent(const struct lb_reg_machine *m, json_t *list)
{
	static const char *const members[] = {"id", "name", "path", "serial", "size_bytes"};
	const json_t *disk;
	size_t i;

	json_array_foreach(m->disks, i, disk)
	{
		json_t *one;

		if (json_is_true(json_object_get(disk, "retired")))
			continue;
		one = json_object();
		for (size_t k = 0; one != NULL && k < LB_ARRAY_LEN(members); k++)
			json_object_set(one, members[k], json_object_get(disk, members[k]));
		if (json_array_append_new(list, one) < 0)
			return lb_fail(-ENOMEM, "out of memory for an answer");
	}
	return 0;
}

/* The word that its double will show; one that is not protected yet has no key. */
static int add_proof(struct lb_site *site, const struct lb_reg_machine *m, json_t *reply)
{
	const int64_t interval_ns = LB_PROOF_INTERVAL_S * LB_NS_PER_S;
	char word[LB_PROOF_TEXT_BYTES];
	struct lb_uuid id;
	int r;

	if (!m->enabled || lb_uuid_parse(m->id, &id) < 0)
		return 0;
	r = lb_proof_make(site->vault, &id, lb_now_ns(site->env) / interval_ns * interval_ns, word);
	if (r < 0) { /* a drill will lack it; protection must not */
		lb_err_clear();
		return 0;
	}
	return lb_json_set_str(reply, "proof", word);
}

/* Where members of its replication group reach the one who asks. */
static int note_reach(struct lb_site *site, const char *machine, const struct lb_http_call *call)
{
	const char *host = lb_http_query(call, "group_host");
	int64_t port;
	int r;

	r = lb_api_query_i64(call, "group_port", 0, &port);
	if (r < 0)
		return r;
	if (port > UINT16_MAX || (host != NULL && strlen(host) >= LB_LIVE_HOST_BYTES))
		return lb_fail(-EINVAL, "query arguments group_host, group_port: no host and port");
	if (port > 0)
		lb_live_reach_put(site->live, machine, host != NULL ? host : call->peer.address, (uint16_t)port);
	return 0;
}

static int group_of(struct lb_site *site, const char *machine, json_t **ret_group)
{
	struct lb_reg_group g;
	int r = lb_reg_group_of(site->db, machine, &g);

	*ret_group = NULL;
	return r == -ENOENT ? 0 : r < 0 ? r : lb_group_json(site, &g, ret_group);
}

static json_t *mend_json(struct lb_site *site, const char *machine)
{
	const struct lb_live_mend mend = lb_live_mend_ordered(site->live, machine);

	return mend.generation == 0 ? json_null()
				    : json_pack("{s:I,s:b,s:b}", "generation", (json_int_t)mend.generation, "network",
						mend.network, "initramfs", mend.initramfs);
}

/* A double may be smaller than what the policy was made for, and must not die of it: a quarter of its memory at most.
 */
static void fit_ring(struct lb_site *site, const struct lb_reg_machine *m, struct lb_policy *policy)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	json_int_t memory_bytes = json_integer_value(json_object_get(m->inventory, "memory_bytes"));

	if (lb_reprotect_of(site->db, m->id, &p) < 0 || strcmp(p.back, m->id) != 0 || memory_bytes <= 0) {
		lb_err_clear();
		return;
	}
	while (policy->ring_bytes > LB_POLICY_RING_BYTES_MIN && policy->ring_bytes > (uint64_t)memory_bytes / 4)
		policy->ring_bytes /= 2; /* a power of two */
}

int lb_api_agent_config(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *disks = json_array(), *policy_json = NULL, *order = NULL, *group = NULL;
	char vault_id[LB_UUID_TEXT_BYTES], url[1100] = "";
	struct lb_policy policy;
	int r;

	r = lb_reg_machine_find(site->db, call->peer.name, &m);
	if (r < 0)
		return r;
	if (m.fenced)
		return lb_fail(-EACCES,
			       "%s is failed over: its double has taken its place; `lifeboat failover list` shows it",
			       m.name);
	if (lb_reg_policy_get(site->db, m.policy, &policy) < 0)
		policy = lb_policy_default;
	fit_ring(site, &m, &policy);
	r = lb_policy_print_for_peer(site->env, &policy, &policy_json);
	if (r == 0)
		r = disks_for_agent(&m, disks);
	if (r == 0)
		r = lb_reg_move_stand_in(site->db, m.id, m.process);
	if (r == 0 && m.process[0] != '\0')
		r = lb_api_process_url(site, m.process, call, url);
	if (r == 0)
		r = lb_point_order_json(site, m.id, &order);
	if (r == 0)
		r = note_reach(site, m.id, call);
	if (r == 0)
		r = group_of(site, m.id, &group);
	if (r < 0)
		return r;
	lb_uuid_format(lb_vault_id(site->vault), vault_id);
	reply->json = json_pack("{s:s,s:s,s:s,s:b,s:s,s:O,s:O,s:I,s:I,s:O?,s:O?,s:o}", "machine", m.id, "name", m.name,
				"vault_id", vault_id, "enabled", m.enabled, "process_url", url, "disks", disks,
				"policy", policy_json, "resync_generation", (json_int_t)m.resync_generation, "check_ns",
				(json_int_t)lb_live_check_ordered(site->live, m.id), "point_order", order, "group",
				group, "mend", mend_json(site, m.id));
	return reply->json != NULL ? add_proof(site, &m, reply->json) : lb_fail(-ENOMEM, "out of memory for an answer");
}

static int read_inventory(const json_t *report, json_t **ret_inventory)
{
	static const char *const members[] = {"architecture", "firmware", "cpus", "memory_bytes",
					      "kernel",       "disks",    "cards"};
	json_t *inventory = json_object();

	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++) {
		json_t *v = json_object_get(report, members[i]);

		if (v != NULL && (inventory == NULL || json_object_set(inventory, members[i], v) < 0)) {
			json_decref(inventory);
			return lb_fail(-ENOMEM, "out of memory for a report");
		}
	}
	*ret_inventory = inventory;
	return 0;
}

/* Writes down what changed, at most once a minute that it was seen. */
static int note_report(struct lb_site *site, struct lb_reg_machine *m, const json_t *report, int64_t now_ns)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine fresh = {0};
	_cleanup_json_ json_t *inventory = NULL;
	const char *hardware = json_string_value(json_object_get(report, "hardware"));
	bool bind = m->hardware[0] == '\0' && hardware != NULL && strlen(hardware) == 2 * LB_DIGEST_BYTES;
	int r;

	r = read_inventory(report, &inventory);
	if (r < 0)
		return r;
	if (json_equal(inventory, m->inventory) && !bind && now_ns - m->seen_ns < SEEN_INTERVAL_S * LB_NS_PER_S)
		return 0;
	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, m->id, &fresh);
	if (r < 0)
		return r;
	json_decref(fresh.inventory);
	fresh.inventory = lb_steal_ptr(inventory);
	fresh.seen_ns = now_ns;
	if (bind)
		memcpy(fresh.hardware, hardware, sizeof(fresh.hardware));
	r = lb_reg_machine_put(site->db, &fresh);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_api_agent_report(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *report = NULL;
	int64_t now_ns = lb_now_ns(site->env);
	const char *hardware;
	int r;

	r = lb_api_body(call, &report);
	if (r == 0)
		r = lb_json_get_str(report, "hardware", &hardware);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->peer.name, &m);
	if (r < 0)
		return r;
	if (m.hardware[0] != '\0' && strcasecmp(hardware, m.hardware) != 0)
		return lb_fail(-EACCES,
			       "the identity of %s is bound to other hardware than this: a copy of it, or a disk was "
			       "added or taken away; enrol this machine again",
			       m.name);
	/* the registry first: who waits for a report then looks there */
	r = note_report(site, &m, report, now_ns);
	if (r == 0)
		r = lb_readiness_take(site, &m, report);
	if (r == 0)
		r = lb_live_agent_put(site->live, m.id, report, now_ns);
	if (r == 0)
		r = lb_point_report(site, &m, json_object_get(report, "points"));
	if (r < 0)
		return r;
	reply->json = json_object();
	return 0;
}
