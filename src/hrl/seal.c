/* SPDX-License-Identifier: Apache-2.0 */
/* Seals a plain segment: each frame and the index compressed if that helps, and sealed under a key of this seal alone.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/err.h"
#include "hrl/layout.h"

/* Compression that saves less than one part in this many isn't worth undoing at every read. */
#define GAIN_PARTS 32

LB_DEFINE_CLEANUP(ZSTD_CCtx *, ZSTD_freeCCtx);
LB_DEFINE_CLEANUP(struct lb_gcm *, lb_gcm_free);

struct seal {
	struct lb_gcm *gcm;
	ZSTD_CCtx *zstd; /* NULL: nothing is compressed */
	int zstd_level;
};

int lb_hrl_gcm_new(const struct lb_key *machine_key, const uint8_t salt[LB_SALT_BYTES], struct lb_gcm **ret_gcm)
{
	_cleanup_(lb_key_wipe) struct lb_key key = {};
	int r;

	r = lb_hkdf(machine_key, salt, LB_SALT_BYTES, LB_HRL_SEAL_INFO, &key);
	if (r < 0)
		return r;
	return lb_gcm_new(&key, ret_gcm);
}

void lb_hrl_nonce(uint32_t number, uint8_t out[LB_NONCE_BYTES])
{
	memset(out, 0, LB_NONCE_BYTES);
	lb_put_le32(out, number);
}

void lb_hrl_frame_aad(const struct lb_hrl_head *head, uint32_t frame, uint32_t raw_bytes, enum lb_hrl_codec codec,
		      uint8_t out[LB_HRL_FRAME_AAD_BYTES])
{
	const struct lb_hrl_header *h = &head->header;

	memset(out, 0, LB_HRL_FRAME_AAD_BYTES);
	memcpy(out, h->vault.bytes, 16);
	memcpy(out + 16, h->machine.bytes, 16);
	lb_put_le64(out + 32, h->epoch);
	lb_put_le64(out + 40, h->seq);
	lb_put_le32(out + 48, LB_HRL_VERSION);
	lb_put_le32(out + 52, frame);
	lb_put_le32(out + 56, raw_bytes);
	out[60] = (uint8_t)codec;
}

/* Compresses into `out`, which takes `size_bytes`, when it gains; returns the length, 0 when it doesn't. */
static size_t compress(const struct seal *s, const void *in, size_t size_bytes, void *out)
{
	size_t worth_bytes = size_bytes - size_bytes / GAIN_PARTS, n;

	if (s->zstd == NULL || size_bytes == 0)
		return 0;
	n = ZSTD_compressCCtx(s->zstd, out, worth_bytes, in, size_bytes, s->zstd_level);
	return ZSTD_isError(n) || n >= size_bytes ? 0 : n;
}

/* Seals one frame into `out` and describes its place; returns what it takes or an error. */
static int seal_frame(const struct seal *s, const struct lb_hrl_segment *plain, uint32_t frame, uint8_t *out,
		      uint8_t *place)
{
	const struct lb_hrl_frame *f = &plain->frames[frame];
	const uint8_t *from = plain->plain + f->offset_bytes;
	size_t n = compress(s, from, f->raw_bytes, out);
	enum lb_hrl_codec codec = n > 0 ? LB_HRL_CODEC_ZSTD : LB_HRL_CODEC_NONE;
	uint8_t aad[LB_HRL_FRAME_AAD_BYTES], nonce[LB_NONCE_BYTES];
	int r;

	if (n > 0)
		from = out;
	else
		n = f->raw_bytes;
	lb_hrl_frame_aad(&plain->head, frame, f->raw_bytes, codec, aad);
	lb_hrl_nonce(frame, nonce);
	r = lb_gcm_seal(s->gcm, nonce, aad, sizeof(aad), from, n, out);
	if (r < 0)
		return r;
	memset(place, 0, LB_HRL_PLACE_BYTES);
	lb_put_le32(place + LB_HRL_PLACE_AT_STORED, (uint32_t)(n + LB_TAG_BYTES));
	place[LB_HRL_PLACE_AT_CODEC] = (uint8_t)codec;
	return (int)(n + LB_TAG_BYTES);
}

/*
 * Writes head and index in front of the frames, which end at `frames_bytes` behind the room that was left for the
 * longest index; moves the frames up to the index that it became. `at` is where the segment begins.
 */
static int seal_head(const struct seal *s, struct lb_hrl_head *head, const uint8_t *index, uint8_t *at,
		     size_t frames_bytes)
{
	size_t index_bytes = lb_hrl_index_sealed_bytes(head), n;
	uint8_t *stored = at + LB_HRL_HEADER_BYTES;
	const uint8_t *frames = stored + index_bytes + LB_TAG_BYTES;
	uint8_t nonce[LB_NONCE_BYTES];
	int r;

	n = compress(s, index, index_bytes, stored);
	head->index_codec = n > 0 ? LB_HRL_CODEC_ZSTD : LB_HRL_CODEC_NONE;
	head->index_stored_bytes = (uint32_t)((n > 0 ? n : index_bytes) + LB_TAG_BYTES);
	head->total_bytes = LB_HRL_HEADER_BYTES + (uint64_t)head->index_stored_bytes + frames_bytes;
	lb_hrl_head_encode(head, at);
	lb_hrl_nonce(LB_HRL_INDEX_NONCE, nonce);
	r = lb_gcm_seal(s->gcm, nonce, at, LB_HRL_HEADER_BYTES, n > 0 ? stored : index,
			head->index_stored_bytes - LB_TAG_BYTES, stored);
	if (r < 0)
		return r;
	memmove(stored + head->index_stored_bytes, frames, frames_bytes);
	return 0;
}

static int seal_all(const struct seal *s, const struct lb_hrl_segment *plain, struct lb_hrl_head *head, uint8_t *at)
{
	size_t canonical_bytes = lb_hrl_index_canonical_bytes(head), index_bytes = lb_hrl_index_sealed_bytes(head);
	_cleanup_free_ uint8_t *index = malloc(index_bytes + 1);
	uint8_t *frames = at + LB_HRL_HEADER_BYTES + index_bytes + LB_TAG_BYTES;
	size_t frames_bytes = 0;

	if (index == NULL)
		return lb_fail(-ENOMEM, "out of memory for an index of %zu bytes", index_bytes);
	memcpy(index, plain->plain + LB_HRL_HEADER_BYTES, canonical_bytes);
	for (uint32_t i = 0; i < head->n_frames; i++) {
		int n = seal_frame(s, plain, i, frames + frames_bytes,
				   index + canonical_bytes + i * LB_HRL_PLACE_BYTES);

		if (n < 0)
			return n;
		frames_bytes += (size_t)n;
	}
	return seal_head(s, head, index, at, frames_bytes);
}

int lb_hrl_seal(const struct lb_hrl_segment *plain, const struct lb_key *machine_key, int64_t receipt_ns,
		const uint8_t salt[LB_SALT_BYTES], int zstd_level, struct lb_buf *out)
{
	_cleanup_(ZSTD_freeCCtxp) ZSTD_CCtx *zstd = NULL;
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	struct lb_hrl_head head = plain->head;
	struct seal s = {.zstd_level = zstd_level};
	size_t most_bytes;
	int r;

	if (plain->plain == NULL || zstd_level < 0 || zstd_level > LB_HRL_ZSTD_LEVEL_MAX)
		return lb_fail(-EINVAL, "only plain segments can be sealed, at compression levels 0 to %d",
			       LB_HRL_ZSTD_LEVEL_MAX);
	head.form = LB_HRL_SEALED;
	head.header.receipt_ns = receipt_ns;
	memcpy(head.salt, salt, LB_SALT_BYTES);
	most_bytes = LB_HRL_HEADER_BYTES + (size_t)lb_hrl_index_sealed_bytes(&head) + LB_TAG_BYTES +
		     (size_t)head.data_bytes + (size_t)head.n_frames * LB_TAG_BYTES;
	assert(most_bytes <= LB_HRL_SEGMENT_BYTES_MAX);
	r = lb_buf_reserve(out, most_bytes);
	if (r < 0)
		return r;
	if (zstd_level > 0) {
		s.zstd = zstd = ZSTD_createCCtx();
		if (zstd == NULL)
			return lb_fail(-ENOMEM, "out of memory for a compressor");
	}
	r = lb_hrl_gcm_new(machine_key, salt, &gcm);
	if (r < 0)
		return r;
	s.gcm = gcm;
	r = seal_all(&s, plain, &head, out->data + out->size_bytes);
	if (r < 0)
		return r;
	out->size_bytes += head.total_bytes;
	out->data[out->size_bytes] = '\0';
	return 0;
}
