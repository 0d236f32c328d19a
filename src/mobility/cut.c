/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

/* While a scan runs, captured data leaves it this share of a segment, so that both get through. */
#define CAPTURED_BYTES_WHILE_SCANNING (LB_HRL_DATA_BYTES_NOMINAL / 4 * 3)

int lb_cut_reset(struct lb_session *s)
{
	if (s->builder != NULL)
		lb_hrl_builder_free(s->builder);
	s->builder = NULL;
	s->position = s->cut_position;
	s->cursor = s->cut_cursor;
	s->scan_fill = 0;
	s->full = s->drained = s->in_debt = false;
	s->chunk_waits_mono_ns = 0;
	return lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &s->builder);
}

/*
 * Where the ring only has to hold out until the scan is done: after an epoch that ended without a point, and once
 * something is lost before the scan's end (what is in the ring then becomes marks anyway). It makes overload converge:
 * each pass sends only what was dirtied during the one before.
 */
static bool ring_waits(const struct lb_session *s)
{
	return !lb_scan_done(s) && (s->in_debt || lb_note(s, LB_NOTE_PASSES) > 0);
}

static int add_record(struct lb_session *s, const struct lb_capture_record *record, size_t data_bytes_max)
{
	const bool zero = record->kind == LB_CAPTURE_ZERO;
	size_t have = lb_hrl_builder_data_bytes(s->builder);
	int r;

	/* a single large request may exceed the nominal size, never the format's */
	if (!zero && have > 0 && have + record->length_bytes > data_bytes_max)
		return -EMSGSIZE;
	if (lb_hrl_builder_extents(s->builder) >= LB_SEGMENT_EXTENTS_MAX)
		return -EMSGSIZE;
	r = lb_hrl_builder_add(s->builder, s->disk_ids[record->disk], zero ? LB_HRL_CAPTURED_ZERO : LB_HRL_CAPTURED,
			       record->offset_bytes, record->length_bytes, record->data);
	if (r < 0)
		return r;
	lb_confirm_note(s->confirm, record->disk, record->offset_bytes, record->length_bytes);
	return 0;
}

int lb_cut_lost_everything(struct lb_session *s, const char *why)
{
	int r;

	lb_note_set(s, LB_NOTE_SUSPECT, 1);
	lb_error("%s: everything is scanned again, no recovery point until then", why);
	for (unsigned int i = 0; i < s->n_disks; i++) {
		r = lb_capture_declare_loss(s->capture, i, 0, 0);
		if (r < 0)
			return lb_session_refuse(s);
	}
	return 0;
}

int lb_cut_gather(struct lb_session *s)
{
	const size_t data_bytes_max = lb_scan_done(s) ? LB_HRL_DATA_BYTES_NOMINAL : CAPTURED_BYTES_WHILE_SCANNING;
	int64_t sampled_mono_ns = lb_mono_ns(s->env);
	uint64_t limit;
	int r;

	/* rule 3: the producer's position is sampled before the loss, and no cut goes past the loss */
	lb_capture_limit(s->capture, &limit, &s->in_debt);
	s->drained = false;
	if (s->o.mark != NULL && !s->in_debt)
		limit = lb_mark_limit(s->o.mark, limit, &sampled_mono_ns);
	if (ring_waits(s))
		return 0;
	while (!s->full && s->position < limit) {
		struct lb_capture_record record;
		uint64_t position = s->position;

		r = lb_capture_next(s->capture, &position, limit, &record);
		if (r == -EUCLEAN) {
			lb_cut_lost_everything(s, lb_err_text());
			return lb_epoch_want(s, false, false, "the ring was damaged");
		}
		if (r < 0)
			return lb_session_refuse(s);
		if (r == 0) {
			s->position = position;
			break;
		}
		/* records stand in the order of reservation: after this time, and before the write's end */
		s->gathered_mono_ns = (int64_t)record.ktime_ns;
		r = add_record(s, &record, data_bytes_max);
		if (r == -EMSGSIZE)
			s->full = true;
		else if (r < 0)
			return lb_session_refuse(s);
		else
			s->position = position;
	}
	/* what was lost has completed too, and is not in: then only the last record's time holds */
	if (s->position >= limit && !s->in_debt)
		s->gathered_mono_ns = sampled_mono_ns;
	s->drained = s->in_debt && s->position == limit;
	return 0;
}

bool lb_cut_has_something(const struct lb_session *s)
{
	return lb_hrl_builder_extents(s->builder) > 0 || s->cursor != s->cut_cursor ||
	       /* records that don't count still take room in the ring */
	       s->position - s->cut_position > s->info.ring_bytes / 8;
}

static int reconcile_disk(struct lb_session *s, unsigned int i)
{
	struct lb_capture_reconciled result;
	const struct lb_capture_disk *disk = &s->disks[i];
	char was[LB_SIZE_TEXT_BYTES], is[LB_SIZE_TEXT_BYTES];
	int r;

	r = lb_capture_reconcile(s->capture, i, &result);
	if (r < 0)
		return lb_session_refuse(s);
	switch (result.fit) {
	case LB_CAPTURE_FIT_OK:
	case LB_CAPTURE_FIT_UNKNOWN:
		return 0;
	case LB_CAPTURE_FIT_MISSED:
		lb_note_set(s, LB_NOTE_SUSPECT, 1);
		lb_error("disk %s: the kernel wrote %lu bytes that capture did not see; the disk is scanned again, no "
			 "recovery "
			 "point until then",
			 disk->name, (unsigned long)result.missed_bytes);
		r = lb_capture_declare_loss(s->capture, i, 0, 0);
		return r < 0 ? lb_session_refuse(s) : 0;
	case LB_CAPTURE_FIT_GONE:
		lb_fail(-ENODEV,
			"disk %s vanished: the machine can't be protected without it; connect it again, or take it out "
			"with "
			"`lifeboat machine protect`",
			disk->name);
		return lb_session_refuse(s);
	case LB_CAPTURE_FIT_GROWN:
		lb_fail(-EOVERFLOW,
			"disk %s changed its size from %s to %s; run `lifeboat machine protect` again so that it is "
			"protected "
			"whole",
			disk->name, lb_size_format(disk->size_bytes, was), lb_size_format(result.size_bytes, is));
		return lb_session_refuse(s);
	}
	return 0;
}

int lb_cut_reconcile(struct lb_session *s)
{
	int r = 0;

	/* a miss is marked before we hear of it: if we die in between, whoever comes next must know that it was one */
	lb_note_set(s, LB_NOTE_CHECKING, 1);
	for (unsigned int i = 0; i < s->n_disks && r == 0; i++)
		r = reconcile_disk(s, i);
	lb_note_set(s, LB_NOTE_CHECKING, 0);
	return r;
}

/* Rule 6: the scan was read wholly, and all that was written until its last read is in. */
static bool is_point(const struct lb_session *s)
{
	uint64_t end = lb_note(s, LB_NOTE_SCAN_END);

	if (lb_note(s, LB_NOTE_SUSPECT) != 0)
		return false;
#ifdef LB_FAULT_INJECTION
	if (lb_capture_faults(s->capture) & LB_FAULT_POINT_BEFORE_SAMPLE)
		return true;
#endif
	return end != 0 && s->position >= end - 1;
}

int lb_cut_close(struct lb_session *s, uint32_t flags)
{
	int64_t now_ns = lb_now_ns(s->env);
	struct lb_hrl_header header = {
		.vault = s->config.vault,
		.machine = s->config.machine,
		.instance = s->info.instance,
		.epoch = s->epoch,
		.seq = s->next_seq,
		.ring_cut = s->position,
		.scan_cursor = s->cursor,
		/* a wall clock may be set back in between */
		.time_first_ns = LB_MIN(s->began_ns, now_ns),
		.time_last_ns = now_ns,
		.prev_digest = s->prev,
	};
	struct lb_pending pending = {.set = true,
				     .seq = s->next_seq,
				     .ring_cut = s->position,
				     .scan_cursor = s->cursor,
				     .time_ns = now_ns,
				     .cut_mono_ns = s->gathered_mono_ns,
				     .prev = s->prev};
	int r;

	/* before the cut is trusted */
	r = lb_cut_reconcile(s);
	if (r != 0)
		return r;
	flags |= s->marked ? s->mark_flags : 0;
	flags |= is_point(s) ? LB_HRL_POINT : LB_HRL_SCANNING;
	if (!(flags & LB_HRL_POINT))
		flags &= ~(uint32_t)(LB_HRL_MARK_APP | LB_HRL_MARK_GROUP);
	if (lb_hrl_builder_extents(s->builder) == 0)
		flags |= LB_HRL_HEARTBEAT;
	header.flags = pending.flags = flags;
	pending.data_bytes = lb_hrl_builder_data_bytes(s->builder);
	s->out.size_bytes = 0;
	r = lb_hrl_builder_finish(s->builder, &header, &s->out, &pending.digest);
	if (r < 0)
		return lb_session_refuse(s);
	s->pending = pending;
	if (s->marked)
		lb_mark_cut(s->o.mark, s->epoch, pending.seq, now_ns, (flags & LB_HRL_POINT) != 0);
	s->marked = false;
	s->full = false;
	return 0;
}
