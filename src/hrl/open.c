/* SPDX-License-Identifier: Apache-2.0 */
/* Opens sealed segments: head first, frames one by one as they are wanted. Authentic before parsed. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/err.h"
#include "hrl/layout.h"

static int sealed_head_decode(const void *header, struct lb_hrl_head *ret_head)
{
	struct lb_hrl_head head;
	int r;

	r = lb_hrl_head_decode(header, &head);
	if (r < 0)
		return r;
	if (head.form != LB_HRL_SEALED)
		return lb_fail(-EBADMSG, "a sealed segment was expected and this one is plain");
	*ret_head = head;
	return 0;
}

int lb_hrl_sealed_sizes(const void *header, uint64_t *ret_head_bytes, uint64_t *ret_total_bytes)
{
	struct lb_hrl_head head;
	int r;

	r = sealed_head_decode(header, &head);
	if (r < 0)
		return r;
	*ret_head_bytes = LB_HRL_HEADER_BYTES + (uint64_t)head.index_stored_bytes;
	*ret_total_bytes = head.total_bytes;
	return 0;
}

static int check_position(const struct lb_hrl_header *got, const struct lb_hrl_header *expect)
{
	char got_text[LB_UUID_TEXT_BYTES], expect_text[LB_UUID_TEXT_BYTES];

	if (!lb_uuid_equal(&got->vault, &expect->vault)) {
		lb_uuid_format(&got->vault, got_text);
		lb_uuid_format(&expect->vault, expect_text);
		return lb_fail(-EBADMSG, "it belongs to vault %s, not to %s", got_text, expect_text);
	}
	if (!lb_uuid_equal(&got->machine, &expect->machine)) {
		lb_uuid_format(&got->machine, got_text);
		lb_uuid_format(&expect->machine, expect_text);
		return lb_fail(-EBADMSG, "it belongs to machine %s, not to %s", got_text, expect_text);
	}
	if (got->epoch != expect->epoch || got->seq != expect->seq)
		return lb_fail(-EBADMSG, "it is segment %" PRIu64 " of epoch %" PRIu64, got->seq, got->epoch);
	return 0;
}

static int decompress(const void *in, size_t size_bytes, void *out, size_t raw_bytes)
{
	size_t n = ZSTD_decompress(out, raw_bytes, in, size_bytes);

	if (ZSTD_isError(n))
		return lb_fail(-EBADMSG, "they can't be decompressed: %s", ZSTD_getErrorName(n));
	if (n != raw_bytes)
		return lb_fail(-EBADMSG, "they become %zu bytes and not %zu", n, raw_bytes);
	return 0;
}

/* Opens `stored_bytes` bytes that rest with a tag into `raw_bytes` at `out`. */
static int open_stored(struct lb_gcm *gcm, uint32_t number, const void *aad, size_t aad_bytes, enum lb_hrl_codec codec,
		       const void *stored, size_t stored_bytes, void *out, size_t raw_bytes)
{
	_cleanup_free_ uint8_t *compressed = NULL;
	size_t size_bytes = stored_bytes - LB_TAG_BYTES;
	uint8_t nonce[LB_NONCE_BYTES];
	int r;

	lb_hrl_nonce(number, nonce);
	if (codec == LB_HRL_CODEC_NONE)
		return lb_gcm_open(gcm, nonce, aad, aad_bytes, stored, size_bytes, out);
	compressed = malloc(size_bytes);
	if (compressed == NULL)
		return lb_fail(-ENOMEM, "out of memory for %zu compressed bytes", size_bytes);
	r = lb_gcm_open(gcm, nonce, aad, aad_bytes, stored, size_bytes, compressed);
	if (r < 0)
		return r;
	return decompress(compressed, size_bytes, out, raw_bytes);
}

static int open_index(struct lb_hrl_segment *s, const uint8_t *head)
{
	size_t index_bytes = lb_hrl_index_sealed_bytes(&s->head);
	_cleanup_free_ uint8_t *index = malloc(index_bytes + 1);
	struct lb_digest digest;
	int r;

	if (index == NULL)
		return lb_fail(-ENOMEM, "out of memory for an index of %zu bytes", index_bytes);
	r = open_stored(s->gcm, LB_HRL_INDEX_NONCE, head, LB_HRL_HEADER_BYTES, s->head.index_codec,
			head + LB_HRL_HEADER_BYTES, s->head.index_stored_bytes, index, index_bytes);
	if (r < 0)
		return lb_wrap(r, "head and index");
	r = lb_hrl_digest_compute(head, index, lb_hrl_index_canonical_bytes(&s->head), &digest);
	if (r < 0)
		return r;
	if (memcmp(&digest, &s->head.digest, sizeof(digest)) != 0)
		return lb_fail(-EBADMSG, "its header and index aren't those that its digest names");
	return lb_hrl_index_decode(s, index);
}

const uint8_t *lb_hrl_sealed_salt(const void *header)
{
	return (const uint8_t *)header + LB_HRL_AT_SALT;
}

int lb_hrl_open_sealed(const struct lb_key *machine_key, const struct lb_hrl_header *expect, const void *head,
		       size_t head_bytes, struct lb_hrl_segment **ret_segment)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for a segment");
	r = head_bytes < LB_HRL_HEADER_BYTES ? lb_fail(-EBADMSG, "%zu bytes are too few for its header", head_bytes)
					     : sealed_head_decode(head, &s->head);
	if (r == 0)
		r = check_position(&s->head.header, expect);
	if (r == 0 && head_bytes - LB_HRL_HEADER_BYTES < s->head.index_stored_bytes)
		r = lb_fail(-EBADMSG, "its head has %u bytes and %zu are there",
			    LB_HRL_HEADER_BYTES + s->head.index_stored_bytes, head_bytes);
	if (r == 0)
		r = lb_hrl_gcm_new(machine_key, s->head.salt, &s->gcm);
	if (r == 0)
		r = open_index(s, head);
	if (r < 0)
		return lb_wrap(r, "sealed segment %" PRIu64 " of epoch %" PRIu64, expect->seq, expect->epoch);
	*ret_segment = lb_steal_ptr(s);
	return 0;
}

int lb_hrl_frame_open(const struct lb_hrl_segment *s, uint32_t frame, const void *stored, size_t stored_bytes,
		      void *out)
{
	uint8_t aad[LB_HRL_FRAME_AAD_BYTES], hash[LB_HRL_HASH_BYTES];
	const struct lb_hrl_header *h = &s->head.header;
	const struct lb_hrl_frame *f;
	int r;

	if (s->gcm == NULL || frame >= s->head.n_frames)
		return lb_fail(-EINVAL, "the segment has no sealed frame %u", frame);
	f = &s->frames[frame];
	lb_hrl_frame_aad(&s->head, frame, f->raw_bytes, f->codec, aad);
	r = stored_bytes != f->stored_bytes
		    ? lb_fail(-EBADMSG, "it has %u bytes and %zu are there", f->stored_bytes, stored_bytes)
		    : open_stored(s->gcm, frame, aad, sizeof(aad), f->codec, stored, stored_bytes, out, f->raw_bytes);
	if (r == 0) {
		lb_hrl_frame_hash(out, f->raw_bytes, hash);
		if (memcmp(hash, f->hash, sizeof(hash)) != 0)
			r = lb_fail(-EBADMSG, "its bytes aren't those that its hash names");
	}
	if (r < 0)
		return lb_wrap(r, "frame %u of sealed segment %" PRIu64 " of epoch %" PRIu64, frame, h->seq, h->epoch);
	return 0;
}

bool lb_hrl_frame_is(const struct lb_hrl_segment *s, uint32_t frame, const void *raw, size_t raw_bytes)
{
	uint8_t hash[LB_HRL_HASH_BYTES];

	if (frame >= s->head.n_frames || s->frames[frame].raw_bytes != raw_bytes)
		return false;
	lb_hrl_frame_hash(raw, raw_bytes, hash);
	return memcmp(hash, s->frames[frame].hash, sizeof(hash)) == 0;
}

const uint8_t *lb_hrl_frame_hash_of(const struct lb_hrl_segment *s, uint32_t frame)
{
	return frame < s->head.n_frames ? s->frames[frame].hash : NULL;
}
