/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Local time of a named zone (Europe/Berlin) from the system's zone files (RFC 9636), for whoever must know the time at
 * another place than the process: no environment variable, no lock. Any thread.
 */
#include <stdint.h>

#include "base/env.h"

#define LB_ZONE_NAME_BYTES 64
#define LB_ZONE_FOLDER "/usr/share/zoneinfo"
#define LB_ZONE_FILE_BYTES_MAX (64u << 10)

/* East of UTC is positive. From `change_s` (seconds since 1970; 0: no change is known) `next_offset_s` holds. */
struct lb_zone {
	int32_t offset_s, next_offset_s;
	int64_t change_s;
};

/* What can name a zone: -EINVAL for all else. Whether it exists is not asked. */
int lb_zone_name_check(const char *name);
/* "UTC" needs no file. -EINVAL: there is no such zone, or its file can't be understood. */
int lb_zone_find(struct lb_env *env, const char *name, int64_t time_s, struct lb_zone *ret_zone);
/* What a zone file says; -EBADMSG: it is none, -EOPNOTSUPP: it only has a rule for times as late as this. */
int lb_zone_parse(const void *data, size_t size_bytes, int64_t time_s, struct lb_zone *ret_zone);
int32_t lb_zone_offset_s(const struct lb_zone *zone, int64_t time_s);
