/* SPDX-License-Identifier: Apache-2.0 */
#include "config/plan_run.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"
#include "vault/catalog.h"
#include "vault/together.h"

struct there {
	struct lb_plan_job *run;
	char told[400];
	unsigned int n;
};

static int look_for_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct there *there = arg;
	size_t used = strlen(there->told);

	(void)state;
	if (report->kind == LB_FAILOVER_TEST && there->n++ < LB_PLAN_TOLD_MAX)
		snprintf(there->told + used, sizeof(there->told) - used, "%s%s", used > 0 ? ", " : "", report->vm_name);
	return 0;
}

struct doubles_of_plan {
	const json_t *plan;
	bool live;
	int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state);
	void *arg;
	const struct lb_failover_report *report;
	enum lb_vm_state state;
};

static int is_the_doubles(void *arg, size_t group, const json_t *machine)
{
	struct doubles_of_plan *d = arg;
	char name[LB_VM_NAME_BYTES];

	(void)group;
	if (d->live)
		return strcmp(json_string_value(json_object_get(machine, "machine")), d->report->machine_name) == 0;
	return lb_plan_double(machine, false, name) == 0 && strcmp(name, d->report->vm_name) == 0;
}

static int choose_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct doubles_of_plan *d = arg;

	if (d->live != (report->kind == LB_FAILOVER_LIVE))
		return 0;
	d->report = report;
	return lb_plan_each(d->plan, is_the_doubles, d) == 1 ? d->fn(d->arg, report, state) : 0;
}

/* The doubles on this host that are of the plan's machines: tests by their names, live ones by their machines. */
int lb_plan_job_doubles(struct lb_plan_job *run, bool live,
			int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state),
			void *arg)
{
	struct doubles_of_plan d = {.plan = run->plan, .live = live, .fn = fn, .arg = arg};

	return lb_failover_list(run->job->site->env, run->job->site->settings.vm_folder, choose_double, &d);
}

struct live_search {
	const char *machine;
	struct lb_plan_live found;
};

static int look_for_live(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct live_search *s = arg;

	(void)state;
	if (report->kind != LB_FAILOVER_LIVE || strcmp(report->machine_name, s->machine) != 0)
		return 0;
	snprintf(s->found.name, sizeof(s->found.name), "%s", report->vm_name);
	s->found.there = true;
	s->found.runs = report->next == LB_STEP_DONE;
	s->found.committed = report->committed;
	return 1;
}

int lb_plan_job_live(struct lb_plan_job *run, const char *machine, struct lb_plan_live *ret_live)
{
	struct live_search s = {.machine = machine};
	int r;

	r = lb_failover_list(run->job->site->env, run->job->site->settings.vm_folder, look_for_live, &s);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_live = s.found;
	return 0;
}

struct look_up {
	struct lb_plan_job *run;
	struct lb_together together;
	struct lb_catalog_item *item;
	char told[400];
	unsigned int n;
	uint64_t done, total;
};

bool lb_plan_fixes_points(const struct lb_plan_job *run)
{
	return !run->home && strcmp(run->point, "latest") != 0 && strcmp(run->point, "latest-processed") != 0;
}

/*
 * What "latest-multi-vm" or "latest-app" is now it is for all groups: later ones are begun minutes later, and a newer
 * one would not fit to those that run already. Only the latest is the latest when its machine's turn comes.
 */
static int freeze_point(struct lb_plan_job *run, const char *machine, const struct lb_uuid *id,
			const struct lb_point *point)
{
	json_t *points = json_object_get(run->job->result, "points");
	int r;

	if (!lb_plan_fixes_points(run))
		return 0;
	r = lb_plan_pin(run, id, point);
	if (r < 0)
		return r;
	if (points == NULL) {
		points = json_object();
		if (json_object_set_new(run->job->result, "points", points) < 0)
			return lb_fail(-ENOMEM, "out of memory for a job");
	}
	return json_object_set_new(points, machine,
				   json_sprintf("%llu:%llu", (unsigned long long)point->position.epoch,
						(unsigned long long)point->position.seq)) < 0
		       ? lb_fail(-ENOMEM, "out of memory for a job")
		       : 0;
}

static int look_up_one(void *arg, size_t group, const json_t *machine)
{
	struct look_up *l = arg;
	struct lb_site *site = l->run->job->site;
	const char *name = json_string_value(json_object_get(machine, "machine"));
	size_t used = strlen(l->told);
	struct lb_point point;
	int r;

	(void)group;
	r = lb_job_check(l->run->job);
	if (r < 0)
		return r;
	r = lb_catalog_find(site->vault, name, l->item);
	r = r < 0 ? r : lb_point_find_together(&l->together, site->vault, &l->item->machine, l->run->point, &point);
	r = r < 0 ? r : freeze_point(l->run, name, &l->item->machine, &point);
	if (r == -ESTALE)
		r = lb_wrap(-ENOENT, "it was pruned meanwhile: order the plan again");
	if (r == -ENOENT && l->n++ < LB_PLAN_TOLD_MAX)
		snprintf(l->told + used, sizeof(l->told) - used, "%s%s: %.120s", used > 0 ? "; " : "", name,
			 lb_err_text());
	return r == -ENOENT ? 0 : r;
}

/* All that can be known to fail is found before the first machine is touched. */
int lb_plan_job_check(struct lb_plan_job *run)
{
	struct look_up l = {.run = run, .item = malloc(sizeof(*l.item))};
	struct there there = {.run = run};
	int r;

	if (l.item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_job_step_on(run->job, "check the plan");
	r = r < 0 ? r : lb_plan_check(run->job->site, run->plan);
	r = r < 0 ? r : lb_plan_each(run->plan, look_up_one, &l);
	free(l.item);
	if (r == 0 && !run->live && !run->drill)
		r = lb_plan_job_doubles(run, false, look_for_double, &there);
	if (r < 0)
		return r;
	if (there.n > 0)
		return lb_fail(-EEXIST,
			       "there are test doubles of its machines already (%s); `lifeboat plan cleanup %s` "
			       "removes the plan's, `lifeboat failover cleanup` one",
			       there.told, run->name);
	if (l.n > 0)
		return lb_fail(-ENOENT, "nothing was begun: %s", l.told);
	return lb_plan_job_go_on(run, 0, "before", 0);
}
