/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"

#define PIECE_BYTES 14 /* as it is sent */
#define FRAME_ALIGN_BYTES 4096

static void drop_batch(struct lb_settling *t)
{
	free(t->entries);
	t->entries = NULL;
	t->batch = 0;
	t->entries_bytes = t->at_bytes = t->n_hashed = 0;
}

int lb_resync_key(struct lb_session *s)
{
	/* fresh for each run of the agent: hashes of our blocks mean nothing to whoever sees them later */
	int r = s->env->ops->random(s->env, s->compare_key.bytes, sizeof(s->compare_key.bytes));

	if (r == 0)
		r = s->env->ops->random(s->env, s->settling.session, sizeof(s->settling.session));
	if (r < 0)
		return lb_fail(r, "no random bytes for the key of the comparison");
	drop_batch(&s->settling);
	s->settling.length_bytes = 0;
	s->settling.unknown = false;
	return 0;
}

void lb_resync_end(struct lb_session *s)
{
	drop_batch(&s->settling);
	free(s->settling.hashes);
	free(s->settling.frame);
	s->settling.hashes = s->settling.frame = NULL;
	s->settling.length_bytes = 0;
}

/* ---- hashing a batch ------------------------------------------------------------------------------------- */

/* 1: it is here and may be read; 0: not yet; -ENOENT it is nowhere. */
static int find_piece(struct lb_session *s, const uint8_t *piece, struct lb_capture_range *ret_range)
{
	struct lb_capture_range range = {.offset_bytes = lb_get_le64(piece + 2),
					 .length_bytes = lb_get_le32(piece + 10)};
	const uint16_t id = lb_get_le16(piece);
	unsigned int d = 0;

	while (d < s->n_disks && s->disk_ids[d] != id)
		d++;
	if (d == s->n_disks || range.offset_bytes > s->disks[d].size_bytes ||
	    range.length_bytes > s->disks[d].size_bytes - range.offset_bytes)
		return -ENOENT;
	range.disk = (uint16_t)d;
	*ret_range = range;
	return lb_scan_ready(s, &range);
}

/*
 * Puts an entry's pieces one behind the other: 1; 0 one of them can't be read now, -ENOENT at all, which is no error:
 * the scan comes to it and says so.
 */
static int read_pieces(struct lb_session *s, const uint8_t *pieces, unsigned int n, size_t *ret_bytes)
{
	size_t at = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct lb_capture_range range;
		int r = find_piece(s, pieces + i * PIECE_BYTES, &range);

		if (r <= 0)
			return r;
		if (at + range.length_bytes > LB_HRL_FRAME_BYTES_MAX)
			return lb_fail(-EBADMSG, "the process server asks for more bytes than a frame has");
		if (lb_pread_full(s->env, lb_capture_disk_fd(s->capture, range.disk), s->settling.frame + at,
				  range.length_bytes, range.offset_bytes) < 0)
			return -ENOENT;
		at += range.length_bytes;
	}
	*ret_bytes = at;
	return 1;
}

/* How many entries from here on are single pieces, each where the last one ends: they are read at once. */
static size_t find_run(const struct lb_settling *t, size_t *ret_bytes)
{
	const size_t step = 2 + PIECE_BYTES;
	const uint8_t *first = t->entries + t->at_bytes + 2;
	size_t n = 0, bytes = 0;

	for (size_t at = t->at_bytes; at + step <= t->entries_bytes && t->n_hashed + n < LB_LINK_ENTRIES_MAX;
	     at += step, n++) {
		const uint8_t *piece = t->entries + at + 2;

		if (lb_get_le16(piece - 2) != 1 || lb_get_le16(piece) != lb_get_le16(first) ||
		    lb_get_le64(piece + 2) != lb_get_le64(first + 2) + bytes ||
		    lb_get_le32(piece + 10) > LB_HRL_FRAME_BYTES_MAX - bytes)
			break;
		bytes += lb_get_le32(piece + 10);
	}
	*ret_bytes = bytes;
	return n;
}

/* The next `n` entries have `bytes` between them, which read_pieces() has read when it said 1. */
static void take_hashes(struct lb_settling *t, size_t n, int read, size_t bytes)
{
	size_t at = 0;

	for (; n > 0; n--, t->n_hashed++) {
		const unsigned int pieces = lb_get_le16(t->entries + t->at_bytes);
		/* the only piece of several entries, or all of one */
		const size_t length = n > 1 || at > 0 ? lb_get_le32(t->entries + t->at_bytes + 12) : bytes;
		uint8_t *hash = t->hashes + t->n_hashed * LB_HRL_HASH_BYTES;

		if (read == 1)
			lb_hrl_frame_hash(t->frame + at, length, hash);
		else
			memset(hash, 0, LB_HRL_HASH_BYTES);
		at += length;
		t->at_bytes += 2 + (size_t)pieces * PIECE_BYTES;
	}
}

static int hash_entry(struct lb_session *s)
{
	struct lb_settling *t = &s->settling;
	size_t left = t->entries_bytes - t->at_bytes, bytes = 0, run;
	unsigned int n = left >= 2 ? lb_get_le16(t->entries + t->at_bytes) : 0;
	uint8_t piece[PIECE_BYTES];
	int r;

	if (n == 0 || left < 2 + (size_t)n * PIECE_BYTES || t->n_hashed == LB_LINK_ENTRIES_MAX) {
		drop_batch(t);
		return lb_fail(-EBADMSG, "the process server asks for hashes of what can't be understood");
	}
	run = find_run(t, &bytes);
	if (run > 1) {
		memcpy(piece, t->entries + t->at_bytes + 2, sizeof(piece));
		lb_put_le32(piece + 10, (uint32_t)bytes);
		r = read_pieces(s, piece, 1, &bytes);
	} else {
		run = 1;
		r = read_pieces(s, t->entries + t->at_bytes + 2, n, &bytes);
	}
	if (r == 0)
		return LB_SETTLE_WAIT;
	if (r < 0 && r != -ENOENT)
		return r;
	take_hashes(t, run, r, bytes);
	return LB_SETTLE_STEP;
}

static int make_room(struct lb_settling *t)
{
	void *frame = NULL;

	if (t->hashes == NULL)
		t->hashes = malloc((size_t)LB_LINK_ENTRIES_MAX * LB_HRL_HASH_BYTES);
	if (t->frame == NULL && posix_memalign(&frame, FRAME_ALIGN_BYTES, LB_HRL_FRAME_BYTES_MAX) == 0)
		t->frame = frame;
	return t->hashes != NULL && t->frame != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a resync");
}

/* ---- asking ---------------------------------------------------------------------------------------------- */

static bool covers(const struct lb_settling *t, const struct lb_capture_range *range)
{
	return t->length_bytes > 0 && t->disk == range->disk && range->offset_bytes >= t->offset_bytes &&
	       range->offset_bytes - t->offset_bytes <= t->length_bytes &&
	       range->length_bytes <= t->length_bytes - (range->offset_bytes - t->offset_bytes);
}

static int ask(struct lb_session *s, const struct lb_capture_range *range)
{
	struct lb_settling *t = &s->settling;
	struct lb_link_settled answer;
	struct lb_link_question q = {
		.epoch = s->epoch,
		.disk = s->disk_ids[range->disk],
		.offset_bytes = range->offset_bytes,
		.length_bytes = LB_MIN((uint64_t)LB_LINK_SETTLE_BYTES_MAX,
				       s->disks[range->disk].size_bytes - range->offset_bytes),
		.batch = t->batch,
		.hashes = t->hashes,
		.n_hashes = t->n_hashed,
	};
	int r;

	memcpy(q.session, t->session, sizeof(q.session));
	r = lb_link_settle(&s->link, &q, &answer);
	if (r == -ENOENT) {
		lb_err_clear();
		t->unknown = true;
		return LB_SETTLE_STEP;
	}
	if (r < 0)
		return r; /* what was hashed is told again */
	drop_batch(t);
	t->batch = answer.batch;
	t->entries = answer.entries;
	t->entries_bytes = answer.entries_bytes;
	if (answer.settled) {
		t->disk = range->disk;
		t->offset_bytes = q.offset_bytes;
		t->length_bytes = q.length_bytes;
		memcpy(t->send, answer.send, sizeof(t->send));
		memcpy(t->zeroes, answer.zeroes, sizeof(t->zeroes));
	}
	return LB_SETTLE_STEP;
}

int lb_resync_settle(struct lb_session *s, const struct lb_capture_range *range)
{
	struct lb_settling *t = &s->settling;
	int r;

	if (covers(t, range))
		return LB_SETTLED;
	r = make_room(t);
	if (r < 0)
		return r;
	return t->at_bytes < t->entries_bytes ? hash_entry(s) : ask(s, range);
}

static size_t unit_of(const struct lb_settling *t, uint64_t offset_bytes)
{
	return (offset_bytes - t->offset_bytes) / LB_LINK_UNIT_BYTES;
}

bool lb_resync_is_sent(const struct lb_session *s, uint64_t offset_bytes)
{
	size_t unit = unit_of(&s->settling, offset_bytes);

	return (s->settling.send[unit / 8] >> unit % 8 & 1) != 0;
}

uint8_t lb_resync_zeroes(const struct lb_session *s, uint64_t offset_bytes)
{
	return s->settling.zeroes[unit_of(&s->settling, offset_bytes)];
}

/* ---- older process servers ------------------------------------------------------------------------------- */

int lb_resync_compare(struct lb_session *s, const struct lb_capture_range *range, const uint8_t *data,
		      bool differ[LB_LINK_HASHES_MAX])
{
	struct lb_digest hashes[LB_LINK_HASHES_MAX];
	struct lb_link_compare compare = {
		.epoch = s->epoch,
		.disk = s->disk_ids[range->disk],
		.offset_bytes = range->offset_bytes,
		.block_bytes = LB_COMPARE_BLOCK_BYTES,
		.key = s->compare_key,
		.hashes = hashes,
		.length_bytes = range->length_bytes,
	};
	int r;

	_Static_assert(LB_SCAN_READ_BYTES / LB_COMPARE_BLOCK_BYTES <= LB_LINK_HASHES_MAX, "one read is one comparison");
	for (uint64_t at = 0; at < range->length_bytes; at += LB_COMPARE_BLOCK_BYTES) {
		uint64_t length = LB_MIN((uint64_t)LB_COMPARE_BLOCK_BYTES, range->length_bytes - at);

		r = lb_hmac_sha256(&s->compare_key, data + at, length, &hashes[compare.n_hashes++]);
		if (r < 0)
			return r;
	}
	return lb_link_compare(&s->link, &compare, differ);
}
