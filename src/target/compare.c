/* SPDX-License-Identifier: Apache-2.0 */
#include "target/compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"

#define SECTOR LB_HRL_SECTOR_BYTES
#define ZERO_PIECE_BYTES (1u << 20)

struct comparing {
	struct lb_image *image;
	const struct lb_catalog_item *item;
	struct lb_target_disk *disks;
	const struct lb_delta *delta;
	const struct lb_compare_sink *sink;
	uint64_t compared_bytes;
	uint8_t local[LB_MAX(LB_HRL_FRAME_BYTES_MAX, ZERO_PIECE_BYTES)], raw[LB_HRL_FRAME_BYTES_MAX];
};

static int tell(struct comparing *a, uint64_t more_bytes)
{
	a->compared_bytes += more_bytes;
	if (a->sink->progress == NULL)
		return 0;
	return a->sink->progress(a->sink->progress_arg, a->compared_bytes, a->delta->data_bytes + a->delta->zero_bytes);
}

/* What the disks hold where a frame's pieces belong, put together as the frame would be. */
static int read_local(struct comparing *a, const struct lb_delta_piece *p, size_t n, bool *ret_whole,
		      size_t *ret_raw_bytes)
{
	uint32_t sector = 0;
	bool whole = true;

	for (size_t i = 0; i < n; i++) {
		struct lb_target_disk *d = &a->disks[lb_delta_disk(a->item, p[i].disk)];
		int r;

		if ((uint64_t)(p[i].frame_sector + p[i].sectors) * SECTOR > LB_HRL_FRAME_BYTES_MAX)
			return lb_fail(-EBADMSG, "an extent lies outside its frame %u", p[i].frame);
		r = d->ops->pread(d, a->local + (size_t)p[i].frame_sector * SECTOR, (size_t)p[i].sectors * SECTOR,
				  p[i].start * SECTOR);
		if (r < 0)
			return r;
		whole &= p[i].frame_sector == sector;
		sector = p[i].frame_sector + p[i].sectors;
	}
	*ret_whole = whole;
	*ret_raw_bytes = (size_t)sector * SECTOR;
	return 0;
}

static int take_frame(struct comparing *a, const struct lb_delta_piece *p, size_t n)
{
	size_t local_bytes, raw_bytes;
	bool whole, is = false;
	int r;

	r = read_local(a, p, n, &whole, &local_bytes);
	if (r == 0 && whole)
		r = lb_image_frame_is(a->image, p->segment, p->frame, a->local, local_bytes, &is);
	if (r < 0 || is)
		return r;
	r = lb_image_frame(a->image, p->segment, p->frame, a->raw, &raw_bytes);
	if (r == 0 && local_bytes > raw_bytes)
		r = lb_fail(-EBADMSG, "an extent lies outside its frame %u", p->frame);
	for (size_t i = 0; r == 0 && i < n; i++) {
		size_t at = (size_t)p[i].frame_sector * SECTOR;

		r = a->sink->take(a->sink->arg, lb_delta_disk(a->item, p[i].disk), p[i].start * SECTOR, a->raw + at,
				  a->local + at, (size_t)p[i].sectors * SECTOR);
	}
	return r;
}

static int take_data(struct comparing *a)
{
	const struct lb_delta_piece *p = a->delta->pieces;
	int r = 0;

	for (size_t from = 0, to; r == 0 && from < a->delta->n_pieces; from = to) {
		uint64_t sectors = 0;

		for (to = from;
		     to < a->delta->n_pieces && p[to].segment == p[from].segment && p[to].frame == p[from].frame; to++)
			sectors += p[to].sectors;
		r = take_frame(a, p + from, to - from);
		if (r == 0)
			r = tell(a, sectors * SECTOR);
	}
	return r;
}

static int take_zeroes(struct comparing *a, const struct lb_delta_zeroes *z)
{
	uint32_t n = lb_delta_disk(a->item, z->disk);
	struct lb_target_disk *d = &a->disks[n];
	uint64_t at = z->offset_bytes, end = at + z->length_bytes, data;
	int r = 0;

	while (r == 0 && at < end) {
		size_t size_bytes;

		data = at;
		r = z->lost ? 0 : d->ops->next_data(d, at, &data);
		if (r < 0)
			return r;
		data = LB_MIN(data, end);
		if (data > at) {
			r = tell(a, data - at);
			at = data;
			continue;
		}
		size_bytes = LB_MIN(end - at, (uint64_t)ZERO_PIECE_BYTES);
		r = d->ops->pread(d, a->local, size_bytes, at);
		if (r == 0)
			r = z->lost ? a->sink->take_lost(a->sink->arg, n, at, a->local, size_bytes)
				    : a->sink->take(a->sink->arg, n, at, NULL, a->local, size_bytes);
		r = r < 0 ? r : tell(a, size_bytes);
		at += size_bytes;
	}
	return r;
}

int lb_compare_disks(struct lb_image *image, const struct lb_catalog_item *item, struct lb_target_disk *disks,
		     const struct lb_delta *delta, const struct lb_compare_sink *sink)
{
	_cleanup_free_ struct comparing *a = malloc(sizeof(*a));
	int r;

	if (a == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	a->image = image;
	a->item = item;
	a->disks = disks;
	a->delta = delta;
	a->sink = sink;
	a->compared_bytes = 0;
	r = take_data(a);
	for (size_t i = 0; r == 0 && i < delta->n_zeroes; i++)
		r = take_zeroes(a, &delta->zeroes[i]);
	return r;
}

static bool same(const uint8_t *image, const uint8_t *disk, size_t size_bytes)
{
	if (image != NULL)
		return memcmp(image, disk, size_bytes) == 0;
	/* zeroes: the first byte is, and each is like the one before it */
	return disk[0] == 0 && memcmp(disk, disk + 1, size_bytes - 1) == 0;
}

int lb_compare_runs(uint64_t offset_bytes, const uint8_t *image, const uint8_t *disk, size_t size_bytes,
		    int (*run)(void *arg, size_t at, size_t size_bytes), void *arg)
{
	size_t at = 0, begin = 0;
	int r = 0;

	while (r == 0 && at < size_bytes) {
		size_t length =
			LB_MIN(size_bytes - at, LB_COMPARE_BLOCK_BYTES - (offset_bytes + at) % LB_COMPARE_BLOCK_BYTES);

		if (same(image != NULL ? image + at : NULL, disk + at, length)) {
			if (at > begin)
				r = run(arg, begin, at - begin);
			begin = at + length;
		}
		at += length;
	}
	return r == 0 && at > begin ? run(arg, begin, at - begin) : r;
}
