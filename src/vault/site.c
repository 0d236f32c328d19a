/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/site.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "vault/internal.h"

#define MAGIC "LBSITE01"
#define PREFIX_BYTES (8 + LB_SALT_BYTES)
#define USE "lifeboat site copy 1"
#define REWRAP_TRIES 16

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

static int seal(struct lb_vault *v, const char *object, const void *data, size_t size_bytes, struct lb_buf *sealed)
{
	_cleanup_buf_ struct lb_buf aad = LB_BUF(LB_OBJECT_NAME_BYTES + 64);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	uint8_t salt[LB_SALT_BYTES];
	int r;

	r = make_aad(v, object, &aad);
	if (r == 0)
		r = lb_vault_random(v, salt, sizeof(salt));
	if (r == 0)
		r = lb_seal_cipher(&v->now.key, salt, USE, &gcm);
	if (r == 0)
		r = lb_buf_append(sealed, MAGIC, 8);
	if (r == 0)
		r = lb_buf_append(sealed, salt, sizeof(salt));
	if (r == 0)
		r = lb_buf_reserve(sealed, size_bytes + LB_TAG_BYTES);
	if (r == 0)
		r = lb_gcm_seal(gcm, nonce_zero, aad.data, aad.size_bytes, data, size_bytes,
				sealed->data + PREFIX_BYTES);
	if (r < 0)
		return r;
	sealed->size_bytes += size_bytes + LB_TAG_BYTES;
	return 0;
}

/*
 * The vault key is looked at between the etag and the replacement: a change of the vault key that begins later seals
 * the object anew, under another etag or after this. Only an object that was not there yet is looked at once more.
 */
int lb_vault_site_put(struct lb_vault *v, const char *name, const void *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES);
	char object[LB_OBJECT_NAME_BYTES], etag[LB_STORE_ETAG_BYTES];
	uint64_t there_bytes;
	bool is_new;
	int r;

	r = object_name(v, name, object);
	if (r == 0)
		r = seal(v, object, data, size_bytes, &sealed);
	if (r < 0)
		return r;
	r = lb_store_stat(v->store, object, &there_bytes, etag);
	if (r < 0 && r != -ENOENT)
		return r;
	is_new = r == -ENOENT;
	r = lb_vault_key_check(v);
	if (r == 0)
		r = lb_store_replace(v->store, object, is_new ? NULL : etag, sealed.data, sealed.size_bytes);
	if (r < 0 || !is_new)
		return r;
	r = lb_vault_key_check(v);
	if (r == -ESTALE) {
		(void)lb_store_remove(v->store, object);
		return lb_vault_key_check(v);
	}
	return r;
}

/* Appends to `out` only what `by` opens: -EBADMSG. */
static int open_with(const struct lb_vault *v, const struct lb_vault_key *by, const char *object,
		     const struct lb_buf *sealed, struct lb_buf *out)
{
	_cleanup_buf_ struct lb_buf aad = LB_BUF(LB_OBJECT_NAME_BYTES + 64);
	_cleanup_(lb_gcm_freep) struct lb_gcm *gcm = NULL;
	size_t size_bytes;
	int r;

	if (sealed->size_bytes < PREFIX_BYTES + LB_TAG_BYTES || memcmp(sealed->data, MAGIC, 8) != 0)
		return lb_fail(-EBADMSG, "%s: object %s is truncated or none of ours", v->store->url, object);
	size_bytes = sealed->size_bytes - PREFIX_BYTES - LB_TAG_BYTES;
	r = make_aad(v, object, &aad);
	if (r == 0)
		r = lb_seal_cipher(&by->key, sealed->data + 8, USE, &gcm);
	if (r == 0)
		r = lb_buf_reserve(out, size_bytes);
	if (r == 0)
		r = lb_gcm_open(gcm, nonce_zero, aad.data, aad.size_bytes, sealed->data + PREFIX_BYTES, size_bytes,
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

int lb_vault_site_get(struct lb_vault *v, const char *name, struct lb_buf *out)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES);
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = object_name(v, name, object);
	if (r == 0)
		r = lb_store_get_all(v->store, object, sealed.size_bytes_max, &sealed);
	if (r < 0)
		return r;
	r = open_with(v, &v->now, object, &sealed, out);
	if (r == -EBADMSG && v->has_previous)
		r = open_with(v, &v->previous, object, &sealed, out);
	if (r != -EBADMSG)
		return r;
	r = lb_vault_key_check(v);
	return r == -ESTALE ? r : open_with(v, &v->now, object, &sealed, out);
}

static int rewrap_once(struct lb_vault *v, const char *object)
{
	_cleanup_buf_ struct lb_buf sealed = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES),
				    again = LB_BUF(LB_SITE_BYTES_MAX + PREFIX_BYTES + LB_TAG_BYTES),
				    plain = LB_BUF(LB_SITE_BYTES_MAX + 1);
	char etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;
	int r;

	r = lb_store_stat(v->store, object, &size_bytes, etag);
	if (r == 0)
		r = lb_store_get_all(v->store, object, sealed.size_bytes_max, &sealed);
	if (r < 0)
		return r;
	r = open_with(v, &v->now, object, &sealed, &plain);
	if (r != -EBADMSG)
		return r;
	r = open_with(v, &v->previous, object, &sealed, &plain);
	if (r == 0)
		r = seal(v, object, plain.data, plain.size_bytes, &again);
	return r < 0 ? r : lb_store_replace(v->store, object, etag, again.data, again.size_bytes);
}

int lb_vault_site_rewrap(struct lb_vault *v, const char *name)
{
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = object_name(v, name, object);
	for (int i = 0; r == 0 && i < REWRAP_TRIES; i++) {
		r = rewrap_once(v, object);
		if (r != -ESTALE) /* else it was written anew meanwhile */
			return r;
		r = 0;
	}
	return r < 0 ? r : lb_fail(-ESTALE, "%s: object %s changes all the time; try again", v->store->url, object);
}
