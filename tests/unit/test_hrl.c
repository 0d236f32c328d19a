/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Building segments, and plain ones from a hostile sender; test_hrl_seal.c has the sealed ones. */
#include "hrl_help.h"

static void assert_extent(const struct lb_hrl_segment *s, uint32_t i, uint16_t disk, enum lb_hrl_kind kind,
			  uint64_t offset, uint32_t length)
{
	const struct lb_hrl_extent *e;
	uint32_t n;

	e = lb_hrl_extents(s, &n);
	assert_true(i < n);
	assert_int_equal(e[i].disk, disk);
	assert_int_equal(e[i].kind, kind);
	assert_int_equal(e[i].offset_bytes, offset);
	assert_int_equal(e[i].length_bytes, length);
}

static void assert_extent_count(const struct lb_hrl_segment *s, uint32_t expected)
{
	uint32_t n;

	lb_hrl_extents(s, &n);
	assert_int_equal(n, expected);
}

/* ---- the oracle: two disks as plain arrays, one layer for captured bytes, one for scanned ones ------------------ */

#define DISKS 2
#define DISK_BYTES (96u << 10)

struct layer {
	uint8_t bytes[DISKS][DISK_BYTES];
	bool set[DISKS][DISK_BYTES];
};

struct oracle {
	struct layer captured, scanned;
};

static void oracle_write(struct oracle *o, uint16_t disk, enum lb_hrl_kind kind, uint64_t offset, uint64_t length,
			 const uint8_t *data)
{
	struct layer *l = lb_hrl_kind_is_scanned(kind) ? &o->scanned : &o->captured;

	for (uint64_t i = 0; i < length; i++) {
		l->bytes[disk][offset + i] = data != NULL ? data[i] : 0;
		l->set[disk][offset + i] = true;
	}
}

static void oracle_replay(struct oracle *o, const struct lb_hrl_segment *s)
{
	const struct lb_hrl_extent *e;
	uint32_t n, raw_bytes;

	e = lb_hrl_extents(s, &n);
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *data = NULL;

		if (lb_hrl_kind_has_data(e[i].kind)) {
			data = lb_hrl_frame_plain(s, e[i].frame, &raw_bytes);
			assert_non_null(data);
			data += e[i].frame_offset_bytes;
		}
		oracle_write(o, e[i].disk, e[i].kind, e[i].offset_bytes, e[i].length_bytes, data);
	}
}

static void oracle_compare(const struct oracle *expected, const struct oracle *got)
{
	for (int disk = 0; disk < DISKS; disk++) {
		for (uint32_t i = 0; i < DISK_BYTES; i++) {
			assert_int_equal(got->captured.set[disk][i], expected->captured.set[disk][i]);
			assert_int_equal(got->captured.bytes[disk][i], expected->captured.bytes[disk][i]);
			if (expected->captured.set[disk][i])
				continue; /* what was captured hides the scan: whether that is carried is the builder's
					     choice */
			assert_int_equal(got->scanned.set[disk][i], expected->scanned.set[disk][i]);
			assert_int_equal(got->scanned.bytes[disk][i], expected->scanned.bytes[disk][i]);
		}
	}
}

static void random_round(struct lb_hrl_builder *b, const uint8_t *noise, struct oracle *expected, struct oracle *got)
{
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint64_t n_ops = random_below(60);
	static const uint8_t zeroes[DISK_BYTES];

	memset(expected, 0, sizeof(*expected));
	memset(got, 0, sizeof(*got));
	for (uint64_t i = 0; i < n_ops; i++) {
		uint64_t length = 512 * (1 + random_below(random_below(8) == 0 ? 96 : 12));
		uint64_t offset = 512 * random_below((DISK_BYTES - length) / 512 + 1);
		enum lb_hrl_kind kind = 1 + random_below(4);
		const uint8_t *data = random_below(4) == 0 ? zeroes : noise + random_below(4096);
		uint16_t disk = (uint16_t)random_below(DISKS);

		data = lb_hrl_kind_has_data(kind) ? data : NULL;
		add(b, disk, kind, offset, length, data);
		oracle_write(expected, disk, kind, offset, length, data);
	}
	s = finish(b, &out);
	oracle_replay(got, s);
	oracle_compare(expected, got);
}

static void the_last_write_to_a_byte_wins_and_captured_bytes_outrank_scanned_ones(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_free_ struct oracle *oracles = calloc(2, sizeof(*oracles));
	_cleanup_free_ uint8_t *noise = malloc(DISK_BYTES + 4096);

	(void)state;
	fill_random(noise, DISK_BYTES + 4096);
	for (int round = 0; round < 300; round++)
		random_round(b, noise, &oracles[0], &oracles[1]);
}

/* ---- building ------------------------------------------------------------------------------------------------------
 */

static void neighbouring_writes_become_one_extent_and_other_kinds_and_disks_do_not(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint8_t data[2048];

	(void)state;
	fill_random(data, sizeof(data));
	add(b, 2, LB_HRL_CAPTURED, 3584, 512, data);
	add(b, 1, LB_HRL_CAPTURED, 3072, 512, data);
	add(b, 0, LB_HRL_SCANNED, 2048, 1024, data);
	add(b, 0, LB_HRL_CAPTURED, 1024, 1024, data);
	add(b, 0, LB_HRL_CAPTURED, 0, 1024, data);
	s = finish(b, &out);
	assert_extent_count(s, 4);
	assert_extent(s, 0, 0, LB_HRL_CAPTURED, 0, 2048);
	assert_extent(s, 1, 0, LB_HRL_SCANNED, 2048, 1024);
	assert_extent(s, 2, 1, LB_HRL_CAPTURED, 3072, 512);
	assert_extent(s, 3, 2, LB_HRL_CAPTURED, 3584, 512);
}

static void blocks_of_zeroes_become_extents_without_data(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint8_t data[16384] = {};
	uint32_t raw_bytes = 0;

	(void)state;
	data[9000] = 1;
	/* 2 KiB of zeroes are no block; then two blocks of zeroes; one with a byte; a tail of 2 KiB */
	add(b, 0, LB_HRL_SCANNED, 2048, 16384, data);
	s = finish(b, &out);
	assert_extent_count(s, 5);
	assert_extent(s, 0, 0, LB_HRL_SCANNED, 2048, 2048);
	assert_extent(s, 1, 0, LB_HRL_SCANNED_ZERO, 4096, 4096);
	assert_extent(s, 2, 0, LB_HRL_SCANNED, 8192, 4096);
	assert_extent(s, 3, 0, LB_HRL_SCANNED_ZERO, 12288, 4096);
	assert_extent(s, 4, 0, LB_HRL_SCANNED, 16384, 2048);
	assert_non_null(lb_hrl_frame_plain(s, 0, &raw_bytes));
	assert_int_equal(raw_bytes, 8192);
}

static void a_discard_longer_than_one_extent_is_split(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;

	(void)state;
	add(b, 0, LB_HRL_CAPTURED_ZERO, 512, LB_GIB(5), NULL);
	s = finish(b, &out);
	assert_extent_count(s, 3);
	assert_extent(s, 0, 0, LB_HRL_CAPTURED_ZERO, 512, LB_HRL_ZERO_BYTES_MAX);
	assert_extent(s, 2, 0, LB_HRL_CAPTURED_ZERO, 512 + LB_GIB(4), LB_GIB(1));
}

static void a_data_extent_lies_in_one_frame(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_free_ uint8_t *data = malloc(LB_MIB(1));
	_cleanup_buf_ struct lb_buf out = OUT;
	uint32_t raw_bytes = 0;

	(void)state;
	fill_random(data, LB_MIB(1));
	add(b, 0, LB_HRL_CAPTURED, 0, 512, data);
	add(b, 0, LB_HRL_CAPTURED, LB_MIB(1), LB_MIB(1), data);
	s = finish(b, &out);
	assert_int_equal(lb_hrl_frames(s), 5);
	assert_extent_count(s, 6);
	assert_extent(s, 1, 0, LB_HRL_CAPTURED, LB_MIB(1), LB_HRL_FRAME_BYTES_MAX - 512);
	assert_extent(s, 5, 0, LB_HRL_CAPTURED, LB_MIB(2) - 512, 512);
	assert_memory_equal(lb_hrl_frame_plain(s, 4, &raw_bytes), data + LB_MIB(1) - 512, 512);
	assert_null(lb_hrl_frame_plain(s, 5, &raw_bytes));
}

static void a_full_builder_refuses_what_does_not_fit_and_keeps_the_rest(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = NULL;
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint8_t data[2048];

	(void)state;
	fill_random(data, sizeof(data));
	assert_int_equal(lb_hrl_builder_new(2048, &b), 0);
	add(b, 0, LB_HRL_CAPTURED, 0, 1536, data);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, 4096, 1024, data), -EMSGSIZE);
	assert_int_equal(lb_hrl_builder_data_bytes(b), 1536);
	add(b, 0, LB_HRL_CAPTURED, 1536, 512, data);
	for (uint16_t disk = 1; disk < LB_HRL_DISKS_MAX; disk++)
		add(b, disk, LB_HRL_CAPTURED_ZERO, 0, 512, NULL);
	assert_int_equal(lb_hrl_builder_add(b, LB_HRL_DISKS_MAX, LB_HRL_CAPTURED_ZERO, 0, 512, NULL), -EMSGSIZE);
	s = finish(b, &out);
	assert_extent_count(s, LB_HRL_DISKS_MAX);
	assert_extent(s, 0, 0, LB_HRL_CAPTURED, 0, 2048);
	assert_int_equal(lb_hrl_builder_data_bytes(b), 0);
	assert_int_equal(lb_hrl_builder_extents(b), 0);
}

static void the_most_extents_fit_however_they_overlap(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint32_t n = 0, n_extents;
	int r;

	(void)state;
	/* every scan is cut in two by a captured write in its middle: three extents of two writes, the worst there is
	 */
	do {
		uint64_t at = (uint64_t)n * 4096;

		r = lb_hrl_builder_add(b, 0, LB_HRL_SCANNED_ZERO, at, 1536, NULL);
		if (r == 0)
			r = lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, at + 512, 512, NULL);
		n++;
	} while (r == 0);
	assert_int_equal(r, -EMSGSIZE);
	assert_true(lb_hrl_builder_extents(b) <= LB_HRL_EXTENTS_MAX);
	s = finish(b, &out);
	lb_hrl_extents(s, &n_extents);
	assert_true(n_extents > LB_HRL_EXTENTS_MAX * 3 / 4 - 4);
	assert_true(n_extents <= LB_HRL_EXTENTS_MAX);
	assert_extent(s, 4, 0, LB_HRL_CAPTURED_ZERO, 4096 + 512, 512);
}

static void the_most_data_fits_whatever_is_zero_in_it(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT;
	uint8_t data[LB_HRL_ZERO_BLOCK_BYTES * 3] = {};
	uint64_t at = 512;

	(void)state;
	/* each write begins and ends off a block's border around two blocks, the first of them zero */
	memset(data + LB_HRL_ZERO_BLOCK_BYTES * 2 - 512, 7, 512);
	while (lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, at, sizeof(data), data) == 0)
		at += LB_MIB(1);
	s = finish(b, &out);
	assert_extent_count(s, LB_HRL_DATA_BYTES_MAX / sizeof(data) * 3);
}

static void what_is_no_whole_sector_of_a_disk_is_refused(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	struct lb_hrl_builder *none = NULL;
	uint8_t data[1024] = {};

	(void)state;
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, 1, 512, data), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, 0, 513, data), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, 0, 0, data), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED, 0, 512, NULL), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, 0, 512, data), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, 5, 0, 512, data), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, (uint64_t)INT64_MAX + 1, 512, NULL), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, 512, (uint64_t)INT64_MAX - 511, NULL), -EINVAL);
	assert_int_equal(lb_hrl_builder_add(b, 0, LB_HRL_CAPTURED_ZERO, 512, UINT64_MAX - 511, NULL), -EINVAL);
	assert_int_equal(lb_hrl_builder_new(LB_HRL_DATA_BYTES_MAX + 1, &none), -EINVAL);
	assert_int_equal(lb_hrl_builder_extents(b), 0);
}

static void a_heartbeat_holds_nothing_and_opens_plain_and_sealed(void **state)
{
	_cleanup_segment_ struct lb_hrl_segment *plain = NULL, *sealed = NULL;
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_buf_ struct lb_buf out = OUT, rest = OUT;
	struct lb_hrl_header beat = header;
	struct lb_digest digest;

	(void)state;
	beat.flags |= LB_HRL_HEARTBEAT;
	assert_int_equal(lb_hrl_builder_finish(b, &beat, &out, &digest), 0);
	assert_int_equal(out.size_bytes, LB_HRL_HEADER_BYTES);
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &plain), 0);
	assert_extent_count(plain, 0);
	assert_int_equal(lb_hrl_seal(plain, &machine_key, 9, salt, 1, &rest), 0);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, rest.data, rest.size_bytes, &sealed), 0);
	assert_extent_count(sealed, 0);
	assert_memory_equal(lb_hrl_digest(sealed), &digest, sizeof(digest));

	add(b, 0, LB_HRL_CAPTURED_ZERO, 0, 512, NULL);
	assert_int_equal(lb_hrl_builder_finish(b, &beat, &out, &digest), -EINVAL);
}

static void a_builder_that_failed_finishes_as_if_it_had_not(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT, small = LB_BUF(2048);
	uint8_t data[2048];
	struct lb_digest digest;

	(void)state;
	fill_random(data, sizeof(data));
	add(b, 0, LB_HRL_CAPTURED, 4096, 2048, data);
	add(b, 0, LB_HRL_CAPTURED, 0, 512, data);
	assert_int_equal(lb_buf_append(&small, "before", 6), 0);
	assert_int_equal(lb_hrl_builder_finish(b, &header, &small, &digest), -EMSGSIZE);
	assert_int_equal(small.size_bytes, 6);
	assert_string_equal((char *)small.data, "before");
	add(b, 0, LB_HRL_CAPTURED, 4608, 512, data); /* still the latest */
	s = finish(b, &out);
	assert_extent_count(s, 2);
	assert_memory_equal((const uint8_t *)out.data + out.size_bytes - 1536, data, 512);
}

/* ---- plain segments from a hostile sender ----------------------------------------------------------------------- */

static void every_shortened_or_lengthened_plain_segment_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf out = OUT;
	struct lb_hrl_segment *s = NULL;

	(void)state;
	sample(&out);
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes + 1, &s), -EBADMSG);
	for (size_t n = 0; n < out.size_bytes; n++) {
		_cleanup_free_ uint8_t *copy = copy_of(out.data, n);

		assert_int_equal(lb_hrl_open_plain(copy, n, &s), -EBADMSG);
	}
	assert_null(s);
}

static void every_flipped_bit_of_a_plain_segment_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf out = OUT;
	struct lb_hrl_segment *s = NULL;

	(void)state;
	sample(&out);
	for (size_t bit = 0; bit < out.size_bytes * 8; bit++) {
		out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), -EBADMSG);
		out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), 0);
	lb_hrl_segment_free(s);
}

struct lie {
	size_t at; /* within the segment */
	uint8_t size_bytes;
	uint64_t value;
	const char *text; /* what the refusal says */
};

#define EXTENT(i, field) (LB_HRL_HEADER_BYTES + (i)*LB_HRL_EXTENT_BYTES + LB_HRL_EXTENT_AT_##field)
#define FRAME_ENTRY(field) (LB_HRL_HEADER_BYTES + 4 * LB_HRL_EXTENT_BYTES + LB_HRL_FRAME_AT_##field)

static const struct lie lies[] = {
	{0, 1, 'H', "magic"},
	{LB_HRL_AT_VERSION, 4, 2, "upgrade"},
	{LB_HRL_AT_FLAGS, 4, 1 << 6, "flags"},
	{LB_HRL_AT_FLAGS, 4, LB_HRL_HEARTBEAT, "heartbeat"},
	{LB_HRL_AT_EPOCH, 8, 0, "epoch"},
	{LB_HRL_AT_EXTENTS, 4, UINT32_MAX, "above the limit"},
	{LB_HRL_AT_FRAMES, 4, UINT32_MAX, "frames"},
	{LB_HRL_AT_FRAMES, 4, 2, "contradict"},
	{LB_HRL_AT_FRAMES, 4, 5, "can't have 5 frames"},
	{LB_HRL_AT_DATA_BYTES, 8, UINT64_MAX - 511, "can't hold"},
	{LB_HRL_AT_DATA_BYTES, 8, 0, "can't hold"},
	{LB_HRL_AT_ZERO_1 + 50, 1, 1, "reserved"},
	{LB_HRL_AT_FORM, 1, LB_HRL_SEALED, "can't rest"},
	{LB_HRL_AT_FORM, 1, 3, "plain (1) or sealed (2)"},
	{LB_HRL_AT_INDEX_CODEC, 1, 2, "codec"},
	{LB_HRL_AT_INDEX_STORED, 4, UINT32_MAX, "contradict"},
	{LB_HRL_AT_TOTAL, 8, UINT64_MAX, "contradict"},
	{LB_HRL_AT_RECEIPT, 8, 1, "receipt"},
	{LB_HRL_AT_SALT, 1, 1, "salt"},
	{LB_HRL_AT_ZERO_3 + 100, 1, 1, "reserved"},
	{EXTENT(0, OFFSET), 8, 16384 + 512, "out of order"},
	{EXTENT(0, OFFSET), 8, 4097, "not possible"},
	{EXTENT(0, OFFSET), 8, (uint64_t)INT64_MAX - 511, "not possible"},
	{EXTENT(0, OFFSET), 8, UINT64_MAX - 511, "not possible"},
	{EXTENT(0, LENGTH), 4, 0, "not possible"},
	{EXTENT(0, LENGTH), 4, 511, "not possible"},
	{EXTENT(0, LENGTH), 4, LB_HRL_FRAME_BYTES_MAX + 512, "not possible"},
	{EXTENT(1, LENGTH), 4, LB_HRL_ZERO_BYTES_MAX + 512, "not possible"},
	{EXTENT(0, LENGTH), 4, 1024, "aren't its own"},
	{EXTENT(0, LENGTH), 4, 4096, "aren't its own"},
	{EXTENT(0, KIND), 1, 0, "kind"},
	{EXTENT(0, KIND), 1, 5, "kind"},
	{EXTENT(0, KIND), 1, LB_HRL_CAPTURED_ZERO, "aren't its own"},
	{EXTENT(1, KIND), 1, LB_HRL_CAPTURED, "aren't its own"},
	{EXTENT(2, KIND), 1, LB_HRL_SCANNED_ZERO, "zeroes can't be in frame"},
	{EXTENT(0, ZERO), 1, 1, "reserved"},
	{EXTENT(0, FRAME), 4, 1, "aren't its own"},
	{EXTENT(0, FRAME_OFFSET), 4, 512, "aren't its own"},
	{EXTENT(2, FRAME_OFFSET), 4, 0, "aren't its own"},
	{EXTENT(3, FRAME_OFFSET), 4, UINT32_MAX - 511, "aren't its own"},
	{EXTENT(1, FRAME), 4, 1, "zeroes can't be in frame"},
	{EXTENT(1, OFFSET), 8, 4096, "out of order"},
	{EXTENT(1, LENGTH), 4, 1u << 20, NULL}, /* longer, beneath a scanned extent: legal */
	{EXTENT(2, DISK), 2, 1, "out of order"},
	{EXTENT(3, DISK), 2, 0, "out of order"},
	{FRAME_ENTRY(RAW), 4, 1024, "header says"},
	{FRAME_ENTRY(RAW), 4, 0, "can't have"},
	{FRAME_ENTRY(RAW), 4, UINT32_MAX, "can't have"},
	{FRAME_ENTRY(HASH), 1, 0, "hash"},
};

/* Lies that come with the digest that fits them get as far as the rule that they break. */
static void tell_lie(struct lb_buf *out, const struct lie *lie)
{
	uint32_t index_bytes = lb_get_le32(out->data + LB_HRL_AT_INDEX_STORED);
	uint64_t value = htole64(lie->value);
	struct lb_digest digest;

	memcpy(out->data + lie->at, &value, lie->size_bytes);
	assert_int_equal(lb_hrl_digest_compute(out->data, out->data + LB_HRL_HEADER_BYTES, index_bytes, &digest), 0);
	memcpy(out->data + LB_HRL_AT_DIGEST, digest.bytes, sizeof(digest.bytes));
}

static void a_plain_segment_that_breaks_a_rule_is_refused_by_that_rule(void **state)
{
	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(lies); i++) {
		_cleanup_segment_ struct lb_hrl_segment *s = NULL;
		_cleanup_buf_ struct lb_buf out = OUT;
		int r;

		sample(&out);
		tell_lie(&out, &lies[i]);
		r = lb_hrl_open_plain(out.data, out.size_bytes, &s);
		assert_int_equal(r, lies[i].text != NULL ? -EBADMSG : 0);
		if (lies[i].text != NULL && strstr(lb_err_text(), lies[i].text) == NULL)
			fail_msg("lie %zu: \"%s\" has no \"%s\"", i, lb_err_text(), lies[i].text);
	}
}

static void bytes_of_a_frame_that_no_extent_takes_are_refused(void **state)
{
	static const struct lie no_data[] = {{EXTENT(3, KIND), 1, LB_HRL_CAPTURED_ZERO, NULL},
					     {EXTENT(3, FRAME_OFFSET), 4, 0, NULL}};
	_cleanup_buf_ struct lb_buf out = OUT;
	struct lb_hrl_segment *s = NULL;

	(void)state;
	sample(&out);
	tell_lie(&out, &no_data[0]);
	tell_lie(&out, &no_data[1]);
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "unused"));
}

static void a_segment_of_more_disks_than_the_limit_is_refused(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_buf_ struct lb_buf out = OUT;
	struct lie last = {.size_bytes = 2};
	struct lb_hrl_segment *s = NULL;
	struct lb_digest digest;

	(void)state;
	for (uint64_t i = 0; i <= LB_HRL_DISKS_MAX; i++)
		add(b, 0, LB_HRL_CAPTURED_ZERO, i * 4096, 512, NULL);
	assert_int_equal(lb_hrl_builder_finish(b, &header, &out, &digest), 0);
	for (size_t i = 0; i <= LB_HRL_DISKS_MAX; i++) {
		last.at = EXTENT(i, DISK);
		last.value = i * 3;
		tell_lie(&out, &last);
	}
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "limit"));
	last.value -= 3; /* on the disk before: as many as may be */
	tell_lie(&out, &last);
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), 0);
	lb_hrl_segment_free(s);
}

static void captured_extents_that_overlap_are_refused(void **state)
{
	static const struct lie overlap = {EXTENT(0, LENGTH), 4, 8192, "overlaps"};
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_buf_ struct lb_buf out = OUT;
	struct lb_hrl_segment *s = NULL;
	struct lb_digest digest;

	(void)state;
	add(b, 0, LB_HRL_CAPTURED_ZERO, 0, 512, NULL);
	add(b, 0, LB_HRL_CAPTURED_ZERO, 4096, 512, NULL);
	assert_int_equal(lb_hrl_builder_finish(b, &header, &out, &digest), 0);
	tell_lie(&out, &overlap);
	assert_int_equal(lb_hrl_open_plain(out.data, out.size_bytes, &s), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), overlap.text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_write_to_a_byte_wins_and_captured_bytes_outrank_scanned_ones),
		cmocka_unit_test(neighbouring_writes_become_one_extent_and_other_kinds_and_disks_do_not),
		cmocka_unit_test(blocks_of_zeroes_become_extents_without_data),
		cmocka_unit_test(a_discard_longer_than_one_extent_is_split),
		cmocka_unit_test(a_data_extent_lies_in_one_frame),
		cmocka_unit_test(a_full_builder_refuses_what_does_not_fit_and_keeps_the_rest),
		cmocka_unit_test(the_most_extents_fit_however_they_overlap),
		cmocka_unit_test(the_most_data_fits_whatever_is_zero_in_it),
		cmocka_unit_test(what_is_no_whole_sector_of_a_disk_is_refused),
		cmocka_unit_test(a_heartbeat_holds_nothing_and_opens_plain_and_sealed),
		cmocka_unit_test(a_builder_that_failed_finishes_as_if_it_had_not),
		cmocka_unit_test(every_shortened_or_lengthened_plain_segment_is_refused),
		cmocka_unit_test(every_flipped_bit_of_a_plain_segment_is_refused),
		cmocka_unit_test(a_plain_segment_that_breaks_a_rule_is_refused_by_that_rule),
		cmocka_unit_test(bytes_of_a_frame_that_no_extent_takes_are_refused),
		cmocka_unit_test(a_segment_of_more_disks_than_the_limit_is_refused),
		cmocka_unit_test(captured_extents_that_overlap_are_refused),
	};

	return cmocka_run_group_tests_name("hrl", tests, NULL, NULL);
}
