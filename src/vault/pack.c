/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/pack.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "hrl/hrl.h"

#define MAGIC "LBPACK01"
#define USE "lifeboat journal object 1"
#define BODY_BYTES 512 /* before the table */
#define ENTRY_BYTES 72

void lb_pack_free(struct lb_pack *p)
{
	free(p->entries);
	free(p);
}

int lb_pack_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const struct lb_place *place)
{
	return lb_vault_name(name, machine, "e/%08llx/%010llx", (unsigned long long)place->epoch,
			     (unsigned long long)place->number);
}

int lb_pack_name_parse(const char *name, struct lb_place *ret_place)
{
	char again[LB_OBJECT_NAME_BYTES], uuid[LB_UUID_TEXT_BYTES];
	unsigned long long epoch, number;
	struct lb_place place;
	struct lb_uuid machine;

	if (sscanf(name, "m/%36[0-9a-f-]/e/%llx/%llx", uuid, &epoch, &number) != 3 || lb_uuid_parse(uuid, &machine) < 0)
		return lb_fail(-EINVAL, "%s is no name of a journal object", name);
	place = (struct lb_place){.epoch = epoch, .number = number};
	if (lb_pack_name(again, &machine, &place) < 0 || strcmp(again, name) != 0)
		return lb_fail(-EINVAL, "%s is no name of a journal object", name);
	*ret_place = place;
	return 0;
}

static void entry_encode(const struct lb_pack_entry *e, uint8_t *p)
{
	lb_put_le64(p, e->seq);
	lb_put_le32(p + 8, e->offset_bytes);
	lb_put_le32(p + 12, e->size_bytes);
	lb_put_le32(p + 16, e->head_bytes);
	lb_put_le32(p + 20, e->flags);
	lb_put_le32(p + 24, e->extents);
	lb_put_le64(p + 32, (uint64_t)e->receipt_ns);
	memcpy(p + 40, e->digest.bytes, LB_DIGEST_BYTES);
}

static void entry_decode(const uint8_t *p, struct lb_pack_entry *e)
{
	e->seq = lb_get_le64(p);
	e->offset_bytes = lb_get_le32(p + 8);
	e->size_bytes = lb_get_le32(p + 12);
	e->head_bytes = lb_get_le32(p + 16);
	e->flags = lb_get_le32(p + 20);
	e->extents = lb_get_le32(p + 24);
	e->receipt_ns = (int64_t)lb_get_le64(p + 32);
	memcpy(e->digest.bytes, p + 40, LB_DIGEST_BYTES);
}

static void body_encode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_pack *p, uint8_t *b)
{
	memcpy(b, vault->bytes, 16);
	memcpy(b + 16, machine->bytes, 16);
	lb_put_le64(b + 32, p->place.epoch);
	lb_put_le64(b + 40, p->place.number);
	lb_put_le64(b + 48, p->prev.epoch);
	lb_put_le64(b + 56, p->prev.number);
	memcpy(b + 64, p->prev_digest.bytes, LB_DIGEST_BYTES);
	lb_put_le32(b + 96, p->kind);
	lb_put_le32(b + 100, p->n);
	lb_put_le64(b + 104, (uint64_t)p->time_ns);
	memcpy(b + 112, p->writer.bytes, 16);
	lb_put_le64(b + 128, p->after.position.epoch);
	lb_put_le64(b + 136, p->after.position.seq);
	memcpy(b + 144, p->after.digest.bytes, LB_DIGEST_BYTES);
	memcpy(b + 176, p->after.instance.bytes, 16);
	lb_put_le64(b + 192, p->after.ring_cut);
	lb_put_le64(b + 200, p->after.scan_cursor);
	lb_put_le64(b + 208, (uint64_t)p->after.receipt_ns);
	lb_put_le32(b + 216, p->after.flags);
	memcpy(b + 224, p->reason, LB_SEAL_REASON_BYTES);
	for (uint32_t i = 0; i < p->n; i++)
		entry_encode(&p->entries[i], b + BODY_BYTES + i * ENTRY_BYTES);
}

static void body_decode(const uint8_t *b, struct lb_pack *p)
{
	p->place = (struct lb_place){.epoch = lb_get_le64(b + 32), .number = lb_get_le64(b + 40)};
	p->prev = (struct lb_place){.epoch = lb_get_le64(b + 48), .number = lb_get_le64(b + 56)};
	memcpy(p->prev_digest.bytes, b + 64, LB_DIGEST_BYTES);
	p->kind = lb_get_le32(b + 96);
	p->time_ns = (int64_t)lb_get_le64(b + 104);
	memcpy(p->writer.bytes, b + 112, 16);
	p->after.position.epoch = lb_get_le64(b + 128);
	p->after.position.seq = lb_get_le64(b + 136);
	memcpy(p->after.digest.bytes, b + 144, LB_DIGEST_BYTES);
	memcpy(p->after.instance.bytes, b + 176, 16);
	p->after.ring_cut = lb_get_le64(b + 192);
	p->after.scan_cursor = lb_get_le64(b + 200);
	p->after.receipt_ns = (int64_t)lb_get_le64(b + 208);
	p->after.flags = lb_get_le32(b + 216);
	memcpy(p->reason, b + 224, LB_SEAL_REASON_BYTES);
	p->reason[LB_SEAL_REASON_BYTES - 1] = '\0';
}

/* Puts the segments behind the head; -EMSGSIZE when they are too many. */
static int place_segments(struct lb_pack *p)
{
	uint64_t at;

	if (p->n > LB_PACK_SEGMENTS_MAX)
		return lb_fail(-EMSGSIZE, "%u segments exceed the %d of one object", p->n, LB_PACK_SEGMENTS_MAX);
	p->head_bytes = lb_head_bytes_for(BODY_BYTES + p->n * ENTRY_BYTES);
	at = p->head_bytes;
	for (uint32_t i = 0; i < p->n; i++) {
		p->entries[i].offset_bytes = (uint32_t)at;
		at += p->entries[i].size_bytes;
		if (at > LB_PACK_BYTES_MAX)
			return lb_fail(-EMSGSIZE, "segments exceed the %u bytes of one object", LB_PACK_BYTES_MAX);
	}
	p->total_bytes = at;
	return 0;
}

static struct lb_head_id head_id(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
				 const struct lb_place *place)
{
	return (struct lb_head_id){
		.magic = MAGIC, .use = USE, .vault = vault, .machine = machine, .key = key, .place = *place};
}

int lb_pack_encode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
		   const uint8_t salt[LB_SALT_BYTES], struct lb_pack *p, struct lb_buf *out)
{
	struct lb_head_id id = head_id(vault, machine, key, &p->place);
	uint8_t *head;
	int r;

	r = place_segments(p);
	if (r < 0)
		return r;
	r = lb_buf_reserve(out, p->head_bytes);
	if (r < 0)
		return r;
	head = out->data + out->size_bytes;
	memset(head, 0, p->head_bytes);
	body_encode(vault, machine, p, head + LB_HEAD_PREFIX_BYTES);
	r = lb_sha256(head + LB_HEAD_PREFIX_BYTES, lb_head_body_bytes(p->head_bytes), &p->digest);
	if (r < 0)
		return r;
	p->generation = lb_salt_generation(salt);
	r = lb_head_seal(&id, salt, p->total_bytes, head, p->head_bytes);
	if (r < 0)
		return r;
	out->size_bytes += p->head_bytes;
	return 0;
}

static bool entry_is_sound(const struct lb_pack *p, uint32_t i, uint64_t at)
{
	const struct lb_pack_entry *e = &p->entries[i];

	return e->offset_bytes == at && e->head_bytes >= LB_HRL_HEADER_BYTES && e->size_bytes >= e->head_bytes &&
	       at + e->size_bytes <= LB_PACK_BYTES_MAX && e->extents <= LB_HRL_EXTENTS_MAX &&
	       (i == 0 || (e->seq == p->entries[i - 1].seq + 1 && e->receipt_ns >= p->entries[i - 1].receipt_ns));
}

/* What is authentic was made by a holder of the key; bounds are checked all the same. */
static int table_decode(const uint8_t *body, struct lb_pack *p)
{
	uint32_t n = lb_get_le32(body + 100);
	uint64_t at = p->head_bytes;

	if (n > LB_PACK_SEGMENTS_MAX || lb_head_bytes_for(BODY_BYTES + n * ENTRY_BYTES) != p->head_bytes ||
	    (p->kind != LB_PACK_SEGMENTS && p->kind != LB_PACK_SEAL) || (p->kind == LB_PACK_SEGMENTS) != (n > 0))
		return lb_fail(-EBADMSG, "kind or number of segments is out of bounds");
	p->entries = calloc(n > 0 ? n : 1, sizeof(*p->entries));
	if (p->entries == NULL)
		return lb_fail(-ENOMEM, "out of memory for a table of segments");
	p->n = n;
	for (uint32_t i = 0; i < n; i++) {
		entry_decode(body + BODY_BYTES + i * ENTRY_BYTES, &p->entries[i]);
		if (!entry_is_sound(p, i, at))
			return lb_fail(-EBADMSG, "entry %u of the table of segments is out of bounds", i);
		at += p->entries[i].size_bytes;
	}
	if (at != p->total_bytes)
		return lb_fail(-EBADMSG, "the table of segments does not fill the object");
	return 0;
}

int lb_pack_decode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
		   const struct lb_place *place, const void *head, size_t head_bytes, struct lb_pack **ret_pack)
{
	_cleanup_(lb_pack_freep) struct lb_pack *p = calloc(1, sizeof(*p));
	struct lb_head_id id = head_id(vault, machine, key, place);
	_cleanup_free_ uint8_t *body = NULL;
	int r;

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for a journal object");
	r = lb_head_open(&id, head, head_bytes, &body, &p->total_bytes);
	if (r < 0)
		return r;
	p->head_bytes = (uint32_t)head_bytes;
	p->generation = lb_salt_generation(lb_head_salt(head));
	body_decode(body, p);
	if (p->place.epoch != place->epoch || p->place.number != place->number || memcmp(body, vault->bytes, 16) != 0 ||
	    memcmp(body + 16, machine->bytes, 16) != 0)
		return lb_fail(-EBADMSG, "it is sealed for another place");
	r = table_decode(body, p);
	if (r < 0)
		return r;
	r = lb_sha256(body, lb_head_body_bytes(p->head_bytes), &p->digest);
	if (r < 0)
		return r;
	*ret_pack = lb_steal_ptr(p);
	return 0;
}

int lb_pack_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		 struct lb_pack **ret_pack)
{
	_cleanup_buf_ struct lb_buf head = LB_BUF(LB_HEAD_BYTES_MAX);
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	struct lb_head_id id = head_id(&v->id, machine, &key, place);
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_pack_name(name, machine, place);
	if (r < 0)
		return r;
	r = lb_head_read(v->store, &id, name, &head);
	if (r == 0)
		r = lb_vault_key_to_open(v, machine, lb_head_salt(head.data), &key);
	if (r == 0)
		r = lb_pack_decode(&v->id, machine, &key, place, head.data, head.size_bytes, ret_pack);
	return r == -EBADMSG ? lb_wrap(r, "%s: object %s can't be trusted", v->store->url, name) : r;
}
