/* SPDX-License-Identifier: Apache-2.0 */
/* Orders for doubles that a plan has on this host: a job for each of them, all at once. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"
#include "config/reprotect.h"

struct collect {
	struct lb_plan_job *run;
	const char *kind;
	bool committed; /* the order is for those that are, or for those that are not */
	const json_t *request;
};

/* What can't be ordered for one is told with the others' ends, and does not keep them from theirs. */
static int note(struct collect *c, const struct lb_failover_report *report, const char *state, const char *error)
{
	json_t *machines = json_object_get(c->run->job->result, "machines");

	return json_object_set_new(machines, report->machine_name,
				   json_pack("{s:s,s:n,s:s,s:s}", "double", report->vm_name, "job", "state", state,
					     "error", error)) < 0
		       ? lb_fail(-ENOMEM, "out of memory for a job")
		       : 0;
}

static int reprotect(struct collect *c, const struct lb_failover_report *report)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	int r;

	r = lb_reprotect_find(c->run->job->site->db, report->vm_name, &p);
	if (r == 0 && (strcmp(p.state, LB_REPROTECT_PROTECTED) == 0 || strcmp(p.state, LB_REPROTECT_HOME) == 0))
		return note(c, report, "replicates back already", "");
	if (r < 0 && r != -ENOENT)
		return r;
	r = lb_plan_job_submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
	return r == -EEXIST || r == -ENOENT || r == -EINVAL ? note(c, report, "refused", lb_err_text()) : r;
}

static int submit_for_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct collect *c = arg;

	(void)state;
	if (report->committed != c->committed ||
	    json_object_get(json_object_get(c->run->job->result, "machines"), report->machine_name) != NULL)
		return 0;
	if (strcmp(c->kind, "reprotect") == 0)
		return reprotect(c, report);
	return lb_plan_job_submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
}

static int for_all(struct lb_plan_job *run, const struct collect *order, const char *step)
{
	struct collect c = *order;
	struct lb_plan_count count = {0};
	int r;

	c.run = run;
	r = lb_plan_job_cancelled(run);
	r = r < 0 ? r : lb_job_step_on(run->job, step);
	if (r == 0 && strcmp(json_string_value(json_object_get(run->job->result, "phase")), "check") == 0) {
		r = lb_plan_job_doubles(run, run->live, submit_for_double, &c);
		r = r < 0 ? r : lb_plan_job_go_on(run, 0, "machines", 0);
	}
	r = r < 0 ? r : lb_plan_job_look(run, NULL, &count);
	if (r < 0)
		return r;
	if (count.active + count.done + count.failed == 0)
		return lb_fail(-ENOENT, "plan %s has no %s double on this host", run->name,
			       !run->live    ? "test"
			       : c.committed ? "committed live"
					     : "uncommitted live");
	r = lb_job_say(run->job, "%u done, %u failed, %u under way", count.done, count.failed, count.active);
	if (r < 0)
		return r;
	if (count.active > 0)
		return lb_job_park(run->job);
	return count.failed > 0 ? lb_fail(-EIO, "%u doubles of plan %s: %s", count.failed, run->name, count.told) : 0;
}

/* One job for each double; nothing that it ended with is asked for again. */
static int run_for_all(struct lb_job *job, const char *kind, const char *step, bool live, bool committed)
{
	_cleanup_json_ json_t *request = json_object();
	const struct collect order = {.kind = kind, .committed = committed, .request = request};
	struct lb_plan_job run;
	int r;

	r = lb_plan_job_begin(&run, job, kind);
	run.live = live;
	return r < 0 ? r : for_all(&run, &order, step);
}

int lb_plan_run_commit(struct lb_job *job)
{
	return run_for_all(job, "commit", "commit the doubles", true, false);
}

int lb_plan_run_cleanup(struct lb_job *job)
{
	return run_for_all(job, "cleanup", "remove the test doubles", false, false);
}

int lb_plan_run_reprotect(struct lb_job *job)
{
	return run_for_all(job, "reprotect", "let the doubles replicate back", true, true);
}
