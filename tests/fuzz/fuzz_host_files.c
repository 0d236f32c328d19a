/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hosts have on their disks or print: the first byte says whether the rest is a zone file (after 8 bytes of a
 * time), an initramfs, or the output of the script that asks whether the agent can live there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mobility/initrd.c" /* its reader of archives, without the programs that unpack */

#include "base/json.h"
#include "base/zone.h"
#include "process/fitness.h"

#define ZONE_OFFSET_S_MAX (26 * 3600)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void try_zone(const uint8_t *data, size_t size_bytes)
{
	struct lb_zone zone;
	int64_t time_s;

	if (size_bytes < 8 || size_bytes > LB_ZONE_FILE_BYTES_MAX)
		return;
	time_s = (int64_t)lb_get_le64(data);
	if (lb_zone_parse(data + 8, size_bytes - 8, time_s, &zone) < 0)
		return;
	if (abs(zone.offset_s) > ZONE_OFFSET_S_MAX || abs(zone.next_offset_s) > ZONE_OFFSET_S_MAX ||
	    lb_zone_offset_s(&zone, time_s) != zone.offset_s)
		abort();
}

static void see_name(void *arg, const char *name)
{
	if (strlen(name) >= LB_INITRD_NAME_BYTES_MAX)
		abort();
	++*(uint32_t *)arg;
}

static void try_initrd(const uint8_t *data, size_t size_bytes)
{
	_cleanup_free_ struct stream *s = calloc(1, sizeof(*s));
	_cleanup_close_ int fd = memfd_create("initramfs", MFD_CLOEXEC);
	uint32_t n = 0;

	if (s == NULL || fd < 0 || write(fd, data, size_bytes) != (ssize_t)size_bytes || lseek(fd, 0, SEEK_SET) < 0)
		abort();
	s->fd = fd;
	if (archives(s, see_name, &n) == 0 && (s->offset_bytes > size_bytes || n > LB_INITRD_FILES_MAX))
		abort();
	if (fill(s, 4) == 0)
		(void)program_of(s->buffer + s->from);
}

static void try_fitness(const uint8_t *data, size_t size_bytes)
{
	_cleanup_free_ char *output = strndup((const char *)data, size_bytes), *text = NULL;
	_cleanup_json_ json_t *fitness = NULL;

	if (output == NULL)
		abort();
	if (lb_fitness_judge(output, "amd64", 1700000000, &fitness) == 0 && lb_json_dump(fitness, &text) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	if (size_bytes < 1 || size_bytes > LB_ZONE_FILE_BYTES_MAX)
		return 0;
	switch (data[0] % 4) {
	case 0:
		try_zone(data + 1, size_bytes - 1);
		break;
	case 1:
		try_initrd(data + 1, size_bytes - 1);
		break;
	default:
		try_fitness(data + 1, size_bytes - 1);
		break;
	}
	lb_err_clear();
	return 0;
}
