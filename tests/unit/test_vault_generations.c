/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's key is changed: new objects are sealed by the new one, old ones stay readable, nothing is rewritten. */
#include <errno.h>

#include "cheap_scrypt.h"
#include "fold_site.h"
#include "vault/chain.h"
#include "vault/proof.h"
#include "vault/repair.h"

static struct machine *m;

static int begin(void **state)
{
	(void)state;
	is_cheap = true;
	m = machine_new("all:6h,1h:1d,4h:3d");
	return 0;
}

static int end(void **state)
{
	(void)state;
	machine_free(m);
	return 0;
}

/* By another process, as the CLI is one; the machine's own process hears of it when it is told. */
static void change_key(uint32_t generation)
{
	uint32_t got;

	ok(lb_vault_machine_key_rotate(m->vault, &m->s.machine, &got));
	assert_int_equal(got, generation);
}

static void hear(void)
{
	ok(lb_vault_keyrings_follow(m->s.vault, false));
}

static struct lb_vault *opened_anew(void)
{
	struct lb_vault *v;

	ok(lb_vault_open(m->s.store, SITE_PASSPHRASE, &v));
	return v;
}

static uint32_t generations(void)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = opened_anew();
	struct lb_keyring ring;

	ok(lb_vault_keyring(v, &m->s.machine, false, &ring));
	return ring.n;
}

static void key_object(const char *rest, char name[128])
{
	char uuid[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&m->s.machine, uuid);
	snprintf(name, 128, "m/%s/key%s", uuid, rest);
}

/* The generations that seal the objects under a folder, one bit each, by their salts at `at`. */
static uint32_t sealed_by(const char *folder, uint64_t at)
{
	static struct site_names names;
	uint32_t seen = 0;

	site_names(&m->s, folder, &names);
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_buf_ struct lb_buf salt = LB_BUF(LB_SALT_BYTES);

		ok(lb_store_get(m->s.store, names.name[i], at, LB_SALT_BYTES, &salt));
		seen |= 1u << lb_salt_generation(salt.data);
	}
	return seen;
}

/* Every point reads as the disk was by a vault that is opened now, and nothing is found wrong with it. */
static void all_is_sound(void)
{
	struct lb_vault *before = m->s.vault;

	m->s.vault = opened_anew();
	assert_true(machine_check(m) > 3);
	machine_verify(m);
	lb_vault_free(m->s.vault);
	m->s.vault = before;
}

static void new_objects_are_sealed_by_the_new_key_and_all_points_read(void **state)
{
	struct lb_fold_report folded;

	(void)state;
	machine_run(m, 30, HOUR_NS / 2);
	assert_int_equal(sealed_by("/e/", 16), 1u << 0);
	change_key(1);
	machine_run(m, 10, HOUR_NS / 2); /* who was not told yet goes on with the old one */
	assert_int_equal(sealed_by("/e/", 16), 1u << 0);
	all_is_sound();
	hear();
	machine_run(m, 30, HOUR_NS / 2);
	assert_int_equal(sealed_by("/e/", 16), 3u);
	all_is_sound();
	folded = machine_fold(m); /* merges what two keys sealed */
	assert_true(folded.points_pruned > 0 && folded.objects_folded > 0);
	all_is_sound();
	change_key(2);
	hear();
	machine_run(m, 60, HOUR_NS / 2);
	machine_fold(m);
	assert_true((sealed_by("/e/", 16) & 1u << 2) != 0);
	assert_true((sealed_by("/f/", 16) & 1u << 2) != 0);
	assert_true((sealed_by("/d/", 16) & 1u << 2) != 0);
	all_is_sound();
}

static void a_keyless_vault_reads_with_the_keys_that_it_was_given_and_takes_further_ones(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *keyless = NULL, *owner = NULL;
	struct lb_keyring ring, other;
	struct lb_journal_tail tail;

	(void)state;
	machine_run(m, 3, HOUR_NS);
	change_key(1);
	hear();
	machine_run(m, 3, HOUR_NS);
	owner = opened_anew();
	ok(lb_vault_keyring(owner, &m->s.machine, false, &ring));
	assert_int_equal(ring.n, 2);
	ok(lb_vault_open_keyless(m->s.store, &keyless));
	ring.n = 1;
	ok(lb_vault_machine_key_give(keyless, &m->s.machine, &ring));
	fails_naming(lb_journal_tail_read(keyless, &m->s.machine, &tail), -EBADMSG, "was not told");
	ring.n = 2;
	ok(lb_vault_machine_key_give(keyless, &m->s.machine, &ring));
	ok(lb_journal_tail_read(keyless, &m->s.machine, &tail));
	assert_int_equal(tail.position.seq, m->s.seq - 1);
	ring.n = 1; /* by somebody who is behind: nothing is forgotten */
	ok(lb_vault_machine_key_give(keyless, &m->s.machine, &ring));
	ok(lb_vault_keyring(keyless, &m->s.machine, false, &other));
	assert_int_equal(other.n, 2);
	ring.key[0].bytes[0] ^= 1;
	assert_int_equal(lb_vault_machine_key_give(keyless, &m->s.machine, &ring), -EKEYREJECTED);
}

/* The only write that matters is the key's own; the other tells the site. */
static void a_change_of_key_that_is_killed_at_any_write_is_done_or_is_not(void **state)
{
	uint32_t got, n = 1;
	int64_t writes = 0;
	int r;

	(void)state;
	machine_run(m, 6, HOUR_NS);
	do {
		lb_vault_free(m->vault);
		machine_vault(m);
		ok(lb_store_prove(&m->deadly.store)); /* so that its probes are not what dies */
		m->deadly.changes_left = 6 + writes;  /* the vault's own proof, then `writes` */
		r = lb_vault_machine_key_rotate(m->vault, &m->s.machine, &got);
		assert_true(r == 0 || r == -EIO);
		m->deadly.changes_left = INT64_MAX;
		assert_true(generations() == n || generations() == n + 1);
		n = generations();
		assert_true(r != 0 || got == n - 1);
		ok(lb_vault_keyrings_follow(m->s.vault, true));
		machine_run(m, 2, HOUR_NS);
		assert_true((sealed_by("/e/", 16) & 1u << (n - 1)) != 0);
		all_is_sound();
		writes++;
	} while (r != 0 && writes < 20);
	assert_int_equal(r, 0);
	assert_true(writes > 1);
}

static void a_change_of_the_vault_key_that_is_killed_at_any_write_keeps_every_key_of_a_machine(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_keyring before, now;
	struct lb_rotation done = {0};
	struct site_names *wraps = malloc(sizeof(*wraps));
	int64_t writes = 0;
	char name[128];
	int r = -EIO;

	(void)state;
	assert_non_null(wraps);
	machine_run(m, 4, HOUR_NS);
	change_key(1);
	hear();
	machine_run(m, 4, HOUR_NS);
	change_key(2);
	hear();
	machine_run(m, 4, HOUR_NS);
	v = opened_anew();
	ok(lb_vault_keyring(v, &m->s.machine, false, &before));
	for (; r == -EIO && writes < 60; writes++) {
		lb_vault_free(m->vault);
		machine_vault(m);
		m->deadly.changes_left = writes;
		r = lb_vault_rotate(m->vault, SITE_PASSPHRASE, &done);
		m->deadly.changes_left = INT64_MAX;
		lb_vault_free(v);
		v = opened_anew();
		ok(lb_vault_keyring(v, &m->s.machine, false, &now));
		assert_int_equal(now.n, 3);
		assert_memory_equal(now.key, before.key, lb_keyring_bytes(&now));
	}
	assert_int_equal(r, 0);
	assert_true(done.is_resumed && done.machines == 1);
	all_is_sound();
	site_names(&m->s, "/key", wraps);
	assert_int_equal(wraps->n, 3); /* the old wraps are gone, of all of them */
	key_object("", name);
	for (size_t i = 0; i < wraps->n; i++)
		assert_true(strncmp(wraps->name[i], name, strlen(name)) == 0 && wraps->name[i][strlen(name)] == '-');
	free(wraps);
	assert_int_equal(lb_vault_machine_key_rotate(m->s.vault, &m->s.machine, &(uint32_t){0}), -ESTALE);
	ok(lb_vault_machine_key_rotate(v, &m->s.machine, &(uint32_t){0}));
	assert_int_equal(generations(), 4);
}

static char found[65536];

static void note(void *arg, const struct lb_verify_finding *f)
{
	size_t used = strlen(found);

	(void)arg;
	if (!f->is_note)
		snprintf(found + used, sizeof(found) - used, "%s: %s\n", f->object, f->text);
}

static void verify_names(const char *object, const char *part)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = opened_anew();
	struct lb_verify_report report;
	const char *line;

	found[0] = '\0';
	ok(lb_vault_verify(v, NULL, false, NULL, note, NULL, &report));
	line = strstr(found, object);
	if (line == NULL || strstr(line, part) == NULL)
		fail_msg("%s (%s) is not named in: %s", object, part, found);
}

/* Who copied the old key and can write to the store. */
static void nothing_sealed_by_an_old_key_is_taken_behind_what_a_newer_one_sealed(void **state)
{
	_cleanup_buf_ struct lb_buf object = LB_BUF(LB_PACK_BYTES_MAX);
	struct lb_pack p = {.kind = LB_PACK_SEAL, .reason = "forged"};
	uint8_t salt[LB_SALT_BYTES] = {5};
	char name[LB_OBJECT_NAME_BYTES];
	struct lb_journal_tail tail;
	struct lb_chain c;

	(void)state;
	machine_run(m, 4, HOUR_NS);
	change_key(1);
	hear();
	machine_run(m, 4, HOUR_NS);
	ok(lb_chain_newest(&c, m->s.vault, &m->s.machine));
	ok(lb_chain_finish(&c));
	p.place = lb_chain_next_place(&c);
	p.prev = c.last;
	p.prev_digest = c.last_digest;
	p.after = c.after;
	lb_salt_mark(salt, 0);
	ok(lb_pack_encode(lb_vault_id(m->s.vault), &m->s.machine, &m->s.key, salt, &p, &object));
	ok(lb_pack_name(name, &m->s.machine, &p.place));
	ok(lb_store_put_new(m->s.store, name, object.data, object.size_bytes));
	fails_naming(lb_journal_tail_read(m->s.vault, &m->s.machine, &tail), -EBADMSG, "still has the old one");
	verify_names(name, "sealed by key 0");
}

static void a_missing_key_is_named_and_its_number_is_not_given_to_another(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	char name[128];

	(void)state;
	machine_run(m, 4, HOUR_NS);
	change_key(1);
	hear();
	machine_run(m, 4, HOUR_NS);
	key_object(".01", name);
	ok(lb_store_remove(m->s.store, name));
	verify_names("/e/", name);
	v = opened_anew();
	fails_naming(lb_vault_machine_key_rotate(v, &m->s.machine, &(uint32_t){0}), -EBADMSG, name);
	machine_reads_as(m, &m->models[0].position); /* what it did not seal */
	/* where a later one is there, it is named by itself */
	lb_vault_free(v);
	v = opened_anew();
	key_object(".02", name);
	ok(lb_store_put_new(m->s.store, name, "x", 1));
	key_object(".01", name);
	verify_names(name, "is gone");
	fails_naming(lb_vault_machine_key_rotate(v, &m->s.machine, &(uint32_t){0}), -ENOENT, name);
}

static void altered_swapped_and_foreign_keys_of_a_machine_are_named(void **state)
{
	char one[128], two[128], path[512], other[512];

	(void)state;
	machine_run(m, 2, HOUR_NS);
	change_key(1);
	change_key(2);
	hear();
	machine_run(m, 2, HOUR_NS);
	key_object(".01", one);
	key_object(".02", two);
	for (uint64_t at = 0; at < 72; at += 7) {
		site_flip(&m->s, one, at);
		verify_names(one, "key");
		site_flip(&m->s, one, at);
	}
	key_object(".99", other); /* none that there can be */
	ok(lb_store_put_new(m->s.store, other, "x", 1));
	verify_names(other, "foreign");
	site_path(&m->s, one, path);
	site_path(&m->s, two, other);
	assert_int_equal(rename(other, path), 0); /* a generation in another one's place */
	verify_names(one, "not authentic");
	assert_int_equal(truncate(path, 20), 0);
	verify_names(one, "truncated");
}

static void a_machine_is_erased_with_all_its_keys(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_keyring ring;
	char name[128];

	(void)state;
	machine_run(m, 2, HOUR_NS);
	change_key(1);
	key_object("", name);
	ok(lb_store_remove(m->s.store, name));
	v = opened_anew();
	assert_int_equal(lb_vault_keyring(v, &m->s.machine, false, &ring), -ENOENT);
	verify_names(name, "is gone"); /* the other one is still there, and should not be */
	key_object(".01", name);
	ok(lb_store_remove(m->s.store, name));
	assert_int_equal(lb_vault_keyring(v, &m->s.machine, false, &ring), -ENOENT);
	assert_int_equal(lb_vault_machine_key_rotate(v, &m->s.machine, &(uint32_t){0}), -ENOENT);
}

static void no_told(void *arg, const struct lb_repair_told *t)
{
	(void)arg;
	(void)t;
}

static void damage_is_led_over_where_the_key_was_changed_in_it(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_repair_report report;
	struct site_names *journal = malloc(sizeof(*journal));
	struct points *points;

	(void)state;
	assert_non_null(journal);
	site_begin(&m->s, 1);
	for (int i = 0; i < 4; i++)
		machine_object(m, HOUR_NS, LB_HRL_POINT);
	change_key(1);
	hear();
	for (int i = 0; i < 4; i++)
		machine_object(m, HOUR_NS, LB_HRL_POINT);
	site_names(&m->s, "/e/", journal);
	ok(lb_store_remove(m->s.store, journal->name[3])); /* the last by the old key, the first by the new one */
	ok(lb_store_remove(m->s.store, journal->name[4]));
	free(journal);
	v = opened_anew();
	ok(lb_vault_repair(v, NULL, true, false, no_told, NULL, &report));
	assert_true(report.repaired == 1 && report.beyond == 1); /* that: there is no catalog here */
	points = machine_points(m);
	assert_true(points->n > 3);
	for (size_t i = 0; i < points->n; i++)
		if (!points->point[i].is_damaged)
			machine_reads_as(m, &points->point[i].position);
}

static void a_word_of_proof_that_was_given_under_the_old_key_still_proves(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	char text[LB_PROOF_TEXT_BYTES];
	int64_t time_ns;

	(void)state;
	ok(lb_proof_make(m->s.vault, &m->s.machine, 5, text));
	change_key(1);
	v = opened_anew();
	ok(lb_proof_check(v, &m->s.machine, text, &time_ns));
	assert_int_equal(time_ns, 5);
	ok(lb_proof_make(v, &m->s.machine, 6, text));
	ok(lb_proof_check(v, &m->s.machine, text, &time_ns));
	text[strlen(text) - 1] ^= 1;
	assert_int_equal(lb_proof_check(v, &m->s.machine, text, &time_ns), -EBADMSG);
}

static void a_machine_has_no_more_keys_than_the_limit(void **state)
{
	uint32_t got;

	(void)state;
	for (uint32_t i = 1; i < LB_KEYRING_MAX; i++)
		change_key(i);
	fails_naming(lb_vault_machine_key_rotate(m->vault, &m->s.machine, &got), -ENOSPC, "protect it anew");
	assert_int_equal(generations(), LB_KEYRING_MAX);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(new_objects_are_sealed_by_the_new_key_and_all_points_read),
		T(a_keyless_vault_reads_with_the_keys_that_it_was_given_and_takes_further_ones),
		T(a_change_of_key_that_is_killed_at_any_write_is_done_or_is_not),
		T(a_change_of_the_vault_key_that_is_killed_at_any_write_keeps_every_key_of_a_machine),
		T(nothing_sealed_by_an_old_key_is_taken_behind_what_a_newer_one_sealed),
		T(a_missing_key_is_named_and_its_number_is_not_given_to_another),
		T(altered_swapped_and_foreign_keys_of_a_machine_are_named),
		T(a_machine_is_erased_with_all_its_keys),
		T(damage_is_led_over_where_the_key_was_changed_in_it),
		T(a_word_of_proof_that_was_given_under_the_old_key_still_proves),
		T(a_machine_has_no_more_keys_than_the_limit),
	};

	return cmocka_run_group_tests_name("vault_generations", tests, NULL, NULL);
}
