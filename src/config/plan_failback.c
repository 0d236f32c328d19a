/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan's way home. First everything is looked at; then the first group's `before` is done, and all doubles are shut
 * down, from the last group to the first, before anything is taken from any of them: what they wrote to one another
 * ends at one moment. Then the groups follow in their order: gathered, brought home, started.
 */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/reprotect.h"
#include "config/targets.h"
#include "vault/catalog.h"

static const char *double_of(const struct lb_plan_job *run, const char *machine)
{
	return json_string_value(json_object_get(json_object_get(run->job->result, "doubles"), machine));
}

/* ---- before anything is touched ------------------------------------------------------------------------------- */

struct check {
	struct lb_plan_job *run;
	const json_t *home;
	struct lb_plan_live live;
	struct lb_plan_findings findings;
	json_t *originals; /* {MACHINE: DOUBLE, ...}, which the target servers look at meanwhile */
};

/* All of them are ordered before the first is waited for. */
static int order_look(struct check *c, const struct lb_reprotect *p)
{
	const json_t *boot = json_object_get(c->home, "boot");
	int r;

	if (boot == NULL)
		return 0;
	r = lb_reprotect_target_ready(c->run->job, p, boot, false);
	if (r < 0 && r != -ENOMEM)
		return lb_plan_found(&c->findings, "error", "original", "%s", lb_err_text());
	if (r == 0 && json_object_set_new(c->originals, c->findings.machine, json_string(c->live.name)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a job");
	return r;
}

static int take_look(void *arg, size_t group, const json_t *machine)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	struct check *c = arg;
	const char *name = json_string_value(json_object_get(machine, "machine")),
		   *double_name = json_string_value(json_object_get(c->originals, name));
	int r;

	(void)group;
	if (double_name == NULL)
		return 0;
	c->findings.machine = name;
	r = lb_reprotect_find(c->run->job->site->db, double_name, &p);
	r = r < 0 ? r
		  : lb_reprotect_target_ready(c->run->job, &p,
					      json_object_get(json_object_get(machine, "home"), "boot"), true);
	if (r == -EREMOTEIO)
		return lb_plan_found(&c->findings, "error", "original", "%s", lb_err_text());
	return r < 0 ? r : lb_plan_found(&c->findings, "ok", "original", "what starts %s is there", name);
}

static int check_target(struct check *c, const struct lb_reprotect *p)
{
	_cleanup_(lb_targets_server_clear) struct lb_targets_server server = {0};
	const char *name = json_string_value(json_object_get(p->request, "target"));
	struct lb_site *site = c->run->job->site;
	int r;

	if (name == NULL && json_object_get(c->home, "boot") != NULL)
		return lb_plan_found(
			&c->findings, "error", "target",
			"%s has no target server that could start its original: it was reprotected without",
			c->live.name);
	if (name == NULL)
		return lb_plan_found(&c->findings, "warning", "target",
				     "no target server follows %s: its disks are for you to restore", c->live.name);
	r = lb_targets_find(site->db, name, &server);
	if (r == -ENOENT)
		return lb_plan_found(&c->findings, "error", "target", "%s", lb_err_text());
	if (r < 0)
		return r;
	if (lb_targets_speaks(site, &server) == -EHOSTDOWN)
		return lb_plan_found(&c->findings, "error", "target", "%s", lb_err_text());
	r = lb_plan_found(&c->findings, "ok", "target", "target server %s takes it", server.name);
	return r < 0 ? r : order_look(c, p);
}

/* One that goes home without a way back of its own is compared whole with its source's journal. */
static int check_journal(struct check *c, const char *machine)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	if (json_object_get(c->home, "boot") != NULL)
		return lb_plan_found(&c->findings, "error", "reprotect",
				     "%s is not reprotected: no target server could start its original", c->live.name);
	r = lb_catalog_find(c->run->job->site->vault, machine, item);
	if (r == -ENOENT)
		return lb_plan_found(&c->findings, "error", "vault", "%s", lb_err_text());
	return r < 0 ? r
		     : lb_plan_found(&c->findings, "warning", "reprotect",
				     "%s is not reprotected: all of its disks is read while it is down", c->live.name);
}

static int check_way(struct check *c, const char *machine)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	struct lb_site *site = c->run->job->site;
	int r;

	if (!c->live.committed)
		return lb_plan_found(&c->findings, "error", "double",
				     "%s is not committed: `lifeboat plan commit %s` first", c->live.name,
				     c->run->name);
	r = lb_job_check_free(site, c->live.name, c->live.name);
	if (r == -EEXIST)
		return lb_plan_found(&c->findings, "error", "double", "%s", lb_err_text());
	r = r < 0 ? r : lb_reprotect_find(site->db, c->live.name, &p);
	if (r == -ENOENT)
		return check_journal(c, machine);
	if (r < 0)
		return r;
	if (lb_reprotect_landed(&p))
		return lb_plan_found(&c->findings, "ok", "double", "%s is at home already", machine);
	if (strcmp(p.state, LB_REPROTECT_PROTECTED) != 0 && !lb_reprotect_goes_home(&p))
		return lb_plan_found(&c->findings, "error", "reprotect",
				     "the way back of %s is not complete: `lifeboat job watch %s` follows it",
				     c->live.name, p.job);
	return check_target(c, &p);
}

static int check_machine(void *arg, size_t group, const json_t *machine)
{
	struct check *c = arg;
	const char *name = json_string_value(json_object_get(machine, "machine"));
	json_t *doubles = json_object_get(c->run->job->result, "doubles");
	int r;

	(void)group;
	r = lb_job_check(c->run->job);
	r = r < 0 ? r : lb_plan_job_live(c->run, name, &c->live);
	if (r < 0)
		return r;
	c->findings.machine = name;
	c->home = json_object_get(machine, "home");
	if (!c->live.there)
		return lb_plan_found(&c->findings, "warning", "double", "%s has no live double here: it is left alone",
				     name);
	if (json_object_set_new(doubles, name, json_string(c->live.name)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a job");
	return check_way(c, name);
}

int lb_plan_failback_check(struct lb_plan_job *run)
{
	_cleanup_json_ json_t *originals = json_object();
	struct check c = {.run = run, .findings = {.run = run}, .originals = originals};
	int r;

	r = originals == NULL ? lb_fail(-ENOMEM, "out of memory for a job")
			      : lb_job_step_on(run->job, "check the way home");
	r = r < 0 ? r : lb_plan_job_set(run, "doubles", json_object());
	r = r < 0 ? r : lb_plan_findings_begin(run);
	r = r < 0 ? r : lb_plan_check_scripts(run->job->site, run->plan);
	r = r < 0 ? r : lb_plan_each(run->plan, check_machine, &c);
	r = r < 0 ? r : lb_plan_each(run->plan, take_look, &c);
	r = r < 0 ? r : lb_plan_findings_end(&c.findings);
	if (r < 0)
		return r;
	if (json_object_size(json_object_get(run->job->result, "doubles")) == 0)
		return lb_fail(-ENOENT, "plan %s has no committed live double on this host", run->name);
	if (json_is_true(json_object_get(run->job->request, "dry_run")))
		return lb_plan_job_go_on(run, lb_plan_groups(run->plan), "check", 0);
	return lb_plan_job_go_on(run, 0, "before", 0);
}

/* ---- its doubles are shut down ---------------------------------------------------------------------------------- */

static int order_of(struct lb_plan_job *run, const json_t *machine, json_t **ret_body)
{
	json_t *wait_s = json_object_get(run->job->request, "wait_s");
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_plan_failback_order(machine, &body);
	if (r == 0 && wait_s != NULL && json_object_get(body, "wait_s") == NULL &&
	    json_object_set(body, "wait_s", wait_s) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a job");
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

static int submit(struct lb_plan_job *run, const char *kind, const json_t *machine)
{
	const char *name = json_string_value(json_object_get(machine, "machine")), *double_name = double_of(run, name);
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = order_of(run, machine, &body);
	r = r < 0 ? r : lb_plan_job_submit(run, kind, name, double_name, body);
	return r == -EEXIST ? lb_plan_job_note(run, name, double_name, "refused", lb_err_text()) : r;
}

/* What had to be turned off may have lost what it held in its memory. */
static int warn_of(struct lb_plan_job *run, const char *machine, const json_t *one)
{
	_cleanup_json_ json_t *result = NULL;
	int r;

	r = lb_plan_job_child_result(run, json_string_value(json_object_get(one, "job")), &result);
	if (r < 0 || !json_is_false(json_object_get(result, "gracefully")))
		return r;
	return lb_plan_job_warn(run, "%s did not shut down in time and was turned off", machine);
}

static int shut_ended(struct lb_plan_job *run, size_t n, const struct lb_plan_count *count)
{
	const json_t *entries = json_object_get(lb_plan_group(run->plan, n), "machines"), *one, *entry;
	size_t i;
	int r = 0;

	if (count->failed > 0)
		return lb_fail(-EIO,
			       "%s: %u of its doubles could not be shut down (%s), and nothing was taken from any: the "
			       "plan can be run again",
			       run->group_name, count->failed, count->told);
	json_array_foreach(entries, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "machine"));

		one = json_object_get(json_object_get(run->job->result, run->table), name);
		r = r < 0 || one == NULL ? r : warn_of(run, name, one);
	}
	if (r < 0)
		return r;
	return n > 0 ? lb_plan_job_go_on(run, n - 1, "shut", 0) : lb_plan_job_go_on(run, 0, "machines", 0);
}

static int shut_group(struct lb_plan_job *run)
{
	size_t n = lb_plan_job_number(run, "group"), i;
	const json_t *entries = json_object_get(lb_plan_group(run->plan, n), "machines"), *one;
	struct lb_plan_count count = {0};
	char step[LB_PLAN_GROUP_NAME_BYTES + 40];
	int r;

	snprintf(step, sizeof(step), "%s: shut its doubles down", run->group_name);
	r = lb_job_step_on(run->job, step);
	json_array_foreach(entries, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "machine"));

		if (r == 0 && double_of(run, name) != NULL &&
		    json_object_get(json_object_get(run->job->result, run->table), name) == NULL)
			r = submit(run, "shut", one);
	}
	r = r < 0 ? r : lb_plan_job_look(run, entries, &count);
	r = r < 0 ? r
		  : lb_job_say(run->job, "%u down, %u failed, %u under way", count.done, count.failed, count.active);
	if (r < 0)
		return r;
	return count.active > 0 ? lb_job_park(run->job) : shut_ended(run, n, &count);
}

int lb_plan_failback_shut(struct lb_plan_job *run)
{
	int r;

	run->table = "shut";
	r = shut_group(run);
	run->table = "machines";
	return r;
}

/* ---- they go home --------------------------------------------------------------------------------------------------
 */

int lb_plan_failback_begin(struct lb_plan_job *run, const json_t *machine)
{
	const char *name = json_string_value(json_object_get(machine, "machine")), *double_name = double_of(run, name);
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	struct lb_plan_live live;
	int r;

	if (double_name == NULL)
		return lb_plan_job_note(run, name, NULL, "has no double here", "");
	r = lb_plan_job_live(run, name, &live);
	if (r == 0 && !live.there)
		return lb_plan_job_note(run, name, double_name, "refused", "its double was removed meanwhile");
	r = r < 0 ? r : lb_reprotect_find(run->job->site->db, double_name, &p);
	if (r < 0 && r != -ENOENT)
		return r;
	/* its original may run on its disks: they are not touched again */
	if (r == 0 && lb_reprotect_landed(&p) &&
	    (strcmp(p.state, LB_REPROTECT_STARTED) == 0 ||
	     json_object_get(json_object_get(machine, "home"), "boot") == NULL))
		return lb_plan_job_note(run, name, double_name, "is at home already", "");
	return submit(run, "failback", machine);
}
