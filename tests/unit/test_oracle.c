/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle that judges recovery points must itself catch what it is there to catch. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/oracle.h"

#define DISK_SECTORS 256
#define N_WRITES 200
#define N_IN_FLIGHT 16

static uint8_t disk[DISK_SECTORS * ORACLE_SECTOR_BYTES];
static struct oracle_write writes[N_WRITES];
static struct oracle_log oracle = {.writes = writes, .n = N_WRITES};

/* Sixteen writes at a time are in flight, each batch on sectors of its own. */
static void plan(void)
{
	uint64_t state = 88172645463325252;

	for (uint64_t i = 0; i < N_WRITES; i++) {
		struct oracle_write *w = &writes[i];

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		*w = (struct oracle_write){.seq = i + 1,
					   .low = i / N_IN_FLIGHT * N_IN_FLIGHT,
					   .sector = i % N_IN_FLIGHT * (DISK_SECTORS / N_IN_FLIGHT) + state % 8,
					   .n_sectors = 2 + (uint32_t)(state >> 8) % 6,
					   .submitted_ns = (int64_t)i * 10 + 1,
					   .completed_ns = (int64_t)i * 10 + 5};
	}
}

static void apply(uint64_t i)
{
	for (uint32_t s = 0; s < writes[i].n_sectors; s++)
		oracle_stamp(disk + (writes[i].sector + s) * ORACLE_SECTOR_BYTES, 0, writes[i].sector + s,
			     writes[i].seq, writes[i].low);
}

static int judge(int64_t must_ns, struct oracle_verdict *v)
{
	const uint8_t *images[] = {disk};
	const uint64_t sizes[] = {sizeof(disk)};

	return oracle_check(&oracle, images, sizes, 1, must_ns, v);
}

static int fresh(void **state)
{
	(void)state;
	memset(disk, 0, sizeof(disk));
	plan();
	return 0;
}

static void every_prefix_of_the_writes_is_legal(void **state)
{
	struct oracle_verdict v;

	(void)state;
	for (uint64_t i = 0; i < N_WRITES; i++) {
		apply(i);
		assert_int_equal(judge(writes[i].completed_ns, &v), 0);
		assert_int_equal(v.newest, i + 1);
	}
}

static void writes_in_flight_may_be_absent(void **state)
{
	struct oracle_verdict v;

	(void)state;
	for (uint64_t i = 0; i < N_WRITES; i++)
		if (i < 64 || i % 2 == 0 || i / N_IN_FLIGHT < 4)
			if (i < 64 + N_IN_FLIGHT)
				apply(i);
	assert_int_equal(judge(0, &v), 0);
	assert_true(v.in_flight_absent > 0);
}

static void one_dropped_write_is_caught(void **state)
{
	struct oracle_verdict v;

	(void)state;
	/* the newest complete batch: only the first write of the next one has come, elsewhere, and says that it was
	 * complete */
	for (uint64_t dropped = 9 * N_IN_FLIGHT + 1; dropped < 10 * N_IN_FLIGHT; dropped++) {
		memset(disk, 0, sizeof(disk));
		for (uint64_t i = 0; i <= 10 * N_IN_FLIGHT; i++)
			if (i != dropped)
				apply(i);
		assert_int_equal(judge(0, &v), -EUCLEAN);
	}
}

static void two_swapped_writes_are_caught(void **state)
{
	struct oracle_verdict v;

	(void)state;
	writes[100].sector = writes[50].sector;
	writes[100].n_sectors = writes[50].n_sectors;
	for (uint64_t i = 0; i <= 128; i++)
		if (i != 50 && i != 66 && i != 82)
			apply(i);
	apply(50);
	assert_int_equal(judge(0, &v), -EUCLEAN);
}

static void a_torn_write_is_caught(void **state)
{
	struct oracle_verdict v;

	(void)state;
	for (uint64_t i = 0; i < 40; i++)
		apply(i);
	writes[40].sector = 3;
	oracle_stamp(disk + 3 * ORACLE_SECTOR_BYTES, 0, 3, writes[40].seq, writes[40].low);
	assert_int_equal(judge(0, &v), -EUCLEAN);
}

static void an_altered_sector_is_caught(void **state)
{
	struct oracle_verdict v;

	(void)state;
	apply(0);
	disk[writes[0].sector * ORACLE_SECTOR_BYTES + 300] ^= 1;
	assert_int_equal(judge(0, &v), -EUCLEAN);
}

static void a_point_that_is_older_than_its_time_is_caught(void **state)
{
	struct oracle_verdict v;

	(void)state;
	for (uint64_t i = 0; i < 48; i++)
		apply(i);
	assert_int_equal(judge(writes[47].completed_ns + 1, &v), 0);
	assert_int_equal(judge(writes[48].completed_ns + 1, &v), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(every_prefix_of_the_writes_is_legal, fresh),
		cmocka_unit_test_setup(writes_in_flight_may_be_absent, fresh),
		cmocka_unit_test_setup(one_dropped_write_is_caught, fresh),
		cmocka_unit_test_setup(two_swapped_writes_are_caught, fresh),
		cmocka_unit_test_setup(a_torn_write_is_caught, fresh),
		cmocka_unit_test_setup(an_altered_sector_is_caught, fresh),
		cmocka_unit_test_setup(a_point_that_is_older_than_its_time_is_caught, fresh),
	};

	return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
