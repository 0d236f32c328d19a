/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <zstd.h>

/* Sealed segments, and the published vectors of the format. */
#include "base/env.h"
#include "base/io.h"
#include "base/json.h"
#include "hrl_help.h"

LB_DEFINE_CLEANUP(struct lb_gcm *, lb_gcm_free);

/* ---- sealing and opening --------------------------------------------------------------------------------------------
 */

static void seal_sample(const struct lb_buf *plain, int level, struct lb_buf *sealed)
{
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;

	assert_int_equal(lb_hrl_open_plain(plain->data, plain->size_bytes, &s), 0);
	assert_int_equal(lb_hrl_seal(s, &machine_key, 777, salt, level, sealed), 0);
}

/* Opens all of a sealed segment, as a reader with the whole of it would; compares with `plain` when that isn't NULL. */
static int open_whole(const struct lb_key *key, const struct lb_hrl_header *expect, const uint8_t *sealed,
		      size_t size_bytes, const struct lb_hrl_segment *plain)
{
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	uint64_t head_bytes = 0, total_bytes = 0;
	uint32_t raw_bytes = 0;
	int r;

	if (size_bytes < LB_HRL_HEADER_BYTES)
		return -EBADMSG;
	r = lb_hrl_sealed_sizes(sealed, &head_bytes, &total_bytes);
	if (r == 0 && (head_bytes > size_bytes || total_bytes != size_bytes))
		r = -EBADMSG;
	if (r == 0)
		r = lb_hrl_open_sealed(key, expect, sealed, head_bytes, &s);
	for (uint32_t i = 0; r == 0 && i < lb_hrl_frames(s); i++) {
		struct lb_hrl_frame_place place = {};

		assert_int_equal(lb_hrl_frame_place(s, i, &place), 0);
		assert_true(place.offset_bytes + place.stored_bytes <= size_bytes);
		r = lb_hrl_frame_open(s, i, sealed + place.offset_bytes, place.stored_bytes, raw);
		if (r == 0 && plain != NULL)
			assert_memory_equal(raw, lb_hrl_frame_plain(plain, i, &raw_bytes), place.raw_bytes);
	}
	if (r == 0 && plain != NULL) {
		struct lb_hrl_header h = *lb_hrl_header(s);
		uint32_t n, n_plain;

		h.receipt_ns = 0;
		assert_memory_equal(lb_hrl_digest(s), lb_hrl_digest(plain), sizeof(struct lb_digest));
		assert_memory_equal(&h.vault, &lb_hrl_header(plain)->vault, 48);
		assert_int_equal(h.flags, lb_hrl_header(plain)->flags);
		lb_hrl_extents(s, &n);
		assert_memory_equal(lb_hrl_extents(s, &n), lb_hrl_extents(plain, &n_plain),
				    n * sizeof(struct lb_hrl_extent));
		assert_int_equal(n, n_plain);
	}
	return r;
}

static void a_sealed_segment_opens_to_the_same_extents_bytes_and_digest(void **state)
{
	_cleanup_free_ uint8_t *data = malloc(LB_MIB(1));

	(void)state;
	fill_random(data, LB_MIB(1) / 2);
	memset(data + LB_MIB(1) / 2, 'x', LB_MIB(1) / 2);
	for (int level = 0; level <= 3; level++) {
		_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
		_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
		_cleanup_segment_ struct lb_hrl_segment *s = NULL;

		for (uint64_t i = 0; i < 16; i++)
			add(b, (uint16_t)(i % 3), LB_HRL_CAPTURED, i * LB_MIB(1), 65536, data + i * 65536);
		s = finish(b, &plain);
		seal_sample(&plain, level, &sealed);
		assert_int_equal(open_whole(&machine_key, &header, sealed.data, sealed.size_bytes, s), 0);
		/* half of it is noise and rests as it is, the rest nearly vanishes */
		assert_true(level == 0 ? sealed.size_bytes > LB_MIB(1) : sealed.size_bytes < LB_MIB(1) * 2 / 3);
	}
}

static void the_receipt_time_is_authenticated_and_outside_the_digest(void **state)
{
	_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;

	(void)state;
	sample(&plain);
	seal_sample(&plain, 1, &sealed);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, sealed.data, sealed.size_bytes, &s), 0);
	assert_int_equal(lb_hrl_header(s)->receipt_ns, 777);
	assert_memory_equal(lb_hrl_digest(s), plain.data + LB_HRL_AT_DIGEST, LB_DIGEST_BYTES);
}

static void every_shortened_sealed_segment_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
	struct lb_hrl_segment *s = NULL;
	uint64_t head_bytes = 0, total_bytes = 0;

	(void)state;
	sample(&plain);
	seal_sample(&plain, 0, &sealed);
	assert_int_equal(lb_hrl_sealed_sizes(sealed.data, &head_bytes, &total_bytes), 0);
	assert_int_equal(total_bytes, sealed.size_bytes);
	for (size_t n = 0; n < sealed.size_bytes; n++) {
		_cleanup_free_ uint8_t *copy = copy_of(sealed.data, n);

		assert_int_equal(open_whole(&machine_key, &header, copy, n, NULL), -EBADMSG);
		if (n < head_bytes)
			assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, copy, n, &s), -EBADMSG);
	}
	assert_null(s);
}

static void every_flipped_bit_of_a_sealed_segment_is_refused(void **state)
{
	(void)state;
	for (int level = 0; level <= 1; level++) {
		_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;

		sample(&plain);
		seal_sample(&plain, level, &sealed);
		for (size_t bit = 0; bit < sealed.size_bytes * 8; bit++) {
			sealed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_int_equal(open_whole(&machine_key, &header, sealed.data, sealed.size_bytes, NULL),
					 -EBADMSG);
			sealed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		assert_int_equal(open_whole(&machine_key, &header, sealed.data, sealed.size_bytes, NULL), 0);
	}
}

static void another_key_or_another_position_opens_nothing(void **state)
{
	_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
	struct lb_key other_key = machine_key;
	struct lb_hrl_header other[5] = {header, header, header, header, header};

	(void)state;
	sample(&plain);
	seal_sample(&plain, 1, &sealed);
	other_key.bytes[31] ^= 1;
	other[0].vault.bytes[15] ^= 1;
	other[1].machine.bytes[15] ^= 1;
	other[2].epoch++;
	other[3].seq--;
	other[4].prev_digest.bytes[0] ^= 1; /* the chain is for the journal's reader to compare */
	assert_int_equal(open_whole(&other_key, &header, sealed.data, sealed.size_bytes, NULL), -EBADMSG);
	for (int i = 0; i < 4; i++)
		assert_int_equal(open_whole(&machine_key, &other[i], sealed.data, sealed.size_bytes, NULL), -EBADMSG);
	assert_int_equal(open_whole(&machine_key, &other[4], sealed.data, sealed.size_bytes, NULL), 0);
}

static void a_frame_opens_only_in_its_own_place(void **state)
{
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	_cleanup_free_ uint8_t *data = malloc(LB_HRL_FRAME_BYTES_MAX * 2), *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	_cleanup_segment_ struct lb_hrl_segment *plain = NULL, *s = NULL;
	_cleanup_buf_ struct lb_buf out = OUT, sealed = OUT;
	struct lb_hrl_frame_place place[2];

	(void)state;
	fill_random(data, LB_HRL_FRAME_BYTES_MAX);
	memcpy(data + LB_HRL_FRAME_BYTES_MAX, data, LB_HRL_FRAME_BYTES_MAX); /* the same bytes twice */
	add(b, 0, LB_HRL_CAPTURED, 0, LB_HRL_FRAME_BYTES_MAX * 2, data);
	plain = finish(b, &out);
	seal_sample(&out, 0, &sealed);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, sealed.data, sealed.size_bytes, &s), 0);
	assert_int_equal(lb_hrl_frame_place(s, 0, &place[0]), 0);
	assert_int_equal(lb_hrl_frame_place(s, 1, &place[1]), 0);
	assert_int_equal(lb_hrl_frame_place(s, 2, &place[1]), -EINVAL);
	assert_int_equal(lb_hrl_frame_open(s, 0, sealed.data + place[0].offset_bytes, place[0].stored_bytes, raw), 0);
	assert_int_equal(lb_hrl_frame_open(s, 0, sealed.data + place[1].offset_bytes, place[1].stored_bytes, raw),
			 -EBADMSG);
	assert_int_equal(lb_hrl_frame_open(s, 1, sealed.data + place[0].offset_bytes, place[0].stored_bytes, raw),
			 -EBADMSG);
	assert_int_equal(lb_hrl_frame_open(s, 2, sealed.data + place[0].offset_bytes, place[0].stored_bytes, raw),
			 -EINVAL);
}

static void plain_and_sealed_segments_are_not_taken_for_one_another(void **state)
{
	_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT, again = OUT;
	_cleanup_segment_ struct lb_hrl_segment *s = NULL, *opened = NULL;
	uint64_t head_bytes = 0, total_bytes = 0;

	(void)state;
	sample(&plain);
	seal_sample(&plain, 1, &sealed);
	assert_int_equal(lb_hrl_open_plain(sealed.data, sealed.size_bytes, &s), -EBADMSG);
	assert_int_equal(lb_hrl_sealed_sizes(plain.data, &head_bytes, &total_bytes), -EBADMSG);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, plain.data, plain.size_bytes, &s), -EBADMSG);
	assert_null(s);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, sealed.data, sealed.size_bytes, &opened), 0);
	assert_int_equal(lb_hrl_seal(opened, &machine_key, 1, salt, 1, &again), -EINVAL);
}

/* ---- writers that hold the key and break the rules --------------------------------------------------------------- */

struct sealed_lie {
	size_t at; /* within the segment, its index in the clear */
	uint8_t size_bytes;
	uint64_t value;
	bool digest_fits;
	const char *text;
};

#define INDEX_AT LB_HRL_HEADER_BYTES
#define SAMPLE_FRAME_AT (INDEX_AT + 4 * LB_HRL_EXTENT_BYTES)
#define SAMPLE_PLACE_AT (SAMPLE_FRAME_AT + LB_HRL_FRAME_BYTES)
#define SAMPLE_HEAD_BYTES (SAMPLE_PLACE_AT + LB_HRL_PLACE_BYTES + LB_TAG_BYTES)
#define SAMPLE_DATA_BYTES 1536

static const struct sealed_lie sealed_lies[] = {
	{LB_HRL_AT_RING_CUT, 8, 1, false, "digest"},
	{INDEX_AT + LB_HRL_EXTENT_AT_KIND, 1, 9, true, "kind"},
	{INDEX_AT + LB_HRL_EXTENT_AT_LENGTH, 4, 1024, true, "aren't its own"},
	{SAMPLE_FRAME_AT, 4, 512, true, "header says"},
	{SAMPLE_PLACE_AT, 4, SAMPLE_DATA_BYTES + LB_TAG_BYTES + 1, true, "can't rest"},
	{SAMPLE_PLACE_AT, 4, UINT32_MAX, true, "can't rest"},
	{SAMPLE_PLACE_AT, 4, 0, true, "can't rest"},
	{SAMPLE_PLACE_AT + LB_HRL_PLACE_AT_CODEC, 1, LB_HRL_CODEC_ZSTD, true, "can't rest"},
	{SAMPLE_PLACE_AT + LB_HRL_PLACE_AT_CODEC, 1, 2, true, "can't rest"},
	{SAMPLE_PLACE_AT + LB_HRL_PLACE_AT_ZERO + 2, 1, 1, true, "can't rest"},
	{LB_HRL_AT_TOTAL, 8, SAMPLE_HEAD_BYTES + SAMPLE_DATA_BYTES, true, "the frames end at"},
	{LB_HRL_AT_TOTAL, 8, SAMPLE_HEAD_BYTES + LB_TAG_BYTES, true, "frames can't rest"},
	{LB_HRL_AT_TOTAL, 8, SAMPLE_HEAD_BYTES + SAMPLE_DATA_BYTES + LB_TAG_BYTES + 1, true, "frames can't rest"},
	{LB_HRL_AT_TOTAL, 8, SAMPLE_HEAD_BYTES - 1, true, "shorter than its head"},
	{LB_HRL_AT_TOTAL, 8, UINT64_MAX, true, "above the limit"},
	{LB_HRL_AT_INDEX_CODEC, 1, LB_HRL_CODEC_ZSTD, true, "compressed index"},
	{LB_HRL_AT_INDEX_STORED, 4, UINT32_MAX, true, "sealed index"},
	{LB_HRL_AT_EXTENTS, 4, 3, true, "sealed index"},
};

/* Opens the head of a sample sealed at level 0, writes the lie into it and seals it again. */
static void reseal_head(uint8_t *segment, const struct sealed_lie *lie)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t nonce[LB_NONCE_BYTES], *index = segment + INDEX_AT;
	size_t index_bytes = SAMPLE_HEAD_BYTES - INDEX_AT - LB_TAG_BYTES;
	uint64_t value = htole64(lie->value);
	struct lb_digest digest;

	lb_hrl_nonce(LB_HRL_INDEX_NONCE, nonce);
	assert_int_equal(lb_hrl_gcm_new(&machine_key, salt, &gcm), 0);
	assert_int_equal(lb_gcm_open(gcm, nonce, segment, LB_HRL_HEADER_BYTES, index, index_bytes, index), 0);
	memcpy(segment + lie->at, &value, lie->size_bytes);
	if (lie->digest_fits) {
		assert_int_equal(lb_hrl_digest_compute(segment, index, index_bytes - LB_HRL_PLACE_BYTES, &digest), 0);
		memcpy(segment + LB_HRL_AT_DIGEST, digest.bytes, sizeof(digest.bytes));
	}
	assert_int_equal(lb_gcm_seal(gcm, nonce, segment, LB_HRL_HEADER_BYTES, index, index_bytes, index), 0);
}

static void a_sealed_segment_that_breaks_a_rule_is_refused_though_authentic(void **state)
{
	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(sealed_lies); i++) {
		_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
		struct lb_hrl_segment *s = NULL;

		sample(&plain);
		seal_sample(&plain, 0, &sealed);
		reseal_head(sealed.data, &sealed_lies[i]);
		assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, sealed.data, SAMPLE_HEAD_BYTES, &s),
				 -EBADMSG);
		if (strstr(lb_err_text(), sealed_lies[i].text) == NULL)
			fail_msg("lie %zu: \"%s\" has no \"%s\"", i, lb_err_text(), sealed_lies[i].text);
	}
}

/* Opens the sample's only frame out of `body`, sealed as a writer with the key seals it. */
static int open_own_frame(const struct lb_hrl_segment *s, const void *body, size_t size_bytes)
{
	uint8_t aad[LB_HRL_FRAME_AAD_BYTES], nonce[LB_NONCE_BYTES], raw[SAMPLE_DATA_BYTES];
	uint8_t stored[SAMPLE_DATA_BYTES + LB_TAG_BYTES];

	assert_true(size_bytes <= SAMPLE_DATA_BYTES);
	lb_hrl_frame_aad(&s->head, 0, SAMPLE_DATA_BYTES, s->frames[0].codec, aad);
	lb_hrl_nonce(0, nonce);
	assert_int_equal(lb_gcm_seal(s->gcm, nonce, aad, sizeof(aad), body, size_bytes, stored), 0);
	s->frames[0].stored_bytes = (uint32_t)size_bytes + LB_TAG_BYTES;
	return lb_hrl_frame_open(s, 0, stored, size_bytes + LB_TAG_BYTES, raw);
}

static void an_authentic_frame_of_other_bytes_or_another_length_is_refused(void **state)
{
	static const uint8_t noise[SAMPLE_DATA_BYTES * 2] = {1, 2, 3};
	_cleanup_buf_ struct lb_buf plain = OUT, sealed = OUT;
	_cleanup_segment_ struct lb_hrl_segment *s = NULL;
	uint8_t compressed[SAMPLE_DATA_BYTES];
	size_t n;

	(void)state;
	sample(&plain);
	seal_sample(&plain, 0, &sealed);
	assert_int_equal(lb_hrl_open_sealed(&machine_key, &header, sealed.data, sealed.size_bytes, &s), 0);
	assert_int_equal(open_own_frame(s, plain.data + plain.size_bytes - SAMPLE_DATA_BYTES, SAMPLE_DATA_BYTES), 0);
	assert_int_equal(open_own_frame(s, noise, SAMPLE_DATA_BYTES), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "hash"));
	s->frames[0].codec = LB_HRL_CODEC_ZSTD;
	assert_int_equal(open_own_frame(s, noise, 100), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "can't be decompressed"));
	n = ZSTD_compress(compressed, sizeof(compressed), noise, 512, 1);
	assert_int_equal(open_own_frame(s, compressed, n), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "become 512 bytes"));
	n = ZSTD_compress(compressed, sizeof(compressed), noise, sizeof(noise), 1);
	assert_int_equal(open_own_frame(s, compressed, n), -EBADMSG);
	assert_non_null(strstr(lb_err_text(), "can't be decompressed"));
}

/* ---- the published vectors
 * --------------------------------------------------------------------------------------------- */

struct vector {
	json_t *json;
	struct lb_hrl_header header;
	struct lb_key key;
	uint8_t salt[LB_SALT_BYTES];
	int64_t receipt_ns, level;
	struct lb_digest digest;
	struct lb_buf plain, sealed;
};

static const char *member(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	if (text == NULL)
		fail_msg("the vector has no text %s", name);
	return text;
}

static uint64_t number(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	if (!json_is_integer(value))
		fail_msg("the vector has no number %s", name);
	return (uint64_t)json_integer_value(value);
}

static void hex(const json_t *object, const char *name, void *out, size_t size_bytes)
{
	assert_int_equal(lb_hex_decode(member(object, name), size_bytes, out), 0);
}

static void hex_buf(const json_t *object, const char *name, struct lb_buf *out)
{
	size_t size_bytes = strlen(member(object, name)) / 2;

	*out = OUT;
	assert_int_equal(lb_buf_reserve(out, size_bytes), 0);
	hex(object, name, out->data, size_bytes);
	out->size_bytes = size_bytes;
}

static uint32_t flags_of(const json_t *array)
{
	static const char *const names[] = {"point", "scanning", "mark_app", "mark_group", "heartbeat", "last"};
	uint32_t flags = 0;

	for (size_t i = 0; i < json_array_size(array); i++) {
		for (unsigned bit = 0; bit < LB_ARRAY_LEN(names); bit++) {
			if (strcmp(json_string_value(json_array_get(array, i)), names[bit]) == 0)
				flags |= 1u << bit;
		}
	}
	return flags;
}

static void vector_read(const char *name, struct vector *v)
{
	_cleanup_free_ uint8_t *text = NULL;
	const json_t *h;
	char path[512];
	size_t n;

	snprintf(path, sizeof(path), "%s/%s.json", LB_HRL_VECTORS, name);
	if (lb_file_read(lb_env_real(), path, LB_MIB(1), &text, &n) < 0 ||
	    lb_json_parse(text, n, LB_MIB(1), &v->json) < 0)
		fail_msg("%s", lb_err_text());
	h = json_object_get(v->json, "header");
	v->header.flags = flags_of(json_object_get(h, "flags"));
	hex(h, "vault", &v->header.vault, 16);
	hex(h, "machine", &v->header.machine, 16);
	hex(h, "instance", &v->header.instance, 16);
	hex(h, "prev_digest", &v->header.prev_digest, 32);
	v->header.epoch = number(h, "epoch");
	v->header.seq = number(h, "seq");
	v->header.ring_cut = number(h, "ring_cut");
	v->header.scan_cursor = number(h, "scan_cursor");
	v->header.time_first_ns = (int64_t)number(h, "time_first_ns");
	v->header.time_last_ns = (int64_t)number(h, "time_last_ns");
	v->receipt_ns = (int64_t)number(v->json, "receipt_ns");
	v->level = (int64_t)number(v->json, "zstd_level");
	hex(v->json, "machine_key", &v->key, sizeof(v->key));
	hex(v->json, "salt", v->salt, sizeof(v->salt));
	hex(v->json, "digest", &v->digest, sizeof(v->digest));
	hex_buf(v->json, "plain", &v->plain);
	hex_buf(v->json, "sealed", &v->sealed);
}

static void vector_free(struct vector *v)
{
	json_decref(v->json);
	lb_buf_free(&v->plain);
	lb_buf_free(&v->sealed);
}

static enum lb_hrl_kind kind_of(const char *name)
{
	static const char *const names[] = {"captured", "captured_zero", "scanned", "scanned_zero"};

	for (int i = 0; i < 4; i++) {
		if (strcmp(name, names[i]) == 0)
			return (enum lb_hrl_kind)(i + 1);
	}
	fail_msg("the vector's kind %s is unknown", name);
	return 0;
}

#define WRITES_MAX 16
#define WRITE_BYTES_MAX 8192

static void vector_build(const struct vector *v, struct lb_buf *out, struct lb_digest *ret_digest)
{
	_cleanup_free_ uint8_t *data = calloc(WRITES_MAX, WRITE_BYTES_MAX);
	_cleanup_builder_ struct lb_hrl_builder *b = new_builder();
	const json_t *writes = json_object_get(v->json, "writes");

	assert_true(json_array_size(writes) <= WRITES_MAX);
	for (size_t i = 0; i < json_array_size(writes); i++) {
		const json_t *w = json_array_get(writes, i);
		uint64_t length = number(w, "length_bytes");
		uint8_t *at = NULL;

		if (json_object_get(w, "fill") != NULL) {
			size_t fill_bytes = strlen(member(w, "fill")) / 2;
			uint8_t fill[16];

			assert_true(fill_bytes > 0 && fill_bytes <= sizeof(fill) && length <= WRITE_BYTES_MAX);
			hex(w, "fill", fill, fill_bytes);
			at = data + i * WRITE_BYTES_MAX;
			for (uint64_t j = 0; j < length; j++)
				at[j] = fill[j % fill_bytes];
		}
		add(b, (uint16_t)number(w, "disk"), kind_of(member(w, "kind")), number(w, "offset_bytes"), length, at);
	}
	assert_int_equal(lb_hrl_builder_finish(b, &v->header, out, ret_digest), 0);
}

static void vector_check(const char *name)
{
	_cleanup_(vector_free) struct vector v = {};
	_cleanup_buf_ struct lb_buf built = OUT, sealed = OUT;
	_cleanup_segment_ struct lb_hrl_segment *plain = NULL;
	struct lb_digest digest = {};

	vector_read(name, &v);
	if (json_object_get(v.json, "frame_bytes_max") == NULL) { /* else the frames aren't as our builder packs them */
		vector_build(&v, &built, &digest);
		assert_int_equal(built.size_bytes, v.plain.size_bytes);
		assert_memory_equal(built.data, v.plain.data, built.size_bytes);
		assert_memory_equal(&digest, &v.digest, sizeof(digest));
	}
	assert_int_equal(lb_hrl_open_plain(v.plain.data, v.plain.size_bytes, &plain), 0);
	assert_memory_equal(lb_hrl_digest(plain), &v.digest, sizeof(digest));
	assert_int_equal(open_whole(&v.key, &v.header, v.sealed.data, v.sealed.size_bytes, plain), 0);
	assert_int_equal(lb_hrl_seal(plain, &v.key, v.receipt_ns, v.salt, (int)v.level, &sealed), 0);
	if (v.level > 0) /* other versions of zstd make other bytes */
		return;
	assert_int_equal(sealed.size_bytes, v.sealed.size_bytes);
	assert_memory_equal(sealed.data, v.sealed.data, sealed.size_bytes);
}

static void the_published_vectors_are_made_and_opened_byte_for_byte(void **state)
{
	(void)state;
	vector_check("heartbeat");
	vector_check("overlaps");
	vector_check("compressed");
	vector_check("frames");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sealed_segment_opens_to_the_same_extents_bytes_and_digest),
		cmocka_unit_test(the_receipt_time_is_authenticated_and_outside_the_digest),
		cmocka_unit_test(every_shortened_sealed_segment_is_refused),
		cmocka_unit_test(every_flipped_bit_of_a_sealed_segment_is_refused),
		cmocka_unit_test(another_key_or_another_position_opens_nothing),
		cmocka_unit_test(a_frame_opens_only_in_its_own_place),
		cmocka_unit_test(plain_and_sealed_segments_are_not_taken_for_one_another),
		cmocka_unit_test(a_sealed_segment_that_breaks_a_rule_is_refused_though_authentic),
		cmocka_unit_test(an_authentic_frame_of_other_bytes_or_another_length_is_refused),
		cmocka_unit_test(the_published_vectors_are_made_and_opened_byte_for_byte),
	};

	return cmocka_run_group_tests_name("hrl_seal", tests, NULL, NULL);
}
