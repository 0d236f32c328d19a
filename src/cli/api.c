/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "wire/client.h"

#define JOB_POLL_NS (300 * LB_NS_PER_MS)

bool cli_has_server(const struct cli *c)
{
	return c->server_url != NULL;
}

int cli_call(struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret_reply)
{
	const struct lb_http_client_options options = {.identity_folder = c->identity_folder};
	char url[1024];
	int r;

	if (c->server_url == NULL)
		return lb_fail(
			-EINVAL,
			"which configuration server? Give --server URL or set LIFEBOAT_CONFIG_URL; with every server "
			"gone, --vault URL works on the vault alone");
	if (c->client == NULL) {
		r = lb_http_client_new(&options, &c->client);
		if (r < 0)
			return lb_wrap(r, "identity %s", c->identity_folder);
	}
	if (snprintf(url, sizeof(url), "%s%s", c->server_url, path) >= (int)sizeof(url))
		return lb_fail(-EINVAL, "the server's address is too long");
	return lb_http_json(c->client, method, url, body, ret_reply);
}

int cli_callf(struct cli *c, const char *method, const json_t *body, json_t **ret_reply, const char *path_fmt, ...)
{
	char path[512];
	va_list ap;
	int n;

	va_start(ap, path_fmt);
	n = vsnprintf(path, sizeof(path), path_fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(path))
		return lb_fail(-EINVAL, "a name of that length can't be looked up");
	return cli_call(c, method, path, body, ret_reply);
}

static const char *running_step(const json_t *job)
{
	const json_t *step;
	const char *name = "waiting", *state;
	size_t i;

	json_array_foreach(json_object_get(job, "steps"), i, step)
	{
		if (lb_json_get_str(step, "state", &state) < 0 || strcmp(state, "running") != 0)
			continue;
		if (lb_json_get_str(step, "name", &name) < 0)
			name = "working";
	}
	return name;
}

/* Told once for each: what a plan waits for is nothing that time brings. */
static void tell_waiting(const struct cli *c, const json_t *job, char told[64])
{
	const json_t *result = json_object_get(job, "result"), *waiting = json_object_get(result, "waiting");
	const char *action = cli_text(waiting, "action");

	if (c->json || !json_is_object(waiting) || strcmp(told, action) == 0)
		return;
	snprintf(told, 64, "%s", action);
	cli_progress_end(c);
	fprintf(stderr, "It waits for a person: %s\n  lifeboat plan confirm %s --action %s\n",
		cli_text(waiting, "text"), cli_text(result, "plan"), action);
}

int cli_job_follow(struct cli *c, const char *job_id, json_t **ret_job)
{
	char told[64] = "";

	for (;;) {
		_cleanup_json_ json_t *job = NULL;
		const char *state, *error = "it says no more";
		int r;

		r = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", job_id);
		if (r == 0)
			r = lb_json_get_str(job, "state", &state);
		if (r != 0)
			return lb_wrap(r, "job %s", job_id);
		if (strcmp(state, "done") == 0) {
			cli_progress_end(c);
			if (ret_job != NULL)
				*ret_job = lb_steal_ptr(job);
			return 0;
		}
		if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0) {
			cli_progress_end(c);
			if (lb_json_get_str(job, "error", &error) < 0)
				error = "it says no more";
			return lb_fail(state[0] == 'c' ? -ECANCELED : -EIO, "job %s %s: %s", job_id, state, error);
		}
		tell_waiting(c, job, told);
		cli_progress(c, running_step(job),
			     (uint64_t)(json_number_value(json_object_get(job, "progress")) * 100), 100, false);
		c->env->ops->wait_until(c->env, lb_mono_ns(c->env) + JOB_POLL_NS, -1);
	}
}

int cli_order_follow(struct cli *c, const json_t *reply, json_t **ret_job)
{
	_cleanup_json_ json_t *job = NULL;
	const char *id;
	int r;

	r = lb_json_get_str(reply, "job", &id);
	if (r < 0)
		return r;
	if (cli_value(c, "no-wait") == NULL)
		return cli_job_follow(c, id, ret_job);
	r = cli_callf(c, "GET", NULL, &job, "/v1/job/%s", id);
	r = r < 0 ? r
		  : cli_did(c, "job", json_incref(job), "Job %s has begun; `lifeboat job watch %s` follows it.", id,
			    id);
	return r < 0 ? r : 1;
}
