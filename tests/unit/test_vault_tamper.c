/* SPDX-License-Identifier: Apache-2.0 */
/* What an attacker or a rotten disk does to a vault: each kind of damage is found by verify and named by readers. */
#include <errno.h>

#include "vault/catalog.h"
#include "vault/anchor.h"
#include "vault/lease.h"
#include "vault/losses.h"
#include "vault/site.h"
#include "vault/verify.h"
#include "vault_site.h"

static struct site s;
static struct site_names journal, checkpoints, items;
static struct lb_lease *lease;

static void add_machine_entry(void)
{
	struct lb_catalog_item item = {.machine = s.machine,
				       .name = "db1",
				       .firmware = "bios",
				       .architecture = "x86_64",
				       .n_disks = 1,
				       .policy = "default"};

	item.disks[0] =
		(struct lb_catalog_disk){.name = "vda", .size_bytes = 1u << 20, .sector_bytes = 512, .boot = true};
	ok(lb_catalog_put(s.vault, &item));
}

/* Two epochs: 3 objects and a seal, then 3 objects; a checkpoint in the middle of each. */
static int make_vault(void **state)
{
	struct lb_point point = {.position = {.epoch = 1, .seq = 0}, .time_ns = 1};
	struct lb_heartbeat beat = {.position = {.epoch = 2, .seq = 2}, .time_ns = 5000 * LB_NS_PER_S};
	uint32_t generation;
	bool written;

	(void)state;
	site_new(&s);
	beat.machine = s.machine;
	add_machine_entry();
	for (uint64_t epoch = 1; epoch <= 2; epoch++) {
		site_begin(&s, epoch);
		for (uint8_t i = 0; i < 3; i++) {
			site_write_block(&s, i, (uint8_t)(16 * epoch + i), LB_HRL_POINT);
			if (i == 1)
				ok(lb_checkpoint_write(s.vault, &s.machine, true, &written));
		}
	}
	ok(lb_vault_machine_key_rotate(s.vault, &s.machine, &generation)); /* what follows is sealed by another key */
	ok(lb_point_pin(s.vault, &s.machine, &point, "pin"));
	ok(lb_point_hold(s.vault, &s.machine, &point, "case-7"));
	ok(lb_losses_put(s.vault, &s.machine, &(struct lb_losses){0}));
	lease = NULL;
	ok(lb_lease_take(s.vault, &s.machine, &lease));
	assert_non_null(lease);
	ok(lb_heartbeat_put(s.vault, &(struct lb_uuid){{0x99}}, &beat, 1));
	ok(lb_vault_site_put(s.vault, "registry", "{\"version\":1}", 13));
	site_names(&s, "/e/", &journal);
	site_names(&s, "/c/", &checkpoints);
	site_names(&s, "/item/", &items);
	assert_int_equal(journal.n, 7);
	assert_int_equal(checkpoints.n, 2);
	return 0;
}

static int remove_vault(void **state)
{
	(void)state;
	lb_lease_release(lease);
	site_free(&s);
	return 0;
}

struct found {
	size_t n;
	char text[16384];
};

static void note_finding(void *arg, const struct lb_verify_finding *f)
{
	struct found *found = arg;
	size_t used = strlen(found->text);

	if (f->is_note)
		return;
	snprintf(found->text + used, sizeof(found->text) - used, "%s: %s\n", f->object, f->text);
	found->n++;
}

static struct found verify(bool deep, struct lb_verify_report *report)
{
	struct found found = {0};

	ok(lb_vault_verify(s.vault, NULL, deep, NULL, note_finding, &found, report));
	assert_int_equal(report->findings, found.n);
	return found;
}

/* Verification finds something about the object whose text contains `part`. */
static void verify_names(bool deep, const char *object, const char *part)
{
	struct lb_verify_report report;
	struct found found = verify(deep, &report);
	char *line = strstr(found.text, object);

	if (line == NULL || strstr(line, part) == NULL)
		fail_msg("%s (%s) is not named in: %s", object, part, found.text);
}

static void a_sound_vault_verifies_without_findings(void **state)
{
	struct lb_verify_report report;
	struct found found = verify(true, &report);

	(void)state;
	if (found.n > 0)
		fail_msg("%s", found.text);
	assert_int_equal(report.done.segments, 6);
	assert_int_equal(report.done.frames, 6);
	assert_true(report.newest.epoch == 2 && report.newest.seq == 2);
}

static void every_bit_that_is_flipped_in_a_journal_object_is_found(void **state)
{
	struct lb_verify_report report;

	(void)state;
	for (uint64_t at = 0; at < journal.size_bytes[4]; at += 61) {
		site_flip(&s, journal.name[4], at);
		if (verify(true, &report).n == 0)
			fail_msg("a flip of byte %llu of %s went unnoticed", (unsigned long long)at, journal.name[4]);
		site_flip(&s, journal.name[4], at);
	}
	assert_int_equal(verify(true, &report).n, 0);
}

static void every_bit_that_is_flipped_in_a_checkpoint_is_found(void **state)
{
	struct lb_verify_report report;

	(void)state;
	for (uint64_t at = 0; at < checkpoints.size_bytes[0]; at += 61) {
		site_flip(&s, checkpoints.name[0], at);
		if (verify(false, &report).n == 0)
			fail_msg("a flip of byte %llu of %s went unnoticed", (unsigned long long)at,
				 checkpoints.name[0]);
		site_flip(&s, checkpoints.name[0], at);
	}
}

static void an_altered_head_is_named_with_the_points_it_costs(void **state)
{
	(void)state;
	site_flip(&s, journal.name[1], 200);
	verify_names(false, journal.name[1], "points after segment 0 of epoch 1 can't be recovered");
}

static void an_altered_frame_is_found_when_deep_and_told_to_its_reader(void **state)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	struct lb_verify_report report;
	uint8_t got[4096];

	(void)state;
	site_flip(&s, journal.name[4], journal.size_bytes[4] - 1);
	assert_int_equal(verify(false, &report).n, 0);
	verify_names(true, journal.name[4], "frame 0 of segment 0 of epoch 2 is lost");
	ok(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = 2, .seq = 2}, 0, &image));
	fails_naming(lb_image_pread(image, 0, got, sizeof(got), 0), -EBADMSG, journal.name[4]);
	ok(lb_image_pread(image, 0, got, sizeof(got), 8192)); /* what lies elsewhere can still be read */
}

static void truncate_object(const char *object, off_t size_bytes)
{
	char path[512];

	site_path(&s, object, path);
	assert_int_equal(truncate(path, size_bytes), 0);
}

static void a_truncated_object_is_named(void **state)
{
	struct lb_image *image;

	(void)state;
	truncate_object(journal.name[6], (off_t)journal.size_bytes[6] - 1);
	verify_names(false, journal.name[6], "truncated");
	truncate_object(journal.name[6], 100);
	verify_names(false, journal.name[6], "truncated");
	fails_naming(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = 2, .seq = 2}, 0, &image),
		     -EBADMSG, journal.name[6]);
}

static void appended_bytes_are_named(void **state)
{
	(void)state;
	truncate_object(journal.name[6], (off_t)journal.size_bytes[6] + 1);
	verify_names(false, journal.name[6], "appended");
}

static void a_missing_object_is_named_by_verify_by_readers_and_to_the_next_writer(void **state)
{
	struct lb_journal_writer *writer;
	struct lb_image *image;

	(void)state;
	ok(lb_store_remove(s.store, journal.name[5]));
	ok(lb_store_remove(s.store, checkpoints.name[1])); /* which would lead past the gap */
	verify_names(false, journal.name[5], "missing");
	fails_naming(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = 2, .seq = 2}, 0, &image),
		     -EBADMSG, journal.name[5]);
	fails_naming(lb_journal_writer_open(s.vault, &s.machine, &writer), -EBADMSG, journal.name[5]);
}

static void swapped_objects_are_both_named(void **state)
{
	char a[512], b[512], c[600];

	(void)state;
	site_path(&s, journal.name[0], a);
	site_path(&s, journal.name[1], b);
	snprintf(c, sizeof(c), "%s/.swap", s.folder);
	assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
	verify_names(false, journal.name[0], "can't be trusted");
	verify_names(false, journal.name[1], "can't be trusted");
}

static void copy_object(const char *from, const char *to)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);

	ok(lb_store_get_all(s.store, from, LB_STORE_OBJECT_BYTES_MAX, &object));
	ok(lb_store_put_new(s.store, to, object.data, object.size_bytes));
}

static void duplicated_and_foreign_objects_are_named(void **state)
{
	char name[LB_STORE_NAME_BYTES_MAX + 1], uuid[LB_UUID_TEXT_BYTES];

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	snprintf(name, sizeof(name), "m/%s/e/00000002/%010x", uuid, 3);
	copy_object(journal.name[6], name);
	verify_names(false, name, "can't be trusted");
	ok(lb_store_remove(s.store, name));
	snprintf(name, sizeof(name), "m/%s/e/00000002/notes.txt", uuid);
	copy_object(journal.name[6], name);
	verify_names(false, name, "foreign");
	ok(lb_store_remove(s.store, name));
	snprintf(name, sizeof(name), "m/%s/other/thing", uuid);
	copy_object(journal.name[6], name);
	verify_names(false, name, "foreign");
}

static void what_a_stale_writer_would_put_behind_a_seal_is_named_and_never_offered(void **state)
{
	char name[LB_STORE_NAME_BYTES_MAX + 1], uuid[LB_UUID_TEXT_BYTES];
	struct lb_image *image;

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	snprintf(name, sizeof(name), "m/%s/e/00000001/%010x", uuid, 4); /* 3 is the seal */
	copy_object(journal.name[2], name);
	verify_names(false, name, "after the seal");
	fails_naming(lb_image_open(s.vault, &s.machine, &(struct lb_position){.epoch = 1, .seq = 3}, 0, &image),
		     -ENOENT, "1:3");
}

static void an_object_of_another_machine_is_not_taken(void **state)
{
	struct lb_uuid other = {{0x77}};
	char from[512], to[512], uuid[LB_UUID_TEXT_BYTES], other_uuid[LB_UUID_TEXT_BYTES], *at;
	struct lb_journal_writer *writer = s.writer;
	struct lb_uuid machine = s.machine;
	struct lb_key key = s.key;
	struct found found;
	struct lb_verify_report report;

	(void)state;
	/* the other machine's journal, of the same positions */
	s.machine = other;
	s.prev = (struct lb_digest){{0}};
	ok(lb_vault_machine_key(s.vault, &other, true, &s.key));
	ok(lb_journal_writer_open(s.vault, &other, &s.writer));
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	lb_journal_writer_free(s.writer);
	s.writer = writer;
	s.machine = machine;
	s.key = key;
	lb_uuid_format(&machine, uuid);
	lb_uuid_format(&other, other_uuid);
	site_path(&s, journal.name[0], to);
	strcpy(from, to);
	at = strstr(from, uuid);
	memcpy(at, other_uuid, strlen(other_uuid));
	assert_int_equal(rename(from, to), 0);
	found = (struct found){0};
	ok(lb_vault_verify(s.vault, &s.machine, false, NULL, note_finding, &found, &report));
	assert_non_null(strstr(found.text, journal.name[0]));
}

static void an_altered_catalog_entry_or_pin_is_named(void **state)
{
	struct site_names pins;
	struct lb_catalog_item item;

	(void)state;
	site_names(&s, "/p/", &pins);
	site_flip(&s, pins.name[0], 40);
	verify_names(false, pins.name[0], "not authentic");
	site_flip(&s, items.name[0], 40);
	verify_names(false, items.name[0], "not authentic");
	fails_naming(lb_catalog_get(s.vault, &s.machine, &item), -EBADMSG, items.name[0]);
	assert_int_equal(lb_catalog_find(s.vault, "db1", &item), -EBADMSG);
}

static void a_cut_tail_shows_by_a_checkpoint_of_what_is_gone(void **state)
{
	(void)state;
	ok(lb_store_remove(s.store, journal.name[6]));
	ok(lb_store_remove(s.store, journal.name[5]));
	verify_names(false, checkpoints.name[1], "was cut");
}

static void an_altered_vault_json_does_not_open(void **state)
{
	struct lb_vault *v;

	(void)state;
	site_flip(&s, "vault.json", 40);
	assert_true(lb_vault_open(s.store, SITE_PASSPHRASE, &v) < 0);
	truncate_object("vault.json", 20);
	fails_naming(lb_vault_open(s.store, SITE_PASSPHRASE, &v), -EBADMSG, "vault.json");
}

/* ---- the matrix: each kind of damage on each object of the vault ------------------------------------ */

/* vault.json is opened as by somebody who comes anew; one that can't be opened is found, too. */
static struct found verify_anew(bool deep, const char *object)
{
	struct found found = {0};
	struct lb_verify_report report;
	struct lb_vault *v;

	if (strcmp(object, "vault.json") == 0) {
		if (lb_vault_open(s.store, SITE_PASSPHRASE, &v) < 0) {
			snprintf(found.text, sizeof(found.text), "vault.json: %s", lb_err_text());
			found.n = 1;
			return found;
		}
		lb_vault_free(v);
	}
	ok(lb_vault_verify(s.vault, NULL, deep, NULL, note_finding, &found, &report));
	return found;
}

static void is_found(const char *object, const char *how)
{
	struct found found = verify_anew(true, object);

	if (found.n == 0)
		fail_msg("%s: %s went unnoticed", object, how);
	if (strstr(found.text, object) == NULL)
		fail_msg("%s: %s is not named in: %s", object, how, found.text);
}

static void every_object(struct site_names *names)
{
	site_names(&s, "", names);
	assert_true(names->n >=
		    7 + 2 + 1 + 2 + 2 + 1 + 2 + 1 + 1 +
			    1); /* journal, checkpoints, item, keys, pins, beat, site, lease, losses, json */
}

static void a_flipped_bit_in_any_object_is_named(void **state)
{
	static struct site_names all;

	(void)state;
	every_object(&all);
	for (size_t i = 0; i < all.n; i++) {
		uint64_t last = all.size_bytes[i] - 1, step = last / 5 + 1;

		for (uint64_t at = 0; at <= last; at += step) {
			site_flip(&s, all.name[i], at);
			is_found(all.name[i], "a flipped bit");
			site_flip(&s, all.name[i], at);
		}
		site_flip(&s, all.name[i], last);
		is_found(all.name[i], "a flip of the last byte");
		site_flip(&s, all.name[i], last);
	}
	assert_int_equal(verify_anew(true, "").n, 0);
}

static void any_object_that_is_truncated_or_longer_is_named(void **state)
{
	static struct site_names all;

	(void)state;
	every_object(&all);
	for (size_t i = 0; i < all.n; i++) {
		_cleanup_buf_ struct lb_buf was = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
		off_t size_bytes = (off_t)all.size_bytes[i];

		ok(lb_store_get_all(s.store, all.name[i], LB_STORE_OBJECT_BYTES_MAX, &was));
		truncate_object(all.name[i], size_bytes + 1);
		is_found(all.name[i], "an appended byte");
		truncate_object(all.name[i], size_bytes - 1);
		is_found(all.name[i], "a missing last byte");
		truncate_object(all.name[i], 0);
		is_found(all.name[i], "an empty object");
		ok(lb_store_remove(s.store, all.name[i]));
		ok(lb_store_put_new(s.store, all.name[i], was.data, was.size_bytes));
	}
	assert_int_equal(verify_anew(true, "").n, 0);
}

static void swap(const char *a, const char *b)
{
	char path_a[512], path_b[512], path_c[600];

	site_path(&s, a, path_a);
	site_path(&s, b, path_b);
	snprintf(path_c, sizeof(path_c), "%s/.swap", s.folder);
	assert_int_equal(rename(path_a, path_c) | rename(path_b, path_a) | rename(path_c, path_b), 0);
}

static void any_two_objects_that_are_swapped_are_both_named(void **state)
{
	static struct site_names all;

	(void)state;
	every_object(&all);
	for (size_t i = 0; i + 1 < all.n; i++) {
		for (size_t j = i + 1; j < all.n; j += 3) {
			struct found found;

			swap(all.name[i], all.name[j]);
			found = verify_anew(false, all.name[i]);
			if (found.n == 0)
				fail_msg("%s and %s swapped went unnoticed", all.name[i], all.name[j]);
			/* without its key nothing else of a machine is looked at */
			if (strstr(all.name[i], "/key") == NULL && strstr(all.name[j], "/key") == NULL &&
			    strcmp(all.name[j], "vault.json") != 0 &&
			    (strstr(found.text, all.name[i]) == NULL || strstr(found.text, all.name[j]) == NULL))
				fail_msg("%s and %s swapped are not both named in: %s", all.name[i], all.name[j],
					 found.text);
			swap(all.name[i], all.name[j]);
		}
	}
	assert_int_equal(verify_anew(true, "").n, 0);
}

static void any_object_that_is_copied_to_a_new_name_is_named_there(void **state)
{
	static struct site_names all;
	char to[LB_STORE_NAME_BYTES_MAX + 1], uuid[LB_UUID_TEXT_BYTES];
	static const char *const places[] = {"m/%s/e/00000002/0000000003",
					     "m/%s/e/00000003/0000000000",
					     "m/%s/c/00000002-0000000002",
					     "m/%s/item/00000002",
					     "m/%s/p/copy",
					     "m/%s/h/copy",
					     "m/%s/l/00000000000000000000000000000001",
					     "m/%s/r/losses-0009",
					     "m/%s/r/00000001-0000000001-0000",
					     "m/%s/key.02",
					     "m/%s/notes",
					     "m/%s/x/y"};
	static const char *const elsewhere[] = {"site/copy",   "notes.txt",
						"ps/notes",    "m/notes",
						"other/thing", "ps/99000000-0000-0000-0000-000000000001/heartbeat"};

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	every_object(&all);
	for (size_t i = 0; i < all.n; i++) {
		for (size_t j = 0; j < LB_ARRAY_LEN(places) + LB_ARRAY_LEN(elsewhere); j++) {
			if (j < LB_ARRAY_LEN(places))
				snprintf(to, sizeof(to), places[j], uuid);
			else
				snprintf(to, sizeof(to), "%s", elsewhere[j - LB_ARRAY_LEN(places)]);
			if (strcmp(to, all.name[i]) == 0)
				continue;
			/* a heartbeat's records may move to another process server with their machine */
			if (strncmp(all.name[i], "ps/", 3) == 0 && strncmp(to, "ps/99", 5) == 0)
				continue;
			copy_object(all.name[i], to);
			is_found(to, "a copy");
			ok(lb_store_remove(s.store, to));
		}
	}
	assert_int_equal(verify_anew(true, "").n, 0);
}

/* What nothing in the vault can tell when it is gone: newest objects, and what is only there to save time. */
static bool leaves_no_trace(const struct site_names *all, size_t i)
{
	return strstr(all->name[i], "/c/") != NULL || strstr(all->name[i], "/p/") != NULL ||
	       strstr(all->name[i], "/h/") != NULL || strstr(all->name[i], "/l/") != NULL ||
	       strstr(all->name[i], "/r/") != NULL || strstr(all->name[i], "heartbeat") != NULL ||
	       strncmp(all->name[i], "site/", 5) == 0;
}

static void any_object_that_is_missing_is_named_unless_it_leaves_no_trace(void **state)
{
	static struct site_names all;

	(void)state;
	every_object(&all);
	for (size_t i = 0; i < all.n; i++) {
		_cleanup_buf_ struct lb_buf was = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
		struct found found;

		if (leaves_no_trace(&all, i))
			continue;
		ok(lb_store_get_all(s.store, all.name[i], LB_STORE_OBJECT_BYTES_MAX, &was));
		ok(lb_store_remove(s.store, all.name[i]));
		found = verify_anew(false, all.name[i]);
		if (found.n == 0)
			fail_msg("%s is missing and nobody tells", all.name[i]);
		ok(lb_store_put_new(s.store, all.name[i], was.data, was.size_bytes));
	}
	assert_int_equal(verify_anew(true, "").n, 0);
}

static void a_cut_tail_shows_by_a_heartbeat_or_a_named_point_of_what_is_gone(void **state)
{
	struct lb_point point = {.position = {.epoch = 2, .seq = 2}, .time_ns = 1};
	struct site_names beats, pins;

	(void)state;
	ok(lb_point_pin(s.vault, &s.machine, &point, "newest"));
	site_names(&s, "heartbeat", &beats);
	site_names(&s, "/p/newest", &pins);
	ok(lb_store_remove(s.store, journal.name[6]));
	verify_names(false, beats.name[0], "points after 2:1 are lost");
	verify_names(false, pins.name[0], "points after 2:1 are lost");
}

/* ---- one point, and anchors ------------------------------------------------------------------------ */

static struct found verify_point(uint64_t epoch, uint64_t seq, bool deep, struct lb_verify_point_report *report)
{
	struct found found = {0};

	ok(lb_vault_verify_point(s.vault, &s.machine, &(struct lb_position){.epoch = epoch, .seq = seq}, deep, NULL,
				 note_finding, &found, report));
	assert_int_equal(report->findings, found.n);
	return found;
}

static void a_point_is_proven_by_what_it_needs_alone(void **state)
{
	struct lb_verify_point_report report;
	struct found found;

	(void)state;
	ok(lb_store_remove(s.store, journal.name[6]));             /* 2:2, which 2:1 does not need */
	site_flip(&s, journal.name[5], journal.size_bytes[5] - 1); /* the frame of 2:1, block 1 */
	assert_int_equal(verify_point(1, 2, true, &report).n, 0);
	assert_int_equal(report.data_bytes, 3 * 4096);
	assert_int_equal(verify_point(2, 0, true, &report).n, 0);
	assert_int_equal(verify_point(2, 1, false, &report).n, 0); /* frames are looked at only when deep */
	found = verify_point(2, 1, true, &report);
	assert_int_equal(report.lost_bytes, 4096);
	assert_non_null(strstr(found.text, journal.name[5]));
	assert_non_null(strstr(found.text, "disk 0 bytes 4096..8191"));
}

static void a_point_that_lost_a_segment_names_its_ranges(void **state)
{
	struct lb_verify_point_report report;
	struct found found;

	(void)state;
	ok(lb_store_remove(s.store, journal.name[4])); /* 2:0, block 0; the checkpoint of 2:1 knows of it */
	found = verify_point(2, 1, false, &report);
	assert_int_equal(found.n, 1);
	assert_int_equal(report.lost_bytes, 4096);
	assert_non_null(strstr(found.text, "disk 0 bytes 0..4095"));
	ok(lb_store_remove(s.store, checkpoints.name[1]));
	found = verify_point(2, 1, false, &report);
	assert_int_equal(found.n, 1);
	assert_non_null(strstr(found.text, "can't be opened"));
}

static struct lb_anchor_result check_anchor(const struct lb_receipt *receipt)
{
	struct lb_anchor_result result;

	ok(lb_anchor_check(s.vault, lb_receipt_find(receipt, &s.machine), &result));
	return result;
}

static void open_receipt(struct lb_buf *text, struct lb_receipt *receipt)
{
	ok(lb_receipt_make(s.vault, text));
	ok(lb_receipt_open(s.vault, text->data, text->size_bytes, receipt));
}

static void a_receipt_holds_while_the_vault_grows_and_tells_a_cut_tail(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX);
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};

	(void)state;
	open_receipt(&text, &receipt);
	assert_int_equal(check_anchor(&receipt).state, LB_ANCHOR_HOLDS);
	site_write_block(&s, 9, 9, LB_HRL_POINT);
	assert_int_equal(check_anchor(&receipt).state, LB_ANCHOR_HOLDS);
	ok(lb_store_remove(s.store, journal.name[6]));
	assert_int_not_equal(check_anchor(&receipt).state, LB_ANCHOR_HOLDS);
}

static void a_vault_that_was_rolled_back_whole_is_told_by_a_receipt(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX);
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	struct lb_verify_report report;
	struct lb_anchor_result result;
	struct site_names newest;

	(void)state;
	site_write_block(&s, 9, 9, LB_HRL_POINT);
	open_receipt(&text, &receipt);
	site_names(&s, "/e/00000002/0000000003", &newest);
	ok(lb_store_remove(s.store, newest.name[0])); /* as it was before */
	assert_int_equal(verify(true, &report).n, 0);
	result = check_anchor(&receipt);
	assert_int_equal(result.state, LB_ANCHOR_OLDER);
	assert_non_null(strstr(result.text, "ends at 2:2"));
	assert_non_null(strstr(result.text, "2:3"));
}

static void another_history_is_told_by_a_receipt_and_by_a_segment(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX);
	_cleanup_(lb_receipt_clear) struct lb_receipt receipt = {0};
	struct lb_anchor by_segment;
	struct lb_anchor_result result;

	(void)state;
	open_receipt(&text, &receipt);
	receipt.anchors[0].object_digest.bytes[0] ^= 1;
	assert_int_equal(check_anchor(&receipt).state, LB_ANCHOR_DIFFERS);
	by_segment = receipt.anchors[0];
	by_segment.object = (struct lb_place){0};
	for (int i = 0; i < 2; i++) {
		ok(lb_anchor_check(s.vault, &by_segment, &result));
		assert_int_equal(result.state, i == 0 ? LB_ANCHOR_HOLDS : LB_ANCHOR_DIFFERS);
		by_segment.digest.bytes[31] ^= 1;
	}
	by_segment.position.seq += 5;
	ok(lb_anchor_check(s.vault, &by_segment, &result));
	assert_int_equal(result.state, LB_ANCHOR_OLDER);
}

static void a_receipt_that_was_altered_is_refused(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct lb_receipt receipt;

	(void)state;
	ok(lb_receipt_make(s.vault, &text));
	for (size_t at = 0; at < text.size_bytes; at += 7) {
		text.data[at] ^= 0x02;
		assert_int_equal(lb_receipt_open(s.vault, text.data, text.size_bytes, &receipt), -EBADMSG);
		text.data[at] ^= 0x02;
	}
	assert_int_equal(lb_receipt_open(s.vault, text.data, text.size_bytes - 9, &receipt), -EBADMSG);
	ok(lb_receipt_open(s.vault, text.data, text.size_bytes, &receipt));
	lb_receipt_clear(&receipt);
}

static void a_lost_or_damaged_vault_json_is_put_back_from_a_receipt(void **state)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct site_names evidence;
	struct lb_vault *v;

	(void)state;
	ok(lb_receipt_make(s.vault, &text));
	assert_int_equal(lb_receipt_restore(s.store, SITE_PASSPHRASE, text.data, text.size_bytes, false), -EEXIST);
	ok(lb_store_remove(s.store, "vault.json"));
	fails_naming(lb_receipt_restore(s.store, "another passphrase", text.data, text.size_bytes, false),
		     -EKEYREJECTED, "receipt");
	ok(lb_receipt_restore(s.store, SITE_PASSPHRASE, text.data, text.size_bytes, true)); /* dry */
	assert_true(lb_vault_open(s.store, SITE_PASSPHRASE, &v) < 0);
	ok(lb_receipt_restore(s.store, SITE_PASSPHRASE, text.data, text.size_bytes, false));
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	lb_vault_free(v);
	truncate_object("vault.json", 20);
	ok(lb_receipt_restore(s.store, SITE_PASSPHRASE, text.data, text.size_bytes, false));
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	lb_vault_free(v);
	site_names(&s, "evidence/", &evidence);
	assert_int_equal(evidence.n, 1);
	assert_int_equal(evidence.size_bytes[0], 20);
	text.data[40] ^= 1; /* of the HMAC */
	truncate_object("vault.json", 20);
	assert_int_equal(lb_receipt_restore(s.store, SITE_PASSPHRASE, text.data, text.size_bytes, false), -EBADMSG);
}

/* ---- object lock ----------------------------------------------------------------------------------- */

static int refuse_removal(struct lb_store *store, const char *name)
{
	return lb_fail(-EACCES, "%s: object %s is locked", store->url, name);
}

static void a_store_that_refuses_deletions_holds_a_vault_like_any_other(void **state)
{
	struct lb_point point = {.position = {.epoch = 2, .seq = 2}, .time_ns = 1};
	struct lb_store_ops locked = *s.store->ops;
	const struct lb_store_ops *was = s.store->ops;
	struct lb_verify_report report;
	struct lb_vault *v;

	(void)state;
	locked.remove = refuse_removal;
	s.store->ops = &locked;
	ok(lb_store_prove(s.store));
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	lb_journal_writer_free(s.writer);
	ok(lb_journal_writer_open(v, &s.machine, &s.writer));
	site_begin(&s, 3);
	site_write_block(&s, 5, 5, LB_HRL_POINT);
	ok(lb_journal_fence(v, &s.machine, "test"));
	ok(lb_point_pin(v, &s.machine, &point, "kept"));
	fails_naming(lb_point_unpin(v, &s.machine, "kept"), -EACCES, "locked");
	ok(lb_vault_passphrase_change(v, "another long passphrase"));
	assert_int_equal(verify(true, &report).n, 0); /* probes that stay are notes */
	lb_journal_writer_free(s.writer);
	s.writer = NULL;
	lb_vault_free(v);
	s.store->ops = was;
}

#define with_vault(f) cmocka_unit_test_setup_teardown(f, make_vault, remove_vault)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_vault(a_sound_vault_verifies_without_findings),
		with_vault(every_bit_that_is_flipped_in_a_journal_object_is_found),
		with_vault(every_bit_that_is_flipped_in_a_checkpoint_is_found),
		with_vault(an_altered_head_is_named_with_the_points_it_costs),
		with_vault(an_altered_frame_is_found_when_deep_and_told_to_its_reader),
		with_vault(a_truncated_object_is_named),
		with_vault(appended_bytes_are_named),
		with_vault(a_missing_object_is_named_by_verify_by_readers_and_to_the_next_writer),
		with_vault(swapped_objects_are_both_named),
		with_vault(duplicated_and_foreign_objects_are_named),
		with_vault(what_a_stale_writer_would_put_behind_a_seal_is_named_and_never_offered),
		with_vault(an_object_of_another_machine_is_not_taken),
		with_vault(an_altered_catalog_entry_or_pin_is_named),
		with_vault(a_cut_tail_shows_by_a_checkpoint_of_what_is_gone),
		with_vault(an_altered_vault_json_does_not_open),
		with_vault(a_flipped_bit_in_any_object_is_named),
		with_vault(any_object_that_is_truncated_or_longer_is_named),
		with_vault(any_two_objects_that_are_swapped_are_both_named),
		with_vault(any_object_that_is_copied_to_a_new_name_is_named_there),
		with_vault(any_object_that_is_missing_is_named_unless_it_leaves_no_trace),
		with_vault(a_cut_tail_shows_by_a_heartbeat_or_a_named_point_of_what_is_gone),
		with_vault(a_point_is_proven_by_what_it_needs_alone),
		with_vault(a_point_that_lost_a_segment_names_its_ranges),
		with_vault(a_receipt_holds_while_the_vault_grows_and_tells_a_cut_tail),
		with_vault(a_vault_that_was_rolled_back_whole_is_told_by_a_receipt),
		with_vault(another_history_is_told_by_a_receipt_and_by_a_segment),
		with_vault(a_receipt_that_was_altered_is_refused),
		with_vault(a_lost_or_damaged_vault_json_is_put_back_from_a_receipt),
		with_vault(a_store_that_refuses_deletions_holds_a_vault_like_any_other),
	};

	return cmocka_run_group_tests_name("vault_tamper", tests, NULL, NULL);
}
