/* SPDX-License-Identifier: Apache-2.0 */
/* What an attacker or a rotten disk does to a folded vault: manifests, maps of spans, rewritten data, leases. */
#include <errno.h>

#include "fold_site.h"

#include "base/bytes.h"
#include "vault/lease.h"
#include "vault/manifest.h"
#include "vault/repair.h"

#define LADDER "all:2h 1h:12h 4h:3d"
#define STEP_NS (600 * LB_NS_PER_S)

static struct machine *m;

static int make(void **state)
{
	(void)state;
	m = machine_new(LADDER);
	m->options.retention.delete_delay_s = 3600;
	for (int round = 0; round < 8; round++) {
		machine_run(m, 12, STEP_NS);
		machine_fold(m);
	}
	return 0;
}

static int clean(void **state)
{
	(void)state;
	machine_free(m);
	return 0;
}

static char text[65536]; /* of the first findings */
static size_t n_found;
static const char *wanted; /* an object that some finding should name */
static bool is_wanted_found;
static size_t n_named;

static void note(void *arg, const struct lb_verify_finding *f)
{
	size_t used = strlen(text);

	(void)arg;
	if (f->is_note || strstr(f->object, "/item/") != NULL)
		return;
	snprintf(text + used, sizeof(text) - used, "%s: %s\n", f->object, f->text);
	n_found++;
	is_wanted_found = is_wanted_found ||
			  (wanted != NULL && (strstr(f->object, wanted) != NULL || strstr(f->text, wanted) != NULL));
}

static void verify(void)
{
	struct lb_verify_report report;

	text[0] = '\0';
	n_found = 0;
	ok(lb_vault_verify(m->s.vault, &m->s.machine, true, NULL, note, NULL, &report));
}

/* Named, or else it costs nothing that is offered: all of that still reads as it was written. */
static void is_named(const char *object, const char *how)
{
	wanted = object;
	is_wanted_found = false;
	verify();
	wanted = NULL;
	if (n_found > 0 && !is_wanted_found)
		fail_msg("%s: %s is not named in: %s", object, how, text);
	if (n_found == 0)
		machine_check(m);
	n_named += n_found > 0;
}

/* Objects that what is offered needs, one of each kind and then some. */
static void folded_objects(struct site_names *all)
{
	static const char *const folders[] = {"/f/", "/d/", "/o/"};
	_cleanup_manifest_ struct lb_manifest *manifest = NULL;
	static struct site_names some;

	ok(lb_manifest_read(m->s.vault, &m->s.machine, &manifest));
	assert_true(manifest->n_spans > 3);
	all->n = 0;
	for (size_t i = 0; i < LB_ARRAY_LEN(folders); i++) {
		site_names(&m->s, folders[i], &some);
		for (size_t k = 0; k < some.n; k += LB_MAX(some.n / 4, (size_t)1)) {
			all->size_bytes[all->n] = some.size_bytes[k];
			strcpy(all->name[all->n++], some.name[k]);
		}
	}
	assert_true(all->n > 4);
}

/* Whether the newest manifest needs it: what waits for deletion costs nothing. */
static bool is_needed(const char *object)
{
	_cleanup_manifest_ struct lb_manifest *manifest = NULL;
	uint64_t number;

	if (strstr(object, "/f/") != NULL)
		return true;
	ok(lb_manifest_read(m->s.vault, &m->s.machine, &manifest));
	if (lb_folded_name_parse(object, 'd', &number) == 0)
		for (size_t i = 0; i < manifest->n_spans; i++)
			if (manifest->spans[i].map == number)
				return true;
	if (lb_folded_name_parse(object, 'o', &number) == 0)
		return lb_manifest_live(manifest, 0, number | LB_FOLDED_OBJECT) != NULL;
	return false;
}

static void a_flipped_bit_in_any_folded_object_is_named(void **state)
{
	static struct site_names all;

	(void)state;
	n_named = 0;
	verify();
	if (n_found > 0)
		fail_msg("%s", text);
	folded_objects(&all);
	for (size_t i = 0; i < all.n; i++) {
		if (!is_needed(all.name[i]))
			continue;
		for (uint64_t at = 0; at < all.size_bytes[i]; at += all.size_bytes[i] / 5 + 1) {
			site_flip(&m->s, all.name[i], at);
			is_named(all.name[i], "a flipped bit");
			site_flip(&m->s, all.name[i], at);
		}
	}
	assert_true(n_named > 3);
	verify();
	assert_int_equal(n_found, 0);
}

static void a_missing_or_truncated_folded_object_is_named(void **state)
{
	static struct site_names all;

	(void)state;
	n_named = 0;
	folded_objects(&all);
	for (size_t i = 0; i < all.n; i++) {
		_cleanup_buf_ struct lb_buf was = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
		bool needed = is_needed(all.name[i]);

		if (!needed || strstr(all.name[i], "/f/") != NULL)
			continue; /* a missing newest manifest is a rollback, below */
		ok(lb_store_get_all(m->s.store, all.name[i], LB_STORE_OBJECT_BYTES_MAX, &was));
		ok(lb_store_remove(m->s.store, all.name[i]));
		is_named(all.name[i], "a missing object");
		ok(lb_store_put_new(m->s.store, all.name[i], was.data, was.size_bytes / 2));
		is_named(all.name[i], "a truncated object");
		ok(lb_store_remove(m->s.store, all.name[i]));
		ok(lb_store_put_new(m->s.store, all.name[i], was.data, was.size_bytes));
	}
	assert_true(n_named > 3);
	verify();
	assert_int_equal(n_found, 0);
}

static void swap(const char *a, const char *b)
{
	char path_a[512], path_b[512], path_c[600];

	site_path(&m->s, a, path_a);
	site_path(&m->s, b, path_b);
	snprintf(path_c, sizeof(path_c), "%s/.swap", m->s.folder);
	assert_int_equal(rename(path_a, path_c) | rename(path_b, path_a) | rename(path_c, path_b), 0);
}

/* The last of the first `n` that is needed. */
static const char *last_needed(const struct site_names *names, size_t n)
{
	while (n > 0 && !is_needed(names->name[n - 1]))
		n--;
	assert_true(n > 0);
	return names->name[n - 1];
}

static void swapped_maps_and_manifests_are_named(void **state)
{
	static struct site_names names;
	static const char *const folders[] = {"/f/", "/d/"};

	(void)state;
	for (size_t i = 0; i < LB_ARRAY_LEN(folders); i++) {
		const char *a, *b;

		site_names(&m->s, folders[i], &names);
		b = last_needed(&names, names.n);
		a = last_needed(&names, (size_t)(b - names.name[0]) / sizeof(names.name[0]));
		swap(a, b);
		verify();
		assert_true(n_found > 0);
		swap(a, b);
	}
	verify();
	assert_int_equal(n_found, 0);
}

static struct lb_repair_report repaired;

static void told(void *arg, const struct lb_repair_told *t)
{
	(void)arg;
	(void)t;
}

static void repair(void)
{
	ok(lb_vault_repair(m->s.vault, &m->s.machine, false, false, told, NULL, &repaired));
}

static void a_repair_leaves_a_sound_folded_vault_alone(void **state)
{
	static struct site_names before, after;

	(void)state;
	repair(); /* records that there is no catalog here */
	site_names(&m->s, "", &before);
	repair();
	site_names(&m->s, "", &after);
	assert_int_equal(before.n, after.n);
	machine_check(m);
}

static void a_damaged_newest_manifest_is_replaced_by_the_one_before(void **state)
{
	static struct site_names manifests;
	struct lb_point point;

	(void)state;
	site_names(&m->s, "/f/", &manifests);
	assert_true(manifests.n >= 2);
	site_flip(&m->s, manifests.name[manifests.n - 1], 60);
	assert_true(lb_point_find(m->s.vault, &m->s.machine, "latest", &point) < 0);
	repair();
	assert_true(repaired.repaired > 0);
	ok(lb_point_find(m->s.vault, &m->s.machine, "latest", &point));
	assert_true(machine_check(m) > 10);
}

#define T(f) cmocka_unit_test_setup_teardown(f, make, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_flipped_bit_in_any_folded_object_is_named),
		T(a_missing_or_truncated_folded_object_is_named),
		T(swapped_maps_and_manifests_are_named),
		T(a_repair_leaves_a_sound_folded_vault_alone),
		T(a_damaged_newest_manifest_is_replaced_by_the_one_before),
	};

	return cmocka_run_group_tests_name("vault_folded", tests, NULL, NULL);
}
