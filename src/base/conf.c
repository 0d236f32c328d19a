/* SPDX-License-Identifier: Apache-2.0 */
#include "base/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"
#include "base/text.h"

static char *trim(char *text)
{
	char *end;

	while (*text == ' ' || *text == '\t')
		text++;
	end = text + strlen(text);
	while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		end--;
	*end = '\0';
	return text;
}

static int set_number(const struct lb_conf_key *key, const char *text)
{
	uint64_t v;
	int r;

	r = key->type == LB_CONF_SIZE ? lb_size_parse(text, &v) : lb_u64_parse(text, UINT64_MAX, &v);
	if (r < 0)
		return r;
	if ((key->min != 0 || key->max != 0) && (v < key->min || v > key->max))
		return lb_fail(-ERANGE, "%s must be from %" PRIu64 " to %" PRIu64, key->name, key->min, key->max);
	*(uint64_t *)key->value = v;
	return 0;
}

static int set_value(const struct lb_conf_key *key, const char *text)
{
	char *copy;

	switch (key->type) {
	case LB_CONF_U64:
	case LB_CONF_SIZE:
		return set_number(key, text);
	case LB_CONF_BOOL:
		if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
			return lb_fail(-EINVAL, "%s must be yes or no, not \"%.40s\"", key->name, text);
		*(bool *)key->value = text[0] == 'y';
		return 0;
	case LB_CONF_STR:
		copy = strdup(text);
		if (copy == NULL)
			return lb_fail(-ENOMEM, "out of memory");
		free(*(char **)key->value);
		*(char **)key->value = copy;
		return 0;
	}
	return lb_fail(-EINVAL, "unknown type of setting");
}

static int read_line(char *line, const struct lb_conf_key *keys, size_t n_keys)
{
	char *equals, *name;

	line = trim(line);
	if (*line == '\0' || *line == '#')
		return 0;
	equals = strchr(line, '=');
	if (equals == NULL)
		return lb_fail(-EINVAL, "expected \"key = value\", got \"%.60s\"", line);
	*equals = '\0';
	name = trim(line);
	for (size_t i = 0; i < n_keys; i++)
		if (strcmp(keys[i].name, name) == 0)
			return set_value(&keys[i], trim(equals + 1));
	return lb_fail(-EINVAL, "unknown setting \"%.60s\"", name);
}

int lb_conf_read(struct lb_env *env, const char *path, const struct lb_conf_key *keys, size_t n_keys)
{
	_cleanup_free_ uint8_t *data = NULL;
	char *rest, *line;
	size_t size_bytes;
	unsigned int n = 0;
	int r;

	r = lb_file_read(env, path, LB_CONF_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return r;
	rest = (char *)data;
	while ((line = strsep(&rest, "\n")) != NULL) {
		n++;
		r = read_line(line, keys, n_keys);
		if (r < 0)
			return lb_wrap(r, "%s, line %u", path, n);
	}
	return 0;
}

int lb_conf_default(char **value, const char *text)
{
	if (*value != NULL)
		return 0;
	*value = strdup(text);
	return *value != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for the settings");
}
