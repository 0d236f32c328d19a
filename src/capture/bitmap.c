/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of 64 KiB granules over all disks: the bitmap that the program marks and the scan set that is read. */
#include <errno.h>

#include "base/bytes.h"
#include "capture/internal.h"

static uint64_t low_bits(uint64_t count)
{
	return count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
}

/* The bits of word `index` of a disk's slice that belong to granules [first, end). */
static uint64_t word_mask(uint64_t index, uint64_t first, uint64_t end)
{
	uint64_t base = index * 64;
	uint64_t low = first > base ? first - base : 0;

	return end <= base ? 0 : low_bits(end - base) & ~low_bits(low);
}

void lb_set_range(const struct lb_capture *c, uint64_t *set, unsigned int disk, uint64_t offset_bytes,
		  uint64_t length_bytes)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, disk);

	if (s == NULL || offset_bytes >= s->size_bytes || length_bytes == 0)
		return;
	length_bytes = LB_MIN(length_bytes, s->size_bytes - offset_bytes);
	uint64_t first = offset_bytes >> LB_CAPTURE_GRANULE_SHIFT;
	uint64_t end = lb_granules(offset_bytes + length_bytes);
	for (uint64_t i = first / 64; i * 64 < end; i++)
		__atomic_fetch_or(&set[s->first_word + i], word_mask(i, first, end), __ATOMIC_SEQ_CST);
}

void lb_scan_everything(struct lb_capture *c)
{
	for (unsigned int d = 0; d < c->control->disk_count; d++)
		lb_set_range(c, c->scan, d, 0, c->control->disk[d].size_bytes);
}

/* Into the scan set first, out of the bitmap second; a bit set anew in between is a new loss, which loss_pos tells. */
void lb_bitmap_exchange(struct lb_capture *c)
{
	for (unsigned int d = 0; d < c->control->disk_count; d++) {
		struct lb_capture_disk_slot *s = &c->control->disk[d];
		if (lb_load(&s->whole) == 0)
			continue;
		lb_set_range(c, c->scan, d, 0, s->size_bytes);
		lb_store(&s->whole, 0);
	}
	for (uint64_t i = 0; i < c->control->bitmap_words; i++) {
		uint64_t bits = lb_load(&c->bitmap[i]);
		if (bits == 0)
			continue;
		__atomic_fetch_or(&c->scan[i], bits, __ATOMIC_SEQ_CST);
		__atomic_fetch_and(&c->bitmap[i], ~bits, __ATOMIC_SEQ_CST);
	}
}

static uint64_t set_bytes(const struct lb_capture *c, const uint64_t *set, unsigned int disk)
{
	const struct lb_capture_disk_slot *s = &c->control->disk[disk];
	uint64_t granules = lb_granules(s->size_bytes), words = (granules + 63) / 64, count = 0;

	for (uint64_t i = 0; i < words; i++)
		count += (uint64_t)__builtin_popcountll(lb_load(&set[s->first_word + i]));
	return LB_MIN(count << LB_CAPTURE_GRANULE_SHIFT, s->size_bytes);
}

uint64_t lb_capture_debt_bytes(const struct lb_capture *c)
{
	uint64_t total = 0;

	for (unsigned int d = 0; d < c->control->disk_count; d++)
		total += lb_load(&c->control->disk[d].whole) != 0 ? c->control->disk[d].size_bytes
								  : set_bytes(c, c->bitmap, d);
	return total;
}

uint64_t lb_capture_scan_bytes(const struct lb_capture *c)
{
	uint64_t total = 0;

	for (unsigned int d = 0; d < c->control->disk_count; d++)
		total += set_bytes(c, c->scan, d);
	return total;
}

uint64_t lb_capture_scan_cursor(const struct lb_capture *c, unsigned int disk, uint64_t offset_bytes)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, disk);

	return s == NULL ? c->control->bitmap_words * 64
			 : s->first_word * 64 + (offset_bytes >> LB_CAPTURE_GRANULE_SHIFT);
}

/* The disk in whose slice a word lies; the slices are in the order of the ids. */
static unsigned int word_disk(const struct lb_capture *c, uint64_t word)
{
	unsigned int d = c->control->disk_count - 1;

	while (d > 0 && c->control->disk[d].first_word > word)
		d--;
	return d;
}

int lb_capture_scan_next(const struct lb_capture *c, uint64_t cursor, uint64_t length_bytes_max,
			 struct lb_capture_range *ret_range, uint64_t *ret_cursor)
{
	uint64_t word = cursor / 64, bits = 0;

	if (length_bytes_max < LB_CAPTURE_GRANULE_BYTES)
		return -EINVAL;
	for (; word < c->control->bitmap_words; word++) {
		bits = lb_load(&c->scan[word]);
		if (word == cursor / 64)
			bits &= ~low_bits(cursor % 64);
		if (bits != 0)
			break;
	}
	if (bits == 0)
		return 0;
	unsigned int disk = word_disk(c, word);
	const struct lb_capture_disk_slot *s = &c->control->disk[disk];
	uint64_t bit = (uint64_t)__builtin_ctzll(bits);
	uint64_t first = (word - s->first_word) * 64 + bit;
	uint64_t per_chunk = LB_CAPTURE_CHUNK_BYTES / LB_CAPTURE_GRANULE_BYTES;
	uint64_t most = LB_MIN(length_bytes_max >> LB_CAPTURE_GRANULE_SHIFT, per_chunk - first % per_chunk);
	uint64_t run = 1;
	while (run < most && (bits >> (bit + run) & 1) != 0)
		run++;
	uint64_t offset = first << LB_CAPTURE_GRANULE_SHIFT;
	*ret_range = (struct lb_capture_range){
		.offset_bytes = offset,
		.length_bytes = LB_MIN(run << LB_CAPTURE_GRANULE_SHIFT, s->size_bytes - offset),
		.disk = (uint16_t)disk,
	};
	*ret_cursor = word * 64 + bit + run;
	return 1;
}

void lb_capture_scan_clear(struct lb_capture *c, const struct lb_capture_range *range)
{
	const struct lb_capture_disk_slot *s = lb_disk_slot(c, range->disk);

	if (s == NULL || range->offset_bytes >= s->size_bytes)
		return;
	uint64_t end_bytes = range->offset_bytes + LB_MIN(range->length_bytes, s->size_bytes - range->offset_bytes);
	uint64_t first = lb_granules(range->offset_bytes);
	uint64_t end = end_bytes == s->size_bytes ? lb_granules(end_bytes) : end_bytes >> LB_CAPTURE_GRANULE_SHIFT;
	for (uint64_t i = first / 64; i * 64 < end; i++)
		__atomic_fetch_and(&c->scan[s->first_word + i], ~word_mask(i, first, end), __ATOMIC_SEQ_CST);
}

void lb_capture_scan_mark(struct lb_capture *c, const struct lb_capture_range *range)
{
	lb_set_range(c, c->scan, range->disk, range->offset_bytes, range->length_bytes);
}
