/* SPDX-License-Identifier: Apache-2.0 */
#include "process/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/map.h"

#define SECTOR LB_HRL_SECTOR_BYTES

int lb_batch_init(struct lb_batch *b)
{
	*b = (struct lb_batch){
		.pieces = calloc(LB_BATCH_PIECES_MAX, sizeof(*b->pieces)),
		.entries = calloc(LB_BATCH_PIECES_MAX, sizeof(*b->entries)),
	};
	return b->pieces != NULL && b->entries != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a comparison");
}

void lb_batch_destroy(struct lb_batch *b)
{
	free(b->pieces);
	free(b->entries);
}

void lb_batch_clear(struct lb_batch *b)
{
	b->n_pieces = b->n_entries = 0;
	b->bytes = 0;
	b->fine = false;
}

int lb_batch_source_init(struct lb_batch_source *s, struct lb_image *image, const struct lb_process_disks *disks)
{
	*s = (struct lb_batch_source){
		.image = image,
		.disks = disks,
		.raw = malloc(LB_HRL_FRAME_BYTES_MAX),
		.joined = malloc(LB_HRL_FRAME_BYTES_MAX),
	};
	return s->raw != NULL && s->joined != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a frame");
}

void lb_batch_source_destroy(struct lb_batch_source *s)
{
	lb_batch_source_close(s);
	free(s->raw);
	free(s->joined);
}

int lb_batch_source_open(struct lb_batch_source *s, uint32_t segment)
{
	int r;

	lb_batch_source_close(s);
	r = lb_image_segment(s->image, segment, &s->head);
	if (r < 0)
		return r;
	s->segment = segment;
	s->next = 0;
	return 0;
}

void lb_batch_source_close(struct lb_batch_source *s)
{
	if (s->head != NULL)
		lb_hrl_segment_free(s->head);
	s->head = NULL;
}

/* ---- pieces -------------------------------------------------------------------------------------------- */

static int add_piece(struct lb_batch *b, uint32_t first, const struct lb_piece *piece)
{
	struct lb_piece *last;

	assert(b->pieces != NULL);
	last = b->n_pieces > first ? &b->pieces[b->n_pieces - 1] : NULL;
	/* the map may have cut in two what is one */
	if (last != NULL && last->disk == piece->disk &&
	    last->offset_bytes + last->length_bytes == piece->offset_bytes &&
	    last->frame_offset_bytes + last->length_bytes == piece->frame_offset_bytes) {
		last->length_bytes += piece->length_bytes;
		return 0;
	}
	if (b->n_pieces == LB_BATCH_PIECES_MAX)
		return -ENOSPC;
	b->pieces[b->n_pieces++] = *piece;
	return 0;
}

struct living {
	struct lb_batch *b;
	const struct lb_image *image;
	const struct lb_hrl_extent *extent;
	uint32_t segment, first;
	uint64_t live_bytes;
};

static int take_living(void *arg, const struct lb_map_extent *x)
{
	struct living *l = arg;
	const struct lb_hrl_extent *e = l->extent;
	uint64_t in_extent = x->start * SECTOR - e->offset_bytes;
	const struct lb_piece piece = {.offset_bytes = x->start * SECTOR,
				       .length_bytes = x->sectors * SECTOR,
				       .frame_offset_bytes = x->frame_sector * SECTOR,
				       .disk = e->disk};

	if (x->segment != l->segment || !lb_hrl_kind_has_data(x->kind) || x->frame != e->frame ||
	    piece.frame_offset_bytes != e->frame_offset_bytes + in_extent || lb_image_is_lost(l->image, x))
		return 0;
	l->live_bytes += piece.length_bytes;
	return add_piece(l->b, l->first, &piece);
}

static bool is_on(const struct lb_process_disks *disks, const struct lb_hrl_extent *e)
{
	for (uint32_t i = 0; i < disks->n; i++)
		if (disks->disk[i].id == e->disk)
			return e->offset_bytes <= disks->disk[i].size_bytes &&
			       e->length_bytes <= disks->disk[i].size_bytes - e->offset_bytes;
	return false;
}

/* What of the extents [from, to), all of one frame, the image still has. */
static int find_living(struct lb_batch *b, const struct lb_batch_source *s, uint32_t from, uint32_t to,
		       uint64_t *ret_live_bytes)
{
	struct living l = {.b = b, .image = s->image, .segment = s->segment, .first = b->n_pieces};
	const struct lb_hrl_extent *extents;
	uint32_t n;
	int r = 0;

	extents = lb_hrl_extents(s->head, &n);
	for (uint32_t i = from; r == 0 && i < to; i++) {
		l.extent = &extents[i];
		if (lb_hrl_kind_has_data(l.extent->kind) && is_on(s->disks, l.extent))
			r = lb_map_walk(lb_image_map(s->image), l.extent->disk, l.extent->offset_bytes / SECTOR,
					l.extent->length_bytes / SECTOR, take_living, &l);
	}
	if (r < 0)
		return r;
	*ret_live_bytes = l.live_bytes;
	return 0;
}

/* ---- hashes -------------------------------------------------------------------------------------------- */

static int fetch(struct lb_batch_source *s, uint32_t frame, const struct lb_piece *pieces, uint32_t n)
{
	size_t raw_bytes;
	int r;

	r = lb_image_segment_frame(s->image, s->segment, s->head, frame, s->raw, &raw_bytes);
	for (uint32_t i = 0; r == 0 && i < n; i++)
		if ((uint64_t)pieces[i].frame_offset_bytes + pieces[i].length_bytes > raw_bytes)
			r = lb_fail(-EBADMSG, "an extent lies outside its frame %u", frame);
	return r;
}

/* Of the pieces from `first` on, `live_bytes` together. */
static int hash_living(struct lb_batch *b, struct lb_batch_source *s, uint32_t frame, uint32_t first,
		       uint64_t live_bytes, uint8_t ret_hash[LB_HRL_HASH_BYTES])
{
	struct lb_hrl_frame_place place;
	size_t at = 0;
	int r;

	r = lb_hrl_frame_place(s->head, frame, &place);
	if (r < 0)
		return r;
	if (live_bytes > place.raw_bytes || place.raw_bytes > LB_HRL_FRAME_BYTES_MAX)
		return lb_fail(-EBADMSG, "frame %u has more extents than bytes", frame);
	if (live_bytes == place.raw_bytes) { /* extents use each byte of a frame once and in order */
		memcpy(ret_hash, lb_hrl_frame_hash_of(s->head, frame), LB_HRL_HASH_BYTES);
		return 0;
	}
	r = fetch(s, frame, b->pieces + first, b->n_pieces - first);
	if (r < 0)
		return r;
	for (uint32_t i = first; i < b->n_pieces; i++) {
		memcpy(s->joined + at, s->raw + b->pieces[i].frame_offset_bytes, b->pieces[i].length_bytes);
		at += b->pieces[i].length_bytes;
	}
	lb_hrl_frame_hash(s->joined, at, ret_hash);
	return 0;
}

static void take_back(struct lb_batch *b, uint32_t n_pieces, uint32_t n_entries, uint64_t bytes)
{
	b->n_pieces = n_pieces;
	b->n_entries = n_entries;
	b->bytes = bytes;
}

/* The first extent with data from `from` on, and the end of those that share its frame. */
static bool next_frame(const struct lb_batch_source *s, uint32_t *ret_from, uint32_t *ret_to)
{
	const struct lb_hrl_extent *extents;
	uint32_t from = s->next, to, n;

	extents = lb_hrl_extents(s->head, &n);
	while (from < n && !lb_hrl_kind_has_data(extents[from].kind))
		from++;
	for (to = from; to < n; to++)
		if (lb_hrl_kind_has_data(extents[to].kind) && extents[to].frame != extents[from].frame)
			break;
	*ret_from = from;
	*ret_to = to;
	return from < n;
}

int lb_batch_coarse(struct lb_batch *b, struct lb_batch_source *s)
{
	const uint32_t first = b->n_pieces;
	uint32_t from, to, n;

	while (b->bytes < LB_BATCH_BYTES_MAX && next_frame(s, &from, &to)) {
		const uint32_t frame = lb_hrl_extents(s->head, &n)[from].frame;
		struct lb_batch_entry *entry = &b->entries[b->n_entries];
		uint64_t live_bytes = 0;
		int r;

		r = find_living(b, s, from, to, &live_bytes);
		if (r == 0 && live_bytes > 0)
			r = hash_living(b, s, frame, first, live_bytes, entry->hash);
		if (r == -ENOSPC && first > 0) { /* in the next batch */
			b->n_pieces = first;
			return 0;
		}
		if (r < 0 && r != -EBADMSG && r != -ENOSPC) {
			b->n_pieces = first;
			return r;
		}
		s->next = to;
		if (r == 0 && live_bytes > 0) {
			entry->frame = frame;
			entry->first = first;
			entry->n = b->n_pieces - first;
			b->n_entries++;
			b->bytes += live_bytes;
			return 1;
		}
		b->n_pieces = first; /* nothing of it is live, or it is lost: nobody is asked */
		if (r < 0)
			lb_err_clear();
	}
	return 0;
}

static int add_units(struct lb_batch *b, const struct lb_batch_source *s, uint32_t frame, const struct lb_piece *whole)
{
	uint64_t length;

	for (uint64_t at = 0; at < whole->length_bytes; at += length) {
		struct lb_batch_entry *entry = &b->entries[b->n_entries];
		uint64_t offset = whole->offset_bytes + at;

		length = LB_MIN(whole->length_bytes - at, LB_BATCH_UNIT_BYTES - offset % LB_BATCH_UNIT_BYTES);
		if (b->n_pieces == LB_BATCH_PIECES_MAX)
			return -ENOSPC;
		*entry = (struct lb_batch_entry){.frame = frame, .first = b->n_pieces, .n = 1};
		lb_hrl_frame_hash(s->raw + whole->frame_offset_bytes + at, length, entry->hash);
		b->pieces[b->n_pieces++] = (struct lb_piece){
			.offset_bytes = offset, .length_bytes = (uint32_t)length, .disk = whole->disk};
		b->n_entries++;
		b->bytes += length;
	}
	return 0;
}

int lb_batch_fine(struct lb_batch *b, struct lb_batch_source *s, const struct lb_batch *coarse, uint32_t entry)
{
	const struct lb_batch_entry *e = &coarse->entries[entry];
	const uint32_t n_pieces = b->n_pieces, n_entries = b->n_entries;
	const uint64_t bytes = b->bytes;
	int r;

	if (b->bytes >= LB_BATCH_BYTES_MAX)
		return 0;
	r = fetch(s, e->frame, coarse->pieces + e->first, e->n);
	for (uint32_t i = 0; r == 0 && i < e->n; i++)
		r = add_units(b, s, e->frame, &coarse->pieces[e->first + i]);
	b->fine = true;
	if (r == 0)
		return 1;
	take_back(b, n_pieces, n_entries, bytes);
	if (r != -ENOSPC && r != -EBADMSG)
		return r;
	lb_err_clear();
	return 0;
}

int lb_batch_print(const struct lb_batch *b, struct lb_buf *out)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < b->n_entries; i++) {
		const struct lb_batch_entry *e = &b->entries[i];
		uint8_t bytes[14];

		lb_put_le16(bytes, (uint16_t)e->n);
		r = lb_buf_append(out, bytes, 2);
		for (uint32_t k = e->first; r == 0 && k < e->first + e->n; k++) {
			lb_put_le16(bytes, b->pieces[k].disk);
			lb_put_le64(bytes + 2, b->pieces[k].offset_bytes);
			lb_put_le32(bytes + 10, b->pieces[k].length_bytes);
			r = lb_buf_append(out, bytes, sizeof(bytes));
		}
	}
	return r;
}
