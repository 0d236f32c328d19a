/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed segments: each input is opened as it is, which must fail for want of a key; then it is taken for a header and
 * the plaintext of an index, and sealed with the right key, as a broken or hostile writer that holds it would. Frames
 * are authentic rubbish as well.
 */
#include <string.h>

#include "base/err.h"
#include "hrl/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

LB_DEFINE_CLEANUP(struct lb_gcm *, lb_gcm_free);

#define HEAD_BYTES_MAX (1u << 20)

static const struct lb_key key = {.bytes = {42}};

static void must(int r)
{
	if (r < 0) {
		fprintf(stderr, "%s\n", lb_err_text());
		abort();
	}
}

static void try_frames(const struct lb_hrl_segment *s, const uint8_t *noise, size_t noise_bytes)
{
	static uint8_t body[LB_HRL_FRAME_BYTES_MAX], stored[LB_HRL_FRAME_BYTES_MAX + LB_TAG_BYTES],
		raw[LB_HRL_FRAME_BYTES_MAX];
	uint8_t aad[LB_HRL_FRAME_AAD_BYTES], nonce[LB_NONCE_BYTES];

	for (uint32_t i = 0; i < lb_hrl_frames(s) && i < 4; i++) {
		const struct lb_hrl_frame *f = &s->frames[i];
		size_t size_bytes = f->stored_bytes - LB_TAG_BYTES;

		memset(body, 0, size_bytes);
		memcpy(body, noise, LB_MIN(noise_bytes, size_bytes));
		lb_hrl_frame_aad(&s->head, i, f->raw_bytes, f->codec, aad);
		lb_hrl_nonce(i, nonce);
		must(lb_gcm_seal(s->gcm, nonce, aad, sizeof(aad), body, size_bytes, stored));
		(void)lb_hrl_frame_open(s, i, stored, f->stored_bytes, raw);
	}
}

/* Header and index as they are in `data`, their sizes, digest and seal made to fit. */
static void try_with_key(const uint8_t *data, size_t size_bytes)
{
	size_t index_bytes = size_bytes - LB_HRL_HEADER_BYTES, canonical_bytes;
	_cleanup_free_ uint8_t *head = malloc(size_bytes + LB_TAG_BYTES);
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	struct lb_hrl_head decoded;
	uint8_t nonce[LB_NONCE_BYTES];
	struct lb_digest digest;

	if (head == NULL)
		return;
	memcpy(head, data, size_bytes);
	head[LB_HRL_AT_FORM] = LB_HRL_SEALED;
	lb_put_le32(head + LB_HRL_AT_INDEX_STORED, (uint32_t)(index_bytes + LB_TAG_BYTES));
	if (lb_hrl_head_decode(head, &decoded) < 0)
		return;
	canonical_bytes = lb_hrl_index_canonical_bytes(&decoded);
	if (decoded.index_codec == LB_HRL_CODEC_NONE && canonical_bytes <= index_bytes) {
		must(lb_hrl_digest_compute(head, head + LB_HRL_HEADER_BYTES, canonical_bytes, &digest));
		memcpy(head + LB_HRL_AT_DIGEST, digest.bytes, LB_DIGEST_BYTES);
	}
	must(lb_hrl_gcm_new(&key, decoded.salt, &gcm));
	lb_hrl_nonce(LB_HRL_INDEX_NONCE, nonce);
	must(lb_gcm_seal(gcm, nonce, head, LB_HRL_HEADER_BYTES, head + LB_HRL_HEADER_BYTES, index_bytes,
			 head + LB_HRL_HEADER_BYTES));
	if (lb_hrl_open_sealed(&key, &decoded.header, head, size_bytes + LB_TAG_BYTES, &s) == 0)
		try_frames(s, data, size_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct lb_hrl_segment *s = NULL;
	struct lb_hrl_head decoded;
	uint64_t head_bytes, total_bytes;

	if (size_bytes < LB_HRL_HEADER_BYTES || size_bytes > HEAD_BYTES_MAX)
		return 0;
	(void)lb_hrl_sealed_sizes(data, &head_bytes, &total_bytes);
	if (lb_hrl_head_decode(data, &decoded) == 0 &&
	    lb_hrl_open_sealed(&key, &decoded.header, data, size_bytes, &s) == 0)
		abort(); /* nobody made these bytes with this key */
	try_with_key(data, size_bytes);
	return 0;
}
