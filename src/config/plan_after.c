/* SPDX-License-Identifier: Apache-2.0 */
/* Orders for doubles that a plan has on this host: a job for each of them, all at once. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/failovers.h"
#include "config/registry.h"
#include "config/reprotect.h"

struct collect {
	struct lb_plan_job *run;
	const char *kind;
	bool committed; /* the order is for those that are, or for those that are not */
	const json_t *request;
};

/* What one's way home is not done with is not thrown away with those of the others. */
static int commit_home(struct collect *c, const struct lb_failover_report *report)
{
	enum lb_failback_lack lack;
	char text[300] = "";
	int r;

	r = lb_failback_lack(c->run->job->site, report, &lack);
	if (r < 0)
		return r;
	if (lack == LB_FAILBACK_WORKS)
		snprintf(text, sizeof(text),
			 "%s still has its machine's place: `lifeboat plan failback %s` comes first", report->vm_name,
			 c->run->name);
	else if (lack != LB_FAILBACK_COMPLETE)
		snprintf(text, sizeof(text),
			 "%s: `lifeboat plan failback %s` goes on with that; `lifeboat failback commit %s --discard` "
			 "throws it away",
			 lack == LB_FAILBACK_NOT_TAKEN ? "what its double wrote last is not in the vault"
						       : "its disks at home are not at the last point",
			 c->run->name, report->vm_name);
	if (text[0] != '\0')
		return lb_plan_job_note(c->run, report->machine_name, report->vm_name, "refused", text);
	r = lb_plan_job_submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
	return r == -EEXIST ? lb_plan_job_note(c->run, report->machine_name, report->vm_name, "refused", lb_err_text())
			    : r;
}

static int submit_for_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct collect *c = arg;

	(void)state;
	if (report->committed != c->committed ||
	    json_object_get(json_object_get(c->run->job->result, "machines"), report->machine_name) != NULL)
		return 0;
	if (strcmp(c->kind, "failback-commit") == 0)
		return commit_home(c, report);
	return lb_plan_job_submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
}

static int for_all(struct lb_plan_job *run, const struct collect *order, const char *step)
{
	struct collect c = *order;
	int r;

	c.run = run;
	r = lb_plan_job_cancelled(run);
	r = r < 0 ? r : lb_job_step_on(run->job, step);
	if (r == 0 && lb_plan_job_is(run, "check")) {
		r = lb_plan_job_doubles(run, run->live, submit_for_double, &c);
		r = r < 0 ? r : lb_plan_job_go_on(run, 0, "machines", 0);
	}
	if (r < 0)
		return r;
	if (json_object_size(json_object_get(run->job->result, "machines")) == 0)
		return lb_fail(-ENOENT, "plan %s has no %s double on this host", run->name,
			       !run->live    ? "test"
			       : c.committed ? "committed live"
					     : "uncommitted live");
	return lb_plan_job_all_ended(run);
}

/* One job for each double; nothing that it ended with is asked for again. */
static int run_for_all(struct lb_job *job, const char *kind, const char *step, bool live, bool committed)
{
	json_t *new_hardware = json_object_get(job->request, "new_hardware");
	_cleanup_json_ json_t *request = json_object();
	const struct collect order = {.kind = kind, .committed = committed, .request = request};
	struct lb_plan_job run;
	int r;

	if (request == NULL || (new_hardware != NULL && json_object_set(request, "new_hardware", new_hardware) < 0))
		return lb_fail(-ENOMEM, "out of memory for a job");
	r = lb_plan_job_begin(&run, job, kind);
	run.live = live;
	r = r < 0 ? r : for_all(&run, &order, step);
	return r == -ECANCELED ? lb_plan_job_cancelled(&run) : r;
}

int lb_plan_run_commit(struct lb_job *job)
{
	return run_for_all(job, "commit", "commit the doubles", true, false);
}

int lb_plan_run_cleanup(struct lb_job *job)
{
	return run_for_all(job, "cleanup", "remove the test doubles", false, false);
}

int lb_plan_run_failback_commit(struct lb_job *job)
{
	return run_for_all(job, "failback-commit", "give the machines their identity and their replication back", true,
			   true);
}
