/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/routes.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

static bool take_param(const char **path, char param[LB_HTTP_PARAM_BYTES])
{
	size_t length = strcspn(*path, "/");

	if (length == 0 || length >= LB_HTTP_PARAM_BYTES)
		return false;
	memcpy(param, *path, length);
	param[length] = '\0';
	*path += length;
	return true;
}

static bool matches(const char *pattern, const char *path, char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES])
{
	size_t n = 0;

	while (*pattern != '\0') {
		if (pattern[0] == '{' && pattern[1] == '}') {
			if (n == LB_HTTP_PARAMS_MAX || !take_param(&path, params[n++]))
				return false;
			pattern += 2;
		} else if (*pattern++ != *path++)
			return false;
	}
	return *path == '\0';
}

int lb_route_find(const struct lb_http_route *routes, size_t n_routes, const char *method, const char *path,
		  const struct lb_http_route **ret_route, char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES])
{
	bool path_known = false;

	for (size_t i = 0; i < n_routes; i++) {
		if (!matches(routes[i].pattern, path, params))
			continue;
		path_known = true;
		if (strcmp(routes[i].method, method) != 0)
			continue;
		*ret_route = &routes[i];
		return 0;
	}
	if (path_known)
		return lb_fail(-EOPNOTSUPP, "%.100s takes no %.16s", path, method);
	return lb_fail(-ENOENT, "there is no %.100s here", path);
}
