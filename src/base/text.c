/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"

void lb_hex_encode(const void *data, size_t size_bytes, char *text)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *bytes = data;

	for (size_t i = 0; i < size_bytes; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	text[2 * size_bytes] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int lb_hex_decode(const char *text, size_t size_bytes, void *ret_data)
{
	uint8_t *bytes = ret_data;

	if (strlen(text) != 2 * size_bytes)
		return lb_fail(-EINVAL, "expected %zu hex digits, got %zu characters", 2 * size_bytes, strlen(text));
	for (size_t i = 0; i < 2 * size_bytes; i++)
		if (hex_digit(text[i]) < 0)
			return lb_fail(-EINVAL, "character %zu of \"%.80s\" is not a hex digit", i + 1, text);
	for (size_t i = 0; i < size_bytes; i++)
		bytes[i] =
			(uint8_t)((unsigned int)hex_digit(text[2 * i]) << 4 | (unsigned int)hex_digit(text[2 * i + 1]));
	return 0;
}

char *lb_base64_encode(const void *data, size_t size_bytes)
{
	char *text = malloc((size_bytes + 2) / 3 * 4 + 1);

	if (text == NULL)
		return NULL;
	EVP_EncodeBlock((unsigned char *)text, data, (int)size_bytes);
	return text;
}

int lb_base64_decode(const char *text, size_t size_bytes_max, uint8_t **ret_data, size_t *ret_size_bytes)
{
	size_t length = strlen(text), pad = 0;
	_cleanup_free_ uint8_t *data = NULL;
	int n;

	if (length % 4 != 0)
		return lb_fail(-EINVAL, "base64 text has a length of %zu, which is no multiple of 4", length);
	if (length / 4 * 3 > size_bytes_max + 2)
		return lb_fail(-EMSGSIZE, "base64 text of %zu characters exceeds %zu bytes", length, size_bytes_max);
	while (pad < 2 && pad < length && text[length - 1 - pad] == '=')
		pad++;
	data = malloc(length / 4 * 3 + 1);
	if (data == NULL)
		return lb_fail(-ENOMEM, "out of memory for %zu base64 characters", length);
	n = length > 0 ? EVP_DecodeBlock(data, (const unsigned char *)text, (int)length) : 0;
	if (n < 0 || (size_t)n < pad)
		return lb_fail(-EINVAL, "text is not base64");
	if ((size_t)n - pad > size_bytes_max)
		return lb_fail(-EMSGSIZE, "base64 text holds more than %zu bytes", size_bytes_max);
	*ret_size_bytes = (size_t)n - pad;
	*ret_data = lb_steal_ptr(data);
	return 0;
}

void lb_uuid_format(const struct lb_uuid *uuid, char text[LB_UUID_TEXT_BYTES])
{
	char hex[33];

	lb_hex_encode(uuid->bytes, sizeof(uuid->bytes), hex);
	snprintf(text, LB_UUID_TEXT_BYTES, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

int lb_uuid_parse(const char *text, struct lb_uuid *ret_uuid)
{
	struct lb_uuid uuid;
	char hex[33];
	size_t n = 0;

	if (strlen(text) != LB_UUID_TEXT_BYTES - 1)
		return lb_fail(-EINVAL, "\"%.80s\" is not a UUID", text);
	for (size_t i = 0; i < LB_UUID_TEXT_BYTES - 1; i++) {
		int dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash != (text[i] == '-'))
			return lb_fail(-EINVAL, "\"%.80s\" is not a UUID", text);
		if (!dash)
			hex[n++] = text[i];
	}
	hex[n] = '\0';
	if (lb_hex_decode(hex, sizeof(uuid.bytes), uuid.bytes) < 0)
		return lb_fail(-EINVAL, "\"%.80s\" is not a UUID", text);
	*ret_uuid = uuid;
	return 0;
}

int lb_uuid_equal(const struct lb_uuid *a, const struct lb_uuid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

const char *lb_size_format(uint64_t size_bytes, char text[LB_SIZE_TEXT_BYTES])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)size_bytes;
	size_t unit = 0;

	while (v >= 1024 && unit + 1 < LB_ARRAY_LEN(units)) {
		v /= 1024;
		unit++;
	}
	snprintf(text, LB_SIZE_TEXT_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", v, units[unit]);
	return text;
}

int lb_size_parse(const char *text, uint64_t *ret_size_bytes)
{
	unsigned long long v;
	unsigned int shift = 0;
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return lb_fail(-EINVAL, "\"%.40s\" is not a size; write it like 512, 64K, 8M, 2G or 1T", text);
	errno = 0;
	v = strtoull(text, &end, 10);
	switch (*end) {
	case 'K':
		shift = 10;
		break;
	case 'M':
		shift = 20;
		break;
	case 'G':
		shift = 30;
		break;
	case 'T':
		shift = 40;
		break;
	}
	if (shift > 0)
		end++;
	if (errno != 0 || *end != '\0' || v > UINT64_MAX >> shift)
		return lb_fail(-EINVAL, "\"%.40s\" is not a size; write it like 512, 64K, 8M, 2G or 1T", text);
	*ret_size_bytes = (uint64_t)v << shift;
	return 0;
}

const char *lb_time_format(int64_t time_ns, char text[LB_TIME_TEXT_BYTES])
{
	int64_t s = time_ns / LB_NS_PER_S, ns = time_ns % LB_NS_PER_S;
	struct tm tm;
	size_t length;
	time_t t;

	if (ns < 0) {
		ns += LB_NS_PER_S;
		s--;
	}
	t = (time_t)s;
	gmtime_r(&t, &tm);
	length = strftime(text, LB_TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + length, LB_TIME_TEXT_BYTES - length, ".%03uZ", (unsigned int)(ns / LB_NS_PER_MS) % 1000);
	return text;
}

int lb_time_parse(const char *text, int64_t *ret_time_ns)
{
	struct tm tm = {0};
	int64_t ns = 0, scale = LB_NS_PER_S / 10;
	const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (p != NULL && *p == '.')
		for (p++; *p >= '0' && *p <= '9' && scale > 0; p++, scale /= 10)
			ns += (*p - '0') * scale;
	if (p == NULL || *p != 'Z' || p[1] != '\0')
		return lb_fail(-EINVAL, "\"%.60s\" is not a time; write it in UTC like 2026-01-31T08:15:02Z", text);
	*ret_time_ns = (int64_t)timegm(&tm) * LB_NS_PER_S + ns;
	return 0;
}

int lb_u64_parse(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (*text == '\0')
		return lb_fail(-EINVAL, "expected a number, got nothing");
	for (const char *p = text; *p != '\0'; p++) {
		unsigned int digit = (unsigned int)(*p - '0');

		if (digit > 9)
			return lb_fail(-EINVAL, "\"%.40s\" is not a number", text);
		if (v > (UINT64_MAX - digit) / 10 || v * 10 + digit > max)
			return lb_fail(-ERANGE, "%.40s is above the limit of %" PRIu64, text, max);
		v = v * 10 + digit;
	}
	*ret_value = v;
	return 0;
}

int lb_name_check(const char *what, const char *name)
{
	size_t length = strlen(name);

	if (length < 1 || length > 64 || name[0] == '.')
		return lb_fail(-EINVAL, "%s name \"%.80s\" must have 1 to 64 characters and not start with a dot", what,
			       name);
	for (const char *p = name; *p != '\0'; p++)
		if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *p) == NULL)
			return lb_fail(-EINVAL,
				       "%s name \"%.80s\" may hold letters, digits, dots, dashes and underscores only",
				       what, name);
	return 0;
}
