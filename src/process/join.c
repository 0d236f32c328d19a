/* SPDX-License-Identifier: Apache-2.0 */
#include "process/join.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "process/process.h"
#include "process/record.h"
#include "vault/points.h"

/* The journal as it is followed from the vault's tail through the cache. */
struct join {
	struct lb_machine *m;
	struct lb_process_cache *cache;
	struct lb_vault *vault;
	char name[LB_PROCESS_NAME_BYTES];
	struct lb_journal_tail tail;
	struct lb_durable durable;
	struct lb_epoch *oldest, *newest;
	uint32_t n_epochs, put_aside;
	uint64_t cached_bytes;
	bool broken; /* what comes now continues nothing */
	bool taken_over;
	char damage[LB_MACHINE_ERROR_BYTES];
};

static void join_release(struct join *j)
{
	while (j->oldest != NULL) {
		struct lb_epoch *e = j->oldest;

		j->oldest = e->newer;
		free(e);
	}
}

static uint64_t newest_in_vault(const struct lb_journal_tail *t)
{
	return LB_MAX(t->epoch_newest, LB_MAX(t->position.epoch, t->epoch_open));
}

/* For an epoch that has something to come: we seal one only when the next is in our cache and nothing is left of it. */
static bool sealed_by_other(const struct lb_journal_tail *t, uint64_t epoch)
{
	return t->epoch_open == 0 && newest_in_vault(t) >= epoch;
}

static int add_epoch(struct join *j, const struct lb_epoch_record *record)
{
	struct lb_epoch *e = calloc(1, sizeof(*e));

	if (e == NULL)
		return lb_fail(-ENOMEM, "out of memory for epoch %" PRIu64, record->epoch);
	e->record = *record;
	e->first_seq = e->next_seq = j->durable.next_seq;
	if (j->newest != NULL)
		j->newest->newer = e;
	else
		j->oldest = e;
	j->newest = e;
	j->n_epochs++;
	return 0;
}

/* The vault knows of an epoch whose record the cache has lost. */
static int add_lost_epoch(struct join *j)
{
	struct lb_epoch_record record = {.epoch = j->durable.epoch, .instance = j->durable.instance, .lost = true};

	pthread_mutex_lock(&j->m->lock);
	record.disks = j->m->assigned.disks;
	pthread_mutex_unlock(&j->m->lock);
	return add_epoch(j, &record);
}

static void start_at_tail(struct join *j)
{
	const struct lb_journal_tail *t = &j->tail;
	struct lb_durable *d = &j->durable;

	*d = (struct lb_durable){
		.epoch = newest_in_vault(t),
		.last = t->position,
		.digest = t->digest,
		.instance = t->instance,
		.ring_cut = t->ring_cut,
		.scan_cursor = t->scan_cursor,
		.receipt_ns = t->receipt_ns,
	};
	if (d->epoch != 0 && d->epoch == t->position.epoch)
		d->next_seq = t->position.seq + 1;
	if (t->position.epoch != 0 && (t->flags & LB_HRL_POINT) != 0)
		d->point_ns = t->receipt_ns;
}

/* ---- one file of the cache after the other ------------------------------------------------------------- */

static void put_aside(struct join *j, const struct lb_process_cache_file *file)
{
	if (!j->broken)
		snprintf(j->damage, sizeof(j->damage),
			 "the cache lost acknowledged data from epoch %" PRIu64 ", segment %" PRIu64 " on: %.350s",
			 file->at.epoch, file->at.seq, lb_err_text());
	j->broken = true;
	j->put_aside++;
	if (lb_process_cache_put_aside(j->cache, j->m, file) < 0)
		lb_warning("machine %s: %s", j->name, lb_err_text());
}

static int take_record(struct join *j, uint64_t epoch)
{
	struct lb_durable *d = &j->durable;
	struct lb_epoch_record record;
	int r;

	r = lb_record_get(j->cache, j->vault, j->m, epoch, &record);
	if (r < 0)
		return r;
	if (epoch == d->epoch) {
		if (j->tail.position.epoch == epoch && !lb_uuid_equal(&record.instance, &d->instance))
			return lb_fail(-EBADMSG, "the vault's epoch %" PRIu64 " was begun by another instance", epoch);
		d->instance = record.instance;
		return add_epoch(j, &record);
	}
	if (epoch != d->epoch + 1)
		return lb_fail(-EBADMSG, "epoch %" PRIu64 " follows epoch %" PRIu64, epoch, d->epoch);
	if (!lb_equal_ct(&record.prev_digest, &d->digest, sizeof(d->digest)))
		return lb_fail(-EBADMSG, "epoch %" PRIu64 " does not continue what is there before it", epoch);
	d->epoch = epoch;
	d->next_seq = 0;
	d->instance = record.instance;
	d->ring_cut = record.ring_cut;
	d->scan_cursor = 0;
	return add_epoch(j, &record);
}

static int open_head(struct join *j, const struct lb_position *at, struct lb_hrl_segment **ret_segment,
		     struct lb_buf *head, uint64_t *ret_size_bytes)
{
	struct lb_hrl_header expect = {
		.vault = *lb_vault_id(j->vault), .machine = j->m->id, .epoch = at->epoch, .seq = at->seq};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	int r;

	r = lb_process_cache_segment_head(j->cache, j->m, at, head, ret_size_bytes);
	if (r < 0)
		return r;
	r = head->size_bytes < LB_HRL_HEADER_BYTES
		    ? lb_fail(-EBADMSG, "a segment of %zu bytes in the cache is none", head->size_bytes)
		    : lb_vault_key_to_open(j->vault, &j->m->id, lb_hrl_sealed_salt(head->data), &key);
	return r < 0 ? r : lb_hrl_open_sealed(&key, &expect, head->data, head->size_bytes, ret_segment);
}

static int take_segment(struct join *j, const struct lb_position *at)
{
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_durable *d = &j->durable;
	const struct lb_hrl_header *h;
	uint64_t size_bytes;
	int r;

	if (at->epoch != d->epoch || at->seq != d->next_seq)
		return lb_fail(-EBADMSG, "segment %" PRIu64 " of epoch %" PRIu64 " should come next", d->next_seq,
			       d->epoch);
	if (j->newest == NULL || j->newest->record.epoch != d->epoch) {
		r = add_lost_epoch(j);
		if (r < 0)
			return r;
	}
	r = open_head(j, at, &s, &head, &size_bytes);
	if (r < 0)
		return r;
	h = lb_hrl_header(s);
	if (!lb_equal_ct(&h->prev_digest, &d->digest, sizeof(d->digest)) || !lb_uuid_equal(&h->instance, &d->instance))
		return lb_fail(-EBADMSG, "it does not continue the segment before it");
	d->last = *at;
	d->next_seq = at->seq + 1;
	d->digest = *lb_hrl_digest(s);
	d->ring_cut = h->ring_cut;
	d->scan_cursor = h->scan_cursor;
	d->receipt_ns = LB_MAX(d->receipt_ns, h->receipt_ns);
	if ((h->flags & LB_HRL_POINT) != 0)
		d->point_ns = h->receipt_ns;
	j->newest->next_seq = d->next_seq;
	j->cached_bytes += lb_process_cache_rounded(size_bytes);
	return 0;
}

static bool before_tail(const struct join *j, const struct lb_process_cache_file *file)
{
	const struct lb_position *t = &j->tail.position;

	if (file->record)
		return file->at.epoch < newest_in_vault(&j->tail);
	return file->at.epoch < t->epoch || (file->at.epoch == t->epoch && file->at.seq <= t->seq);
}

/* The vault has it. At the tail itself the two must be the same. */
static int drop_confirmed(struct join *j, const struct lb_process_cache_file *file)
{
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	uint64_t size_bytes;

	if (file->record)
		return lb_process_cache_record_remove(j->cache, j->m, file->at.epoch);
	if (file->at.epoch == j->tail.position.epoch && file->at.seq == j->tail.position.seq &&
	    open_head(j, &file->at, &s, &head, &size_bytes) == 0 &&
	    !lb_equal_ct(lb_hrl_digest(s), &j->tail.digest, sizeof(j->tail.digest)))
		return lb_fail(-EEXIST,
			       "the vault holds another segment %" PRIu64 " of epoch %" PRIu64
			       " than the cache: someone else wrote "
			       "this machine's journal; run `lifeboat machine resync %s` to go on from the vault",
			       file->at.seq, file->at.epoch, j->name);
	return lb_process_cache_segment_remove(j->cache, j->m, &file->at);
}

static bool is_damage(int r)
{
	return r == -EBADMSG || r == -EIO || r == -ENODATA || r == -EFBIG || r == -EMSGSIZE;
}

static int take_file(struct join *j, const struct lb_process_cache_file *file)
{
	int r;

	if (before_tail(j, file))
		return drop_confirmed(j, file);
	/* after a foreign seal nothing is ever offered: it stays where it is until an operator decides */
	if (!file->record && sealed_by_other(&j->tail, file->at.epoch))
		j->taken_over = true;
	if (j->taken_over)
		return 0;
	if (j->broken) {
		put_aside(j, file);
		return 0;
	}
	r = file->record ? take_record(j, file->at.epoch) : take_segment(j, &file->at);
	if (is_damage(r)) {
		put_aside(j, file);
		return 0;
	}
	return r;
}

static int follow(struct join *j)
{
	_cleanup_free_ struct lb_process_cache_file *files = NULL;
	size_t n;
	int r;

	r = lb_process_cache_scan(j->cache, j->m, &files, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = take_file(j, &files[i]);
		if (r < 0)
			return r;
	}
	if (j->newest != NULL && sealed_by_other(&j->tail, j->newest->record.epoch))
		j->taken_over = true;
	if (j->newest == NULL && j->tail.epoch_open != 0)
		return add_lost_epoch(j);
	return 0;
}

/* ---- the whole ---------------------------------------------------------------------------------------- */

static int open_writer(struct lb_machine *m, struct lb_journal_tail *ret_tail)
{
	int r;

	if (m->writer != NULL)
		lb_journal_writer_free(lb_steal_ptr(m->writer));
	r = lb_journal_writer_open(lb_process_vault(m->process), &m->id, &m->writer);
	if (r < 0)
		return r;
	*ret_tail = *lb_journal_writer_tail(m->writer);
	return 0;
}

static int64_t newest_point_ns(struct join *j)
{
	struct lb_point point;

	if (j->tail.position.epoch == 0)
		return 0;
	if ((j->tail.flags & LB_HRL_POINT) != 0)
		return j->tail.receipt_ns;
	return lb_point_find(j->vault, &j->m->id, "latest", &point) == 0 ? point.time_ns : 0;
}

static void publish(struct join *j, int64_t point_ns, int64_t beat_ns)
{
	struct lb_machine *m = j->m;
	LB_LOCK_SCOPE(&m->lock);

	while (m->oldest != NULL)
		lb_machine_epoch_pop(m);
	m->oldest = lb_steal_ptr(j->oldest);
	m->newest = lb_steal_ptr(j->newest);
	m->n_epochs = j->n_epochs;
	m->durable = j->durable;
	m->durable.point_ns = LB_MAX(j->durable.point_ns, point_ns);
	m->durable.receipt_ns = LB_MAX(j->durable.receipt_ns, beat_ns);
	m->cached_bytes = j->cached_bytes;
	m->vault = j->tail.position;
	m->vault_digest = j->tail.digest;
	m->vault_point_ns = point_ns;
	m->beat_vault_ns = beat_ns;
	memcpy(m->damage, j->damage, sizeof(m->damage));
	if (!j->taken_over) {
		m->state = LB_MACHINE_READY;
		m->error[0] = '\0';
	}
}

static int taken_over(const struct join *j)
{
	return lb_fail(
		-ESTALE,
		"another writer took machine %s over after epoch %" PRIu64 ", segment %" PRIu64
		": a failover, whose double has the machine's place, or another process server; if neither is wanted, "
		"run `lifeboat machine resync %s` to protect it again",
		j->name, j->tail.position.epoch, j->tail.position.seq, j->name);
}

int lb_join(struct lb_machine *m)
{
	_cleanup_(join_release) struct join j = {
		.m = m, .cache = &m->process->cache, .vault = lb_process_vault(m->process)};
	int64_t beat_ns = 0;
	int r;
	LB_LOCK_SCOPE(&m->order);

	pthread_mutex_lock(&m->lock);
	m->state = LB_MACHINE_OPENING;
	memcpy(j.name, m->assigned.name, sizeof(j.name));
	pthread_mutex_unlock(&m->lock);
	r = open_writer(m, &j.tail);
	if (r < 0)
		return r;
	start_at_tail(&j);
	r = follow(&j);
	if (r < 0)
		return r;
	if (j.tail.position.epoch != 0 && lb_heartbeat_get(j.vault, &m->id, &j.tail.position, &beat_ns) < 0)
		beat_ns = 0;
	if (j.put_aside > 0)
		lb_error("machine %s: %u files put aside as *.bad: %s", j.name, j.put_aside, j.damage);
	publish(&j, newest_point_ns(&j), beat_ns);
	return j.taken_over ? taken_over(&j) : 0;
}

void lb_join_confirmed(struct lb_machine *m, const struct lb_position *at, const struct lb_digest *digest,
		       int64_t point_ns)
{
	struct lb_process_cache *cache = &m->process->cache;
	struct lb_epoch *e = m->oldest;
	struct lb_position p = {.epoch = at->epoch};
	uint64_t size_bytes, done;

	pthread_mutex_lock(&m->lock);
	done = e != NULL && e->record.epoch == at->epoch ? LB_MIN(at->seq + 1, e->next_seq) : 0;
	p.seq = done > 0 ? e->first_seq : 0;
	if (done > 0)
		e->first_seq = done;
	m->vault = *at;
	m->vault_digest = *digest;
	m->vault_point_ns = LB_MAX(m->vault_point_ns, point_ns);
	pthread_mutex_unlock(&m->lock);
	for (; p.seq < done; p.seq++) {
		if (lb_process_cache_segment_size(cache, m, &p, &size_bytes) < 0 ||
		    lb_process_cache_segment_remove(cache, m, &p) < 0) {
			lb_warning("machine %s: %s", m->id_text, lb_err_text());
			continue;
		}
		pthread_mutex_lock(&m->lock);
		m->cached_bytes -= LB_MIN(lb_process_cache_rounded(size_bytes), m->cached_bytes);
		pthread_mutex_unlock(&m->lock);
	}
}

/* Whether the segment at which the vault now ends is ours. */
static int same_at(struct lb_machine *m, const struct lb_journal_tail *t)
{
	_cleanup_(join_release) struct join j = {
		.m = m, .cache = &m->process->cache, .vault = lb_process_vault(m->process)};
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	uint64_t size_bytes;
	int r;

	pthread_mutex_lock(&m->lock);
	pthread_mutex_unlock(&m->lock);
	r = open_head(&j, &t->position, &s, &head, &size_bytes);
	if (r == 0 && !lb_equal_ct(lb_hrl_digest(s), &t->digest, sizeof(t->digest)))
		r = -EEXIST;
	if (r == -ENOENT || r == -EEXIST)
		return lb_fail(-EEXIST,
			       "machine %s: the vault ends with another segment %" PRIu64 " of epoch %" PRIu64
			       " than was sent there",
			       m->id_text, t->position.seq, t->position.epoch);
	return r;
}

int lb_join_again(struct lb_machine *m)
{
	struct lb_journal_tail t;
	struct lb_position had;
	int r;

	r = open_writer(m, &t);
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	had = m->vault;
	pthread_mutex_unlock(&m->lock);
	if (m->oldest != NULL && sealed_by_other(&t, m->oldest->record.epoch) &&
	    (m->oldest->newer == NULL || m->oldest->next_seq > t.position.seq + 1))
		return lb_fail(-ESTALE, "another writer took machine %s over", m->id_text);
	if (t.position.epoch == had.epoch && (had.epoch == 0 || t.position.seq == had.seq))
		return 0;
	r = same_at(m, &t);
	if (r < 0)
		return r;
	lb_join_confirmed(m, &t.position, &t.digest, (t.flags & LB_HRL_POINT) != 0 ? t.receipt_ns : 0);
	return 0;
}

int lb_join_drop(struct lb_machine *m)
{
	struct lb_process_cache *cache = &m->process->cache;
	_cleanup_free_ struct lb_process_cache_file *files = NULL;
	size_t n;
	int r;

	r = lb_process_cache_scan(cache, m, &files, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = files[i].record ? lb_process_cache_record_remove(cache, m, files[i].at.epoch)
				    : lb_process_cache_segment_remove(cache, m, &files[i].at);
	if (r < 0)
		return r;
	if (n > 0)
		lb_notice(
			"machine %s goes on from the vault; %zu files of its cache, never to be offered, were dropped",
			m->id_text, n);
	return 0;
}

int lb_join_resume(struct lb_machine *m)
{
	int r;

	r = lb_join(m);
	if (r == -ESTALE || r == -EEXIST) {
		r = lb_join_drop(m);
		if (r == 0)
			r = lb_join(m);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&m->lock);
	m->unfence = false;
	pthread_mutex_unlock(&m->lock);
	return 0;
}
