/* SPDX-License-Identifier: Apache-2.0 */
/* What process servers ask and tell: their machines with keys and policies; how these are. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/groups.h"
#include "config/installs.h"
#include "config/live.h"
#include "config/ports.h"
#include "config/reprotect.h"
#include "config/status.h"
#include "config/targets.h"

#define SEEN_INTERVAL_S 20

/* A machine whose certificates were all revoked: a fingerprint that nothing has. */
#define NO_FINGERPRINT "0000000000000000000000000000000000000000000000000000000000000000"

struct assignments {
	struct lb_site *site;
	const char *process;
	json_t *list;
};

static int machine_key(struct lb_site *site, const char *id, char **ret_base64)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	struct lb_uuid uuid;
	int r;

	r = lb_uuid_parse(id, &uuid);
	if (r == 0)
		r = lb_vault_keyring(site->vault, &uuid, false, &ring);
	if (r < 0)
		return r;
	*ret_base64 = lb_base64_encode(ring.key, lb_keyring_bytes(&ring));
	return *ret_base64 != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a key");
}

static int assign(void *arg, const struct lb_reg_machine *m)
{
	struct assignments *a = arg;
	char fingerprint[LB_REG_HEX_BYTES] = NO_FINGERPRINT;
	bool handover = false;
	_cleanup_json_ json_t *policy_json = NULL;
	_cleanup_(lb_secret_free) char *key = NULL;
	struct lb_policy policy;
	json_t *one;
	int r;

	if (strcmp(m->process, a->process) != 0)
		return 0;
	r = machine_key(a->site, m->id, &key);
	if (r == -ENOENT)
		return 0; /* never enabled, or erased */
	if (r == 0 && lb_reg_cert_current(a->site->db, m->id, fingerprint) < 0)
		snprintf(fingerprint, sizeof(fingerprint), "%s", NO_FINGERPRINT);
	if (lb_reg_policy_get(a->site->db, m->policy, &policy) < 0)
		policy = lb_policy_default;
	if (r == 0)
		r = lb_policy_print_for_peer(a->site->env, &policy, &policy_json);
	if (r == 0)
		r = lb_reg_move_under_way(a->site->db, m->id, &handover);
	if (r < 0)
		return lb_wrap(r, "machine %s", m->name);
	one = json_pack("{s:s,s:s,s:s,s:s,s:s,s:b,s:b,s:b,s:O,s:O,s:I,s:I}", "id", m->id, "name", m->name, "key", key,
			"hardware", m->hardware, "cert_fingerprint", fingerprint, "enabled", m->enabled && !m->fenced,
			"fenced", m->fenced, "handover", handover, "disks", m->disks, "policy", policy_json,
			"resync_generation", (json_int_t)m->resync_generation, "flush_ns",
			(json_int_t)lb_live_flush_ordered(a->site->live, m->id));
	return json_array_append_new(a->list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

static int note_seen(struct lb_site *site, const char *process, int64_t now_ns)
{
	return lb_db_run(site->db, "UPDATE process SET seen_ns = ? WHERE id = ? AND seen_ns < ?", "isi", now_ns,
			 process, now_ns - SEEN_INTERVAL_S * LB_NS_PER_S);
}

int lb_api_process_config(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array(), *released = NULL, *ports = NULL, *installs = NULL;
	_cleanup_json_ json_t *asked = NULL;
	struct assignments a = {site, call->peer.name, list};
	struct lb_reg_process p;
	char vault_id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_reg_process_find(site->db, call->peer.name, &p);
	if (r == 0)
		r = note_seen(site, p.id, lb_now_ns(site->env));
	if (r == 0)
		r = lb_reg_machines(site->db, assign, &a);
	if (r == 0)
		r = lb_reg_moves_from(site->db, p.id, &released);
	if (r == 0)
		r = lb_ports_wanted(site, &p, &ports);
	if (r == 0)
		r = lb_installs_asked(site->installs, p.id, &asked);
	if (r == 0)
		r = lb_installs_take(site->installs, p.id, &installs);
	if (r < 0)
		return r;
	lb_uuid_format(lb_vault_id(site->vault), vault_id);
	reply->json = json_pack("{s:s,s:s,s:s,s:O,s:O,s:O,s:O,s:O}", "vault_id", vault_id, "vault_url",
				site->settings.vault, "process_id", p.id, "machines", list, "released", released,
				"ports", ports, "installs", installs, "installs_asked", asked);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

struct own_machines {
	struct lb_site *site;
	const json_t *report;
	const char *process;
	json_t *list;
};

static int keep_own(void *arg, const struct lb_reg_machine *m)
{
	struct own_machines *o = arg;
	const json_t *machines = json_object_get(o->report, "machines");
	json_t *one;
	size_t i;

	if (strcmp(m->process, o->process) != 0)
		return 0;
	json_array_foreach((json_t *)machines, i, one)
	{
		const char *id = json_string_value(json_object_get(one, "id"));

		if (id == NULL || strcmp(id, m->id) != 0)
			continue;
		if (json_array_append(o->list, one) < 0)
			return lb_fail(-ENOMEM, "out of memory for a report");
		if (lb_anchor_note(o->site, id, one) < 0)
			lb_warning("machine %s: what the vault holds could not be noted: %s", m->name, lb_err_text());
	}
	return 0;
}

/* A process server speaks for the machines that are assigned to it, and for no other. */
int lb_api_process_report(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *report = NULL, *own = json_array();
	struct own_machines o = {.site = site, .process = call->peer.name, .list = own};
	int64_t now_ns = lb_now_ns(site->env);
	struct lb_reg_process p;
	int r;

	r = lb_api_body(call, &report);
	if (r == 0)
		r = lb_reg_process_find(site->db, call->peer.name, &p);
	if (r < 0)
		return r;
	o.report = report;
	r = lb_reg_machines(site->db, keep_own, &o);
	if (r == 0 && json_object_set(report, "machines", own) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	if (r == 0)
		r = lb_live_process_put(site->live, p.id, report, now_ns);
	if (r == 0)
		r = note_seen(site, p.id, now_ns);
	if (r == 0)
		r = lb_ports_reported(site, &p, report);
	if (r == 0)
		r = lb_group_points_settle(site);
	if (r == 0)
		r = lb_reprotect_wake(site);
	if (r < 0)
		return r;
	reply->json = json_pack("{s:[]}", "commands");
	return 0;
}

struct servers {
	struct lb_site *site;
	json_t *list;
};

static int server_one(void *arg, const struct lb_reg_process *p)
{
	struct servers *s = arg;
	json_t *one;
	int r;

	r = lb_status_process(s->site, p, &one);
	if (r < 0)
		return r;
	return json_array_append_new(s->list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

static int target_one(void *arg, const struct lb_targets_server *t)
{
	struct servers *s = arg;
	json_t *one;
	int r;

	r = lb_status_target(s->site, t, &one);
	if (r < 0)
		return r;
	return json_array_append_new(s->list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
}

int lb_api_server_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	struct servers s = {site, list};
	json_t *self;
	int r;

	(void)call;
	self = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i}", "id", "config", "name", site->settings.hosts[0], "kind",
			 "config", "health", "ok", "text", "answers", "cure", "", "hosts", site->settings.public_host,
			 "port", (int)site->settings.port);
	if (json_array_append_new(list, self) < 0)
		return lb_fail(-ENOMEM, "out of memory for an answer");
	r = lb_reg_processes(site->db, server_one, &s);
	if (r == 0)
		r = lb_targets_each(site->db, target_one, &s);
	return r < 0 ? r : lb_api_reply_list(reply, "servers", lb_steal_ptr(list));
}
