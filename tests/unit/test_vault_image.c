/* SPDX-License-Identifier: Apache-2.0 */
/* Journals written at random, images compared byte by byte with arrays that were written the same way. */
#include <errno.h>
#include <pthread.h>

#include "vault_site.h"

#define DISKS 2
#define DISK_BYTES (1u << 20)
#define POSITIONS_MAX 400
#define SECTORS (DISK_BYTES / LB_HRL_SECTOR_BYTES)

/* What each disk should be: the epoch before, the scan and the captured writes as three layers. */
struct oracle {
	uint8_t before[DISKS][DISK_BYTES];
	uint8_t scanned[DISKS][DISK_BYTES], captured[DISKS][DISK_BYTES];
	bool is_scanned[DISKS][SECTORS], is_captured[DISKS][SECTORS];
};

struct kept {
	struct lb_position position;
	uint8_t *disk[DISKS];
};

static void oracle_image(const struct oracle *o, uint16_t disk, uint8_t *out)
{
	memcpy(out, o->before[disk], DISK_BYTES);
	for (size_t i = 0; i < SECTORS; i++) {
		const uint8_t *from = o->is_captured[disk][i]  ? o->captured[disk]
				      : o->is_scanned[disk][i] ? o->scanned[disk]
							       : NULL;

		if (from != NULL)
			memcpy(out + i * 512, from + i * 512, 512);
	}
}

static void oracle_next_epoch(struct oracle *o)
{
	static uint8_t image[DISK_BYTES];

	for (uint16_t d = 0; d < DISKS; d++) {
		oracle_image(o, d, image);
		memcpy(o->before[d], image, DISK_BYTES);
	}
	memset(o->is_scanned, 0, sizeof(o->is_scanned));
	memset(o->is_captured, 0, sizeof(o->is_captured));
}

static uint32_t below(unsigned int *seed, uint32_t n)
{
	return (uint32_t)rand_r(seed) % n;
}

/* One random write into builder and oracle; `data` must live until the segment is finished. */
static void random_write(struct site *s, struct oracle *o, unsigned int *seed, uint8_t *data, size_t data_bytes,
			 bool *scanned_now)
{
	uint32_t sectors = 1 + below(seed, (uint32_t)(data_bytes / 512)), at = below(seed, SECTORS - sectors);
	bool scanned = below(seed, 3) == 0, zero = below(seed, 6) == 0;
	uint16_t disk = (uint16_t)below(seed, DISKS);
	bool *is = scanned ? o->is_scanned[disk] : o->is_captured[disk];
	uint8_t *image = scanned ? o->scanned[disk] : o->captured[disk];
	enum lb_hrl_kind kind = scanned ? (zero ? LB_HRL_SCANNED_ZERO : LB_HRL_SCANNED)
					: (zero ? LB_HRL_CAPTURED_ZERO : LB_HRL_CAPTURED);

	for (uint32_t i = 0; scanned && i < sectors; i++)
		if (scanned_now[disk * SECTORS + at + i])
			return; /* a scan reads each place once in a segment */
	for (size_t i = 0; i < sectors * 512; i += 64)
		memset(data + i, (int)below(seed, 256), 64);
	ok(lb_hrl_builder_add(s->builder, disk, kind, (uint64_t)at * 512, (uint64_t)sectors * 512, zero ? NULL : data));
	for (uint32_t i = 0; i < sectors; i++) {
		is[at + i] = true;
		if (scanned)
			scanned_now[disk * SECTORS + at + i] = true;
		if (zero)
			memset(image + (at + i) * 512, 0, 512);
		else
			memcpy(image + (at + i) * 512, data + i * 512, 512);
	}
}

static void random_segment(struct site *s, struct oracle *o, unsigned int *seed, struct lb_buf *sealed)
{
	static uint8_t data[12][64 * 512];
	static bool scanned_now[DISKS * SECTORS];
	uint32_t n = below(seed, 12);

	memset(scanned_now, 0, sizeof(scanned_now));
	for (uint32_t i = 0; i < n; i++)
		random_write(s, o, seed, data[i], sizeof(data[i]), scanned_now);
	site_seal(s, LB_HRL_POINT, sealed);
}

static void keep(struct kept *k, const struct oracle *o, uint64_t epoch, uint64_t seq)
{
	k->position = (struct lb_position){.epoch = epoch, .seq = seq};
	for (uint16_t d = 0; d < DISKS; d++) {
		k->disk[d] = malloc(DISK_BYTES);
		assert_non_null(k->disk[d]);
		oracle_image(o, d, k->disk[d]);
	}
}

static void compare(struct site *s, const struct kept *k, unsigned int *seed)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	static uint8_t got[DISK_BYTES];

	ok(lb_image_open(s->vault, &s->machine, &k->position, 0, &image));
	for (uint16_t d = 0; d < DISKS; d++) {
		uint32_t at = below(seed, DISK_BYTES - 1), n = 1 + below(seed, DISK_BYTES - at - 1);

		ok(lb_image_pread(image, d, got, DISK_BYTES, 0));
		assert_memory_equal(got, k->disk[d], DISK_BYTES);
		memset(got, 0xee, n);
		ok(lb_image_pread(image, d, got, n, at)); /* at any byte, of any length */
		assert_memory_equal(got, k->disk[d] + at, n);
	}
}

static void every_position_of_a_random_journal_reads_as_the_disks_were(void **state)
{
	struct oracle *o = calloc(1, sizeof(*o));
	struct kept *kept = calloc(POSITIONS_MAX, sizeof(*kept));
	unsigned int seed = 20260131;
	struct site s;
	size_t n = 0;
	bool written;

	(void)state;
	site_new(&s);
	for (uint64_t epoch = 1; epoch <= 4; epoch++) {
		site_begin(&s, epoch);
		oracle_next_epoch(o);
		for (int object = 0; object < 12; object++) {
			struct lb_buf sealed[5];
			uint32_t m = 1 + below(&seed, 5);

			for (uint32_t i = 0; i < m; i++) {
				sealed[i] = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
				random_segment(&s, o, &seed, &sealed[i]);
				if (below(&seed, 2) == 0)
					keep(&kept[n++], o, epoch, s.seq - 1);
			}
			ok(site_append(&s, sealed, m));
			for (uint32_t i = 0; i < m; i++)
				lb_buf_free(&sealed[i]);
			if (below(&seed, 9) == 0)
				ok(lb_checkpoint_write(s.vault, &s.machine, true, &written));
		}
	}
	assert_true(n > 40);
	for (size_t i = 0; i < n; i++) {
		compare(&s, &kept[i], &seed);
		for (uint16_t d = 0; d < DISKS; d++)
			free(kept[i].disk[d]);
	}
	free(kept);
	free(o);
	site_free(&s);
}

static void a_scan_that_comes_later_never_hides_what_was_captured_before_it(void **state)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	uint8_t old[8192], fresh[4096], got[8192];
	struct lb_position position = {.epoch = 1, .seq = 1};
	struct site s;

	(void)state;
	memset(old, 1, sizeof(old));
	memset(fresh, 2, sizeof(fresh));
	site_new(&s);
	site_begin(&s, 1);
	site_add(&s, LB_HRL_CAPTURED, 4096, sizeof(fresh), fresh);
	site_write(&s, LB_HRL_SCANNING);
	site_add(&s, LB_HRL_SCANNED, 0, sizeof(old), old);
	site_write(&s, LB_HRL_POINT);
	ok(lb_image_open(s.vault, &s.machine, &position, 0, &image));
	ok(lb_image_pread(image, 0, got, sizeof(got), 0));
	assert_memory_equal(got, old, 4096);
	assert_memory_equal(got + 4096, fresh, 4096);
	lb_image_freep(&image);
	image = NULL;
	site_free(&s);
}

struct extents {
	struct lb_image_extent e[16];
	size_t n;
};

static int note_extent(void *arg, const struct lb_image_extent *e)
{
	struct extents *x = arg;

	assert_true(x->n < 16);
	x->e[x->n++] = *e;
	return 0;
}

static void extents_tell_data_from_zeroes_and_cover_what_was_asked(void **state)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct lb_position position = {.epoch = 1, .seq = 0};
	struct extents x = {0};
	uint8_t data[8192];
	struct site s;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + 1);
	site_new(&s);
	site_begin(&s, 1);
	site_add(&s, LB_HRL_CAPTURED, 8192, 4096, data);
	site_add(&s, LB_HRL_CAPTURED, 12288, 4096, data + 4096);
	site_add(&s, LB_HRL_CAPTURED_ZERO, 20480, 4096, NULL);
	site_add(&s, LB_HRL_CAPTURED, 24576, 512, data);
	site_write(&s, LB_HRL_POINT);
	ok(lb_image_open(s.vault, &s.machine, &position, 0, &image));
	ok(lb_image_extents(image, 0, 1000, 31768, note_extent, &x));
	assert_int_equal(x.n, 5);
	assert_true(x.e[0].zero && x.e[0].offset_bytes == 1000 && x.e[0].length_bytes == 7192);
	assert_true(!x.e[1].zero && x.e[1].offset_bytes == 8192 && x.e[1].length_bytes == 8192);
	assert_true(x.e[2].zero && x.e[2].offset_bytes == 16384 && x.e[2].length_bytes == 8192);
	assert_true(!x.e[3].zero && x.e[3].offset_bytes == 24576 && x.e[3].length_bytes == 512);
	assert_true(x.e[4].zero && x.e[4].offset_bytes == 25088 && x.e[4].length_bytes == 7680);
	lb_image_freep(&image);
	image = NULL;
	site_free(&s);
}

#define READERS 4

struct reader {
	struct lb_image *image;
	const uint8_t *expect;
	unsigned int seed;
	int wrong;
};

static void *read_at_random(void *arg)
{
	static __thread uint8_t got[65536];
	struct reader *r = arg;

	for (int i = 0; i < 300; i++) {
		uint32_t n = 1 + below(&r->seed, sizeof(got)), at = below(&r->seed, (4u << 20) - n);

		if (lb_image_pread(r->image, 0, got, n, at) < 0 || memcmp(got, r->expect + at, n) != 0)
			r->wrong++;
	}
	return NULL;
}

static void readers_in_parallel_with_a_small_cache_see_the_same_bytes(void **state)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct lb_position position = {.epoch = 1, .seq = 3};
	struct reader readers[READERS];
	pthread_t threads[READERS];
	uint8_t *disk = malloc(4u << 20);
	struct site s;

	(void)state;
	assert_non_null(disk);
	for (size_t i = 0; i < 4u << 20; i++)
		disk[i] = (uint8_t)(i >> 9 ^ i);
	site_new(&s);
	site_begin(&s, 1);
	for (int i = 0; i < 4; i++) {
		site_add(&s, LB_HRL_CAPTURED, (uint64_t)i << 20, 1u << 20, disk + ((size_t)i << 20));
		site_write(&s, LB_HRL_POINT);
	}
	ok(lb_image_open(s.vault, &s.machine, &position, 1, &image));
	for (unsigned int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.image = image, .expect = disk, .seed = i};
		assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &readers[i]), 0);
	}
	for (unsigned int i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].wrong, 0);
	}
	free(disk);
	lb_image_freep(&image);
	image = NULL;
	site_free(&s);
}

static void a_damaged_checkpoint_costs_time_but_no_point(void **state)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL, *again = NULL;
	struct lb_position position = {.epoch = 1, .seq = 2};
	struct lb_image_stats stats;
	struct site_names *names = calloc(1, sizeof(*names));
	uint8_t got[4096];
	struct site s;
	bool written;

	(void)state;
	site_new(&s);
	site_begin(&s, 1);
	for (uint8_t i = 0; i < 3; i++)
		site_write_block(&s, i, i + 1, LB_HRL_POINT);
	ok(lb_checkpoint_write(s.vault, &s.machine, true, &written));
	assert_true(written);
	ok(lb_image_open(s.vault, &s.machine, &position, 0, &image));
	lb_image_stats(image, &stats);
	assert_true(stats.from_checkpoint);
	site_names(&s, "/c/", names);
	assert_int_equal(names->n, 1);
	site_flip(&s, names->name[0], 100);
	ok(lb_image_open(s.vault, &s.machine, &position, 0, &again));
	lb_image_stats(again, &stats);
	assert_false(stats.from_checkpoint);
	ok(lb_image_pread(again, 0, got, sizeof(got), 8192));
	assert_int_equal(got[1], 3);
	free(names);
	lb_image_freep(&image);
	image = NULL;
	lb_image_freep(&again);
	again = NULL;
	site_free(&s);
}

static void a_position_that_the_journal_does_not_hold_is_told_with_its_end(void **state)
{
	struct lb_image *image;
	struct site s;

	(void)state;
	site_new(&s);
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	fails_naming(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = 1, .seq = 7}, 0, &image),
		     -ENOENT, "1:0");
	site_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_position_of_a_random_journal_reads_as_the_disks_were),
		cmocka_unit_test(a_scan_that_comes_later_never_hides_what_was_captured_before_it),
		cmocka_unit_test(extents_tell_data_from_zeroes_and_cover_what_was_asked),
		cmocka_unit_test(readers_in_parallel_with_a_small_cache_see_the_same_bytes),
		cmocka_unit_test(a_damaged_checkpoint_costs_time_but_no_point),
		cmocka_unit_test(a_position_that_the_journal_does_not_hold_is_told_with_its_end),
	};

	return cmocka_run_group_tests_name("vault_image", tests, NULL, NULL);
}
