/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

static void point_made(struct lb_session *s, int64_t time_ns)
{
	int64_t now = lb_mono_ns(s->env);

	if (!lb_note(s, LB_NOTE_POINTED)) {
		/* after passes without a point, this gap is the RPO that this load and this link allow */
		s->held_rpo_ns = lb_note(s, LB_NOTE_PASSES) > 0 && s->point_mono_ns != 0 ? now - s->point_mono_ns : 0;
		lb_note_set(s, LB_NOTE_PASSES, 0);
		lb_note_set(s, LB_NOTE_POINTED, 1);
		lb_notice("protected: recovery points from epoch %lu, segment %lu on", (unsigned long)s->epoch,
			  (unsigned long)s->pending.seq);
	}
	s->point_ns = time_ns;
	s->point_mono_ns = now;
}

/* Only here does the ring give anything back: the segment is durable at the process server. */
int lb_ship_acknowledged(struct lb_session *s, const struct lb_confirmed *confirmed)
{
	const struct lb_pending p = s->pending;
	int r;

	s->pending.set = false;
	s->next_seq = p.seq + 1;
	s->prev = p.digest;
	s->durable.epoch = s->durable.last_epoch = s->epoch;
	s->durable.seq = s->durable.last_seq = p.seq;
	s->durable.has_segment = true;
	s->durable.digest = p.digest;
	s->shipped_bytes += p.data_bytes;
	lb_note_set(s, LB_NOTE_ACKED, s->next_seq);
	if (s->o.mark != NULL)
		lb_mark_acknowledged(s->o.mark, s->epoch, p.seq);
	lb_confirm_vault(s->confirm, confirmed->epoch, confirmed->seq, s->epoch, s->next_seq);
	lb_scan_clear(s, s->cut_cursor, p.scan_cursor);
	r = lb_capture_acknowledge(s->capture, p.ring_cut);
	if (r < 0)
		return lb_session_refuse(s);
	if (p.flags & LB_HRL_POINT)
		point_made(s, p.time_ns);
	s->cut_position = s->position = p.ring_cut;
	s->cut_cursor = s->cursor = p.scan_cursor;
	s->scan_fill = 0;
	s->began_ns = p.time_ns;
	if (p.flags & LB_HRL_LAST)
		return lb_epoch_want(s, false, false, "writes were lost");
	if (s->state == LB_SESSION_DEBT)
		return 0;
	lb_session_turn(s, lb_note(s, LB_NOTE_POINTED) ? LB_SESSION_PROTECTED : LB_SESSION_SCANNING, "%s", "");
	return 0;
}

int lb_ship(struct lb_session *s)
{
	struct lb_confirmed confirmed;
	int r;

	if (lb_mono_ns(s->env) < s->retry_mono_ns)
		return LB_TURNED;
	r = lb_link_put(&s->link, s->epoch, s->pending.seq, lb_link_server_time(&s->link, s->pending.cut_mono_ns),
			s->out.data, s->out.size_bytes, &confirmed);
	if (r < 0)
		return lb_session_link_failed(s, r);
	s->backoff_ms = 0;
	return lb_ship_acknowledged(s, &confirmed);
}
