/* SPDX-License-Identifier: Apache-2.0 */
/* The member's side: what it does at each message, and what it does when none comes. */
#include "mobility/group.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "mobility/group_state.h"

const char *lb_group_phase_name(enum lb_group_phase phase)
{
	static const char *const names[LB_GROUP_PHASES] = {
		[LB_GROUP_HELLO] = "hello",   [LB_GROUP_PREPARE] = "prepare", [LB_GROUP_SETTLE] = "settle",
		[LB_GROUP_FREEZE] = "freeze", [LB_GROUP_MARK] = "mark",       [LB_GROUP_THAW] = "thaw",
		[LB_GROUP_COMMIT] = "commit", [LB_GROUP_ABORT] = "abort",     [LB_GROUP_RESULT] = "result"};

	return names[phase];
}

int lb_group_new(struct lb_env *env, const struct lb_uuid *me, const struct lb_group_ops *ops, void *arg,
		 struct lb_group **ret_group)
{
	struct lb_group *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return lb_fail(-ENOMEM, "out of memory for a replication group");
	g->env = env;
	g->me = *me;
	g->ops = ops;
	g->arg = arg;
	pthread_mutex_init(&g->lock, NULL);
	pthread_mutex_init(&g->doing, NULL);
	*ret_group = g;
	return 0;
}

/* With `doing` held. */
static void give_up(struct lb_group *g)
{
	if (g->stage == LB_STAGE_FREE)
		return;
	g->ops->end(g->arg);
	g->stage = LB_STAGE_FREE;
	g->point = (struct lb_uuid){0};
}

void lb_group_free(struct lb_group *g)
{
	give_up(g);
	pthread_mutex_destroy(&g->doing);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

static const struct lb_group_member *find(const struct lb_group_roster *roster, const struct lb_uuid *id)
{
	for (unsigned int i = 0; i < roster->n; i++)
		if (lb_uuid_equal(&roster->members[i].id, id))
			return &roster->members[i];
	return NULL;
}

/* A server that has just started does not know yet where they are; they are where they were. */
static void keep_addresses(const struct lb_group_roster *old, struct lb_group_roster *roster)
{
	for (unsigned int i = 0; i < roster->n; i++) {
		const struct lb_group_member *before = find(old, &roster->members[i].id);

		if (roster->members[i].host[0] != '\0' || before == NULL)
			continue;
		memcpy(roster->members[i].host, before->host, sizeof(before->host));
		roster->members[i].port = before->port;
	}
}

void lb_group_configure(struct lb_group *g, const struct lb_group_roster *roster)
{
	struct lb_group_roster fresh = {0};
	LB_LOCK_SCOPE(&g->lock);

	if (roster != NULL) {
		fresh = *roster;
		keep_addresses(&g->roster, &fresh);
	}
	g->roster = fresh;
}

bool lb_group_has(const struct lb_group_roster *roster, const struct lb_uuid *id)
{
	return find(roster, id) != NULL;
}

/* With `lock` held: whether the sender may speak here, and in which term we are after it. */
static int admit(struct lb_group *g, const struct lb_group_message *m)
{
	const bool orders = m->phase != LB_GROUP_HELLO;

	if (!lb_uuid_equal(&m->group, &g->roster.id) || !lb_group_has(&g->roster, &m->from))
		return lb_fail(-EACCES, "not a member of this machine's replication group");
	if (m->term > g->term) {
		g->term = m->term;
		g->coordinator = orders ? m->from : m->coordinator;
	} else if (m->term == g->term && lb_uuid_zero(&g->coordinator)) {
		g->coordinator = orders ? m->from : m->coordinator;
	}
	if (!orders)
		return 0;
	if (m->version != g->roster.version)
		return lb_fail(-ESTALE, "knows version %llu of the group, was asked with version %llu",
			       (unsigned long long)g->roster.version, (unsigned long long)m->version);
	if (m->term < g->term || !lb_uuid_equal(&g->coordinator, &m->from))
		return lb_fail(-ESTALE, "another member coordinates the group");
	return 0;
}

static void expect_more(struct lb_group *g, uint32_t within_ms)
{
	g->until_ns = lb_mono_ns(g->env) + within_ms * LB_NS_PER_MS;
}

static int do_prepare(struct lb_group *g, const struct lb_group_message *m)
{
	int r;

	if (g->stage != LB_STAGE_FREE && lb_uuid_equal(&g->point, &m->point))
		return 0;
	/* what an earlier coordinator, or this one earlier, has left */
	give_up(g);
	g->stage = LB_STAGE_PREPARED;
	g->point = m->point;
	g->term_of_point = m->term;
	g->app = m->app;
	r = g->ops->prepare(g->arg, m->app);
	if (r < 0)
		give_up(g);
	/* the others may take as long */
	expect_more(g, LB_GROUP_PREPARE_MS + LB_GROUP_MEMBER_WAIT_MS);
	return r;
}

static int do_settle(struct lb_group *g)
{
	int r;

	if (g->stage != LB_STAGE_PREPARED)
		return -EPROTO;
	r = g->ops->settle(g->arg, LB_GROUP_SETTLE_MS);
	/* the others may take as long */
	expect_more(g, LB_GROUP_SETTLE_MS + LB_GROUP_MEMBER_WAIT_MS);
	return r;
}

static int do_freeze(struct lb_group *g)
{
	if (g->stage != LB_STAGE_PREPARED)
		return g->stage == LB_STAGE_FROZEN ? 0 : -EPROTO;
	g->stage = LB_STAGE_FROZEN;
	return g->ops->freeze(g->arg, LB_GROUP_FREEZE_MS);
}

static int do_mark(struct lb_group *g)
{
	if (g->stage != LB_STAGE_FROZEN)
		return g->stage == LB_STAGE_MARKED ? 0 : -EPROTO;
	g->stage = LB_STAGE_MARKED;
	return g->ops->mark(g->arg);
}

static int do_thaw(struct lb_group *g)
{
	if (g->stage != LB_STAGE_MARKED)
		return g->stage == LB_STAGE_THAWED ? 0 : -EPROTO;
	g->stage = LB_STAGE_THAWED;
	return g->ops->thaw(g->arg, &g->frozen_ns);
}

static int do_commit(struct lb_group *g)
{
	if (g->stage != LB_STAGE_THAWED)
		return g->stage == LB_STAGE_COMMITTED ? 0 : -EPROTO;
	g->stage = LB_STAGE_COMMITTED;
	expect_more(g, LB_GROUP_RESULT_MS + LB_GROUP_MEMBER_WAIT_MS);
	return g->ops->commit(g->arg, g->app);
}

static int do_result(struct lb_group *g, struct lb_group_reply *reply)
{
	if (g->stage != LB_STAGE_COMMITTED)
		return -EPROTO;
	return g->ops->result(g->arg, &reply->epoch, &reply->seq);
}

/* With `doing` held. A failure of any step is the end of the point here; the coordinator hears of it. */
static int obey(struct lb_group *g, const struct lb_group_message *m, struct lb_group_reply *reply)
{
	int r;

	if (m->phase == LB_GROUP_PREPARE)
		return do_prepare(g, m);
	if (g->stage == LB_STAGE_FREE || !lb_uuid_equal(&g->point, &m->point) || g->term_of_point != m->term)
		return m->phase == LB_GROUP_ABORT ? 0
						  : lb_fail(-EPROTO, "knows nothing of this point: it was given up");
	if (m->phase != LB_GROUP_RESULT)
		expect_more(g, LB_GROUP_MEMBER_WAIT_MS);
	switch (m->phase) {
	case LB_GROUP_SETTLE:
		r = do_settle(g);
		break;
	case LB_GROUP_FREEZE:
		r = do_freeze(g);
		break;
	case LB_GROUP_MARK:
		r = do_mark(g);
		break;
	case LB_GROUP_THAW:
		r = do_thaw(g);
		reply->frozen_ns = g->frozen_ns;
		break;
	case LB_GROUP_COMMIT:
		r = do_commit(g);
		break;
	case LB_GROUP_RESULT:
		r = do_result(g, reply);
		if (r == -EINPROGRESS)
			return r;
		break;
	default:
		r = 0;
		break;
	}
	if (r == -EPROTO && lb_err_text()[0] == '\0')
		lb_fail(r, "was asked to %s out of order", lb_group_phase_name(m->phase));
	if (r < 0 || m->phase == LB_GROUP_ABORT)
		give_up(g);
	return r;
}

void lb_group_handle(struct lb_group *g, const struct lb_group_message *m, struct lb_group_reply *ret_reply)
{
	struct lb_group_reply reply = {0};
	int r;

	lb_err_clear();
	pthread_mutex_lock(&g->lock);
	r = admit(g, m);
	reply.version = g->roster.version;
	reply.term = g->term;
	reply.coordinator = g->coordinator;
	pthread_mutex_unlock(&g->lock);
	if (r == 0 && m->phase != LB_GROUP_HELLO) {
		LB_LOCK_SCOPE(&g->doing);

		r = obey(g, m, &reply);
	}
	reply.result = r;
	if (r < 0)
		snprintf(reply.text, sizeof(reply.text), "%s", lb_err_text());
	*ret_reply = reply;
}

void lb_group_tick(struct lb_group *g)
{
	bool gone;

	/* somebody is at work on it: then it isn't forgotten */
	if (pthread_mutex_trylock(&g->doing) != 0)
		return;
	pthread_mutex_lock(&g->lock);
	gone = g->roster.n == 0 || g->term_of_point != g->term;
	pthread_mutex_unlock(&g->lock);
	if (g->stage != LB_STAGE_FREE && (gone || lb_mono_ns(g->env) > g->until_ns))
		give_up(g);
	pthread_mutex_unlock(&g->doing);
}
