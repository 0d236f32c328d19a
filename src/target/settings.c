/* SPDX-License-Identifier: Apache-2.0 */
#include "target/settings.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/conf.h"
#include "base/err.h"

void lb_target_settings_free(struct lb_target_settings *s)
{
	free(s->config_url);
	free(s->identity_folder);
	free(s->state_folder);
	free(s->vault);
	free(s->allow);
	free(s->hook_folder);
	memset(s, 0, sizeof(*s));
}

static int complete(struct lb_target_settings *s, const char *path)
{
	size_t length;
	int r;

	if (s->config_url == NULL || strncmp(s->config_url, "https://", 8) != 0 || strlen(s->config_url) > 512)
		return lb_fail(
			-EINVAL,
			"%s: config_url is missing or does not begin with https://; write config_url = https://HOST",
			path);
	for (length = strlen(s->config_url); s->config_url[length - 1] == '/';)
		s->config_url[--length] = '\0';
	r = lb_conf_default(&s->identity_folder, "/var/lib/lifeboat/target/identity");
	if (r == 0)
		r = lb_conf_default(&s->state_folder, "/var/lib/lifeboat/target");
	if (r == 0)
		r = lb_conf_default(&s->hook_folder, "/etc/lifeboat/hooks");
	if (r == 0 && (s->identity_folder[0] != '/' || s->state_folder[0] != '/' || s->hook_folder[0] != '/'))
		r = lb_fail(-EINVAL, "%s: folders must be absolute paths", path);
	return r;
}

int lb_target_settings_read(struct lb_env *env, const char *path, struct lb_target_settings *ret_settings)
{
	_cleanup_(lb_target_settings_free) struct lb_target_settings s = {.machines_max = 4,
									  .undo_bytes_max = UINT64_MAX};
	const struct lb_conf_key keys[] = {
		{"config_url", LB_CONF_STR, &s.config_url},
		{"identity_folder", LB_CONF_STR, &s.identity_folder},
		{"state_folder", LB_CONF_STR, &s.state_folder},
		{"vault", LB_CONF_STR, &s.vault},
		{"allow", LB_CONF_STR, &s.allow},
		{"hook_folder", LB_CONF_STR, &s.hook_folder},
		{"machines_max", LB_CONF_U64, &s.machines_max, 1, LB_TARGET_MACHINES_MAX},
		{"undo_bytes_max", LB_CONF_SIZE, &s.undo_bytes_max, 0, INT64_MAX},
	};
	int r;

	r = lb_conf_read(env, path, keys, LB_ARRAY_LEN(keys));
	if (r == 0)
		r = complete(&s, path);
	if (r < 0)
		return r;
	*ret_settings = s;
	s = (struct lb_target_settings){0};
	return 0;
}

int lb_target_settings_allow(const struct lb_target_settings *s, const char *path)
{
	_cleanup_free_ char *copy = NULL, *real = NULL;
	char *rest, *pattern;

	if (s->allow == NULL)
		return 0;
	rest = copy = strdup(s->allow);
	if (copy == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	/* what a name leads to counts; of a file that is yet to be made, the name */
	real = realpath(path, NULL);
	while ((pattern = strsep(&rest, ",")) != NULL) {
		pattern += strspn(pattern, " \t");
		pattern[strcspn(pattern, " \t")] = '\0';
		if ((fnmatch(pattern, path, FNM_PATHNAME) == 0 && strstr(path, "/../") == NULL) ||
		    (real != NULL && fnmatch(pattern, real, FNM_PATHNAME) == 0))
			return 0;
	}
	return lb_fail(-EPERM,
		       "%s is not among the paths that this target server may write (allow = %s in its settings)", path,
		       s->allow);
}
