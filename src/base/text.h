/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Bytes as text and back: hex, base64, UUIDs, sizes, times. Results are bounded by the caller's buffers. */
#include <stddef.h>
#include <stdint.h>

#define LB_UUID_TEXT_BYTES 37 /* with its NUL */

struct lb_uuid {
	uint8_t bytes[16];
};

/* `text` takes 2 * size + 1 bytes. */
void lb_hex_encode(const void *data, size_t size_bytes, char *text);
/* Exactly 2 * size_bytes hex digits, else -EINVAL. */
int lb_hex_decode(const char *text, size_t size_bytes, void *ret_data);

/* Returns an allocated, NUL-terminated string, or NULL when memory is out. */
char *lb_base64_encode(const void *data, size_t size_bytes);
/* Strict base64; at most `size_bytes_max` decoded bytes (-EMSGSIZE past that). */
int lb_base64_decode(const char *text, size_t size_bytes_max, uint8_t **ret_data, size_t *ret_size_bytes);

void lb_uuid_format(const struct lb_uuid *uuid, char text[LB_UUID_TEXT_BYTES]);
int lb_uuid_parse(const char *text, struct lb_uuid *ret_uuid);
int lb_uuid_equal(const struct lb_uuid *a, const struct lb_uuid *b);

/* "4.2 GiB"; `text` takes LB_SIZE_TEXT_BYTES. */
#define LB_SIZE_TEXT_BYTES 24
const char *lb_size_format(uint64_t size_bytes, char text[LB_SIZE_TEXT_BYTES]);
/* "512", "64K", "8M", "2G", "1T" (powers of 1024). */
int lb_size_parse(const char *text, uint64_t *ret_size_bytes);

/* RFC 3339 UTC with milliseconds: "2026-01-31T08:15:02.250Z". */
#define LB_TIME_TEXT_BYTES 40
const char *lb_time_format(int64_t time_ns, char text[LB_TIME_TEXT_BYTES]);
/* The same, the fraction optional and up to 9 digits. */
int lb_time_parse(const char *text, int64_t *ret_time_ns);

/* A plain decimal number without sign or white space, at most `max`. */
int lb_u64_parse(const char *text, uint64_t max, uint64_t *ret_value);

/* A name that can be a path component and an object name: [A-Za-z0-9._-], 1..64 bytes, not starting with a dot. */
int lb_name_check(const char *what, const char *name);
