/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/head.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"

#define AAD_BYTES (LB_HEAD_PREFIX_BYTES + 16 + 16 + 8 + 8)

static const uint8_t nonce_zero[LB_NONCE_BYTES]; /* every object has a salt, and so a key, of its own */

uint32_t lb_head_bytes_for(size_t body_bytes)
{
	size_t bytes = LB_HEAD_PREFIX_BYTES + body_bytes + LB_TAG_BYTES;

	return (uint32_t)((bytes + LB_HEAD_ALIGN_BYTES - 1) / LB_HEAD_ALIGN_BYTES * LB_HEAD_ALIGN_BYTES);
}

static void make_aad(const struct lb_head_id *id, const uint8_t *prefix, uint8_t aad[AAD_BYTES])
{
	memcpy(aad, prefix, LB_HEAD_PREFIX_BYTES);
	memcpy(aad + LB_HEAD_PREFIX_BYTES, id->vault->bytes, 16);
	memcpy(aad + LB_HEAD_PREFIX_BYTES + 16, id->machine->bytes, 16);
	lb_put_le64(aad + LB_HEAD_PREFIX_BYTES + 32, id->place.epoch);
	lb_put_le64(aad + LB_HEAD_PREFIX_BYTES + 40, id->place.number);
}

int lb_head_seal(const struct lb_head_id *id, const uint8_t salt[LB_SALT_BYTES], uint64_t total_bytes, uint8_t *head,
		 uint32_t head_bytes)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t aad[AAD_BYTES], *body = head + LB_HEAD_PREFIX_BYTES;
	int r;

	r = lb_seal_cipher(id->key, salt, id->use, &gcm);
	if (r < 0)
		return r;
	memset(head, 0, LB_HEAD_PREFIX_BYTES);
	memcpy(head, id->magic, 8);
	lb_put_le32(head + 8, head_bytes);
	memcpy(head + 16, salt, LB_SALT_BYTES);
	lb_put_le64(head + 32, total_bytes);
	make_aad(id, head, aad);
	return lb_gcm_seal(gcm, nonce_zero, aad, sizeof(aad), body, lb_head_body_bytes(head_bytes), body);
}

int lb_head_bytes(const struct lb_head_id *id, const void *data, size_t size_bytes, uint32_t *ret_head_bytes)
{
	const uint8_t *p = data;
	uint32_t head_bytes;

	if (size_bytes < LB_HEAD_PREFIX_BYTES || memcmp(p, id->magic, 8) != 0)
		return lb_fail(-EBADMSG, "it does not begin with %s", id->magic);
	head_bytes = lb_get_le32(p + 8);
	if (head_bytes < LB_HEAD_ALIGN_BYTES || head_bytes % LB_HEAD_ALIGN_BYTES != 0 || head_bytes > LB_HEAD_BYTES_MAX)
		return lb_fail(-EBADMSG, "a head of %u bytes is out of bounds", head_bytes);
	*ret_head_bytes = head_bytes;
	return 0;
}

int lb_head_open(const struct lb_head_id *id, const void *head, size_t head_bytes, uint8_t **ret_body,
		 uint64_t *ret_total_bytes)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	_cleanup_free_ uint8_t *body = NULL;
	const uint8_t *prefix = head;
	uint8_t aad[AAD_BYTES];
	uint32_t told_bytes;
	int r;

	r = lb_head_bytes(id, head, head_bytes, &told_bytes);
	if (r < 0)
		return r;
	if (told_bytes != head_bytes)
		return lb_fail(-EBADMSG, "its head is truncated");
	r = lb_seal_cipher(id->key, prefix + 16, id->use, &gcm);
	if (r < 0)
		return r;
	body = malloc(lb_head_body_bytes(told_bytes));
	if (body == NULL)
		return lb_fail(-ENOMEM, "out of memory for the head of an object");
	make_aad(id, prefix, aad);
	r = lb_gcm_open(gcm, nonce_zero, aad, sizeof(aad), prefix + LB_HEAD_PREFIX_BYTES,
			lb_head_body_bytes(told_bytes), body);
	if (r == -EBADMSG)
		return lb_fail(r, "it is not authentic: altered, or another object put in its place");
	if (r < 0)
		return r;
	*ret_total_bytes = lb_get_le64(prefix + 32);
	*ret_body = lb_steal_ptr(body);
	return 0;
}

int lb_head_read(struct lb_store *store, const struct lb_head_id *id, const char *name, struct lb_buf *out)
{
	uint32_t head_bytes;
	int r;

	r = lb_store_get(store, name, 0, LB_HEAD_ALIGN_BYTES, out);
	if (r == 0)
		r = lb_head_bytes(id, out->data, out->size_bytes, &head_bytes);
	if (r == 0 && head_bytes > out->size_bytes)
		r = lb_store_get(store, name, out->size_bytes, head_bytes - out->size_bytes, out);
	return r == -ENODATA ? lb_wrap(-EBADMSG, "its head is truncated") : r;
}
