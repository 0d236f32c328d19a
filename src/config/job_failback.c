/* SPDX-License-Identifier: Apache-2.0 */
/* The way home as jobs. What was done is in the double's record, in the vault and in the registry, and found there. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failovers.h"
#include "config/registry.h"
#include "target/takeback.h"

static int compared(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	return lb_job_progress(arg, total_bytes > 0 ? (double)done_bytes / (double)total_bytes : 0);
}

static int keep_going(void *job)
{
	return lb_job_check(job);
}

int lb_job_failback_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	uint32_t wait_s = LB_TAKEBACK_WAIT_S_DEFAULT;
	struct lb_takeback back;
	json_t *result;
	int r;

	if (json_object_get(job->request, "wait_s") != NULL)
		wait_s = (uint32_t)json_integer_value(json_object_get(job->request, "wait_s"));
	r = lb_job_step(job, "shut the double down, and take the last of what it wrote");
	r = r < 0 ? r : lb_job_double_open(job, &f);
	if (r == 0)
		lb_failover_idle_set(f, keep_going, job);
	r = r < 0 ? r : lb_takeback_run(job->site->env, job->site->vault, f, wait_s, compared, job, &back);
	if (r < 0)
		return r;
	result = json_pack("{s:I,s:I,s:I,s:I,s:I,s:b}", "epoch", (json_int_t)back.point.position.epoch, "seq",
			   (json_int_t)back.point.position.seq, "point_ns", (json_int_t)back.point.time_ns,
			   "gathered_bytes", (json_int_t)back.stats.gathered_bytes, "stored_bytes",
			   (json_int_t)back.stats.stored_bytes, "gracefully", (int)back.gracefully);
	if (result == NULL || json_object_update_new(job->result, result) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	return back.gracefully ? 0 : lb_job_say(job, "it did not shut down within %u s and was turned off", wait_s);
}

/* Its certificate counts again; every disk is compared, because nobody replicated it while it was away. */
static int give_back(struct lb_job *job, const char *id)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_site *site = job->site;
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, id, &m);
	if (r == -ENOENT)
		return lb_job_say(job, "the machine is not enrolled here: it replicates when it is");
	if (r < 0 || !m.fenced)
		return r; /* an earlier run of this job did it */
	m.fenced = false;
	m.resync_generation++;
	if (json_is_true(json_object_get(job->request, "new_hardware")))
		m.hardware[0] = '\0'; /* bound to the one that reports first */
	r = lb_reg_machine_put(site->db, &m);
	if (r == 0)
		r = lb_reg_certs_reinstate(site->db, m.id, LB_REVOKED_FAILED_OVER, lb_now_ns(site->env));
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_job_failback_commit_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_job_step(job, "give the machine its identity and its replication back");
	r = r < 0 ? r : lb_job_double_open(job, &f);
	if (r == -ENOENT)
		return 0; /* an earlier run of this job ended with it */
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	if (!report.shut)
		return lb_fail(-EINVAL, "%s still has its machine's place: `lifeboat failback start %s` comes first",
			       job->target, job->target);
	lb_uuid_format(&report.machine, id);
	r = give_back(job, id);
	lb_fault_place("failback-commit of %s: the machine has its own back", job->target);
	r = r < 0 ? r : lb_vault_copy_write(job->site);
	r = r < 0 ? r : lb_job_step(job, "remove the double");
	r = r < 0 ? r : lb_failover_cleanup(f, true);
	if (r == 0)
		f = NULL; /* freed with it */
	return r;
}
