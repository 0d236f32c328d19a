/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/site.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/internal.h"

#define MAGIC "LBSITE01"
#define PREFIX_BYTES (8 + LB_SALT_BYTES)
#define USE "lifeboat site copy 1"

/* One salt, hence one key, per object that is written: the nonce is used once with it. */
static const uint8_t nonce_zero[LB_NONCE_BYTES];

static int make_aad(const struct lb_vault *v, const char *object, struct lb_buf *aad)
{
	int r;

	r = lb_buf_append(aad, MAGIC, 8);
	if (r == 0)
		r = lb_buf_append(aad, v->id.bytes, sizeof(v->id.bytes));
	return r < 0 ? r : lb_buf_append(aad, object, strlen(object));
}

static int object_name(const struct lb_vault *v, const char *name, char object[LB_OBJECT_NAME_BYTES])
{
	int r;

	if (!v->has_key)
		return lb_fail(-ENOKEY,
			       "only who opened the vault with its passphrase can use what the site keeps in it");
	r = lb_name_check("object", name);
	if (r < 0)
		return r;
	snprintf(object, LB_OBJECT_NAME_BYTES, "site/%s", name);
	return 0;
}

int lb_vault_site_put(struct lb_vault *v, const char *name, const void *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES);
	_cleanup_buf_ struct lb_buf aad = LB_BUF(LB_OBJECT_NAME_BYTES + 64);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	char object[LB_OBJECT_NAME_BYTES], etag[LB_STORE_ETAG_BYTES];
	uint8_t salt[LB_SALT_BYTES];
	uint64_t there_bytes;
	int r;

	r = object_name(v, name, object);
	if (r == 0)
		r = make_aad(v, object, &aad);
	if (r == 0)
		r = lb_vault_random(v, salt, sizeof(salt));
	if (r == 0)
		r = lb_seal_cipher(&v->key, salt, USE, &gcm);
	if (r == 0)
		r = lb_buf_append(&sealed, MAGIC, 8);
	if (r == 0)
		r = lb_buf_append(&sealed, salt, sizeof(salt));
	if (r == 0)
		r = lb_buf_reserve(&sealed, size_bytes + LB_TAG_BYTES);
	if (r == 0)
		r = lb_gcm_seal(gcm, nonce_zero, aad.data, aad.size_bytes, data, size_bytes,
				sealed.data + PREFIX_BYTES);
	if (r < 0)
		return r;
	sealed.size_bytes += size_bytes + LB_TAG_BYTES;
	r = lb_store_stat(v->store, object, &there_bytes, etag);
	if (r < 0 && r != -ENOENT)
		return r;
	return lb_store_replace(v->store, object, r == -ENOENT ? NULL : etag, sealed.data, sealed.size_bytes);
}

int lb_vault_site_get(struct lb_vault *v, const char *name, struct lb_buf *out)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES);
	_cleanup_buf_ struct lb_buf aad = LB_BUF(LB_OBJECT_NAME_BYTES + 64);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	char object[LB_OBJECT_NAME_BYTES];
	size_t size_bytes;
	int r;

	r = object_name(v, name, object);
	if (r == 0)
		r = make_aad(v, object, &aad);
	if (r == 0)
		r = lb_store_get_all(v->store, object, sealed.size_bytes_max, &sealed);
	if (r < 0)
		return r;
	if (sealed.size_bytes < PREFIX_BYTES + LB_TAG_BYTES || memcmp(sealed.data, MAGIC, 8) != 0)
		return lb_fail(-EBADMSG, "%s: object %s is truncated or none of ours", v->store->url, object);
	size_bytes = sealed.size_bytes - PREFIX_BYTES - LB_TAG_BYTES;
	r = lb_seal_cipher(&v->key, sealed.data + 8, USE, &gcm);
	if (r == 0)
		r = lb_buf_reserve(out, size_bytes);
	if (r == 0)
		r = lb_gcm_open(gcm, nonce_zero, aad.data, aad.size_bytes, sealed.data + PREFIX_BYTES, size_bytes,
				out->data + out->size_bytes);
	if (r == -EBADMSG)
		return lb_fail(r, "%s: object %s is not authentic: it was altered, or belongs to another vault",
			       v->store->url, object);
	if (r < 0)
		return r;
	out->size_bytes += size_bytes;
	out->data[out->size_bytes] = '\0';
	return 0;
}
