/* SPDX-License-Identifier: Apache-2.0 */
/* The extent map against a plain array that has one entry per sector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "vault/map.h"

#define SECTORS 3000

/* What one sector should be; segment and frame tell where its bytes are. */
struct cell {
	uint8_t kind; /* 0: a gap */
	uint64_t epoch, seq;
	uint32_t frame, frame_sector;
};

struct fixture {
	struct lb_map *map;
	struct cell cell[SECTORS];
	uint32_t segment; /* the newest */
	uint64_t epoch, seq;
	unsigned int seed;
};

static uint32_t below(struct fixture *f, uint32_t n)
{
	return (uint32_t)rand_r(&f->seed) % n;
}

static void next_segment(struct fixture *f, bool next_epoch)
{
	struct lb_map_segment s = {.epoch = f->epoch += next_epoch, .seq = f->seq++};

	assert_int_equal(lb_map_segment_add(f->map, &s, &f->segment), 0);
}

static struct fixture *fixture_new(unsigned int seed)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->seed = seed;
	assert_int_equal(lb_map_new(&f->map), 0);
	next_segment(f, true);
	return f;
}

static void fixture_free(struct fixture *f)
{
	lb_map_free(f->map);
	free(f);
}

static void insert(struct fixture *f, uint8_t kind, uint32_t start, uint32_t sectors, uint32_t frame)
{
	bool has_data = lb_hrl_kind_has_data(kind);
	struct lb_map_extent x = {.start = start,
				  .sectors = sectors,
				  .segment = f->segment,
				  .frame = has_data ? frame : 0,
				  .frame_sector = has_data ? (uint16_t)(start % 100) : 0,
				  .kind = kind};

	assert_int_equal(lb_map_insert(f->map, 7, &x), 0);
	for (uint32_t i = 0; i < sectors; i++) {
		struct cell *c = &f->cell[start + i];

		if (lb_hrl_kind_is_scanned(kind) && c->kind != 0 && !lb_hrl_kind_is_scanned(c->kind) &&
		    c->epoch == f->epoch)
			continue;
		*c = (struct cell){.kind = kind,
				   .epoch = f->epoch,
				   .seq = lb_map_segment(f->map, f->segment)->seq,
				   .frame = x.frame,
				   .frame_sector = has_data ? x.frame_sector + i : 0};
	}
}

struct checking {
	struct fixture *f;
	uint64_t at, end; /* sectors before `at` were compared */
};

static int check_extent(void *arg, const struct lb_map_extent *x)
{
	struct checking *c = arg;

	assert_true(x->start >= c->at && x->sectors > 0 && x->start + x->sectors <= c->end);
	for (; c->at < x->start; c->at++)
		assert_int_equal(c->f->cell[c->at].kind, 0);
	for (uint32_t i = 0; i < x->sectors; i++, c->at++) {
		const struct cell *cell = &c->f->cell[c->at];

		assert_int_equal(cell->kind, x->kind);
		assert_int_equal(cell->epoch, lb_map_segment(c->f->map, x->segment)->epoch);
		if (lb_hrl_kind_has_data(x->kind)) {
			assert_int_equal(cell->seq, lb_map_segment(c->f->map, x->segment)->seq);
			assert_int_equal(cell->frame, x->frame);
			assert_int_equal(cell->frame_sector, x->frame_sector + i);
		}
	}
	return 0;
}

static void check_range(struct fixture *f, uint32_t start, uint32_t sectors)
{
	struct checking c = {.f = f, .at = start, .end = start + sectors};

	assert_int_equal(lb_map_walk(f->map, 7, start, sectors, check_extent, &c), 0);
	for (; c.at < c.end; c.at++)
		assert_int_equal(f->cell[c.at].kind, 0);
}

static void random_operations(struct fixture *f, unsigned int operations, uint32_t sectors_max)
{
	for (unsigned int i = 0; i < operations; i++) {
		uint32_t sectors = 1 + below(f, sectors_max), start = below(f, SECTORS - sectors);

		if (below(f, 10) == 0)
			next_segment(f, below(f, 4) == 0);
		insert(f, (uint8_t)(LB_HRL_CAPTURED + below(f, 4)), start, sectors, below(f, 3));
		start = below(f, SECTORS - 200);
		check_range(f, start, 1 + below(f, 200));
	}
	check_range(f, 0, SECTORS);
}

static void random_inserts_of_every_kind_agree_with_a_plain_array(void **state)
{
	(void)state;
	for (unsigned int seed = 1; seed <= 30; seed++) {
		struct fixture *f = fixture_new(seed);

		random_operations(f, 2000, seed % 3 == 0 ? 300 : 4);
		fixture_free(f);
	}
}

/* What is inserted from here on goes into a map of its own. */
static struct lb_map *put_aside(struct fixture *f)
{
	struct lb_map *map = f->map;

	assert_int_equal(lb_map_new(&f->map), 0);
	next_segment(f, below(f, 2) == 0);
	return map;
}

static void insert_randomly(struct fixture *f, unsigned int operations, uint32_t sectors_max)
{
	for (unsigned int i = 0; i < operations; i++) {
		uint32_t sectors = 1 + below(f, sectors_max);

		if (below(f, 10) == 0)
			next_segment(f, below(f, 4) == 0);
		insert(f, (uint8_t)(LB_HRL_CAPTURED + below(f, 4)), below(f, SECTORS - sectors), sectors, below(f, 3));
	}
}

static void maps_laid_over_one_another_are_what_inserting_all_would_have_made(void **state)
{
	(void)state;
	for (unsigned int seed = 1; seed <= 60; seed++) {
		struct fixture *f = fixture_new(seed);
		uint32_t sectors_max = seed % 3 == 0 ? 300 : 4;
		struct lb_map *first, *second;

		insert_randomly(f, below(f, 2000), sectors_max);
		first = put_aside(f);
		insert_randomly(f, below(f, 2000), sectors_max);
		second = put_aside(f);
		insert_randomly(f, below(f, 200), sectors_max);
		if (seed % 2 == 0) { /* in either order */
			assert_int_equal(lb_map_merge(first, second, &first), 0);
			assert_int_equal(lb_map_merge(first, f->map, &f->map), 0);
		} else {
			assert_int_equal(lb_map_merge(second, f->map, &f->map), 0);
			assert_int_equal(lb_map_merge(first, f->map, &f->map), 0);
		}
		check_range(f, 0, SECTORS);
		next_segment(f, false);
		insert_randomly(f, 500, sectors_max); /* it is a map as any other */
		check_range(f, 0, SECTORS);
		fixture_free(f);
	}
}

static void maps_of_different_disks_are_put_side_by_side(void **state)
{
	struct lb_map_extent x = {.start = 5, .sectors = 5, .kind = LB_HRL_CAPTURED};
	struct fixture *f = fixture_new(1);
	struct lb_map *other;

	(void)state;
	insert(f, LB_HRL_CAPTURED, 0, 20, 1);
	assert_int_equal(lb_map_new(&other), 0);
	assert_int_equal(lb_map_segment_add(other, &(struct lb_map_segment){.epoch = 9}, &x.segment), 0);
	assert_int_equal(lb_map_insert(other, 8, &x), 0);
	assert_int_equal(lb_map_merge(f->map, other, &f->map), 0);
	assert_int_equal(lb_map_disks(f->map), 2);
	assert_int_equal(lb_map_extents(f->map), 2);
	check_range(f, 0, SECTORS);
	fixture_free(f);
}

static void many_small_extents_and_then_a_large_one_leave_no_debris(void **state)
{
	struct fixture *f = fixture_new(1);

	(void)state;
	for (uint32_t i = 0; i < SECTORS; i += 2)
		insert(f, LB_HRL_CAPTURED, i, 1, i);
	assert_int_equal(lb_map_extents(f->map), SECTORS / 2);
	check_range(f, 0, SECTORS);
	insert(f, LB_HRL_CAPTURED_ZERO, 1, SECTORS - 2, 0);
	assert_int_equal(lb_map_extents(f->map), 2); /* sector 0, and the zeroes */
	check_range(f, 0, SECTORS);
	fixture_free(f);
}

static void a_scan_never_hides_what_its_epoch_captured_but_all_of_older_epochs(void **state)
{
	struct fixture *f = fixture_new(1);

	(void)state;
	insert(f, LB_HRL_CAPTURED, 100, 50, 1);
	next_segment(f, true);
	insert(f, LB_HRL_CAPTURED, 120, 10, 1);
	insert(f, LB_HRL_CAPTURED_ZERO, 140, 5, 1);
	insert(f, LB_HRL_SCANNED, 90, 70, 2);
	check_range(f, 0, SECTORS);
	assert_int_equal(f->cell[100].kind, LB_HRL_SCANNED);
	assert_int_equal(f->cell[125].kind, LB_HRL_CAPTURED);
	assert_int_equal(f->cell[142].kind, LB_HRL_CAPTURED_ZERO);
	insert(f, LB_HRL_CAPTURED, 95, 1, 3);
	assert_int_equal(f->cell[95].kind, LB_HRL_CAPTURED);
	check_range(f, 0, SECTORS);
	fixture_free(f);
}

static void a_sequential_fill_of_one_frame_stays_one_extent(void **state)
{
	struct fixture *f = fixture_new(1);

	(void)state;
	for (uint32_t i = 0; i < 90; i++)
		insert(f, LB_HRL_CAPTURED, i, 1, 5);
	assert_int_equal(lb_map_extents(f->map), 1);
	check_range(f, 0, SECTORS);
	fixture_free(f);
}

static void disks_do_not_touch_one_another(void **state)
{
	struct lb_map_extent x = {.start = 5, .sectors = 5, .kind = LB_HRL_CAPTURED};
	struct fixture *f = fixture_new(1);

	(void)state;
	insert(f, LB_HRL_CAPTURED, 0, 20, 1);
	assert_int_equal(lb_map_insert(f->map, 8, &x), 0);
	assert_int_equal(lb_map_disks(f->map), 2);
	check_range(f, 0, SECTORS);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_inserts_of_every_kind_agree_with_a_plain_array),
		cmocka_unit_test(maps_laid_over_one_another_are_what_inserting_all_would_have_made),
		cmocka_unit_test(maps_of_different_disks_are_put_side_by_side),
		cmocka_unit_test(many_small_extents_and_then_a_large_one_leave_no_debris),
		cmocka_unit_test(a_scan_never_hides_what_its_epoch_captured_but_all_of_older_epochs),
		cmocka_unit_test(a_sequential_fill_of_one_frame_stays_one_extent),
		cmocka_unit_test(disks_do_not_touch_one_another),
	};

	return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
