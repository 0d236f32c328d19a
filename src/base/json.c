/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

int lb_json_parse(const void *text, size_t size_bytes, size_t size_bytes_max, json_t **ret_object)
{
	_cleanup_json_ json_t *object = NULL;
	json_error_t error;

	if (size_bytes > size_bytes_max)
		return lb_fail(-EMSGSIZE, "JSON of %zu bytes exceeds the limit of %zu", size_bytes, size_bytes_max);
	object = json_loadb(text, size_bytes, JSON_REJECT_DUPLICATES, &error);
	if (object == NULL)
		return lb_fail(-EBADMSG, "not valid JSON at line %d, column %d: %s", error.line, error.column,
			       error.text);
	if (!json_is_object(object))
		return lb_fail(-EBADMSG, "JSON is not an object");
	*ret_object = lb_steal_ptr(object);
	return 0;
}

int lb_json_dump(const json_t *object, char **ret_text)
{
	char *text = json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER);

	if (text == NULL)
		return lb_fail(-ENOMEM, "out of memory for JSON text");
	*ret_text = text;
	return 0;
}

int lb_json_get_str(const json_t *object, const char *member, const char **ret_text)
{
	const json_t *v = json_object_get(object, member);

	if (!json_is_string(v))
		return lb_fail(-EBADMSG, "\"%s\" is missing or not a string", member);
	*ret_text = json_string_value(v);
	return 0;
}

int lb_json_get_i64(const json_t *object, const char *member, int64_t *ret_value)
{
	const json_t *v = json_object_get(object, member);

	if (!json_is_integer(v))
		return lb_fail(-EBADMSG, "\"%s\" is missing or not a whole number", member);
	*ret_value = json_integer_value(v);
	return 0;
}

int lb_json_get_u64(const json_t *object, const char *member, uint64_t *ret_value)
{
	int64_t v;
	int r;

	r = lb_json_get_i64(object, member, &v);
	if (r < 0)
		return r;
	if (v < 0)
		return lb_fail(-EBADMSG, "\"%s\" is negative", member);
	*ret_value = (uint64_t)v;
	return 0;
}

int lb_json_get_u32(const json_t *object, const char *member, uint32_t max, uint32_t *ret_value)
{
	uint64_t v;
	int r;

	r = lb_json_get_u64(object, member, &v);
	if (r < 0)
		return r;
	if (v > max)
		return lb_fail(-EBADMSG, "\"%s\" is more than %u", member, max);
	*ret_value = (uint32_t)v;
	return 0;
}

int lb_json_get_text(const json_t *object, const char *member, char *ret_text, size_t size_bytes)
{
	const char *text;
	int r;

	r = lb_json_get_str(object, member, &text);
	if (r < 0)
		return r;
	if (strlen(text) >= size_bytes)
		return lb_fail(-EBADMSG, "\"%s\" is longer than %zu bytes", member, size_bytes - 1);
	memcpy(ret_text, text, strlen(text) + 1);
	return 0;
}

int lb_json_get_bool(const json_t *object, const char *member, bool *ret_value)
{
	const json_t *v = json_object_get(object, member);

	if (!json_is_boolean(v))
		return lb_fail(-EBADMSG, "\"%s\" is missing or neither true nor false", member);
	*ret_value = json_is_true(v);
	return 0;
}

int lb_json_get_uuid(const json_t *object, const char *member, struct lb_uuid *ret_uuid)
{
	const char *text;
	int r;

	r = lb_json_get_str(object, member, &text);
	if (r < 0)
		return r;
	if (lb_uuid_parse(text, ret_uuid) < 0)
		return lb_fail(-EBADMSG, "\"%s\" is not a UUID", member);
	return 0;
}

int lb_json_get_digest(const json_t *object, const char *member, struct lb_digest *ret_digest)
{
	const char *text;
	int r;

	r = lb_json_get_str(object, member, &text);
	if (r < 0)
		return r;
	if (lb_hex_decode(text, LB_DIGEST_BYTES, ret_digest->bytes) < 0)
		return lb_fail(-EBADMSG, "\"%s\" is not a SHA-256 digest", member);
	return 0;
}

static int set_new(json_t *object, const char *member, json_t *value)
{
	if (json_object_set_new(object, member, value) < 0)
		return lb_fail(-ENOMEM, "out of memory, or text that is not UTF-8, for JSON member \"%s\"", member);
	return 0;
}

int lb_json_set_str(json_t *object, const char *member, const char *text)
{
	return set_new(object, member, json_string(text));
}

int lb_json_set_u64(json_t *object, const char *member, uint64_t value)
{
	if (value > INT64_MAX)
		return lb_fail(-ERANGE, "JSON member \"%s\" is too large", member);
	return set_new(object, member, json_integer((json_int_t)value));
}

int lb_json_set_i64(json_t *object, const char *member, int64_t value)
{
	return set_new(object, member, json_integer(value));
}

int lb_json_set_bool(json_t *object, const char *member, bool value)
{
	return set_new(object, member, json_boolean(value));
}

int lb_json_set_uuid(json_t *object, const char *member, const struct lb_uuid *uuid)
{
	char text[LB_UUID_TEXT_BYTES];

	lb_uuid_format(uuid, text);
	return lb_json_set_str(object, member, text);
}

int lb_json_set_digest(json_t *object, const char *member, const struct lb_digest *digest)
{
	char text[2 * LB_DIGEST_BYTES + 1];

	lb_hex_encode(digest->bytes, LB_DIGEST_BYTES, text);
	return lb_json_set_str(object, member, text);
}

void lb_json_wipe(json_t *object, const char *const *members)
{
	for (; *members != NULL; members++) {
		const char *text = json_string_value(json_object_get(object, *members));

		if (text != NULL)
			lb_wipe((char *)text, strlen(text));
	}
}
