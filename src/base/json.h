/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* jansson with bounds and with errors that name the member. Getters leave ret_ untouched on failure (-EBADMSG). */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/text.h"

static inline void lb_json_decrefp(json_t **j)
{
	json_decref(*j);
}

#define _cleanup_json_ _cleanup_(lb_json_decrefp)

/* An object of at most `size_bytes_max` bytes of text; duplicate members are refused. */
int lb_json_parse(const void *text, size_t size_bytes, size_t size_bytes_max, json_t **ret_object);
/* Compact text, to be freed; members in the order in which they were set. */
int lb_json_dump(const json_t *object, char **ret_text);

/* The string stays the object's own. */
int lb_json_get_str(const json_t *object, const char *member, const char **ret_text);
/* A copy in `ret_text`, which has room for `size_bytes` with the final NUL; what doesn't fit is refused. */
int lb_json_get_text(const json_t *object, const char *member, char *ret_text, size_t size_bytes);
int lb_json_get_u32(const json_t *object, const char *member, uint32_t max, uint32_t *ret_value);
int lb_json_get_u64(const json_t *object, const char *member, uint64_t *ret_value);
int lb_json_get_i64(const json_t *object, const char *member, int64_t *ret_value);
int lb_json_get_bool(const json_t *object, const char *member, bool *ret_value);
int lb_json_get_uuid(const json_t *object, const char *member, struct lb_uuid *ret_uuid);
int lb_json_get_digest(const json_t *object, const char *member, struct lb_digest *ret_digest);

/* Overwrites the texts of members that are secrets, in place; `members` ends with NULL. A NULL object has none. */
void lb_json_wipe(json_t *object, const char *const *members);

/* Setters: 0 or -ENOMEM. Numbers past INT64_MAX are refused with -ERANGE. */
int lb_json_set_str(json_t *object, const char *member, const char *text);
int lb_json_set_u64(json_t *object, const char *member, uint64_t value);
int lb_json_set_i64(json_t *object, const char *member, int64_t value);
int lb_json_set_bool(json_t *object, const char *member, bool value);
int lb_json_set_uuid(json_t *object, const char *member, const struct lb_uuid *uuid);
int lb_json_set_digest(json_t *object, const char *member, const struct lb_digest *digest);
