/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the tests of src/hrl share: one header, one key, repeatable noise, a small sample. After <cmocka.h>. */
#include <string.h>

#include "base/err.h"
#include "hrl/layout.h"

#define _cleanup_builder_ _cleanup_(lb_hrl_builder_freep)
#define _cleanup_segment_ _cleanup_(lb_hrl_segment_freep)
#define OUT LB_BUF(LB_HRL_SEGMENT_BYTES_MAX)

static const __attribute__((unused)) struct lb_key machine_key = {.bytes = {1, 2, 3}};
static const __attribute__((unused)) uint8_t salt[LB_SALT_BYTES] = {9, 8, 7};
static const __attribute__((unused)) struct lb_hrl_header header = {.vault = {{0x11}},
								    .machine = {{0x22}},
								    .instance = {{0x33}},
								    .epoch = 5,
								    .seq = 12,
								    .ring_cut = 4096,
								    .scan_cursor = 6,
								    .time_first_ns = 100,
								    .time_last_ns = 200,
								    .flags = LB_HRL_POINT,
								    .prev_digest = {{0x44}}};

static __attribute__((unused)) uint64_t random_state = 88172645463325252u; /* xorshift: the same run every time */

static inline uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % limit;
}

static inline void fill_random(uint8_t *p, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++)
		p[i] = (uint8_t)(random_below(255) + 1);
}

static inline struct lb_hrl_builder *new_builder(void)
{
	struct lb_hrl_builder *b = NULL;

	assert_int_equal(lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX, &b), 0);
	return b;
}

static inline void add(struct lb_hrl_builder *b, uint16_t disk, enum lb_hrl_kind kind, uint64_t offset, uint64_t length,
		       const void *data)
{
	assert_int_equal(lb_hrl_builder_add(b, disk, kind, offset, length, data), 0);
}

/* Finishes and opens; the segment reads from `out`. */
static inline struct lb_hrl_segment *finish(struct lb_hrl_builder *b, struct lb_buf *out)
{
	struct lb_hrl_segment *s = NULL;
	struct lb_digest digest;

	out->size_bytes = 0;
	assert_int_equal(lb_hrl_builder_finish(b, &header, out, &digest), 0);
	if (lb_hrl_open_plain(out->data, out->size_bytes, &s) < 0)
		fail_msg("%s", lb_err_text());
	assert_memory_equal(&digest, lb_hrl_digest(s), sizeof(digest));
	return s;
}

/* A copy at the end of its allocation, so that a sanitizer sees a read past it. */
static inline uint8_t *copy_of(const void *data, size_t size_bytes)
{
	uint8_t *copy = malloc(size_bytes + (size_bytes == 0));

	assert_non_null(copy);
	memcpy(copy, data, size_bytes);
	return copy;
}

/* Captured data, zeroes and scanned data on disk 0, captured data on disk 1. */
static inline void sample(struct lb_buf *out)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	struct lb_digest digest;
	uint8_t data[2048];

	random_state = 4711;
	fill_random(data, sizeof(data));
	add(b, 0, LB_HRL_CAPTURED, 4096, 512, data);
	add(b, 0, LB_HRL_CAPTURED_ZERO, 8192, 4096, NULL);
	add(b, 0, LB_HRL_SCANNED, 16384, 512, data + 512);
	add(b, 1, LB_HRL_CAPTURED, 0, 512, data + 1024);
	assert_int_equal(lb_hrl_builder_finish(b, &header, out, &digest), 0);
}
