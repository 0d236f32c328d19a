/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#define STAMP_MAGIC UINT64_C(0x314352414f42464c)

struct stamp {
	uint64_t magic, seq, low, sector;
	uint32_t disk, zero;
	uint64_t checksum; /* XXH3 of the whole sector with this field 0 */
};

void oracle_stamp(uint8_t sector[ORACLE_SECTOR_BYTES], uint32_t disk, uint64_t at_sector, uint64_t seq, uint64_t low)
{
	struct stamp s = {.magic = STAMP_MAGIC, .seq = seq, .low = low, .sector = at_sector, .disk = disk};
	uint64_t noise = seq * UINT64_C(0x9e3779b97f4a7c15) + at_sector;

	memcpy(sector, &s, sizeof(s));
	for (size_t i = sizeof(s); i < ORACLE_SECTOR_BYTES; i += 8) {
		noise ^= noise << 13;
		noise ^= noise >> 7;
		noise ^= noise << 17;
		memcpy(sector + i, &noise, 8);
	}
	s.checksum = XXH3_64bits(sector, ORACLE_SECTOR_BYTES);
	memcpy(sector, &s, sizeof(s));
}

int oracle_log_load(const char *path, struct oracle_log *ret_log)
{
	struct oracle_log log = {0};
	struct oracle_write w;
	struct stat st;
	FILE *f = fopen(path, "rbe");

	if (f == NULL)
		return -errno;
	if (fstat(fileno(f), &st) < 0) {
		fclose(f);
		return -EIO;
	}
	log.n = (uint64_t)st.st_size / sizeof(w);
	log.writes = calloc(log.n + 1, sizeof(w));
	if (log.writes == NULL) {
		fclose(f);
		return -ENOMEM;
	}
	while (fread(&w, sizeof(w), 1, f) == 1)
		if (w.seq >= 1 && w.seq <= log.n)
			log.writes[w.seq - 1] = w;
	fclose(f);
	*ret_log = log;
	return 0;
}

void oracle_log_free(struct oracle_log *log)
{
	free(log->writes);
	*log = (struct oracle_log){0};
}

static int wrong(struct oracle_verdict *v, const char *what, uint64_t seq, uint32_t disk, uint64_t sector,
		 uint64_t found)
{
	snprintf(v->text, sizeof(v->text),
		 "%s: write %" PRIu64 ", disk %u, sector %" PRIu64 ", found %" PRIu64 " (low %" PRIu64 ")", what, seq,
		 disk, sector, found, v->low);
	return -EUCLEAN;
}

/* The sequence number that a sector holds: 0 when no stamp is there. */
static int read_stamp(const struct oracle_log *log, const uint8_t *bytes, uint32_t disk, uint64_t at_sector,
		      uint64_t *ret_seq, struct oracle_verdict *v)
{
	uint8_t copy[ORACLE_SECTOR_BYTES];
	struct stamp s;
	uint64_t checksum;

	memcpy(copy, bytes, sizeof(copy));
	memcpy(&s, copy, sizeof(s));
	*ret_seq = 0;
	if (s.magic != STAMP_MAGIC)
		return 0;
	checksum = s.checksum;
	s.checksum = 0;
	memcpy(copy, &s, sizeof(s));
	if (XXH3_64bits(copy, sizeof(copy)) != checksum)
		return wrong(v, "torn or altered sector", s.seq, disk, at_sector, s.seq);
	if (s.disk != disk || s.sector != at_sector)
		return wrong(v, "sector of another place", s.seq, disk, at_sector, s.sector);
	if (s.seq == 0 || s.seq > log->n || log->writes[s.seq - 1].seq != s.seq)
		return wrong(v, "write that was never submitted", s.seq, disk, at_sector, s.seq);
	if (s.low > v->low)
		v->low = s.low;
	if (s.seq > v->newest)
		v->newest = s.seq;
	*ret_seq = s.seq;
	return 0;
}

/* Whole, absent, or torn: by comparing what its sectors hold with its number. */
static int check_write(const struct oracle_write *w, const uint64_t *held, bool demanded, struct oracle_verdict *v)
{
	uint32_t mine = 0, older = 0;

	for (uint32_t i = 0; i < w->n_sectors; i++) {
		uint64_t seq = held[w->sector + i];

		mine += seq == w->seq;
		older += seq < w->seq;
		if (demanded && seq < w->seq)
			return wrong(v, "missing write", w->seq, w->disk, w->sector + i, seq);
	}
	if (mine > 0 && older > 0)
		return wrong(v, "torn write", w->seq, w->disk, w->sector, mine);
	if (w->seq > v->low && w->seq <= v->newest) {
		v->in_flight++;
		v->in_flight_absent += older > 0;
	}
	return 0;
}

static int check_all(const struct oracle_log *log, const uint8_t *const *images, const uint64_t *size_bytes,
		     uint32_t n_disks, int64_t must_ns, uint64_t **held, struct oracle_verdict *v)
{
	int r;

	for (uint32_t d = 0; d < n_disks; d++)
		for (uint64_t s = 0; s < size_bytes[d] / ORACLE_SECTOR_BYTES; s++) {
			r = read_stamp(log, images[d] + s * ORACLE_SECTOR_BYTES, d, s, &held[d][s], v);
			if (r < 0)
				return r;
		}
	for (uint64_t i = 0; i < log->n; i++) {
		const struct oracle_write *w = &log->writes[i];
		bool demanded = w->seq <= v->low || (w->completed_ns != 0 && w->completed_ns < must_ns);

		if (w->seq == 0)
			continue;
		if (w->disk >= n_disks || w->sector + w->n_sectors > size_bytes[w->disk] / ORACLE_SECTOR_BYTES)
			return wrong(v, "log of other disks", w->seq, w->disk, w->sector, 0);
		r = check_write(w, held[w->disk], demanded, v);
		if (r < 0)
			return r;
	}
	return 0;
}

int oracle_check(const struct oracle_log *log, const uint8_t *const *images, const uint64_t *size_bytes,
		 uint32_t n_disks, int64_t must_ns, struct oracle_verdict *ret_verdict)
{
	uint64_t *held[ORACLE_DISKS_MAX] = {0};
	struct oracle_verdict v = {0};
	int r = 0;

	for (uint32_t d = 0; d < n_disks; d++) {
		held[d] = calloc(size_bytes[d] / ORACLE_SECTOR_BYTES, sizeof(uint64_t));
		if (held[d] == NULL)
			r = -ENOMEM;
	}
	if (r == 0)
		r = check_all(log, images, size_bytes, n_disks, must_ns, held, &v);
	for (uint32_t d = 0; d < n_disks; d++)
		free(held[d]);
	*ret_verdict = v;
	return r;
}
