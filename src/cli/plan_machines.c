/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan_machines.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "fabric/double_settings.h"
#include "fabric/failover.h"

int cli_plan_run_begin(struct cli_plan_run *run, struct cli *c, bool live)
{
	*run = (struct cli_plan_run){.c = c,
				     .vm_folder = cli_value(c, "folder") != NULL ? cli_value(c, "folder")
										 : "/var/lib/lifeboat/vm",
				     .point = cli_value(c, "point") != NULL ? cli_value(c, "point") : "latest",
				     .live = live,
				     .done = json_array()};
	pthread_mutex_init(&run->lock, NULL);
	return run->done != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a plan");
}

void cli_plan_run_clear(struct cli_plan_run *run)
{
	if (run->c == NULL)
		return;
	json_decref(run->done);
	pthread_mutex_destroy(&run->lock);
}

void cli_plan_say(const struct cli_plan_run *run, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!run->c->json)
		vprintf(fmt, ap);
	va_end(ap);
	fflush(stdout);
}

/* ---- one machine, on a thread of its own ------------------------------------------------------------------------- */

struct job {
	struct cli_plan_run *run;
	const json_t *machine;
	enum cli_plan_work work;
	const char *name;
	char double_name[LB_VM_NAME_BYTES];
	bool there;
	json_t *told; /* NULL: it had nothing to do */
};

static int tell_step(void *arg, enum lb_failover_step step)
{
	const struct job *job = arg;

	if (step != LB_STEP_DONE)
		cli_plan_say(job->run, "  %s: %s\n", job->name, lb_failover_step_name(step));
	return 0;
}

/* A live one by its machine, a test by its name: others may rehearse the same machine. */
static int look_for(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct job *job = arg;
	bool live = report->kind == LB_FAILOVER_LIVE;

	(void)state;
	if (live != job->run->live || strcmp(report->machine_name, job->name) != 0 ||
	    (!live && strcmp(report->vm_name, job->double_name) != 0))
		return 0;
	snprintf(job->double_name, sizeof(job->double_name), "%s", report->vm_name);
	job->there = true;
	return 1;
}

static int begin(struct job *job, struct lb_failover **ret_f)
{
	struct cli_plan_run *run = job->run;
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	struct lb_failover_request request = {.vault_url = run->c->vault_url,
					      .secret = {.passphrase_file = run->c->passphrase_file},
					      .vm_folder = run->vm_folder,
					      .fabric = cli_value(run->c, "fabric")};
	const char *frozen = json_string_value(json_object_get(run->points, job->name));
	struct lb_double_source source;
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_plan_order(job->machine, run->live, frozen != NULL ? frozen : run->point, &body);
	lb_double_source_find(run->copy, job->name, &source);
	r = r < 0 ? r : lb_double_fill(body, &source);
	r = r < 0 ? r : lb_failover_request_parse(body, &request, forwards);
	request.vm_name = job->double_name;
	return r < 0 ? r : lb_failover_begin(run->c->env, &request, ret_f);
}

static int start(struct job *job, struct lb_failover *f)
{
	struct lb_failover_report report;
	char when[LB_TIME_TEXT_BYTES];
	int r = lb_failover_run(f, tell_step, job);

	if (r < 0)
		return r;
	lb_failover_report(f, &report);
	cli_plan_say(job->run, "  %s: double %s runs, as the machine was at %s\n", job->name, report.vm_name,
		     lb_time_format(report.point_time_ns, when));
	return 0;
}

/* One that was begun before, by this plan or by hand, goes on. */
static int work(struct job *job)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct cli_plan_run *run = job->run;
	const struct lb_vault_secret secret = {.passphrase_file = run->c->passphrase_file};
	int r;

	r = lb_plan_double(job->machine, run->live, job->double_name);
	r = r < 0 ? r : lb_failover_list(run->c->env, run->vm_folder, look_for, job);
	if (r < 0)
		return r;
	if (job->there) {
		r = lb_failover_open(run->c->env, run->vm_folder, job->double_name, &f);
		r = r < 0 ? r : lb_failover_secret_set(f, &secret);
	} else if (job->work == CLI_PLAN_START) {
		job->there = true;
		r = begin(job, &f);
	} else {
		/* a cleanup that was killed last of all has left an empty folder, which goes with this */
		r = job->work == CLI_PLAN_CLEANUP ? lb_failover_open(run->c->env, run->vm_folder, job->double_name, &f)
						  : -ENOENT;
		return r == -ENOENT ? 0 : r;
	}
	if (r == 0 && job->work == CLI_PLAN_START)
		return start(job, f);
	if (r == 0 && job->work == CLI_PLAN_COMMIT)
		r = lb_failover_commit(f, NULL, NULL);
	else if (r == 0 && (r = lb_failover_cleanup(f, false)) == 0)
		f = NULL; /* freed with it */
	if (r == 0)
		cli_plan_say(run, "  %s: double %s is %s\n", job->name, job->double_name,
			     job->work == CLI_PLAN_COMMIT ? "committed" : "gone");
	return r;
}

static void note(struct job *job, int r)
{
	struct cli_plan_run *run = job->run;
	size_t used;

	LB_LOCK_SCOPE(&run->lock);
	used = strlen(run->told);
	job->told = json_pack("{s:s,s:s,s:s}", "machine", job->name, "double", job->double_name, "error",
			      r < 0 ? lb_err_text() : "");
	if (r == 0)
		return;
	run->failed++;
	snprintf(run->told + used, sizeof(run->told) - used, "%s%s: %.160s", used > 0 ? "; " : "", job->name,
		 lb_err_text());
	cli_plan_say(run, "  %s: failed: %s\n", job->name, lb_err_text());
}

/* ---- all of a group ------------------------------------------------------------------------------------------------
 */

struct group_work {
	struct cli_plan_run *run;
	const json_t *machines;
	enum cli_plan_work work;
	struct job *jobs; /* one for each machine */
	atomic_size_t next;
};

static void *work_on_some(void *arg)
{
	struct group_work *g = arg;
	size_t i;

	while ((i = atomic_fetch_add(&g->next, 1)) < json_array_size(g->machines)) {
		struct job *job = &g->jobs[i];
		int r;

		*job = (struct job){.run = g->run, .machine = json_array_get(g->machines, i), .work = g->work};
		job->name = cli_text(job->machine, "machine");
		r = work(job);
		if (job->there || r < 0)
			note(job, r);
	}
	return NULL;
}

int cli_plan_machines(struct cli_plan_run *run, const json_t *group, enum cli_plan_work work, unsigned int *ret_failed)
{
	size_t n_machines = json_array_size(json_object_get(group, "machines"));
	_cleanup_free_ struct job *jobs = calloc(n_machines + 1, sizeof(*jobs));
	struct group_work g = {.run = run, .machines = json_object_get(group, "machines"), .work = work, .jobs = jobs};
	pthread_t threads[CLI_PLAN_AT_ONCE_MAX];
	unsigned int failed = run->failed, n = 0;
	int r = jobs != NULL ? 0 : -ENOMEM;

	while (r == 0 && n < LB_MIN(n_machines, (size_t)CLI_PLAN_AT_ONCE_MAX)) {
		r = -pthread_create(&threads[n], NULL, work_on_some, &g);
		n += r == 0;
	}
	for (unsigned int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (r < 0 && n == 0)
		return lb_fail(r, "can't start a thread for a plan's machines: %s", strerror(-r));
	for (size_t i = 0; i < n_machines; i++)
		if (jobs[i].told != NULL)
			json_array_append_new(run->done, jobs[i].told);
	*ret_failed = run->failed - failed;
	return 0;
}
