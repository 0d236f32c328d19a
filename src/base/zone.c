/* SPDX-License-Identifier: Apache-2.0 */
#include "base/zone.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

#define HEADER_BYTES 44
#define TYPE_BYTES 6
#define OFFSET_S_MAX (26 * 3600) /* what the format allows */

struct header {
	uint32_t isut, isstd, leaps, times, types, chars;
};

struct reader {
	const uint8_t *data;
	size_t size_bytes;
};

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int64_t be64(const uint8_t *p)
{
	return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4));
}

int lb_zone_name_check(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= LB_ZONE_NAME_BYTES || name[0] == '/' || strstr(name, "..") != NULL ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/") != length)
		return lb_fail(-EINVAL, "\"%.70s\" is no time zone's name; give one like Europe/Berlin, or UTC", name);
	return 0;
}

static int take_header(struct reader *in, char *ret_version, struct header *ret_header)
{
	if (in->size_bytes < HEADER_BYTES || memcmp(in->data, "TZif", 4) != 0)
		return -EBADMSG;
	*ret_version = (char)in->data[4];
	*ret_header = (struct header){be32(in->data + 20), be32(in->data + 24), be32(in->data + 28),
				      be32(in->data + 32), be32(in->data + 36), be32(in->data + 40)};
	in->data += HEADER_BYTES;
	in->size_bytes -= HEADER_BYTES;
	return 0;
}

static uint64_t body_bytes(const struct header *h, unsigned int time_bytes)
{
	return (uint64_t)h->times * (time_bytes + 1) + (uint64_t)h->types * TYPE_BYTES + h->chars +
	       (uint64_t)h->leaps * (time_bytes + 4) + h->isstd + h->isut;
}

static int offset_of(const uint8_t *types, const struct header *h, uint32_t type, int32_t *ret_offset_s)
{
	int32_t offset;

	if (type >= h->types)
		return -EBADMSG;
	offset = (int32_t)be32(types + (size_t)type * TYPE_BYTES);
	if (offset < -OFFSET_S_MAX || offset > OFFSET_S_MAX)
		return -EBADMSG;
	*ret_offset_s = offset;
	return 0;
}

/* The footer's rule begins where the list of changes ends: a rule with summer time is not worked out here. */
static int check_end(const uint8_t *footer, size_t size_bytes)
{
	return memchr(footer, ',', size_bytes) == NULL ? 0 : -EOPNOTSUPP;
}

static int look_up(const struct reader *in, const struct header *h, int64_t time_s, struct lb_zone *ret_zone)
{
	const uint8_t *times = in->data, *indexes = times + (size_t)h->times * 8, *types = indexes + h->times;
	struct lb_zone zone = {0};
	uint64_t used = body_bytes(h, 8);
	uint32_t n = 0;
	int r;

	/* the footer between its two newlines is there, if only empty: else the file was cut short */
	if (h->types == 0 || used + 2 > in->size_bytes || in->data[used] != '\n' ||
	    in->data[in->size_bytes - 1] != '\n')
		return -EBADMSG;
	while (n < h->times && be64(times + (size_t)n * 8) <= time_s)
		n++;
	r = offset_of(types, h, n > 0 ? indexes[n - 1] : 0, &zone.offset_s);
	zone.next_offset_s = zone.offset_s;
	if (r == 0 && n == h->times)
		r = check_end(in->data + used, in->size_bytes - used);
	if (r == 0 && n < h->times) {
		zone.change_s = be64(times + (size_t)n * 8);
		r = offset_of(types, h, indexes[n], &zone.next_offset_s);
	}
	if (r == 0)
		*ret_zone = zone;
	return r;
}

/* The 32-bit block of version 1 is passed over: the 64-bit one follows. */
int lb_zone_parse(const void *data, size_t size_bytes, int64_t time_s, struct lb_zone *ret_zone)
{
	struct reader in = {data, size_bytes};
	struct header h;
	char version;
	int r;

	r = take_header(&in, &version, &h);
	if (r == 0 && (version < '2' || body_bytes(&h, 4) > in.size_bytes))
		r = -EBADMSG;
	if (r < 0)
		return r;
	in.data += body_bytes(&h, 4);
	in.size_bytes -= body_bytes(&h, 4);
	r = take_header(&in, &version, &h);
	return r < 0 ? r : look_up(&in, &h, time_s, ret_zone);
}

int lb_zone_find(struct lb_env *env, const char *name, int64_t time_s, struct lb_zone *ret_zone)
{
	_cleanup_free_ uint8_t *data = NULL;
	char path[sizeof(LB_ZONE_FOLDER) + LB_ZONE_NAME_BYTES + 1];
	size_t size_bytes;
	int r;

	r = lb_zone_name_check(name);
	if (r < 0)
		return r;
	if (strcmp(name, "UTC") == 0) {
		*ret_zone = (struct lb_zone){0};
		return 0;
	}
	snprintf(path, sizeof(path), LB_ZONE_FOLDER "/%s", name);
	r = lb_file_read(env, path, LB_ZONE_FILE_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return lb_fail(-EINVAL, "there is no time zone \"%s\" on this host (no %s; Debian's package is tzdata)",
			       name, path);
	r = lb_zone_parse(data, size_bytes, time_s, ret_zone);
	if (r == -EOPNOTSUPP)
		return lb_fail(-EINVAL, "%s has no list of coming changes; install Debian's tzdata", path);
	return r < 0 ? lb_fail(-EINVAL, "%s is no zone file (RFC 9636, version 2 or later)", path) : 0;
}

int32_t lb_zone_offset_s(const struct lb_zone *zone, int64_t time_s)
{
	return zone->change_s != 0 && time_s >= zone->change_s ? zone->next_offset_s : zone->offset_s;
}
