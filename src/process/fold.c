/* SPDX-License-Identifier: Apache-2.0 */
#include "process/fold.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "vault/fold.h"

#define LOOK_AGAIN_NS (5 * LB_NS_PER_S) /* for machines that are new or became ready */
#define NICE 19
#define IOPRIO_IDLE (3 << 13) /* IOPRIO_CLASS_IDLE; IOPRIO_WHO_PROCESS is 1 */

/* Only what this server itself writes: elsewhere another one folds. */
static bool is_ours(struct lb_machine *m, struct lb_policy *ret_policy)
{
	LB_LOCK_SCOPE(&m->lock);

	*ret_policy = m->assigned.policy;
	return m->state == LB_MACHINE_READY && m->vault.epoch != 0 && !m->assigned.fenced && !m->assigned.handover;
}

static bool is_stopping(struct lb_folder *f)
{
	LB_LOCK_SCOPE(&f->process->lock);

	return f->process->stopping || (f->machine != NULL && f->machine->gone);
}

/* ---- share ---- */

static double rate_now(struct lb_env *env, const struct lb_policy *policy)
{
	uint64_t limit = lb_policy_bandwidth(policy, lb_now_ns(env));

	return (double)(limit > 0 ? LB_MAX(LB_MIN((uint64_t)LB_FOLDER_BYTES_PER_S, limit / 4), (uint64_t)1)
				  : LB_FOLDER_BYTES_PER_S);
}

/* Waits in short steps: limits change, and a round ends early when its machine is fenced or taken away. */
static int pace(void *arg, uint64_t bytes)
{
	struct lb_folder *f = arg;
	struct lb_env *env = f->process->env;
	struct lb_policy policy;

	f->unpaid_bytes += (double)bytes;
	for (;;) {
		int64_t now = lb_mono_ns(env);
		double rate, wait_ns;

		if (is_stopping(f) || !is_ours(f->machine, &policy))
			return -ECANCELED;
		if (f->unpaid_bytes <= 0)
			return 0;
		rate = rate_now(env, &policy) / (double)LB_NS_PER_S;
		wait_ns = LB_MIN(f->unpaid_bytes / rate + 1, (double)LOOK_AGAIN_NS);
		env->ops->wait_until(env, now + (int64_t)wait_ns, f->wake_fd);
		f->unpaid_bytes = LB_MAX(f->unpaid_bytes - rate * (double)(lb_mono_ns(env) - now), 0.0);
	}
}

/* ---- the clock ---- */

/* Wall and monotonic clock must go alike, or points would be pruned by a time that is not. */
static bool clock_jumped(struct lb_folder *f)
{
	struct lb_env *env = f->process->env;
	int64_t now_ns = lb_now_ns(env), mono_ns = lb_mono_ns(env), apart_ns = 0;

	if (f->seen_mono_ns != 0)
		apart_ns = (now_ns - f->seen_now_ns) - (mono_ns - f->seen_mono_ns);
	f->seen_now_ns = now_ns;
	f->seen_mono_ns = mono_ns;
	if (apart_ns > LB_CLOCK_JUMP_NS || apart_ns < -LB_CLOCK_JUMP_NS) {
		lb_warning("the clock of this host jumped by %" PRId64
			   " s: no recovery point is pruned for %d hours; if the time is right now, restart this "
			   "server to go on at once, or run `lifeboat vault fold`",
			   apart_ns / LB_NS_PER_S, LB_FOLDER_PAUSE_S / 3600);
		f->paused_until_mono_ns = mono_ns + LB_FOLDER_PAUSE_S * LB_NS_PER_S;
	}
	return mono_ns < f->paused_until_mono_ns;
}

/* ---- a machine ---- */

static int64_t period_s(const struct lb_policy *policy)
{
	int64_t every_point_s = policy->retention.rungs[0].every_s == 0 ? policy->retention.rungs[0].for_s : 0;

	return LB_MIN(LB_MAX(every_point_s / 4, (int64_t)LB_FOLDER_PERIOD_S_MIN), (int64_t)LB_FOLDER_PERIOD_S_MAX);
}

/* A ladder that was shortened meanwhile is followed by its own period, not after that of the old one. */
static int64_t due_of(struct lb_machine *m)
{
	int64_t shorter_s;
	LB_LOCK_SCOPE(&m->lock);

	shorter_s = m->fold_period_s - period_s(&m->assigned.policy);
	return m->fold_due_mono_ns - LB_MAX(shorter_s, (int64_t)0) * LB_NS_PER_S;
}

/* The machine that is due first, with a reference, or NULL. */
static struct lb_machine *take(struct lb_folder *f, int64_t *ret_next_mono_ns)
{
	struct lb_process *p = f->process;
	int64_t now = lb_mono_ns(p->env);
	struct lb_machine *first = NULL;
	int64_t first_ns = 0;
	LB_LOCK_SCOPE(&p->lock);

	*ret_next_mono_ns = now + LOOK_AGAIN_NS;
	if (p->vault == NULL || p->stopping)
		return NULL;
	for (uint32_t i = 0; i < p->n_machines; i++) {
		struct lb_machine *m = p->machines[i];

		if (m->gone || (first != NULL && due_of(m) >= first_ns))
			continue;
		first = m;
		first_ns = due_of(m);
	}
	if (first != NULL && first_ns <= now) {
		first->refs++;
		return first;
	}
	if (first != NULL)
		*ret_next_mono_ns = LB_MIN(*ret_next_mono_ns, first_ns);
	return NULL;
}

static void due(struct lb_folder *f, struct lb_machine *m, int64_t in_s, bool again)
{
	LB_LOCK_SCOPE(&f->process->lock);

	m->fold_period_s = again ? 0 : in_s;
	m->fold_due_mono_ns = lb_mono_ns(f->process->env) + in_s * LB_NS_PER_S;
}

static void note(struct lb_machine *m, const struct lb_fold_report *report)
{
	LB_LOCK_SCOPE(&m->lock);

	m->folded.points = report->points;
	m->folded.points_pruned += report->points_pruned;
	m->folded.rewritten_bytes += report->rewritten_bytes + report->map_bytes;
	m->folded.deleted_bytes += report->deleted_bytes;
	m->folded.deleted_objects += report->deleted_objects;
	m->folded.write_ratio = lb_fold_write_ratio(&report->sizes);
	m->folded.space_ratio = lb_fold_space_ratio(&report->sizes);
}

static void failed(struct lb_machine *m)
{
	if (!m->fold_failing)
		lb_warning("machine %s: its recovery points are not pruned for now, it is tried again: %s", m->id_text,
			   lb_err_text());
	m->fold_failing = true;
}

static void succeeded(struct lb_machine *m, const struct lb_fold_report *report)
{
	if (m->fold_failing)
		lb_notice("machine %s: its recovery points are pruned again", m->id_text);
	m->fold_failing = false;
	note(m, report);
	if (report->points_pruned + report->deleted_objects > 0)
		lb_info("machine %s: %" PRIu64 " recovery points pruned, %" PRIu64 " objects deleted, %" PRIu64
			" bytes rewritten",
			m->id_text, report->points_pruned, report->deleted_objects, report->rewritten_bytes);
}

static void fold(struct lb_folder *f, struct lb_machine *m, const struct lb_policy *policy)
{
	const struct lb_fold_options options = {
		.retention = {.ladder = policy->retention,
			      .app_s = policy->app_retention_days * 24 * 3600,
			      .delete_delay_s = policy->delete_delay_s,
			      .age_min_s = LB_MAX(policy->early_deletion_days, policy->object_lock_days) * 24 * 3600},
		.pace = pace,
		.arg = f,
	};
	struct lb_fold_report report = {0};
	struct lb_policy now;
	int64_t in_s = period_s(policy);
	int r;

	f->machine = m;
	r = lb_fold_round(lb_process_vault(f->process), &m->id, &options, &report);
	if (r < 0 && (is_stopping(f) || !is_ours(m, &now)))
		r = -ECANCELED; /* its key may be forgotten already */
	f->machine = NULL;
	if (r == 0) {
		succeeded(m, &report);
		/* a backlog is worked off round by round, with the others in between */
		in_s = report.objects_to_fold == LB_FOLD_OBJECTS_MAX ? 0 : in_s;
	} else if (r != -ECANCELED) {
		failed(m);
		in_s = LB_FOLDER_RETRY_S;
	}
	due(f, m, in_s, r < 0);
}

bool lb_folder_next(struct lb_folder *f, int64_t *ret_next_mono_ns)
{
	struct lb_machine *m = take(f, ret_next_mono_ns);
	struct lb_policy policy;

	if (m == NULL)
		return false;
	if (!is_ours(m, &policy))
		due(f, m, LB_FOLDER_PERIOD_S_MIN, true);
	else if (clock_jumped(f))
		due(f, m, LB_FOLDER_RETRY_S, true);
	else
		fold(f, m, &policy);
	lb_machine_unref(m);
	return true;
}

/* ---- the thread ---- */

/*
 * Behind everything else, but not SCHED_IDLE: that could be kept from the processor for seconds while it holds a lock
 * that ingest waits for.
 */
static void step_back(void)
{
	pid_t id = (pid_t)syscall(SYS_gettid);

	if (setpriority(PRIO_PROCESS, (id_t)id, NICE) < 0 || syscall(SYS_ioprio_set, 1, id, IOPRIO_IDLE) < 0)
		lb_debug("folding runs at ordinary priority: %s", strerror(errno));
}

static void *work(void *arg)
{
	struct lb_folder *f = arg;
	struct lb_env *env = f->process->env;
	int64_t next_mono_ns;

	step_back();
	while (!is_stopping(f))
		if (!lb_folder_next(f, &next_mono_ns))
			env->ops->wait_until(env, next_mono_ns, f->wake_fd);
	return NULL;
}

int lb_folder_start(struct lb_process *p, struct lb_folder *f)
{
	int r;

	*f = (struct lb_folder){.process = p};
	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->wake_fd < 0)
		return lb_fail(-errno, "can't make an event descriptor: %s", strerror(errno));
	r = pthread_create(&f->thread, NULL, work, f);
	if (r != 0) {
		close(f->wake_fd);
		return lb_fail(-r, "can't start the thread that folds journals: %s", strerror(r));
	}
	f->running = true;
	return 0;
}

void lb_folder_stop(struct lb_folder *f)
{
	uint64_t one = 1;

	if (!f->running)
		return;
	pthread_mutex_lock(&f->process->lock);
	f->process->stopping = true;
	pthread_mutex_unlock(&f->process->lock);
	if (write(f->wake_fd, &one, sizeof(one)) < 0)
		lb_warning("the thread that folds journals is not woken: %s", strerror(errno));
	pthread_join(f->thread, NULL);
	close(f->wake_fd);
	f->running = false;
}
