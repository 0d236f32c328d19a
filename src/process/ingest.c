/* SPDX-License-Identifier: Apache-2.0 */
#include "process/ingest.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "process/process.h"
#include "process/record.h"
#include "process/schedule.h"

#define CLOCK_BACK_NS (5 * LB_NS_PER_S) /* of our clock behind the last receipt that is worth a line */

struct ingest {
	struct lb_machine *m;
	const struct lb_hrl_segment *segment;
	const struct lb_hrl_header *header;
	char name[LB_PROCESS_NAME_BYTES];
	struct lb_policy policy;
	int64_t cut_ns, receipt_ns;
	uint64_t cached_bytes; /* of the machine */
	size_t plain_bytes;
	bool again;
};

/* With the machine's lock held. */
static int allowed(const struct lb_machine *m)
{
	if (m->assigned.fenced)
		return lb_fail(
			-EACCES,
			"machine %s was failed over: its double has taken its place and nothing more is taken from it; "
			"reprotect it, or run `lifeboat machine resync %s`",
			m->assigned.name, m->assigned.name);
	if (!m->assigned.enabled)
		return lb_fail(-EACCES, "replication of machine %s is disabled; run `lifeboat machine protect %s`",
			       m->assigned.name, m->assigned.name);
	if (m->assigned.handover)
		return lb_fail(-EAGAIN, "machine %s moves to another process server; its agent goes there by itself",
			       m->assigned.name);
	if (m->state == LB_MACHINE_OPENING)
		return lb_fail(-EAGAIN, "the journal of machine %s is being opened%s%s", m->assigned.name,
			       m->error[0] != '\0' ? ": " : "", m->error);
	if (m->state != LB_MACHINE_READY)
		return lb_fail(-EACCES, "%s", m->error);
	return 0;
}

int lb_ingest_allowed(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	return allowed(m);
}

/* ---- is it the one that comes next? -------------------------------------------------------------------- */

static int check_instance(const struct lb_machine *m, const struct lb_hrl_header *h)
{
	const struct lb_epoch *e = m->newest;
	char theirs[LB_UUID_TEXT_BYTES], ours[LB_UUID_TEXT_BYTES], when[LB_TIME_TEXT_BYTES];

	if (lb_uuid_equal(&h->instance, &m->durable.instance))
		return 0;
	lb_uuid_format(&h->instance, theirs);
	lb_uuid_format(&m->durable.instance, ours);
	return lb_fail(-ESTALE,
		       "machine %s was continued by capture instance %s in epoch %" PRIu64
		       " (since %s): instance %s writes no more; "
		       "if two agents run with this identity, stop one of them",
		       m->assigned.name, ours, m->durable.epoch,
		       e != NULL && !e->record.lost ? lb_time_format(e->record.begun_ns, when) : "an unknown time",
		       theirs);
}

static int check_next(const struct lb_machine *m, const struct lb_hrl_header *h)
{
	const struct lb_durable *d = &m->durable;
	const char *name = m->assigned.name;

	if (h->epoch != d->epoch)
		return lb_fail(-ESTALE, "machine %s is in epoch %" PRIu64 ", not %" PRIu64, name, d->epoch, h->epoch);
	if (m->newest == NULL || m->newest->record.epoch != d->epoch)
		return lb_fail(-ESTALE, "epoch %" PRIu64 " of machine %s has ended; begin the next", d->epoch, name);
	if (h->seq != d->next_seq)
		return lb_fail(-ESTALE, "machine %s, epoch %" PRIu64 ": segment %" PRIu64 " comes next, not %" PRIu64,
			       name, d->epoch, d->next_seq, h->seq);
	if (!lb_equal_ct(&h->prev_digest, &d->digest, sizeof(d->digest)))
		return lb_fail(-EEXIST,
			       "machine %s, epoch %" PRIu64 ": segment %" PRIu64
			       " does not continue the segment before it (their "
			       "digests differ)",
			       name, d->epoch, h->seq);
	if (m->newest->next_seq - m->newest->first_seq >= LB_SEGMENTS_CACHED_MAX)
		return lb_fail(
			-EAGAIN,
			"%d segments of machine %s wait for the vault already; replication continues by itself when "
			"it has caught up",
			LB_SEGMENTS_CACHED_MAX, name);
	return 0;
}

static bool is_last(const struct lb_durable *d, const struct lb_hrl_header *h)
{
	return d->last.epoch != 0 && h->epoch == d->last.epoch && h->seq == d->last.seq && d->epoch == d->last.epoch;
}

static int check_disks(const struct lb_machine *m, const struct lb_hrl_segment *s)
{
	const struct lb_process_disks *disks = &m->newest->record.disks;
	const struct lb_hrl_extent *extents;
	const struct lb_process_disk *disk = NULL;
	uint32_t n;

	extents = lb_hrl_extents(s, &n);
	for (uint32_t i = 0; i < n; i++) {
		const struct lb_hrl_extent *x = &extents[i];

		if (disk == NULL || disk->id != x->disk)
			disk = lb_disks_find(disks, x->disk);
		if (disk == NULL)
			return lb_fail(-EBADMSG, "machine %s has no disk with id %u in epoch %" PRIu64,
				       m->assigned.name, x->disk, m->newest->record.epoch);
		if (x->offset_bytes > disk->size_bytes || x->length_bytes > disk->size_bytes - x->offset_bytes)
			return lb_fail(
				-EBADMSG,
				"machine %s, disk %s: a write at byte %" PRIu64 " lies past its known size of %" PRIu64
				" bytes; if the disk has grown, run `lifeboat machine protect %s` again",
				m->assigned.name, disk->name, x->offset_bytes, disk->size_bytes, m->assigned.name);
	}
	return 0;
}

int64_t lb_ingest_cut_time(int64_t now_ns, int64_t cut_ns)
{
	return cut_ns > 0 ? LB_MIN(cut_ns, now_ns) : now_ns;
}

/* Clamped: never below an earlier receipt, whatever our clock does. With the machine's lock held. */
static int64_t receipt(struct lb_machine *m, int64_t cut_ns)
{
	int64_t now = lb_now_ns(m->process->env), last = m->durable.receipt_ns;
	char a[LB_TIME_TEXT_BYTES], b[LB_TIME_TEXT_BYTES];

	if (last - now > CLOCK_BACK_NS && !m->clock_back)
		lb_warning("machine %s: our clock says %s, but its last segment came at %s: receipts stand still until "
			   "the clock "
			   "has passed that",
			   m->assigned.name, lb_time_format(now, a), lb_time_format(last, b));
	m->clock_back = last - now > CLOCK_BACK_NS;
	return LB_MAX(lb_ingest_cut_time(now, cut_ns), last + 1);
}

static int judge(struct ingest *in)
{
	struct lb_machine *m = in->m;
	int r;
	LB_LOCK_SCOPE(&m->lock);

	r = allowed(m);
	if (r < 0)
		return r;
	if (is_last(&m->durable, in->header)) {
		in->again = lb_equal_ct(lb_hrl_digest(in->segment), &m->durable.digest, sizeof(m->durable.digest));
		return in->again
			       ? 0
			       : lb_fail(-EEXIST,
					 "machine %s, epoch %" PRIu64 ": another segment %" PRIu64 " was acknowledged "
					 "before",
					 m->assigned.name, in->header->epoch, in->header->seq);
	}
	if (in->header->epoch <= m->durable.epoch) {
		r = check_instance(m, in->header);
		if (r < 0)
			return r;
	}
	r = check_next(m, in->header);
	if (r == 0)
		r = check_disks(m, in->segment);
	if (r < 0)
		return r;
	in->policy = m->assigned.policy;
	memcpy(in->name, m->assigned.name, sizeof(in->name));
	in->receipt_ns = receipt(m, in->cut_ns);
	in->cached_bytes = m->cached_bytes;
	m->ingesting = true;
	return 0;
}

/* ---- durable ------------------------------------------------------------------------------------------- */

/* After it is durable: what the machine's journal now is. */
static void commit(struct ingest *in, size_t sealed_bytes)
{
	const struct lb_hrl_header *h = in->header;
	struct lb_machine *m = in->m;
	int64_t due = lb_mono_ns(m->process->env), interval = (int64_t)in->policy.upload_interval_s * LB_NS_PER_S;

	pthread_mutex_lock(&m->lock);
	m->durable.last = (struct lb_position){.epoch = h->epoch, .seq = h->seq};
	m->durable.next_seq = h->seq + 1;
	m->durable.digest = *lb_hrl_digest(in->segment);
	m->durable.ring_cut = h->ring_cut;
	m->durable.scan_cursor = h->scan_cursor;
	m->durable.receipt_ns = in->receipt_ns;
	if ((h->flags & LB_HRL_POINT) != 0)
		m->durable.point_ns = in->receipt_ns;
	m->newest->next_seq = h->seq + 1;
	m->cached_bytes += lb_process_cache_rounded(sealed_bytes);
	m->figures.plain_bytes += in->plain_bytes;
	m->figures.sealed_bytes += sealed_bytes;
	m->figures.churn_bytes += in->plain_bytes;
	if (m->cached_bytes < LB_PACK_BYTES_NOMINAL)
		due += interval;
	pthread_mutex_unlock(&m->lock);
	lb_schedule(m, due);
}

static int store(struct ingest *in, const struct lb_buf *sealed)
{
	const struct lb_position at = {.epoch = in->header->epoch, .seq = in->header->seq};
	struct lb_process_cache *cache = &in->m->process->cache;
	int r;

	r = lb_process_cache_admit(cache, in->cached_bytes, sealed->size_bytes);
	if (r < 0)
		return lb_wrap(r, "machine %s", in->name);
	r = lb_process_cache_segment_put(cache, in->m, &at, sealed->data, sealed->size_bytes);
	if (r < 0) {
		lb_process_cache_give_back(cache, sealed->size_bytes);
		return lb_wrap(r, "machine %s, epoch %" PRIu64 ", segment %" PRIu64, in->name, at.epoch, at.seq);
	}
	commit(in, sealed->size_bytes);
	return 0;
}

static int seal_and_store(struct ingest *in)
{
	struct lb_process *p = in->m->process;
	_cleanup_(lb_gate_passp) struct lb_gate_pass pass = {.bytes = in->plain_bytes};
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t salt[LB_SALT_BYTES];
	int r;

	lb_gate_enter(&p->gate, pass.bytes);
	pass.gate = &p->gate;
	r = lb_vault_key_to_seal(lb_process_vault(p), &in->m->id, salt, &key);
	if (r < 0)
		return lb_wrap(r, "machine %s", in->name);
	r = lb_hrl_seal(in->segment, &key, in->receipt_ns, salt, (int)in->policy.zstd_level, &sealed);
	if (r < 0)
		return lb_wrap(r, "machine %s", in->name);
	return store(in, &sealed);
}

static int check_identity(const struct lb_machine *m, const struct lb_hrl_header *h, uint64_t epoch, uint64_t seq)
{
	char theirs[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&h->machine, theirs);
	if (!lb_uuid_equal(&h->machine, &m->id))
		return lb_fail(-EACCES, "machine %s sent a segment of machine %s", m->id_text, theirs);
	if (!lb_uuid_equal(&h->vault, lb_vault_id(lb_process_vault(m->process))))
		return lb_fail(-EBADMSG, "machine %s sent a segment for another vault", m->id_text);
	if (h->epoch != epoch || h->seq != seq)
		return lb_fail(-EBADMSG,
			       "the segment says epoch %" PRIu64 ", segment %" PRIu64 "; it was sent as %" PRIu64
			       ", %" PRIu64,
			       h->epoch, h->seq, epoch, seq);
	if (h->receipt_ns != 0)
		return lb_fail(-EBADMSG, "a segment that comes in can't have a time of receipt");
	return 0;
}

#ifdef LB_FAULT_INJECTION
/* A file in the cache's folder asks for it, once: durable, and nobody is told. */
static void die_unacknowledged(struct lb_process_cache *cache)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/die-unacknowledged", cache->folder) < PATH_MAX &&
	    cache->env->ops->unlink(cache->env, path) == 0)
		raise(SIGKILL);
}
#endif

static void ended(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	m->ingesting = false;
}

int lb_ingest(struct lb_machine *m, uint64_t epoch, uint64_t seq, int64_t cut_ns, const void *plain, size_t size_bytes)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *segment = NULL;
	struct ingest in = {.m = m, .cut_ns = cut_ns, .plain_bytes = size_bytes};
	int r;

	r = lb_ingest_allowed(m);
	if (r < 0)
		return r;
	r = lb_hrl_open_plain(plain, size_bytes, &segment);
	if (r < 0)
		return lb_wrap(r, "machine %s, epoch %" PRIu64 ", segment %" PRIu64, m->id_text, epoch, seq);
	in.segment = segment;
	in.header = lb_hrl_header(segment);
	r = check_identity(m, in.header, epoch, seq);
	if (r < 0)
		return r;
	LB_LOCK_SCOPE(&m->order);
	r = judge(&in);
	if (r < 0 || in.again)
		return r;
	r = seal_and_store(&in);
#ifdef LB_FAULT_INJECTION
	if (r == 0)
		die_unacknowledged(&m->process->cache);
#endif
	if (r == 0)
		lb_fault_server_place("process server, %s, epoch %" PRIu64 ": %s is durable, not acknowledged", in.name,
				      epoch, (in.header->flags & LB_HRL_POINT) != 0 ? "a point" : "a part of the scan");
	ended(m);
	return r;
}
