/* SPDX-License-Identifier: Apache-2.0 */
/* Where our journal ends at the process server, what that means for what the capture holds, and how an epoch begins. */
#include "mobility/session_state.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"

#define DRAIN_MS 10000

/* Begins the segment that follows what is acknowledged. */
static int resume_at(struct lb_session *s, uint64_t ring_cut, uint64_t cursor)
{
	struct lb_capture_range range;
	uint64_t next;

	s->cut_position = ring_cut;
	s->cut_cursor = cursor;
	/* what was read and did not arrive is read again: then the scan isn't done, and its end is sampled anew */
	if (lb_capture_scan_next(s->capture, cursor, LB_SCAN_READ_BYTES, &range, &next) == 1)
		lb_note_set(s, LB_NOTE_SCAN_END, 0);
	s->began_ns = lb_now_ns(s->env);
	s->due_mono_ns = lb_mono_ns(s->env) + (int64_t)s->config.policy.consistency_interval_s * LB_NS_PER_S;
	s->doomed = false;
	if (s->o.mark != NULL)
		lb_mark_resume(s->o.mark, ring_cut);
	if (lb_cut_reset(s) < 0)
		return lb_session_refuse(s);
	if (lb_scan_done(s) && lb_note(s, LB_NOTE_POINTED))
		lb_session_turn(s, LB_SESSION_PROTECTED, "%s", "");
	else
		lb_session_turn(s, LB_SESSION_SCANNING, "%s", "");
	return LB_TURNED;
}

int lb_epoch_want(struct lb_session *s, bool everything, bool compare, const char *reason)
{
	s->want_everything = everything;
	s->want_compare = compare;
	s->want_reason = reason;
	s->announced = false;
	s->pending.set = false;
	lb_session_turn(s, LB_SESSION_NEW_EPOCH, "%s", reason);
	return LB_TURNED;
}

/*
 * The process server's journal ends before what it acknowledged: it lost its cache, or another one took over from the
 * vault. Everything sent after its end goes into the next scan set, beside what is dirty and what was not yet scanned.
 */
static int went_back(struct lb_session *s)
{
	const struct lb_durable *d = &s->durable;
	struct lb_capture_range range;
	uint64_t cursor = 0;

	if (!lb_confirm_covers(s->confirm, d->epoch, d->has_segment, d->seq))
		return lb_epoch_want(s, true, true, "the process server lost acknowledged data");
	lb_warning("the process server's journal ends at epoch %lu, segment %ld, before what it acknowledged: what it "
		   "lost is "
		   "scanned again",
		   (unsigned long)d->epoch, d->has_segment ? (long)d->seq : -1L);
	/* these marks may come twice, after a kill in between: they only ask for too much */
	while (lb_confirm_next(s->confirm, &cursor, &range.disk, &range.offset_bytes, &range.length_bytes) == 1)
		lb_capture_scan_mark(s->capture, &range);
	return lb_epoch_want(s, false, false, "the process server lost acknowledged data");
}

/* A segment that we finished before the connection broke: it arrived, or it is next, or it is void. */
static int settle_pending(struct lb_session *s)
{
	const struct lb_durable *d = &s->durable;
	struct lb_pending *p = &s->pending;

	if (!p->set)
		return 0;
	if (d->has_segment && d->seq == p->seq && lb_equal_ct(&d->digest, &p->digest, sizeof(p->digest))) {
		lb_ship_acknowledged(s, &(struct lb_confirmed){0});
		return LB_TURNED;
	}
	p->set = (d->has_segment ? d->seq + 1 : 0) == p->seq && lb_equal_ct(&d->digest, &p->prev, sizeof(p->prev));
	if (p->set) {
		/* sent again as it is */
		lb_session_turn(s, lb_note(s, LB_NOTE_POINTED) ? LB_SESSION_PROTECTED : LB_SESSION_SCANNING, "%s", "");
		return LB_TURNED;
	}
	return 0;
}

/* Our epoch, our capture: goes on exactly where the process server stands, so no segment is ever cut in two ways. */
static int go_on(struct lb_session *s)
{
	const struct lb_durable *d = &s->durable;
	const bool same_run = s->epoch == d->epoch;
	uint64_t cursor = d->has_segment ? d->scan_cursor : 0, ring_cut = d->ring_cut, limit;
	bool in_debt;

	s->epoch = d->epoch;
	if (same_run) {
		int r = settle_pending(s);

		if (r != 0)
			return r < 0 ? r : LB_TURNED;
	}
	s->pending.set = false;
	s->next_seq = d->has_segment ? d->seq + 1 : 0;
	s->prev = d->digest;
	if (!d->has_segment)
		ring_cut = lb_capture_consumer(s->capture);
	else if (lb_capture_acknowledge(s->capture, ring_cut) < 0)
		return lb_epoch_want(s, true, true, "the process server's position is not one of this capture's ring");
	if (d->has_segment) {
		lb_scan_clear(s, 0, cursor);
		lb_note_set(s, LB_NOTE_ACKED, s->next_seq);
	}
	lb_capture_limit(s->capture, &limit, &in_debt);
	if (in_debt && lb_scan_done(s) && ring_cut == limit)
		return lb_epoch_want(s, false, false, "writes were lost");
	return resume_at(s, ring_cut, cursor);
}

static bool is_ours(const struct lb_session *s, const struct lb_durable *d)
{
	return lb_uuid_equal(&d->instance, &s->info.instance);
}

/* Another capture has written under our identity after we did. */
static int taken_over(struct lb_session *s, const struct lb_durable *d)
{
	char other[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&d->instance, other);
	lb_fail(-EEXIST,
		"another agent writes to this machine's journal: epoch %lu was begun by capture %s while this one held "
		"epoch %lu; "
		"stop the clone or the double, then run `lifeboat machine resync`",
		(unsigned long)d->epoch, other, (unsigned long)lb_note(s, LB_NOTE_EPOCH));
	return lb_session_refuse(s);
}

/* An operator's resync is newer than the one last obeyed. */
static bool resync_asked(const struct lb_session *s)
{
	uint64_t obeyed = lb_note(s, LB_NOTE_RESYNC);

	return obeyed != 0 && s->config.resync_generation > obeyed - 1;
}

int lb_epoch_adopt(struct lb_session *s, const struct lb_durable *durable)
{
	const uint64_t epoch = lb_note(s, LB_NOTE_EPOCH);
	const bool whole = epoch != 0 && lb_note(s, LB_NOTE_GENERATION) == lb_capture_generation(s->capture) &&
			   lb_capture_mode(s->capture) != LB_CAPTURE_OFF;
	struct lb_durable d = *durable;
	struct lb_capture_info info;

	lb_capture_info(s->capture, &info);
	s->durable = d;
	if (!d.known || d.epoch == 0)
		return lb_epoch_want(s, true, false,
				     epoch == 0 ? "initial replication" : "the vault knows nothing of this machine");
	if (epoch == 0 && lb_note(s, LB_NOTE_INTENT) == 0)
		return lb_epoch_want(s, true, true,
				     info.resumed ? "the capture was never begun" : "capture began anew");
	if (resync_asked(s))
		return lb_epoch_want(s, true, true, "an operator asked for a resync");
	if (d.epoch == lb_note(s, LB_NOTE_INTENT) && d.epoch != epoch && is_ours(s, &d) && !d.has_segment) {
		/* announced, and then we died before or within the flip */
		lb_epoch_want(s, lb_note(s, LB_NOTE_EVERYTHING) != 0, lb_note(s, LB_NOTE_COMPARE) != 0,
			      "an epoch was begun by halves");
		s->announced = true;
		return LB_TURNED;
	}
	if (epoch == 0)
		return lb_epoch_want(s, true, true, "capture began anew");
	if (d.epoch > epoch)
		return taken_over(s, &d);
	if (d.epoch < epoch || !is_ours(s, &d) || (d.has_segment ? d.seq + 1 : 0) < lb_note(s, LB_NOTE_ACKED) ||
	    (d.has_segment && d.ring_cut < lb_capture_consumer(s->capture)))
		return went_back(s);
	if (!whole || info.epoch_pending)
		return lb_epoch_want(s, false, false, "an epoch was begun by halves");
	return go_on(s);
}

/* ---- beginning one ---------------------------------------------------------------------------------- */

static int disk_json(const struct lb_session *s, unsigned int i, json_t *list)
{
	json_t *disk = json_object();

	if (disk == NULL || json_array_append_new(list, disk) < 0)
		return -ENOMEM;
	if (lb_json_set_u64(disk, "id", s->disk_ids[i]) < 0 || lb_json_set_str(disk, "name", s->disks[i].name) < 0 ||
	    lb_json_set_u64(disk, "size_bytes", s->disks[i].size_bytes) < 0 ||
	    lb_json_set_u64(disk, "sector_bytes", s->disks[i].logical_block_bytes) < 0)
		return -ENOMEM;
	return 0;
}

static int epoch_json(const struct lb_session *s, uint64_t epoch, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	json_t *disks = json_array();

	if (body == NULL || disks == NULL || json_object_set_new(body, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory for the announcement of an epoch");
	for (unsigned int i = 0; i < s->n_disks; i++)
		if (disk_json(s, i, disks) < 0)
			return lb_fail(-ENOMEM, "out of memory for the announcement of an epoch");
	if (lb_json_set_u64(body, "epoch", epoch) < 0 || lb_json_set_uuid(body, "instance", &s->info.instance) < 0 ||
	    lb_json_set_str(body, "hardware", s->o.hardware) < 0 ||
	    lb_json_set_str(body, "reason", s->want_reason) < 0 ||
	    lb_json_set_u64(body, "prev_epoch", s->durable.last_epoch) < 0 ||
	    lb_json_set_u64(body, "prev_seq", s->durable.last_seq) < 0 ||
	    lb_json_set_digest(body, "prev_digest", &s->durable.digest) < 0 ||
	    lb_json_set_u64(body, "ring_cut", lb_capture_consumer(s->capture)) < 0)
		return lb_fail(-ENOMEM, "out of memory for the announcement of an epoch");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

static int announce(struct lb_session *s, uint64_t epoch)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = epoch_json(s, epoch, &body);
	if (r < 0)
		return lb_session_refuse(s);
	/* what is intended must be known to whoever comes after us before anybody else hears of it */
	lb_note_set(s, LB_NOTE_EVERYTHING, s->want_everything);
	lb_note_set(s, LB_NOTE_COMPARE, s->want_compare);
	lb_note_set(s, LB_NOTE_INTENT, epoch);
	r = lb_link_epoch(&s->link, body);
	if (r < 0)
		return lb_session_link_failed(s, r);
	s->announced = true;
	s->durable.epoch = epoch;
	s->durable.has_segment = false;
	s->durable.known = true;
	s->durable.instance = s->info.instance;
	return 0;
}

/* Writes from before the attach may still be on their way, unseen: nothing is scanned until the queues were empty once.
 */
static int drain_once(struct lb_session *s)
{
	for (unsigned int i = 0; i < s->n_disks && lb_note(s, LB_NOTE_DRAINED) == 0; i++) {
		if (lb_capture_drain(s->capture, i, DRAIN_MS) < 0) {
			lb_session_turn(s, LB_SESSION_NEW_EPOCH, "disk %s: %s", s->disks[i].name, lb_err_text());
			lb_session_back_off(s, 1);
			return LB_TURNED;
		}
	}
	lb_note_set(s, LB_NOTE_DRAINED, 1);
	return 0;
}

static void begun(struct lb_session *s, uint64_t epoch, uint32_t generation)
{
	if (lb_note(s, LB_NOTE_EPOCH) != 0 && !lb_note(s, LB_NOTE_POINTED)) {
		lb_note_set(s, LB_NOTE_PASSES, lb_note(s, LB_NOTE_PASSES) + 1);
		if (lb_note(s, LB_NOTE_PASSES) == 1)
			lb_warning("epoch %lu ended before its first recovery point (%s); the next one comes when a "
				   "scan fits "
				   "between losses",
				   (unsigned long)lb_note(s, LB_NOTE_EPOCH), s->want_reason);
	}
	lb_note_set(s, LB_NOTE_SCAN_END, 0);
	lb_note_set(s, LB_NOTE_SCAN_TOTAL, lb_capture_scan_bytes(s->capture));
	lb_note_set(s, LB_NOTE_ACKED, 0);
	lb_note_set(s, LB_NOTE_SUSPECT, 0);
	lb_note_set(s, LB_NOTE_POINTED, 0);
	/* all zeroes before: nothing was ever sent */
	lb_note_set(s, LB_NOTE_BLANK, s->durable.last_epoch == 0);
	if (s->want_everything)
		lb_note_set(s, LB_NOTE_RESYNC, s->config.resync_generation + 1);
	if (s->want_everything)
		lb_confirm_begin(s->confirm, epoch);
	lb_note_set(s, LB_NOTE_GENERATION, generation);
	lb_note_set(s, LB_NOTE_EPOCH, epoch);
	lb_log(lb_note(s, LB_NOTE_PASSES) > 0 ? LB_LOG_DEBUG : LB_LOG_NOTICE, "epoch %lu begins: %s; %lu MiB to scan",
	       (unsigned long)epoch, s->want_reason, (unsigned long)(lb_note(s, LB_NOTE_SCAN_TOTAL) >> 20));
}

int lb_epoch_begin(struct lb_session *s)
{
	const uint64_t epoch = s->announced ? s->durable.epoch : s->durable.epoch + 1;
	uint64_t position, skipped;
	uint32_t generation;
	int r;

	if (lb_mono_ns(s->env) < s->retry_mono_ns)
		return LB_TURNED;
	if (lb_capture_skipped(s->capture, &skipped) == -ENODEV)
		return lb_attach_gone(s);
	if (!s->announced) {
		r = announce(s, epoch);
		if (r != 0)
			return r;
	}
	r = lb_capture_begin_epoch(s->capture, s->want_everything, &generation, &position);
	if (r == -EAGAIN) {
		lb_session_turn(s, LB_SESSION_NEW_EPOCH, "%s", lb_err_text());
		lb_session_back_off(s, 0);
		return LB_TURNED;
	}
	if (r < 0)
		return lb_session_refuse(s);
	r = drain_once(s);
	if (r != 0)
		return r;
	r = lb_resync_key(s);
	if (r < 0)
		return lb_session_refuse(s);
	begun(s, epoch, generation);
	s->backoff_ms = 0;
	s->epoch = epoch;
	s->next_seq = 0;
	s->prev = s->durable.digest;
	s->announced = false;
	return resume_at(s, position, 0);
}
