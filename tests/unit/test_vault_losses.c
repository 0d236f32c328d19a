/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a repair a vault is proven again, with the losses that it recorded; what comes later is new damage. Every kind
 * of object of a folded vault is lost in turn, and the repair is killed at every write.
 */
#include <errno.h>

#include "cheap_scrypt.h"
#include "fold_site.h"
#include "vault/catalog.h"
#include "vault/repair.h"

static struct machine *m;

static void new_machine(void)
{
	struct lb_catalog_item item = {.n_disks = 1, .name = "db1"};
	struct lb_point point = {.time_ns = 1};

	is_cheap = true;
	m = machine_new("all:6h,1h:1d,4h:3d");
	item.machine = m->s.machine;
	item.disks[0] = (struct lb_catalog_disk){.name = "vda", .size_bytes = DISK_BYTES, .sector_bytes = 512};
	ok(lb_catalog_put(m->s.vault, &item));
	machine_run(m, 60, HOUR_NS);
	machine_fold(m);
	machine_run(m, 8, HOUR_NS / 4);
	point.position = m->models[m->n_models - 1].position;
	ok(lb_point_pin(m->s.vault, &m->s.machine, &point, "pin"));
}

static int begin(void **state)
{
	(void)state;
	new_machine();
	return 0;
}

static int end(void **state)
{
	(void)state;
	machine_free(m);
	return 0;
}

static char found[65536];
static size_t n_recorded;

static void note(void *arg, const struct lb_verify_finding *f)
{
	size_t used = strlen(found);

	(void)arg;
	n_recorded += f->is_recorded;
	if (!f->is_note && !f->is_recorded)
		snprintf(found + used, sizeof(found) - used, "%s: %s\n", f->object, f->text);
}

/* By who opens the vault anew. */
static struct lb_verify_report verify(bool deep)
{
	_cleanup_(lb_vault_freep) struct lb_vault *v = NULL;
	struct lb_verify_report report;

	found[0] = '\0';
	n_recorded = 0;
	ok(lb_vault_open(m->s.store, SITE_PASSPHRASE, &v));
	ok(lb_vault_verify(v, NULL, deep, NULL, note, NULL, &report));
	assert_int_equal(report.recorded, n_recorded);
	return report;
}

static void no_told(void *arg, const struct lb_repair_told *t)
{
	(void)arg;
	(void)t;
}

static struct lb_repair_report repair(void)
{
	struct lb_repair_report report;

	ok(lb_vault_repair(m->s.vault, NULL, true, false, no_told, NULL, &report));
	return report;
}

/* Says what the repair would do, and writes nothing. */
static struct lb_repair_report try_repair(void)
{
	static struct site_names before, after;
	struct lb_repair_report report;

	site_names(&m->s, "", &before);
	ok(lb_vault_repair(m->s.vault, NULL, true, true, no_told, NULL, &report));
	site_names(&m->s, "", &after);
	assert_int_equal(after.n, before.n);
	for (size_t i = 0; i < before.n; i++) {
		assert_string_equal(after.name[i], before.name[i]);
		assert_int_equal(after.size_bytes[i], before.size_bytes[i]);
	}
	return report;
}

/* Whatever is offered as whole reads as the disk was; what is not, reads as it was or is an error. */
static void no_point_lies(void)
{
	static uint8_t got[DISK_BYTES];
	struct points *points = machine_points(m);

	assert_true(points->n > 3);
	for (size_t i = 0; i < points->n; i++) {
		const struct lb_position *at = &points->point[i].position;
		const uint8_t *disk = machine_model(m, at)->disk;
		struct lb_image *image = NULL;
		int r = lb_image_open(m->s.vault, &m->s.machine, at, 0, &image);

		if (!points->point[i].is_damaged)
			assert_int_equal(r, 0);
		for (uint64_t off = 0; r == 0 && off < DISK_BYTES; off += BLOCK_BYTES) {
			int got_r = lb_image_pread(image, 0, got, BLOCK_BYTES, off);

			assert_true(got_r == 0 || (got_r == -EBADMSG && points->point[i].is_damaged));
			if (got_r == 0 && memcmp(got, disk + off, BLOCK_BYTES) != 0)
				fail_msg("point %llu:%llu lies at %llu", (unsigned long long)at->epoch,
					 (unsigned long long)at->seq, (unsigned long long)off);
		}
		if (image != NULL)
			lb_image_free(image);
	}
}

static void is_settled(const char *object)
{
	static struct site_names all;
	struct lb_verify_report report = verify(true);
	size_t before;

	if (report.findings > 0)
		fail_msg("%s: after the repair there is still found: %s", object, found);
	site_names(&m->s, "", &all);
	before = all.n;
	repair();
	site_names(&m->s, "", &all);
	for (size_t i = 0; i < all.n && all.n != before; i++)
		print_error("%s\n", all.name[i]);
	if (all.n != before)
		fail_msg("%s: a second repair wrote %zu objects", object, all.n - before); /* nothing was left to do */
	report = verify(true);
	assert_int_equal(report.findings, 0);
	no_point_lies();
}

/* One object of each kind, from the middle of its folder. */
static size_t kinds(struct site_names *some)
{
	static const char *const parts[] = {"/e/", "/c/", "/d/", "/o/", "/f/", "/p/", "/item/"};
	static struct site_names all;
	size_t n = 0;

	for (size_t i = 0; i < LB_ARRAY_LEN(parts); i++) {
		site_names(&m->s, parts[i], &all);
		if (all.n == 0)
			continue;
		for (size_t k = 0; k < 3 && k < all.n; k++) {
			some->size_bytes[n] = all.size_bytes[k == 2 ? all.n - 1 : k * (all.n / 2)];
			strcpy(some->name[n++], all.name[k == 2 ? all.n - 1 : k * (all.n / 2)]);
		}
	}
	return n;
}

static void whatever_is_damaged_a_repair_makes_the_vault_proven_with_recorded_losses(void **state)
{
	static struct site_names some;
	struct lb_repair_report dry, wet;
	size_t n = kinds(&some), lost = 0;

	assert_true(n >= 16);
	for (size_t i = 0; i < 2 * n; i++) {
		const char *object = some.name[i / 2];

		if (i > 0) { /* a vault of its own for each */
			end(state);
			new_machine();
			assert_int_equal(kinds(&some), n); /* some names are random */
		}
		if (i % 2 == 0)
			site_flip(&m->s, object, some.size_bytes[i / 2] / 2);
		else
			ok(lb_store_remove(m->s.store, object));
		if (verify(true).findings == 0)
			continue; /* it leaves no trace, or nothing needs it */
		lost++;
		dry = try_repair();
		wet = repair();
		if (dry.repaired != wet.repaired || dry.beyond != wet.beyond)
			fail_msg("%s: %llu and %llu beyond were told, %llu and %llu were done", object,
				 (unsigned long long)dry.repaired, (unsigned long long)dry.beyond,
				 (unsigned long long)wet.repaired, (unsigned long long)wet.beyond);
		is_settled(object);
	}
	assert_true(lost >= n);
}

static void damage_that_comes_after_a_repair_is_found_anew(void **state)
{
	static struct site_names journal;
	struct lb_verify_report report;

	(void)state;
	site_names(&m->s, "/e/", &journal);
	site_flip(&m->s, journal.name[journal.n - 4], 200);
	assert_true(verify(true).findings > 0);
	repair();
	report = verify(true);
	assert_true(report.findings == 0 && report.recorded > 0);
	site_flip(&m->s, journal.name[journal.n - 2], 200);
	report = verify(true);
	assert_true(report.findings > 0 && report.recorded > 0);
	assert_non_null(strstr(found, journal.name[journal.n - 2]));
	assert_null(strstr(found, journal.name[journal.n - 4]));
}

static void the_newest_point_that_is_told_after_a_repair_is_the_newest_that_can_be_used(void **state)
{
	static struct site_names journal;
	struct lb_verify_report report;
	struct lb_point point;

	(void)state;
	site_names(&m->s, "/e/", &journal);
	ok(lb_store_remove(m->s.store, journal.name[journal.n - 3]));
	repair();
	report = verify(false);
	assert_int_equal(report.findings, 0);
	ok(lb_point_find(m->s.vault, &m->s.machine, "latest", &point));
	if (report.newest.epoch != point.position.epoch || report.newest.seq != point.position.seq)
		fail_msg("%llu:%llu is told, %llu:%llu is the newest", (unsigned long long)report.newest.epoch,
			 (unsigned long long)report.newest.seq, (unsigned long long)point.position.epoch,
			 (unsigned long long)point.position.seq);
	machine_reads_as(m, &point.position);
}

static void repair_and_be_killed_at_every_write(void)
{
	struct lb_repair_report report;
	int64_t writes = 0;
	int r = -EIO;

	for (; r == -EIO && writes < 80; writes++) {
		lb_vault_free(m->vault);
		machine_vault(m);
		ok(lb_store_prove(&m->deadly.store));
		m->deadly.changes_left = writes;
		r = lb_vault_repair(m->vault, NULL, true, false, no_told, NULL, &report);
		m->deadly.changes_left = INT64_MAX;
		assert_true(r == 0 || r == -EIO);
	}
	assert_int_equal(r, 0);
	assert_true(writes > 2);
}

static void a_repair_that_is_killed_at_any_write_goes_on(void **state)
{
	static struct site_names journal;

	(void)state;
	site_names(&m->s, "/e/", &journal);
	site_flip(&m->s, journal.name[journal.n - 5], 200);
	ok(lb_store_remove(m->s.store, journal.name[journal.n - 3]));
	site_flip(&m->s, journal.name[journal.n - 1], 200); /* the newest: a seal is put behind it */
	repair_and_be_killed_at_every_write();
	is_settled("the journal");
}

static void so_does_a_repair_of_the_folded_part(void **state)
{
	static const char *const parts[] = {"/d/", "/o/", "/c/", "/f/"};
	static struct site_names all;

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(parts); i++) {
		site_names(&m->s, parts[i], &all);
		if (all.n > 0)
			site_flip(&m->s, all.name[all.n / 2], all.size_bytes[all.n / 2] / 2);
	}
	assert_true(verify(true).findings > 1);
	repair_and_be_killed_at_every_write();
	is_settled("the folded part");
}

/* Checkpoints were made with the lost version, and refer to what it alone had rewritten: nobody keeps that. */
static void when_a_manifest_is_lost_nothing_is_read_through_what_only_it_named(void **state)
{
	static struct site_names all;
	uint64_t number, version = 0;

	(void)state;
	site_names(&m->s, "/f/", &all);
	site_flip(&m->s, all.name[all.n - 1], all.size_bytes[all.n - 1] / 2);
	site_names(&m->s, "/o/", &all);
	assert_true(all.n > 0);
	repair();
	for (size_t i = 0; i < all.n; i++) {
		ok(lb_folded_name_parse(all.name[i], 'o', &number));
		version = LB_MAX(version, lb_folded_version(number));
	}
	for (size_t i = 0; i < all.n; i++) {
		ok(lb_folded_name_parse(all.name[i], 'o', &number));
		if (lb_folded_version(number) == version)
			ok(lb_store_remove(m->s.store, all.name[i]));
	}
	is_settled("the manifest");
	for (size_t i = 0; i < machine_points(m)->n; i++)
		assert_false(machine_points(m)->point[i].is_damaged);
	machine_run(m, 24, HOUR_NS);
	machine_fold(m);
	is_settled("the manifest, folded again");
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(whatever_is_damaged_a_repair_makes_the_vault_proven_with_recorded_losses),
		T(damage_that_comes_after_a_repair_is_found_anew),
		T(the_newest_point_that_is_told_after_a_repair_is_the_newest_that_can_be_used),
		T(a_repair_that_is_killed_at_any_write_goes_on),
		T(so_does_a_repair_of_the_folded_part),
		T(when_a_manifest_is_lost_nothing_is_read_through_what_only_it_named),
	};

	return cmocka_run_group_tests_name("vault_losses", tests, NULL, NULL);
}
