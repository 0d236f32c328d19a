/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

#define IDLE_WAKE_S 1

const char *lb_session_state_name(enum lb_session_state state)
{
	static const char *const names[LB_SESSION_STATES] = {
		[LB_SESSION_DISABLED] = "disabled",
		[LB_SESSION_ATTACHING] = "attaching",
		[LB_SESSION_CONNECTING] = "connecting",
		[LB_SESSION_NEW_EPOCH] = "new-epoch",
		[LB_SESSION_SCANNING] = "scanning",
		[LB_SESSION_PROTECTED] = "protected",
		[LB_SESSION_DEBT] = "debt",
		[LB_SESSION_REFUSED] = "refused",
	};

	return names[state];
}

int lb_session_new(const struct lb_session_options *options, struct lb_session **ret_session)
{
	_cleanup_(lb_session_freep) struct lb_session *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for the session");
	s->o = *options;
	s->env = options->env;
	s->out = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	s->link.client = options->client;
	s->link.env = options->env;
	s->link.url = s->config.process_url;
	s->config.policy = lb_policy_default;
	snprintf(s->text, sizeof(s->text), "the configuration server has not been heard yet");
	r = lb_resync_key(s);
	if (r < 0)
		return r;
	*ret_session = lb_steal_ptr(s);
	return 0;
}

void lb_session_free(struct lb_session *s)
{
	lb_attach_close(s);
	lb_buf_free(&s->out);
	free(s->scan_buffer);
	lb_resync_end(s);
	lb_wipe(&s->compare_key, sizeof(s->compare_key));
	free(s);
}

/* Logs changes only, and a refusal once, not at each try: the log may rest on a protected disk. */
static bool worth_logging(struct lb_session *s, enum lb_session_state state, const char *text)
{
	if (state == LB_SESSION_REFUSED) {
		if (strcmp(text, s->refused_text) == 0)
			return false;
		memcpy(s->refused_text, text, sizeof(s->refused_text));
		return true;
	}
	if (state >= LB_SESSION_NEW_EPOCH)
		s->refused_text[0] = '\0';
	/* under overload epochs follow one another: said once, when the first pass failed */
	if (s->capture != NULL && lb_note(s, LB_NOTE_PASSES) > 0 && state >= LB_SESSION_NEW_EPOCH)
		return false;
	return state != s->state && s->state != LB_SESSION_REFUSED;
}

/* Whether points can be made, for who asks for them. A lost connection is none of their business: the mark waits. */
static void tell_mark(struct lb_session *s, enum lb_session_state state, const char *text)
{
	if (s->o.mark == NULL)
		return;
	if (state == LB_SESSION_PROTECTED)
		lb_mark_open(s->o.mark, s->capture, s->disks, s->n_disks);
	else if (state != LB_SESSION_CONNECTING)
		lb_mark_shut(s->o.mark, text[0] != '\0' ? text : lb_session_state_name(state));
}

void lb_session_turn(struct lb_session *s, enum lb_session_state state, const char *fmt, ...)
{
	char text[LB_SESSION_TEXT_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (worth_logging(s, state, text))
		lb_log(state == LB_SESSION_REFUSED ? LB_LOG_ERROR : LB_LOG_INFO, "%s%s%s", lb_session_state_name(state),
		       text[0] != '\0' ? ": " : "", text);
	if (state >= LB_SESSION_NEW_EPOCH && state < LB_SESSION_REFUSED)
		s->refused_s = 0;
	tell_mark(s, state, text);
	memcpy(s->text, text, sizeof(text));
	s->state = state;
}

void lb_session_back_off(struct lb_session *s, uint32_t at_least_s)
{
	uint32_t jitter = 0;
	int64_t wait_ms;

	s->backoff_ms =
		s->backoff_ms == 0 ? LB_SESSION_BACKOFF_MS_MIN : LB_MIN(s->backoff_ms * 2, LB_SESSION_BACKOFF_MS_MAX);
	if (s->env->ops->random(s->env, &jitter, sizeof(jitter)) < 0)
		jitter = 0;
	wait_ms = LB_MAX((int64_t)s->backoff_ms, (int64_t)at_least_s * 1000);
	wait_ms += jitter % (s->backoff_ms / 2 + 1);
	s->retry_mono_ns = lb_mono_ns(s->env) + wait_ms * LB_NS_PER_MS;
}

int lb_session_refuse(struct lb_session *s)
{
	s->pending.set = false;
	lb_session_turn(s, LB_SESSION_REFUSED, "%s", lb_err_text());
	/* at first it may only be that one server has not yet heard what another knows */
	s->refused_s = LB_MIN(LB_MAX(s->refused_s * 2, (uint32_t)LB_SESSION_REFUSED_S_MIN),
			      (uint32_t)LB_SESSION_REFUSED_S_MAX);
	s->retry_mono_ns = lb_mono_ns(s->env) + s->refused_s * LB_NS_PER_S;
	return LB_TURNED;
}

int lb_session_link_failed(struct lb_session *s, int error)
{
	switch (error) {
	case -ESTALE:
		/* its journal stands elsewhere than we believed: ask, and go on there */
		lb_session_turn(s, LB_SESSION_CONNECTING, "%s", lb_err_text());
		lb_session_back_off(s, 0);
		return LB_TURNED;
	case -EACCES:
		return lb_session_refuse(s);
	case -EAGAIN:
	case -ENOSPC:
		/* what was to be sent stays as it is, and the ring and then the bitmap wait with us */
		lb_session_turn(s, s->state, "%s", lb_err_text());
		lb_session_back_off(s, s->link.retry_after_s);
		return LB_TURNED;
	case -EBADMSG:
		s->pending.set = false;
		break;
	default:
		break;
	}
	lb_session_turn(s, LB_SESSION_CONNECTING, "%s", lb_err_text());
	lb_session_back_off(s, 0);
	return LB_TURNED;
}

static bool same_disks(const struct lb_agent_config *a, const struct lb_agent_config *b)
{
	if (a->n_disks != b->n_disks || !lb_uuid_equal(&a->machine, &b->machine) ||
	    !lb_uuid_equal(&a->vault, &b->vault))
		return false;
	for (unsigned int i = 0; i < a->n_disks; i++) {
		const struct lb_agent_disk *x = &a->disks[i], *y = &b->disks[i];

		if (x->id != y->id || strcmp(x->name, y->name) != 0 || strcmp(x->path, y->path) != 0 ||
		    strcmp(x->serial, y->serial) != 0 || x->size_bytes != y->size_bytes)
			return false;
	}
	return true;
}

static void disable(struct lb_session *s)
{
	if (lb_attach_end(s) < 0)
		lb_session_turn(s, LB_SESSION_DISABLED, "the capture could not be ended: %s", lb_err_text());
	else
		lb_session_turn(s, LB_SESSION_DISABLED, "%s", "protection is not enabled");
	s->retry_mono_ns = 0;
}

void lb_session_configure(struct lb_session *s, const struct lb_agent_config *config)
{
	const struct lb_agent_config old = s->config;
	const bool first = !s->configured;

	s->config = *config;
	s->configured = true;
	if (!config->enabled) {
		if (first || old.enabled)
			disable(s);
		return;
	}
	if (first || !old.enabled || !same_disks(&old, config)) {
		lb_session_turn(s, LB_SESSION_ATTACHING, "%s", "");
		s->retry_mono_ns = 0;
		s->backoff_ms = 0;
		return;
	}
	if (strcmp(old.process_url, config->process_url) != 0 && s->state > LB_SESSION_CONNECTING &&
	    s->state != LB_SESSION_REFUSED) {
		lb_session_turn(s, LB_SESSION_CONNECTING, "moved to process server %s", config->process_url);
		s->retry_mono_ns = 0;
	}
	if (config->resync_generation > old.resync_generation && s->capture != NULL) {
		/* also what an operator does after a refusal was mended */
		if (s->state == LB_SESSION_REFUSED) {
			lb_note_set(s, LB_NOTE_EPOCH, 0);
			lb_session_turn(s, LB_SESSION_ATTACHING, "%s", "");
			s->retry_mono_ns = 0;
		} else if (s->state > LB_SESSION_CONNECTING) {
			lb_epoch_want(s, true, true, "an operator asked for a resync");
		}
	}
}

void lb_session_use_client(struct lb_session *s, struct lb_http_client *client)
{
	s->link.client = client;
}

static int connect_journal(struct lb_session *s)
{
	struct lb_durable durable;
	int r;

	r = lb_link_journal(&s->link, &durable);
	if (r == -ESTALE)
		return lb_session_refuse(s); /* fenced: only a person can decide who writes */
	if (r < 0)
		return lb_session_link_failed(s, r);
	return lb_epoch_adopt(s, &durable);
}

/* The scan is read and nothing was written since: the first point must not wait for a write. */
static bool first_point_is_due(const struct lb_session *s)
{
	uint64_t end = lb_note(s, LB_NOTE_SCAN_END);

	return end != 0 && !lb_note(s, LB_NOTE_POINTED) && s->position >= end - 1;
}

static int finish_segment(struct lb_session *s, uint32_t flags)
{
	int r;

	s->due_mono_ns = lb_mono_ns(s->env) + (int64_t)s->config.policy.consistency_interval_s * LB_NS_PER_S;
	r = lb_cut_close(s, flags);
	return r != 0 ? r : lb_ship(s);
}

static bool mark_is_due(struct lb_session *s)
{
	s->marked = s->o.mark != NULL && !s->in_debt && lb_mark_due(s->o.mark, s->position, &s->mark_flags);
	return s->marked;
}

static int cut_if_due(struct lb_session *s)
{
	const int64_t now = lb_mono_ns(s->env);
	const bool due = now >= s->due_mono_ns;

	if (s->doomed || s->drained)
		return finish_segment(s, LB_HRL_LAST);
	if (s->full || mark_is_due(s) || first_point_is_due(s) || (due && lb_cut_has_something(s)))
		return finish_segment(s, 0);
	if (due) {
		s->due_mono_ns = now + (int64_t)s->config.policy.consistency_interval_s * LB_NS_PER_S;
		s->began_ns = lb_now_ns(s->env);
	}
	return 0;
}

static bool is_idle(const struct lb_session *s)
{
	return s->state == LB_SESSION_PROTECTED && lb_note(s, LB_NOTE_POINTED) && s->next_seq > 0 && !s->in_debt &&
	       lb_capture_mode(s->capture) == LB_CAPTURE_RUNNING && !lb_cut_has_something(s) &&
	       lb_capture_producer(s->capture) == s->position;
}

static int beat_if_due(struct lb_session *s)
{
	const int64_t now = lb_mono_ns(s->env);

	if (now < s->beat_mono_ns)
		return 0;
	s->beat_mono_ns = now + (int64_t)s->config.policy.heartbeat_interval_s * LB_NS_PER_S;
	return lb_heartbeat_send(s, is_idle(s));
}

/* SCANNING, PROTECTED, DEBT: one round of ring and scan into a segment, and the segment out when it is due. */
static int flow(struct lb_session *s)
{
	int r;

	if (s->pending.set)
		return lb_ship(s);
	r = lb_cut_gather(s);
	if (r != 0)
		return r;
	if (s->in_debt && s->state != LB_SESSION_DEBT)
		lb_session_turn(s, LB_SESSION_DEBT, "%s", "writes were lost; a new epoch follows");
	if (!lb_scan_done(s) && lb_note(s, LB_NOTE_SUSPECT))
		return lb_epoch_want(s, false, false, "writes went by unseen");
	if (!lb_scan_done(s) && lb_mono_ns(s->env) >= s->retry_mono_ns) {
		r = lb_scan_slice(s);
		if (r != 0)
			return r;
	}
	r = cut_if_due(s);
	if (r != 0)
		return r;
	return s->pending.set ? 0 : beat_if_due(s);
}

static int step(struct lb_session *s)
{
	const bool waiting = lb_mono_ns(s->env) < s->retry_mono_ns;

	switch (s->state) {
	case LB_SESSION_DISABLED:
		return 0;
	case LB_SESSION_ATTACHING:
		return waiting ? 0 : lb_attach(s);
	case LB_SESSION_CONNECTING:
		return waiting ? 0 : connect_journal(s);
	case LB_SESSION_NEW_EPOCH:
		return waiting ? 0 : lb_epoch_begin(s);
	case LB_SESSION_SCANNING:
	case LB_SESSION_PROTECTED:
	case LB_SESSION_DEBT:
		return flow(s);
	case LB_SESSION_REFUSED:
		if (!waiting)
			lb_session_turn(s, LB_SESSION_ATTACHING, "%s", s->text);
		return 0;
	case LB_SESSION_STATES:
		break;
	}
	return 0;
}

static int64_t next_wake(const struct lb_session *s)
{
	const int64_t now = lb_mono_ns(s->env);

	if (s->state == LB_SESSION_DISABLED)
		return now + IDLE_WAKE_S * LB_NS_PER_S;
	if (now < s->retry_mono_ns)
		return LB_MIN(s->retry_mono_ns, now + IDLE_WAKE_S * LB_NS_PER_S);
	if (s->state < LB_SESSION_SCANNING || s->state == LB_SESSION_REFUSED || s->pending.set || s->full)
		return now;
	if (!lb_scan_done(s) && s->scan_more)
		return now;
	return now + LB_SESSION_POLL_MS * LB_NS_PER_MS;
}

void lb_session_step(struct lb_session *s, int64_t *ret_wake_mono_ns)
{
	lb_err_clear();
	(void)step(s);
	*ret_wake_mono_ns = next_wake(s);
}

void lb_session_status(const struct lb_session *s, struct lb_session_status *ret_status)
{
	struct lb_session_status st = {
		.state = s->state,
		.epoch = s->epoch,
		.segments = s->next_seq,
		.shipped_bytes = s->shipped_bytes,
		.point_ns = s->point_ns,
		.held_rpo_ns = s->held_rpo_ns,
		.cost_ns_per_kib = -1,
	};
	uint64_t captured_bytes = 0;
	struct lb_capture_stats stats;

	memcpy(st.text, s->text, sizeof(st.text));
	if (s->capture != NULL) {
		st.ring_bytes = s->info.ring_bytes;
		st.backlog_bytes = lb_capture_producer(s->capture) - lb_capture_consumer(s->capture);
		st.dirty_bytes = lb_capture_debt_bytes(s->capture);
		st.passes = (uint32_t)lb_note(s, LB_NOTE_PASSES);
		st.scan_total_bytes = lb_note(s, LB_NOTE_SCAN_TOTAL);
		st.scan_done_bytes =
			st.scan_total_bytes - LB_MIN(st.scan_total_bytes, lb_capture_scan_bytes(s->capture));
		for (unsigned int i = 0; i < s->n_disks; i++) {
			struct lb_capture_disk_stats d;

			if (lb_capture_disk_stats(s->capture, i, &d) < 0)
				continue;
			st.churn_bytes += d.written_bytes + d.discarded_bytes;
			captured_bytes += d.captured_bytes;
		}
		lb_capture_stats(s->capture, &stats);
		if (captured_bytes >= 1024)
			st.cost_ns_per_kib = (int64_t)(stats.cost_ns_total / (captured_bytes / 1024));
	}
	*ret_status = st;
}
