/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, the writing side, points, heartbeats and the catalog of a vault. */
#include <errno.h>
#include <sys/wait.h>

#include "vault/catalog.h"
#include "vault/points.h"
#include "vault/proof.h"
#include "vault_site.h"

static struct site s;

static int make_site(void **state)
{
	(void)state;
	site_new(&s);
	return 0;
}

static int remove_site(void **state)
{
	(void)state;
	site_free(&s);
	return 0;
}

/* ---- keys ---- */

static void a_wrong_passphrase_is_told_with_the_vault_and_the_cure(void **state)
{
	char id[LB_UUID_TEXT_BYTES];
	struct lb_vault *v = NULL;

	(void)state;
	lb_uuid_format(lb_vault_id(s.vault), id);
	fails_naming(lb_vault_open(s.store, "correct horse battery stapler", &v), -EKEYREJECTED, id);
	assert_non_null(strstr(lb_err_text(), "give the passphrase"));
	assert_null(v);
	assert_int_equal(lb_vault_create(s.store, "another passphrase", &(struct lb_uuid){{0}}), -EEXIST);
}

static void a_changed_passphrase_opens_and_the_old_one_does_not_while_what_is_stored_stays(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL, *again = NULL;
	struct lb_vault *none;
	struct lb_key key;

	(void)state;
	assert_int_equal(lb_vault_passphrase_change(s.vault, "short"), -EINVAL);
	ok(lb_vault_passphrase_change(s.vault, "the second passphrase"));
	assert_int_equal(lb_vault_open(s.store, SITE_PASSPHRASE, &none), -EKEYREJECTED);
	ok(lb_vault_open(s.store, "the second passphrase", &v));
	ok(lb_vault_passphrase_change(v, "the third passphrase")); /* back into the first slot */
	assert_int_equal(lb_vault_open(s.store, "the second passphrase", &none), -EKEYREJECTED);
	ok(lb_vault_open(s.store, "the third passphrase", &again));
	ok(lb_vault_machine_key(again, &s.machine, false, &key));
	assert_memory_equal(&key, &s.key, sizeof(key));
}

static void the_key_of_one_machine_is_no_key_of_another(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL, *thief = NULL;
	char from[600], to[600], uuid[LB_UUID_TEXT_BYTES], other_uuid[LB_UUID_TEXT_BYTES];
	struct lb_uuid other = {{9}};
	struct lb_point point;
	struct lb_key key;

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	ok(lb_vault_machine_key(s.vault, &other, true, &key));
	assert_memory_not_equal(&key, &s.key, sizeof(key));
	/* one machine's key in place of the other's */
	lb_uuid_format(&s.machine, uuid);
	lb_uuid_format(&other, other_uuid);
	snprintf(from, sizeof(from), "%s/m/%s/key", s.folder, other_uuid);
	snprintf(to, sizeof(to), "%s/m/%s/key", s.folder, uuid);
	assert_int_equal(rename(from, to), 0);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	fails_naming(lb_vault_machine_key(v, &s.machine, false, &key), -EBADMSG, "key of another machine");
	/* a process server that was given another machine's key reads nothing */
	ok(lb_vault_open_keyless(s.store, &thief));
	ok(lb_vault_machine_key_give(thief, &s.machine, &(struct lb_keyring){.n = 1, .key = {{{1}}}}));
	assert_int_equal(lb_point_find(thief, &s.machine, "latest", &point), -EBADMSG);
}

static void a_keyless_vault_serves_only_machines_whose_keys_it_was_given(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_journal_tail tail;

	(void)state;
	ok(lb_vault_open_keyless(s.store, &v));
	assert_int_equal(lb_journal_tail_read(v, &s.machine, &tail), -ENOKEY);
	ok(lb_vault_machine_key_give(v, &s.machine, &(struct lb_keyring){.n = 1, .key = {s.key}}));
	ok(lb_journal_tail_read(v, &s.machine, &tail));
	assert_int_equal(tail.position.epoch, 0);
	assert_int_equal(lb_vault_passphrase_change(v, "the second passphrase"), -ENOKEY);
}

static void a_machine_whose_key_was_destroyed_is_told_to_be_gone(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	char name[128], uuid[LB_UUID_TEXT_BYTES];
	struct lb_journal_tail tail;

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	snprintf(name, sizeof(name), "m/%s/key", uuid);
	ok(lb_store_remove(s.store, name));
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	fails_naming(lb_journal_tail_read(v, &s.machine, &tail), -ENOENT, "its key was destroyed");
}

/* ---- writing ---- */

static void a_writer_takes_up_where_the_vault_ends(void **state)
{
	const struct lb_journal_tail *tail;

	(void)state;
	site_begin(&s, 1);
	for (uint8_t i = 0; i < 3; i++)
		site_write_block(&s, i, i, LB_HRL_POINT);
	lb_journal_writer_free(s.writer);
	s.writer = NULL;
	ok(lb_journal_writer_open(s.vault, &s.machine, &s.writer));
	tail = lb_journal_writer_tail(s.writer);
	assert_true(tail->position.epoch == 1 && tail->position.seq == 2);
	assert_true(tail->epoch_open == 1 && tail->next_object == 3);
	assert_true(tail->ring_cut == 1002 && tail->scan_cursor == 2);
	assert_memory_equal(&tail->digest, &s.prev, sizeof(s.prev));
	site_write_block(&s, 9, 9, LB_HRL_POINT);
}

static void an_object_that_was_put_before_a_crash_is_acknowledged_again(void **state)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *late = NULL;
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX),
				    resealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_sealed_segment segment;
	struct lb_digest prev = s.prev;
	int64_t receipt_ns;
	uint8_t data[4096] = {1, 2, 3};

	(void)state;
	site_begin(&s, 1);
	ok(lb_journal_writer_open(s.vault, &s.machine, &late)); /* the same process server, as it was before the put */
	ok(lb_journal_epoch_begin(late, 1));
	receipt_ns = s.receipt_ns;
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_seal(&s, LB_HRL_POINT, &sealed);
	ok(site_append(&s, &sealed, 1));
	/* sealed again, under another salt, it is the same segment */
	s.prev = prev;
	s.seq = 0;
	s.receipt_ns = receipt_ns;
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_seal(&s, LB_HRL_POINT, &resealed);
	assert_memory_not_equal(sealed.data, resealed.data, sealed.size_bytes);
	segment = (struct lb_sealed_segment){.data = resealed.data, .size_bytes = resealed.size_bytes};
	ok(lb_journal_append(late, &segment, 1));
	assert_int_equal(lb_journal_writer_tail(late)->position.seq, 0);
	assert_int_equal(lb_journal_writer_tail(late)->next_object, 1);
}

static void other_content_under_the_same_number_is_a_conflict(void **state)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *other = NULL;
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_sealed_segment segment;
	uint8_t data[512] = {5};

	(void)state;
	ok(lb_journal_writer_open(s.vault, &s.machine, &other));
	ok(lb_journal_epoch_begin(other, 1));
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	s.seq = 0;
	s.prev = (struct lb_digest){{0}};
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_seal(&s, LB_HRL_POINT, &sealed);
	segment = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes};
	fails_naming(lb_journal_append(other, &segment, 1), -EEXIST, "another process server");
}

static void a_stale_writer_that_returns_with_a_full_cache_finds_the_seal_and_stops(void **state)
{
	_cleanup_(lb_journal_writer_freep) struct lb_journal_writer *taker = NULL;
	struct lb_buf cache[3];
	struct lb_point point;

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	for (uint8_t i = 0; i < 3; i++) { /* acknowledged, not yet in the vault */
		uint8_t data[512] = {i};

		cache[i] = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
		site_add(&s, LB_HRL_CAPTURED, 512 * i, sizeof(data), data);
		site_seal(&s, LB_HRL_POINT, &cache[i]);
	}
	ok(lb_journal_fence(s.vault, &s.machine, "a test took over"));
	fails_naming(site_append(&s, cache, 3), -ESTALE, "a test took over");
	assert_int_equal(site_append(&s, cache, 1), -ESTALE);
	assert_int_equal(lb_journal_epoch_begin(s.writer, 2), -ESTALE);
	assert_int_equal(lb_journal_seal(s.writer, "mine"), -ESTALE);
	ok(lb_journal_writer_open(s.vault, &s.machine, &taker));
	assert_int_equal(lb_journal_writer_tail(taker)->epoch_open, 0);
	assert_int_equal(lb_journal_writer_tail(taker)->epoch_newest, 1);
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	assert_true(point.position.epoch == 1 && point.position.seq == 0);
	for (int i = 0; i < 3; i++)
		lb_buf_free(&cache[i]);
}

static void fencing_a_sealed_journal_takes_the_next_epoch_from_a_writer_that_is_about_to_begin_it(void **state)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	uint8_t data[512] = {7};

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	site_begin(&s, 2); /* seals epoch 1; nothing of epoch 2 is in the vault yet */
	ok(lb_journal_fence(s.vault, &s.machine, "a test took over"));
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_seal(&s, LB_HRL_POINT, &sealed);
	assert_int_equal(site_append(&s, &sealed, 1), -ESTALE);
	lb_journal_writer_free(s.writer);
	s.writer = NULL;
	ok(lb_journal_writer_open(s.vault, &s.machine, &s.writer));
	assert_int_equal(lb_journal_writer_tail(s.writer)->epoch_newest, 2);
	assert_int_equal(lb_journal_epoch_begin(s.writer, 2), -ESTALE);
	lb_buf_free(&sealed);
	memcpy(&s.prev, &lb_journal_writer_tail(s.writer)->digest, sizeof(s.prev));
	site_begin(&s, 3);
	site_write_block(&s, 1, 2, LB_HRL_POINT);
}

static void epochs_that_never_came_to_the_vault_are_sealed_empty(void **state)
{
	struct lb_journal_tail tail;
	struct lb_point point;

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	site_begin(&s, 5);
	site_write_block(&s, 0, 2, LB_HRL_POINT);
	ok(lb_journal_tail_read(s.vault, &s.machine, &tail));
	assert_true(tail.position.epoch == 5 && tail.epoch_newest == 5 && tail.epoch_open == 5);
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	assert_int_equal(point.position.epoch, 5);
	assert_int_equal(lb_journal_epoch_begin(s.writer, 4), -ESTALE);
	assert_int_equal(lb_journal_epoch_begin(s.writer, 5 + LB_JOURNAL_EPOCH_GAP_MAX + 1), -EINVAL);
}

static void segments_that_do_not_follow_are_refused(void **state)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_sealed_segment cut;

	(void)state;
	assert_int_equal(site_append(&s, &sealed, 1), -EINVAL); /* no epoch is open */
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	s.seq++; /* one is left out */
	site_seal(&s, LB_HRL_POINT, &sealed);
	fails_naming(site_append(&s, &sealed, 1), -EBADMSG, "to follow segment 0 of epoch 1");
	s.seq = 1;
	sealed.size_bytes = 0;
	site_seal(&s, LB_HRL_POINT, &sealed); /* its digest chain has the one that was left out */
	fails_naming(site_append(&s, &sealed, 1), -EBADMSG, "digests differ");
	cut = (struct lb_sealed_segment){.data = sealed.data, .size_bytes = sealed.size_bytes - 1};
	fails_naming(lb_journal_append(s.writer, &cut, 1), -EBADMSG, "truncated");
	sealed.data[300] ^= 1;
	assert_int_equal(site_append(&s, &sealed, 1), -EBADMSG);
}

static void a_vault_folder_that_may_not_be_written_loses_nothing_and_tells_the_cure(void **state)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	uint8_t data[512] = {3};
	int status;
	pid_t child;

	(void)state;
	if (geteuid() != 0) {
		print_message("skipped: needs root to become another user\n");
		skip();
	}
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	site_add(&s, LB_HRL_CAPTURED, 0, sizeof(data), data);
	site_seal(&s, LB_HRL_POINT, &sealed);
	child = fork();
	if (child == 0) {
		if (setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		_exit(site_append(&s, &sealed, 1) == -EACCES && strstr(lb_err_text(), "give this user") != NULL ? 0
														: 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ok(site_append(&s, &sealed, 1)); /* once it may be written again, the same segment goes on */
}

/* ---- points ---- */

struct seen {
	struct lb_point p[64];
	size_t n;
};

static int note_point(void *arg, const struct lb_point *point)
{
	struct seen *seen = arg;

	assert_true(seen->n < 64);
	seen->p[seen->n++] = *point;
	return 0;
}

static void points_are_the_flagged_boundaries_and_none_while_the_scan_runs(void **state)
{
	struct lb_point point;
	struct seen seen = {0};

	(void)state;
	site_begin(&s, 1);
	assert_int_equal(lb_point_find(s.vault, &s.machine, "latest", &point), -ENOENT);
	site_write_block(&s, 0, 1, LB_HRL_SCANNING);
	site_write_block(&s, 1, 1, LB_HRL_SCANNING | LB_HRL_POINT); /* an agent that is wrong about its scan */
	fails_naming(lb_point_find(s.vault, &s.machine, "latest", &point), -ENOENT, "no recovery point");
	site_write_block(&s, 2, 1, LB_HRL_POINT);
	site_write_block(&s, 3, 1, 0);
	site_write_block(&s, 4, 1, LB_HRL_POINT | LB_HRL_MARK_APP);
	site_write_block(&s, 5, 1, LB_HRL_POINT);
	ok(lb_points_list(s.vault, &s.machine, INT64_MIN, INT64_MAX, note_point, &seen));
	assert_int_equal(seen.n, 3);
	assert_int_equal(seen.p[0].position.seq, 2);
	assert_int_equal(seen.p[1].position.seq, 4);
	assert_int_equal(seen.p[2].position.seq, 5);
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	assert_int_equal(point.position.seq, 5);
	ok(lb_point_find(s.vault, &s.machine, "latest-app", &point));
	assert_int_equal(point.position.seq, 4);
	ok(lb_point_find(s.vault, &s.machine, "1:2", &point));
	assert_int_equal(point.position.seq, 2);
	fails_naming(lb_point_find(s.vault, &s.machine, "1:3", &point), -ENOENT, "(1:2)");
	assert_int_equal(lb_point_find(s.vault, &s.machine, "latest-multi-vm", &point), -ENOENT);
	assert_int_equal(lb_point_find(s.vault, &s.machine, "half past nine", &point), -EINVAL);
}

static void a_time_names_the_newest_point_at_or_before_it_with_checkpoints_on_the_way(void **state)
{
	char text[LB_TIME_TEXT_BYTES];
	struct lb_point point;
	struct seen seen = {0};
	bool written;

	(void)state;
	site_begin(&s, 1);
	for (uint8_t i = 0; i < 20; i++) {
		site_write_block(&s, i, i, i % 4 == 0 ? LB_HRL_POINT : 0);
		if (i % 3 == 0)
			ok(lb_checkpoint_write(s.vault, &s.machine, true, &written));
	}
	for (int64_t i = 0; i < 20; i++) { /* segment i was received at 1000 s + i */
		ok(lb_point_find(s.vault, &s.machine, lb_time_format((1000 + i) * LB_NS_PER_S, text), &point));
		assert_int_equal(point.position.seq, i / 4 * 4);
		ok(lb_point_find(s.vault, &s.machine,
				 lb_time_format((1000 + i) * LB_NS_PER_S + 500 * LB_NS_PER_MS, text), &point));
		assert_int_equal(point.position.seq, i / 4 * 4);
	}
	fails_naming(lb_point_find(s.vault, &s.machine, lb_time_format(999 * LB_NS_PER_S, text), &point), -ENOENT,
		     "1:0");
	ok(lb_points_list(s.vault, &s.machine, 1003 * LB_NS_PER_S, 1012 * LB_NS_PER_S, note_point, &seen));
	assert_int_equal(seen.n, 3);
	assert_int_equal(seen.p[0].position.seq, 4);
	assert_int_equal(seen.p[2].position.seq, 12);
}

static void heartbeats_keep_an_idle_machines_newest_point_young(void **state)
{
	struct lb_uuid process_server = {{3}};
	struct lb_heartbeat beat = {
		.machine = s.machine, .position = {.epoch = 1, .seq = 2}, .time_ns = 5000 * LB_NS_PER_S};
	struct lb_point point;
	struct seen seen = {0};
	int64_t time_ns;

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	site_write(&s, LB_HRL_POINT | LB_HRL_HEARTBEAT);
	site_write(&s, LB_HRL_POINT | LB_HRL_HEARTBEAT);
	ok(lb_points_list(s.vault, &s.machine, INT64_MIN, INT64_MAX, note_point, &seen));
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.p[0].until_ns, 1002 * LB_NS_PER_S);
	assert_int_equal(lb_heartbeat_get(s.vault, &s.machine, &beat.position, &time_ns), -ENOENT);
	ok(lb_heartbeat_put(s.vault, &process_server, &beat, 1));
	beat.time_ns++;
	ok(lb_heartbeat_put(s.vault, &process_server, &beat, 1));
	ok(lb_heartbeat_get(s.vault, &s.machine, &beat.position, &time_ns));
	assert_int_equal(time_ns, 5000 * LB_NS_PER_S + 1);
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	assert_int_equal(point.position.seq, 0);
	assert_int_equal(point.until_ns, 5000 * LB_NS_PER_S + 1);
	ok(lb_point_find(s.vault, &s.machine, "1:2", &point)); /* the same disks, by the later name */
	ok(lb_point_pin(s.vault, &s.machine, &point, "idle"));
	seen.n = 0;
	ok(lb_points_list(s.vault, &s.machine, INT64_MIN, INT64_MAX, note_point, &seen));
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.p[0].name, "idle");
	site_write_block(&s, 1, 1, LB_HRL_POINT); /* a heartbeat of an older position says nothing */
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	assert_int_equal(point.until_ns, point.time_ns);
}

static void a_clock_that_jumps_back_a_day_never_makes_a_point_older_than_the_one_before(void **state)
{
	struct seen seen = {0};

	(void)state;
	site_begin(&s, 1);
	s.receipt_ns = 400000 * LB_NS_PER_S;
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	s.receipt_ns -= 86400 * LB_NS_PER_S;
	site_write_block(&s, 1, 1, LB_HRL_POINT);
	s.receipt_ns += 2 * 86400 * LB_NS_PER_S;
	site_write_block(&s, 2, 1, LB_HRL_POINT);
	ok(lb_points_list(s.vault, &s.machine, INT64_MIN, INT64_MAX, note_point, &seen));
	assert_int_equal(seen.n, 3);
	assert_int_equal(seen.p[0].time_ns, 400000 * LB_NS_PER_S);
	assert_int_equal(seen.p[1].time_ns, 400000 * LB_NS_PER_S);
	assert_true(seen.p[2].time_ns > seen.p[1].time_ns);
}

static void a_pinned_point_is_found_by_its_name_until_it_is_unpinned(void **state)
{
	struct lb_point point, found;
	struct seen seen = {0};

	(void)state;
	site_begin(&s, 1);
	site_write_block(&s, 0, 1, LB_HRL_POINT);
	ok(lb_point_find(s.vault, &s.machine, "latest", &point));
	ok(lb_point_pin(s.vault, &s.machine, &point, "before-upgrade"));
	ok(lb_point_pin(s.vault, &s.machine, &point, "before-upgrade"));
	assert_int_equal(lb_point_pin(s.vault, &s.machine, &point, "../x"), -EINVAL);
	site_write_block(&s, 1, 1, LB_HRL_POINT);
	ok(lb_point_find(s.vault, &s.machine, "before-upgrade", &found));
	assert_true(found.position.seq == 0 && found.time_ns == point.time_ns);
	ok(lb_points_list(s.vault, &s.machine, INT64_MIN, INT64_MAX, note_point, &seen));
	assert_string_equal(seen.p[0].name, "before-upgrade");
	assert_string_equal(seen.p[1].name, "");
	point.position.seq = 1;
	assert_int_equal(lb_point_pin(s.vault, &s.machine, &point, "before-upgrade"), -EEXIST);
	ok(lb_point_unpin(s.vault, &s.machine, "before-upgrade"));
	assert_int_equal(lb_point_unpin(s.vault, &s.machine, "before-upgrade"), -ENOENT);
	assert_int_equal(lb_point_find(s.vault, &s.machine, "before-upgrade", &found), -ENOENT);
}

/* ---- catalog ---- */

static struct lb_catalog_item an_item(struct lb_uuid machine, const char *name)
{
	struct lb_catalog_item item = {.machine = machine,
				       .firmware = "uefi",
				       .architecture = "x86_64",
				       .cpus = 2,
				       .memory_bytes = 1u << 30,
				       .n_disks = 2,
				       .policy = "default",
				       .consistency_interval_s = 5};

	snprintf(item.name, sizeof(item.name), "%s", name);
	item.disks[0] = (struct lb_catalog_disk){
		.id = 0, .name = "vda", .size_bytes = 1u << 30, .sector_bytes = 512, .boot = true};
	item.disks[1] = (struct lb_catalog_disk){
		.id = 4, .name = "vdb", .serial = "S1", .size_bytes = 1u << 20, .sector_bytes = 4096};
	return item;
}

static void the_newest_catalog_entry_wins_and_an_unchanged_one_is_not_written_again(void **state)
{
	struct lb_catalog_item item = an_item(s.machine, "db1"), got;
	struct site_names *names = calloc(1, sizeof(*names));

	(void)state;
	assert_int_equal(lb_catalog_get(s.vault, &s.machine, &got), -ENOENT);
	ok(lb_catalog_put(s.vault, &item));
	ok(lb_catalog_put(s.vault, &item));
	site_names(&s, "/item/", names);
	assert_int_equal(names->n, 1);
	item.memory_bytes *= 2;
	ok(lb_catalog_put(s.vault, &item));
	site_names(&s, "/item/", names);
	assert_int_equal(names->n, 2);
	ok(lb_catalog_get(s.vault, &s.machine, &got));
	assert_memory_equal(&got, &item, sizeof(got));
	free(names);
}

static void machines_are_found_by_name_or_id_and_a_shared_name_tells_the_ids(void **state)
{
	struct lb_uuid other = {{0xab}};
	struct lb_catalog_item item = an_item(s.machine, "db1"), twin = an_item(other, "db1"), got;
	char uuid[LB_UUID_TEXT_BYTES];
	struct lb_key key;

	(void)state;
	ok(lb_catalog_put(s.vault, &item));
	ok(lb_catalog_find(s.vault, "db1", &got));
	assert_true(lb_uuid_equal(&got.machine, &s.machine));
	assert_int_equal(lb_catalog_find(s.vault, "db2", &got), -ENOENT);
	ok(lb_vault_machine_key(s.vault, &other, true, &key));
	ok(lb_catalog_put(s.vault, &twin));
	lb_uuid_format(&other, uuid);
	fails_naming(lb_catalog_find(s.vault, "db1", &got), -EEXIST, uuid);
	ok(lb_catalog_find(s.vault, uuid, &got));
	assert_true(lb_uuid_equal(&got.machine, &other));
}

static void a_machine_is_called_by_the_newest_name_that_is_authentic_and_by_its_id_where_there_is_none(void **state)
{
	struct lb_catalog_item item = an_item(s.machine, "db1");
	struct site_names *names = calloc(1, sizeof(*names));
	char uuid[LB_UUID_TEXT_BYTES], label[LB_MACHINE_LABEL_BYTES], should[LB_MACHINE_LABEL_BYTES];

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	assert_string_equal(lb_catalog_label(s.vault, &s.machine, label), uuid);
	ok(lb_catalog_put(s.vault, &item));
	snprintf(item.name, sizeof(item.name), "%s", "db2");
	ok(lb_catalog_put(s.vault, &item));
	snprintf(should, sizeof(should), "db2 (%s)", uuid);
	assert_string_equal(lb_catalog_label(s.vault, &s.machine, label), should);
	site_names(&s, "/item/", names);
	assert_int_equal(names->n, 2);
	site_flip(&s, names->name[1], 40);
	snprintf(should, sizeof(should), "db1 (%s)", uuid);
	(void)lb_fail(-EIO, "what went wrong");
	assert_string_equal(lb_catalog_label(s.vault, &s.machine, label), should);
	site_flip(&s, names->name[0], 40);
	assert_string_equal(lb_catalog_label(s.vault, &s.machine, label), uuid);
	assert_string_equal(lb_err_text(), "what went wrong");
	free(names);
}

static void a_word_of_proof_is_its_machines_own_and_of_its_time(void **state)
{
	struct lb_uuid other = {.bytes = {1, 2, 3}};
	char word[LB_PROOF_TEXT_BYTES];
	int64_t time_ns = 0;
	struct lb_key key;

	(void)state;
	ok(lb_vault_machine_key(s.vault, &other, true, &key));
	ok(lb_proof_make(s.vault, &s.machine, 1700000000000000000, word));
	assert_true(lb_proof_is_text(word));
	ok(lb_proof_check(s.vault, &s.machine, word, &time_ns));
	assert_int_equal(time_ns, 1700000000000000000);
	assert_int_equal(lb_proof_check(s.vault, &other, word, &time_ns), -EBADMSG);
	word[5] ^= 1; /* another time */
	assert_int_equal(lb_proof_check(s.vault, &s.machine, word, &time_ns), -EBADMSG);
	assert_int_equal(lb_proof_check(s.vault, &s.machine, "yesterday", &time_ns), -EBADMSG);
}

#define with_site(f) cmocka_unit_test_setup_teardown(f, make_site, remove_site)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_site(a_wrong_passphrase_is_told_with_the_vault_and_the_cure),
		with_site(a_changed_passphrase_opens_and_the_old_one_does_not_while_what_is_stored_stays),
		with_site(the_key_of_one_machine_is_no_key_of_another),
		with_site(a_keyless_vault_serves_only_machines_whose_keys_it_was_given),
		with_site(a_machine_whose_key_was_destroyed_is_told_to_be_gone),
		with_site(a_writer_takes_up_where_the_vault_ends),
		with_site(an_object_that_was_put_before_a_crash_is_acknowledged_again),
		with_site(other_content_under_the_same_number_is_a_conflict),
		with_site(a_stale_writer_that_returns_with_a_full_cache_finds_the_seal_and_stops),
		with_site(fencing_a_sealed_journal_takes_the_next_epoch_from_a_writer_that_is_about_to_begin_it),
		with_site(epochs_that_never_came_to_the_vault_are_sealed_empty),
		with_site(segments_that_do_not_follow_are_refused),
		with_site(a_vault_folder_that_may_not_be_written_loses_nothing_and_tells_the_cure),
		with_site(points_are_the_flagged_boundaries_and_none_while_the_scan_runs),
		with_site(a_time_names_the_newest_point_at_or_before_it_with_checkpoints_on_the_way),
		with_site(heartbeats_keep_an_idle_machines_newest_point_young),
		with_site(a_clock_that_jumps_back_a_day_never_makes_a_point_older_than_the_one_before),
		with_site(a_pinned_point_is_found_by_its_name_until_it_is_unpinned),
		with_site(the_newest_catalog_entry_wins_and_an_unchanged_one_is_not_written_again),
		with_site(machines_are_found_by_name_or_id_and_a_shared_name_tells_the_ids),
		with_site(a_machine_is_called_by_the_newest_name_that_is_authentic_and_by_its_id_where_there_is_none),
		with_site(a_word_of_proof_is_its_machines_own_and_of_its_time),
	};

	return cmocka_run_group_tests_name("vault", tests, NULL, NULL);
}
