/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a checkpoint, its names, and its frames read back; checkpoint_load.c reads all of it. */
#include "vault/checkpoint.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/checkpoint_format.h"
#include "vault/manifest.h"

void lb_checkpoint_free(struct lb_checkpoint *c)
{
	free(c->frames);
	free(c);
}

int lb_checkpoint_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const struct lb_place *place)
{
	if (place->epoch == 0)
		return lb_folded_name(name, machine, 'd', place->number);
	return lb_vault_name(name, machine, "c/%08llx-%010llx", (unsigned long long)place->epoch,
			     (unsigned long long)place->number);
}

int lb_checkpoint_part_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_checkpoint *c, uint32_t part)
{
	char salt[17], head[LB_OBJECT_NAME_BYTES];
	int r;

	lb_hex_encode(c->salt, 8, salt);
	if (c->place.epoch == 0) {
		r = lb_checkpoint_name(head, &c->machine, &c->place);
		return r < 0 ? r : lb_vault_name(name, &c->machine, "d/%s-%s-%04x", strrchr(head, '/') + 1, salt, part);
	}
	return lb_vault_name(name, &c->machine, "c/%08llx-%010llx-%s-%04x", (unsigned long long)c->place.epoch,
			     (unsigned long long)c->place.number, salt, part);
}

int lb_checkpoint_name_parse(const char *name, struct lb_place *ret_place)
{
	char again[LB_OBJECT_NAME_BYTES], uuid[LB_UUID_TEXT_BYTES];
	unsigned long long epoch, number;
	struct lb_place place;
	struct lb_uuid machine;

	if (sscanf(name, "m/%36[0-9a-f-]/c/%llx-%llx", uuid, &epoch, &number) != 3 || lb_uuid_parse(uuid, &machine) < 0)
		return lb_fail(-EINVAL, "%s is no name of a checkpoint", name);
	place = (struct lb_place){.epoch = epoch, .number = number};
	if (lb_checkpoint_name(again, &machine, &place) < 0 || strcmp(again, name) != 0)
		return lb_fail(-EINVAL, "%s is no name of a checkpoint", name);
	*ret_place = place;
	return 0;
}

struct lb_head_id lb_checkpoint_head_id(const struct lb_uuid *vault, const struct lb_uuid *machine,
					const struct lb_key *key, const struct lb_place *place)
{
	bool is_span = place->epoch == 0;

	return (struct lb_head_id){.magic = is_span ? "LBSPAN01" : "LBCKPT01",
				   .use = is_span ? "lifeboat span 1" : "lifeboat checkpoint 1",
				   .vault = vault,
				   .machine = machine,
				   .key = key,
				   .place = *place};
}

void lb_checkpoint_body_encode(const struct lb_uuid *vault, const struct lb_checkpoint *c, uint8_t *b)
{
	memcpy(b, vault->bytes, 16);
	memcpy(b + 16, c->machine.bytes, 16);
	lb_put_le64(b + 32, c->place.epoch);
	lb_put_le64(b + 40, c->place.number);
	memcpy(b + 48, c->object_digest.bytes, LB_DIGEST_BYTES);
	lb_put_le32(b + 80, c->is_seal);
	lb_put_le32(b + 84, c->n_frames);
	lb_put_le32(b + 88, c->n_segments);
	lb_put_le64(b + 96, c->n_extents);
	lb_put_le64(b + 104, c->after.position.epoch);
	lb_put_le64(b + 112, c->after.position.seq);
	memcpy(b + 120, c->after.digest.bytes, LB_DIGEST_BYTES);
	memcpy(b + 152, c->after.instance.bytes, 16);
	lb_put_le64(b + 168, c->after.ring_cut);
	lb_put_le64(b + 176, c->after.scan_cursor);
	lb_put_le64(b + 184, (uint64_t)c->after.receipt_ns);
	lb_put_le32(b + 192, c->after.flags);
	lb_put_le64(b + 200, c->manifest);
	for (uint32_t i = 0; i < c->n_frames; i++) {
		uint8_t *p = b + LB_CHECKPOINT_BODY_BYTES + i * LB_CHECKPOINT_ENTRY_BYTES;

		lb_put_le32(p, c->frames[i].part);
		lb_put_le32(p + 4, c->frames[i].offset_bytes);
		lb_put_le32(p + 8, c->frames[i].stored_bytes);
		lb_put_le32(p + 12, c->frames[i].raw_bytes);
	}
}

static void body_decode(const uint8_t *b, struct lb_checkpoint *c)
{
	memcpy(c->object_digest.bytes, b + 48, LB_DIGEST_BYTES);
	c->is_seal = lb_get_le32(b + 80) != 0;
	c->n_frames = lb_get_le32(b + 84);
	c->n_segments = lb_get_le32(b + 88);
	c->n_extents = lb_get_le64(b + 96);
	c->after.position.epoch = lb_get_le64(b + 104);
	c->after.position.seq = lb_get_le64(b + 112);
	memcpy(c->after.digest.bytes, b + 120, LB_DIGEST_BYTES);
	memcpy(c->after.instance.bytes, b + 152, 16);
	c->after.ring_cut = lb_get_le64(b + 168);
	c->after.scan_cursor = lb_get_le64(b + 176);
	c->after.receipt_ns = (int64_t)lb_get_le64(b + 184);
	c->after.flags = lb_get_le32(b + 192);
	c->manifest = lb_get_le64(b + 200);
}

static int frames_decode(const uint8_t *body, uint32_t head_bytes, struct lb_checkpoint *c)
{
	if (c->n_frames > LB_CHECKPOINT_FRAMES_MAX || c->n_segments > LB_MAP_SEGMENTS_MAX ||
	    c->n_extents > LB_MAP_EXTENTS_MAX ||
	    lb_head_bytes_for(LB_CHECKPOINT_BODY_BYTES + c->n_frames * LB_CHECKPOINT_ENTRY_BYTES) != head_bytes)
		return lb_fail(-EBADMSG, "its number of frames, segments or extents is out of bounds");
	c->frames = calloc(c->n_frames > 0 ? c->n_frames : 1, sizeof(*c->frames));
	if (c->frames == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	for (uint32_t i = 0; i < c->n_frames; i++) {
		const uint8_t *p = body + LB_CHECKPOINT_BODY_BYTES + i * LB_CHECKPOINT_ENTRY_BYTES;
		struct lb_checkpoint_frame *f = &c->frames[i];

		*f = (struct lb_checkpoint_frame){lb_get_le32(p), lb_get_le32(p + 4), lb_get_le32(p + 8),
						  lb_get_le32(p + 12)};
		if (f->part > LB_CHECKPOINT_FRAMES_MAX || f->raw_bytes > LB_CHECKPOINT_FRAME_BYTES ||
		    f->stored_bytes < LB_TAG_BYTES || f->stored_bytes > LB_CHECKPOINT_STORED_BYTES_MAX ||
		    f->offset_bytes > LB_STORE_OBJECT_BYTES_MAX)
			return lb_fail(-EBADMSG, "frame %u is out of bounds", i);
	}
	return 0;
}

int lb_checkpoint_decode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
			 const struct lb_place *place, const void *head, size_t head_bytes, struct lb_checkpoint **ret)
{
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = calloc(1, sizeof(*c));
	struct lb_head_id id = lb_checkpoint_head_id(vault, machine, key, place);
	_cleanup_free_ uint8_t *body = NULL;
	int r;

	if (c == NULL)
		return lb_fail(-ENOMEM, "out of memory for a checkpoint");
	r = lb_head_open(&id, head, head_bytes, &body, &c->total_bytes);
	if (r < 0)
		return r;
	c->machine = *machine;
	c->place = *place;
	memcpy(c->salt, (const uint8_t *)head + 16, LB_SALT_BYTES);
	body_decode(body, c);
	if (memcmp(body, vault->bytes, 16) != 0 || memcmp(body + 16, machine->bytes, 16) != 0 ||
	    lb_get_le64(body + 32) != place->epoch || lb_get_le64(body + 40) != place->number)
		return lb_fail(-EBADMSG, "it is sealed for another place");
	r = frames_decode(body, (uint32_t)head_bytes, c);
	if (r < 0)
		return r;
	*ret = lb_steal_ptr(c);
	return 0;
}

int lb_checkpoint_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		       struct lb_checkpoint **ret)
{
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HEAD_BYTES_MAX);
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_head_id id = lb_checkpoint_head_id(&v->id, machine, &key, place);
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_checkpoint_name(name, machine, place);
	if (r < 0)
		return r;
	r = lb_head_read(v->store, &id, name, &head);
	if (r == 0)
		r = lb_vault_key_to_open(v, machine, lb_head_salt(head.data), &key);
	if (r == 0)
		r = lb_checkpoint_decode(&v->id, machine, &key, place, head.data, head.size_bytes, ret);
	return r == -EBADMSG ? lb_wrap(r, "%s: checkpoint %s can't be trusted", v->store->url, name) : r;
}

/* ---- loading ---- */

static inline int varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t value = 0;

	if (*p < end && **p < 0x80) { /* most are */
		*ret = *(*p)++;
		return 0;
	}
	for (unsigned int shift = 0; *p < end && shift < 63; shift += 7) {
		uint8_t byte = *(*p)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0) {
			*ret = value;
			return 0;
		}
	}
	return lb_fail(-EBADMSG, "a number of a checkpoint is cut short");
}

static int segments_apply(const uint8_t *p, size_t bytes, uint32_t count, struct lb_map *map)
{
	if (bytes != (uint64_t)count * LB_CHECKPOINT_SEGMENT_BYTES)
		return lb_fail(-EBADMSG, "a frame of segments has a wrong length");
	for (uint32_t i = 0; i < count; i++, p += LB_CHECKPOINT_SEGMENT_BYTES) {
		struct lb_map_segment s = {.epoch = lb_get_le64(p),
					   .seq = lb_get_le64(p + 8),
					   .object = lb_get_le64(p + 16),
					   .offset_bytes = lb_get_le32(p + 24),
					   .size_bytes = lb_get_le32(p + 28),
					   .head_bytes = lb_get_le32(p + 32)};
		uint32_t index;
		int r;

		memcpy(s.digest.bytes, p + 36, LB_DIGEST_BYTES);
		if (s.size_bytes > LB_HRL_SEGMENT_BYTES_MAX || s.head_bytes > s.size_bytes)
			return lb_fail(-EBADMSG, "a segment of a checkpoint is out of bounds");
		r = lb_map_segment_add(map, &s, &index);
		if (r < 0)
			return r;
	}
	return 0;
}

static int extent_next(const uint8_t **p, const uint8_t *end, struct lb_map_extent *x, uint64_t *at)
{
	uint64_t gap, sectors, turn, frame = 0, frame_sector = 0;
	int r;

	if (*p >= end)
		return lb_fail(-EBADMSG, "a frame of extents is cut short");
	x->kind = *(*p)++;
	if ((r = varint(p, end, &gap)) < 0 || (r = varint(p, end, &sectors)) < 0 || (r = varint(p, end, &turn)) < 0)
		return r;
	if (lb_hrl_kind_has_data(x->kind) &&
	    ((r = varint(p, end, &frame)) < 0 || (r = varint(p, end, &frame_sector)) < 0))
		return r;
	if (x->kind < LB_HRL_CAPTURED || x->kind > LB_MAP_LOST || sectors == 0 || sectors > UINT32_MAX ||
	    gap > LB_CHECKPOINT_SECTORS_MAX || *at + gap + sectors > LB_CHECKPOINT_SECTORS_MAX ||
	    frame > LB_HRL_EXTENTS_MAX || frame_sector >= LB_HRL_FRAME_BYTES_MAX / LB_HRL_SECTOR_BYTES ||
	    turn > 2 * (uint64_t)LB_MAP_SEGMENTS_MAX)
		return lb_fail(-EBADMSG, "an extent of a checkpoint is out of bounds");
	x->start = *at + gap;
	x->sectors = (uint32_t)sectors;
	x->segment += (turn & 1) != 0 ? -(uint32_t)((turn + 1) / 2) : (uint32_t)(turn / 2);
	x->frame = (uint32_t)frame;
	x->frame_sector = (uint16_t)frame_sector;
	*at = x->start + x->sectors;
	return 0;
}

static int extents_apply(const uint8_t *p, size_t bytes, uint16_t disk, uint32_t count, struct lb_map *map)
{
	const uint8_t *end = p + bytes;
	struct lb_map_extent x = {0};
	uint64_t at = 0;
	int r;

	for (uint32_t i = 0; i < count; i++) {
		r = extent_next(&p, end, &x, &at);
		if (r < 0)
			return r;
		if (x.segment >= lb_map_segments(map))
			return lb_fail(-EBADMSG, "an extent of a checkpoint refers to no segment");
		r = lb_map_insert(map, disk, &x);
		if (r < 0)
			return r;
	}
	return p == end ? 0 : lb_fail(-EBADMSG, "a frame of extents has bytes left over");
}

int lb_checkpoint_frame_apply(const void *raw, size_t raw_bytes, struct lb_map *map)
{
	const uint8_t *p = raw;

	if (raw_bytes < LB_CHECKPOINT_FRAME_HEAD_BYTES)
		return lb_fail(-EBADMSG, "a frame of a checkpoint is cut short");
	p += LB_CHECKPOINT_FRAME_HEAD_BYTES;
	raw_bytes -= LB_CHECKPOINT_FRAME_HEAD_BYTES;
	switch (lb_get_le32(raw)) {
	case LB_CHECKPOINT_OF_SEGMENTS:
		return segments_apply(p, raw_bytes, lb_get_le32((const uint8_t *)raw + 4), map);
	case LB_CHECKPOINT_OF_EXTENTS:
		return extents_apply(p, raw_bytes, lb_get_le16((const uint8_t *)raw + 8),
				     lb_get_le32((const uint8_t *)raw + 4), map);
	default:
		return lb_fail(-EBADMSG, "a frame of a checkpoint is of an unknown kind");
	}
}

void lb_checkpoint_frame_aad(const struct lb_uuid *vault, const struct lb_checkpoint *c, uint32_t i, uint32_t raw_bytes,
			     uint8_t nonce[LB_NONCE_BYTES], uint8_t aad[LB_CHECKPOINT_AAD_BYTES])
{
	memset(nonce, 0, LB_NONCE_BYTES);
	lb_put_le32(nonce, i);
	memcpy(aad, vault->bytes, 16);
	memcpy(aad + 16, c->machine.bytes, 16);
	lb_put_le64(aad + 32, c->place.epoch);
	lb_put_le64(aad + 40, c->place.number);
	lb_put_le32(aad + 48, i);
	lb_put_le32(aad + 52, raw_bytes);
}
