/* SPDX-License-Identifier: Apache-2.0 */
/* All doubles of a plan replicate back: the ways of all are looked at before the first one is begun. */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/reprotect.h"

/* The plan's entry of this machine as the body of its order. */
struct entry_search {
	const char *machine;
	json_t *body;
};

static int make_body(void *arg, size_t group, const json_t *machine)
{
	struct entry_search *s = arg;

	(void)group;
	if (strcmp(json_string_value(json_object_get(machine, "machine")), s->machine) != 0)
		return 0;
	return lb_plan_reprotect_order(machine, &s->body);
}

static int body_of(struct lb_plan_job *run, const char *machine, json_t **ret_body)
{
	struct entry_search s = {.machine = machine};
	int r;

	r = lb_plan_each(run->plan, make_body, &s);
	if (r == 0)
		*ret_body = s.body;
	return r;
}

static int count_committed(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	unsigned int *n = arg;

	(void)state;
	*n += report->committed;
	return 0;
}

/* What can't be looked at is found like what the look finds. */
static int check_one(struct lb_plan_job *run, const struct lb_failover_report *report)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = body_of(run, report->machine_name, &body);
	r = r < 0 ? r : lb_plan_job_submit(run, "reprotect-check", report->machine_name, report->vm_name, body);
	return r == -EEXIST ? lb_plan_job_note(run, report->machine_name, report->vm_name, "refused", lb_err_text())
			    : r;
}

static int check_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	struct lb_plan_job *run = arg;
	int r;

	(void)state;
	r = lb_reprotect_find(run->job->site->db, report->vm_name, &p);
	if (r == -ENOENT)
		return check_one(run, report);
	if (r < 0)
		return r;
	/* one whose job failed on the way goes on where it was: that was looked at when it began */
	if (strcmp(p.state, LB_REPROTECT_PROTECTED) != 0 && !lb_reprotect_goes_home(&p))
		return 0;
	run->table = "machines";
	r = lb_plan_job_note(run, report->machine_name, report->vm_name, "replicates back already", "");
	run->table = "checks";
	return r;
}

static int begin_checks(struct lb_plan_job *run)
{
	unsigned int committed = 0;
	int r;

	r = lb_job_step_on(run->job, "check the way back of all");
	r = r < 0 ? r : lb_plan_job_doubles(run, true, count_committed, &committed);
	if (r == 0 && committed == 0)
		return lb_fail(-ENOENT, "plan %s has no committed live double on this host", run->name);
	r = r < 0 ? r : lb_plan_job_doubles(run, true, check_double, run);
	return r < 0 ? r : lb_plan_job_go_on(run, 0, "checks", 0);
}

static int take_findings(struct lb_plan_job *run, struct lb_plan_findings *findings)
{
	json_t *checks = json_object_get(run->job->result, "checks"), *one, *finding;
	size_t i;
	int r = 0;

	json_object_foreach(checks, findings->machine, one)
	{
		const char *id = json_string_value(json_object_get(one, "job")),
			   *error = json_string_value(json_object_get(one, "error"));
		_cleanup_json_ json_t *result = NULL;
		unsigned int before = findings->errors;

		r = r < 0 || id == NULL ? r : lb_plan_job_child_result(run, id, &result);
		json_array_foreach(json_object_get(result, "findings"), i, finding) r =
			r < 0 ? r
			      : lb_plan_found(findings, json_string_value(json_object_get(finding, "level")),
					      json_string_value(json_object_get(finding, "what")), "%s",
					      json_string_value(json_object_get(finding, "text")));
		/* it ended before it had looked */
		if (r == 0 && findings->errors == before && error != NULL && error[0] != '\0')
			r = lb_plan_found(findings, "error", "check", "%s", error);
	}
	return r;
}

/* 1: nothing is to be begun. */
static int end_checks(struct lb_plan_job *run)
{
	struct lb_plan_findings findings = {.run = run};
	struct lb_plan_count count = {0};
	int r;

	r = lb_plan_job_look(run, NULL, &count);
	r = r < 0 ? r : lb_job_say(run->job, "%u looked at, %u under way", count.done + count.failed, count.active);
	if (r < 0)
		return r;
	if (count.active > 0)
		return lb_job_park(run->job);
	r = lb_plan_findings_begin(run);
	r = r < 0 ? r : take_findings(run, &findings);
	r = r < 0 ? r : lb_plan_findings_end(&findings);
	if (r < 0)
		return r;
	if (json_is_true(json_object_get(run->job->request, "dry_run")))
		return 1;
	return lb_plan_job_go_on(run, 0, "order", 0);
}

static int order_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct lb_plan_job *run = arg;
	_cleanup_json_ json_t *body = NULL;
	int r;

	(void)state;
	if (json_object_get(json_object_get(run->job->result, "machines"), report->machine_name) != NULL)
		return 0;
	r = body_of(run, report->machine_name, &body);
	r = r < 0 ? r : lb_plan_job_submit(run, "reprotect", report->machine_name, report->vm_name, body);
	return r == -EEXIST || r == -ENOENT || r == -EINVAL
		       ? lb_plan_job_note(run, report->machine_name, report->vm_name, "refused", lb_err_text())
		       : r;
}

static int go(struct lb_plan_job *run)
{
	static const char step[] = "let the doubles replicate back";
	int r;

	r = lb_plan_job_cancelled(run);
	run->table = "checks";
	if (r == 0 && lb_plan_job_is(run, "check"))
		r = begin_checks(run);
	if (r == 0 && lb_plan_job_is(run, "checks"))
		r = end_checks(run);
	run->table = "machines";
	if (r != 0)
		return r < 0 ? r : 0;
	r = lb_job_step_on(run->job, step);
	if (r == 0 && lb_plan_job_is(run, "order")) {
		r = lb_plan_job_doubles(run, true, order_double, run);
		r = r < 0 ? r : lb_plan_job_go_on(run, 0, "machines", 0);
	}
	return r < 0 ? r : lb_plan_job_all_ended(run);
}

int lb_plan_run_reprotect(struct lb_job *job)
{
	struct lb_plan_job run;
	int r = lb_plan_job_begin(&run, job, "reprotect");

	r = r < 0 ? r : go(&run);
	return r == -ECANCELED ? lb_plan_job_cancelled(&run) : r;
}
