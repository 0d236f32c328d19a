/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a checkpoint: segments that are still referred to, then the extents of each disk, in frames that stand alone.
 */
#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/checkpoint_format.h"

#define ZSTD_LEVEL 1
#define UNUSED UINT32_MAX

struct writing {
	struct lb_vault *v;
	struct lb_checkpoint *c;
	const struct lb_map *map;
	struct lb_gcm *gcm;
	uint32_t *renumbered; /* by index in the map; UNUSED: nothing refers to it */
	struct lb_buf object; /* sealed frames of the part under way */
	uint32_t parts;       /* put so far */
	uint8_t *raw;         /* the frame under way */
	size_t raw_bytes;
	uint32_t kind, count;
	uint16_t disk;
	uint64_t at;
	uint32_t segment; /* of the extent before */
};

static void writing_free(struct writing *w)
{
	if (w->gcm != NULL)
		lb_gcm_free(w->gcm);
	free(w->renumbered);
	free(w->raw);
	lb_buf_free(&w->object);
}

/* Puts what is sealed so far as a part of its own. */
static int spill(struct writing *w)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_checkpoint_part_name(name, w->c, ++w->parts);
	if (r < 0)
		return r;
	r = lb_store_put_new(w->v->store, name, w->object.data, w->object.size_bytes);
	if (r < 0)
		return r;
	w->c->stored_bytes += w->object.size_bytes;
	for (uint32_t i = 0; i < w->c->n_frames; i++)
		if (w->c->frames[i].part == 0)
			w->c->frames[i].part = w->parts;
	w->object.size_bytes = 0;
	return 0;
}

static int frame_note(struct writing *w, const struct lb_checkpoint_frame *f)
{
	struct lb_checkpoint_frame *frames;

	if (w->c->n_frames >= LB_CHECKPOINT_FRAMES_MAX)
		return lb_fail(-EOVERFLOW, "a checkpoint has at most %d frames", LB_CHECKPOINT_FRAMES_MAX);
	frames = reallocarray(w->c->frames, w->c->n_frames + 1, sizeof(*frames));
	if (frames == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	w->c->frames = frames;
	frames[w->c->n_frames++] = *f;
	return 0;
}

static int frame_end(struct writing *w)
{
	uint8_t nonce[LB_NONCE_BYTES], aad[LB_CHECKPOINT_AAD_BYTES], *out;
	size_t stored_bytes;
	int r;

	if (w->count == 0)
		return 0;
	lb_put_le32(w->raw, w->kind);
	lb_put_le32(w->raw + 4, w->count);
	lb_put_le16(w->raw + 8, w->disk);
	if (w->object.size_bytes > LB_CHECKPOINT_PART_BYTES) {
		r = spill(w);
		if (r < 0)
			return r;
	}
	r = lb_buf_reserve(&w->object, LB_CHECKPOINT_STORED_BYTES_MAX);
	if (r < 0)
		return r;
	out = w->object.data + w->object.size_bytes;
	stored_bytes =
		ZSTD_compress(out, ZSTD_COMPRESSBOUND(LB_CHECKPOINT_FRAME_BYTES), w->raw, w->raw_bytes, ZSTD_LEVEL);
	if (ZSTD_isError(stored_bytes))
		return lb_fail(-EIO, "a checkpoint can't be compressed: %s", ZSTD_getErrorName(stored_bytes));
	lb_checkpoint_frame_aad(&w->v->id, w->c, w->c->n_frames, (uint32_t)w->raw_bytes, nonce, aad);
	r = lb_gcm_seal(w->gcm, nonce, aad, sizeof(aad), out, stored_bytes, out);
	if (r < 0)
		return r;
	r = frame_note(w, &(struct lb_checkpoint_frame){.offset_bytes = (uint32_t)w->object.size_bytes,
							.stored_bytes = (uint32_t)stored_bytes + LB_TAG_BYTES,
							.raw_bytes = (uint32_t)w->raw_bytes});
	if (r < 0)
		return r;
	w->object.size_bytes += stored_bytes + LB_TAG_BYTES;
	w->count = 0;
	return 0;
}

/* Where a record of at most `room_bytes` goes; begins a frame when this one is full. */
static int record(struct writing *w, size_t room_bytes, uint8_t **ret_at)
{
	int r;

	if (w->count > 0 && w->raw_bytes + room_bytes > LB_CHECKPOINT_FRAME_BYTES) {
		r = frame_end(w);
		if (r < 0)
			return r;
	}
	if (w->count == 0) {
		memset(w->raw, 0, LB_CHECKPOINT_FRAME_HEAD_BYTES);
		w->raw_bytes = LB_CHECKPOINT_FRAME_HEAD_BYTES;
		w->at = 0;
		w->segment = 0;
	}
	w->count++;
	*ret_at = w->raw + w->raw_bytes;
	return 0;
}

static uint8_t *varint(uint8_t *p, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*p++ = (uint8_t)(value | 0x80);
	*p++ = (uint8_t)value;
	return p;
}

static int add_extent(void *arg, const struct lb_map_extent *x)
{
	struct writing *w = arg;
	uint32_t segment = w->renumbered[x->segment];
	uint8_t *start, *p;
	int64_t turn;
	int r;

	r = record(w, LB_CHECKPOINT_EXTENT_BYTES_MAX, &start);
	if (r < 0)
		return r;
	turn = (int64_t)segment - w->segment;
	p = start;
	*p++ = x->kind;
	p = varint(p, x->start - w->at);
	p = varint(p, x->sectors);
	p = varint(p, turn < 0 ? (uint64_t)-turn * 2 - 1 : (uint64_t)turn * 2);
	if (lb_hrl_kind_has_data(x->kind)) {
		p = varint(p, x->frame);
		p = varint(p, x->frame_sector);
	}
	w->raw_bytes += (size_t)(p - start);
	w->at = x->start + x->sectors;
	w->segment = segment;
	return 0;
}

static int add_segment(struct writing *w, const struct lb_map_segment *s)
{
	uint8_t *p;
	int r;

	r = record(w, LB_CHECKPOINT_SEGMENT_BYTES, &p);
	if (r < 0)
		return r;
	lb_put_le64(p, s->epoch);
	lb_put_le64(p + 8, s->seq);
	lb_put_le64(p + 16, s->object);
	lb_put_le32(p + 24, s->offset_bytes);
	lb_put_le32(p + 28, s->size_bytes);
	lb_put_le32(p + 32, s->head_bytes);
	memcpy(p + 36, s->digest.bytes, LB_DIGEST_BYTES);
	w->raw_bytes += LB_CHECKPOINT_SEGMENT_BYTES;
	return 0;
}

static int note_used(void *arg, const struct lb_map_extent *x)
{
	struct writing *w = arg;

	w->renumbered[x->segment] = 0;
	return 0;
}

static int each_disk(struct writing *w, uint32_t kind, lb_map_fn fn)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_map_disks(w->map); i++) {
		w->kind = kind;
		w->disk = lb_map_disk_id(w->map, i);
		r = lb_map_walk(w->map, w->disk, 0, LB_CHECKPOINT_SECTORS_MAX, fn, w);
		if (r == 0 && kind != 0)
			r = frame_end(w);
	}
	return r;
}

static int write_frames(struct writing *w)
{
	uint32_t n = lb_map_segments(w->map);
	int r;

	memset(w->renumbered, 0xff, n * sizeof(*w->renumbered));
	r = each_disk(w, 0, note_used);
	w->kind = LB_CHECKPOINT_OF_SEGMENTS;
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		if (w->renumbered[i] == UNUSED)
			continue;
		w->renumbered[i] = w->c->n_segments++;
		r = add_segment(w, lb_map_segment(w->map, i));
	}
	if (r == 0)
		r = frame_end(w);
	return r < 0 ? r : each_disk(w, LB_CHECKPOINT_OF_EXTENTS, add_extent);
}

static int put_head(struct writing *w, const struct lb_key *key)
{
	uint32_t head_bytes = lb_head_bytes_for(LB_CHECKPOINT_BODY_BYTES + w->c->n_frames * LB_CHECKPOINT_ENTRY_BYTES);
	_cleanup_buf_ struct lb_buf out = LB_BUF(LB_STORE_OBJECT_BYTES_MAX);
	struct lb_head_id id = lb_checkpoint_head_id(&w->v->id, &w->c->machine, key, &w->c->place);
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_buf_reserve(&out, head_bytes + w->object.size_bytes);
	if (r < 0)
		return r;
	memset(out.data, 0, head_bytes);
	for (uint32_t i = 0; i < w->c->n_frames; i++)
		if (w->c->frames[i].part == 0)
			w->c->frames[i].offset_bytes += head_bytes;
	lb_checkpoint_body_encode(&w->v->id, w->c, out.data + LB_HEAD_PREFIX_BYTES);
	r = lb_head_seal(&id, w->c->salt, head_bytes + w->object.size_bytes, out.data, head_bytes);
	if (r < 0)
		return r;
	out.size_bytes = head_bytes;
	r = lb_buf_append(&out, w->object.data, w->object.size_bytes);
	if (r < 0)
		return r;
	w->c->stored_bytes += out.size_bytes;
	r = lb_checkpoint_name(name, &w->c->machine, &w->c->place);
	return r < 0 ? r : lb_store_put_new(w->v->store, name, out.data, out.size_bytes);
}

static void remove_parts(struct writing *w)
{
	char name[LB_OBJECT_NAME_BYTES];

	for (uint32_t i = 1; i <= w->parts; i++)
		if (lb_checkpoint_part_name(name, w->c, i) == 0)
			lb_store_remove(w->v->store, name);
}

int lb_checkpoint_put(struct lb_vault *v, struct lb_checkpoint *c, const struct lb_map *map)
{
	_cleanup_(writing_free) struct writing w = {
		.v = v, .c = c, .map = map, .object = LB_BUF(LB_STORE_OBJECT_BYTES_MAX)};
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	int r;

	w.raw = malloc(LB_CHECKPOINT_FRAME_BYTES);
	w.renumbered = calloc(lb_map_segments(map) + 1, sizeof(*w.renumbered));
	if (w.raw == NULL || w.renumbered == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	c->n_extents = lb_map_extents(map);
	c->n_segments = 0;
	if ((r = lb_vault_key_to_seal(v, &c->machine, c->salt, &key)) < 0 ||
	    (r = lb_seal_cipher(&key, c->salt, "lifeboat checkpoint frames 1", &w.gcm)) < 0)
		return r;
	r = write_frames(&w);
	if (r == 0)
		r = put_head(&w, &key);
	if (r == -EEXIST)
		remove_parts(&w); /* another one wrote it first: its parts have other names */
	return r;
}
