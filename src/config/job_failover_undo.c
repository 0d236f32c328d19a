/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A failover is given up before its commit: its machine works and replicates again. Never two writers: the double's VM
 * is destroyed before the machine's certificates count again, and its record, which nothing starts any more, goes last.
 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failover_source.h"
#include "config/failovers.h"
#include "config/registry.h"

int lb_job_undo_check(struct lb_site *site, const struct lb_failover *f, const char *machine)
{
	struct lb_failover_report report = {0};
	bool there = false;
	int r;

	if (f != NULL)
		lb_failover_report(f, &report);
	if (f != NULL && report.kind != LB_FAILOVER_LIVE)
		return lb_fail(-EINVAL, "%s is a test: `lifeboat failover cleanup %s` removes it", report.vm_name,
			       report.vm_name);
	if (f != NULL && report.committed)
		return lb_fail(-EINVAL,
			       "%s is committed: its machine comes home by `lifeboat failback start %s`, with what the "
			       "double wrote",
			       report.vm_name, report.vm_name);
	r = lb_failovers_live_of(site, machine, f != NULL ? report.vm_name : NULL, &there);
	if (r < 0 || !there)
		return r;
	return lb_fail(-EINVAL,
		       "the machine has %slive double: `lifeboat failover list` names it, and `lifeboat failover undo` "
		       "of it comes first",
		       f != NULL ? "another " : "a ");
}

/* What the script is told when the double is gone already. */
static int describe(struct lb_job *job, const char *machine, struct lb_reg_machine *m,
		    struct lb_failover_report *ret_report)
{
	int r;

	*ret_report = (struct lb_failover_report){.vm_name = job->target,
						  .machine_name = job->target,
						  .fabric = "",
						  .network = "",
						  .address = "",
						  .warning = "",
						  .kind = LB_FAILOVER_LIVE};
	r = lb_uuid_parse(machine, &ret_report->machine);
	r = r < 0 ? r : lb_reg_machine_find(job->site->db, machine, m);
	if (r == 0)
		ret_report->machine_name = m->name;
	if (r != -ENOENT)
		return r;
	lb_err_clear();
	return 0;
}

/* It is the double's last breath, or an earlier run of this job has taken it. */
static int end_double(struct lb_job *job, const char *machine, struct lb_failover **f)
{
	int r;

	r = lb_job_step(job, "end the double");
	r = r < 0 ? r : lb_job_double_open(job, f);
	if (r < 0 && r != -ENOENT)
		return r;
	lb_err_clear();
	r = lb_job_undo_check(job->site, *f, machine);
	r = r < 0 || *f == NULL ? r : lb_failover_give_up(*f);
	if (r == 0)
		lb_fault_place("failover to %s: undone: its VM is gone", job->target);
	return r;
}

static int give_back(struct lb_job *job, const char *machine)
{
	int r;

	r = lb_job_step(job, "give the machine its identity and its replication back");
	r = r < 0 ? r : lb_source_give_back(job, machine, false);
	if (r < 0)
		return r;
	lb_fault_place("failover to %s: undone: the machine has its own back", job->target);
	lb_vault_copy_try(job->site);
	return 0;
}

int lb_job_failover_undo_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_failover_report report;
	const char *machine;
	int r;

	r = lb_json_get_str(job->request, "machine", &machine);
	r = r < 0 ? r : end_double(job, machine, &f);
	r = r < 0 ? r : describe(job, machine, &m, &report);
	r = r < 0 ? r : give_back(job, machine);
	if (r == 0 && f != NULL)
		lb_failover_report(f, &report);
	r = r < 0 ? r : lb_source_release(job, &report);
	if (r < 0 || f == NULL)
		return r;
	r = lb_job_step(job, "remove the double");
	r = r < 0 ? r : lb_failover_cleanup(f, true);
	if (r == 0)
		f = NULL; /* freed with it */
	return r;
}
