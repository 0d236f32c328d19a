/* SPDX-License-Identifier: Apache-2.0 */
/* Points that are made on purpose, by order to the configuration server. */
#include <errno.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"

static int follow(struct cli *c, const json_t *reply, const char *what)
{
	_cleanup_json_ json_t *job = NULL;
	const json_t *result;
	int r;

	r = cli_order_follow(c, reply, &job);
	if (r != 0)
		return r < 0 ? r : 0; /* without waiting */
	result = json_object_get(job, "result");
	if (cli_value(c, "group") != NULL)
		return cli_did(c, "job", json_incref(job),
			       "Group %s has a new shared %s point, shared:%s, frozen for %.1f ms at most.",
			       cli_value(c, "group"), what, cli_text(result, "point"),
			       (double)cli_number(result, "frozen_ns") / (double)LB_NS_PER_MS);
	return cli_did(c, "job", json_incref(job),
		       "%s has a new %s recovery point, %" JSON_INTEGER_FORMAT ":%" JSON_INTEGER_FORMAT
		       ", frozen for %.1f ms.",
		       c->args[0], what, cli_number(result, "epoch"), cli_number(result, "seq"),
		       (double)cli_number(result, "frozen_ns") / (double)LB_NS_PER_MS);
}

static int create_of_group(struct cli *c, const char *group, const json_t *body, const char *kind)
{
	_cleanup_json_ json_t *reply = NULL;
	int r;

	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &reply, "/v1/group/%s", group);
		return r < 0 ? r : cli_would(c, "make a shared %s point of group %s", kind, group);
	}
	r = cli_callf(c, "POST", body, &reply, "/v1/group/%s/point", group);
	return r < 0 ? r : follow(c, reply, kind);
}

int cmd_point_create(struct cli *c)
{
	const bool app = cli_value(c, "app") != NULL;
	_cleanup_json_ json_t *body = json_pack("{s:b,s:s?}", "app", app, "name", cli_value(c, "name"));
	_cleanup_json_ json_t *reply = NULL;
	const char *group = cli_value(c, "group");
	int r;

	if ((group == NULL) == (c->n_args == 0))
		return lb_fail(-EINVAL, "name either a machine or, with --group, a replication group");
	if (group != NULL)
		return create_of_group(c, group, body, app ? "application-consistent" : "crash-consistent");
	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &reply, "/v1/machine/%s", c->args[0]);
		return r < 0 ? r
			     : cli_would(c, "make %s point of %s", app ? "an application-consistent" : "a", c->args[0]);
	}
	r = cli_callf(c, "POST", body, &reply, "/v1/machine/%s/point/create", c->args[0]);
	return r < 0 ? r : follow(c, reply, app ? "application-consistent" : "crash-consistent");
}
