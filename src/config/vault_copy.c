/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry's copy in the vault (object site/registry): policies, machines, plans and ways back, so that a
 * configuration server that was lost is rebuilt from storage account and passphrase. Certificates are not in it:
 * machines enrol anew and get their old ids by their hardware.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "config/api.h"
#include "config/drills.h"
#include "config/target.h"
#include "config/groups.h"
#include "config/plans.h"
#include "config/reprotect.h"
#include "vault/site.h"

#define COPY_NAME "registry"
#define COPY_VERSION 1
#define WRITE_ATTEMPTS_MAX 5

static int add_policy(void *arg, const struct lb_policy *policy)
{
	json_t *one;
	int r;

	r = lb_policy_print(policy, &one);
	if (r < 0)
		return r;
	return json_array_append_new(arg, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy") : 0;
}

struct copy {
	struct lb_site *site;
	json_t *machines;
};

static int add_machine(void *arg, const struct lb_reg_machine *m)
{
	const struct copy *c = arg;
	json_t *target, *one;
	int r;

	r = lb_target_get(c->site, m->id, &target);
	if (r < 0)
		return r;
	one = json_pack("{s:s,s:s,s:s,s:s,s:b,s:b,s:I,s:O,s:O?,s:I,s:o,s:b}", "id", m->id, "name", m->name, "hardware",
			m->hardware, "policy", m->policy, "enabled", m->enabled, "fenced", m->fenced,
			"resync_generation", (json_int_t)m->resync_generation, "disks", m->disks, "inventory",
			m->inventory, "created_ns", (json_int_t)m->created_ns, "target", target, "sata",
			(int)lb_target_wants_sata(c->site, m->id));
	return json_array_append_new(c->machines, one) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy")
							   : 0;
}

static int add_plan(void *arg, const json_t *plan)
{
	return json_array_append(arg, (json_t *)plan) < 0 ? lb_fail(-ENOMEM, "out of memory for the registry's copy")
							  : 0;
}

static int make_copy(struct lb_site *site, char **ret_text)
{
	_cleanup_json_ json_t *policies = json_array(), *machines = json_array(), *plans = json_array(),
			      *groups = json_array(), *schedules = json_array(), *reprotects = json_array();
	struct copy c = {site, machines};
	_cleanup_json_ json_t *copy = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_reg_policies(site->db, add_policy, policies);
	if (r == 0)
		r = lb_reg_machines(site->db, add_machine, &c);
	if (r == 0)
		r = lb_reg_plans(site->db, add_plan, plans);
	if (r == 0)
		r = lb_groups_copy(site->db, groups);
	if (r == 0)
		r = lb_drills_copy(site->db, schedules);
	if (r == 0)
		r = lb_reprotect_copy(site->db, reprotects);
	if (r < 0)
		return r;
	copy = json_pack("{s:i,s:O,s:O,s:O,s:O,s:O,s:O}", "version", COPY_VERSION, "policies", policies, "machines",
			 machines, "plans", plans, "groups", groups, "drill_schedules", schedules, "reprotects",
			 reprotects);
	return copy == NULL ? lb_fail(-ENOMEM, "out of memory for the registry's copy") : lb_json_dump(copy, ret_text);
}

int lb_vault_copy_write(struct lb_site *site)
{
	_cleanup_free_ char *text = NULL;
	int r;

	/* under one lock, so that an older state never replaces a newer one */
	LB_LOCK_SCOPE(&site->vault_copy_lock);
	r = make_copy(site, &text);
	for (int i = 0; r == 0 && i < WRITE_ATTEMPTS_MAX; i++) {
		r = lb_vault_site_put(site->vault, COPY_NAME, text, strlen(text));
		if (r != -ESTALE && r != -EEXIST)
			break;
		r = 0;
	}
	return r < 0 ? lb_wrap(r, "the registry's copy in the vault") : 0;
}

void lb_vault_copy_try(struct lb_site *site)
{
	if (lb_vault_copy_write(site) == 0)
		return;
	lb_warning("%s", lb_err_text());
	lb_err_clear();
}

static int restore_machine(struct lb_site *site, const json_t *j)
{
	struct lb_reg_machine m = {0};
	const char *id, *name, *hardware, *policy;
	struct lb_uuid uuid;
	int r;

	r = lb_json_get_uuid(j, "id", &uuid);
	if (r == 0)
		r = lb_json_get_str(j, "id", &id);
	if (r == 0)
		r = lb_json_get_str(j, "name", &name);
	if (r == 0)
		r = lb_json_get_str(j, "hardware", &hardware);
	if (r == 0)
		r = lb_json_get_str(j, "policy", &policy);
	if (r == 0)
		r = lb_json_get_bool(j, "enabled", &m.enabled);
	if (r == 0)
		r = lb_json_get_bool(j, "fenced", &m.fenced);
	if (r == 0)
		r = lb_json_get_i64(j, "resync_generation", &m.resync_generation);
	if (r == 0)
		r = lb_json_get_i64(j, "created_ns", &m.created_ns);
	if (r != 0)
		return r;
	snprintf(m.id, sizeof(m.id), "%s", id);
	snprintf(m.name, sizeof(m.name), "%s", name);
	snprintf(m.hardware, sizeof(m.hardware), "%s", hardware);
	snprintf(m.policy, sizeof(m.policy), "%s", policy);
	m.disks = json_is_array(json_object_get(j, "disks")) ? json_incref(json_object_get(j, "disks")) : json_array();
	if (json_is_object(json_object_get(j, "inventory")))
		m.inventory = json_incref(json_object_get(j, "inventory"));
	r = lb_reg_machine_put(site->db, &m);
	if (r == 0 && json_is_object(json_object_get(j, "target")))
		r = lb_target_put(site, m.id, json_object_get(j, "target"));
	lb_reg_machine_clear(&m);
	return r;
}

static int restore(struct lb_site *site, const json_t *copy, unsigned int *ret_machines)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	const json_t *one;
	unsigned int n = 0;
	size_t i;
	int r;

	r = lb_db_begin(site->db, &txn);
	json_array_foreach(json_object_get(copy, "policies"), i, one)
	{
		struct lb_policy policy;

		if (r == 0)
			r = lb_policy_parse(one, false, &policy);
		if (r == 0)
			r = lb_reg_policy_put(site->db, &policy, lb_now_ns(site->env));
	}
	json_array_foreach(json_object_get(copy, "machines"), i, one)
	{
		if (r == 0)
			r = restore_machine(site, one);
		n++;
	}
	json_array_foreach(json_object_get(copy, "plans"), i, one)
	{
		_cleanup_json_ json_t *plan = NULL;

		if (r == 0)
			r = lb_plan_read(one, &plan);
		if (r == 0)
			r = lb_reg_plan_put(site->db, plan, true, lb_now_ns(site->env));
	}
	if (r == 0)
		r = lb_groups_restore(site->db, json_object_get(copy, "groups"));
	if (r == 0)
		r = lb_drills_restore(site->db, json_object_get(copy, "drill_schedules"));
	if (r == 0)
		r = lb_reprotect_restore(site->db, json_object_get(copy, "reprotects"));
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	*ret_machines = n;
	return 0;
}

int lb_vault_copy_restore(struct lb_site *site, unsigned int *ret_machines)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SITE_BYTES_MAX);
	_cleanup_json_ json_t *copy = NULL;
	uint64_t version;
	int64_t rows;
	int r;

	*ret_machines = 0;
	r = lb_db_get_int(site->db, &rows, "SELECT (SELECT count(*) FROM machine) + (SELECT count(*) FROM policy)", "");
	if (r < 0 || rows > 0)
		return r;
	r = lb_vault_site_get(site->vault, COPY_NAME, &text);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = lb_json_parse(text.data, text.size_bytes, LB_SITE_BYTES_MAX, &copy);
	if (r == 0)
		r = lb_json_get_u64(copy, "version", &version);
	if (r != 0)
		return lb_wrap(r, "the registry's copy in the vault");
	if (version != COPY_VERSION)
		return lb_fail(-EPROTONOSUPPORT,
			       "the registry's copy in the vault is of version %" PRIu64
			       ": a newer lifeboat-config wrote it",
			       version);
	return restore(site, copy, ret_machines);
}
