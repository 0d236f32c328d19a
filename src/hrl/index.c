/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a segment: its extents, the hashes of its frames, and where a sealed one keeps them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/err.h"
#include "hrl/layout.h"

/* How far a reader is in the extents: their order, and the frame bytes they take. */
struct walk {
	int disk;
	unsigned n_disks;
	uint64_t offset_bytes;
	bool scanned;
	uint64_t end_bytes[2]; /* of the captured and of the scanned extents */
	uint32_t frame;
	uint32_t frame_offset_bytes;
};

void lb_hrl_frame_hash(const void *raw, size_t raw_bytes, uint8_t ret_hash[LB_HRL_HASH_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(raw, raw_bytes));
	memcpy(ret_hash, canonical.digest, LB_HRL_HASH_BYTES);
}

int lb_hrl_digest_compute(const uint8_t header[LB_HRL_HEADER_BYTES], const uint8_t *index, size_t index_canonical_bytes,
			  struct lb_digest *ret_digest)
{
	return lb_sha256_2(header, LB_HRL_CANONICAL_BYTES, index, index_canonical_bytes, ret_digest);
}

void lb_hrl_extent_encode(const struct lb_hrl_extent *e, uint8_t out[LB_HRL_EXTENT_BYTES])
{
	lb_put_le64(out + LB_HRL_EXTENT_AT_OFFSET, e->offset_bytes);
	lb_put_le32(out + LB_HRL_EXTENT_AT_LENGTH, e->length_bytes);
	lb_put_le32(out + LB_HRL_EXTENT_AT_FRAME, e->frame);
	lb_put_le32(out + LB_HRL_EXTENT_AT_FRAME_OFFSET, e->frame_offset_bytes);
	lb_put_le16(out + LB_HRL_EXTENT_AT_DISK, e->disk);
	out[LB_HRL_EXTENT_AT_KIND] = e->kind;
	out[LB_HRL_EXTENT_AT_ZERO] = 0;
}

static void extent_decode(const uint8_t *in, struct lb_hrl_extent *e)
{
	e->offset_bytes = lb_get_le64(in + LB_HRL_EXTENT_AT_OFFSET);
	e->length_bytes = lb_get_le32(in + LB_HRL_EXTENT_AT_LENGTH);
	e->frame = lb_get_le32(in + LB_HRL_EXTENT_AT_FRAME);
	e->frame_offset_bytes = lb_get_le32(in + LB_HRL_EXTENT_AT_FRAME_OFFSET);
	e->disk = lb_get_le16(in + LB_HRL_EXTENT_AT_DISK);
	e->kind = in[LB_HRL_EXTENT_AT_KIND];
}

static int frames_decode(struct lb_hrl_segment *s, const uint8_t *in)
{
	uint64_t raw_bytes = 0, at = LB_HRL_HEADER_BYTES + (uint64_t)s->head.index_stored_bytes;

	for (uint32_t i = 0; i < s->head.n_frames; i++, in += LB_HRL_FRAME_BYTES) {
		struct lb_hrl_frame *f = &s->frames[i];

		f->raw_bytes = lb_get_le32(in + LB_HRL_FRAME_AT_RAW);
		memcpy(f->hash, in + LB_HRL_FRAME_AT_HASH, LB_HRL_HASH_BYTES);
		if (f->raw_bytes == 0 || f->raw_bytes > LB_HRL_FRAME_BYTES_MAX ||
		    f->raw_bytes % LB_HRL_SECTOR_BYTES != 0)
			return lb_fail(-EBADMSG, "frame %u can't have %u raw bytes", i, f->raw_bytes);
		f->codec = LB_HRL_CODEC_NONE;
		f->stored_bytes = f->raw_bytes; /* a plain one's; a sealed one's place says otherwise */
		f->offset_bytes = at + raw_bytes;
		raw_bytes += f->raw_bytes;
	}
	if (raw_bytes != s->head.data_bytes)
		return lb_fail(-EBADMSG, "the frames hold %" PRIu64 " bytes and the header says %" PRIu64, raw_bytes,
			       s->head.data_bytes);
	return 0;
}

static int places_decode(struct lb_hrl_segment *s, const uint8_t *in)
{
	uint64_t at = LB_HRL_HEADER_BYTES + (uint64_t)s->head.index_stored_bytes;

	for (uint32_t i = 0; i < s->head.n_frames; i++, in += LB_HRL_PLACE_BYTES) {
		struct lb_hrl_frame *f = &s->frames[i];
		uint8_t codec = in[LB_HRL_PLACE_AT_CODEC];
		uint32_t plus_tag = f->raw_bytes + LB_TAG_BYTES;
		bool fits;

		f->stored_bytes = lb_get_le32(in + LB_HRL_PLACE_AT_STORED);
		fits = codec == LB_HRL_CODEC_NONE ? f->stored_bytes == plus_tag
						  : f->stored_bytes > LB_TAG_BYTES && f->stored_bytes < plus_tag;
		if (codec > LB_HRL_CODEC_ZSTD || in[5] != 0 || in[6] != 0 || in[7] != 0 || !fits)
			return lb_fail(-EBADMSG, "frame %u of %u raw bytes can't rest in %u with codec %u", i,
				       f->raw_bytes, f->stored_bytes, codec);
		f->codec = codec;
		f->offset_bytes = at;
		at += f->stored_bytes;
	}
	if (at != s->head.total_bytes)
		return lb_fail(-EBADMSG, "the frames end at byte %" PRIu64 " and the segment at %" PRIu64, at,
			       s->head.total_bytes);
	return 0;
}

static int check_shape(const struct lb_hrl_extent *e)
{
	uint32_t length_bytes_max = lb_hrl_kind_has_data(e->kind) ? LB_HRL_FRAME_BYTES_MAX : LB_HRL_ZERO_BYTES_MAX;

	if (e->kind < LB_HRL_CAPTURED || e->kind > LB_HRL_SCANNED_ZERO)
		return lb_fail(-EBADMSG, "its kind %u is unknown", e->kind);
	if (e->length_bytes == 0 || e->length_bytes > length_bytes_max || e->length_bytes % LB_HRL_SECTOR_BYTES != 0)
		return lb_fail(-EBADMSG, "its length of %u bytes is not possible", e->length_bytes);
	if (e->offset_bytes % LB_HRL_SECTOR_BYTES != 0 ||
	    e->offset_bytes > (uint64_t)LB_HRL_OFFSET_BYTES_MAX - e->length_bytes)
		return lb_fail(-EBADMSG, "its offset %" PRIu64 " is not possible", e->offset_bytes);
	return 0;
}

static int check_order(struct walk *w, const struct lb_hrl_extent *e)
{
	bool scanned = lb_hrl_kind_is_scanned(e->kind);

	if (e->disk < w->disk)
		return lb_fail(-EBADMSG, "it is out of order: disk %u after disk %d", e->disk, w->disk);
	if (e->disk > w->disk) {
		w->disk = e->disk;
		w->end_bytes[0] = w->end_bytes[1] = 0;
		if (++w->n_disks > LB_HRL_DISKS_MAX)
			return lb_fail(-EBADMSG, "it is of one disk more than the limit of %d", LB_HRL_DISKS_MAX);
	} else if (e->offset_bytes < w->offset_bytes ||
		   (e->offset_bytes == w->offset_bytes && (w->scanned || !scanned))) {
		return lb_fail(-EBADMSG, "it is out of order: offset %" PRIu64 " after %" PRIu64, e->offset_bytes,
			       w->offset_bytes);
	}
	if (e->offset_bytes < w->end_bytes[scanned])
		return lb_fail(-EBADMSG, "it overlaps one before it at offset %" PRIu64, e->offset_bytes);
	w->offset_bytes = e->offset_bytes;
	w->scanned = scanned;
	w->end_bytes[scanned] = e->offset_bytes + e->length_bytes;
	return 0;
}

/* Data extents take the bytes of the frames one after the other, none left out, none twice. */
static int check_frame(struct walk *w, const struct lb_hrl_segment *s, const struct lb_hrl_extent *e)
{
	if (!lb_hrl_kind_has_data(e->kind)) {
		if (e->frame != 0 || e->frame_offset_bytes != 0)
			return lb_fail(-EBADMSG, "zeroes can't be in frame %u", e->frame);
		return 0;
	}
	if (w->frame >= s->head.n_frames || e->frame != w->frame || e->frame_offset_bytes != w->frame_offset_bytes ||
	    e->length_bytes > s->frames[w->frame].raw_bytes - w->frame_offset_bytes)
		return lb_fail(-EBADMSG, "%u bytes at %u of frame %u aren't its own", e->length_bytes,
			       e->frame_offset_bytes, e->frame);
	w->frame_offset_bytes += e->length_bytes;
	if (w->frame_offset_bytes == s->frames[w->frame].raw_bytes) {
		w->frame++;
		w->frame_offset_bytes = 0;
	}
	return 0;
}

static int extents_decode(struct lb_hrl_segment *s, const uint8_t *in)
{
	struct walk w = {.disk = -1};

	for (uint32_t i = 0; i < s->head.n_extents; i++, in += LB_HRL_EXTENT_BYTES) {
		struct lb_hrl_extent *e = &s->extents[i];
		int r;

		extent_decode(in, e);
		if (in[LB_HRL_EXTENT_AT_ZERO] != 0)
			return lb_fail(-EBADMSG, "extent %u: its reserved byte isn't zero", i);
		r = check_shape(e);
		if (r == 0)
			r = check_order(&w, e);
		if (r == 0)
			r = check_frame(&w, s, e);
		if (r < 0)
			return lb_wrap(r, "extent %u", i);
	}
	if (w.frame != s->head.n_frames)
		return lb_fail(-EBADMSG, "the extents leave bytes of frame %u unused", w.frame);
	return 0;
}

int lb_hrl_index_decode(struct lb_hrl_segment *s, const uint8_t *index)
{
	const uint8_t *frames = index + (size_t)s->head.n_extents * LB_HRL_EXTENT_BYTES;
	int r;

	/* one more than needed, so that an empty segment has arrays as well */
	s->extents = calloc((size_t)s->head.n_extents + 1, sizeof(*s->extents));
	s->frames = calloc((size_t)s->head.n_frames + 1, sizeof(*s->frames));
	if (s->extents == NULL || s->frames == NULL)
		return lb_fail(-ENOMEM, "out of memory for an index of %u extents", s->head.n_extents);
	r = frames_decode(s, frames);
	if (r < 0)
		return r;
	if (s->head.form == LB_HRL_SEALED) {
		r = places_decode(s, frames + (size_t)s->head.n_frames * LB_HRL_FRAME_BYTES);
		if (r < 0)
			return r;
	}
	return extents_decode(s, index);
}
