/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/points.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "hrl/hrl.h"
#include "mobility/consistent.h"

#define IDLE_S 3600
#define TURN_MS 120000 /* a point of the replication group may be under way */

struct made {
	uint64_t number, generation; /* generation 0: by the policy */
	bool app;
	int result;
	char text[LB_ERR_TEXT_BYTES_MAX];
	struct lb_marked marked;
	int64_t frozen_ns;
};

struct lb_points {
	struct lb_points_options o;
	pthread_t thread;
	int wake_fd;
	int64_t app_due_ns; /* monotonic; 0: not set yet */

	pthread_mutex_t lock; /* what follows */
	bool stopping;
	struct lb_agent_config config;
	uint64_t obeyed; /* generation of the last order that was carried out */
	struct made made[LB_POINTS_TOLD_MAX];
	unsigned int n_made;
	uint64_t number;
};

/* ---- one point -----------------------------------------------------------------------------------------------------
 */

static void wake_session(const struct lb_points *p)
{
	const uint64_t one = 1;

	if (write(p->o.wake_fd, &one, sizeof(one)) < 0)
		lb_debug("the session could not be woken: %m");
}

static int finish(struct lb_points *p, uint32_t flags, struct made *made)
{
	int r;

	r = lb_mark_release(p->o.mark, flags);
	if (r < 0)
		return r;
	wake_session(p);
	return lb_mark_wait(p->o.mark, LB_POINTS_DURABLE_MS, &made->marked);
}

static int make_plain(struct lb_points *p, struct made *made)
{
	int r = lb_mark_set(p->o.mark);

	return r < 0 ? r : finish(p, 0, made);
}

static int make_app(struct lb_points *p, struct made *made)
{
	const struct lb_consistent_options options = {
		.env = p->o.env,
		.mark = p->o.mark,
		.capture_socket = p->o.capture_socket,
		.scripts = true,
		.scripts_ms = LB_POINTS_SCRIPTS_MS,
		.post_within_ms = LB_POINTS_POST_WITHIN_MS,
	};
	char text[LB_ERR_TEXT_BYTES_MAX];
	struct lb_consistent *c;
	int64_t frozen_ns = 0;
	int r, thawed;

	r = lb_consistent_prepare(&options, &c);
	if (r < 0)
		return r;
	r = lb_consistent_freeze(c, LB_POINTS_FREEZE_MS);
	if (r == 0)
		r = lb_consistent_mark(c);
	if (r < 0)
		snprintf(text, sizeof(text), "%s", lb_err_text());
	thawed = lb_consistent_thaw(c, &frozen_ns);
	made->frozen_ns = frozen_ns;
	if (r == 0 && thawed < 0) {
		r = thawed;
		snprintf(text, sizeof(text), "%s", lb_err_text());
	}
	snprintf(made->text, sizeof(made->text), "%s", lb_consistent_note(c));
	if (lb_consistent_end(c) < 0)
		snprintf(made->text, sizeof(made->text), "%s", lb_err_text());
	if (r < 0)
		return lb_fail(r, "%s", text);
	return finish(p, LB_HRL_MARK_APP, made);
}

static void keep(struct lb_points *p, struct made *made)
{
	LB_LOCK_SCOPE(&p->lock);

	if (p->n_made == LB_POINTS_TOLD_MAX)
		memmove(p->made, p->made + 1, --p->n_made * sizeof(p->made[0]));
	made->number = ++p->number;
	p->made[p->n_made++] = *made;
}

static void make(struct lb_points *p, bool app, uint64_t generation)
{
	struct made made = {.generation = generation, .app = app};

	lb_err_clear();
	made.result = lb_turn_take(TURN_MS);
	if (made.result == 0) {
		made.result = app ? make_app(p, &made) : make_plain(p, &made);
		lb_mark_cancel(p->o.mark);
		lb_turn_give();
	}
	if (made.result < 0) {
		snprintf(made.text, sizeof(made.text), "%s", lb_err_text());
		lb_warning("no %s point was made: %s", app ? "application-consistent" : "recovery", made.text);
	} else {
		lb_notice("%s point at epoch %lu, segment %lu; frozen for %.1f ms%s%s",
			  app ? "application-consistent" : "recovery", (unsigned long)made.marked.epoch,
			  (unsigned long)made.marked.seq, (double)made.frozen_ns / (double)LB_NS_PER_MS,
			  made.text[0] != '\0' ? "; " : "", made.text);
	}
	keep(p, &made);
}

/* ---- when -----------------------------------------------------------------------------------------------------------
 */

/* What is to be made now. True: go on at once. */
static bool next(struct lb_points *p, bool *ret_app, uint64_t *ret_generation, int64_t *ret_wake_ns)
{
	const int64_t now = lb_mono_ns(p->o.env);
	int64_t interval_ns;
	LB_LOCK_SCOPE(&p->lock);

	*ret_wake_ns = now + IDLE_S * LB_NS_PER_S;
	if (!p->config.enabled) {
		p->app_due_ns = 0;
		return false;
	}
	if (p->config.point_generation != 0 && p->config.point_generation != p->obeyed) {
		p->obeyed = *ret_generation = p->config.point_generation;
		*ret_app = p->config.point_app;
		return true;
	}
	interval_ns = p->config.policy.app_consistent_interval_s * LB_NS_PER_S;
	if (interval_ns == 0) {
		p->app_due_ns = 0;
		return false;
	}
	/* a policy that now wants it sooner is obeyed at once */
	if (p->app_due_ns == 0 || p->app_due_ns > now + interval_ns)
		p->app_due_ns = now + interval_ns;
	*ret_wake_ns = p->app_due_ns;
	if (now < p->app_due_ns)
		return false;
	p->app_due_ns = now + interval_ns;
	*ret_app = true;
	*ret_generation = 0;
	return true;
}

static bool stopping(struct lb_points *p)
{
	LB_LOCK_SCOPE(&p->lock);

	return p->stopping;
}

static void *run(void *arg)
{
	struct lb_points *p = arg;
	uint64_t generation, woken;
	int64_t wake_ns;
	bool app;

	while (!stopping(p)) {
		if (next(p, &app, &generation, &wake_ns)) {
			make(p, app, generation);
			continue;
		}
		p->o.env->ops->wait_until(p->o.env, wake_ns, p->wake_fd);
		while (read(p->wake_fd, &woken, sizeof(woken)) > 0)
			;
	}
	return NULL;
}

/* ---- for others
 * ------------------------------------------------------------------------------------------------------ */

static void wake(struct lb_points *p)
{
	const uint64_t one = 1;

	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		lb_debug("who makes points could not be woken: %m");
}

int lb_points_start(const struct lb_points_options *options, struct lb_points **ret_points)
{
	struct lb_points *p = calloc(1, sizeof(*p));
	int r;

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for making points");
	p->o = *options;
	pthread_mutex_init(&p->lock, NULL);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = p->wake_fd < 0 ? -errno : -pthread_create(&p->thread, NULL, run, p);
	if (r < 0) {
		if (p->wake_fd >= 0)
			close(p->wake_fd);
		pthread_mutex_destroy(&p->lock);
		free(p);
		return lb_fail(r, "no thread for making points: %s", strerror(-r));
	}
	*ret_points = p;
	return 0;
}

void lb_points_stop(struct lb_points *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	wake(p);
	pthread_join(p->thread, NULL);
	close(p->wake_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void lb_points_configure(struct lb_points *p, const struct lb_agent_config *config)
{
	pthread_mutex_lock(&p->lock);
	p->config = *config;
	pthread_mutex_unlock(&p->lock);
	wake(p);
}

static json_t *made_json(const struct made *m)
{
	return json_pack("{s:I,s:b,s:b,s:s,s:I,s:I,s:I,s:I}", "generation", (json_int_t)m->generation, "app", m->app,
			 "ok", m->result == 0, "text", m->text, "epoch", (json_int_t)m->marked.epoch, "seq",
			 (json_int_t)m->marked.seq, "time_ns", (json_int_t)m->marked.time_ns, "frozen_ns",
			 (json_int_t)m->frozen_ns);
}

int lb_points_json(struct lb_points *p, json_t **ret_list, uint64_t *ret_upto)
{
	_cleanup_json_ json_t *list = json_array();
	LB_LOCK_SCOPE(&p->lock);

	for (unsigned int i = 0; i < p->n_made; i++)
		if (json_array_append_new(list, made_json(&p->made[i])) < 0)
			return lb_fail(-ENOMEM, "out of memory for the report of points");
	*ret_upto = p->number;
	*ret_list = lb_steal_ptr(list);
	return 0;
}

bool lb_points_untold(struct lb_points *p)
{
	LB_LOCK_SCOPE(&p->lock);

	return p->n_made > 0;
}

void lb_points_told(struct lb_points *p, uint64_t upto)
{
	LB_LOCK_SCOPE(&p->lock);

	while (p->n_made > 0 && p->made[0].number <= upto)
		memmove(p->made, p->made + 1, --p->n_made * sizeof(p->made[0]));
}
