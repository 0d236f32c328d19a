/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <stdio.h>

#include "base/json.h"

int cmd_job_list(struct cli *c)
{
	_cleanup_json_ json_t *reply = NULL;
	const json_t *j;
	size_t i;
	int r;

	r = cli_call(c, "GET", "/v1/job", NULL, &reply);
	if (r < 0)
		return r;
	if (c->json)
		return cli_print_json("jobs", json_incref(reply));
	if (json_array_size(json_object_get(reply, "jobs")) == 0) {
		printf("There are no jobs.\n");
		return 0;
	}
	printf("%-38s %-10s %-24s %-10s %s\n", "ID", "KIND", "TARGET", "STATE", "ERROR");
	json_array_foreach(json_object_get(reply, "jobs"), i, j)
	{
		printf("%-38s %-10s %-24s %-10s %s\n", cli_text(j, "id"), cli_text(j, "kind"), cli_text(j, "target"),
		       cli_text(j, "state"), cli_text(j, "error"));
	}
	return 0;
}

int cmd_job_watch(struct cli *c)
{
	_cleanup_json_ json_t *job = NULL;
	int r;

	r = cli_job_follow(c, c->args[0], &job);
	if (r < 0)
		return r;
	return cli_did(c, "job", json_incref(job), "Job %s (%s of %s) is done.", c->args[0], cli_text(job, "kind"),
		       cli_text(job, "target"));
}

int cmd_job_cancel(struct cli *c)
{
	_cleanup_json_ json_t *job = NULL;
	int r;

	if (c->dry_run) {
		r = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", c->args[0]);
		return r < 0 ? r
			     : cli_would(c, "cancel job %s (%s of %s, %s)", c->args[0], cli_text(job, "kind"),
					 cli_text(job, "target"), cli_text(job, "state"));
	}
	r = cli_callf(c, "POST", NULL, &job, "/v1/job/%s/cancel", c->args[0]);
	return r < 0 ? r : cli_did(c, "job", json_incref(job), "Job %s stops at its next step.", c->args[0]);
}
