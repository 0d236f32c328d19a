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
	json_array_foreach(json_object_get(reply, "jobs"), i, j)
	{
		printf("%-38s %-18s %-24s %-10s %s\n", cli_text(j, "id"), cli_text(j, "kind"), cli_text(j, "target"),
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
	if (c->json)
		return cli_print_json("job", json_incref(job));
	printf("Job %s (%s of %s) is done.\n", c->args[0], cli_text(job, "kind"), cli_text(job, "target"));
	return 0;
}

int cmd_job_cancel(struct cli *c)
{
	int r;

	if (c->dry_run) {
		printf("would cancel job %s\n", c->args[0]);
		return 0;
	}
	r = cli_callf(c, "POST", NULL, NULL, "/v1/job/%s/cancel", c->args[0]);
	if (r == 0 && !c->json)
		printf("Job %s stops at its next step.\n", c->args[0]);
	return r;
}
