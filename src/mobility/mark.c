/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/mark.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"

enum state { NONE, HELD, READY, CUT, DONE, FAILED };

struct lb_mark {
	struct lb_env *env;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	const struct lb_capture *capture; /* NULL: no points can be made */
	char why_not[LB_MARK_TEXT_BYTES];
	char disks[LB_CAPTURE_DISKS_MAX][LB_CAPTURE_NAME_BYTES];
	unsigned int n_disks;

	enum state state;
	char error[LB_MARK_TEXT_BYTES];
	uint64_t position;
	int64_t mono_ns;
	uint32_t flags;
	struct lb_marked marked;
};

int lb_mark_new(struct lb_env *env, struct lb_mark **ret_mark)
{
	struct lb_mark *m = calloc(1, sizeof(*m));
	pthread_condattr_t attr;

	if (m == NULL)
		return lb_fail(-ENOMEM, "out of memory for marks");
	m->env = env;
	snprintf(m->why_not, sizeof(m->why_not), "the machine is not protected yet");
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->ended, &attr);
	pthread_condattr_destroy(&attr);
	*ret_mark = m;
	return 0;
}

void lb_mark_free(struct lb_mark *m)
{
	pthread_cond_destroy(&m->ended);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* With the lock held, as all static ones. */
static bool under_way(const struct lb_mark *m)
{
	return m->state == HELD || m->state == READY || m->state == CUT;
}

static void fail(struct lb_mark *m, const char *why)
{
	if (!under_way(m))
		return;
	m->state = FAILED;
	snprintf(m->error, sizeof(m->error), "%s", why);
	pthread_cond_broadcast(&m->ended);
}

static int possible(const struct lb_mark *m)
{
	uint64_t limit;
	bool in_debt;

	if (m->capture == NULL)
		return lb_fail(-EAGAIN, "no point can be made now: %s", m->why_not);
	lb_capture_limit(m->capture, &limit, &in_debt);
	if (in_debt || lb_capture_mode(m->capture) != LB_CAPTURE_RUNNING)
		return lb_fail(-EAGAIN, "no point can be made now: writes were lost, they are scanned again first");
	return 0;
}

/* ---- who makes points ----------------------------------------------------------------------------------------------
 */

int lb_mark_disks(struct lb_mark *m, char names[LB_CAPTURE_DISKS_MAX][LB_CAPTURE_NAME_BYTES], unsigned int *ret_n)
{
	int r;
	LB_LOCK_SCOPE(&m->lock);

	r = possible(m);
	if (r < 0)
		return r;
	memcpy(names, m->disks, sizeof(m->disks));
	*ret_n = m->n_disks;
	return 0;
}

int lb_mark_set(struct lb_mark *m)
{
	int r;
	LB_LOCK_SCOPE(&m->lock);

	if (under_way(m))
		return lb_fail(-EAGAIN, "another point is under way");
	r = possible(m);
	if (r < 0)
		return r;
	m->mono_ns = lb_mono_ns(m->env);
	m->position = lb_capture_producer(m->capture);
	m->flags = 0;
	m->marked = (struct lb_marked){0};
	m->state = HELD;
	return 0;
}

int lb_mark_release(struct lb_mark *m, uint32_t flags)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->state != HELD)
		return lb_fail(-EAGAIN, "the mark is void: %s", m->state == FAILED ? m->error : "it was not set");
	m->flags = flags;
	m->state = READY;
	return 0;
}

void lb_mark_cancel(struct lb_mark *m)
{
	LB_LOCK_SCOPE(&m->lock);

	m->state = NONE;
}

static struct timespec deadline_in(uint32_t timeout_ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += timeout_ms % 1000 * LB_NS_PER_MS;
	if (t.tv_nsec >= LB_NS_PER_S) {
		t.tv_nsec -= LB_NS_PER_S;
		t.tv_sec++;
	}
	return t;
}

int lb_mark_wait(struct lb_mark *m, uint32_t timeout_ms, struct lb_marked *ret_marked)
{
	const struct timespec until = deadline_in(timeout_ms);
	enum state state;
	int r = 0;
	LB_LOCK_SCOPE(&m->lock);

	while (under_way(m) && r == 0)
		r = pthread_cond_timedwait(&m->ended, &m->lock, &until);
	state = m->state;
	m->state = NONE;
	if (state == FAILED)
		return lb_fail(-EAGAIN, "%s", m->error);
	if (state != DONE)
		return lb_fail(-ETIMEDOUT, "the process server did not make the point durable within %u s",
			       timeout_ms / 1000);
	*ret_marked = m->marked;
	return 0;
}

int lb_mark_poll(struct lb_mark *m, struct lb_marked *ret_marked)
{
	LB_LOCK_SCOPE(&m->lock);

	if (under_way(m))
		return -EINPROGRESS;
	if (m->state != DONE)
		return lb_fail(-EAGAIN, "%s", m->state == FAILED ? m->error : "the mark is void");
	*ret_marked = m->marked;
	return 0;
}

/* ---- the session ---------------------------------------------------------------------------------------------------
 */

void lb_mark_open(struct lb_mark *m, const struct lb_capture *capture, const struct lb_capture_disk *disks,
		  unsigned int n_disks)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->capture == capture)
		return;
	m->capture = capture;
	m->n_disks = n_disks;
	for (unsigned int i = 0; i < n_disks; i++)
		memcpy(m->disks[i], disks[i].name, sizeof(m->disks[i]));
}

void lb_mark_shut(struct lb_mark *m, const char *why)
{
	LB_LOCK_SCOPE(&m->lock);

	fail(m, why);
	m->capture = NULL;
	snprintf(m->why_not, sizeof(m->why_not), "%s", why);
}

uint64_t lb_mark_limit(struct lb_mark *m, uint64_t limit, int64_t *ret_mono_ns)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->state == HELD && lb_mono_ns(m->env) - m->mono_ns > LB_MARK_HELD_S * LB_NS_PER_S)
		fail(m, "nobody said what became of the freeze");
	if (!under_way(m) || m->position > limit)
		return limit;
	*ret_mono_ns = m->mono_ns;
	return m->position;
}

bool lb_mark_due(struct lb_mark *m, uint64_t position, uint32_t *ret_flags)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->state != READY || position < m->position)
		return false;
	if (position > m->position) {
		fail(m, "the journal went on before the mark was known");
		return false;
	}
	*ret_flags = m->flags;
	return true;
}

void lb_mark_cut(struct lb_mark *m, uint64_t epoch, uint64_t seq, int64_t time_ns, bool is_point)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->state != READY)
		return;
	if (!is_point)
		fail(m, "the first recovery point has not been reached yet");
	else
		m->state = CUT;
	m->marked = (struct lb_marked){.epoch = epoch, .seq = seq, .time_ns = time_ns};
}

void lb_mark_acknowledged(struct lb_mark *m, uint64_t epoch, uint64_t seq)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->state != CUT || m->marked.epoch != epoch || m->marked.seq != seq)
		return;
	m->state = DONE;
	pthread_cond_broadcast(&m->ended);
}

void lb_mark_resume(struct lb_mark *m, uint64_t position)
{
	LB_LOCK_SCOPE(&m->lock);

	if (!under_way(m))
		return;
	if (position > m->position || (position == m->position && m->state == CUT))
		fail(m, "the connection broke while the point was sent");
	else if (m->state == CUT)
		m->state = READY;
}
