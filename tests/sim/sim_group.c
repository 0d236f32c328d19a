/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A replication group in one process, on a seeded clock and a network that loses, delays and is cut, whose members are
 * slow, die while frozen and come back, and take one another for the coordinator. After each point that is said to
 * exist: every member was frozen from before the first mark until after the last one. Always: no member is frozen
 * longer than its watchdog allows. And when all is well again, points are made again. A failure prints its seed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "mobility/group.h"

#define MEMBERS_MAX 6
#define STEPS 400

/* One member's part in one point, kept for the judge. */
struct trace {
	struct lb_uuid point;
	bool frozen, marked, thawed, committed;
	int64_t frozen_at, marked_at, thawed_at;
};

#define TRACES 32

struct member {
	struct lb_group *group;
	struct lb_uuid id;
	bool dead;
	bool prepared, frozen, marked, released;
	int64_t frozen_at, thawed_at, marked_at, watchdog_at;
	uint64_t life; /* one more with each death */
	uint64_t seq;
	struct lb_uuid asked; /* the point of the last PREPARE */
	struct trace traces[TRACES];
	unsigned int n_traces;
};

static struct world {
	uint64_t random;
	int64_t now_ns;
	struct member members[MEMBERS_MAX];
	struct lb_group_roster roster;
	unsigned int n;
	unsigned int p_lose, p_slow, p_die; /* of 1024 */
	bool cut;                           /* the network is away: everybody is the lowest who answers */
	unsigned int depth;
	uint64_t made, failed;
	char failure[512];
} w;

static uint64_t draw(void)
{
	w.random ^= w.random << 13;
	w.random ^= w.random >> 7;
	w.random ^= w.random << 17;
	return w.random;
}

static struct trace *trace_of(struct member *m)
{
	return &m->traces[m->n_traces % TRACES];
}

static bool chance(unsigned int parts)
{
	return draw() % 1024 < parts;
}

static void verdict(const char *text)
{
	if (w.failure[0] == '\0')
		snprintf(w.failure, sizeof(w.failure), "%s", text);
}

/* ---- time: watchdogs thaw by themselves ----------------------------------------------------------------------------
 */

static void thaw(struct member *m, int64_t at)
{
	if (!m->frozen)
		return;
	if (at > m->watchdog_at)
		at = m->watchdog_at;
	m->frozen = false;
	m->thawed_at = at;
	trace_of(m)->thawed = true;
	trace_of(m)->thawed_at = at;
	if (at - m->frozen_at > LB_GROUP_FREEZE_MS * LB_NS_PER_MS)
		verdict("a member was frozen longer than its watchdog allows");
}

static void pass(int64_t ns)
{
	w.now_ns += ns;
	for (unsigned int i = 0; i < w.n; i++)
		if (w.members[i].frozen && w.now_ns >= w.members[i].watchdog_at)
			thaw(&w.members[i], w.members[i].watchdog_at);
}

static int64_t world_mono_ns(struct lb_env *env)
{
	(void)env;
	return w.now_ns;
}

static int world_wait(struct lb_env *env, int64_t mono_ns, int fd)
{
	(void)env;
	(void)fd;
	if (mono_ns > w.now_ns)
		pass(mono_ns - w.now_ns);
	return 0;
}

static int world_random(struct lb_env *env, void *buf, size_t n)
{
	(void)env;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)buf)[i] = (uint8_t)draw();
	return 0;
}

static const struct lb_env_ops env_ops = {.mono_ns = world_mono_ns, .wait_until = world_wait, .random = world_random};
static struct lb_env world_env = {.ops = &env_ops};

/* ---- what a member does
 * ------------------------------------------------------------------------------------------------ */

static void dawdle(void)
{
	pass((int64_t)(draw() % (chance(w.p_slow) ? 4000 : 20)) * LB_NS_PER_MS);
}

static int op_prepare(void *arg, bool app)
{
	struct member *m = arg;

	(void)app;
	dawdle();
	m->n_traces++;
	*trace_of(m) = (struct trace){.point = m->asked};
	m->prepared = true;
	m->marked = m->released = false;
	return chance(w.p_slow / 4) ? lb_fail(-EREMOTEIO, "a script failed") : 0;
}

static int op_settle(void *arg, uint32_t max_ms)
{
	(void)arg;
	(void)max_ms;
	dawdle();
	return chance(w.p_slow / 4) ? lb_fail(-ETIMEDOUT, "its disk is busy") : 0;
}

static int op_freeze(void *arg, uint32_t max_ms)
{
	struct member *m = arg;
	struct trace *t = trace_of(m);

	m->frozen = true;
	m->watchdog_at = w.now_ns + max_ms * LB_NS_PER_MS;
	m->frozen_at = w.now_ns;
	dawdle();
	t->frozen = true;
	t->frozen_at = w.now_ns; /* only now is all of it */
	return m->frozen ? 0 : lb_fail(-ETIMEDOUT, "the freeze took too long");
}

static int op_mark(void *arg)
{
	struct member *m = arg;
	struct trace *t = trace_of(m);

	m->marked = true;
	t->marked = true;
	t->marked_at = m->marked_at = w.now_ns;
	dawdle();
	return 0;
}

static int op_thaw(void *arg, int64_t *ret_frozen_ns)
{
	struct member *m = arg;
	bool in_time = m->frozen;

	thaw(m, w.now_ns);
	*ret_frozen_ns = m->thawed_at - m->frozen_at;
	return in_time ? 0 : lb_fail(-ETIMEDOUT, "thawed before its time");
}

static int op_commit(void *arg, bool app)
{
	struct member *m = arg;

	(void)app;
	m->released = true;
	trace_of(m)->committed = true;
	return 0;
}

static int op_result(void *arg, uint64_t *ret_epoch, uint64_t *ret_seq)
{
	struct member *m = arg;

	if (chance(300))
		return -EINPROGRESS;
	*ret_epoch = 1;
	*ret_seq = ++m->seq;
	return 0;
}

static void op_end(void *arg)
{
	struct member *m = arg;

	thaw(m, w.now_ns);
	m->prepared = m->marked = m->released = false;
}

/* ---- the network
 * -------------------------------------------------------------------------------------------------------- */

static void step(struct member *m);

static struct member *member_of(const struct lb_uuid *id)
{
	for (unsigned int i = 0; i < w.n; i++)
		if (lb_uuid_equal(&w.members[i].id, id))
			return &w.members[i];
	return NULL;
}

static void lost(struct lb_group_call *c)
{
	c->reply = (struct lb_group_reply){.result = -ETIMEDOUT, .text = "does not answer"};
}

static void one_call(const struct member *from, struct lb_group_call *c, uint64_t life, int64_t until_ns)
{
	struct member *to = member_of(&c->to->id);
	bool self = to == from;

	if (!self && (from->dead || to->dead || from->life != life || w.cut || chance(w.p_lose)))
		return lost(c);
	pass((int64_t)(draw() % 3) * LB_NS_PER_MS);
	if (c->message.phase == LB_GROUP_PREPARE)
		to->asked = c->message.point;
	lb_group_handle(to->group, &c->message, &c->reply);
	if (from->life != life || w.now_ns > until_ns || (!self && chance(w.p_lose)))
		lost(c); /* it was done, and nobody hears of it */
}

static void die(struct member *m);

static void op_call(void *arg, struct lb_group_call *calls, size_t n, uint32_t timeout_ms)
{
	struct member *from = arg;
	const int64_t until_ns = w.now_ns + timeout_ms * LB_NS_PER_MS;
	size_t first = n > 0 ? draw() % n : 0;
	uint64_t life = from->life;

	for (size_t i = 0; i < n; i++)
		one_call(from, &calls[(first + i) % n], life, until_ns);
	/* meanwhile others go on, and may take the lead */
	if (w.depth < 2 && chance(100)) {
		w.depth++;
		step(&w.members[draw() % w.n]);
		w.depth--;
	}
	/* a member dies in mid-point: never one whose code is on our stack */
	if (chance(w.p_die)) {
		struct member *victim = &w.members[draw() % w.n];

		if (victim != from && w.depth == 0)
			die(victim);
	}
}

static const struct lb_group_ops ops = {.prepare = op_prepare,
					.settle = op_settle,
					.freeze = op_freeze,
					.mark = op_mark,
					.thaw = op_thaw,
					.commit = op_commit,
					.result = op_result,
					.end = op_end,
					.call = op_call};

/* ---- members come and go
 * --------------------------------------------------------------------------------------------- */

static void birth(struct member *m)
{
	if (lb_group_new(&world_env, &m->id, &ops, m, &m->group) < 0)
		abort();
	lb_group_configure(m->group, &w.roster);
	m->dead = false;
}

/* A killed agent: its socket to the watchdog closes, which thaws; its memory is gone. */
static void die(struct member *m)
{
	if (m->dead)
		return;
	thaw(m, w.now_ns);
	m->life++;
	m->dead = true;
	lb_group_free(m->group);
	m->group = NULL;
}

/* ---- the judge
 * ----------------------------------------------------------------------------------------------------------- */

static const struct trace *find_trace(const struct member *m, const struct lb_uuid *point)
{
	for (unsigned int i = 0; i < TRACES; i++)
		if (lb_uuid_equal(&m->traces[i].point, point))
			return &m->traces[i];
	return NULL;
}

static void judge(const struct lb_group_outcome *o)
{
	int64_t frozen_last = 0, marked_first = INT64_MAX, marked_last = 0, thawed_first = INT64_MAX;

	for (unsigned int i = 0; i < o->roster.n; i++) {
		const struct trace *t = find_trace(&w.members[i], &o->point);

		if (t == NULL || !t->frozen || !t->marked || !t->thawed || !t->committed)
			return verdict("a point without a member's part");
		frozen_last = LB_MAX(frozen_last, t->frozen_at);
		marked_first = LB_MIN(marked_first, t->marked_at);
		marked_last = LB_MAX(marked_last, t->marked_at);
		thawed_first = LB_MIN(thawed_first, t->thawed_at);
	}
	if (frozen_last > marked_first)
		verdict("a member marked before all were frozen");
	if (thawed_first < marked_last)
		verdict("a member thawed before all had marked");
	w.made++;
}

static void step(struct member *m)
{
	struct lb_group_outcome *o;

	if (m->dead)
		return;
	lb_group_tick(m->group);
	if (!lb_group_elect(m->group) || m->dead)
		return;
	o = calloc(1, sizeof(*o));
	if (o == NULL)
		abort();
	if (lb_group_round(m->group, chance(512), o) == 0 && o->result == 0)
		judge(o);
	else
		w.failed++;
	free(o);
}

static void begin(uint64_t seed)
{
	memset(&w, 0, sizeof(w));
	w.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	w.now_ns = LB_NS_PER_S;
	w.n = 2 + (unsigned int)(draw() % (MEMBERS_MAX - 1));
	w.p_lose = (unsigned int)(draw() % 60);
	w.p_slow = (unsigned int)(draw() % 60);
	w.p_die = (unsigned int)(draw() % 30);
	world_random(NULL, &w.roster.id, sizeof(w.roster.id));
	w.roster.version = 1;
	w.roster.n = w.n;
	for (unsigned int i = 0; i < w.n; i++) {
		world_random(NULL, &w.members[i].id, sizeof(w.members[i].id));
		w.roster.members[i].id = w.members[i].id;
		snprintf(w.roster.members[i].name, sizeof(w.roster.members[i].name), "m%u", i);
	}
	for (unsigned int i = 0; i < w.n; i++)
		birth(&w.members[i]);
}

static bool play(uint64_t seed)
{
	bool well;

	begin(seed);
	for (int i = 0; i < STEPS && w.failure[0] == '\0'; i++) {
		struct member *m = &w.members[draw() % w.n];

		if (m->dead && chance(400))
			birth(m);
		if (chance(w.cut ? 200 : 20))
			w.cut = !w.cut;
		step(m);
		pass((int64_t)(draw() % 1000) * LB_NS_PER_MS);
	}
	/* all is mended: a point comes */
	w.p_lose = w.p_slow = w.p_die = 0;
	w.cut = false;
	for (unsigned int i = 0; i < w.n; i++)
		if (w.members[i].dead)
			birth(&w.members[i]);
	uint64_t before = w.made;
	for (int i = 0; i < 400 && w.made == before && w.failure[0] == '\0'; i++) {
		pass(LB_NS_PER_S);
		step(&w.members[(unsigned int)i % w.n]);
	}
	if (w.made == before)
		verdict("no point is made although all is well");
	well = w.failure[0] == '\0';
	for (unsigned int i = 0; i < w.n; i++) {
		if (w.members[i].dead)
			continue;
		lb_group_free(w.members[i].group);
		if (w.members[i].frozen)
			verdict("a member stays frozen");
	}
	return well;
}

int main(int argc, char **argv)
{
	uint64_t seeds = 200, first = 1, made = 0, failed = 0, caught = 0;
	bool without_barrier = false;

	lb_log_init("sim_group", LB_LOG_ERROR);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
			seeds = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			first = strtoull(argv[++i], NULL, 10), seeds = 1;
		else if (strcmp(argv[i], "--without-barrier") == 0)
			without_barrier = true;
		else
			return fputs("sim_group [--seeds N | --seed N] [--without-barrier]\n", stderr), 2;
	}
	if (without_barrier)
		setenv("LB_FAULT", "group_no_barrier", 1);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		if (!play(seed)) {
			if (!without_barrier) {
				fprintf(stderr, "seed %" PRIu64 ": %s\n", seed, w.failure);
				return 1;
			}
			caught++;
		}
		made += w.made;
		failed += w.failed;
	}
	printf("%" PRIu64 " points made, %" PRIu64 " failed, %" PRIu64 " seeds caught\n", made, failed, caught);
	if (without_barrier && caught == 0)
		return fputs("nobody noticed that the barrier is missing\n", stderr), 1;
	return 0;
}
