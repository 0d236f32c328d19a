/* SPDX-License-Identifier: Apache-2.0 */
#include "files/volume.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

#define MBR_BYTES 512
#define MBR_TABLE_AT 446
#define MBR_ENTRY_BYTES 16
#define LOGICAL_MAX 60 /* partitions in an extended one */
#define GPT_HEADER_BYTES 92
#define GPT_ENTRY_BYTES_MAX 4096

struct magic {
	const char *kind;
	uint32_t at_bytes, size_bytes;
	const char *bytes;
};

static const struct magic magics[] = {
	{LB_VOLUME_EXT, 1080, 2, "\x53\xef"},
	{"xfs", 0, 4, "XFSB"},
	{"btrfs", 65536 + 64, 8, "_BHRfS_M"},
	{"LVM", 512 + 24, 8, "LVM2 001"},
	{"LUKS (encrypted)", 0, 6, "LUKS\xba\xbe"},
	{"NTFS", 3, 8, "NTFS    "},
	{"BitLocker (encrypted)", 3, 8, "-FVE-FS-"},
	{"swap", 4096 - 10, 10, "SWAPSPACE2"},
	{"FAT", 82, 5, "FAT32"},
	{"FAT", 54, 3, "FAT"},
	{"Linux software RAID", 4096, 4, "\xfc\x4e\x2b\xa9"},
};

static int read_at(const struct lb_disk_bytes *d, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	if (offset_bytes > d->size_bytes || size_bytes > d->size_bytes - offset_bytes)
		return lb_fail(-ERANGE, "it lies outside the disk");
	return d->pread(d->arg, buf, size_bytes, offset_bytes);
}

static int probe(const struct lb_disk_bytes *d, struct lb_volume *v)
{
	uint8_t data[16];
	int r;

	v->kind = "";
	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
		const struct magic *m = &magics[i];

		if (m->at_bytes + m->size_bytes > v->size_bytes)
			continue;
		r = read_at(d, data, m->size_bytes, v->offset_bytes + m->at_bytes);
		if (r < 0)
			return r;
		if (memcmp(data, m->bytes, m->size_bytes) == 0) {
			v->kind = m->kind;
			return 0;
		}
	}
	return 0;
}

/* Passes over what is empty or lies outside the disk. */
static int add(const struct lb_disk_bytes *d, struct lb_volumes *v, uint32_t partition, uint64_t first,
	       uint64_t sectors)
{
	uint64_t disk_sectors = d->size_bytes / d->sector_bytes;
	struct lb_volume *at = &v->at[v->n];
	int r;

	if (sectors == 0 || first == 0 || first >= disk_sectors || sectors > disk_sectors - first ||
	    v->n == LB_VOLUMES_MAX)
		return 0;
	*at = (struct lb_volume){.partition = partition,
				 .offset_bytes = first * d->sector_bytes,
				 .size_bytes = sectors * d->sector_bytes};
	r = probe(d, at);
	if (r == 0)
		v->n++;
	return r;
}

static int find_gpt(const struct lb_disk_bytes *d, struct lb_volumes *v, bool *ret_is)
{
	uint8_t header[GPT_HEADER_BYTES], entry[56];
	uint32_t n, entry_bytes;
	uint64_t table;
	int r;

	*ret_is = false;
	if (d->size_bytes < 2ull * d->sector_bytes + GPT_HEADER_BYTES)
		return 0;
	r = read_at(d, header, sizeof(header), d->sector_bytes);
	if (r < 0 || memcmp(header, "EFI PART", 8) != 0)
		return r;
	table = lb_get_le64(header + 72);
	n = LB_MIN(lb_get_le32(header + 80), (uint32_t)LB_VOLUMES_MAX);
	entry_bytes = lb_get_le32(header + 84);
	if (entry_bytes < 128 || entry_bytes > GPT_ENTRY_BYTES_MAX || table > d->size_bytes / d->sector_bytes)
		return lb_fail(-EBADMSG, "its partition table (GPT) is out of bounds");
	*ret_is = true;
	for (uint32_t i = 0; i < n; i++) {
		static const uint8_t unused[16];
		uint64_t first, last;

		r = read_at(d, entry, sizeof(entry), table * d->sector_bytes + (uint64_t)i * entry_bytes);
		if (r < 0)
			return r;
		first = lb_get_le64(entry + 32);
		last = lb_get_le64(entry + 40);
		if (memcmp(entry, unused, sizeof(unused)) == 0 || last < first)
			continue;
		r = add(d, v, i + 1, first, last - first + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

/* The chain of an extended partition: each link has one partition and where the next link is. */
static int find_logical(const struct lb_disk_bytes *d, struct lb_volumes *v, uint64_t extended)
{
	uint64_t at = extended;
	uint8_t link[MBR_BYTES];
	int r;

	for (uint32_t i = 0; i < LOGICAL_MAX; i++) {
		const uint8_t *e = link + MBR_TABLE_AT, *next = e + MBR_ENTRY_BYTES;

		r = read_at(d, link, sizeof(link), at * d->sector_bytes);
		if (r == -ERANGE)
			return 0;
		if (r < 0)
			return r;
		if (link[510] != 0x55 || link[511] != 0xaa)
			return 0;
		r = add(d, v, 5 + i, at + lb_get_le32(e + 8), lb_get_le32(e + 12));
		if (r < 0)
			return r;
		if (!is_extended(next[4]) || lb_get_le32(next + 8) == 0)
			return 0;
		at = extended + lb_get_le32(next + 8);
	}
	return 0;
}

static int find_mbr(const struct lb_disk_bytes *d, struct lb_volumes *v)
{
	uint8_t mbr[MBR_BYTES];
	int r;

	if (d->size_bytes < sizeof(mbr))
		return 0;
	r = read_at(d, mbr, sizeof(mbr), 0);
	if (r < 0 || mbr[510] != 0x55 || mbr[511] != 0xaa)
		return r;
	for (uint32_t i = 0; r == 0 && i < 4; i++) {
		const uint8_t *e = mbr + MBR_TABLE_AT + (size_t)i * MBR_ENTRY_BYTES;

		if (is_extended(e[4]))
			r = find_logical(d, v, lb_get_le32(e + 8));
		else if (e[4] != 0)
			r = add(d, v, i + 1, lb_get_le32(e + 8), lb_get_le32(e + 12));
	}
	return r;
}

int lb_volumes_find(const struct lb_disk_bytes *disk, struct lb_volumes *ret_volumes)
{
	struct lb_volume whole = {.size_bytes = disk->size_bytes};
	struct lb_volumes v = {0};
	bool is_gpt;
	int r;

	r = probe(disk, &whole);
	if (r < 0)
		return r;
	if (strcmp(whole.kind, "") == 0 || strcmp(whole.kind, "FAT") == 0) { /* a boot sector may look like FAT's */
		r = find_gpt(disk, &v, &is_gpt);
		if (r == 0 && !is_gpt)
			r = find_mbr(disk, &v);
		if (r < 0)
			return r;
	}
	if (v.n == 0)
		v.at[v.n++] = whole;
	*ret_volumes = v;
	return 0;
}
