/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's side: who it is, and a point from its first phase to its last. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "mobility/group_state.h"

#define RESULT_POLL_NS (100 * LB_NS_PER_MS)
#ifdef LB_FAULT_INJECTION
#define NO_BARRIER_PAUSE_NS (150 * LB_NS_PER_MS)
#endif

/* ---- election -------------------------------------------------------------------------------------------------------
 */

static void fill_hello(const struct lb_group *g, const struct lb_group_roster *roster, struct lb_group_call *calls,
		       size_t *ret_n)
{
	size_t n = 0;

	for (unsigned int i = 0; i < roster->n; i++) {
		if (lb_uuid_equal(&roster->members[i].id, &g->me))
			continue;
		calls[n++] = (struct lb_group_call){.to = &roster->members[i],
						    .message = {.phase = LB_GROUP_HELLO,
								.group = roster->id,
								.from = g->me,
								.coordinator = g->coordinator,
								.version = roster->version,
								.term = g->term}};
	}
	*ret_n = n;
}

static bool lower(const struct lb_uuid *a, const struct lb_uuid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) < 0;
}

bool lb_group_elect(struct lb_group *g)
{
	struct lb_group_call calls[LB_GROUP_MEMBERS_MAX];
	struct lb_group_roster roster;
	bool lowest = true, disputed = false;
	size_t n;

	pthread_mutex_lock(&g->lock);
	roster = g->roster;
	fill_hello(g, &roster, calls, &n);
	pthread_mutex_unlock(&g->lock);
	if (!lb_group_has(&roster, &g->me))
		return false;
	if (n > 0)
		g->ops->call(g->arg, calls, n, LB_GROUP_HELLO_MS);
	LB_LOCK_SCOPE(&g->lock);
	for (size_t i = 0; i < n; i++) {
		const struct lb_group_reply *a = &calls[i].reply;

		if (a->term > g->term) {
			g->term = a->term;
			g->coordinator = a->coordinator;
		}
		/* out of one another's reach, two may have taken the same term: a term has one coordinator, or none */
		disputed |= a->result == 0 && a->term == g->term && !lb_uuid_equal(&a->coordinator, &g->coordinator);
		if (a->result == 0 && a->version == roster.version && lower(&calls[i].to->id, &g->me))
			lowest = false;
	}
	if (!lowest || g->roster.version != roster.version)
		return false;
	if (disputed || !lb_uuid_equal(&g->coordinator, &g->me)) {
		g->term++;
		g->coordinator = g->me;
	}
	return true;
}

/* ---- a point --------------------------------------------------------------------------------------------------------
 */

struct round {
	struct lb_group *g;
	struct lb_group_outcome *o;
	uint64_t term;
};

static void fail_round(struct round *w, const struct lb_group_member *who, enum lb_group_phase phase,
		       const struct lb_group_reply *reply)
{
	if (w->o->result < 0)
		return;
	w->o->result = reply->result;
	snprintf(w->o->text, sizeof(w->o->text), "%s (%s): %s", who->name, lb_group_phase_name(phase), reply->text);
}

/* To members [from, to). Their replies are kept; the first failure is the round's. */
static int tell(struct round *w, enum lb_group_phase phase, unsigned int from, unsigned int to, uint32_t timeout_ms)
{
	struct lb_group_call calls[LB_GROUP_MEMBERS_MAX];
	struct lb_group_outcome *o = w->o;
	int r = 0;

	for (unsigned int i = from; i < to; i++)
		calls[i - from] = (struct lb_group_call){.to = &o->roster.members[i],
							 .message = {.phase = phase,
								     .group = o->roster.id,
								     .from = w->g->me,
								     .coordinator = w->g->me,
								     .version = o->roster.version,
								     .term = w->term,
								     .point = o->point,
								     .app = o->app}};
	w->g->ops->call(w->g->arg, calls, to - from, timeout_ms);
	for (unsigned int i = from; i < to; i++) {
		const struct lb_group_reply *reply = &calls[i - from].reply;

		if (reply->result == 0 && phase == LB_GROUP_THAW)
			o->members[i].frozen_ns = reply->frozen_ns;
		if (reply->result == 0 && phase == LB_GROUP_RESULT) {
			o->members[i].epoch = reply->epoch;
			o->members[i].seq = reply->seq;
		}
		if (reply->result < 0)
			r = r == 0 || r == -EINPROGRESS ? reply->result : r;
		if (reply->result < 0 && reply->result != -EINPROGRESS && phase != LB_GROUP_ABORT)
			fail_round(w, &o->roster.members[i], phase, reply);
	}
	return r;
}

static int tell_all(struct round *w, enum lb_group_phase phase, uint32_t timeout_ms)
{
	const int64_t begun_ns = lb_mono_ns(w->g->env);
	int r = tell(w, phase, 0, w->o->roster.n, timeout_ms);

	w->o->phase_ns[phase] = lb_mono_ns(w->g->env) - begun_ns;
	return r;
}

#ifdef LB_FAULT_INJECTION
static bool without_barrier(void)
{
	const char *fault = getenv("LB_FAULT");

	return fault != NULL && strcmp(fault, "group_no_barrier") == 0;
}

/* The rule switched off, so that a test can show what it is for: each member freezes, marks and thaws by itself. */
static int pass_without_barrier(struct round *w)
{
	struct lb_env *env = w->g->env;
	int r = 0;

	for (unsigned int i = 0; i < w->o->roster.n && r == 0; i++) {
		r = tell(w, LB_GROUP_FREEZE, i, i + 1, LB_GROUP_PHASE_MS);
		if (r == 0)
			r = tell(w, LB_GROUP_MARK, i, i + 1, LB_GROUP_PHASE_MS);
		if (r == 0)
			r = tell(w, LB_GROUP_THAW, i, i + 1, LB_GROUP_PHASE_MS);
		env->ops->wait_until(env, lb_mono_ns(env) + NO_BARRIER_PAUSE_NS, -1);
	}
	return r;
}
#endif

/* The barrier: all frozen before the first mark, all marks set before the first thaw. */
static int pass_barrier(struct round *w)
{
	int r;

#ifdef LB_FAULT_INJECTION
	if (without_barrier())
		return pass_without_barrier(w);
#endif
	r = tell_all(w, LB_GROUP_FREEZE, LB_GROUP_PHASE_MS);
	if (r == 0)
		r = tell_all(w, LB_GROUP_MARK, LB_GROUP_PHASE_MS);
	if (r == 0)
		r = tell_all(w, LB_GROUP_THAW, LB_GROUP_PHASE_MS);
	return r;
}

static int collect(struct round *w)
{
	struct lb_env *env = w->g->env;
	const int64_t until_ns = lb_mono_ns(env) + LB_GROUP_RESULT_MS * LB_NS_PER_MS;
	unsigned int i = 0;
	int r = 0;

	/* one after the other: a member that has told is through with the point */
	while (i < w->o->roster.n && (r == 0 || r == -EINPROGRESS)) {
		r = tell(w, LB_GROUP_RESULT, i, i + 1, LB_GROUP_PHASE_MS);
		if (r == 0)
			i++;
		if (r != -EINPROGRESS)
			continue;
		if (lb_mono_ns(env) > until_ns) {
			const struct lb_group_reply late = {.result = -ETIMEDOUT,
							    .text = "its mark was not made durable in time"};

			fail_round(w, &w->o->roster.members[i], LB_GROUP_RESULT, &late);
			return -ETIMEDOUT;
		}
		env->ops->wait_until(env, lb_mono_ns(env) + RESULT_POLL_NS, -1);
	}
	return r;
}

static int begin(struct lb_group *g, struct round *w, bool app)
{
	LB_LOCK_SCOPE(&g->lock);

	if (!lb_uuid_equal(&g->coordinator, &g->me) || !lb_group_has(&g->roster, &g->me))
		return lb_fail(-EAGAIN, "another member coordinates the group");
	w->o->roster = g->roster;
	w->o->app = app;
	w->term = g->term;
	if (g->env->ops->random(g->env, &w->o->point, sizeof(w->o->point)) < 0)
		return lb_fail(-EIO, "no random bytes for a point's id");
	return 0;
}

int lb_group_round(struct lb_group *g, bool app, struct lb_group_outcome *o)
{
	struct round w = {.g = g, .o = o};
	int r;

	memset(o, 0, sizeof(*o));
	r = begin(g, &w, app);
	if (r < 0)
		return r;
	r = tell_all(&w, LB_GROUP_PREPARE, LB_GROUP_PREPARE_MS);
	if (r == 0)
		r = tell_all(&w, LB_GROUP_SETTLE, LB_GROUP_SETTLE_MS + LB_GROUP_PHASE_MS);
	if (r == 0)
		r = pass_barrier(&w);
	if (r == 0)
		r = tell_all(&w, LB_GROUP_COMMIT, LB_GROUP_COMMIT_MS);
	if (r == 0)
		r = collect(&w);
	tell_all(&w, LB_GROUP_ABORT, LB_GROUP_PHASE_MS);
	for (unsigned int i = 0; i < o->roster.n; i++)
		o->frozen_ns = LB_MAX(o->frozen_ns, o->members[i].frozen_ns);
	if (r == 0)
		return 0;
	o->result = o->result < 0 ? o->result : r;
	return lb_fail(o->result, "%s", o->text);
}
