/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices are a machine's disks: what /sys tells of them is told by files here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "target/match.h"

#define MIB (1ull << 20)

struct host {
	char root[8]; /* "/tmp/.." is too long for what a match tells of it */
	struct lb_catalog_item item;
	struct lb_target_match match;
};

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void add_device(struct host *h, const char *name, uint64_t size_bytes, const char *serial, bool removable)
{
	char folder[128], path[192], text[32];

	snprintf(folder, sizeof(folder), "%s/sys/block/%s", h->root, name);
	assert_int_equal(mkdir(folder, 0700), 0);
	snprintf(path, sizeof(path), "%s/size", folder);
	snprintf(text, sizeof(text), "%llu\n", (unsigned long long)(size_bytes / 512));
	write_text(path, text);
	snprintf(path, sizeof(path), "%s/serial", folder);
	write_text(path, serial);
	snprintf(path, sizeof(path), "%s/removable", folder);
	write_text(path, removable ? "1\n" : "0\n");
}

static void add_disk(struct host *h, const char *name, uint64_t size_bytes, const char *serial)
{
	struct lb_catalog_disk *d = &h->item.disks[h->item.n_disks++];

	*d = (struct lb_catalog_disk){.id = (uint16_t)(h->item.n_disks - 1), .size_bytes = size_bytes};
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->serial, sizeof(d->serial), "%s", serial);
}

static int make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));
	char folder[] = "/tmp/lbmatch.XXXXXX", path[64];

	assert_non_null(h);
	assert_non_null(mkdtemp(folder));
	assert_int_equal(chdir(folder), 0);
	snprintf(h->root, sizeof(h->root), ".");
	assert_int_equal(mkdir("sys", 0700), 0);
	snprintf(path, sizeof(path), "sys/block");
	assert_int_equal(mkdir(path, 0700), 0);
	*state = h;
	return 0;
}

static int unmake(void **state)
{
	char folder[256], command[300];

	assert_non_null(getcwd(folder, sizeof(folder)));
	assert_int_equal(chdir("/"), 0);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	assert_int_equal(system(command), 0);
	free(*state);
	return 0;
}

static int match(struct host *h)
{
	return lb_target_match(lb_env_real(), h->root, &h->item, &h->match);
}

static void test_serial_numbers_decide_first_and_sizes_what_is_left(void **state)
{
	struct host *h = *state;

	add_device(h, "sda", 8 * MIB, "TWO\n", false);
	add_device(h, "sdb", 8 * MIB, "", false);
	add_device(h, "sdc", 8 * MIB, "ONE\n", false);
	add_disk(h, "vda", 8 * MIB, "ONE");
	add_disk(h, "vdb", 8 * MIB, "TWO");
	add_disk(h, "vdc", 6 * MIB, "LOST");
	assert_int_equal(match(h), 0);
	assert_string_equal(h->match.path[0], "./dev/sdc");
	assert_string_equal(h->match.path[1], "./dev/sda");
	assert_string_equal(h->match.path[2], "./dev/sdb");
}

static void test_what_can_be_pulled_out_is_not_taken_for_its_size(void **state)
{
	struct host *h = *state;

	add_device(h, "sda", 4 * MIB, "", false);
	add_device(h, "sdb", 64 * MIB, "STICK\n", true);
	add_disk(h, "vda", 8 * MIB, "LOST");
	assert_int_equal(match(h), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "/dev/sda (4.0 MiB)"));
	assert_non_null(strstr(lb_err_text(), "serial STICK, removable"));
	/* its serial number is plain enough */
	snprintf(h->item.disks[0].serial, sizeof(h->item.disks[0].serial), "STICK");
	assert_int_equal(match(h), 0);
	assert_string_equal(h->match.path[0], "./dev/sdb");
}

static void test_two_that_would_do_are_refused_with_what_there_is(void **state)
{
	struct host *h = *state;

	add_device(h, "sda", 8 * MIB, "A\n", false);
	add_device(h, "sdb", 8 * MIB, "B\n", false);
	add_disk(h, "vda", 8 * MIB, "LOST");
	assert_int_equal(match(h), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "which device is disk vda"));
	assert_non_null(strstr(lb_err_text(), "serial A"));
	assert_non_null(strstr(lb_err_text(), "serial B"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_serial_numbers_decide_first_and_sizes_what_is_left, make, unmake),
		cmocka_unit_test_setup_teardown(test_what_can_be_pulled_out_is_not_taken_for_its_size, make, unmake),
		cmocka_unit_test_setup_teardown(test_two_that_would_do_are_refused_with_what_there_is, make, unmake),
	};

	return cmocka_run_group_tests_name("target_match", tests, NULL, NULL);
}
