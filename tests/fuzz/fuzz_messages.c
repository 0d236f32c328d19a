/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON that servers take from one another and from operators. The first byte says what it is taken for: a policy as an
 * operator or a peer writes it, an assignment, disks, a route's path. A policy that is taken prints and is taken again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "process/assign.h"
#include "process/record.h"
#include "wire/policy.h"
#include "wire/routes.h"

#define BYTES_MAX (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void try_policy(const json_t *object, bool strict)
{
	_cleanup_json_ json_t *again = NULL;
	struct lb_policy policy, second;

	if (lb_policy_parse(object, strict, &policy) < 0 || lb_policy_check(&policy) < 0)
		return;
	if (lb_policy_print(&policy, &again) < 0 || lb_policy_parse(again, true, &second) < 0)
		abort();
}

static void try_route(const char *path)
{
	static const struct lb_http_route routes[] = {
		{.method = "GET", .pattern = "/v1/machines/{}"},
		{.method = "PUT", .pattern = "/v1/machines/{}/epochs/{}/segments/{}"},
		{.method = "POST", .pattern = "/v1/process/{}"},
	};
	char params[LB_HTTP_PARAMS_MAX][LB_HTTP_PARAM_BYTES];
	const struct lb_http_route *route;

	if (lb_route_find(routes, 3, "PUT", path, &route, params) == 0)
		for (int i = 0; i < 3; i++)
			if (params[i][0] == '\0' || memchr(params[i], 0, LB_HTTP_PARAM_BYTES) == NULL)
				abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	_cleanup_json_ json_t *object = NULL;
	struct lb_assignment assignment;
	struct lb_process_disks disks;

	if (size_bytes < 2)
		return 0;
	if (data[0] % 8 == 7) {
		_cleanup_free_ char *path = strndup((const char *)data + 1, size_bytes - 1);

		if (path != NULL)
			try_route(path);
		return 0;
	}
	if (lb_json_parse(data + 1, size_bytes - 1, BYTES_MAX, &object) < 0)
		return 0;
	switch (data[0] % 4) {
	case 0:
		try_policy(object, true);
		break;
	case 1:
		try_policy(object, false);
		break;
	case 2:
		(void)lb_assignment_parse(object, &assignment);
		break;
	default:
		(void)lb_disks_parse(json_object_get(object, "disks"), &disks);
		break;
	}
	lb_err_clear();
	return 0;
}
