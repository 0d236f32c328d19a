/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/confirm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "capture/abi.h"

#define CONFIRM_MAGIC UINT64_C(0x6c62636f6e66726d)
#define CONFIRM_VERSION 1
#define WORD_BITS 64

/* Positions count segments: seq + 1 of them of `epoch`; 0 is the beginning of the epoch. */
struct position {
	uint64_t epoch, count;
};

struct confirm_head {
	uint64_t magic, version;
	struct lb_uuid instance;
	uint64_t n_disks, words; /* words of one bitmap */
	uint64_t size_bytes[LB_CAPTURE_DISKS_MAX];
	uint64_t valid;
	struct position base;  /* everything sent after it is noted */
	struct position upper; /* `old` tells (base, upper], `young` what came after */
	uint64_t young;        /* which of the two bitmaps is the young one */
};

struct lb_confirm {
	struct confirm_head *head;
	uint64_t *bits[2];
	size_t map_bytes;
	uint64_t first_bit[LB_CAPTURE_DISKS_MAX + 1];
};

static int compare(struct position a, struct position b)
{
	if (a.epoch != b.epoch)
		return a.epoch < b.epoch ? -1 : 1;
	return a.count < b.count ? -1 : a.count > b.count;
}

static int map_file(const char *path, size_t size_bytes, void **ret_map)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	void *map;

	if (path == NULL) {
		map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		goto mapped;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return lb_fail(-errno, "%s can't be opened: %m", path);
	if (fstat(fd, &st) < 0)
		return lb_fail(-errno, "%s: %m", path);
	/* another size is another set of disks: start from zeroes */
	if ((size_t)st.st_size != size_bytes &&
	    (ftruncate(fd, 0) < 0 || posix_fallocate(fd, 0, (off_t)size_bytes) != 0))
		return lb_fail(-ENOSPC, "%s can't grow to %zu bytes", path, size_bytes);
	map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
mapped:
	if (map == MAP_FAILED)
		return lb_fail(-errno, "%zu bytes can't be mapped: %m", size_bytes);
	*ret_map = map;
	return 0;
}

static void adopt_head(struct lb_confirm *c, const struct confirm_head *want)
{
	const struct confirm_head *have = c->head;

	if (have->magic == want->magic && have->version == want->version &&
	    lb_uuid_equal(&have->instance, &want->instance) && have->n_disks == want->n_disks &&
	    have->words == want->words && have->young <= 1 &&
	    memcmp(have->size_bytes, want->size_bytes, sizeof(want->size_bytes)) == 0)
		return;
	memset(c->head, 0, c->map_bytes);
	*c->head = *want;
}

int lb_confirm_open(const char *path, const struct lb_uuid *instance, const struct lb_confirm_disk *disks,
		    unsigned int n_disks, struct lb_confirm **ret_confirm)
{
	struct confirm_head want = {
		.magic = CONFIRM_MAGIC, .version = CONFIRM_VERSION, .instance = *instance, .n_disks = n_disks};
	_cleanup_(lb_confirm_freep) struct lb_confirm *c = calloc(1, sizeof(*c));
	uint64_t bits = 0;
	void *map = NULL;
	int r;

	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for the bitmap of what the vault hasn't confirmed");
	for (unsigned int i = 0; i < n_disks; i++) {
		c->first_bit[i] = bits;
		want.size_bytes[i] = disks[i].size_bytes;
		bits += (disks[i].size_bytes + LB_CONFIRM_CHUNK_BYTES - 1) / LB_CONFIRM_CHUNK_BYTES;
	}
	c->first_bit[n_disks] = bits;
	want.words = (bits + WORD_BITS - 1) / WORD_BITS;
	if (want.words > LB_CONFIRM_BYTES_MAX / (2 * sizeof(uint64_t)))
		return lb_fail(-EFBIG,
			       "the disks of this machine are larger than 256 TiB together; protect fewer of them");
	c->map_bytes = sizeof(want) + 2 * want.words * sizeof(uint64_t);
	r = map_file(path, c->map_bytes, &map);
	if (r < 0)
		return r;
	c->head = map;
	c->bits[0] = (uint64_t *)(c->head + 1);
	c->bits[1] = c->bits[0] + want.words;
	adopt_head(c, &want);
	*ret_confirm = lb_steal_ptr(c);
	return 0;
}

void lb_confirm_free(struct lb_confirm *c)
{
	if (c->head != NULL)
		munmap(c->head, c->map_bytes);
	free(c);
}

static void empty(struct lb_confirm *c, uint64_t which)
{
	memset(c->bits[which], 0, c->head->words * sizeof(uint64_t));
}

void lb_confirm_begin(struct lb_confirm *c, uint64_t epoch)
{
	c->head->valid = 0;
	empty(c, 0);
	empty(c, 1);
	c->head->base = c->head->upper = (struct position){.epoch = epoch};
	c->head->valid = 1;
}

void lb_confirm_note(struct lb_confirm *c, uint16_t disk, uint64_t offset_bytes, uint64_t length_bytes)
{
	uint64_t *bits = c->bits[c->head->young];
	uint64_t first = c->first_bit[disk] + offset_bytes / LB_CONFIRM_CHUNK_BYTES;
	uint64_t last = c->first_bit[disk] + (offset_bytes + length_bytes - 1) / LB_CONFIRM_CHUNK_BYTES;

	for (uint64_t i = first; i <= last && i < c->first_bit[disk + 1]; i++)
		bits[i / WORD_BITS] |= UINT64_C(1) << (i % WORD_BITS);
}

void lb_confirm_vault(struct lb_confirm *c, uint64_t epoch, uint64_t seq, uint64_t next_epoch, uint64_t next_seq)
{
	const struct position vault = {.epoch = epoch, .count = seq + 1};
	/* what is being made is noted already, so the young bitmap tells up to and with it */
	const struct position now = {.epoch = next_epoch, .count = next_seq + 1};

	if (!c->head->valid || epoch == 0 || compare(vault, c->head->upper) < 0 || compare(vault, now) > 0)
		return;
	/* each step leaves the file true: a kill in between only keeps bits that could have gone */
	empty(c, 1 - c->head->young);
	c->head->base = c->head->upper;
	c->head->upper = now;
	c->head->young = 1 - c->head->young;
}

bool lb_confirm_covers(const struct lb_confirm *c, uint64_t epoch, bool has_segment, uint64_t seq)
{
	const struct position end = {.epoch = epoch, .count = has_segment ? seq + 1 : 0};

	return c->head->valid && compare(end, c->head->base) >= 0;
}

int lb_confirm_next(const struct lb_confirm *c, uint64_t *cursor, uint16_t *ret_disk, uint64_t *ret_offset_bytes,
		    uint64_t *ret_length_bytes)
{
	uint64_t end = c->first_bit[c->head->n_disks];
	uint16_t disk = 0;

	for (uint64_t i = *cursor; i < end; i++) {
		uint64_t offset_bytes;

		if ((((c->bits[0][i / WORD_BITS] | c->bits[1][i / WORD_BITS]) >> (i % WORD_BITS)) & 1) == 0)
			continue;
		while (i >= c->first_bit[disk + 1])
			disk++;
		offset_bytes = (i - c->first_bit[disk]) * LB_CONFIRM_CHUNK_BYTES;
		*ret_disk = disk;
		*ret_offset_bytes = offset_bytes;
		*ret_length_bytes = LB_MIN((uint64_t)LB_CONFIRM_CHUNK_BYTES, c->head->size_bytes[disk] - offset_bytes);
		*cursor = i + 1;
		return 1;
	}
	return 0;
}
