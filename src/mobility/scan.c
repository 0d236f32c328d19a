/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/log.h"

#define DRAIN_MS 10000
#define TOKENS_S 1 /* of bandwidth that may be saved up */

/* 0 when the policy's bandwidth lets another read go. */
static int throttled(struct lb_session *s)
{
	uint64_t bandwidth = lb_policy_bandwidth(&s->config.policy, lb_now_ns(s->env));
	int64_t now = lb_mono_ns(s->env), most;
	double earned;

	if (bandwidth == 0) {
		s->tokens_bytes = 0;
		s->tokens_mono_ns = now;
		return 0;
	}
	most = (int64_t)LB_MIN(bandwidth * TOKENS_S, (uint64_t)INT64_MAX / 2);
	earned = (double)bandwidth * (double)(now - s->tokens_mono_ns) / (double)LB_NS_PER_S;
	s->tokens_bytes = earned > (double)(most - s->tokens_bytes) ? most : s->tokens_bytes + (int64_t)earned;
	s->tokens_mono_ns = now;
	return s->tokens_bytes <= 0;
}

static bool all_zero(const uint8_t *data, size_t size_bytes)
{
	return size_bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, size_bytes - 1) == 0);
}

/* Rule 5: a chunk is read only when the writes from before the flip have ended. 1: it may be read. */
int lb_scan_ready(struct lb_session *s, const struct lb_capture_range *range)
{
	int64_t now = lb_mono_ns(s->env);
	int r = lb_capture_chunk_ready(s->capture, range);

	if (r > 0) {
		s->chunk_waits_mono_ns = 0;
		return 1;
	}
	if (r < 0)
		return r;
	if (s->chunk_waits_mono_ns == 0)
		s->chunk_waits_mono_ns = now;
	if (now - s->chunk_waits_mono_ns < LB_CAPTURE_STUCK_S * LB_NS_PER_S)
		return 0;
	s->chunk_waits_mono_ns = now;
	/* all of them: where one disk's completions go by unseen, the others' do too */
	for (unsigned int i = 0; i < s->n_disks; i++)
		if (lb_capture_drain(s->capture, i, DRAIN_MS) < 0)
			lb_warning("%s; the scan waits at byte %lu of disk %s", lb_err_text(),
				   (unsigned long)range->offset_bytes, s->disks[range->disk].name);
	return 0;
}

static int add(struct lb_session *s, const struct lb_capture_range *range, uint64_t from, uint64_t length,
	       const uint8_t *data)
{
	int r;

	r = lb_hrl_builder_add(s->builder, s->disk_ids[range->disk], LB_HRL_SCANNED, range->offset_bytes + from, length,
			       data);
	if (r < 0)
		return r;
	lb_confirm_note(s->confirm, range->disk, range->offset_bytes + from, length);
	if (lb_policy_bandwidth(&s->config.policy, lb_now_ns(s->env)) != 0)
		s->tokens_bytes -= (int64_t)length;
	return 0;
}

/* Adds the runs of blocks that are wanted; the buffer keeps the whole read if any is. */
static int add_wanted(struct lb_session *s, const struct lb_capture_range *range, const uint8_t *data, uint64_t block,
		      const bool *wanted)
{
	const unsigned int n = (unsigned int)((range->length_bytes + block - 1) / block);
	bool any = false;
	int r;

	for (unsigned int i = 0, run; i < n; i = run) {
		run = i + 1;
		if (!wanted[i])
			continue;
		while (run < n && wanted[run])
			run++;
		r = add(s, range, i * block, LB_MIN(run * block, range->length_bytes) - i * block, data + i * block);
		if (r < 0)
			return lb_session_refuse(s);
		any = true;
	}
	if (any)
		s->scan_fill += LB_SCAN_READ_BYTES;
	return 0;
}

static int read_disk(struct lb_session *s, const struct lb_capture_range *range, uint64_t from, uint64_t length,
		     uint8_t *data)
{
	const uint64_t offset = range->offset_bytes + from;
	int r;

	r = lb_pread_full(s->env, lb_capture_disk_fd(s->capture, range->disk), data + from, length, offset);
	if (r < 0) {
		lb_fail(r,
			"disk %s can't be read at byte %lu: %s; see the kernel's log, replace the disk or take it out "
			"of protection",
			s->disks[range->disk].name, (unsigned long)offset, strerror(-r));
		return lb_session_refuse(s);
	}
	return 0;
}

static int read_range(struct lb_session *s, const struct lb_capture_range *range)
{
	uint8_t *data = s->scan_buffer + s->scan_fill;
	bool wanted[LB_LINK_HASHES_MAX];
	int r;

	r = read_disk(s, range, 0, range->length_bytes, data);
	if (r != 0)
		return r;
	memset(wanted, true, sizeof(wanted));
	if (lb_note(s, LB_NOTE_BLANK) != 0) {
		for (uint64_t at = 0; at < range->length_bytes; at += LB_COMPARE_BLOCK_BYTES)
			wanted[at / LB_COMPARE_BLOCK_BYTES] = !all_zero(
				data + at, LB_MIN((uint64_t)LB_COMPARE_BLOCK_BYTES, range->length_bytes - at));
	} else if (lb_note(s, LB_NOTE_COMPARE) != 0) {
		r = lb_resync_compare(s, range, data, wanted);
		if (r < 0)
			return lb_session_link_failed(s, r);
	}
	return add_wanted(s, range, data, LB_COMPARE_BLOCK_BYTES, wanted);
}

/* Whether it differs where the image has zeroes; what isn't zeroes there is the same. */
static bool is_written(const uint8_t *unit, uint8_t zeroes, uint64_t length)
{
	for (uint64_t at = 0; at < length; at += LB_HRL_SECTOR_BYTES, zeroes >>= 1)
		if ((zeroes & 1) != 0 && !all_zero(unit + at, LB_HRL_SECTOR_BYTES))
			return true;
	return false;
}

/* What the process server knows to be the same isn't even read again. */
static int read_settled(struct lb_session *s, const struct lb_capture_range *range)
{
	const uint64_t unit = LB_LINK_UNIT_BYTES, base = range->offset_bytes;
	uint8_t *data = s->scan_buffer + s->scan_fill;
	bool wanted[LB_SCAN_READ_BYTES / LB_LINK_UNIT_BYTES] = {false};
	const unsigned int n = (unsigned int)((range->length_bytes + unit - 1) / unit);
	int r;

	for (unsigned int i = 0, run; i < n; i = run) {
		run = i + 1;
		if (!lb_resync_is_sent(s, base + i * unit) && lb_resync_zeroes(s, base + i * unit) == 0)
			continue;
		while (run < n &&
		       (lb_resync_is_sent(s, base + run * unit) || lb_resync_zeroes(s, base + run * unit) != 0))
			run++;
		r = read_disk(s, range, i * unit, LB_MIN(run * unit, range->length_bytes) - i * unit, data);
		if (r != 0)
			return r;
		for (unsigned int k = i; k < run; k++)
			wanted[k] = lb_resync_is_sent(s, base + k * unit) ||
				    is_written(data + k * unit, lb_resync_zeroes(s, base + k * unit),
					       LB_MIN(unit, range->length_bytes - k * unit));
	}
	return add_wanted(s, range, data, unit, wanted);
}

/* In *ret_step how far it came; the range is done when that is LB_SETTLED. */
static int take_range(struct lb_session *s, const struct lb_capture_range *range, int *ret_step)
{
	bool settles = lb_note(s, LB_NOTE_BLANK) == 0 && lb_note(s, LB_NOTE_COMPARE) != 0;
	int r;

	*ret_step = LB_SETTLED;
	if (settles && !s->settling.unknown) {
		r = lb_resync_settle(s, range);
		if (r < 0)
			return lb_session_link_failed(s, r);
		*ret_step = r;
		if (r != LB_SETTLED)
			return 0;
	}
	return settles && !s->settling.unknown ? read_settled(s, range) : read_range(s, range);
}

/*
 * Rule 6 begins here: everything that the scan could have read was submitted before this sample. A loss before the
 * sample may be in what was read and is not in the ring: then no boundary of this epoch is a point.
 */
static int scan_ends(struct lb_session *s)
{
	uint64_t producer = lb_capture_producer(s->capture), limit;

	lb_resync_end(s);
	lb_capture_limit(s->capture, &limit, &s->in_debt);
	if (s->in_debt)
		s->doomed = true;
	else
		lb_note_set(s, LB_NOTE_SCAN_END, producer + 1);
	return 0;
}

int lb_scan_slice(struct lb_session *s)
{
	const int64_t until = lb_mono_ns(s->env) + LB_SCAN_SLICE_MS * LB_NS_PER_MS;
	int r, step;

	s->scan_more = false;
	while (!s->doomed && lb_mono_ns(s->env) <= until && !throttled(s)) {
		struct lb_capture_range range;
		uint64_t next;

		r = lb_capture_scan_next(s->capture, s->cursor, LB_SCAN_READ_BYTES, &range, &next);
		if (r < 0)
			return lb_session_refuse(s);
		if (r == 0)
			return scan_ends(s);
		if (s->scan_fill + LB_SCAN_READ_BYTES > LB_SCAN_BUFFER_BYTES ||
		    lb_hrl_builder_data_bytes(s->builder) + range.length_bytes > LB_HRL_DATA_BYTES_NOMINAL) {
			s->full = true;
			return 0;
		}
		r = lb_scan_ready(s, &range);
		if (r < 0)
			return lb_session_refuse(s);
		if (r == 0)
			return 0;
		r = take_range(s, &range, &step);
		if (r != 0)
			return r;
		if (step == LB_SETTLE_WAIT)
			return 0;
		if (step == LB_SETTLED)
			s->cursor = next;
	}
	s->scan_more = !throttled(s);
	return 0;
}

void lb_scan_clear(struct lb_session *s, uint64_t from_cursor, uint64_t to_cursor)
{
	struct lb_capture_range range;
	uint64_t next;

	while (from_cursor < to_cursor &&
	       lb_capture_scan_next(s->capture, from_cursor, LB_SCAN_READ_BYTES, &range, &next) == 1 &&
	       next <= to_cursor) {
		lb_capture_scan_clear(s->capture, &range);
		from_cursor = next;
	}
}
