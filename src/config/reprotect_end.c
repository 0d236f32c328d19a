/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a way back: the double's own machine, its journal and the temporary process server go without trace. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "config/anchors.h"
#include "config/api.h"
#include "config/failovers.h"
#include "config/groups.h"
#include "config/live.h"
#include "config/reprotect.h"
#include "config/temporary.h"
#include "vault/erase.h"

#define DRAIN_POLL_NS (200 * LB_NS_PER_MS)

/* Also in a job that was cancelled: what is taken away is taken away in good order. */
static int drain(struct lb_job *job, const char *id, int64_t since_ns)
{
	struct lb_env *env = job->site->env;
	int64_t until_ns = lb_mono_ns(env) + LB_DRAIN_S * LB_NS_PER_S;
	bool silent = false;

	while (!lb_job_drained(job->site, id, since_ns, &silent)) {
		if (silent)
			return lb_job_say(job, "no process server speaks for it: the vault has what it has");
		if (lb_mono_ns(env) > until_ns)
			return lb_job_say(job,
					  "the process server did not send everything within %d s; what is missing "
					  "is read from the double's disks",
					  LB_DRAIN_S);
		if (lb_job_check(job) == -ESHUTDOWN)
			return -ESHUTDOWN;
		env->ops->wait_until(env, lb_mono_ns(env) + DRAIN_POLL_NS, -1);
	}
	return lb_job_say(job, "everything that it wrote is in the vault");
}

int lb_reprotect_fence(struct lb_job *job, struct lb_reprotect *p)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_site *site = job->site;
	int64_t since_ns = lb_now_ns(site->env);
	struct lb_uuid id;
	int r;

	if (p->back[0] == '\0')
		return 0;
	r = lb_reg_machine_find(site->db, p->back, &m);
	if (r == -ENOENT || (r == 0 && !m.enabled))
		return 0;
	r = r < 0 ? r : lb_reg_machine_fence(site->db, p->back, LB_REVOKED_GOES_HOME, lb_now_ns(site->env));
	r = r < 0 ? r : drain(job, p->back, since_ns);
	r = r < 0 ? r : lb_uuid_parse(p->back, &id);
	return r < 0 ? r : lb_journal_fence(site->vault, &id, LB_REVOKED_GOES_HOME);
}

static int forget_machine(struct lb_site *site, const char *id)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_reg_certs_revoke(site->db, id, NULL, "machine removed", lb_now_ns(site->env));
	r = r < 0 ? r : lb_reg_group_leave(site->db, id);
	r = r < 0 ? r : lb_reg_machine_remove(site->db, id);
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_live_forget(site->live, id);
	lb_anchor_forget(site, id);
	return 0;
}

/* What an object lock keeps goes with the lock's time; nobody is stopped by it. */
static int erase(struct lb_job *job, const struct lb_reprotect *p)
{
	struct lb_uuid id;
	int r;

	r = lb_uuid_parse(p->back, &id);
	r = r < 0 ? r : lb_vault_machine_erase(job->site->vault, &id);
	if (r == -EACCES || r == -EPERM)
		return lb_job_say(job, "the journal of %s stays in the vault: %s", p->back_name, lb_err_text());
	return r;
}

int lb_reprotect_end(struct lb_job *job, const char *double_name)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	struct lb_site *site = job->site;
	int r;

	r = lb_reprotect_find(site->db, double_name, &p);
	if (r == -ENOENT) {
		lb_err_clear();
		return lb_temporary_release(site); /* killed between the two */
	}
	snprintf(p.state, sizeof(p.state), LB_REPROTECT_ENDING);
	r = r < 0 ? r : lb_reprotect_put(site->db, &p);
	r = r < 0 ? r : lb_reprotect_fence(job, &p);
	r = r < 0 ? r : lb_reprotect_target_drop(job, &p);
	if (r == 0 && p.back[0] != '\0') {
		lb_fault_place("reprotect of %s: ending: fenced", double_name);
		r = forget_machine(site, p.back);
		lb_fault_place("reprotect of %s: ending: its machine is forgotten, its journal is there", double_name);
		r = r < 0 ? r : lb_vault_copy_write(site);
		r = r < 0 ? r : erase(job, &p);
	}
	r = r < 0 ? r : lb_reprotect_remove(site->db, double_name);
	lb_fault_place("reprotect of %s: ended, the process server is there", double_name);
	if (r == 0)
		lb_vault_copy_try(site);
	return r < 0 ? r : lb_temporary_release(site);
}
