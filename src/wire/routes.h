/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which route a request means. Pure. Inside src/wire, and for tests. */
#include "wire/server.h"

/*
 * Each {} of a pattern takes one non-empty path component of less than LB_HTTP_PARAM_BYTES. -ENOENT when no route has
 * the path; -EOPNOTSUPP when some have, but none with the method.
 */
int lb_route_find(const struct lb_http_route *routes, size_t n_routes, const char *method, const char *path,
		  const struct lb_http_route **ret_route, char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES]);
