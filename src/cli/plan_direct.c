/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_direct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "fabric/double_settings.h"
#include "fabric/failover.h"
#include "fabric/hook.h"
#include "fabric/plan.h"
#include "vault/site.h"
#include "vault/together.h"

#define HOOK_FOLDER "/etc/lifeboat/hooks"

static int read_copy(struct cli *c, json_t **ret_copy)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_SITE_BYTES_MAX);
	int r;

	r = cli_vault_open(c);
	r = r < 0 ? r : lb_vault_site_get(c->vault, "registry", &text);
	if (r == -ENOENT)
		return lb_fail(r,
			       "this vault has no copy of a configuration server's registry, and so no recovery plans");
	return r < 0 ? r : lb_json_parse(text.data, text.size_bytes, LB_SITE_BYTES_MAX, ret_copy);
}

int cli_plan_list_direct(struct cli *c, json_t **ret_reply)
{
	_cleanup_json_ json_t *copy = NULL;
	json_t *plans;
	int r;

	r = read_copy(c, &copy);
	if (r < 0)
		return r;
	plans = json_object_get(copy, "plans");
	*ret_reply = json_is_array(plans) ? json_pack("{s:O}", "plans", plans) : json_pack("{s:[]}", "plans");
	return *ret_reply != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

static int plan_of(const json_t *copy, const char *name, json_t **ret_plan)
{
	json_t *plan;
	size_t i;

	json_array_foreach(json_object_get(copy, "plans"), i, plan)
	{
		if (strcmp(cli_text(plan, "name"), name) == 0)
			return lb_plan_read(plan, ret_plan);
	}
	return lb_fail(-ENOENT, "the vault has no recovery plan \"%.64s\"; `lifeboat plan list` shows them", name);
}

int cli_plan_get_direct(struct cli *c, const char *name, json_t **ret_plan)
{
	_cleanup_json_ json_t *copy = NULL;
	int r;

	r = read_copy(c, &copy);
	return r < 0 ? r : plan_of(copy, name, ret_plan);
}

/* ---- running -------------------------------------------------------------------------------------------------- */

struct run {
	struct cli *c;
	const json_t *plan, *copy;
	const char *vm_folder, *hook_folder, *point;
	bool live;
	struct lb_together together;
	json_t *points; /* {machine: "E:S"}: what the point is now it is for all groups */
	json_t *done;   /* for JSON: {"machine", "double", "error"} */
	unsigned int failed;
};

static void say(const struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct run *run, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!run->c->json)
		vprintf(fmt, ap);
	va_end(ap);
	fflush(stdout);
}

static int tell_step(void *arg, enum lb_failover_step step)
{
	if (step != LB_STEP_DONE)
		say(arg, "    %s\n", lb_failover_step_name(step));
	return 0;
}

struct search {
	const char *machine;
	bool live;
	char name[LB_VM_NAME_BYTES];
};

static int look_for(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct search *s = arg;

	(void)state;
	if ((report->kind == LB_FAILOVER_LIVE) != s->live || strcmp(report->machine_name, s->machine) != 0)
		return 0;
	snprintf(s->name, sizeof(s->name), "%s", report->vm_name);
	return 1;
}

/* One that was begun before, by this plan or by hand, goes on. */
static int begin_or_open(struct run *run, const json_t *machine, struct lb_failover **ret_f)
{
	struct search s = {.machine = cli_text(machine, "machine"), .live = run->live};
	const struct lb_vault_secret secret = {.passphrase_file = run->c->passphrase_file};
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request request = {.vault_url = run->c->vault_url,
					      .secret = secret,
					      .vm_folder = run->vm_folder,
					      .fabric = cli_value(run->c, "fabric")};
	struct lb_double_source source;
	_cleanup_json_ json_t *body = NULL;
	const char *frozen;
	int r;

	r = lb_failover_list(run->c->env, run->vm_folder, look_for, &s);
	if (r < 0)
		return r;
	if (s.name[0] != '\0') {
		r = lb_failover_open(run->c->env, run->vm_folder, s.name, ret_f);
		return r < 0 ? r : lb_failover_secret_set(*ret_f, &secret);
	}
	frozen = json_string_value(json_object_get(run->points, s.machine));
	r = lb_plan_order(machine, run->live, frozen != NULL ? frozen : run->point, &body);
	lb_double_source_find(run->copy, s.machine, &source);
	r = r < 0 ? r : lb_double_fill(body, &source);
	r = r < 0 ? r : lb_failover_request_parse(body, &request, forwards);
	return r < 0 ? r : lb_failover_begin(run->c->env, &request, ret_f);
}

static int run_machine(struct run *run, const json_t *machine)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report = {.vm_name = ""};
	char when[LB_TIME_TEXT_BYTES];
	int r;

	say(run, "  machine %s\n", cli_text(machine, "machine"));
	r = begin_or_open(run, machine, &f);
	r = r < 0 ? r : lb_failover_run(f, tell_step, run);
	if (f != NULL)
		lb_failover_report(f, &report);
	json_array_append_new(run->done, json_pack("{s:s,s:s,s:s}", "machine", cli_text(machine, "machine"), "double",
						   report.vm_name, "error", r < 0 ? lb_err_text() : ""));
	if (r < 0) {
		run->failed++;
		say(run, "    failed: %s\n", lb_err_text());
	} else {
		say(run, "    double %s runs, as the machine was at %s\n", report.vm_name,
		    lb_time_format(report.point_time_ns, when));
	}
	return r;
}

static int run_script(struct run *run, const json_t *action, const char *group)
{
	char texts[3][LB_PLAN_TEXT_BYTES_MAX], line[LB_PROC_LAST_LINE_BYTES];
	const char *values[] = {texts[0], texts[1], texts[2], NULL};
	const struct lb_hook hook = {.folder = run->hook_folder,
				     .name = cli_text(action, "script"),
				     .timeout_s = (uint32_t)cli_number(action, "timeout_s"),
				     .values = values};
	int r;

	snprintf(texts[0], sizeof(texts[0]), "LIFEBOAT_PLAN=%s", cli_text(run->plan, "name"));
	snprintf(texts[1], sizeof(texts[1]), "LIFEBOAT_GROUP=%s", group);
	snprintf(texts[2], sizeof(texts[2]), "LIFEBOAT_KIND=%s", run->live ? "failover" : "test");
	say(run, "  script %s\n", hook.name);
	r = lb_hook_run(run->c->env, &hook, line);
	if (r == 0 || strcmp(cli_text(action, "on_failure"), "continue") != 0)
		return r < 0 ? lb_wrap(r, "%s: script %s", group, hook.name) : 0;
	say(run, "    failed, and the plan goes on: %s\n", lb_err_text());
	return 0;
}

static int ask_person(struct run *run, const json_t *action)
{
	char answer[16];

	fprintf(stderr, "  %s\n  Done? [yes/no] ", cli_text(action, "manual"));
	fflush(stderr);
	if (fgets(answer, sizeof(answer), stdin) == NULL || strncmp(answer, "yes", 3) != 0)
		return lb_fail(-ECANCELED, "the plan was ended here: %s; run it again to go on",
			       cli_text(action, "manual"));
	say(run, "  confirmed\n");
	return 0;
}

static int run_actions(struct run *run, const json_t *group, const char *member, const char *name)
{
	const json_t *action;
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(group, member), i, action)
	{
		if (r < 0 || !lb_plan_action_applies(action, run->live))
			continue;
		r = json_object_get(action, "script") != NULL ? run_script(run, action, name) : ask_person(run, action);
	}
	return r;
}

static int run_group(struct run *run, size_t n)
{
	const json_t *group = lb_plan_group(run->plan, n), *machine;
	char name[LB_PLAN_GROUP_NAME_BYTES];
	unsigned int failed = run->failed;
	size_t i;
	int r;

	lb_plan_group_name(run->plan, n, name);
	say(run, "%s\n", name);
	r = run_actions(run, group, "before", name);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(group, "machines"), i, machine)
	{
		r = run_machine(run, machine);
		if (r == -ECANCELED)
			return r;
	}
	if (run->failed > failed && strcmp(cli_text(group, "on_failure"), "continue") != 0)
		return lb_fail(-EIO,
			       "%s: %u of its machines failed, and later groups were not begun; run the plan again to "
			       "go on",
			       name, run->failed - failed);
	return run_actions(run, group, "after", name);
}

static int look_up(void *arg, size_t group, const json_t *machine)
{
	struct run *run = arg;
	struct lb_catalog_item *item = malloc(sizeof(*item));
	struct lb_point point;
	int r;

	(void)group;
	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_find(run->c->vault, cli_text(machine, "machine"), item);
	r = r < 0 ? r : lb_point_find_together(&run->together, run->c->vault, &item->machine, run->point, &point);
	free(item);
	if (r == 0 && json_object_set_new(run->points, cli_text(machine, "machine"),
					  json_sprintf("%llu:%llu", (unsigned long long)point.position.epoch,
						       (unsigned long long)point.position.seq)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a plan");
	return r < 0 ? lb_wrap(r, "nothing was begun: machine %s", cli_text(machine, "machine")) : 0;
}

int cli_plan_run_direct(struct cli *c, bool live)
{
	_cleanup_json_ json_t *plan = NULL, *copy = NULL, *points = json_object(), *done = json_array();
	struct run run = {.c = c,
			  .vm_folder = cli_value(c, "folder") != NULL ? cli_value(c, "folder") : "/var/lib/lifeboat/vm",
			  .hook_folder = cli_value(c, "hooks") != NULL ? cli_value(c, "hooks") : HOOK_FOLDER,
			  .point = cli_value(c, "point") != NULL ? cli_value(c, "point") : "latest",
			  .live = live,
			  .points = points,
			  .done = done};
	int r;

	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL,
			       "the doubles' disks are served by processes of their own: give --passphrase-file FILE");
	r = read_copy(c, &copy);
	r = r < 0 ? r : plan_of(copy, c->args[0], &plan);
	run.plan = plan;
	run.copy = copy;
	r = r < 0 ? r : lb_plan_each(plan, look_up, &run);
	if (r < 0)
		return r;
	if (c->dry_run)
		return cli_would(c, "run recovery plan %s from %s in %s", c->args[0], run.point, run.vm_folder);
	for (size_t i = 0; r == 0 && i < lb_plan_groups(plan); i++)
		r = run_group(&run, i);
	if (r < 0)
		return r;
	c->degraded |= run.failed > 0;
	return cli_did(c, "plan-run",
		       json_pack("{s:s,s:O,s:i}", "plan", c->args[0], "machines", done, "failed", (int)run.failed),
		       "Plan %s is done%s.", c->args[0], run.failed > 0 ? ", with failures" : "");
}
