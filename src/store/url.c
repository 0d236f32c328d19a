/* SPDX-License-Identifier: Apache-2.0 */
#include "store/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

enum kind { TEXT, ENDPOINT, PROXY, PATH, STYLE, CHECKSUM, NUMBER };

static const struct parameter {
	const char *name;
	enum kind kind;
	size_t offset;
	uint64_t max;
} parameters[] = {
	{"endpoint", ENDPOINT, offsetof(struct lb_store_url, endpoint), 0},
	{"region", TEXT, offsetof(struct lb_store_url, region), 0},
	{"proxy", PROXY, offsetof(struct lb_store_url, proxy), 0},
	{"ca", PATH, offsetof(struct lb_store_url, ca), 0},
	{"credentials", PATH, offsetof(struct lb_store_url, credentials), 0},
	{"style", STYLE, offsetof(struct lb_store_url, host_style), 0},
	{"checksum", CHECKSUM, offsetof(struct lb_store_url, checksum_md5), 0},
	{"connections", NUMBER, offsetof(struct lb_store_url, connections), LB_STORE_CONNECTIONS_MAX},
	{"timeout", NUMBER, offsetof(struct lb_store_url, timeout_s), LB_STORE_TIMEOUT_S_MAX},
};

static const char *const secrets[] = {"sig",    "sas",      "se",          "sp",           "sv",
				      "sr",     "key",      "account_key", "access_key",   "secret_key",
				      "secret", "password", "token",       "session_token"};

void lb_store_url_clear(struct lb_store_url *u)
{
	free(u->place);
	free(u->endpoint);
	free(u->region);
	free(u->proxy);
	free(u->ca);
	free(u->credentials);
	*u = (struct lb_store_url){0};
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c)    ? c - '0'
	       : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
					    : -1;
}

/* In place. No control characters, whatever the encoding. */
static int decode(char *text)
{
	char *out = text;

	for (; *text != '\0'; text++) {
		if (*text == '%') {
			int high = hex_digit(text[1]), low = high < 0 ? -1 : hex_digit(text[2]);

			if (low < 0)
				return -EINVAL;
			*out = (char)(high << 4 | low);
			text += 2;
		} else {
			*out = *text;
		}
		if ((unsigned char)*out < ' ' || *out == 0x7f)
			return -EINVAL;
		out++;
	}
	*out = '\0';
	return 0;
}

static bool is_web_address(const char *value)
{
	const char *host = strncmp(value, "https://", 8) == 0  ? value + 8
			   : strncmp(value, "http://", 7) == 0 ? value + 7
							       : NULL;
	size_t n = host != NULL ? strcspn(host, "/") : 0;

	return n > 0 && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") >= n &&
	       strspn(host + n, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/") ==
		       strlen(host + n);
}

static int check_value(const struct parameter *p, char *value)
{
	switch (p->kind) {
	case TEXT:
		return value[0] != '\0' && strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(value) &&
				       strlen(value) < 60
			       ? 0
			       : lb_fail(-EINVAL, "\"%.60s\" is no %s", value, p->name);
	case ENDPOINT:
		for (size_t n = strlen(value); n > 0 && value[n - 1] == '/'; n--)
			value[n - 1] = '\0';
		return is_web_address(value) ? 0
					     : lb_fail(-EINVAL, "endpoint must be like https://host:port, without a "
								"query or a user's name");
	case PROXY:
		return is_web_address(value) ? 0
					     : lb_fail(-EINVAL, "proxy must be like http://host:port; its user and "
								"password belong into the credentials file");
	case PATH:
		return value[0] == '/' ? 0 : lb_fail(-EINVAL, "%s must be an absolute path", p->name);
	case STYLE:
		return strcmp(value, "host") == 0 || strcmp(value, "path") == 0
			       ? 0
			       : lb_fail(-EINVAL, "style must be host or path, not \"%.40s\"", value);
	case CHECKSUM:
		return strcmp(value, "md5") == 0 ? 0 : lb_fail(-EINVAL, "checksum must be md5, not \"%.40s\"", value);
	case NUMBER:
		break;
	}
	return 0;
}

static int set_value(struct lb_store_url *u, const struct parameter *p, char *value)
{
	void *member = (char *)u + p->offset;
	int r;

	if (p->kind == NUMBER) {
		r = lb_u64_parse(value, p->max, member);
		if (r < 0 || *(uint64_t *)member == 0)
			return lb_fail(-EINVAL, "%s must be a number from 1 to %llu", p->name,
				       (unsigned long long)p->max);
		return 0;
	}
	r = check_value(p, value);
	if (r < 0)
		return r;
	if (p->kind == STYLE) {
		*(bool *)member = strcmp(value, "host") == 0;
		return 0;
	}
	if (p->kind == CHECKSUM) {
		*(bool *)member = strcmp(value, "md5") == 0;
		return 0;
	}
	free(*(char **)member);
	*(char **)member = strdup(value);
	return *(char **)member != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a store's address");
}

static int take(struct lb_store_url *u, char *pair)
{
	char *value = strchr(pair, '=');

	for (size_t i = 0; value != NULL && i < LB_ARRAY_LEN(secrets); i++)
		if (strncmp(pair, secrets[i], (size_t)(value - pair)) == 0 && secrets[i][value - pair] == '\0')
			return lb_fail(-EINVAL,
				       "a store's address is shown and logged, so secrets (\"%s\") don't "
				       "belong in it: write them to a file and give credentials=/path/of/it",
				       secrets[i]);
	if (value == NULL)
		return lb_fail(-EINVAL, "the part after '?' must be name=value, joined by '&'");
	*value++ = '\0';
	for (size_t i = 0; i < LB_ARRAY_LEN(parameters); i++) {
		if (strcmp(pair, parameters[i].name) != 0)
			continue;
		if (decode(value) < 0)
			return lb_fail(-EINVAL, "the value of %s is not well percent-encoded", pair);
		return set_value(u, &parameters[i], value);
	}
	return lb_fail(
		-EINVAL,
		"unknown parameter \"%.40s\"; there are endpoint, region, proxy, ca, credentials, style, checksum, "
		"connections, timeout",
		pair);
}

int lb_store_url_parse(const char *scheme, const char *text, struct lb_store_url *ret_url)
{
	_cleanup_(lb_store_url_clear) struct lb_store_url u = {.connections = LB_STORE_CONNECTIONS_DEFAULT,
							       .timeout_s = LB_STORE_TIMEOUT_S_DEFAULT};
	_cleanup_free_ char *copy = NULL;
	char *rest, *pair;
	int r = 0;

	if (strnlen(text, LB_STORE_URL_BYTES_MAX) >= LB_STORE_URL_BYTES_MAX)
		return lb_fail(-EINVAL, "the address of a store may have at most %d characters",
			       LB_STORE_URL_BYTES_MAX);
	copy = strdup(text);
	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store's address");
	rest = copy;
	u.place = strdup(strsep(&rest, "?"));
	if (u.place == NULL)
		return lb_fail(-ENOMEM, "out of memory for a store's address");
	while (r == 0 && rest != NULL && (pair = strsep(&rest, "&")) != NULL)
		if (pair[0] != '\0')
			r = take(&u, pair);
	if (r < 0)
		return lb_wrap(r, "%s:%.200s", scheme, u.place);
	*ret_url = u;
	u = (struct lb_store_url){0};
	return 0;
}
