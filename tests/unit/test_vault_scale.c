/* SPDX-License-Identifier: Apache-2.0 */
/* What the figures for large disks rest on: checkpoints of many frames, frames read one by one or ahead. */
#include <errno.h>
#include <time.h>

#include "vault/checkpoint.h"
#include "vault_site.h"

#define EXTENTS 900000 /* frames of 1 MiB hold about 120000 */
#define FRAMES 32
#define FRAME_BYTES LB_HRL_FRAME_BYTES_MAX
#define WAIT_S_MAX 60

/* Scattered places of a 1 TiB disk; the same for the same `i`. */
static struct lb_map_extent extent_at(uint32_t i)
{
	return (struct lb_map_extent){.start = (uint64_t)i * 2300 + i % 7,
				      .sectors = 1 + i % 300,
				      .segment = (i * 2654435761u) % 1000,
				      .frame = i % 90,
				      .frame_sector = (uint16_t)(i % 200),
				      .kind = LB_HRL_CAPTURED};
}

static void put_large_checkpoint(struct site *s, struct lb_checkpoint *c)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	uint32_t index;

	ok(lb_map_new(&map));
	for (uint32_t i = 0; i < 1000; i++)
		ok(lb_map_segment_add(
			map, &(struct lb_map_segment){.epoch = 1, .seq = i, .size_bytes = 2000, .head_bytes = 1000},
			&index));
	for (uint32_t i = 0; i < EXTENTS; i++) {
		struct lb_map_extent x = extent_at(i);

		ok(lb_map_insert(map, 0, &x));
	}
	c->machine = s->machine;
	c->place = (struct lb_place){.epoch = 1, .number = 1000};
	ok(lb_checkpoint_put(s->vault, c, map));
	assert_true(c->n_frames > 6); /* so that threads read it */
}

struct expecting {
	const struct lb_map *map;
	uint32_t i;
};

static int expect_extent(void *arg, const struct lb_map_extent *x)
{
	struct expecting *e = arg;
	struct lb_map_extent want = extent_at(e->i++);
	const struct lb_map_segment *segment = lb_map_segment(e->map, x->segment);

	assert_true(x->start == want.start && x->sectors == want.sectors && segment->seq == want.segment);
	assert_true(x->frame == want.frame && x->frame_sector == want.frame_sector && x->kind == want.kind);
	return 0;
}

static void a_checkpoint_of_many_frames_is_the_map_that_was_put(void **state)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = calloc(1, sizeof(*c)), *again = NULL;
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;
	struct expecting e = {0};
	struct site s;

	(void)state;
	assert_non_null(c);
	site_new(&s);
	put_large_checkpoint(&s, c);
	ok(lb_checkpoint_read(s.vault, &s.machine, &c->place, &again));
	ok(lb_checkpoint_load(s.vault, again, &map));
	e.map = map;
	ok(lb_map_walk(map, 0, 0, UINT64_C(1) << 50, expect_extent, &e));
	assert_int_equal(e.i, EXTENTS);
	assert_true(lb_map_bytes(map) < EXTENTS * 30ull);
	site_free(&s);
}

static void one_damaged_frame_among_many_is_found_and_named(void **state)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = calloc(1, sizeof(*c));
	char name[LB_OBJECT_NAME_BYTES], which[32];
	struct lb_map *map;
	uint32_t last;
	struct site s;

	(void)state;
	assert_non_null(c);
	site_new(&s);
	put_large_checkpoint(&s, c);
	last = c->n_frames - 1;
	assert_int_equal(c->frames[last].part, 0);
	ok(lb_checkpoint_name(name, &s.machine, &c->place));
	site_flip(&s, name, c->frames[last].offset_bytes + 5);
	snprintf(which, sizeof(which), "frame %u of", last);
	fails_naming(lb_checkpoint_load(s.vault, c, &map), -EBADMSG, which);
	site_free(&s);
}

static void fill(uint8_t *data, size_t size_bytes)
{
	for (size_t i = 0; i < size_bytes; i++)
		data[i] = (uint8_t)(i >> 9 ^ i >> 3 ^ i);
}

/* A disk of FRAMES frames, in segments of 8. */
static struct lb_image *site_image(struct site *s, uint8_t *data)
{
	struct lb_image *image;

	fill(data, (size_t)FRAMES * FRAME_BYTES);
	site_new(s);
	site_begin(s, 1);
	for (size_t at = 0; at < (size_t)FRAMES * FRAME_BYTES; at += 8 * FRAME_BYTES) {
		site_add(s, LB_HRL_CAPTURED, at, 8ull * FRAME_BYTES, data + at);
		site_write(s, LB_HRL_POINT);
	}
	ok(lb_image_open(s->vault, &s->machine, &(struct lb_position){.epoch = 1, .seq = s->seq - 1},
			 LB_IMAGE_CACHE_BYTES_DEFAULT, &image));
	return image;
}

static uint64_t objects_read(struct lb_image *image)
{
	struct lb_image_stats stats;

	lb_image_stats(image, &stats);
	return stats.objects_read;
}

static void a_small_read_fetches_the_head_of_its_segment_once_and_its_frame(void **state)
{
	_cleanup_free_ uint8_t *data = malloc((size_t)FRAMES * FRAME_BYTES);
	struct lb_image *image;
	uint8_t got[4096];
	uint64_t before;
	struct site s;

	(void)state;
	assert_non_null(data);
	image = site_image(&s, data);
	before = objects_read(image);
	for (uint64_t i = 0; i < FRAMES; i++) {
		uint64_t at = (i * 11 % FRAMES) * FRAME_BYTES + i * sizeof(got); /* here and there */

		ok(lb_image_pread(image, 0, got, sizeof(got), at));
		assert_memory_equal(got, data + at, sizeof(got));
		ok(lb_image_pread(image, 0, got, sizeof(got), at)); /* from the cache */
	}
	assert_int_equal(objects_read(image) - before, FRAMES + FRAMES / 8);
	lb_image_free(image);
	site_free(&s);
}

static void reads_in_order_are_read_ahead_and_give_the_same_bytes(void **state)
{
	_cleanup_free_ uint8_t *data = malloc((size_t)FRAMES * FRAME_BYTES), *got = malloc(FRAME_BYTES);
	struct timespec pause = {.tv_nsec = 5000000};
	struct lb_image *image;
	uint64_t before, at = 0;
	int64_t until_ns;
	struct site s;

	(void)state;
	assert_true(data != NULL && got != NULL);
	image = site_image(&s, data);
	before = objects_read(image);
	for (; at < 2ull * FRAME_BYTES; at += 65536)
		ok(lb_image_pread(image, 0, got, 65536, at));
	/* two frames and a head were asked for; what comes beside is ahead */
	until_ns = lb_mono_ns(lb_env_real()) + WAIT_S_MAX * LB_NS_PER_S;
	while (objects_read(image) - before < 6) {
		assert_true(lb_mono_ns(lb_env_real()) < until_ns);
		nanosleep(&pause, NULL);
	}
	for (; at < (uint64_t)FRAMES * FRAME_BYTES; at += FRAME_BYTES) {
		ok(lb_image_pread(image, 0, got, FRAME_BYTES, at));
		assert_memory_equal(got, data + at, FRAME_BYTES);
	}
	lb_image_free(image); /* also while threads read ahead */
	site_free(&s);
}

static void what_is_lost_ahead_fails_only_the_read_that_needs_it(void **state)
{
	_cleanup_free_ uint8_t *data = malloc((size_t)FRAMES * FRAME_BYTES), *got = malloc(FRAME_BYTES);
	struct site_names *names = calloc(1, sizeof(*names));
	struct lb_image *image;
	char path[512];
	struct site s;

	(void)state;
	assert_true(data != NULL && got != NULL && names != NULL);
	image = site_image(&s, data);
	site_names(&s, "/e/", names);
	assert_int_equal(names->n, FRAMES / 8);
	site_path(&s, names->name[2], path);
	assert_int_equal(remove(path), 0);
	for (uint64_t i = 0; i < FRAMES; i++) {
		if (i / 8 == 2) {
			fails_naming(lb_image_pread(image, 0, got, FRAME_BYTES, i * FRAME_BYTES), -EBADMSG, "is lost");
			continue;
		}
		ok(lb_image_pread(image, 0, got, FRAME_BYTES, i * FRAME_BYTES));
		assert_memory_equal(got, data + i * FRAME_BYTES, FRAME_BYTES);
	}
	free(names);
	lb_image_free(image);
	site_free(&s);
}

static void a_machine_among_many_is_found_by_its_name(void **state)
{
	struct lb_catalog_item item = {.firmware = "bios", .architecture = "x86_64", .policy = "default"}, found;
	struct site_names *names = calloc(1, sizeof(*names));
	struct site s;

	(void)state;
	assert_non_null(names);
	site_new(&s);
	for (uint8_t i = 1; i <= 40; i++) {
		struct lb_key key;

		memset(item.machine.bytes, i, sizeof(item.machine.bytes));
		snprintf(item.name, sizeof(item.name), "machine-%u", i % 39);
		ok(lb_vault_machine_key(s.vault, &item.machine, true, &key));
		ok(lb_catalog_put(s.vault, &item));
	}
	ok(lb_catalog_find(s.vault, "machine-30", &found));
	assert_int_equal(found.machine.bytes[0], 30);
	fails_naming(lb_catalog_find(s.vault, "machine-1", &found), -EEXIST, "01010101-0101-0101-0101-010101010101");
	fails_naming(lb_catalog_find(s.vault, "machine-1", &found), -EEXIST, "28282828-2828-2828-2828-282828282828");
	fails_naming(lb_catalog_find(s.vault, "nobody", &found), -ENOENT, "nobody");
	site_names(&s, "1e1e1e1e-1e1e-1e1e-1e1e-1e1e1e1e1e1e/item", names);
	assert_int_equal(names->n, 1);
	site_flip(&s, names->name[0], 60);
	fails_naming(lb_catalog_find(s.vault, "machine-30", &found), -EBADMSG, "1 can't be read");
	free(names);
	site_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_checkpoint_of_many_frames_is_the_map_that_was_put),
		cmocka_unit_test(one_damaged_frame_among_many_is_found_and_named),
		cmocka_unit_test(a_small_read_fetches_the_head_of_its_segment_once_and_its_frame),
		cmocka_unit_test(reads_in_order_are_read_ahead_and_give_the_same_bytes),
		cmocka_unit_test(a_machine_among_many_is_found_by_its_name),
		cmocka_unit_test(what_is_lost_ahead_fails_only_the_read_that_needs_it),
	};

	return cmocka_run_group_tests_name("vault_scale", tests, NULL, NULL);
}
