/* SPDX-License-Identifier: Apache-2.0 */
/* Repair: everything that can be recovered is, what can't be is named, and no point is offered that lacks anything. */
#include <errno.h>

#include "vault/catalog.h"
#include "vault/repair.h"
#include "vault/verify.h"
#include "vault_site.h"

#define DISK_BYTES (64u << 10) /* 16 blocks */

static struct site s;
static struct site_names journal, checkpoints;

static void add_machine_entry(void)
{
	struct lb_catalog_item item = {.machine = s.machine,
				       .name = "db1",
				       .firmware = "bios",
				       .architecture = "x86_64",
				       .n_disks = 1,
				       .policy = "default"};

	item.disks[0] =
		(struct lb_catalog_disk){.name = "vda", .size_bytes = DISK_BYTES, .sector_bytes = 512, .boot = true};
	ok(lb_catalog_put(s.vault, &item));
}

static void checkpoint(void)
{
	bool written;

	ok(lb_checkpoint_write(s.vault, &s.machine, true, &written));
	assert_true(written);
}

/*
 * Epoch 1, an object each: 0 writes blocks 0..3, then 1:1 block 1, 1:2 block 2, 1:3 block 1 and 5, 1:4 block 3; a
 * checkpoint after 1:3 if `with_checkpoint`.
 */
static void make(bool with_checkpoint)
{
	uint8_t data[4096 * 4];

	site_new(&s);
	add_machine_entry();
	site_begin(&s, 1);
	memset(data, 0xa0, sizeof(data));
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_write(&s, LB_HRL_POINT);
	site_write_block(&s, 1, 0x11, LB_HRL_POINT);
	site_write_block(&s, 2, 0x22, LB_HRL_POINT);
	memset(data, 0x33, sizeof(data));
	site_add(&s, LB_HRL_CAPTURED, 4096, 4096, data);
	site_add(&s, LB_HRL_CAPTURED, 5 * 4096, 4096, data);
	site_write(&s, LB_HRL_POINT);
	if (with_checkpoint)
		checkpoint();
	site_write_block(&s, 3, 0x44, LB_HRL_POINT);
	site_names(&s, "/e/", &journal);
	site_names(&s, "/c/", &checkpoints);
}

static int make_with_checkpoint(void **state)
{
	(void)state;
	make(true);
	return 0;
}

static int make_without(void **state)
{
	(void)state;
	make(false);
	return 0;
}

static int remove_vault(void **state)
{
	(void)state;
	site_free(&s);
	return 0;
}

static char told[16384];

static void note(void *arg, const struct lb_repair_told *t)
{
	size_t used = strlen(told);

	(void)arg;
	snprintf(told + used, sizeof(told) - used, "%s: %s\n", t->object, t->text);
}

static struct lb_repair_report repair(bool deep, bool dry_run)
{
	struct lb_repair_report report;

	told[0] = '\0';
	ok(lb_vault_repair(s.vault, NULL, deep, dry_run, note, NULL, &report));
	return report;
}

static void says(const char *part)
{
	if (strstr(told, part) == NULL)
		fail_msg("\"%s\" is not in: %s", part, told);
}

static void remove_object(size_t i)
{
	ok(lb_store_remove(s.store, journal.name[i]));
}

/* The blocks of a point that can be read, a digit each: its first byte's high half; '.' zeroes, '!' lost. */
static const char *blocks_of(uint64_t epoch, uint64_t seq, bool zeroes)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	static char text[17];
	uint8_t got[4096];

	ok(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = epoch, .seq = seq}, 0, &image));
	if (zeroes)
		lb_image_lost_as_zeroes(image);
	for (unsigned int i = 0; i < 16; i++) {
		int r = lb_image_pread(image, 0, got, sizeof(got), i * sizeof(got));

		text[i] = (char)(r == -EBADMSG ? '!' : got[1] == 0 ? '.' : "0123456789abcdef"[got[1] >> 4]);
		assert_true(r == 0 || r == -EBADMSG);
	}
	text[16] = '\0';
	return text;
}

struct listed {
	char text[512];
};

static int list_one(void *arg, const struct lb_point *p)
{
	struct listed *l = arg;
	size_t used = strlen(l->text);

	snprintf(l->text + used, sizeof(l->text) - used, "%llu:%llu%s ", (unsigned long long)p->position.epoch,
		 (unsigned long long)p->position.seq, p->is_damaged ? "!" : "");
	return 0;
}

static const char *points(void)
{
	static struct listed l;

	l.text[0] = '\0';
	ok(lb_points_list(s.vault, &s.machine, 0, INT64_MAX, list_one, &l));
	return l.text;
}

static uint64_t latest(void)
{
	struct lb_point point;

	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	return point.position.epoch * 100 + point.position.seq;
}

static void a_sound_vault_has_nothing_to_repair(void **state)
{
	(void)state;
	assert_int_equal(repair(true, false).repaired, 0);
	assert_string_equal(told, "");
}

static void a_lost_object_costs_its_points_and_what_nothing_wrote_again(void **state)
{
	(void)state;
	remove_object(1); /* 1:1, block 1, which 1:3 wrote again */
	assert_int_equal(lb_points_list(s.vault, &s.machine, 0, INT64_MAX, list_one, &(struct listed){0}), -EBADMSG);
	assert_int_equal(repair(false, false).repaired, 1);
	says("1:1 to 1:1 are lost");
	says("points from 1:1 until 1:3 lack");
	assert_string_equal(points(), "1:0 1:2! 1:3 1:4 ");
	assert_string_equal(blocks_of(1, 0, false), "aaaa............");
	/* between: blocks 1 and 5 are what was written from the loss on to the checkpoint, less 1:2's block 2 */
	assert_string_equal(blocks_of(1, 2, false), "a!2a.!..........");
	assert_string_equal(blocks_of(1, 2, true), "a.2a............");
	assert_string_equal(blocks_of(1, 3, false), "a32a.3..........");
	assert_string_equal(blocks_of(1, 4, false), "a324.3..........");
	assert_int_equal(latest(), 104);
}

static void a_lost_object_that_nothing_wrote_again_damages_every_later_point(void **state)
{
	struct lb_point point;

	(void)state;
	remove_object(2); /* 1:2, block 2 */
	repair(false, false);
	says("points from 1:2 on, to the newest");
	assert_string_equal(points(), "1:0 1:1 1:3! 1:4! ");
	assert_string_equal(blocks_of(1, 3, false), "a3!a.3..........");
	assert_string_equal(blocks_of(1, 4, false), "a3!4.3..........");
	assert_int_equal(latest(), 101); /* a damaged point is offered by its position only */
	ok(lb_point_find(s.vault, &s.machine, "1:4", &point));
	assert_true(point.is_damaged);
}

static void what_comes_later_makes_it_whole_again(void **state)
{
	(void)state;
	remove_object(2);
	repair(false, false);
	site_write_block(&s, 2, 0x55, LB_HRL_POINT);
	repair(false, false);
	says("until 1:5");
	assert_string_equal(points(), "1:0 1:1 1:3! 1:4! 1:5 ");
	assert_int_equal(latest(), 105);
	assert_string_equal(blocks_of(1, 5, false), "a354.3..........");
	repair(false, false);
	says("known already");
}

static void without_a_checkpoint_all_that_was_not_written_since_is_suspect(void **state)
{
	(void)state;
	remove_object(1);
	repair(false, false);
	says("whatever was not written again since");
	assert_string_equal(points(), "1:0 1:2! 1:3! 1:4! ");
	assert_string_equal(blocks_of(1, 4, false), "!324!3!!!!!!!!!!");
	/* a scan of everything, as a resync is, makes it whole */
	site_begin(&s, 2);
	for (unsigned int i = 0; i < 16; i++) {
		static uint8_t data[16][4096];

		memset(data[i], 0x60, sizeof(data[i]));
		site_add(&s, LB_HRL_SCANNED, i * 4096, 4096, data[i]);
	}
	site_write(&s, LB_HRL_POINT);
	repair(false, false);
	assert_string_equal(points(), "1:0 1:2! 1:3! 1:4! 2:0 ");
	assert_string_equal(blocks_of(2, 0, false), "6666666666666666");
	assert_int_equal(latest(), 200);
}

static void a_dry_run_says_the_same_and_writes_nothing(void **state)
{
	struct site_names before, after;
	char dry[sizeof(told)];

	(void)state;
	remove_object(1);
	site_names(&s, "", &before);
	repair(true, true);
	says("would lead over it");
	memcpy(dry, told, sizeof(dry));
	site_names(&s, "", &after);
	assert_int_equal(before.n, after.n);
	repair(true, false);
	*strstr(dry, "a repair record") = '\0';
	*strstr(told, "a repair record") = '\0';
	assert_string_equal(dry, told);
}

static void several_lost_objects_in_a_row_and_apart_are_led_over(void **state)
{
	(void)state;
	for (uint8_t i = 0; i < 4; i++)
		site_write_block(&s, (uint64_t)6 + i, (uint8_t)(0x70 + i), LB_HRL_POINT); /* 1:5 .. 1:8 */
	site_names(&s, "/e/", &journal);
	remove_object(1);
	remove_object(2);
	remove_object(6);
	repair(false, false);
	says("1:1 to 1:2 are lost");
	says("1:6 to 1:6 are lost");
	assert_string_equal(points(), "1:0 1:3! 1:4! 1:5! 1:7! 1:8! ");
	assert_string_equal(blocks_of(1, 5, false), "a3!4.37.........");
}

static void a_damaged_head_is_led_over_like_a_missing_object(void **state)
{
	(void)state;
	site_flip(&s, journal.name[1], 200);
	repair(false, false);
	assert_string_equal(points(), "1:0 1:2! 1:3 1:4 ");
	assert_int_equal(latest(), 104);
}

static void a_lost_segment_costs_only_itself(void **state)
{
	(void)state;
	site_flip(&s, journal.name[1], 4096 + LB_HRL_HEADER_BYTES + 3); /* its index, behind the object's head */
	repair(false, false);
	says("1 segments and 0 frames");
	assert_string_equal(points(), "1:0 1:1! 1:2! 1:3 1:4 ");
	assert_string_equal(blocks_of(1, 2, false), "a!2a.!..........");
}

static void a_lost_frame_is_found_when_deep_with_its_exact_ranges(void **state)
{
	(void)state;
	site_flip(&s, journal.name[1], journal.size_bytes[1] - 1);
	assert_int_equal(repair(false, false).repaired, 0);
	repair(true, false);
	says("0 segments and 1 frames");
	says("disk 0 bytes 4096..8191");
	assert_string_equal(points(), "1:0 1:1! 1:2! 1:3 1:4 ");
	assert_string_equal(blocks_of(1, 2, false), "a!2a............");
	assert_string_equal(blocks_of(1, 2, true), "a.2a............");
}

static void a_damaged_newest_object_ends_its_epoch_and_the_journal_goes_on_in_the_next(void **state)
{
	struct lb_journal_tail tail;

	(void)state;
	site_flip(&s, journal.name[4], 200);
	lb_journal_writer_free(s.writer);
	s.writer = NULL;
	fails_naming(lb_journal_writer_open(s.vault, &s.machine, &s.writer), -EBADMSG, journal.name[4]);
	repair(false, false);
	assert_string_equal(points(), "1:0 1:1 1:2 1:3 ");
	assert_int_equal(latest(), 103);
	ok(lb_journal_tail_read(s.vault, &s.machine, &tail));
	assert_true(tail.position.epoch == 1 && tail.position.seq == 3 && tail.epoch_open == 0 &&
		    tail.epoch_newest == 1);
	ok(lb_journal_writer_open(s.vault, &s.machine, &s.writer));
	s.prev = tail.digest;
	site_begin(&s, 2);
	site_write_block(&s, 4, 0x66, LB_HRL_POINT);
	assert_string_equal(points(), "1:0 1:1 1:2 1:3 2:0! ");
	assert_string_equal(blocks_of(2, 0, false), "!!!!6!!!!!!!!!!!");
}

static void a_writer_that_lives_is_fenced_by_the_repair_of_its_newest_object(void **state)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);

	(void)state;
	site_flip(&s, journal.name[4], 200);
	repair(false, false);
	site_seal(&s, LB_HRL_POINT, &sealed);
	assert_int_equal(site_append(&s, &sealed, 1), -ESTALE);
}

static void lost_newest_objects_that_a_checkpoint_knows_are_led_over(void **state)
{
	(void)state;
	remove_object(4);
	remove_object(3);
	remove_object(2);
	repair(false, false);
	/* the checkpoint after 1:3 stands for 1:2 and 1:3 */
	says("1:2 to 1:3 are lost");
	assert_string_equal(blocks_of(1, 3, false), "a!!a.!..........");
	assert_int_equal(latest(), 101);
	lb_journal_writer_free(s.writer);
	s.writer = NULL;
}

static void a_damaged_repair_record_is_made_anew(void **state)
{
	struct site_names records;

	(void)state;
	remove_object(1);
	repair(false, false);
	site_names(&s, "/r/0", &records);
	assert_int_equal(records.n, 1);
	site_flip(&s, records.name[0], 50);
	assert_int_equal(lb_points_list(s.vault, &s.machine, 0, INT64_MAX, list_one, &(struct listed){0}), -EBADMSG);
	repair(false, false);
	assert_string_equal(points(), "1:0 1:2! 1:3 1:4 ");
}

static void a_damaged_newest_catalog_entry_falls_back_to_the_one_before(void **state)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	struct site_names items;

	(void)state;
	ok(lb_catalog_get(s.vault, &s.machine, item));
	item->cpus = 7;
	ok(lb_catalog_put(s.vault, item));
	site_names(&s, "/item/", &items);
	site_flip(&s, items.name[1], 40);
	repair(false, false);
	says("is the newest again");
	ok(lb_catalog_get(s.vault, &s.machine, item));
	assert_int_equal(item->cpus, 0);
}

static void a_damaged_checkpoint_is_replaced_by_a_newer_one(void **state)
{
	struct site_names now;

	(void)state;
	site_flip(&s, checkpoints.name[0], 500);
	repair(false, false);
	says("a new one is written");
	site_names(&s, "/c/", &now);
	assert_int_equal(now.n, 2);
	assert_string_equal(blocks_of(1, 4, false), "a324.3..........");
}

static void a_checkpoint_made_after_a_repair_keeps_what_is_lost(void **state)
{
	(void)state;
	remove_object(2);
	repair(false, false);
	site_write_block(&s, 9, 0x99, LB_HRL_POINT);
	checkpoint();
	assert_string_equal(blocks_of(1, 5, false), "a3!4.3...9......");
}

#define with(setup, f) cmocka_unit_test_setup_teardown(f, setup, remove_vault)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with(make_with_checkpoint, a_sound_vault_has_nothing_to_repair),
		with(make_with_checkpoint, a_lost_object_costs_its_points_and_what_nothing_wrote_again),
		with(make_with_checkpoint, a_lost_object_that_nothing_wrote_again_damages_every_later_point),
		with(make_with_checkpoint, what_comes_later_makes_it_whole_again),
		with(make_without, without_a_checkpoint_all_that_was_not_written_since_is_suspect),
		with(make_with_checkpoint, a_dry_run_says_the_same_and_writes_nothing),
		with(make_with_checkpoint, several_lost_objects_in_a_row_and_apart_are_led_over),
		with(make_with_checkpoint, a_damaged_head_is_led_over_like_a_missing_object),
		with(make_with_checkpoint, a_lost_segment_costs_only_itself),
		with(make_with_checkpoint, a_lost_frame_is_found_when_deep_with_its_exact_ranges),
		with(make_with_checkpoint, a_damaged_newest_object_ends_its_epoch_and_the_journal_goes_on_in_the_next),
		with(make_with_checkpoint, a_writer_that_lives_is_fenced_by_the_repair_of_its_newest_object),
		with(make_with_checkpoint, lost_newest_objects_that_a_checkpoint_knows_are_led_over),
		with(make_with_checkpoint, a_damaged_repair_record_is_made_anew),
		with(make_with_checkpoint, a_damaged_newest_catalog_entry_falls_back_to_the_one_before),
		with(make_with_checkpoint, a_damaged_checkpoint_is_replaced_by_a_newer_one),
		with(make_with_checkpoint, a_checkpoint_made_after_a_repair_keeps_what_is_lost),
	};

	return cmocka_run_group_tests_name("vault_repair", tests, NULL, NULL);
}
