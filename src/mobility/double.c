/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/double.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

#define TABLES_PATH "/sys/firmware/dmi/tables/DMI"
#define OEM_STRINGS 11
#define END_OF_TABLE 127
#define HEADER_BYTES 4
#define SAID "lifeboat:double="

static int read_string(const char *text, size_t length, struct lb_uuid *ret_machine)
{
	const size_t said = strlen(SAID);
	char uuid[LB_UUID_TEXT_BYTES];

	if (length != said + sizeof(uuid) - 1 || memcmp(text, SAID, said) != 0)
		return -ENOENT;
	memcpy(uuid, text + said, sizeof(uuid) - 1);
	uuid[sizeof(uuid) - 1] = '\0';
	return lb_uuid_parse(uuid, ret_machine) < 0 ? -ENOENT : 0;
}

/* A structure is its formatted part, then strings, each ended by a NUL, and one more NUL. */
int lb_double_in_tables(const uint8_t *tables, size_t size_bytes, struct lb_uuid *ret_machine)
{
	size_t at = 0;

	while (size_bytes - at >= HEADER_BYTES && tables[at] != END_OF_TABLE) {
		const uint8_t type = tables[at];

		if (tables[at + 1] < HEADER_BYTES || tables[at + 1] > size_bytes - at)
			return -ENOENT;
		at += tables[at + 1];
		if (at < size_bytes && tables[at] == '\0')
			at++; /* no strings: the two NULs stand alone */
		while (at < size_bytes && tables[at] != '\0') {
			size_t length = strnlen((const char *)tables + at, size_bytes - at);

			if (type == OEM_STRINGS && read_string((const char *)tables + at, length, ret_machine) == 0)
				return 0;
			at = LB_MIN(at + length + 1, size_bytes);
		}
		if (at == size_bytes)
			return -ENOENT;
		at++;
	}
	return -ENOENT;
}

int lb_double_of(struct lb_env *env, const char *root, const char *copy, struct lb_uuid *ret_machine)
{
	_cleanup_free_ uint8_t *tables = NULL;
	char path[PATH_MAX];
	size_t size_bytes;
	int r;

	snprintf(path, sizeof(path), "%s" TABLES_PATH, root);
	r = lb_file_read(env, path, LB_SMBIOS_BYTES_MAX, &tables, &size_bytes);
	if (r < 0 && copy != NULL)
		r = lb_file_read(env, copy, LB_SMBIOS_BYTES_MAX, &tables, &size_bytes);
	if (r < 0)
		return lb_fail(-ENODATA, "the firmware's tables can't be read");
	return lb_double_in_tables(tables, size_bytes, ret_machine);
}
