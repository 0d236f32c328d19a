/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recovery plan as a job: a machine of states that is run again whenever one of its machines' jobs has ended, a
 * person has confirmed, or the server has started. Nothing is kept but the job's result and the rows that are looked
 * up.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/drills.h"
#include "config/failovers.h"
#include "config/plans.h"
#include "config/target.h"
#include "fabric/network.h"
#include "config/registry.h"
#include "fabric/hook.h"
#include "vault/catalog.h"
#include "vault/together.h"

#define WARNINGS_MAX 200
#define TOLD_MAX 5

struct run {
	struct lb_job *job;
	const json_t *plan;
	const char *name, *point;
	bool live, drill;
	char group_name[LB_PLAN_GROUP_NAME_BYTES];
};

/* ---- what is kept ------------------------------------------------------------------------------------------ */

static size_t number_of(const struct run *run, const char *member)
{
	json_int_t n = json_integer_value(json_object_get(run->job->result, member));

	return n > 0 ? (size_t)n : 0;
}

static int set(struct run *run, const char *member, json_t *value)
{
	return json_object_set_new(run->job->result, member, value) < 0 ? lb_fail(-ENOMEM, "out of memory for a job")
									: 0;
}

static int go_on(struct run *run, size_t group, const char *phase, size_t action)
{
	int r;

	r = set(run, "group", json_integer((json_int_t)group));
	r = r < 0 ? r : set(run, "phase", json_string(phase));
	r = r < 0 ? r : set(run, "action", json_integer((json_int_t)action));
	r = r < 0 ? r : set(run, "waiting", json_null());
	r = r < 0 ? r : lb_job_keep(run->job);
	if (r == 0)
		lb_fault_place("plan %s: noted: group %zu, %s, action %zu", run->name, group, phase, action);
	return r;
}

static int warn(struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int warn(struct run *run, const char *fmt, ...)
{
	json_t *list = json_object_get(run->job->result, "warnings");
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lb_event(run->job->site, "warning", run->name, "%s", text);
	if (json_array_size(list) >= WARNINGS_MAX)
		return 0;
	return json_array_append_new(list, json_string(text)) < 0 ? lb_fail(-ENOMEM, "out of memory for a job") : 0;
}

static int begin(struct run *run, struct lb_job *job, const char *kind)
{
	const char *point = json_string_value(json_object_get(job->request, "point"));
	json_t *first;

	*run = (struct run){.job = job,
			    .plan = json_object_get(job->request, "plan"),
			    .point = point != NULL ? point : "latest",
			    .live = strcmp(kind, "test") != 0 && strcmp(kind, "drill") != 0,
			    .drill = strcmp(kind, "drill") == 0};
	run->name = json_string_value(json_object_get(run->plan, "name"));
	if (run->name == NULL)
		return lb_fail(-EBADMSG, "the job's plan is damaged");
	if (json_object_get(job->result, "phase") != NULL)
		return 0;
	first = json_pack("{s:s,s:s,s:i,s:s,s:i,s:n,s:{},s:[]}", "plan", run->name, "kind", kind, "group", 0, "phase",
			  "check", "action", 0, "waiting", "machines", "warnings");
	if (first == NULL || json_object_update_new(job->result, first) < 0)
		return lb_fail(-ENOMEM, "out of memory for a job");
	return lb_job_keep(job);
}

/* ---- machines' jobs ------------------------------------------------------------------------------------------ */

static int child_of(struct run *run, const char *kind, const char *target, char id[LB_UUID_TEXT_BYTES])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	r = lb_db_query(run->job->site->db, &rows, "SELECT id FROM job WHERE parent = ? AND kind = ? AND target = ?",
			"sss", run->job->id, kind, target);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r > 0)
		snprintf(id, LB_UUID_TEXT_BYTES, "%s", lb_db_text(rows, 0));
	return r;
}

/* Once, however often it is asked for. */
static int submit(struct run *run, const char *kind, const char *machine, const char *target, const json_t *request)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_site *site = run->job->site;
	json_t *machines = json_object_get(run->job->result, "machines");
	char id[LB_UUID_TEXT_BYTES], by[128];
	int r;

	snprintf(by, sizeof(by), "plan %s", run->name);
	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = child_of(run, kind, target, id);
	if (r == 0)
		r = lb_job_submit_child(site, run->job->id, kind, target, request, by, id);
	if (r >= 0 && strcmp(kind, "failover") == 0)
		r = lb_db_run(
			site->db,
			"INSERT INTO plan_double (double, plan, machine, kind, made_ns) VALUES (?,?,?,?,?)"
			" ON CONFLICT(double) DO UPDATE SET plan = excluded.plan, machine = excluded.machine, kind ="
			" excluded.kind, made_ns = excluded.made_ns",
			"ssssi", target, run->name, machine, run->live ? "live" : "test", lb_now_ns(site->env));
	if (r >= 0)
		r = json_object_set_new(machines, machine,
					json_pack("{s:s,s:s,s:s}", "double", target, "job", id, "state", "queued")) < 0
			    ? lb_fail(-ENOMEM, "out of memory for a job")
			    : 0;
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r == 0)
		lb_fault_place("plan %s: %s of %s is ordered", run->name, kind, target);
	return r;
}

struct count {
	unsigned int active, done, failed;
	char told[400]; /* the first that failed, with their words */
};

static int look_at(struct run *run, const char *machine, json_t *one, struct count *count)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	const char *id = json_string_value(json_object_get(one, "job")), *state, *error;
	size_t used = strlen(count->told);
	int r;

	if (id == NULL) { /* there was nothing to do */
		count->done++;
		return 0;
	}
	LB_DB_SCOPE(run->job->site->db);
	r = lb_db_query(run->job->site->db, &rows, "SELECT state, error FROM job WHERE id = ?", "s", id);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r < 0)
		return r;
	state = r > 0 ? lb_db_text(rows, 0) : "lost";
	error = r > 0 && lb_db_text(rows, 1) != NULL ? lb_db_text(rows, 1) : "";
	if (json_object_set_new(one, "state", json_string(state)) < 0 ||
	    json_object_set_new(one, "error", json_string(error)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a job");
	if (strcmp(state, "done") == 0) {
		count->done++;
	} else if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0 || strcmp(state, "lost") == 0) {
		if (count->failed++ < TOLD_MAX)
			snprintf(count->told + used, sizeof(count->told) - used, "%s%s: %.120s", used > 0 ? "; " : "",
				 machine, error[0] != '\0' ? error : state);
	} else {
		count->active++;
	}
	return 0;
}

/* Of these machines (an array of plan entries; NULL: all that the job has begun). */
static int look_at_machines(struct run *run, const json_t *entries, struct count *ret_count)
{
	json_t *machines = json_object_get(run->job->result, "machines"), *one;
	struct count count = {0};
	const json_t *entry;
	const char *name;
	size_t i;
	int r = 0;

	if (entries == NULL)
		json_object_foreach(machines, name, one) r = r < 0 ? r : look_at(run, name, one, &count);
	json_array_foreach(entries, i, entry)
	{
		name = json_string_value(json_object_get(entry, "machine"));
		one = json_object_get(machines, name);
		if (one != NULL)
			r = r < 0 ? r : look_at(run, name, one, &count);
	}
	if (r == 0)
		*ret_count = count;
	return r;
}

/* ---- before anything is touched --------------------------------------------------------------------------- */

struct there {
	struct run *run;
	char told[400];
	unsigned int n;
};

static int look_for_double(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct there *there = arg;
	size_t used = strlen(there->told);

	(void)state;
	if (report->kind == LB_FAILOVER_TEST && there->n++ < TOLD_MAX)
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
static int each_double(struct run *run, bool live,
		       int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state), void *arg)
{
	struct doubles_of_plan d = {.plan = run->plan, .live = live, .fn = fn, .arg = arg};

	return lb_failover_list(run->job->site->env, run->job->site->settings.vm_folder, choose_double, &d);
}

struct look_up {
	struct run *run;
	struct lb_together together;
	struct lb_catalog_item *item;
	char told[400];
	unsigned int n;
	uint64_t done, total;
};

/*
 * What "latest-multi-vm" or "latest-app" is now it is for all groups: later ones are begun minutes later, and a newer
 * one would not fit to those that run already. Only the latest is the latest when its machine's turn comes.
 */
static int freeze_point(struct run *run, const char *machine, const struct lb_point *point)
{
	json_t *points = json_object_get(run->job->result, "points");

	if (strcmp(run->point, "latest") == 0 || strcmp(run->point, "latest-processed") == 0)
		return 0;
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
	if (r == 0)
		return freeze_point(l->run, name, &point);
	if (r == -ENOENT && l->n++ < TOLD_MAX)
		snprintf(l->told + used, sizeof(l->told) - used, "%s%s: %.120s", used > 0 ? "; " : "", name,
			 lb_err_text());
	return r == -ENOENT ? 0 : r;
}

/* All that can be known to fail is found before the first machine is touched. */
static int do_check(struct run *run)
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
		r = each_double(run, false, look_for_double, &there);
	if (r < 0)
		return r;
	if (there.n > 0)
		return lb_fail(-EEXIST,
			       "there are test doubles of its machines already (%s); `lifeboat plan cleanup %s` "
			       "removes the plan's, `lifeboat failover cleanup` one",
			       there.told, run->name);
	if (l.n > 0)
		return lb_fail(-ENOENT, "nothing was begun: %s", l.told);
	return go_on(run, 0, "before", 0);
}

/* ---- actions ----------------------------------------------------------------------------------------------- */

static int keep_going(void *arg)
{
	return lb_job_check(arg);
}

static int run_script(struct run *run, const json_t *action, const char *phase)
{
	const char *script = json_string_value(json_object_get(action, "script")), *values[8];
	bool goes_on = strcmp(json_string_value(json_object_get(action, "on_failure")), "continue") == 0;
	char texts[6][LB_PLAN_TEXT_BYTES_MAX], line[LB_PROC_LAST_LINE_BYTES] = "", step[200];
	struct lb_hook hook = {.folder = run->job->site->settings.hook_folder,
			       .name = script,
			       .timeout_s = (uint32_t)json_integer_value(json_object_get(action, "timeout_s")),
			       .values = values,
			       .idle = keep_going,
			       .arg = run->job};
	unsigned int n = 0;
	int r;

	snprintf(step, sizeof(step), "%s: script %s", run->group_name, script);
	r = lb_job_step(run->job, step);
	if (r < 0)
		return r;
	snprintf(texts[0], sizeof(texts[0]), "LIFEBOAT_PLAN=%s", run->name);
	snprintf(texts[1], sizeof(texts[1]), "LIFEBOAT_GROUP=%s", run->group_name);
	snprintf(texts[2], sizeof(texts[2]), "LIFEBOAT_KIND=%s", run->live ? "failover" : "test");
	snprintf(texts[3], sizeof(texts[3]), "LIFEBOAT_PHASE=%s", phase);
	snprintf(texts[4], sizeof(texts[4]), "LIFEBOAT_JOB=%s", run->job->id);
	snprintf(texts[5], sizeof(texts[5]), "LIFEBOAT_POINT=%s", run->point);
	for (; n < 6; n++)
		values[n] = texts[n];
	values[n] = NULL;
	r = lb_hook_run(run->job->site->env, &hook, line);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	if (r == 0)
		return line[0] != '\0' ? lb_job_say(run->job, "%s", line) : 0;
	if (!goes_on)
		return lb_wrap(r, "%s: script %s", run->group_name, script);
	r = lb_job_say(run->job, "failed, and the plan goes on: %s", lb_err_text());
	return r < 0 ? r : warn(run, "%s: script %s failed: %s", run->group_name, script, lb_err_text());
}

/* 1: confirmed. */
static int is_confirmed(struct run *run, const char *action, char who[128])
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(run->job->site->db);
	r = lb_db_query(run->job->site->db, &rows, "SELECT who FROM plan_confirmation WHERE job = ? AND action = ?",
			"ss", run->job->id, action);
	if (r == 0)
		r = lb_db_next(run->job->site->db, rows);
	if (r > 0)
		snprintf(who, 128, "%s", lb_db_text(rows, 0));
	return r;
}

static int wait_for_person(struct run *run, const json_t *action, const char *phase)
{
	const char *text = json_string_value(json_object_get(action, "manual"));
	char id[LB_PLAN_ACTION_BYTES], who[128], step[LB_PLAN_GROUP_NAME_BYTES + LB_PLAN_ACTION_BYTES + 24];
	bool told = json_is_object(json_object_get(run->job->result, "waiting"));
	int r;

	snprintf(id, sizeof(id), "%zu-%s-%zu", number_of(run, "group") + 1, phase, number_of(run, "action") + 1);
	snprintf(step, sizeof(step), "%s: wait for a person (%s)", run->group_name, id);
	r = lb_job_step_on(run->job, step);
	if (r == 0)
		r = is_confirmed(run, id, who);
	if (r > 0)
		return lb_job_say(run->job, "confirmed by %s: %s", who, text);
	if (r < 0)
		return r;
	r = set(run, "waiting", json_pack("{s:s,s:s}", "action", id, "text", text));
	if (r == 0)
		r = lb_job_say(run->job, "%s", text);
	if (r == 0 && !told)
		lb_event(run->job->site, "warning", run->name,
			 "the plan waits for a person: %s; `lifeboat plan confirm %s`", text, run->name);
	return r < 0 ? r : lb_job_park(run->job);
}

static int do_action(struct run *run, const char *phase)
{
	size_t group = number_of(run, "group"), n = number_of(run, "action");
	const json_t *list = json_object_get(lb_plan_group(run->plan, group), phase);
	const json_t *action = json_array_get(list, n);
	int r = 0;

	if (action == NULL) {
		if (strcmp(phase, "before") == 0)
			return go_on(run, group, "machines", 0);
		return go_on(run, group + 1, "before", 0);
	}
	if (lb_plan_action_applies(action, run->live))
		r = json_object_get(action, "script") != NULL ? run_script(run, action, phase)
							      : wait_for_person(run, action, phase);
	return r < 0 ? r : go_on(run, group, phase, n + 1);
}

/* ---- the machines of a group ------------------------------------------------------------------------------ */

struct live_search {
	const char *machine;
	char name[LB_VM_NAME_BYTES];
	bool runs, there;
};

static int look_for_live(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct live_search *s = arg;

	(void)state;
	if (report->kind != LB_FAILOVER_LIVE || strcmp(report->machine_name, s->machine) != 0)
		return 0;
	snprintf(s->name, sizeof(s->name), "%s", report->vm_name);
	s->there = true;
	s->runs = report->next == LB_STEP_DONE;
	return 1;
}

/* The doubles of one test see one another and nobody else, where this host can do that and no other network is wanted.
 */
static int set_segment(struct run *run, json_t *request)
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
static int begin_drill(struct run *run, const char *name, json_t *body)
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
	return r < 0 ? r : submit(run, "drill", name, target, request);
}

/* A plan that is run again after a failure leaves alone what it has brought up, and goes on with what it has begun. */
static int begin_machine(struct run *run, const json_t *machine)
{
	const char *name = json_string_value(json_object_get(machine, "machine"));
	json_t *machines = json_object_get(run->job->result, "machines");
	struct lb_site *site = run->job->site;
	struct live_search s = {.machine = name};
	_cleanup_json_ json_t *body = NULL;
	const char *frozen;
	char target[LB_VM_NAME_BYTES];
	int r;

	r = lb_plan_double(machine, run->live, target);
	if (r == 0 && run->live)
		r = lb_failover_list(site->env, site->settings.vm_folder, look_for_live, &s);
	if (r < 0)
		return r;
	if (s.there && s.runs)
		return json_object_set_new(
			       machines, name,
			       json_pack("{s:s,s:n,s:s}", "double", s.name, "job", "state", "runs already")) < 0
			       ? lb_fail(-ENOMEM, "out of memory for a job")
			       : 0;
	frozen = json_string_value(json_object_get(json_object_get(run->job->result, "points"), name));
	r = lb_plan_order(machine, run->live, frozen != NULL ? frozen : run->point, &body);
	if (r == 0 && run->drill)
		return begin_drill(run, name, body);
	if (r == 0 && !run->live)
		r = set_segment(run, body);
	return r < 0 ? r : submit(run, "failover", name, s.there ? s.name : target, body);
}

static int machines_ended(struct run *run, const json_t *group, size_t n, const struct count *count)
{
	bool goes_on = strcmp(json_string_value(json_object_get(group, "on_failure")), "continue") == 0;
	int r = 0;

	if (count->failed > 0 && !goes_on)
		return lb_fail(-EIO, "%s: %u of its machines failed, and later groups were not begun (%s)%s",
			       run->group_name, count->failed, count->told,
			       run->live ? "; the plan can be run again: it goes on with what is left" : "");
	if (count->failed > 0)
		r = warn(run, "%s: %u of its machines failed (%s)", run->group_name, count->failed, count->told);
	return r < 0 ? r : go_on(run, n, "after", 0);
}

static size_t machines_before(const json_t *plan, size_t group)
{
	size_t n = 0;

	for (size_t i = 0; i < group; i++)
		n += json_array_size(json_object_get(lb_plan_group(plan, i), "machines"));
	return n;
}

static int do_machines(struct run *run)
{
	size_t n = number_of(run, "group"), before = machines_before(run->plan, n), i;
	const json_t *group = lb_plan_group(run->plan, n), *entries = json_object_get(group, "machines"), *one;
	struct count count = {0};
	char step[LB_PLAN_GROUP_NAME_BYTES + 40];
	int r = 0;

	if (json_array_size(entries) == 0)
		return go_on(run, n, "after", 0);
	snprintf(step, sizeof(step), "%s: %zu machines", run->group_name, json_array_size(entries));
	r = lb_job_step_on(run->job, step);
	json_array_foreach(entries, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "machine"));

		if (r == 0 && json_object_get(json_object_get(run->job->result, "machines"), name) == NULL)
			r = begin_machine(run, one);
	}
	r = r < 0 ? r : look_at_machines(run, entries, &count);
	if (r == 0)
		r = lb_job_say(run->job, "%u up, %u failed, %u under way", count.done, count.failed, count.active);
	if (r == 0)
		r = lb_job_progress(run->job, (double)(before + count.done + count.failed) /
						      (double)machines_before(run->plan, lb_plan_groups(run->plan)));
	if (r < 0)
		return r;
	return count.active > 0 ? lb_job_park(run->job) : machines_ended(run, group, n, &count);
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

/* Its machines' jobs were cancelled with it; it has ended when they have. */
static int check_cancelled(struct run *run)
{
	struct count count = {0};
	int r, looked;

	r = lb_job_check(run->job);
	if (r != -ECANCELED)
		return r;
	looked = look_at_machines(run, NULL, &count);
	if (looked < 0)
		return looked;
	set(run, "waiting", json_null());
	return count.active > 0 ? lb_job_park(run->job) : lb_fail(-ECANCELED, "cancelled");
}

static int go(struct run *run)
{
	size_t groups = lb_plan_groups(run->plan);
	int r;

	for (;;) {
		const char *phase = json_string_value(json_object_get(run->job->result, "phase"));
		size_t group = number_of(run, "group");

		r = check_cancelled(run);
		if (r < 0)
			return r;
		if (group >= groups)
			return 0;
		lb_plan_group_name(run->plan, group, run->group_name);
		if (strcmp(phase, "check") == 0)
			r = do_check(run);
		else if (strcmp(phase, "machines") == 0)
			r = do_machines(run);
		else
			r = do_action(run, phase);
		if (r == -ECANCELED)
			r = check_cancelled(run);
		if (r < 0)
			return r;
	}
}

int lb_plan_run_test(struct lb_job *job)
{
	struct run run;
	int r = begin(&run, job, "test");

	return r < 0 ? r : go(&run);
}

int lb_plan_run_drill(struct lb_job *job)
{
	struct run run;
	int r = begin(&run, job, "drill");

	return r < 0 ? r : go(&run);
}

int lb_plan_run_failover(struct lb_job *job)
{
	struct run run;
	int r = begin(&run, job, "failover");

	return r < 0 ? r : go(&run);
}

/* ---- what comes after ----------------------------------------------------------------------------------------- */

struct collect {
	struct run *run;
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
	return submit(c->run, c->kind, report->machine_name, report->vm_name, c->request);
}

/* One job for each double; nothing that it ended with is asked for again. */
static int run_for_all(struct lb_job *job, const char *kind, const char *step, bool live)
{
	_cleanup_json_ json_t *request = json_object();
	struct run run;
	struct collect c = {.run = &run, .kind = kind, .request = request};
	struct count count = {0};
	int r;

	r = begin(&run, job, kind);
	run.live = live;
	r = r < 0 ? r : check_cancelled(&run);
	r = r < 0 ? r : lb_job_step_on(job, step);
	if (r == 0 && strcmp(json_string_value(json_object_get(job->result, "phase")), "check") == 0) {
		r = each_double(&run, live, submit_for_double, &c);
		r = r < 0 ? r : go_on(&run, 0, "machines", 0);
	}
	r = r < 0 ? r : look_at_machines(&run, NULL, &count);
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

/* ---- names ------------------------------------------------------------------------------------------------------ */

const char *lb_plan_target(const char *name, char target[LB_PLAN_TARGET_BYTES])
{
	snprintf(target, LB_PLAN_TARGET_BYTES, "plan:%.64s", name);
	return target;
}
