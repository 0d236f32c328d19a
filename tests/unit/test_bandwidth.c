/* SPDX-License-Identifier: Apache-2.0 */
/* Time zones, and the limits that hold by hours of the week. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "wire/policy.h"

#define KIB UINT64_C(1024)

static int64_t at(const char *utc)
{
	int64_t ns;

	assert_int_equal(lb_time_parse(utc, &ns), 0);
	return ns;
}

static void windows(struct lb_bandwidth *b, const char *text)
{
	_cleanup_json_ json_t *list = NULL;

	memset(b, 0, sizeof(*b));
	assert_int_equal(lb_bandwidth_text_parse(text, &list), 0);
	assert_int_equal(lb_bandwidth_windows_parse(list, b), 0);
}

static uint64_t limit(const struct lb_bandwidth *b, const char *utc)
{
	return lb_bandwidth_at(b, 7777, at(utc));
}

static void a_window_holds_from_its_first_minute_to_before_its_last(void **state)
{
	struct lb_bandwidth b;

	(void)state;
	windows(&b, "mon-fri 08:00-18:00 2M");
	/* 2026-01-05 is a Monday */
	assert_int_equal(limit(&b, "2026-01-05T07:59:59Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-05T08:00:00Z"), 2 * KIB * KIB);
	assert_int_equal(limit(&b, "2026-01-09T17:59:59.999Z"), 2 * KIB * KIB);
	assert_int_equal(limit(&b, "2026-01-09T18:00:00Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-10T12:00:00Z"), 7777);
}

static void a_window_over_midnight_ends_on_the_next_day(void **state)
{
	struct lb_bandwidth b;

	(void)state;
	windows(&b, "sun 22:00-06:00 64K");
	assert_int_equal(limit(&b, "2026-01-04T21:59:00Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-04T22:00:00Z"), 64 * KIB);
	assert_int_equal(limit(&b, "2026-01-05T05:59:00Z"), 64 * KIB);
	assert_int_equal(limit(&b, "2026-01-05T06:00:00Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-05T22:00:00Z"), 7777);
}

static void where_windows_overlap_the_smallest_limit_holds(void **state)
{
	struct lb_bandwidth b;

	(void)state;
	windows(&b, "mon-sun 00:00-24:00 0; tue 09:00-12:00 512K;tue 10:00-11:00 256K");
	assert_int_equal(limit(&b, "2026-01-05T10:00:00Z"), 0);
	assert_int_equal(limit(&b, "2026-01-06T09:30:00Z"), 512 * KIB);
	assert_int_equal(limit(&b, "2026-01-06T10:30:00Z"), 256 * KIB);
	assert_int_equal(limit(&b, "2026-01-06T23:59:00Z"), 0);
}

static void days_wrap_around_the_week(void **state)
{
	struct lb_bandwidth b;

	(void)state;
	windows(&b, "sat-mon 00:00-24:00 1M");
	assert_int_equal(limit(&b, "2026-01-09T12:00:00Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-10T12:00:00Z"), KIB * KIB);
	assert_int_equal(limit(&b, "2026-01-12T23:59:00Z"), KIB * KIB);
	assert_int_equal(limit(&b, "2026-01-13T00:00:00Z"), 7777);
	windows(&b, "none");
	assert_int_equal(b.n_windows, 0);
}

static void windows_that_make_no_sense_are_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"mon",
		"mon 08:00-18:00",
		"mon 8-18 2M",
		"mon 08:00-08:00 2M",
		"mon 25:00-26:00 2M",
		"mon 08:60-09:00 2M",
		"mon 24:00-01:00 2M",
		"mon 22:00-00:00 2M",
		"mon 08:00-24:01 2M",
		"monday 08:00-18:00 2M",
		"mon-fry 08:00-18:00 2M",
		"mon, 08:00-18:00 2M",
		"mon 08:00-18:00 2X",
		"mon 08:00-18:00 5",
		"mon 08:00-18:00 2M 3M",
		"mon 08:00-18:00 2M;",
	};
	json_t *list = NULL;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		if (lb_bandwidth_text_parse(bad[i], &list) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
}

static void more_windows_than_fit_are_refused(void **state)
{
	char text[1024] = "mon 08:00-18:00 2M";
	json_t *list = NULL;

	(void)state;
	for (unsigned int i = 0; i < LB_BANDWIDTH_WINDOWS_MAX; i++)
		strcat(text, ";mon 08:00-18:00 2M");
	assert_int_equal(lb_bandwidth_text_parse(text, &list), -EINVAL);
}

static void windows_come_back_as_they_were_written(void **state)
{
	struct lb_policy policy = lb_policy_default, back;
	_cleanup_json_ json_t *j = NULL;

	(void)state;
	windows(&policy.bandwidth, "mon-fri 08:00-18:00 2M; sat,sun 23:00-07:00 0");
	strcpy(policy.bandwidth.time_zone, "Europe/Berlin");
	assert_int_equal(lb_policy_print(&policy, &j), 0);
	assert_int_equal(lb_policy_parse(j, true, &back), 0);
	assert_memory_equal(&policy, &back, sizeof(policy));
}

/* ---- zones ---------------------------------------------------------------------------------------------- */

static struct lb_zone zone_at(const char *name, const char *utc)
{
	struct lb_zone zone;

	assert_int_equal(lb_zone_find(lb_env_real(), name, at(utc) / LB_NS_PER_S, &zone), 0);
	return zone;
}

static void require_zone_files(void)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;

	if (lb_file_read(lb_env_real(), LB_ZONE_FOLDER "/Europe/Berlin", LB_ZONE_FILE_BYTES_MAX, &data, &size_bytes) <
	    0)
		skip(); /* this host has no zone files */
}

static void summer_time_begins_and_ends_when_it_does(void **state)
{
	struct lb_zone zone;

	(void)state;
	require_zone_files();
	zone = zone_at("Europe/Berlin", "2026-01-15T12:00:00Z");
	assert_int_equal(zone.offset_s, 3600);
	assert_int_equal(zone.change_s, at("2026-03-29T01:00:00Z") / LB_NS_PER_S);
	assert_int_equal(zone.next_offset_s, 7200);
	assert_int_equal(lb_zone_offset_s(&zone, zone.change_s - 1), 3600);
	assert_int_equal(lb_zone_offset_s(&zone, zone.change_s), 7200);
	zone = zone_at("Asia/Tokyo", "2026-01-15T12:00:00Z");
	assert_int_equal(zone.offset_s, 9 * 3600);
	assert_int_equal(zone.change_s, 0);
	zone = zone_at("America/New_York", "2026-07-01T00:00:00Z");
	assert_int_equal(zone.offset_s, -4 * 3600);
}

static void a_window_is_meant_in_its_zone(void **state)
{
	struct lb_bandwidth b;

	(void)state;
	require_zone_files();
	windows(&b, "mon 08:00-18:00 1M");
	b.zone = zone_at("Europe/Berlin", "2026-01-05T00:00:00Z");
	assert_int_equal(limit(&b, "2026-01-05T06:59:00Z"), 7777);
	assert_int_equal(limit(&b, "2026-01-05T07:00:00Z"), KIB * KIB);
	assert_int_equal(limit(&b, "2026-01-05T17:00:00Z"), 7777);
	/* an agent that hears of nothing new still follows the change to summer time */
	assert_int_equal(limit(&b, "2026-03-30T06:00:00Z"), KIB * KIB);
	assert_int_equal(limit(&b, "2026-03-30T16:00:00Z"), 7777);
}

static void a_zone_that_is_none_is_refused(void **state)
{
	static const char *const bad[] = {"",       "/etc/passwd", "../../../etc/passwd", "Europe/Nowhere",
					  "Europe", "tzdata.zi",   "Europe/Ber lin"};
	struct lb_zone zone;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(bad); i++)
		assert_int_equal(lb_zone_find(lb_env_real(), bad[i], 0, &zone), -EINVAL);
	assert_int_equal(lb_zone_find(lb_env_real(), "UTC", 0, &zone), 0);
	assert_int_equal(zone.offset_s, 0);
}

/* Whatever a file's header says, nothing beyond its end is read (the sanitizers watch). */
static void a_damaged_zone_file_is_refused(void **state)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size_bytes;
	struct lb_zone zone;

	(void)state;
	require_zone_files();
	assert_int_equal(lb_file_read(lb_env_real(), LB_ZONE_FOLDER "/Europe/Berlin", LB_ZONE_FILE_BYTES_MAX, &data,
				      &size_bytes),
			 0);
	for (size_t cut = 0; cut < size_bytes; cut += 7)
		assert_true(lb_zone_parse(data, cut, 0, &zone) < 0);
	for (size_t i = 0; i < 44; i++) {
		uint8_t kept = data[i];

		data[i] = 0xff;
		(void)!lb_zone_parse(data, size_bytes, 0, &zone);
		data[i] = kept;
	}
	assert_int_equal(lb_zone_parse(data, size_bytes, 0, &zone), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_window_holds_from_its_first_minute_to_before_its_last),
		cmocka_unit_test(a_window_over_midnight_ends_on_the_next_day),
		cmocka_unit_test(where_windows_overlap_the_smallest_limit_holds),
		cmocka_unit_test(days_wrap_around_the_week),
		cmocka_unit_test(windows_that_make_no_sense_are_refused),
		cmocka_unit_test(more_windows_than_fit_are_refused),
		cmocka_unit_test(windows_come_back_as_they_were_written),
		cmocka_unit_test(summer_time_begins_and_ends_when_it_does),
		cmocka_unit_test(a_window_is_meant_in_its_zone),
		cmocka_unit_test(a_zone_that_is_none_is_refused),
		cmocka_unit_test(a_damaged_zone_file_is_refused),
	};

	return cmocka_run_group_tests_name("bandwidth", tests, NULL, NULL);
}
