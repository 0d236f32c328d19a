/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine stays where its double is: what `failback start` had begun is taken back before its commit. Never both by
 * our doing: orders that would still start the original are withdrawn and the original is kept down before the double
 * starts, from the disks with which it was shut down. A reprotected one then replicates back as before.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failover_source.h"
#include "config/failovers.h"
#include "config/reprotect.h"
#include "config/targets.h"

struct undoing {
	struct lb_job *job;
	struct lb_failover *f;
	struct lb_failover_report report;
	struct lb_reprotect p; /* empty: not reprotected */
	char machine[LB_UUID_TEXT_BYTES];
};

static void undoing_end(struct undoing *u)
{
	lb_reprotect_clear(&u->p);
	if (u->f != NULL)
		lb_failover_free(u->f);
}

static int keep_going(void *job)
{
	return lb_job_check(job);
}

static bool is_reprotected(const struct undoing *u)
{
	return u->p.back[0] != '\0';
}

bool lb_failback_is_begun(struct lb_site *site, const struct lb_failover_report *report)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	bool home;

	home = lb_reprotect_find(site->db, report->vm_name, &p) == 0 && lb_reprotect_goes_home(&p);
	lb_err_clear();
	return report->shut || home;
}

/* ---- the original ------------------------------------------------------------------------------------------ */

static int refuse(const struct undoing *u, const char *why)
{
	return lb_fail(
		-EPERM,
		"a target server was ordered to start the original of %s, and nothing keeps it down now (%s). Say "
		"what of the target server's host turns it off (--hook NAME or --domain NAME), or, when you have "
		"turned it off yourself, --original-is-down",
		u->job->target, why);
}

/* The script of this server's, which may do it from here; one that is not there is missed only when we started it. */
static int keep_down(struct undoing *u, bool booted)
{
	bool told_down = json_is_true(json_object_get(u->job->request, "original_is_down"));
	char why[LB_ERR_TEXT_BYTES_MAX];
	int r;

	r = lb_source_keep_down(u->job, &u->report);
	if (r == 0 || r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	snprintf(why, sizeof(why), "%.400s", lb_err_text());
	if ((booted || strcmp(u->p.state, LB_REPROTECT_STARTED) == 0) && !told_down)
		return refuse(u, why);
	lb_err_clear();
	return lb_job_say(u->job, "%s: %s", told_down ? "it is down, as you say" : "nothing of ours started it", why);
}

static int end_original(struct undoing *u)
{
	const char *machine = is_reprotected(u) ? u->p.back : u->machine;
	const json_t *halt = json_object_get(u->job->request, "halt");
	const struct lb_targets_order order = {.server = json_string_value(json_object_get(u->p.request, "target")),
					       .machine = machine,
					       .kind = "halt",
					       .body = halt};
	bool booted = false;
	int r;

	r = lb_job_step(u->job, "keep the original down");
	r = r < 0 ? r : lb_targets_withdraw_all(u->job->site, machine);
	r = r < 0 ? r : lb_targets_booted(u->job->site, machine, &booted);
	/* a commit that was cancelled may have given it its identity back */
	r = r < 0 ? r
		  : lb_reg_machine_fence(u->job->site->db, u->machine, LB_REVOKED_FAILED_OVER,
					 lb_now_ns(u->job->site->env));
	if (r < 0)
		return r;
	lb_fault_place("failback of %s: undone: no order is left", u->job->target);
	if (halt != NULL && order.server == NULL)
		return lb_fail(-EINVAL, "%s has no target server that could turn its original off", u->job->target);
	return halt != NULL ? lb_targets_run(u->job, &order, NULL) : keep_down(u, booted);
}

/* ---- the double --------------------------------------------------------------------------------------------- */

static int start_double(struct undoing *u)
{
	int r;

	r = lb_job_step(u->job, "start the double again");
	r = r < 0 ? r : lb_failover_unshut(u->f);
	if (r == 0)
		lb_fault_place("failback of %s: undone: it may start, and does not run", u->job->target);
	r = r < 0 ? r : lb_double_announce(u->job, &u->report);
	r = r < 0 ? r : lb_failover_run(u->f, NULL, NULL);
	return r < 0 ? r : lb_double_tell(u->job, &u->report);
}

/*
 * As it was before: its own machine counts again, and the job that had led there leads there once more. Before its
 * agent starts: one that is refused gives its identity up. One that has done so may enrol as that machine with another
 * key.
 */
static int replicate_back(struct undoing *u)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_site *site = u->job->site;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	if (!is_reprotected(u) || !lb_reprotect_goes_home(&u->p))
		return 0; /* an earlier run of this job did it */
	r = lb_job_step(u->job, "let it replicate back again");
	r = r < 0 ? r : lb_db_begin(site->db, &txn);
	r = r < 0 ? r : lb_reg_machine_unfence(site->db, u->p.back, LB_REVOKED_GOES_HOME, false, lb_now_ns(site->env));
	/* a server that was rebuilt meanwhile has no temporary process server yet */
	snprintf(u->p.state, sizeof(u->p.state), "%s",
		 u->p.process[0] != '\0' ? LB_REPROTECT_REPLICATING : LB_REPROTECT_STARTING);
	u->p.key[0] = '\0';
	r = r < 0 ? r : lb_reprotect_put(site->db, &u->p);
	/* it begins when this one has ended: never two on one double */
	r = r < 0 ? r : lb_job_submit(site, "reprotect", u->job->target, u->p.request, "failback undo", id);
	if (r == 0 && json_object_set_new(u->job->result, "reprotect_job", json_string(id)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a result");
	r = r < 0 ? r : lb_job_keep(u->job);
	r = r < 0 ? r : lb_db_commit(&txn);
	lb_fault_place("failback of %s: undone: it replicates back", u->job->target);
	if (r == 0)
		lb_vault_copy_try(site);
	return r;
}

int lb_job_failback_undo_run(struct lb_job *job)
{
	_cleanup_(undoing_end) struct undoing u = {.job = job};
	int r;

	r = lb_job_double_open(job, &u.f);
	if (r < 0)
		return r;
	lb_failover_idle_set(u.f, keep_going, job);
	lb_failover_report(u.f, &u.report);
	lb_uuid_format(&u.report.machine, u.machine);
	r = lb_reprotect_find(job->site->db, job->target, &u.p);
	if (r == -ENOENT)
		lb_err_clear();
	else if (r < 0)
		return r;
	r = lb_failback_is_begun(job->site, &u.report) ? end_original(&u) : 0; /* 0: an earlier run had done it */
	r = r < 0 ? r : replicate_back(&u);
	r = r < 0 ? r : start_double(&u);
	if (r == 0)
		lb_event(job->site, "warning", job->target, "its machine stays here: the failback was undone");
	return r;
}
