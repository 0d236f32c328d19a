/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"

static int beat_json(const struct lb_session *s, bool idle, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_object();
	struct lb_session_status st;

	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for a heartbeat");
	lb_session_status(s, &st);
	if (lb_json_set_u64(body, "epoch", s->epoch) < 0 ||
	    lb_json_set_u64(body, "seq", s->next_seq > 0 ? s->next_seq - 1 : 0) < 0 ||
	    lb_json_set_u64(body, "next_seq", s->next_seq) < 0 || lb_json_set_bool(body, "idle", idle) < 0 ||
	    lb_json_set_str(body, "mode", lb_session_state_name(s->state)) < 0 ||
	    lb_json_set_u64(body, "ring_cut", s->cut_position) < 0 ||
	    lb_json_set_u64(body, "backlog_bytes", st.backlog_bytes) < 0 ||
	    lb_json_set_u64(body, "ring_bytes", st.ring_bytes) < 0 ||
	    lb_json_set_u64(body, "dirty_bytes", st.dirty_bytes) < 0 ||
	    lb_json_set_u64(body, "churn_bytes", st.churn_bytes) < 0 ||
	    lb_json_set_u64(body, "scan_done_bytes", st.scan_done_bytes) < 0 ||
	    lb_json_set_u64(body, "scan_total_bytes", st.scan_total_bytes) < 0 ||
	    lb_json_set_u64(body, "passes", st.passes) < 0 ||
	    lb_json_set_i64(body, "held_rpo_ns", st.held_rpo_ns) < 0 ||
	    lb_json_set_i64(body, "cost_ns_per_kib", st.cost_ns_per_kib) < 0 ||
	    lb_json_set_str(body, "text", s->text) < 0 || lb_json_set_str(body, "hardware", s->o.hardware) < 0 ||
	    lb_json_set_i64(body, "t_ns", lb_now_ns(s->env)) < 0 ||
	    lb_json_set_i64(body, "cut_ns", lb_link_server_time(&s->link, s->gathered_mono_ns)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a heartbeat");
	*ret_body = lb_steal_ptr(body);
	return 0;
}

/* Runs of the program that the kernel skipped: requests went by unseen, nobody knows where. */
static int look_for_skipped(struct lb_session *s)
{
	uint64_t skipped;
	int r;

	r = lb_capture_skipped(s->capture, &skipped);
	if (r == -ENODEV)
		return lb_attach_gone(s);
	if (r < 0) {
		lb_debug("skipped runs are unknown: %s", lb_err_text());
		return 0;
	}
	if (s->skipped_known && skipped > s->skipped)
		r = lb_cut_lost_everything(s, "the kernel skipped runs of the capture program");
	s->skipped = skipped;
	s->skipped_known = true;
	return r;
}

/*
 * Who sends segments hears of a process server that lost its cache by its refusal; who is idle has to ask: else its
 * newest points would be gone unnoticed.
 */
static int audit(struct lb_session *s)
{
	struct lb_durable d;
	int r;

	if (lb_mono_ns(s->env) < s->audit_mono_ns)
		return 0;
	s->audit_mono_ns = lb_mono_ns(s->env) + LB_SESSION_AUDIT_S * LB_NS_PER_S;
	r = lb_link_journal(&s->link, &d);
	if (r == -ESTALE)
		return lb_session_refuse(s);
	if (r < 0)
		return lb_session_link_failed(s, r);
	if (d.epoch == s->epoch && d.has_segment && d.seq + 1 == s->next_seq)
		return 0;
	return lb_epoch_adopt(s, &d);
}

/*
 * `idle`: nothing was written between the last acknowledged point and now, which the process server may therefore
 * take for the point's time; it costs no segment.
 */
int lb_heartbeat_send(struct lb_session *s, bool idle)
{
	_cleanup_json_ json_t *body = NULL;
	struct lb_link_advice advice;
	int r;

	r = look_for_skipped(s);
	if (r != 0)
		return r;
	if (idle) {
		r = lb_cut_reconcile(s);
		if (r != 0)
			return r;
		idle = lb_note(s, LB_NOTE_SUSPECT) == 0;
	}
	r = beat_json(s, idle, &body);
	if (r < 0)
		return lb_session_refuse(s);
	r = lb_link_heartbeat(&s->link, body, &advice);
	if (r < 0)
		return lb_session_link_failed(s, r);
	if (idle) {
		s->point_ns = lb_now_ns(s->env);
		s->point_mono_ns = lb_mono_ns(s->env);
	}
	s->backoff_ms = 0;
	lb_confirm_vault(s->confirm, advice.confirmed.epoch, advice.confirmed.seq, s->epoch, s->next_seq);
	if (idle) {
		r = audit(s);
		if (r != 0)
			return r;
	}
	if (advice.resync && s->state == LB_SESSION_PROTECTED)
		return lb_epoch_want(s, true, true, "the process server asked for a resync");
	return 0;
}
