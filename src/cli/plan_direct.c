/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_direct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "cli/plan_machines.h"
#include "cli/plan_record.h"
#include "fabric/double_settings.h"
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
	struct cli_plan_run m; /* what its machines' work needs */
	const char *hook_folder;
	struct lb_together together;
	struct cli_plan_record record;
};

static int run_script(struct run *run, const json_t *action, const char *group)
{
	char texts[3][LB_PLAN_TEXT_BYTES_MAX], line[LB_PROC_LAST_LINE_BYTES];
	const char *values[] = {texts[0], texts[1], texts[2], NULL};
	const struct lb_hook hook = {.folder = run->hook_folder,
				     .name = cli_text(action, "script"),
				     .timeout_s = (uint32_t)cli_number(action, "timeout_s"),
				     .values = values};
	int r;

	snprintf(texts[0], sizeof(texts[0]), "LIFEBOAT_PLAN=%s", cli_text(run->m.plan, "name"));
	snprintf(texts[1], sizeof(texts[1]), "LIFEBOAT_GROUP=%s", group);
	snprintf(texts[2], sizeof(texts[2]), "LIFEBOAT_KIND=%s", run->m.live ? "failover" : "test");
	cli_plan_say(&run->m, "  script %s\n", hook.name);
	r = lb_hook_run(run->m.c->env, &hook, line);
	if (r == 0 || strcmp(cli_text(action, "on_failure"), "continue") != 0)
		return r < 0 ? lb_wrap(r, "%s: script %s", group, hook.name) : 0;
	cli_plan_say(&run->m, "    failed, and the plan goes on: %s\n", lb_err_text());
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
	cli_plan_say(&run->m, "  confirmed\n");
	return 0;
}

static int run_actions(struct run *run, size_t n, const char *member, const char *name)
{
	const json_t *action;
	char id[64];
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(lb_plan_group(run->m.plan, n), member), i, action)
	{
		snprintf(id, sizeof(id), "%zu-%s-%zu", n + 1, member, i + 1);
		if (r < 0 || !lb_plan_action_applies(action, run->m.live ? "failover" : "test") ||
		    cli_plan_record_is_done(&run->record, id))
			continue;
		r = json_object_get(action, "script") != NULL ? run_script(run, action, name) : ask_person(run, action);
		r = r < 0 ? r : cli_plan_record_done(&run->record, id);
	}
	return r;
}

static int run_group(struct run *run, size_t n)
{
	const json_t *group = lb_plan_group(run->m.plan, n);
	char name[LB_PLAN_GROUP_NAME_BYTES];
	unsigned int failed;
	int r;

	lb_plan_group_name(run->m.plan, n, name);
	cli_plan_say(&run->m, "%s\n", name);
	r = run_actions(run, n, "before", name);
	r = r < 0 ? r : cli_plan_machines(&run->m, group, CLI_PLAN_START, &failed);
	if (r < 0)
		return r;
	if (failed > 0 && strcmp(cli_text(group, "on_failure"), "continue") != 0)
		return lb_fail(-EIO,
			       "%s: %u of its machines failed, and later groups were not begun (%s); run the plan "
			       "again to go on",
			       name, failed, run->m.told);
	return run_actions(run, n, "after", name);
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
	r = lb_catalog_find(run->m.c->vault, cli_text(machine, "machine"), item);
	r = r < 0 ? r : lb_point_find_together(&run->together, run->m.c->vault, &item->machine, run->m.point, &point);
	free(item);
	if (r == 0 && json_object_set_new(run->m.points, cli_text(machine, "machine"),
					  json_sprintf("%llu:%llu", (unsigned long long)point.position.epoch,
						       (unsigned long long)point.position.seq)) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a plan");
	return r < 0 ? lb_wrap(r, "nothing was begun: machine %s", cli_text(machine, "machine")) : 0;
}

/* What was begun before goes on as it was begun, whatever the vault says by now. */
static int go_on(struct run *run)
{
	char when[LB_TIME_TEXT_BYTES];
	const char *point = cli_text(run->record.body, "point");

	if (cli_value(run->m.c, "point") != NULL && strcmp(run->m.point, point) != 0)
		return lb_fail(
			-EINVAL,
			"plan %s was begun from %s and has not come to its end: run it without --point to go on, "
			"or remove %s to begin anew (what runs already is left alone)",
			run->m.c->args[0], point, run->record.path);
	run->m.plan = json_object_get(run->record.body, "plan");
	run->m.points = json_object_get(run->record.body, "points");
	run->m.point = point;
	cli_plan_say(&run->m, "Going on with what was begun at %s.\n",
		     lb_time_format(cli_number(run->record.body, "begun_ns"), when));
	return 0;
}

/* What it kept in the vault, and then the record, which has the name of that. */
static int let_go(struct run *run)
{
	cli_plan_unpin(run->m.c, &run->record);
	return cli_plan_record_remove(&run->record);
}

static int run_groups(struct run *run)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < lb_plan_groups(run->m.plan); i++)
		r = run_group(run, i);
	return r < 0 ? r : let_go(run);
}

/* Before the first group: of what can't be kept nothing is begun. */
static int pin_points(struct run *run)
{
	char said[LB_ERR_TEXT_BYTES_MAX];
	int r = cli_plan_pin(run->m.c, &run->record, run->m.live);

	if (r == 0)
		return 0;
	snprintf(said, sizeof(said), "%s", lb_err_text());
	(void)let_go(run);
	return lb_fail(r, "nothing was begun: %s", said);
}

static void run_close(struct run *run)
{
	cli_plan_record_close(&run->record);
	cli_plan_run_clear(&run->m);
}

static int tell(struct run *run, const char *said)
{
	struct cli_plan_run *m = &run->m;

	m->c->degraded |= m->failed > 0;
	return cli_did(m->c, "plan-run",
		       json_pack("{s:s,s:O,s:i}", "plan", m->c->args[0], "machines", m->done, "failed", (int)m->failed),
		       "Plan %s %s%s.", m->c->args[0], said, m->failed > 0 ? ", with failures" : "");
}

int cli_plan_run_direct(struct cli *c, bool live)
{
	_cleanup_json_ json_t *plan = NULL, *copy = NULL, *points = json_object();
	_cleanup_(run_close) struct run run = {.hook_folder = cli_value(c, "hooks") != NULL ? cli_value(c, "hooks")
											    : HOOK_FOLDER,
					       .record = {.lock_fd = -1}};
	int r;

	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL,
			       "the doubles' disks are served by processes of their own: give --passphrase-file FILE");
	r = cli_plan_run_begin(&run.m, c, live);
	r = r < 0 ? r : read_copy(c, &copy);
	r = r < 0 ? r : plan_of(copy, c->args[0], &plan);
	if (r < 0)
		return r;
	run.m.plan = plan;
	run.m.copy = copy;
	run.m.points = points;
	if (c->dry_run) {
		r = lb_plan_each(plan, look_up, &run);
		return r < 0 ? r
			     : cli_would(c, "run recovery plan %s from %s in %s", c->args[0], run.m.point,
					 run.m.vm_folder);
	}
	r = cli_plan_record_open(c->env, run.m.vm_folder, c->args[0], live, &run.record);
	if (r == 0 && run.record.goes_on) {
		r = go_on(&run);
	} else if (r == 0) {
		r = lb_plan_each(plan, look_up, &run);
		r = r < 0 ? r : cli_plan_record_begin(&run.record, plan, run.m.point, points);
	}
	r = r < 0 ? r : pin_points(&run);
	r = r < 0 ? r : run_groups(&run);
	return r < 0 ? r : tell(&run, "is done");
}

/* ---- what comes after ------------------------------------------------------------------------------------------- */

static int for_all(struct cli *c, enum cli_plan_work work, bool live, const char *verb, const char *said)
{
	_cleanup_json_ json_t *plan = NULL;
	_cleanup_(run_close) struct run run = {.record = {.lock_fd = -1}};
	unsigned int failed = 0, there = 0;
	int r;

	if (c->passphrase_file == NULL)
		return lb_fail(-EINVAL, "what is pinned in the vault is let go: give --passphrase-file FILE");
	r = cli_plan_run_begin(&run.m, c, live);
	r = r < 0 ? r : cli_plan_get_direct(c, c->args[0], &plan);
	if (r < 0)
		return r;
	run.m.plan = plan;
	if (c->dry_run)
		return cli_would(c, "%s the doubles of recovery plan %s in %s", verb, c->args[0], run.m.vm_folder);
	r = cli_plan_record_open(c->env, run.m.vm_folder, c->args[0], live, &run.record);
	for (size_t i = 0; r == 0 && i < lb_plan_groups(plan); i++) {
		r = cli_plan_machines(&run.m, lb_plan_group(plan, i), work, &failed);
		there += failed;
	}
	if (r < 0)
		return r;
	if (json_array_size(run.m.done) == 0 && work == CLI_PLAN_CLEANUP)
		let_go(&run); /* it was ended before its first double */
	if (json_array_size(run.m.done) == 0)
		return lb_fail(-ENOENT, "plan %s has no %s double in %s", c->args[0], live ? "live" : "test",
			       run.m.vm_folder);
	if (there > 0)
		return lb_fail(-EIO, "%u doubles of plan %s: %s", there, c->args[0], run.m.told);
	r = let_go(&run);
	return r < 0 ? r : tell(&run, said);
}

int cli_plan_commit_direct(struct cli *c)
{
	return for_all(c, CLI_PLAN_COMMIT, true, "commit", "is committed: its doubles stand by themselves");
}

int cli_plan_cleanup_direct(struct cli *c)
{
	return for_all(c, CLI_PLAN_CLEANUP, false, "destroy", "has no test doubles any more");
}
