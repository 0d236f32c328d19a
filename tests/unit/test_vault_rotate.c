/* SPDX-License-Identifier: Apache-2.0 */
/* The vault key is changed: at any instant the whole vault opens, and what is sealed stays readable. */
#include <errno.h>

#include "cheap_scrypt.h"
#include "vault/anchor.h"
#include "vault/catalog.h"
#include "vault/points.h"
#include "vault/repair.h"
#include "vault/site.h"
#include "vault/slots.h"
#include "vault/verify.h"
#include "vault_site.h"

static struct site s;
static struct lb_uuid other = {{9}};
static struct lb_key other_key;

static const char registry[] = "{\"policies\": []}";

/* ---- a store that dies at one of its writes ---- */

struct dying_store {
	struct lb_store store;
	struct lb_store *inner;
	unsigned int writes; /* so far, without those of the store's proof */
	unsigned int dies_at;
	bool after; /* the write comes into force, but its answer is lost */
	bool is_dead;
	char died_at[128]; /* the object */
};

static struct dying_store *dying_of(struct lb_store *store)
{
	return (struct dying_store *)store;
}

/* Whether the store is away before this write comes into force. */
static bool dies_before(struct dying_store *d, const char *name)
{
	if (d->is_dead || strncmp(name, "probe/", 6) == 0)
		return d->is_dead;
	d->writes++;
	if (d->writes == d->dies_at)
		snprintf(d->died_at, sizeof(d->died_at), "%s", name);
	d->is_dead = d->writes == d->dies_at && !d->after;
	return d->is_dead;
}

static int answer(struct dying_store *d, int r)
{
	if (d->dies_at > 0 && d->writes == d->dies_at)
		d->is_dead = true;
	return d->is_dead ? lb_fail(-EIO, "the store is away") : r;
}

static int dying_put_new(struct lb_store *store, const char *name, const void *data, size_t size_bytes)
{
	struct dying_store *d = dying_of(store);

	return answer(d, dies_before(d, name) ? -EIO : lb_store_put_new(d->inner, name, data, size_bytes));
}

static int dying_replace(struct lb_store *store, const char *name, const char *etag, const void *data,
			 size_t size_bytes)
{
	struct dying_store *d = dying_of(store);

	return answer(d, dies_before(d, name) ? -EIO : lb_store_replace(d->inner, name, etag, data, size_bytes));
}

static int dying_remove(struct lb_store *store, const char *name)
{
	struct dying_store *d = dying_of(store);

	return answer(d, dies_before(d, name) ? -EIO : lb_store_remove(d->inner, name));
}

static int dying_get(struct lb_store *store, const char *name, uint64_t offset_bytes, size_t size_bytes,
		     struct lb_buf *out)
{
	return dying_of(store)->is_dead ? lb_fail(-EIO, "the store is away")
					: lb_store_get(dying_of(store)->inner, name, offset_bytes, size_bytes, out);
}

static int dying_stat(struct lb_store *store, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	return dying_of(store)->is_dead ? lb_fail(-EIO, "the store is away")
					: lb_store_stat(dying_of(store)->inner, name, ret_size_bytes, ret_etag);
}

static int dying_list(struct lb_store *store, const char *prefix, lb_store_list_fn fn, void *arg)
{
	return dying_of(store)->is_dead ? lb_fail(-EIO, "the store is away")
					: lb_store_list(dying_of(store)->inner, prefix, fn, arg);
}

static int dying_list_folders(struct lb_store *store, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	return dying_of(store)->is_dead ? lb_fail(-EIO, "the store is away")
					: lb_store_list_folders(dying_of(store)->inner, prefix, fn, arg);
}

static const struct lb_store_ops dying_ops = {
	.scheme = "dying",
	.put_new = dying_put_new,
	.replace = dying_replace,
	.get = dying_get,
	.stat = dying_stat,
	.list = dying_list,
	.list_folders = dying_list_folders,
	.remove = dying_remove,
};

/* ---- the vault ---- */

static void put_entry(const struct lb_uuid *machine, const char *name)
{
	struct lb_catalog_item item = {.machine = *machine, .n_disks = 1};

	snprintf(item.name, sizeof(item.name), "%s", name);
	item.disks[0] = (struct lb_catalog_disk){.name = "vda", .size_bytes = LB_MIB(64), .sector_bytes = 512};
	ok(lb_catalog_put(s.vault, &item));
}

static int make_site(void **state)
{
	(void)state;
	site_new(&s); /* under the cost that `is_cheap` says */
	ok(lb_vault_machine_key(s.vault, &other, true, &other_key));
	put_entry(&s.machine, "db1");
	put_entry(&other, "db2");
	ok(lb_vault_site_put(s.vault, "registry", registry, sizeof(registry)));
	site_begin(&s, 1);
	for (uint8_t i = 0; i < 3; i++)
		site_write_block(&s, i, i, LB_HRL_POINT);
	return 0;
}

static int make_cheap_site(void **state)
{
	is_cheap = true;
	return make_site(state);
}

static int remove_site(void **state)
{
	(void)state;
	site_free(&s);
	is_cheap = false;
	return 0;
}

static void rotate(struct lb_store *store, struct lb_rotation *ret)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;

	ok(lb_vault_open(store, SITE_PASSPHRASE, &v));
	ok(lb_vault_rotate(v, SITE_PASSPHRASE, ret));
}

static void reads_blocks(struct lb_vault *v, const struct lb_position *position)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	uint8_t got[4096];

	ok(lb_image_open(v, &s.machine, position, 0, &image));
	for (uint8_t i = 0; i < 3; i++) {
		ok(lb_image_pread(image, 0, got, sizeof(got), i * sizeof(got)));
		assert_true(got[0] == i + 1 && got[1] == i && got[sizeof(got) - 1] == i);
	}
}

static void tell(void *arg, const struct lb_verify_finding *f)
{
	unsigned int *notes = arg;

	if (!f->is_note)
		print_error("%s: %s\n", f->object, f->text);
	else
		(*notes)++;
}

static unsigned int verified_with_notes(struct lb_vault *v)
{
	struct lb_verify_report report;
	unsigned int notes = 0;

	ok(lb_vault_verify(v, NULL, true, NULL, tell, &notes, &report));
	assert_int_equal(report.findings, 0);
	return notes;
}

/*
 * Everything is there, under whichever keys: machines, points and what they hold, the site's objects, receipts. Returns
 * how many notes verify had.
 */
static unsigned int opens_whole(const struct lb_buf *receipt)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	_cleanup_(lb_receipt_clear) struct lb_receipt opened = {0};
	_cleanup_buf_ struct lb_buf plain = LB_BUF(4096);
	struct lb_point point;
	struct lb_key key;

	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	ok(lb_vault_machine_key(v, &s.machine, false, &key));
	assert_memory_equal(&key, &s.key, sizeof(key));
	ok(lb_vault_machine_key(v, &other, true, &key)); /* none is made anew */
	assert_memory_equal(&key, &other_key, sizeof(key));
	ok(lb_point_find(v, &s.machine, "latest", &point));
	assert_true(point.position.epoch == 1 && point.position.seq == s.seq - 1);
	reads_blocks(v, &point.position);
	ok(lb_vault_site_get(v, "registry", &plain));
	assert_string_equal((const char *)plain.data, registry);
	ok(lb_receipt_open(v, receipt->data, receipt->size_bytes, &opened));
	assert_non_null(lb_receipt_find(&opened, &s.machine));
	return verified_with_notes(v);
}

static bool is_json_with(const char *part)
{
	_cleanup_buf_ struct lb_buf json = LB_BUF(LB_VAULT_JSON_BYTES_MAX + 1);

	ok(lb_store_get_all(s.store, LB_VAULT_JSON, LB_VAULT_JSON_BYTES_MAX, &json));
	return strstr((const char *)json.data, part) != NULL;
}

static size_t wraps(void)
{
	struct site_names *names = malloc(sizeof(*names));
	size_t n;

	assert_non_null(names);
	site_names(&s, "/key", names);
	n = names->n;
	free(names);
	return n;
}

static void make_receipt(struct lb_buf *out)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;

	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	ok(lb_receipt_make(v, out));
}

static void a_changed_vault_key_opens_all_of_the_vault_and_leaves_no_wrap_of_the_old_one(void **state)
{
	_cleanup_buf_ struct lb_buf receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct lb_rotation done;

	(void)state;
	make_receipt(&receipt);
	assert_true(is_json_with("\"version\":1") || is_json_with("\"version\": 1"));
	rotate(s.store, &done);
	assert_true(!done.is_resumed && done.machines == 2 && done.keyless == 0 && done.old_wraps_left == 0);
	assert_true(is_json_with("\"key\"") && !is_json_with("\"previous\""));
	assert_int_equal(wraps(), 2);
	assert_int_equal(opens_whole(&receipt), 0);
	site_write_block(&s, 5, 5, LB_HRL_POINT); /* who writes goes on */
	opens_whole(&receipt);
	rotate(s.store, &done);
	assert_int_equal(wraps(), 2);
	opens_whole(&receipt);
}

/*
 * Killed at its n-th write, before it comes into force or with its answer lost; then what is there is opened, and it is
 * finished. False when it has no n-th write.
 */
static bool killed_at(unsigned int n, bool after, char died_at[128])
{
	struct dying_store dying = {.store = {.ops = &dying_ops, .url = s.store->url, .env = s.store->env},
				    .inner = s.store,
				    .dies_at = n,
				    .after = after};
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	_cleanup_buf_ struct lb_buf receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct lb_rotation done;
	int r;

	make_receipt(&receipt);
	ok(lb_vault_open(&dying.store, SITE_PASSPHRASE, &v));
	r = lb_vault_rotate(v, SITE_PASSPHRASE, &done);
	assert_int_equal(r, dying.is_dead ? -EIO : 0);
	opens_whole(&receipt);
	if (is_json_with("\"previous\"")) {
		assert_true(dying.is_dead);
		rotate(s.store, &done);
		assert_true(done.is_resumed && done.machines == 2);
		opens_whole(&receipt);
	}
	assert_false(is_json_with("\"previous\""));
	assert_int_equal(wraps(), 2);
	snprintf(died_at, 128, "%s", dying.died_at);
	return dying.is_dead;
}

static void a_change_that_is_killed_at_any_write_leaves_a_vault_that_opens_and_can_be_finished(void **state)
{
	unsigned int n = 0, keys = 0, jsons = 0;
	char died_at[128];
	bool died;

	do {
		n++;
		for (int after = 0; after <= 1; after++) {
			died = killed_at(n, after != 0, died_at);
			remove_site(state); /* a vault of its own for each */
			make_cheap_site(state);
		}
		keys += strncmp(died_at, "m/", 2) == 0;
		jsons += strcmp(died_at, LB_VAULT_JSON) == 0;
	} while (died && n < 100);
	/* each write of it was one of them: both keys put and dropped, begun and ended, two of the site's objects */
	assert_true(!died && n >= 8);
	assert_int_equal(keys, 4);
	assert_int_equal(jsons, 2);
}

/* Run k dies at its k-th write, again and again over one vault, with the answer lost every other time. */
static void a_change_whose_resumptions_are_killed_too_comes_to_its_end(void **state)
{
	_cleanup_buf_ struct lb_buf receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	bool began = false, ended = false;
	struct lb_rotation done;

	(void)state;
	make_receipt(&receipt);
	for (unsigned int k = 1; !ended; k++) {
		struct dying_store dying = {.store = {.ops = &dying_ops, .url = s.store->url, .env = s.store->env},
					    .inner = s.store,
					    .dies_at = k,
					    .after = k % 2 == 0};
		_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;

		assert_true(k < 100);
		ok(lb_vault_open(&dying.store, SITE_PASSPHRASE, &v));
		ended = lb_vault_rotate(v, SITE_PASSPHRASE, &done) == 0;
		began = began || is_json_with("\"previous\"");
		ended = ended || (began && !is_json_with("\"previous\""));
		opens_whole(&receipt);
	}
	assert_true(began);
	assert_int_equal(wraps(), 2);
	assert_int_equal(opens_whole(&receipt), 0);
}

static void an_interrupted_change_is_noted_and_the_passphrase_can_be_changed_meanwhile(void **state)
{
	struct dying_store dying = {
		.store = {.ops = &dying_ops, .url = s.store->url, .env = s.store->env}, .inner = s.store, .dies_at = 1};
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL, *again = NULL, *last = NULL;
	_cleanup_buf_ struct lb_buf receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct lb_rotation done;
	struct lb_key key;

	(void)state;
	make_receipt(&receipt);
	ok(lb_vault_open(&dying.store, SITE_PASSPHRASE, &v));
	while (!is_json_with("\"previous\"")) {
		assert_int_equal(lb_vault_rotate(v, SITE_PASSPHRASE, &done), -EIO);
		dying.writes = 0;
		dying.dies_at++;
		dying.is_dead = false;
	}
	assert_int_equal(opens_whole(&receipt), 1);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &again));
	ok(lb_vault_passphrase_change(again, "the second passphrase"));
	assert_int_equal(lb_vault_rotate(again, SITE_PASSPHRASE, &done), -EKEYREJECTED);
	ok(lb_vault_rotate(again, "the second passphrase", &done));
	assert_true(done.is_resumed);
	ok(lb_vault_open(s.store, "the second passphrase", &last));
	ok(lb_vault_machine_key(last, &s.machine, false, &key));
	assert_memory_equal(&key, &s.key, sizeof(key));
}

/* What it would seal by the old key nobody could open. */
static void who_still_holds_the_old_vault_key_can_write_nothing_by_it(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *stale = NULL;
	_cleanup_buf_ struct lb_buf receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	struct lb_uuid third = {{3}};
	struct lb_rotation done;
	struct lb_key key;

	(void)state;
	make_receipt(&receipt);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &stale));
	rotate(s.store, &done);
	fails_naming(lb_vault_machine_key(stale, &third, true, &key), -ESTALE, "start it again");
	fails_naming(lb_vault_machine_key(stale, &s.machine, true, &key), -ESTALE, "start it again");
	fails_naming(lb_vault_site_put(stale, "registry", "x", 1), -ESTALE, "start it again");
	fails_naming(lb_vault_site_put(stale, "news", "x", 1), -ESTALE, "start it again");
	fails_naming(lb_vault_passphrase_change(stale, "the second passphrase"), -ESTALE, "start it again");
	assert_int_equal(wraps(), 2);
	assert_int_equal(opens_whole(&receipt), 0);
}

static void an_old_vault_json_with_the_old_passphrase_opens_no_machine_any_more(void **state)
{
	_cleanup_buf_ struct lb_buf old = LB_BUF(LB_VAULT_JSON_BYTES_MAX), receipt = LB_BUF(LB_RECEIPT_BYTES_MAX);
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_rotation done;
	char path[512];
	struct lb_key key;
	FILE *f;

	(void)state;
	make_receipt(&receipt);
	ok(lb_store_get_all(s.store, LB_VAULT_JSON, LB_VAULT_JSON_BYTES_MAX, &old));
	rotate(s.store, &done);
	/* lost: the receipt of before would put such a one back, and is refused */
	ok(lb_store_remove(s.store, LB_VAULT_JSON));
	fails_naming(lb_receipt_restore(s.store, SITE_PASSPHRASE, receipt.data, receipt.size_bytes, false), -ESTALE,
		     "use a receipt made since");
	site_path(&s, LB_VAULT_JSON, path);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(old.data, 1, old.size_bytes, f), old.size_bytes);
	assert_int_equal(fclose(f), 0);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	assert_int_equal(lb_vault_machine_key(v, &s.machine, false, &key), -ENOENT);
}

static void a_machine_key_that_nothing_opens_stops_the_change_before_the_old_key_goes(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL, *again = NULL;
	char name[128], uuid[LB_UUID_TEXT_BYTES];
	struct lb_rotation done;
	struct lb_key key;

	(void)state;
	lb_uuid_format(&s.machine, uuid);
	snprintf(name, sizeof(name), "m/%s/key", uuid);
	site_flip(&s, name, 30);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	fails_naming(lb_vault_rotate(v, SITE_PASSPHRASE, &done), -EBADMSG, uuid);
	assert_true(is_json_with("\"previous\""));
	site_flip(&s, name, 30); /* put back from a copy */
	rotate(s.store, &done);
	assert_true(done.is_resumed && done.machines == 2);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &again));
	ok(lb_vault_machine_key(again, &s.machine, false, &key));
	assert_memory_equal(&key, &s.key, sizeof(key));
}

static int list_one(void *arg, const struct lb_point *p)
{
	size_t used = strlen(arg);

	snprintf((char *)arg + used, 256 - used, "%llu:%llu%s ", (unsigned long long)p->position.epoch,
		 (unsigned long long)p->position.seq, p->is_damaged ? "!" : "");
	return 0;
}

static void lists_points(struct lb_vault *v, const char *wanted)
{
	char listed[256] = "";

	ok(lb_points_list(v, &s.machine, 0, INT64_MAX, list_one, listed));
	assert_string_equal(listed, wanted);
}

static void no_told(void *arg, const struct lb_repair_told *t)
{
	(void)arg;
	(void)t;
}

/* Repair writes under the machine's key and looks for it by its name, which is another one now. */
static void points_are_listed_read_and_repaired_as_before_after_a_change(void **state)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_repair_report report;
	struct lb_rotation done;
	struct lb_point point;
	struct site_names *journal = malloc(sizeof(*journal));

	(void)state;
	assert_non_null(journal);
	site_write_block(&s, 9, 9, LB_HRL_POINT); /* 1:3, lost below */
	site_write_block(&s, 4, 4, LB_HRL_POINT);
	rotate(s.store, &done);
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	lists_points(v, "1:0 1:1 1:2 1:3 1:4 ");
	ok(lb_vault_repair(v, NULL, true, false, no_told, NULL, &report));
	assert_true(report.repaired == 0 && report.beyond == 0); /* the key's new name is no damage */
	site_names(&s, "/e/", journal);
	ok(lb_store_remove(s.store, journal->name[3]));
	free(journal);
	ok(lb_vault_repair(v, NULL, true, false, no_told, NULL, &report));
	assert_true(report.repaired == 1 && report.beyond == 0);
	lists_points(v, "1:0 1:1 1:2 1:4! ");
	ok(lb_point_find(v, &s.machine, "latest", &point));
	assert_int_equal(point.position.seq, 2);
	reads_blocks(v, &point.position);
	rotate(s.store, &done); /* and a repaired one is changed as well */
	lb_vault_freep(&v);
	v = NULL;
	ok(lb_vault_open(s.store, SITE_PASSPHRASE, &v));
	lists_points(v, "1:0 1:1 1:2 1:4! ");
	reads_blocks(v, &point.position);
}

#define with_site(f) cmocka_unit_test_setup_teardown(f, make_cheap_site, remove_site)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_changed_vault_key_opens_all_of_the_vault_and_leaves_no_wrap_of_the_old_one, make_site,
			remove_site), /* at the real cost */
		with_site(a_change_that_is_killed_at_any_write_leaves_a_vault_that_opens_and_can_be_finished),
		with_site(a_change_whose_resumptions_are_killed_too_comes_to_its_end),
		with_site(an_interrupted_change_is_noted_and_the_passphrase_can_be_changed_meanwhile),
		with_site(who_still_holds_the_old_vault_key_can_write_nothing_by_it),
		with_site(an_old_vault_json_with_the_old_passphrase_opens_no_machine_any_more),
		with_site(a_machine_key_that_nothing_opens_stops_the_change_before_the_old_key_goes),
		with_site(points_are_listed_read_and_repaired_as_before_after_a_change),
	};

	return cmocka_run_group_tests_name("vault_rotate", tests, NULL, NULL);
}
