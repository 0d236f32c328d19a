/* SPDX-License-Identifier: Apache-2.0 */
/* Orders for doubles that a plan has on this host: a job for each of them, all at once. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"

struct collect {
	struct lb_plan_job *run;
	const char *kind;
	const json_t *request;
};

static int submit_for_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct collect *c = arg;

	(void)state;
	if (report->committed ||
	    json_object_get(json_object_get(c->run->job->result, "machines"), report->machine_name) != NULL)
		return 0;
	return lb_plan_job_submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
}

/* One job for each double; nothing that it ended with is asked for again. */
static int run_for_all(struct lb_job *job, const char *kind, const char *step, bool live)
{
	_cleanup_json_ json_t *request = json_object();
	struct lb_plan_job run;
	struct collect c = {.run = &run, .kind = kind, .request = request};
	struct lb_plan_count count = {0};
	int r;

	r = lb_plan_job_begin(&run, job, kind);
	run.live = live;
	r = r < 0 ? r : lb_plan_job_cancelled(&run);
	r = r < 0 ? r : lb_job_step_on(job, step);
	if (r == 0 && strcmp(json_string_value(json_object_get(job->result, "phase")), "check") == 0) {
		r = lb_plan_job_doubles(&run, live, submit_for_double, &c);
		r = r < 0 ? r : lb_plan_job_go_on(&run, 0, "machines", 0);
	}
	r = r < 0 ? r : lb_plan_job_look(&run, NULL, &count);
	if (r < 0)
		return r;
	if (count.active + count.done + count.failed == 0)
		return lb_fail(-ENOENT, "plan %s has no %s double on this host", run.name,
			       live ? "uncommitted live" : "test");
	r = lb_job_say(job, "%u done, %u failed, %u under way", count.done, count.failed, count.active);
	if (r < 0)
		return r;
	if (count.active > 0)
		return lb_job_park(job);
	return count.failed > 0 ? lb_fail(-EIO, "%u doubles of plan %s: %s", count.failed, run.name, count.told) : 0;
}

int lb_plan_run_commit(struct lb_job *job)
{
	return run_for_all(job, "commit", "commit the doubles", true);
}

int lb_plan_run_cleanup(struct lb_job *job)
{
	return run_for_all(job, "cleanup", "remove the test doubles", false);
}
