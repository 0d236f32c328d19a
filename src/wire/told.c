/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/told.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"

#define VERSION 1
#define SECRET_BYTES 32

struct text {
	char *data;
	size_t size_bytes;
};

static void text_wipe(struct text *t)
{
	if (t->data != NULL)
		lb_wipe(t->data, t->size_bytes);
	free(t->data);
}

/* jansson keeps a copy of its own. */
static void object_wipe(json_t **object)
{
	const char *secret = json_string_value(json_object_get(*object, "secret"));

	if (secret != NULL)
		lb_wipe((char *)(uintptr_t)secret, strlen(secret));
	json_decref(*object);
}

void lb_told_wipe(struct lb_told *told)
{
	lb_wipe(told, sizeof(*told));
}

static bool is_hex(const char *text)
{
	uint8_t bytes[SECRET_BYTES];
	bool is = lb_hex_decode(text, sizeof(bytes), bytes) == 0;

	lb_wipe(bytes, sizeof(bytes));
	return is;
}

static int check(const struct lb_told *told)
{
	size_t length = strlen(told->config_url);

	if (strncmp(told->config_url, "https://", 8) != 0 || length < 9 || told->config_url[length - 1] == '/' ||
	    strspn(told->config_url + 8, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") !=
		    length - 8)
		return lb_fail(-EINVAL, "what this double is told: \"config_url\" is no https://HOST:PORT");
	if (!is_hex(told->ca_fingerprint) || !is_hex(told->secret))
		return lb_fail(-EINVAL,
			       "what this double is told: \"ca_fingerprint\" and \"secret\" are %d bytes in hex",
			       SECRET_BYTES);
	return 0;
}

int lb_told_make(struct lb_env *env, const char *config_url, const char *ca_fingerprint, struct lb_told *ret_told)
{
	_cleanup_(lb_told_wipe) struct lb_told told = {0};
	uint8_t bytes[SECRET_BYTES];
	int r;

	if (strlen(config_url) >= sizeof(told.config_url) || strlen(ca_fingerprint) >= sizeof(told.ca_fingerprint))
		return lb_fail(-EINVAL, "the configuration server's URL is longer than %d characters",
			       LB_TOLD_URL_BYTES - 1);
	r = env->ops->random(env, bytes, sizeof(bytes));
	if (r < 0)
		return lb_fail(r, "no random bytes for a double's secret: %s", strerror(-r));
	lb_hex_encode(bytes, sizeof(bytes), told.secret);
	lb_wipe(bytes, sizeof(bytes));
	memcpy(told.config_url, config_url, strlen(config_url));
	memcpy(told.ca_fingerprint, ca_fingerprint, strlen(ca_fingerprint));
	r = check(&told);
	if (r == 0)
		*ret_told = told;
	return r;
}

int lb_told_parse(const void *data, size_t size_bytes, struct lb_told *ret_told)
{
	_cleanup_(lb_told_wipe) struct lb_told told = {0};
	_cleanup_(object_wipe) json_t *object = NULL;
	uint64_t version = 0;
	int r;

	r = lb_json_parse(data, size_bytes, LB_TOLD_BYTES_MAX, &object);
	r = r < 0 ? r : lb_json_get_u64(object, "version", &version);
	if (r == 0 && version != VERSION)
		r = lb_fail(-EPROTONOSUPPORT, "it is of version %d, this program knows %d", (int)version, VERSION);
	r = r < 0 ? r : lb_json_get_text(object, "config_url", told.config_url, sizeof(told.config_url));
	r = r < 0 ? r : lb_json_get_text(object, "ca_fingerprint", told.ca_fingerprint, sizeof(told.ca_fingerprint));
	r = r < 0 ? r : lb_json_get_text(object, "secret", told.secret, sizeof(told.secret));
	if (r < 0)
		return lb_wrap(r, "what this double is told");
	r = check(&told);
	if (r == 0)
		*ret_told = told;
	return r;
}

int lb_told_read(struct lb_env *env, const char *path, struct lb_told *ret_told)
{
	_cleanup_(text_wipe) struct text text = {0};
	int r;

	r = lb_file_read(env, path, LB_TOLD_BYTES_MAX, (uint8_t **)&text.data, &text.size_bytes);
	return r < 0 ? r : lb_told_parse(text.data, text.size_bytes, ret_told);
}

int lb_told_write(struct lb_env *env, const char *path, const struct lb_told *told)
{
	_cleanup_(text_wipe) struct text text = {0};
	_cleanup_(object_wipe) json_t *object =
		json_pack("{s:i,s:s,s:s,s:s}", "version", VERSION, "config_url", told->config_url, "ca_fingerprint",
			  told->ca_fingerprint, "secret", told->secret);

	text.data = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
	if (text.data == NULL)
		return lb_fail(-ENOMEM, "out of memory for what a double is told");
	text.size_bytes = strlen(text.data);
	return lb_file_write_new(env, path, text.data, text.size_bytes, 0600);
}

int lb_told_digest(const char *secret, char ret_hex[LB_TOLD_HEX_BYTES])
{
	char text[sizeof("lifeboat double ") + LB_TOLD_HEX_BYTES];
	struct lb_digest digest;
	int r;

	snprintf(text, sizeof(text), "lifeboat double %.*s", LB_TOLD_HEX_BYTES - 1, secret);
	r = lb_sha256(text, strlen(text), &digest);
	lb_wipe(text, sizeof(text));
	if (r == 0)
		lb_hex_encode(digest.bytes, sizeof(digest.bytes), ret_hex);
	return r;
}
