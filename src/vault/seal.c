/* SPDX-License-Identifier: Apache-2.0 */
/* Ciphers for sealed things, names of objects, and small sealed objects. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/internal.h"

#define SMALL_MAGIC "LBSMALL1"
#define SMALL_USE "lifeboat small object 1"
#define SMALL_PREFIX_BYTES 32
#define SMALL_AAD_BYTES_MAX (SMALL_PREFIX_BYTES + 32 + LB_STORE_NAME_BYTES_MAX)

static const uint8_t nonce_zero[LB_NONCE_BYTES]; /* every salt makes a key of its own, which seals once */

int lb_seal_cipher(const struct lb_key *key, const uint8_t salt[LB_SALT_BYTES], const char *use,
		   struct lb_gcm **ret_gcm)
{
	_cleanup_(lb_key_wipe) struct lb_key sub = {0};
	int r;

	r = lb_hkdf(key, salt, LB_SALT_BYTES, use, &sub);
	if (r < 0)
		return r;
	return lb_gcm_new(&sub, ret_gcm);
}

int lb_vault_random(struct lb_vault *v, void *buf, size_t size_bytes)
{
	int r = v->store->env->ops->random(v->store->env, buf, size_bytes);

	return r < 0 ? lb_fail(r, "no random bytes: %s", strerror(-r)) : 0;
}

int lb_vault_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const char *fmt, ...)
{
	char uuid[LB_UUID_TEXT_BYTES];
	va_list ap;
	int n, more;

	lb_uuid_format(machine, uuid);
	n = snprintf(name, LB_OBJECT_NAME_BYTES, "m/%s/", uuid);
	va_start(ap, fmt);
	more = vsnprintf(name + n, (size_t)(LB_OBJECT_NAME_BYTES - n), fmt, ap);
	va_end(ap);
	if (more < 0 || n + more >= LB_OBJECT_NAME_BYTES)
		return lb_fail(-EINVAL, "object name is too long: %s", name);
	return 0;
}

int lb_vault_prove(struct lb_vault *v)
{
	int r;

	LB_LOCK_SCOPE(&v->lock);
	if (v->store_proved)
		return 0;
	r = lb_store_prove(v->store);
	v->store_proved = r == 0;
	return r;
}

static size_t small_aad(const struct lb_vault *v, const struct lb_uuid *machine, const char *name,
			const uint8_t *prefix, uint8_t aad[SMALL_AAD_BYTES_MAX])
{
	size_t length = strnlen(name, LB_STORE_NAME_BYTES_MAX);

	memcpy(aad, prefix, SMALL_PREFIX_BYTES);
	memcpy(aad + SMALL_PREFIX_BYTES, v->id.bytes, 16);
	memcpy(aad + SMALL_PREFIX_BYTES + 16, machine->bytes, 16);
	memcpy(aad + SMALL_PREFIX_BYTES + 32, name, length);
	return SMALL_PREFIX_BYTES + 32 + length;
}

int lb_vault_seal_small(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
			size_t size_bytes, struct lb_buf *out)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t prefix[SMALL_PREFIX_BYTES] = SMALL_MAGIC, aad[SMALL_AAD_BYTES_MAX];
	size_t aad_bytes;
	int r;

	if (size_bytes > LB_SMALL_BYTES_MAX)
		return lb_fail(-EMSGSIZE, "%s of %zu bytes exceeds the limit of %u", name, size_bytes,
			       LB_SMALL_BYTES_MAX);
	lb_put_le32(prefix + 8, (uint32_t)size_bytes);
	r = lb_vault_key_to_seal(v, machine, prefix + 16, &key);
	if (r == 0)
		r = lb_seal_cipher(&key, prefix + 16, SMALL_USE, &gcm);
	if (r < 0)
		return r;
	r = lb_buf_reserve(out, size_bytes + LB_SMALL_OVERHEAD_BYTES);
	if (r < 0)
		return r;
	aad_bytes = small_aad(v, machine, name, prefix, aad);
	memcpy(out->data + out->size_bytes, prefix, sizeof(prefix));
	r = lb_gcm_seal(gcm, nonce_zero, aad, aad_bytes, data, size_bytes,
			out->data + out->size_bytes + sizeof(prefix));
	if (r < 0)
		return r;
	out->size_bytes += size_bytes + LB_SMALL_OVERHEAD_BYTES;
	return 0;
}

int lb_vault_open_small(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
			size_t size_bytes, struct lb_buf *out)
{
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	_cleanup_(lb_key_wipe) struct lb_key key = {0};
	uint8_t aad[SMALL_AAD_BYTES_MAX];
	const uint8_t *p = data;
	size_t plain_bytes, aad_bytes;
	int r;

	if (size_bytes < LB_SMALL_OVERHEAD_BYTES || size_bytes > LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES ||
	    memcmp(p, SMALL_MAGIC, 8) != 0 || lb_get_le32(p + 8) != size_bytes - LB_SMALL_OVERHEAD_BYTES)
		return lb_fail(-EBADMSG, "%s: object %s is truncated or no sealed object", v->store->url, name);
	plain_bytes = size_bytes - LB_SMALL_OVERHEAD_BYTES;
	r = lb_vault_key_to_open(v, machine, p + 16, &key);
	if (r == -EBADMSG)
		return lb_wrap(r, "%s: object %s can't be trusted", v->store->url, name);
	if (r == 0)
		r = lb_seal_cipher(&key, p + 16, SMALL_USE, &gcm);
	if (r < 0)
		return r;
	r = lb_buf_reserve(out, plain_bytes);
	if (r < 0)
		return r;
	aad_bytes = small_aad(v, machine, name, p, aad);
	r = lb_gcm_open(gcm, nonce_zero, aad, aad_bytes, p + SMALL_PREFIX_BYTES, plain_bytes,
			out->data + out->size_bytes);
	if (r == -EBADMSG)
		return lb_fail(r,
			       "%s: object %s is not authentic: it was altered, or is another object put in its place",
			       v->store->url, name);
	if (r < 0)
		return r;
	out->size_bytes += plain_bytes;
	out->data[out->size_bytes] = '\0';
	return 0;
}

int lb_small_put_new(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
		     size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	int r;

	r = lb_vault_seal_small(v, machine, name, data, size_bytes, &sealed);
	if (r < 0)
		return r;
	return lb_store_put_new(v->store, name, sealed.data, sealed.size_bytes);
}

int lb_small_get(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_buf *out)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES);
	int r;

	r = lb_store_get_all(v->store, name, LB_SMALL_BYTES_MAX + LB_SMALL_OVERHEAD_BYTES, &sealed);
	if (r < 0)
		return r;
	return lb_vault_open_small(v, machine, name, sealed.data, sealed.size_bytes, out);
}
