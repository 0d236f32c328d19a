/* SPDX-License-Identifier: Apache-2.0 */
#include "process/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/conf.h"
#include "base/err.h"
#include "process/upload.h"

#define CACHE_BYTES_MIN LB_MIB(64)
#define MEMORY_BYTES_MIN LB_MIB(96) /* the largest segment must fit, plain and sealed */
#define MEMORY_BYTES_MAX LB_GIB(64)

void lb_settings_free(struct lb_settings *s)
{
	free(s->address);
	free(s->config_url);
	free(s->identity_folder);
	free(s->cache_folder);
	free(s->vault);
}

static int complete(struct lb_settings *s, const char *path)
{
	int r;

	if (s->config_url == NULL || strncmp(s->config_url, "https://", 8) != 0)
		return lb_fail(
			-EINVAL,
			"%s: config_url is missing or does not begin with https://; write config_url = https://HOST",
			path);
	r = lb_conf_default(&s->address, "0.0.0.0");
	if (r == 0)
		r = lb_conf_default(&s->identity_folder, "/var/lib/lifeboat/process");
	if (r == 0)
		r = lb_conf_default(&s->cache_folder, "/var/lib/lifeboat/process/cache");
	if (r == 0)
		r = lb_conf_default(&s->agent_package, LB_AGENT_PACKAGE_DEFAULT);
	return r;
}

int lb_settings_read(struct lb_env *env, const char *path, struct lb_settings *ret_settings)
{
	_cleanup_(lb_settings_free) struct lb_settings s = {
		.port = 9443, .cache_bytes_max = LB_GIB(16), .uploads_max = 4, .memory_bytes_max = LB_MIB(256)};
	const struct lb_conf_key keys[] = {
		{"address", LB_CONF_STR, &s.address},
		{"port", LB_CONF_U64, &s.port, 0, UINT16_MAX},
		{"config_url", LB_CONF_STR, &s.config_url},
		{"identity_folder", LB_CONF_STR, &s.identity_folder},
		{"cache_folder", LB_CONF_STR, &s.cache_folder},
		{"cache_bytes_max", LB_CONF_SIZE, &s.cache_bytes_max, CACHE_BYTES_MIN, INT64_MAX},
		{"vault", LB_CONF_STR, &s.vault},
		{"uploads_max", LB_CONF_U64, &s.uploads_max, 1, LB_UPLOAD_WORKERS_MAX},
		{"agent_package", LB_CONF_STR, &s.agent_package},
		{"memory_bytes_max", LB_CONF_SIZE, &s.memory_bytes_max, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX},
	};
	int r;

	r = lb_conf_read(env, path, keys, LB_ARRAY_LEN(keys));
	if (r == 0)
		r = complete(&s, path);
	if (r < 0)
		return r;
	*ret_settings = s;
	s = (struct lb_settings){0};
	return 0;
}
