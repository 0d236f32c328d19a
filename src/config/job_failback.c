/* SPDX-License-Identifier: Apache-2.0 */
/* The way home as jobs. What was done is in the double's record, in the vault and in the registry, and found there. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failover_source.h"
#include "config/failovers.h"
#include "config/registry.h"
#include "config/reprotect.h"
#include "target/takeback.h"

static int compared(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	return lb_job_progress(arg, total_bytes > 0 ? (double)done_bytes / (double)total_bytes : 0);
}

static int keep_going(void *job)
{
	return lb_job_check(job);
}

static uint32_t wait_of(const struct lb_job *job)
{
	const json_t *wait_s = json_object_get(job->request, "wait_s");

	return wait_s != NULL ? (uint32_t)json_integer_value(wait_s) : LB_TAKEBACK_WAIT_S_DEFAULT;
}

/* Its way back, if it has one: it must be complete. */
static int find_way(struct lb_job *job, struct lb_reprotect *p)
{
	int r;

	r = lb_reprotect_find(job->site->db, job->target, p);
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	if (r == 0 && strcmp(p->state, LB_REPROTECT_PROTECTED) != 0 && !lb_reprotect_goes_home(p))
		r = lb_fail(
			-EBUSY,
			"the way back of %s is not complete: `lifeboat job watch %s` follows it, `lifeboat failover "
			"reprotect %s --cancel` takes it away; it can then go home without",
			job->target, p->job, job->target);
	return r;
}

static int note(struct lb_job *job, struct lb_reprotect *p, const char *state)
{
	int r;

	snprintf(p->state, sizeof(p->state), "%s", state);
	r = lb_reprotect_put(job->site->db, p);
	lb_fault_place("failback of %s: noted: %s", job->target, state);
	if (r == 0)
		lb_vault_copy_try(job->site);
	return r;
}

/*
 * One that is reprotected goes home by its own journal: what its agent and process server had sent is there, and only
 * the rest is read from its disks. From here on the way back is not taken away any more.
 */
static int shut(struct lb_job *job, struct lb_failover *f, struct lb_reprotect *p, bool *ret_gracefully)
{
	bool back = p->double_name[0] != '\0';
	int r;

	r = back ? note(job, p, LB_REPROTECT_HOME) : 0;
	return r < 0 ? r : lb_failover_shut(f, wait_of(job), ret_gracefully);
}

static int take_back(struct lb_job *job, struct lb_failover *f, struct lb_reprotect *p, struct lb_takeback *back)
{
	struct lb_uuid id;
	bool gracefully = true;
	int r;

	r = shut(job, f, p, &gracefully);
	r = r < 0 ? r : lb_reprotect_fence(job, p);
	if (r == 0 && p->back[0] != '\0')
		r = lb_uuid_parse(p->back, &id);
	r = r < 0 ? r
		  : lb_takeback_run(job->site->env, job->site->vault, f, p->back[0] != '\0' ? &id : NULL, wait_of(job),
				    compared, job, back);
	back->gracefully = back->gracefully && gracefully;
	return r;
}

static int tell_taken(struct lb_job *job, const struct lb_reprotect *p, const struct lb_takeback *back)
{
	json_t *result = json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:b,s:s?}", "epoch", (json_int_t)back->point.position.epoch, "seq",
		(json_int_t)back->point.position.seq, "point_ns", (json_int_t)back->point.time_ns, "gathered_bytes",
		(json_int_t)back->stats.gathered_bytes, "stored_bytes", (json_int_t)back->stats.stored_bytes,
		"gracefully", (int)back->gracefully, "machine", p->back[0] != '\0' ? p->back_name : NULL);

	if (result == NULL || json_object_update_new(job->result, result) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	return 0;
}

/* What was told is kept with it: this is not done again. */
static int land(struct lb_job *job, struct lb_reprotect *p, const struct lb_takeback *back)
{
	int r;

	r = lb_reprotect_target_finish(job, p, &back->point.position);
	if (r < 0 || json_object_get(p->request, "target") == NULL)
		return r;
	r = lb_job_keep(job);
	return r < 0 ? r : note(job, p, LB_REPROTECT_LANDED);
}

static int go_home(struct lb_job *job, struct lb_failover *f, struct lb_reprotect *p)
{
	struct lb_takeback back = {0};
	int r;

	r = take_back(job, f, p, &back);
	r = r < 0 ? r : tell_taken(job, p, &back);
	if (r == 0 && !back.gracefully)
		r = lb_job_say(job, "it did not shut down within %u s and was turned off", wait_of(job));
	return r < 0 ? r : land(job, p, &back);
}

static int start_original(struct lb_job *job, struct lb_reprotect *p)
{
	int r;

	if (json_object_get(job->request, "boot") == NULL)
		return 0;
	r = lb_reprotect_target_boot(job, p);
	return r < 0 ? r : note(job, p, LB_REPROTECT_STARTED);
}

/* While the double still works: a wrong name is not found out when all is down. */
static int check_original(struct lb_job *job, const struct lb_reprotect *p)
{
	const json_t *boot = json_object_get(job->request, "boot");
	int r;

	if (boot == NULL || json_object_get(p->request, "target") == NULL || lb_reprotect_landed(p))
		return 0;
	r = lb_job_step(job, "look at the original");
	return r < 0 ? r : lb_reprotect_target_ready(job, p, boot, true);
}

int lb_job_failback_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	int r;

	r = lb_job_double_open(job, &f);
	if (r == 0)
		lb_failover_idle_set(f, keep_going, job);
	r = r < 0 ? r : find_way(job, &p);
	r = r < 0 ? r : check_original(job, &p);
	r = r < 0 ? r : lb_job_step(job, "shut the double down, and take the last of what it wrote");
	if (r < 0)
		return r;
	if (lb_reprotect_landed(&p))
		r = lb_job_say(job, "its disks at home are at the last point already");
	else
		r = go_home(job, f, &p);
	return r < 0 ? r : start_original(job, &p);
}

int lb_job_shut_run(struct lb_job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	bool gracefully = true;
	int r;

	r = lb_job_step(job, "shut the double down");
	r = r < 0 ? r : lb_job_double_open(job, &f);
	if (r == 0)
		lb_failover_idle_set(f, keep_going, job);
	r = r < 0 ? r : find_way(job, &p);
	if (r == 0 && !lb_reprotect_landed(&p))
		r = shut(job, f, &p, &gracefully);
	if (r == 0 && !gracefully)
		r = lb_job_say(job, "it did not shut down within %u s and was turned off", wait_of(job));
	return r < 0 ? r : lb_json_set_bool(job->result, "gracefully", gracefully);
}

int lb_failback_lack(struct lb_site *site, const struct lb_failover_report *report, enum lb_failback_lack *ret_lack)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	int r;

	r = lb_reprotect_find(site->db, report->vm_name, &p);
	if (r < 0 && r != -ENOENT)
		return r;
	lb_err_clear();
	if (!report->shut)
		*ret_lack = LB_FAILBACK_WORKS;
	else if (!report->taken)
		*ret_lack = LB_FAILBACK_NOT_TAKEN;
	else if (r == 0 && json_object_get(p.request, "target") != NULL && !lb_reprotect_landed(&p))
		*ret_lack = LB_FAILBACK_NOT_LANDED;
	else
		*ret_lack = LB_FAILBACK_COMPLETE;
	return 0;
}

/* Nothing that it wrote is thrown away unless that was said. */
static int check_home(struct lb_job *job, const struct lb_failover_report *report)
{
	enum lb_failback_lack lack;
	const char *what;
	int r = lb_failback_lack(job->site, report, &lack);

	if (r < 0 || lack == LB_FAILBACK_COMPLETE)
		return r;
	if (lack == LB_FAILBACK_WORKS)
		return lb_fail(-EINVAL, "%s still has its machine's place: `lifeboat failback start %s` comes first",
			       job->target, job->target);
	if (json_is_true(json_object_get(job->request, "discard")))
		return lb_job_say(job, "what did not come home of it is thrown away, as ordered");
	what = lack == LB_FAILBACK_NOT_TAKEN ? "what it wrote last is not in the vault"
					     : "the disks at home are not at its last point";
	return lb_fail(
		-EINVAL,
		"%s: %s: `lifeboat failback start %s` goes on with that; `lifeboat failback commit %s --discard` "
		"throws it away",
		job->target, what, job->target, job->target);
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
		return lb_reprotect_end(job, job->target); /* an earlier run of this job removed it */
	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	r = check_home(job, &report);
	if (r < 0)
		return r;
	lb_uuid_format(&report.machine, id);
	r = lb_source_give_back(job, id, json_is_true(json_object_get(job->request, "new_hardware")));
	lb_fault_place("failback-commit of %s: the machine has its own back", job->target);
	r = r < 0 ? r : lb_vault_copy_write(job->site);
	r = r < 0 ? r : lb_job_step(job, "remove the double");
	r = r < 0 ? r : lb_failover_cleanup(f, true);
	if (r < 0)
		return r;
	f = NULL; /* freed with it */
	return lb_reprotect_end(job, job->target);
}
