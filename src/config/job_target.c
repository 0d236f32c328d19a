/* SPDX-License-Identifier: Apache-2.0 */
/* Orders of target servers within jobs. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/targets.h"

#define POLL_NS (200 * LB_NS_PER_MS)
#define KEY_BYTES 160
#define SAY_BYTES 400

static double fraction(const json_t *report)
{
	double done = (double)json_integer_value(json_object_get(report, "done_bytes")),
	       total = (double)json_integer_value(json_object_get(report, "total_bytes"));

	return total > 0 ? done / total : 0;
}

/* Whose turn it is, in words; told when they change. */
static int tell(struct lb_job *job, const struct lb_targets_state *now, char said[SAY_BYTES])
{
	const char *text = json_string_value(json_object_get(now->report, "text"));
	int64_t silent_s = (lb_now_ns(job->site->env) - now->seen_ns) / LB_NS_PER_S;
	char say[SAY_BYTES];

	if (now->seen_ns == 0)
		snprintf(say, sizeof(say), "target server %s was never heard; it is waited for", now->server);
	else if (silent_s > LB_TARGETS_LOST_S)
		snprintf(say, sizeof(say), "target server %s does not answer; it is waited for, and goes on by itself",
			 now->server);
	else
		snprintf(say, sizeof(say), "%s: %.300s", now->server, text != NULL ? text : "the order is on its way");
	if (strcmp(say, said) == 0)
		return 0;
	memcpy(said, say, SAY_BYTES);
	return lb_job_say(job, "%s", say);
}

/* 1: it is over, well. */
static int look(struct lb_job *job, const char *id, char said[SAY_BYTES], json_t **ret_report)
{
	_cleanup_(lb_targets_state_clear) struct lb_targets_state now = {0};
	const char *text;
	int r;

	r = lb_targets_state(job->site, id, &now);
	if (r < 0)
		return r;
	if (strcmp(now.state, "done") == 0 || strcmp(now.state, "reached") == 0) {
		if (ret_report != NULL)
			*ret_report = json_incref(now.report);
		return 1;
	}
	text = json_string_value(json_object_get(now.report, "text"));
	if (strcmp(now.state, "failed") == 0)
		return lb_fail(-EREMOTEIO, "target server %s: %s", now.server, text != NULL ? text : "it failed");
	if (strcmp(now.state, "replaced") == 0)
		return lb_fail(-EREMOTEIO, "target server %s was given another order meanwhile", now.server);
	r = tell(job, &now, said);
	return r < 0 ? r : lb_job_progress(job, fraction(now.report));
}

static int put(struct lb_job *job, const struct lb_targets_order *order, char id[LB_UUID_TEXT_BYTES])
{
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "%s/%s/%s", job->id, order->kind, order->machine);
	return lb_targets_order(job->site, order, key, job->id, id);
}

int lb_targets_begin(struct lb_job *job, const struct lb_targets_order *order)
{
	char id[LB_UUID_TEXT_BYTES];

	return put(job, order, id);
}

int lb_targets_run(struct lb_job *job, const struct lb_targets_order *order, json_t **ret_report)
{
	struct lb_env *env = job->site->env;
	char id[LB_UUID_TEXT_BYTES], said[SAY_BYTES] = "";
	int r;

	r = put(job, order, id);
	while (r == 0 && (r = look(job, id, said, ret_report)) == 0)
		env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	if (r == -ECANCELED && lb_targets_withdraw(job->site, id) == 0)
		return lb_fail(r, "cancelled");
	return r < 0 ? r : 0;
}

/* An order by itself, as a person gives it. */
int lb_job_target_run(struct lb_job *job)
{
	struct lb_targets_order order = {.body = json_object_get(job->request, "body")};
	_cleanup_json_ json_t *report = NULL;
	char step[80];
	int r;

	r = lb_json_get_str(job->request, "server", &order.server);
	r = r < 0 ? r : lb_json_get_str(job->request, "machine", &order.machine);
	r = r < 0 ? r : lb_json_get_str(job->request, "kind", &order.kind);
	if (r < 0)
		return r;
	snprintf(step, sizeof(step), "%s, by the target server", order.kind);
	r = lb_job_step(job, step);
	r = r < 0 ? r : lb_targets_run(job, &order, &report);
	if (r < 0)
		return r;
	return json_object_update(job->result, report) < 0 ? lb_fail(-ENOMEM, "out of memory for a result") : 0;
}
