/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recovery plan as a job: a machine of states that is run again whenever one of its machines' jobs has ended, a
 * person has confirmed, or the server has started. Nothing is kept but the job's result and the rows that are looked
 * up.
 */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/drills.h"
#include "config/registry.h"
#include "config/target.h"
#include "fabric/network.h"

#define PHASE_BYTES 16

/* ---- the machines of a group ------------------------------------------------------------------------------ */

/* The doubles of one test see one another and nobody else, where this host can do that and no other network is wanted.
 */
static int set_segment(struct lb_plan_job *run, json_t *request)
{
	char network[LB_VM_NETWORK_BYTES];
	int r;

	r = lb_json_set_str(request, "kind", "test");
	r = r < 0 ? r : lb_target_fill(run->job->site, request);
	if (r < 0 || json_is_string(json_object_get(request, "network")))
		return r;
	snprintf(network, sizeof(network), "isolated:%.18s", run->job->id);
	if (lb_target_network_check(run->job->site, network) < 0) {
		lb_err_clear(); /* each double is then alone */
		return 0;
	}
	return lb_json_set_str(request, "network", network);
}

/* What the order asks of all, unless the plan's entry asks something else of this one. */
static int begin_drill(struct lb_plan_job *run, const char *name, json_t *body)
{
	static const char *const members[] = {"check", "limit_s", "note"};
	_cleanup_json_ json_t *request = NULL;
	char target[LB_VM_NAME_BYTES];
	int r;

	for (size_t i = 0; i < LB_ARRAY_LEN(members); i++) {
		json_t *value = json_object_get(run->job->request, members[i]);

		if (value != NULL && json_object_get(body, members[i]) == NULL &&
		    json_object_set(body, members[i], value) < 0)
			return lb_fail(-ENOMEM, "out of memory for a job");
	}
	r = lb_drill_request(body, &request, target);
	r = r < 0 ? r : lb_drill_set_deadline(run->job->site, request);
	r = r < 0 ? r : set_segment(run, request);
	return r < 0 ? r : lb_plan_job_submit(run, "drill", name, target, request);
}

/* A plan that is run again after a failure leaves alone what it has brought up, and goes on with what it has begun. */
static int begin_machine(struct lb_plan_job *run, const json_t *machine)
{
	const char *name = json_string_value(json_object_get(machine, "machine"));
	struct lb_plan_live s = {0};
	_cleanup_json_ json_t *body = NULL;
	const char *frozen;
	char target[LB_VM_NAME_BYTES];
	int r;

	if (run->home)
		return lb_plan_failback_begin(run, machine);
	r = lb_plan_double(machine, run->live, target);
	if (r == 0 && run->live)
		r = lb_plan_job_live(run, name, &s);
	if (r < 0)
		return r;
	if (s.there && s.runs)
		return lb_plan_job_note(run, name, s.name, "runs already", "");
	frozen = json_string_value(json_object_get(json_object_get(run->job->result, "points"), name));
	r = lb_plan_order(machine, run->live, frozen != NULL ? frozen : run->point, &body);
	if (r == 0 && run->drill)
		return begin_drill(run, name, body);
	if (r == 0 && !run->live)
		r = set_segment(run, body);
	return r < 0 ? r : lb_plan_job_submit(run, "failover", name, s.there ? s.name : target, body);
}

/* What came up otherwise than it was ordered: a double that is not mended. */
static int tell_warnings(struct lb_plan_job *run, const json_t *group)
{
	const json_t *table = json_object_get(run->job->result, run->table), *one;
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(group, "machines"), i, one)
	{
		const char *name = json_string_value(json_object_get(one, "machine")), *warning;
		const char *id = json_string_value(json_object_get(json_object_get(table, name), "job"));
		_cleanup_json_ json_t *result = NULL;

		r = r < 0 || id == NULL ? r : lb_plan_job_child_result(run, id, &result);
		warning = json_string_value(json_object_get(result, "warning"));
		if (r == 0 && warning != NULL && warning[0] != '\0')
			r = lb_plan_job_warn(run, "%s: %s", name, warning);
	}
	return r;
}

static int machines_ended(struct lb_plan_job *run, const json_t *group, size_t n, const struct lb_plan_count *count)
{
	bool goes_on = strcmp(json_string_value(json_object_get(group, "on_failure")), "continue") == 0;
	int r = tell_warnings(run, group);

	if (r < 0)
		return r;
	if (count->failed > 0 && !goes_on)
		return lb_fail(-EIO, "%s: %u of its machines failed, and later groups were not begun (%s)%s",
			       run->group_name, count->failed, count->told,
			       run->live ? "; the plan can be run again: it goes on with what is left" : "");
	if (count->failed > 0)
		r = lb_plan_job_warn(run, "%s: %u of its machines failed (%s)", run->group_name, count->failed,
				     count->told);
	return r < 0 ? r : lb_plan_job_go_on(run, n, "after", 0);
}

static size_t machines_before(const json_t *plan, size_t group)
{
	size_t n = 0;

	for (size_t i = 0; i < group; i++)
		n += json_array_size(json_object_get(lb_plan_group(plan, i), "machines"));
	return n;
}

static int do_machines(struct lb_plan_job *run)
{
	size_t n = lb_plan_job_number(run, "group"), before = machines_before(run->plan, n), i;
	const json_t *group = lb_plan_group(run->plan, n), *entries = json_object_get(group, "machines"), *one;
	struct lb_plan_count count = {0};
	char step[LB_PLAN_GROUP_NAME_BYTES + 40];
	int r = 0;

	if (json_array_size(entries) == 0)
		return lb_plan_job_go_on(run, n, "after", 0);
	snprintf(step, sizeof(step), "%s: %zu machines", run->group_name, json_array_size(entries));
	r = lb_job_step_on(run->job, step);
	json_array_foreach(entries, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "machine"));

		if (r == 0 && json_object_get(json_object_get(run->job->result, "machines"), name) == NULL)
			r = begin_machine(run, one);
	}
	r = r < 0 ? r : lb_plan_job_look(run, entries, &count);
	if (r == 0)
		r = lb_job_say(run->job, "%u %s, %u failed, %u under way", count.done, run->home ? "at home" : "up",
			       count.failed, count.active);
	if (r == 0)
		r = lb_job_progress(run->job, (double)(before + count.done + count.failed) /
						      (double)machines_before(run->plan, lb_plan_groups(run->plan)));
	if (r < 0)
		return r;
	return count.active > 0 ? lb_job_park(run->job) : machines_ended(run, group, n, &count);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

static int go(struct lb_plan_job *run)
{
	size_t groups = lb_plan_groups(run->plan);
	int r;

	for (;;) {
		size_t group = lb_plan_job_number(run, "group");
		char phase[PHASE_BYTES]; /* the job's own goes as soon as there is another */

		snprintf(phase, sizeof(phase), "%s", json_string_value(json_object_get(run->job->result, "phase")));

		r = lb_plan_job_cancelled(run);
		if (r < 0)
			return r;
		if (group >= groups)
			return 0;
		lb_plan_group_name(run->plan, group, run->group_name);
		if (strcmp(phase, "check") == 0)
			r = run->home ? lb_plan_failback_check(run) : lb_plan_job_check(run);
		else if (strcmp(phase, "shut") == 0)
			r = lb_plan_failback_shut(run);
		else if (strcmp(phase, "machines") == 0)
			r = do_machines(run);
		else
			r = lb_plan_job_action(run, phase);
		if (r == -ECANCELED)
			r = lb_plan_job_cancelled(run);
		if (r < 0)
			return r;
	}
}

static int run_groups(struct lb_job *job, const char *kind)
{
	struct lb_plan_job run;
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r = lb_plan_job_begin(&run, job, kind);

	if (r < 0)
		return r;
	r = go(&run);
	if (r == -EINPROGRESS || r == -ESHUTDOWN)
		return r; /* it goes on */
	snprintf(text, sizeof(text), "%s", lb_err_text());
	lb_plan_unpin(&run);
	return r < 0 ? lb_fail(r, "%s", text) : 0;
}

int lb_plan_run_test(struct lb_job *job)
{
	return run_groups(job, "test");
}

int lb_plan_run_drill(struct lb_job *job)
{
	return run_groups(job, "drill");
}

int lb_plan_run_failover(struct lb_job *job)
{
	return run_groups(job, "failover");
}

int lb_plan_run_failback(struct lb_job *job)
{
	return run_groups(job, "failback");
}
