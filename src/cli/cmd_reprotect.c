/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "base/json.h"
#include "cli/cli.h"

static void print_list(const char *machine, const json_t *findings)
{
	const json_t *one;
	size_t i;

	json_array_foreach(findings, i, one)
		printf("%s%s%-8s %-9s %s\n", machine, machine[0] != '\0' ? ": " : "", cli_text(one, "level"),
		       cli_text(one, "what"), cli_text(one, "text"));
}

/* Of one double, or of each machine of a plan. */
static void print_findings(const json_t *job)
{
	json_t *findings = json_object_get(json_object_get(job, "result"), "findings"), *list;
	const char *machine;

	print_list("", findings);
	json_object_foreach(findings, machine, list) print_list(machine, list);
}

int cli_follow_findings(struct cli *c, const char *id, json_t **ret_job)
{
	_cleanup_json_ json_t *job = NULL;
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r = cli_job_follow(c, id, NULL), asked;

	snprintf(text, sizeof(text), "%s", r < 0 ? lb_err_text() : "");
	asked = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", id);
	if (asked == 0 && !c->json)
		print_findings(job);
	if (r < 0)
		return lb_fail(r, "%s", text);
	if (asked == 0)
		*ret_job = lb_steal_ptr(job);
	return asked;
}

static int order(struct cli *c, const char *method, const json_t *body, const char *said)
{
	_cleanup_json_ json_t *reply = NULL, *job = NULL;
	const char *id;
	int r;

	r = cli_callf(c, method, body, &reply, "/v1/failover/%s/reprotect", c->args[0]);
	r = r < 0 ? r : lb_json_get_str(reply, "job", &id);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") == NULL)
		r = cli_follow_findings(c, id, &job);
	else
		r = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", id);
	return r < 0 ? r : cli_did(c, "job", json_incref(job), "%s %s.", c->args[0], said);
}

static int cancel(struct cli *c)
{
	if (c->dry_run)
		return cli_would(c, "take the way back of %s away", c->args[0]);
	return order(c, "DELETE", NULL, "does not replicate back any more");
}

int cmd_failover_reprotect(struct cli *c)
{
	_cleanup_json_ json_t *body = json_object();
	int r;

	if (cli_is_direct(c))
		return lb_fail(-EINVAL, "only a configuration server reprotects: a double made with --vault alone goes "
					"home by `lifeboat failback start`");
	if (cli_value(c, "cancel") != NULL)
		return cancel(c);
	r = body == NULL ? lb_fail(-ENOMEM, "out of memory") : 0;
	if (r == 0 && c->dry_run)
		r = lb_json_set_bool(body, "dry_run", true);
	if (r == 0 && cli_value(c, "target") != NULL)
		r = lb_json_set_str(body, "target", cli_value(c, "target"));
	r = r < 0 ? r : cli_target_disks(c, body);
	return r < 0 ? r
		     : order(c, "POST", body,
			     c->dry_run ? "could replicate back; nothing was begun"
					: "replicates back; `lifeboat failover list` shows how it is");
}
