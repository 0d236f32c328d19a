/* SPDX-License-Identifier: Apache-2.0 */
/* Mending on a protected machine, by order to its agent: what a double of it would lack. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/live.h"
#include "config/mend.h"
#include "config/readiness.h"

#define LOOK_NS (500 * LB_NS_PER_MS)

/* ---- the order ------------------------------------------------------------------------------------------------------
 */

static int take_what(const json_t *list, struct lb_live_mend *mend)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *what = json_string_value(one);

		if (what != NULL && strcmp(what, "network") == 0)
			mend->network = true;
		else if (what != NULL && strcmp(what, "initramfs") == 0)
			mend->initramfs = true;
		else
			return lb_fail(-EINVAL, "\"what\" is a list of \"network\" and \"initramfs\"");
	}
	return 0;
}

/* What its agent found that can be mended. */
static int take_findings(struct lb_site *site, const struct lb_reg_machine *m, struct lb_live_mend *mend)
{
	_cleanup_json_ json_t *readiness = NULL;
	const json_t *f;
	size_t i;
	int r;

	r = lb_readiness_get(site, m->id, &readiness);
	if (r < 0)
		return r;
	json_array_foreach(json_object_get(readiness, "findings"), i, f)
	{
		const char *what = json_string_value(json_object_get(f, "mend"));

		if (what == NULL)
			continue;
		mend->network |= strcmp(what, "network") == 0;
		mend->initramfs |= strcmp(what, "initramfs") == 0 || strcmp(what, "sata") == 0;
	}
	if (!mend->network && !mend->initramfs)
		return lb_fail(
			-EINVAL,
			"nothing was found on %s that Lifeboat could mend; `lifeboat machine check %s` looks again",
			m->name, m->name);
	return 0;
}

int lb_api_machine_mend(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL, *request = NULL;
	struct lb_live_mend mend = {0};
	char job[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0 && m.fenced)
		r = lb_fail(-EINVAL, "%s is failed over: its agent is not listened to", m.name);
	if (r == 0)
		r = take_what(json_object_get(body, "what"), &mend);
	if (r == 0 && !mend.network && !mend.initramfs)
		r = take_findings(site, &m, &mend);
	if (r < 0)
		return r;
	request = json_pack("{s:b,s:b}", "network", mend.network, "initramfs", mend.initramfs);
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a job");
	r = lb_job_submit(site, "mend", m.id, request, call->peer.name, job);
	if (r < 0)
		return r;
	lb_event(site, "info", m.name, "mending on the machine ordered by %s:%s%s", call->peer.name,
		 mend.network ? " network" : "", mend.initramfs ? " initramfs" : "");
	reply->json = json_pack("{s:s,s:s,s:b,s:b}", "job", job, "machine", m.name, "network", mend.network,
				"initramfs", mend.initramfs);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- the job --------------------------------------------------------------------------------------------------------
 */

static int look(struct lb_job *job, uint64_t generation, json_t **ret_outcome)
{
	struct lb_live_machine live = {0};
	json_t *outcome;
	int r;

	*ret_outcome = NULL;
	r = lb_live_get(job->site->live, job->target, &live);
	if (r < 0)
		return r;
	outcome = json_object_get(live.agent, "mend");
	if (json_integer_value(json_object_get(outcome, "generation")) == (json_int_t)generation)
		*ret_outcome = json_incref(outcome);
	lb_live_machine_clear(&live);
	return 0;
}

static int wait_outcome(struct lb_job *job, uint64_t generation, json_t **ret_outcome)
{
	struct lb_env *env = job->site->env;
	const int64_t until_ns = lb_mono_ns(env) + LB_MEND_S * LB_NS_PER_S;
	int r;

	for (;;) {
		r = look(job, generation, ret_outcome);
		if (r < 0 || *ret_outcome != NULL)
			return r;
		if (lb_mono_ns(env) > until_ns)
			return lb_fail(
				-ETIMEDOUT,
				"its agent has not told within %d s what became of it; `lifeboat status` says how it "
				"is",
				LB_MEND_S);
		env->ops->wait_until(env, lb_mono_ns(env) + LOOK_NS, -1);
		r = lb_job_progress(job, 0);
		if (r < 0)
			return r;
	}
}

static int carry_out(struct lb_job *job, const struct lb_live_mend *mend)
{
	_cleanup_json_ json_t *outcome = NULL;
	const char *text;
	int r;

	r = lb_job_step(job, "mend on the machine");
	r = r < 0 ? r : wait_outcome(job, mend->generation, &outcome);
	if (r < 0)
		return r;
	text = json_string_value(json_object_get(outcome, "text"));
	if (!json_is_true(json_object_get(outcome, "ok")))
		return lb_fail(-EREMOTEIO, "%s", text != NULL ? text : "it could not be mended");
	r = lb_job_say(job, "%s", text != NULL ? text : "");
	return r < 0 ? r : lb_json_set_str(job->result, "text", text != NULL ? text : "");
}

/* Begun again after a kill it is ordered again: doing it twice changes nothing more. */
int lb_job_mend_run(struct lb_job *job)
{
	struct lb_live_mend mend = {.generation = (uint64_t)lb_now_ns(job->site->env),
				    .network = json_is_true(json_object_get(job->request, "network")),
				    .initramfs = json_is_true(json_object_get(job->request, "initramfs"))};
	int r;

	lb_live_mend_order(job->site->live, job->target, &mend);
	r = carry_out(job, &mend);
	lb_live_mend_order(job->site->live, job->target, &(struct lb_live_mend){0});
	if (r == 0)
		lb_live_check_order(job->site->live, job->target, lb_now_ns(job->site->env));
	return r;
}
