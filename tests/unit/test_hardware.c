/* SPDX-License-Identifier: Apache-2.0 */
/* Inventory and fingerprint from a /sys that the test makes; what the vault has not confirmed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "mobility/agent_config.h"
#include "mobility/confirm.h"
#include "mobility/double.h"
#include "mobility/hardware.h"

static char root[64];
static char hex[LB_HARDWARE_HEX_BYTES], hex2[LB_HARDWARE_HEX_BYTES];
static enum lb_hardware_source source;

static void put(const char *path, const char *text)
{
	char whole[256];

	snprintf(whole, sizeof(whole), "%s%s", root, path);
	*strrchr(whole, '/') = '\0';
	assert_int_equal(lb_folder_make(lb_env_real(), whole, 0755), 0);
	snprintf(whole, sizeof(whole), "%s%s", root, path);
	assert_int_equal(lb_file_write(lb_env_real(), whole, text, strlen(text), 0644), 0);
}

static void put_disk(const char *name, const char *serial, const char *sectors, const char *removable)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/block/%s/size", name);
	put(path, sectors);
	snprintf(path, sizeof(path), "/sys/block/%s/removable", name);
	put(path, removable);
	snprintf(path, sizeof(path), "/sys/block/%s/queue/logical_block_size", name);
	put(path, "4096\n");
	if (serial == NULL)
		return;
	snprintf(path, sizeof(path), "/sys/block/%s/serial", name);
	put(path, serial);
}

static int begin(void **state)
{
	(void)state;
	strcpy(root, "/tmp/lb-hardware-XXXXXX");
	assert_non_null(mkdtemp(root));
	put("/etc/machine-id", "0123456789abcdef\n");
	put_disk("sdb", "SB\n", "2048\n", "0\n");
	put_disk("sda", "  SA \n", "4096\n", "0\n");
	put_disk("sdaa", "SAA\n", "8\n", "0\n");
	put_disk("sdc", "STICK\n", "8192\n", "1\n");
	put_disk("zram0", NULL, "2048\n", "0\n");
	put_disk("sr0", NULL, "2048\n", "1\n");
	put_disk("loop7", NULL, "64\n", "0\n");
	put_disk("loop8", NULL, "0\n", "0\n");
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int end(void **state)
{
	(void)state;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int fingerprint(char *ret_hex)
{
	return lb_hardware_fingerprint(lb_env_real(), root, NULL, LB_HARDWARE_ANY, ret_hex, &source);
}

static void the_inventory_lists_whole_disks_in_their_natural_order(void **state)
{
	struct lb_inventory inventory;

	(void)state;
	assert_int_equal(lb_inventory_read(lb_env_real(), root, &inventory), 0);
	assert_int_equal(inventory.n, 5);
	assert_string_equal(inventory.disks[0].name, "sda");
	assert_string_equal(inventory.disks[0].serial, "SA");
	assert_int_equal(inventory.disks[0].size_bytes, 4096 * 512);
	assert_int_equal(inventory.disks[0].sector_bytes, 4096);
	assert_true(inventory.disks[0].fixed);
	assert_string_equal(inventory.disks[2].name, "sdc");
	assert_false(inventory.disks[2].fixed);
	assert_string_equal(inventory.disks[3].name, "sdaa");
	assert_string_equal(inventory.disks[4].name, "loop7");
	assert_false(inventory.disks[4].fixed);
}

static void a_disk_is_found_by_its_serial_number_whatever_it_is_called_today(void **state)
{
	struct lb_inventory_disk disk;

	(void)state;
	assert_int_equal(lb_disk_find(lb_env_real(), root, "SB", "sda", "/dev/sda", &disk), 0);
	assert_string_equal(disk.name, "sdb");
	assert_int_equal(lb_disk_find(lb_env_real(), root, "GONE", "sda", "/dev/sda", &disk), -ENODEV);
	assert_int_equal(lb_disk_find(lb_env_real(), root, "", "loop7", "", &disk), 0);
	assert_int_equal(lb_disk_find(lb_env_real(), root, "", "loop8", "", &disk), -ENODEV);
	assert_int_equal(lb_disk_find(lb_env_real(), root, "", "../sda", "", &disk), -ENODEV);
}

static void the_fingerprint_is_of_the_machine_and_its_disks_not_of_their_names(void **state)
{
	(void)state;
	assert_int_equal(fingerprint(hex), 0);
	assert_int_equal(source, LB_HARDWARE_MACHINE_ID);
	put("/sys/block/sda/serial", "SB\n");
	put("/sys/block/sdb/serial", "SA\n");
	put("/sys/block/sdc/serial", "ANOTHER STICK\n");
	assert_int_equal(fingerprint(hex2), 0);
	assert_string_equal(hex, hex2);
	put("/sys/block/sda/serial", "OTHER\n");
	assert_int_equal(fingerprint(hex2), 0);
	assert_string_not_equal(hex, hex2);
}

static void the_firmwares_uuid_comes_before_the_machine_id_and_may_be_a_copy(void **state)
{
	char copy[128], third[LB_HARDWARE_HEX_BYTES];

	(void)state;
	put("/sys/class/dmi/id/product_uuid", "11111111-2222-3333-4444-555555555555\n");
	assert_int_equal(fingerprint(hex), 0);
	assert_int_equal(source, LB_HARDWARE_FIRMWARE);
	put("/sys/class/dmi/id/product_uuid", "\n");
	put("/run/uuid", "11111111-2222-3333-4444-555555555555\n");
	snprintf(copy, sizeof(copy), "%s/run/uuid", root);
	assert_int_equal(lb_hardware_fingerprint(lb_env_real(), root, copy, LB_HARDWARE_FIRMWARE, hex2, NULL), 0);
	assert_string_equal(hex, hex2);
	/* enrolled by the firmware's, it never falls back silently */
	assert_int_equal(lb_hardware_fingerprint(lb_env_real(), root, NULL, LB_HARDWARE_FIRMWARE, third, NULL),
			 -EACCES);
}

static void a_configuration_with_two_disks_of_one_id_is_refused(void **state)
{
	static const char text[] =
		"{\"machine\":\"11111111-2222-3333-4444-555555555555\",\"enabled\":true,"
		"\"vault_id\":\"11111111-2222-3333-4444-555555555555\",\"process_url\":\"https://p:1/\","
		"\"disks\":[{\"id\":%d,\"name\":\"a\"},{\"id\":1,\"name\":\"b\"}]}";
	struct lb_agent_config config;
	json_t *object;
	char body[512];

	(void)state;
	snprintf(body, sizeof(body), text, 1);
	object = json_loads(body, 0, NULL);
	assert_int_equal(lb_agent_config_parse(object, &config), -EBADMSG);
	json_decref(object);
	snprintf(body, sizeof(body), text, 64);
	object = json_loads(body, 0, NULL);
	assert_int_equal(lb_agent_config_parse(object, &config), -EBADMSG);
	json_decref(object);
	snprintf(body, sizeof(body), text, 0);
	object = json_loads(body, 0, NULL);
	assert_int_equal(lb_agent_config_parse(object, &config), 0);
	json_decref(object);
	assert_string_equal(config.process_url, "https://p:1");
	assert_int_equal(config.n_disks, 2);
}

static void what_the_vault_has_not_confirmed_outlives_the_agent(void **state)
{
	const struct lb_confirm_disk disks[] = {{0, 5 << 20}, {1, (3 << 20) + 512}};
	const struct lb_uuid instance = {{1}}, other = {{2}};
	_cleanup_(lb_confirm_freep) struct lb_confirm *c = NULL;
	uint64_t cursor = 0, offset, length;
	char path[128];
	uint16_t disk;

	(void)state;
	snprintf(path, sizeof(path), "%s/unconfirmed", root);
	assert_int_equal(lb_confirm_open(path, &instance, disks, 2, &c), 0);
	assert_false(lb_confirm_covers(c, 9, true, 9));
	lb_confirm_begin(c, 3);
	lb_confirm_note(c, 1, 3 << 20, 512);
	lb_confirm_free(c);
	c = NULL;
	assert_int_equal(lb_confirm_open(path, &instance, disks, 2, &c), 0);
	assert_true(lb_confirm_covers(c, 3, false, 0));
	assert_false(lb_confirm_covers(c, 2, true, 1000));
	assert_int_equal(lb_confirm_next(c, &cursor, &disk, &offset, &length), 1);
	assert_int_equal(disk, 1);
	assert_int_equal(offset, 3 << 20);
	assert_int_equal(length, 512);
	assert_int_equal(lb_confirm_next(c, &cursor, &disk, &offset, &length), 0);
	lb_confirm_free(c);
	c = NULL;
	/* of another capture it is worth nothing */
	assert_int_equal(lb_confirm_open(path, &other, disks, 2, &c), 0);
	assert_false(lb_confirm_covers(c, 3, false, 0));
}

static void a_range_is_forgotten_only_when_the_vault_has_all_that_carried_it(void **state)
{
	const struct lb_confirm_disk disks[] = {{0, 8 << 20}};
	const struct lb_uuid instance = {{1}};
	_cleanup_(lb_confirm_freep) struct lb_confirm *c = NULL;
	uint64_t cursor = 0, offset, length;
	uint16_t disk;

	(void)state;
	assert_int_equal(lb_confirm_open(NULL, &instance, disks, 1, &c), 0);
	lb_confirm_begin(c, 1);
	lb_confirm_note(c, 0, 0, 4096);  /* segment 0 */
	lb_confirm_vault(c, 1, 0, 1, 1); /* young becomes old: up to segment 1, which is being made */
	lb_confirm_note(c, 0, 1 << 20, 4096);
	lb_confirm_vault(c, 1, 0, 1, 2); /* nothing new: segment 1 is not there yet */
	assert_int_equal(lb_confirm_next(c, &cursor, &disk, &offset, &length), 1);
	assert_int_equal(offset, 0);
	assert_true(lb_confirm_covers(c, 1, true, 0));
	lb_confirm_vault(c, 1, 5, 1, 6);
	cursor = 0;
	assert_int_equal(lb_confirm_next(c, &cursor, &disk, &offset, &length), 1);
	assert_int_equal(offset, 1 << 20);
	lb_confirm_vault(c, 1, 6, 1, 7);
	cursor = 0;
	assert_int_equal(lb_confirm_next(c, &cursor, &disk, &offset, &length), 0);
	assert_false(lb_confirm_covers(c, 1, true, 1));
}

/* A structure without strings, then OEM strings as QEMU lays them out. */
#define SMBIOS_BEGIN "\x20\x04\x00\x20\0\0"
#define SMBIOS_OEM "\x0b\x05\x00\x0e\x02"
#define SMBIOS_END "\0\x7f\x04\x00\x7f\0\0"
#define SOURCE "5f1ebea7-0000-4000-8000-000000000001"

static int in_tables(const char *tables, size_t size_bytes)
{
	_cleanup_free_ uint8_t *exact = malloc(size_bytes); /* so that a sanitizer sees a read past its end */
	struct lb_uuid machine, expected;
	int r;

	assert_non_null(exact);
	memcpy(exact, tables, size_bytes);
	r = lb_double_in_tables(exact, size_bytes, &machine);
	if (r == 0) {
		assert_int_equal(lb_uuid_parse(SOURCE, &expected), 0);
		assert_true(lb_uuid_equal(&machine, &expected));
	}
	return r;
}

static void a_double_knows_its_source_by_the_firmwares_tables(void **state)
{
	static const char tables[] =
		SMBIOS_BEGIN SMBIOS_OEM "lifeboat:failover=test\0lifeboat:double=" SOURCE "\0" SMBIOS_END;
	static const char other_type[] = SMBIOS_BEGIN "\x0c\x05\x00\x0e\x02lifeboat:double=" SOURCE "\0" SMBIOS_END;
	static const char other_text[] = SMBIOS_BEGIN SMBIOS_OEM "lifeboat:double=x" SOURCE "\0" SMBIOS_END;

	(void)state;
	assert_int_equal(in_tables(tables, sizeof(tables) - 1), 0);
	assert_int_equal(in_tables(other_type, sizeof(other_type) - 1), -ENOENT);
	assert_int_equal(in_tables(other_text, sizeof(other_text) - 1), -ENOENT);
	assert_int_equal(in_tables(SMBIOS_BEGIN SMBIOS_END, sizeof(SMBIOS_BEGIN SMBIOS_END) - 1), -ENOENT);
}

static void firmware_tables_that_break_off_are_no_harm(void **state)
{
	static const char tables[] = SMBIOS_BEGIN SMBIOS_OEM "lifeboat:double=" SOURCE "\0" SMBIOS_END;
	const size_t whole = sizeof(SMBIOS_BEGIN SMBIOS_OEM "lifeboat:double=" SOURCE) - 1;

	(void)state;
	for (size_t n = 1; n < sizeof(tables); n++)
		assert_int_equal(in_tables(tables, n), n < whole ? -ENOENT : 0);
	/* a structure that is shorter than its own header, or longer than the tables */
	assert_int_equal(in_tables("\x0b\x00\0\0\0\0", 6), -ENOENT);
	assert_int_equal(in_tables("\x0b\xff\0\0\0\0", 6), -ENOENT);
}

static void a_machine_whose_tables_cant_be_read_is_taken_for_none(void **state)
{
	struct lb_uuid machine;
	char copy[128];

	(void)state;
	snprintf(copy, sizeof(copy), "%s/run/smbios", root);
	assert_int_equal(lb_double_of(lb_env_real(), root, copy, &machine), -ENODATA);
	put("/run/smbios", "");
	assert_int_equal(lb_double_of(lb_env_real(), root, copy, &machine), -ENOENT);
	put("/sys/firmware/dmi/tables/DMI", "\x0b");
	assert_int_equal(lb_double_of(lb_env_real(), root, NULL, &machine), -ENOENT);
}

static void cards_are_listed_with_the_one_of_the_default_route_first(void **state)
{
	_cleanup_json_ json_t *cards = NULL;

	(void)state;
	put("/sys/class/net/eno1/address", "52:54:00:00:00:01\n");
	put("/sys/class/net/eno1/device/vendor", "x");
	put("/sys/class/net/eno2/address", "52:54:00:00:00:02\n");
	put("/sys/class/net/eno2/device/vendor", "x");
	put("/sys/class/net/br0/address", "52:54:00:00:00:03\n");
	put("/sys/class/net/ib0/address", "80:00:02:08:fe:80:00:00:00:00:00:00:f4:52:14:03:00:7b:cb:a1\n");
	put("/sys/class/net/ib0/device/vendor", "x");
	put("/proc/net/route", "Iface\tDestination\tGateway\nbr9\t0000A8C0\t00000000\neno2\t00000000\t0100A8C0\n");
	assert_int_equal(lb_cards_json(lb_env_real(), root, &cards), 0);
	assert_int_equal(json_array_size(cards), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(cards, 0), "mac")), "52:54:00:00:00:02");
	assert_true(json_is_true(json_object_get(json_array_get(cards, 0), "default")));
	assert_string_equal(json_string_value(json_object_get(json_array_get(cards, 1), "name")), "eno1");
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(cards_are_listed_with_the_one_of_the_default_route_first),
		T(the_inventory_lists_whole_disks_in_their_natural_order),
		T(a_disk_is_found_by_its_serial_number_whatever_it_is_called_today),
		T(the_fingerprint_is_of_the_machine_and_its_disks_not_of_their_names),
		T(the_firmwares_uuid_comes_before_the_machine_id_and_may_be_a_copy),
		T(a_configuration_with_two_disks_of_one_id_is_refused),
		T(what_the_vault_has_not_confirmed_outlives_the_agent),
		T(a_range_is_forgotten_only_when_the_vault_has_all_that_carried_it),
		T(a_double_knows_its_source_by_the_firmwares_tables),
		T(firmware_tables_that_break_off_are_no_harm),
		T(a_machine_whose_tables_cant_be_read_is_taken_for_none),
	};

	return cmocka_run_group_tests_name("hardware", tests, NULL, NULL);
}
