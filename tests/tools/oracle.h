/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The sector oracle: writers stamp every sector that they write, so that any image of the disks tells whether it is
 * a legal prefix of the writes. A stamp holds the write's sequence number, its disk and sector, and `low`: the newest
 * sequence number at or below which every write had completed when this one was submitted.
 *
 * An image is legal when
 *   - every sector is still as it was before the run, or holds an intact stamp of its own disk and sector;
 *   - with L = the greatest `low` in the image: every write up to L is there (its sectors hold it or a later write);
 *   - every write is there whole or not at all;
 *   - nothing is there that was never submitted.
 * Racing writes never overlap (regions are locked), so on one sector a later sequence number is a later write.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORACLE_SECTOR_BYTES 512
#define ORACLE_DISKS_MAX 8
#define ORACLE_SECTORS_PER_WRITE_MAX 64

/* One write, as it stands in the log file: native-endian, appended in no particular order. */
struct oracle_write {
	uint64_t seq; /* from 1 */
	uint64_t low;
	uint64_t sector;
	int64_t submitted_ns, completed_ns; /* CLOCK_REALTIME; completed_ns 0: never */
	uint32_t n_sectors;
	uint32_t disk;
};

struct oracle_log {
	struct oracle_write *writes; /* by seq, dense from 1: writes[seq - 1]; seq 0 where a record is missing */
	uint64_t n;
};

void oracle_stamp(uint8_t sector[ORACLE_SECTOR_BYTES], uint32_t disk, uint64_t at_sector, uint64_t seq, uint64_t low);
int oracle_log_load(const char *path, struct oracle_log *ret_log);
void oracle_log_free(struct oracle_log *log);

struct oracle_verdict {
	uint64_t newest;    /* greatest sequence number in the image */
	uint64_t low;       /* greatest `low` in the image */
	uint64_t in_flight; /* writes above `low` up to `newest`: whole or absent */
	uint64_t in_flight_absent;
	char text[512]; /* what is wrong, when something is */
};

/*
 * `images`: the disks' bytes, whole. `must_ns`: every write completed before this time must be there (0: no such
 * demand). 0 when legal, -EUCLEAN when not.
 */
int oracle_check(const struct oracle_log *log, const uint8_t *const *images, const uint64_t *size_bytes,
		 uint32_t n_disks, int64_t must_ns, struct oracle_verdict *ret_verdict);
