/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain segments as a hostile agent may send them. Each input is tried as it is, and again with its hashes and its
 * digest made to fit, which takes it past them to the rules behind. What opens must seal and open again to the same.
 */
#include <string.h>

#include "base/err.h"
#include "hrl/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

#define _cleanup_segment_ _cleanup_(lb_hrl_segment_freep)

static void must(int r)
{
	if (r < 0) {
		fprintf(stderr, "%s\n", lb_err_text());
		abort();
	}
}

static void compare(const struct lb_hrl_segment *plain, const struct lb_hrl_segment *sealed, const struct lb_buf *bytes)
{
	static uint8_t raw[LB_HRL_FRAME_BYTES_MAX];
	uint32_t n_plain, n_sealed, raw_bytes = 0;
	const struct lb_hrl_extent *a = lb_hrl_extents(plain, &n_plain), *b = lb_hrl_extents(sealed, &n_sealed);

	if (n_plain != n_sealed || memcmp(a, b, n_plain * sizeof(*a)) != 0 ||
	    memcmp(lb_hrl_digest(plain), lb_hrl_digest(sealed), sizeof(struct lb_digest)) != 0)
		abort();
	for (uint32_t i = 0; i < lb_hrl_frames(plain); i++) {
		const void *expected = lb_hrl_frame_plain(plain, i, &raw_bytes);
		struct lb_hrl_frame_place place;

		must(lb_hrl_frame_place(sealed, i, &place));
		must(lb_hrl_frame_open(sealed, i, bytes->data + place.offset_bytes, place.stored_bytes, raw));
		if (place.raw_bytes != raw_bytes || memcmp(raw, expected, raw_bytes) != 0)
			abort();
	}
}

static void try_one(const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf bytes = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_segment_ struct lb_hrl_segment *plain = NULL, *sealed = NULL;
	static const uint8_t salt[LB_SALT_BYTES];
	static const struct lb_key key;

	if (lb_hrl_open_plain(data, size_bytes, &plain) < 0)
		return;
	must(lb_hrl_seal(plain, &key, 1, salt, (int)(size_bytes / 512 % 2), &bytes));
	must(lb_hrl_open_sealed(&key, lb_hrl_header(plain), bytes.data, bytes.size_bytes, &sealed));
	compare(plain, sealed, &bytes);
}

/* Sizes, hashes and digest as the rest of the bytes would have them. */
static void make_fit(uint8_t *p, size_t size_bytes)
{
	uint64_t n_extents = lb_get_le32(p + LB_HRL_AT_EXTENTS), n_frames = lb_get_le32(p + LB_HRL_AT_FRAMES);
	uint64_t index_bytes = n_extents * LB_HRL_EXTENT_BYTES + n_frames * LB_HRL_FRAME_BYTES;
	uint8_t *entry = p + LB_HRL_HEADER_BYTES + n_extents * LB_HRL_EXTENT_BYTES;
	uint64_t at = LB_HRL_HEADER_BYTES + index_bytes;
	struct lb_digest digest;

	if (at > size_bytes)
		return;
	lb_put_le32(p + LB_HRL_AT_INDEX_STORED, (uint32_t)index_bytes);
	lb_put_le64(p + LB_HRL_AT_TOTAL, size_bytes);
	lb_put_le64(p + LB_HRL_AT_DATA_BYTES, size_bytes - at);
	for (uint64_t i = 0; i < n_frames; i++, entry += LB_HRL_FRAME_BYTES) {
		uint32_t raw_bytes = lb_get_le32(entry);

		if (raw_bytes > size_bytes - at)
			break;
		lb_hrl_frame_hash(p + at, raw_bytes, entry + LB_HRL_FRAME_AT_HASH);
		at += raw_bytes;
	}
	must(lb_hrl_digest_compute(p, p + LB_HRL_HEADER_BYTES, index_bytes, &digest));
	memcpy(p + LB_HRL_AT_DIGEST, digest.bytes, LB_DIGEST_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	_cleanup_free_ uint8_t *copy = NULL;

	try_one(data, size_bytes);
	if (size_bytes < LB_HRL_HEADER_BYTES)
		return 0;
	copy = malloc(size_bytes);
	if (copy == NULL)
		return 0;
	memcpy(copy, data, size_bytes);
	make_fit(copy, size_bytes);
	try_one(copy, size_bytes);
	return 0;
}
