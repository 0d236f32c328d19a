/* SPDX-License-Identifier: Apache-2.0 */
/* Folded journals against a model of the disk at every point, with everything that may come between. */
#include <errno.h>

#include "fold_site.h"

#define LADDER "all:2h 1h:12h 4h:3d"
#define STEP_NS (600 * LB_NS_PER_S)

static void a_ladder_thins_points_as_they_age(void **state)
{
	struct lb_retention retention = lb_retention_default;
	static struct lb_point points[15 * 24 * 12];
	static bool keep[15 * 24 * 12];
	size_t n = sizeof(points) / sizeof(points[0]), hours = 0, total = 0;
	int64_t now_ns = 0;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		now_ns = (int64_t)(i + 1) * 300 * LB_NS_PER_S;
		points[i] = (struct lb_point){.time_ns = now_ns, .until_ns = now_ns, .flags = LB_HRL_POINT};
	}
	lb_retention_keep(&retention, points, n, now_ns, keep);
	for (size_t i = 0; i < n; i++) {
		total += keep[i];
		if (now_ns - points[i].time_ns <= 2 * HOUR_NS)
			assert_true(keep[i]);
		else if (now_ns - points[i].time_ns <= 24 * HOUR_NS)
			hours += keep[i];
	}
	assert_in_range(hours, 21, 23);
	assert_in_range(total, 25 + 22 + 72 + 46, 25 + 22 + 72 + 52);
}

static void the_last_points_stay_when_new_ones_stop_coming(void **state)
{
	struct lb_point points[3] = {{.time_ns = HOUR_NS, .until_ns = HOUR_NS},
				     {.time_ns = HOUR_NS + 1, .until_ns = HOUR_NS + 1},
				     {.time_ns = HOUR_NS + 2, .until_ns = HOUR_NS + 2}};
	bool keep[3];

	(void)state;
	lb_retention_keep(&lb_retention_default, points, 3, 10000 * 24 * HOUR_NS, keep);
	assert_true(keep[0] && keep[1] && keep[2]);
}

static void a_folded_journal_reads_as_it_did_at_every_point_it_offers(void **state)
{
	struct machine *m = machine_new(LADDER);
	struct lb_fold_report report, all = {0};
	struct lb_journal_tail before, after;
	size_t offered = 0;

	(void)state;
	m->options.live_percent = 60; /* whatever it costs: so small a journal pays for its maps alone */
	m->options.retention.delete_delay_s = 3600;
	for (int round = 0; round < 16; round++) {
		machine_run(m, 12, STEP_NS);
		ok(lb_journal_tail_read(m->s.vault, &m->s.machine, &before));
		report = machine_fold(m);
		all.points_pruned += report.points_pruned;
		all.objects_folded += report.objects_folded;
		all.rewritten_bytes += report.rewritten_bytes;
		all.deleted_objects += report.deleted_objects;
		ok(lb_journal_tail_read(m->s.vault, &m->s.machine, &after));
		assert_int_equal(before.position.epoch, after.position.epoch);
		assert_int_equal(before.position.seq, after.position.seq);
		assert_int_equal(before.next_object, after.next_object);
		assert_memory_equal(&before.digest, &after.digest, sizeof(before.digest));
		offered = machine_check(m);
	}
	assert_in_range(offered, 15, 60); /* of some 400 */
	assert_true(m->n_models > 200 && all.points_pruned > 5 && all.objects_folded > 150);
	assert_true(all.deleted_objects > 20 && all.rewritten_bytes > 0);
	machine_verify(m);
	/* a writer takes it up as before */
	lb_journal_writer_free(m->s.writer);
	ok(lb_journal_writer_open(m->s.vault, &m->s.machine, &m->s.writer));
	machine_object(m, STEP_NS, LB_HRL_POINT);
	machine_check(m);
	machine_free(m);
}

/* Makes of folder `to` what `from` is. Opening a vault is slow: who has it open keeps it. */
static void copy_folder(const char *from, const char *to)
{
	char command[1024];

	snprintf(command, sizeof(command), "mkdir -p %s && find %s -mindepth 1 -delete && cp -a %s/. %s", to, to, from,
		 to);
	assert_int_equal(system(command), 0);
}

static void a_round_that_is_killed_at_any_change_is_taken_up_again(void **state)
{
	struct machine *m = machine_new(LADDER);
	struct lb_fold_report report;
	unsigned int kills = 0;
	uint64_t rewritten = 0;
	char copy[80];

	(void)state;
	m->options.retention.delete_delay_s = 0;
	m->options.live_percent = 80;
	m->options.sweep = true;
	machine_run(m, 50, STEP_NS);
	machine_fold(m);
	machine_run(m, 20, STEP_NS);
	machine_fold_once(m, &report); /* what it announced, and dropped, is now done in the round that is killed */
	snprintf(copy, sizeof(copy), "%s.copy", m->s.folder);
	copy_folder(m->s.folder, copy);
	for (int64_t changes = 0;; changes++) {
		int r;

		copy_folder(copy, m->s.folder);
		m->deadly.changes_left = changes;
		m->options.now_ns = m->s.receipt_ns;
		r = lb_fold_round(m->vault, &m->s.machine, &m->options, &report);
		kills += r < 0;
		rewritten = r == 0 ? report.rewritten_bytes : 0;
		r = m->deadly.changes_left >= 0 ? r : -EIO;
		m->deadly.changes_left = INT64_MAX;
		machine_check(m);
		machine_fold(m);
		machine_check(m);
		if (r == 0)
			break; /* it came through */
	}
	assert_true(kills > 10 && rewritten > 0);
	site_folder_remove(copy);
	machine_free(m);
}

static void a_reader_of_an_old_point_reads_on_while_it_is_pruned(void **state)
{
	struct machine *m = machine_new("all:1h");
	static uint8_t got[DISK_BYTES];
	struct lb_image *image = NULL;
	struct lb_position position;
	uint64_t deleted = 0;

	(void)state;
	m->s.receipt_ns = 1000 * 24 * HOUR_NS; /* leases go by the host's clock: they must not be over */
	m->options.retention.delete_delay_s = 0;
	m->options.live_percent = 95;
	machine_run(m, 20, STEP_NS);
	machine_fold(m);
	position = machine_points(m)->point[0].position;
	ok(lb_image_open(m->s.vault, &m->s.machine, &position, 0, &image));
	for (int i = 0; i < 5; i++) {
		machine_run(m, 10, STEP_NS);
		machine_fold(m);
	}
	for (size_t i = 0; i < machine_points(m)->n; i++)
		assert_true(machine_points(m)->point[i].position.epoch > position.epoch ||
			    machine_points(m)->point[i].position.seq > position.seq);
	ok(lb_image_pread(image, 0, got, sizeof(got), 0));
	assert_memory_equal(got, machine_model(m, &position)->disk, sizeof(got));
	lb_image_free(image);
	deleted = machine_fold(m).deleted_objects;
	assert_true(deleted > 0); /* the lease alone held them */
	machine_check(m);
	machine_free(m);
}

static void what_is_dropped_waits_for_the_delay(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_fold_report report;

	(void)state;
	m->options.retention.delete_delay_s = 24 * 3600;
	m->options.live_percent = 95;
	machine_run(m, 30, STEP_NS);
	report = machine_fold(m);
	assert_true(report.objects_folded > 10);
	assert_int_equal(report.deleted_objects, 0);
	m->s.receipt_ns += 23 * HOUR_NS;
	assert_int_equal(machine_fold(m).deleted_objects, 0);
	m->s.receipt_ns += HOUR_NS;
	assert_true(machine_fold(m).deleted_objects > 0);
	machine_check(m);
	machine_free(m);
}

static void young_objects_are_neither_rewritten_nor_deleted(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_fold_report report;

	(void)state;
	m->options.retention.delete_delay_s = 0;
	m->options.retention.age_min_s = 100 * 365 * 24 * 3600u; /* objects carry the host's clock */
	m->options.live_percent = 99;
	machine_run(m, 30, STEP_NS);
	report = machine_fold(m);
	assert_true(report.objects_folded > 10);
	assert_int_equal(report.rewritten_bytes + report.deleted_objects, 0);
	machine_check(m);
	machine_free(m);
}

static void a_pinned_point_stays_and_a_held_one_outlives_its_pin(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_point pinned, held;

	(void)state;
	m->options.retention.delete_delay_s = 0;
	machine_run(m, 10, STEP_NS);
	pinned = machine_points(m)->point[3];
	held = machine_points(m)->point[5];
	ok(lb_point_pin(m->s.vault, &m->s.machine, &pinned, "keep"));
	ok(lb_point_pin(m->s.vault, &m->s.machine, &held, "case"));
	ok(lb_point_hold(m->s.vault, &m->s.machine, &held, "case-17"));
	for (int i = 0; i < 3; i++) {
		machine_run(m, 10, STEP_NS);
		machine_fold(m);
		machine_reads_as(m, &pinned.position);
		machine_reads_as(m, &held.position);
	}
	assert_string_equal(machine_points(m)->point[0].name, "keep");
	ok(lb_point_unpin(m->s.vault, &m->s.machine, "keep"));
	ok(lb_point_unpin(m->s.vault, &m->s.machine, "case"));
	machine_fold(m);
	machine_reads_as(m, &held.position);
	assert_string_equal(machine_points(m)->point[0].name, "case-17");
	fails_naming(lb_point_find(m->s.vault, &m->s.machine, "keep", &pinned), -ENOENT, "keep");
	ok(lb_point_find(m->s.vault, &m->s.machine, "case-17", &held));
	ok(lb_point_release(m->s.vault, &m->s.machine, "case-17"));
	machine_fold(m);
	machine_run(m, 3, STEP_NS);
	machine_fold(m);
	assert_true(machine_points(m)->point[0].position.seq != held.position.seq ||
		    machine_points(m)->point[0].position.epoch != held.position.epoch);
	machine_check(m);
	machine_free(m);
}

static void a_pin_that_comes_too_late_is_told_so_and_one_in_time_holds(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_fold_report report;
	struct lb_point early, late;

	(void)state;
	machine_run(m, 20, STEP_NS);
	early = machine_points(m)->point[2];
	late = machine_points(m)->point[3];
	ok(lb_point_pin(m->s.vault, &m->s.machine, &early, "early"));
	machine_fold_once(m, &report); /* announces */
	assert_true(report.points_doomed > 0);
	fails_naming(lb_point_pin(m->s.vault, &m->s.machine, &late, "late"), -ESTALE, "pruned meanwhile");
	fails_naming(lb_point_find(m->s.vault, &m->s.machine, "late", &late), -ENOENT, "late");
	machine_fold(m);
	machine_reads_as(m, &early.position);
	machine_check(m);
	machine_free(m);
}

struct racing {
	struct machine *m;
	int rounds;
};

static int race(void *arg, uint64_t bytes)
{
	struct racing *racing = arg;
	struct lb_fold_options options = racing->m->options;
	struct lb_fold_report report;

	(void)bytes;
	options.pace = NULL;
	if (racing->rounds-- > 0)
		ok(lb_fold_round(racing->m->s.vault, &racing->m->s.machine, &options, &report));
	return 0;
}

static void of_two_folders_one_wins_and_nothing_stays_of_the_other(void **state)
{
	struct machine *m = machine_new(LADDER);
	struct racing racing = {.m = m};
	struct lb_fold_report report;
	struct site_names before, after;
	unsigned int raced = 0;

	(void)state;
	m->options.retention.delete_delay_s = 0;
	machine_run(m, 60, STEP_NS);
	for (int i = 0; i < 6; i++) {
		struct lb_fold_options options = m->options;

		machine_run(m, 8, STEP_NS);
		options.now_ns = m->options.now_ns = m->s.receipt_ns;
		options.pace = race;
		options.arg = &racing;
		racing.rounds = 1 + i % 2;
		ok(lb_fold_round(m->vault, &m->s.machine, &options, &report));
		raced += report.raced;
		machine_check(m);
	}
	assert_true(raced > 2);
	machine_fold(m);
	m->options.sweep = true;
	machine_fold(m);
	site_names(&m->s, "/d/", &before);
	machine_fold(m);
	site_names(&m->s, "/d/", &after);
	assert_int_equal(before.n, after.n);
	machine_check(m);
	machine_free(m);
}

static void clocks_that_disagree_stop_pruning(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_fold_report report;

	(void)state;
	machine_run(m, 5, STEP_NS);
	m->options.now_ns = 0;
	m->deadly.clock_apart_ns = 2 * HOUR_NS;
	fails_naming(lb_fold_round(m->vault, &m->s.machine, &m->options, &report), -EAGAIN, "7200 s apart");
	m->deadly.clock_apart_ns = HOUR_NS / 2;
	ok(lb_fold_round(m->vault, &m->s.machine, &m->options, &report));
	machine_free(m);
}

static void who_cannot_write_reads_without_a_lease(void **state)
{
	struct machine *m = machine_new("all:1h");
	struct lb_image *image = NULL;
	uint8_t got[512];

	(void)state;
	machine_run(m, 3, STEP_NS);
	m->deadly.read_only = true;
	ok(lb_image_open(m->vault, &m->s.machine, &machine_points(m)->point[0].position, 0, &image));
	ok(lb_image_pread(image, 0, got, sizeof(got), 0));
	lb_image_free(image);
	machine_free(m);
}

static void an_idle_machine_is_not_folded_again(void **state)
{
	struct machine *m = machine_new(LADDER);
	struct lb_fold_report report;
	uint64_t changes, rewritten, deleted;

	(void)state;
	machine_run(m, 40, STEP_NS);
	rewritten = machine_fold(m).rewritten_bytes;
	m->s.receipt_ns += 30 * 24 * HOUR_NS;
	deleted = machine_fold(m).deleted_objects;
	m->s.receipt_ns += 2 * 24 * HOUR_NS; /* more than the delay: what that dropped goes */
	deleted += machine_fold(m).deleted_objects;
	assert_true(rewritten > 0 && deleted > 0);
	changes = m->deadly.changes;
	for (int i = 0; i < 30; i++) {
		m->s.receipt_ns += 24 * HOUR_NS;
		machine_fold_once(m, &report);
		assert_false(report.changed);
	}
	assert_int_equal(m->deadly.changes, changes);
	machine_check(m);
	machine_free(m);
}

static void a_dry_run_says_what_goes_and_changes_nothing(void **state)
{
	(void)state;
	for (unsigned int seed = 1; seed <= 8; seed++) {
		struct machine *m = machine_new("all:1h");
		struct lb_fold_report report, all;
		struct site_names before, after;

		m->seed = seed;
		machine_run(m, 20, STEP_NS);
		site_names(&m->s, "", &before);
		m->options.dry_run = true;
		machine_fold_once(m, &report);
		site_names(&m->s, "", &after);
		assert_int_equal(before.n, after.n);
		assert_true(report.points_doomed > 5 && report.objects_to_fold > 5 && !report.changed);
		m->options.dry_run = false;
		all = machine_fold(m);
		assert_int_equal(all.points_pruned, report.points_doomed);
		assert_int_equal(all.objects_folded, report.objects_to_fold);
		machine_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ladder_thins_points_as_they_age),
		cmocka_unit_test(the_last_points_stay_when_new_ones_stop_coming),
		cmocka_unit_test(a_folded_journal_reads_as_it_did_at_every_point_it_offers),
		cmocka_unit_test(a_round_that_is_killed_at_any_change_is_taken_up_again),
		cmocka_unit_test(a_reader_of_an_old_point_reads_on_while_it_is_pruned),
		cmocka_unit_test(what_is_dropped_waits_for_the_delay),
		cmocka_unit_test(young_objects_are_neither_rewritten_nor_deleted),
		cmocka_unit_test(a_pinned_point_stays_and_a_held_one_outlives_its_pin),
		cmocka_unit_test(a_pin_that_comes_too_late_is_told_so_and_one_in_time_holds),
		cmocka_unit_test(of_two_folders_one_wins_and_nothing_stays_of_the_other),
		cmocka_unit_test(clocks_that_disagree_stop_pruning),
		cmocka_unit_test(who_cannot_write_reads_without_a_lease),
		cmocka_unit_test(an_idle_machine_is_not_folded_again),
		cmocka_unit_test(a_dry_run_says_what_goes_and_changes_nothing),
	};

	return cmocka_run_group_tests_name("fold", tests, NULL, NULL);
}
