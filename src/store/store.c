/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
	       c == '-';
}

int lb_store_name_check(const char *name, bool is_prefix)
{
	size_t length = strnlen(name, LB_STORE_NAME_BYTES_MAX + 1);
	bool starts = true;

	if (length > LB_STORE_NAME_BYTES_MAX)
		return lb_fail(-EINVAL, "object name is longer than %d bytes: %.40s...", LB_STORE_NAME_BYTES_MAX, name);
	for (size_t i = 0; i < length; i++) {
		if (name[i] == '/' ? starts : !is_name_char(name[i]))
			return lb_fail(-EINVAL, "object name %s has a character or an empty part that no store takes",
				       name);
		if (starts && name[i] == '.')
			return lb_fail(-EINVAL, "object name %s has a part that starts with a dot", name);
		starts = name[i] == '/';
	}
	if (!is_prefix && starts)
		return lb_fail(-EINVAL, "object name \"%s\" is empty or ends in a slash", name);
	return 0;
}

static int open_folder(struct lb_env *env, const char *path, bool create, struct lb_store **ret_store)
{
	if (path[0] != '/')
		return lb_fail(-EINVAL, "dir:%s: the folder of a store must be absolute, such as dir:/srv/vault", path);
	return lb_store_dir_open(env, path, create, ret_store);
}

int lb_store_open(struct lb_env *env, const char *url, bool create, struct lb_store **ret_store)
{
	static const struct {
		const char *scheme;
		int (*open)(struct lb_env *env, const char *place, bool create, struct lb_store **ret_store);
	} backends[] = {{"dir:", open_folder}, {"azure:", lb_store_azure_open}, {"s3:", lb_store_s3_open}};

	for (size_t i = 0; i < LB_ARRAY_LEN(backends); i++) {
		size_t length = strlen(backends[i].scheme);

		if (strncmp(url, backends[i].scheme, length) == 0)
			return backends[i].open(env, url + length, create, ret_store);
	}
	return lb_fail(
		-EINVAL,
		"%.200s is no store that this version knows; write dir:/absolute/path, azure:ACCOUNT/CONTAINER or "
		"s3:BUCKET?region=...",
		url);
}

void lb_store_free(struct lb_store *s)
{
	s->ops->free(s);
}

static int check_size(struct lb_store *s, const char *name, size_t size_bytes)
{
	if (size_bytes > LB_STORE_OBJECT_BYTES_MAX)
		return lb_fail(-EMSGSIZE, "%s: object %s of %zu bytes exceeds the limit of %u", s->url, name,
			       size_bytes, LB_STORE_OBJECT_BYTES_MAX);
	return lb_store_name_check(name, false);
}

int lb_store_put_new(struct lb_store *s, const char *name, const void *data, size_t size_bytes)
{
	int r = check_size(s, name, size_bytes);

	return r < 0 ? r : s->ops->put_new(s, name, data, size_bytes);
}

int lb_store_replace(struct lb_store *s, const char *name, const char *etag, const void *data, size_t size_bytes)
{
	int r = check_size(s, name, size_bytes);

	return r < 0 ? r : s->ops->replace(s, name, etag, data, size_bytes);
}

int lb_store_get(struct lb_store *s, const char *name, uint64_t offset_bytes, size_t size_bytes, struct lb_buf *out)
{
	size_t before = out->size_bytes;
	int r = check_size(s, name, size_bytes);

	if (r < 0)
		return r;
	r = s->ops->get(s, name, offset_bytes, size_bytes, out);
	if (r < 0)
		out->size_bytes = before;
	return r;
}

int lb_store_get_all(struct lb_store *s, const char *name, size_t size_bytes_max, struct lb_buf *out)
{
	uint64_t size_bytes;
	int r;

	r = lb_store_stat(s, name, &size_bytes, NULL);
	if (r < 0)
		return r;
	if (size_bytes > size_bytes_max)
		return lb_fail(-EMSGSIZE, "%s: object %s has %llu bytes where at most %zu are expected", s->url, name,
			       (unsigned long long)size_bytes, size_bytes_max);
	return lb_store_get(s, name, 0, (size_t)size_bytes, out);
}

int lb_store_stat(struct lb_store *s, const char *name, uint64_t *ret_size_bytes, char *ret_etag)
{
	int r = lb_store_name_check(name, false);

	return r < 0 ? r : s->ops->stat(s, name, ret_size_bytes, ret_etag);
}

int lb_store_list(struct lb_store *s, const char *prefix, lb_store_list_fn fn, void *arg)
{
	int r = lb_store_name_check(prefix, true);

	return r < 0 ? r : s->ops->list(s, prefix, fn, arg);
}

int lb_store_list_folders(struct lb_store *s, const char *prefix, lb_store_folder_fn fn, void *arg)
{
	size_t length = strlen(prefix);
	int r = lb_store_name_check(prefix, true);

	if (r < 0)
		return r;
	if (length > 0 && prefix[length - 1] != '/')
		return lb_fail(-EINVAL, "prefix %s of a listing of folders does not end in a slash", prefix);
	return s->ops->list_folders(s, prefix, fn, arg);
}

int lb_store_remove(struct lb_store *s, const char *name)
{
	int r = lb_store_name_check(name, false);

	return r < 0 ? r : s->ops->remove(s, name);
}

int lb_store_now(struct lb_store *s, int64_t *ret_now_ns)
{
	return s->ops->now(s, ret_now_ns);
}

static int prove_second(struct lb_store *s, const char *name)
{
	_cleanup_buf_ struct lb_buf out = LB_BUF(16);
	int r;

	r = lb_store_put_new(s, name, "other", 5);
	if (r != -EEXIST)
		return lb_fail(r < 0 ? r : -EOPNOTSUPP,
			       "%s takes two objects of one name: it can't keep a vault safe from two writers; use "
			       "another store",
			       s->url);
	r = lb_store_get(s, name, 0, 5, &out);
	if (r < 0)
		return lb_wrap(r, "a probe of the store failed");
	if (memcmp(out.data, "first", 5) != 0)
		return lb_fail(-EOPNOTSUPP, "%s lost an object to a second one of its name; use another store", s->url);
	lb_err_clear();
	return 0;
}

/* Of two replacements that saw the same object only one may count. */
static int prove_replace(struct lb_store *s, const char *name)
{
	char etag[LB_STORE_ETAG_BYTES];
	uint64_t size_bytes;
	int r;

	r = lb_store_stat(s, name, &size_bytes, etag);
	if (r == 0)
		r = lb_store_replace(s, name, etag, "third", 5);
	if (r < 0)
		return lb_wrap(r, "a probe of the store failed");
	r = lb_store_replace(s, name, etag, "fourth", 6);
	if (r != -ESTALE)
		return lb_fail(r < 0 ? r : -EOPNOTSUPP,
			       "%s replaces an object that was changed meanwhile: it can't keep a vault safe from two "
			       "writers; use another store",
			       s->url);
	lb_err_clear();
	return 0;
}

int lb_store_prove(struct lb_store *s)
{
	char name[64], hex[33];
	uint8_t nonce[16];
	int r;

	r = s->env->ops->random(s->env, nonce, sizeof(nonce));
	if (r < 0)
		return lb_fail(r, "no random bytes: %s", strerror(-r));
	lb_hex_encode(nonce, sizeof(nonce), hex);
	snprintf(name, sizeof(name), "probe/%s", hex);
	r = lb_store_put_new(s, name, "first", 5);
	if (r < 0)
		return lb_wrap(r, "a probe of the store failed");
	r = prove_second(s, name);
	if (r == 0)
		r = prove_replace(s, name);
	if (r < 0)
		return r; /* the probe stays: what else it would tell is in the error */
	/* a store that keeps everything (object lock) refuses: it is as good a store with one small object more */
	r = lb_store_remove(s, name);
	if (r < 0)
		lb_err_clear();
	return 0;
}
