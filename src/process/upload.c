/* SPDX-License-Identifier: Apache-2.0 */
#include "process/upload.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "process/beats.h"
#include "process/join.h"
#include "process/pack.h"
#include "process/schedule.h"
#include "process/throttle.h"

#define WAIT_MAX_NS (600 * LB_NS_PER_S)

/* What is next for the vault: false when it has all. */
static bool next_work(struct lb_machine *m, struct lb_position *ret_first, uint64_t *ret_seq_end, bool *ret_retire)
{
	const struct lb_epoch *e = m->oldest;
	LB_LOCK_SCOPE(&m->lock);

	if (e == NULL || (e->first_seq == e->next_seq && e->newer == NULL))
		return false;
	*ret_retire = e->first_seq == e->next_seq;
	*ret_first = (struct lb_position){.epoch = e->record.epoch, .seq = e->first_seq};
	*ret_seq_end = e->next_seq;
	return true;
}

static int begin_epoch(struct lb_machine *m, uint64_t epoch)
{
	const struct lb_journal_tail *t = lb_journal_writer_tail(m->writer);

	if (t->epoch_open == epoch)
		return 0;
	m->point_since_epoch = false;
	return lb_journal_epoch_begin(m->writer, epoch);
}

/* The oldest epoch is wholly in the vault and a later one has begun: it is sealed there and forgotten here. */
static int retire_epoch(struct lb_machine *m, uint64_t epoch)
{
	int r;

	r = begin_epoch(m, m->oldest->newer->record.epoch);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	lb_machine_epoch_pop(m);
	pthread_mutex_unlock(&m->lock);
	if (lb_process_cache_record_remove(&m->process->cache, m, epoch) < 0)
		lb_warning("machine %s: %s", m->id_text, lb_err_text());
	return 0;
}

static void checkpoint(struct lb_machine *m, bool force)
{
	bool written = false;

	m->objects_since_checkpoint = 0;
	if (lb_checkpoint_write(m->process->vault, &m->id, force, &written) < 0)
		lb_warning("machine %s: no checkpoint, opening its points takes longer: %s", m->id_text, lb_err_text());
}

/* `ret_damaged`: the cache is, and not the vault. */
static int send_pack(struct lb_machine *m, const struct lb_position *first, uint64_t seq_end, bool *ret_damaged)
{
	_cleanup_(lb_upload_pack_free) struct lb_upload_pack pack = {0};
	bool first_point;
	int r;

	r = begin_epoch(m, first->epoch);
	if (r < 0)
		return r;
	r = lb_upload_pack_load(m, first, seq_end, &pack);
	if (r < 0) {
		*ret_damaged = r == -EBADMSG || r == -ENOENT || r == -EIO;
		return r;
	}
	r = lb_journal_append(m->writer, pack.segments, pack.n);
	if (r < 0)
		return r;
	lb_fault_server_place("process server, %s, epoch %" PRIu64 ": in the vault, still in the cache",
			      m->assigned.name, first->epoch);
	lb_join_confirmed(m, &pack.last, &lb_journal_writer_tail(m->writer)->digest, pack.point_ns);
	lb_throttle_spend(m, pack.bytes.size_bytes);
	first_point = pack.point_ns != 0 && !m->point_since_epoch;
	m->point_since_epoch = m->point_since_epoch || pack.point_ns != 0;
	if (++m->objects_since_checkpoint >= LB_UPLOAD_CHECKPOINT_OBJECTS || first_point)
		checkpoint(m, first_point);
	return 0;
}

static bool must_stop(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->process->lock);

	return m->gone || m->process->stopping;
}

static int drain(struct lb_machine *m, bool *ret_damaged)
{
	struct lb_position first;
	uint64_t seq_end;
	int64_t wait_mono_ns;
	bool retire;
	int r;

	for (unsigned int n = 0; next_work(m, &first, &seq_end, &retire) && !must_stop(m); n++) {
		if (n == LB_UPLOAD_ROUND_OBJECTS_MAX) {
			lb_schedule(m, lb_mono_ns(m->process->env));
			return 0;
		}
		wait_mono_ns = retire ? 0 : lb_throttle_wait(m);
		if (wait_mono_ns != 0) {
			lb_schedule(m, wait_mono_ns);
			return 0;
		}
		r = retire ? retire_epoch(m, first.epoch) : send_pack(m, &first, seq_end, ret_damaged);
		if (r < 0)
			return r;
		m->conflicts = 0;
	}
	return 0;
}

/* ---- when it fails ------------------------------------------------------------------------------------ */

static void back_off(struct lb_machine *m)
{
	struct lb_env *env = m->process->env;
	int64_t ms = LB_UPLOAD_BACKOFF_MS_MIN;
	uint32_t random = 0;

	for (unsigned int i = 1; i < m->failures && ms < LB_UPLOAD_BACKOFF_MS_MAX; i++)
		ms *= 2;
	ms = LB_MIN(ms, (int64_t)LB_UPLOAD_BACKOFF_MS_MAX);
	env->ops->random(env, &random, sizeof(random));
	ms = ms / 2 + (int64_t)(random % (uint64_t)(ms / 2 + 1));
	lb_schedule_not_before(m, lb_mono_ns(env) + ms * LB_NS_PER_MS);
}

static void note_failure(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	snprintf(m->error, sizeof(m->error), "%.500s", lb_err_text());
	if (!m->failing)
		lb_warning("machine %s: nothing goes into the vault for now, it is tried again: %s", m->assigned.name,
			   m->error);
	m->failing = true;
}

static void note_success(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	m->failures = 0;
	m->error[0] = '\0';
	if (m->failing)
		lb_notice("machine %s: the vault takes its journal again", m->assigned.name);
	m->failing = false;
}

static void failed(struct lb_machine *m, int r, bool damaged)
{
	/* another attempt may have got there before; only a conflict that stays is one */
	if (r == -EEXIST && ++m->conflicts < LB_UPLOAD_CONFLICTS_MAX)
		r = -EAGAIN;
	if (r == -ESTALE || r == -EEXIST) {
		lb_machine_stop(m, r == -ESTALE ? LB_MACHINE_FENCED : LB_MACHINE_DIVERGED);
		return;
	}
	note_failure(m);
	m->failures++;
	if (m->writer != NULL)
		lb_journal_writer_free(lb_steal_ptr(m->writer));
	if (damaged) {
		pthread_mutex_lock(&m->lock);
		m->state = LB_MACHINE_OPENING;
		pthread_mutex_unlock(&m->lock);
	}
	back_off(m);
}

/* What is here now is what an order to flush is about; what comes later does not hold its answer up. */
static void take_flush(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	if (m->flush_ns >= m->assigned.flush_ns)
		return;
	m->flush_ns = m->assigned.flush_ns;
	m->flush_to = m->durable.last;
}

static void run_round(struct lb_machine *m)
{
	enum lb_machine_state state;
	bool unfence, damaged = false;
	int r = 0;

	pthread_mutex_lock(&m->lock);
	state = m->state;
	unfence = m->unfence;
	pthread_mutex_unlock(&m->lock);
	if (unfence)
		r = lb_join_resume(m);
	else if (state == LB_MACHINE_FENCED || state == LB_MACHINE_DIVERGED)
		return;
	else if (state == LB_MACHINE_OPENING)
		r = lb_join(m);
	else if (m->writer == NULL)
		r = lb_join_again(m);
	if (r == 0) {
		take_flush(m);
		r = drain(m, &damaged);
	}
	if (must_stop(m))
		return;
	if (r < 0)
		failed(m, r, damaged);
	else
		note_success(m);
}

/* ---- workers ------------------------------------------------------------------------------------------ */

bool lb_upload_next(struct lb_process *p, int64_t *ret_next_mono_ns)
{
	struct lb_machine *m;

	switch (lb_schedule_take(p, &m, ret_next_mono_ns)) {
	case LB_DUE_MACHINE:
		run_round(m);
		lb_schedule_done(m);
		return true;
	case LB_DUE_BEATS:
		lb_schedule_beats_done(p, lb_mono_ns(p->env) + lb_beats_run(p));
		return true;
	case LB_DUE_NOTHING:
		break;
	}
	return false;
}

static bool stopping(struct lb_process *p)
{
	LB_LOCK_SCOPE(&p->lock);

	return p->stopping;
}

static void *work(void *arg)
{
	struct lb_process *p = arg;
	int64_t next_mono_ns;
	uint64_t count;

	while (!stopping(p)) {
		if (lb_upload_next(p, &next_mono_ns))
			continue;
		next_mono_ns = LB_MIN(next_mono_ns, lb_mono_ns(p->env) + WAIT_MAX_NS);
		p->env->ops->wait_until(p->env, next_mono_ns, p->wake_fd);
		if (stopping(p))
			break; /* and leave the wake-up to the others */
		if (read(p->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			break;
	}
	return NULL;
}

int lb_upload_start(struct lb_process *p, unsigned int workers, struct lb_upload_pool *ret_pool)
{
	int r;

	*ret_pool = (struct lb_upload_pool){.process = p};
	for (; ret_pool->n < LB_MIN(workers, (unsigned int)LB_UPLOAD_WORKERS_MAX); ret_pool->n++) {
		r = pthread_create(&ret_pool->threads[ret_pool->n], NULL, work, p);
		if (r != 0) {
			lb_upload_stop(ret_pool);
			return lb_fail(-r, "can't start an upload thread: %s", strerror(r));
		}
	}
	return 0;
}

void lb_upload_stop(struct lb_upload_pool *pool)
{
	struct lb_process *p = pool->process;

	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	lb_schedule_wake(p);
	for (unsigned int i = 0; i < pool->n; i++)
		pthread_join(pool->threads[i], NULL);
	pool->n = 0;
}
