/* SPDX-License-Identifier: Apache-2.0 */
#include "config/failover_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/registry.h"
#include "fabric/hook.h"
#include "fabric/network.h"
#include "vault/points.h"

#define DRAIN_LOOK_NS (1 * LB_NS_PER_S)
#define VALUE_BYTES 1400

static bool asks(const struct lb_job *job, const char *member)
{
	return json_is_true(json_object_get(job->request, member));
}

int lb_source_check_order(const json_t *body, const struct lb_failover_request *request)
{
	bool drained = json_is_true(json_object_get(body, "wait_drained"));

	if (json_is_true(json_object_get(body, "planned")))
		return lb_fail(-EACCES,
			       "a planned failover needs a hypervisor that shuts its machine down and replicates the "
			       "rest; a physical "
			       "server has none. `lifeboat failover start %s --shutdown-source --wait-drained` loses "
			       "nothing either",
			       request->machine);
	if (drained && request->kind != LB_FAILOVER_LIVE)
		return lb_fail(-EINVAL, "a test failover leaves its source alone: there is nothing to wait for");
	if (drained && request->point != NULL && strcmp(request->point, "latest") != 0)
		return lb_fail(-EINVAL, "to lose nothing the failover must be from the latest point, not from %.60s",
			       request->point);
	return 0;
}

/* ---- scripts ------------------------------------------------------------------------------------------------------
 */

static int keep_going(void *arg)
{
	return lb_job_check(arg);
}

/* 1: it ran and is content; 0: there is none. */
static int run_hook(struct lb_job *job, const struct lb_failover_report *p, const char *name)
{
	char texts[9][VALUE_BYTES], line[LB_PROC_LAST_LINE_BYTES] = "", id[LB_UUID_TEXT_BYTES];
	const char *values[10];
	const struct lb_hook hook = {.folder = job->site->settings.hook_folder,
				     .name = name,
				     .timeout_s = (uint32_t)job->site->settings.hook_timeout_s,
				     .values = values,
				     .idle = keep_going,
				     .arg = job};
	size_t used;
	int r;

	r = lb_hook_check(hook.folder, name);
	if (r == -ENOENT)
		return 0;
	lb_uuid_format(&p->machine, id);
	snprintf(texts[0], VALUE_BYTES, "LIFEBOAT_MACHINE=%s", p->machine_name);
	snprintf(texts[1], VALUE_BYTES, "LIFEBOAT_MACHINE_ID=%s", id);
	snprintf(texts[2], VALUE_BYTES, "LIFEBOAT_DOUBLE=%s", p->vm_name);
	snprintf(texts[3], VALUE_BYTES, "LIFEBOAT_POINT_NS=%" PRId64, p->point_time_ns);
	snprintf(texts[4], VALUE_BYTES, "LIFEBOAT_ADDRESS=%s", p->address);
	snprintf(texts[5], VALUE_BYTES, "LIFEBOAT_NETWORK=%s", p->network);
	used = (size_t)snprintf(texts[6], VALUE_BYTES, "LIFEBOAT_PORTS=");
	for (uint32_t i = 0; i < p->n_forwards && used < VALUE_BYTES; i++)
		used += (size_t)snprintf(texts[6] + used, VALUE_BYTES - used, "%s%u=%s:%u", i > 0 ? " " : "",
					 p->forwards[i].guest_port, p->forwards[i].address, p->forwards[i].host_port);
	snprintf(texts[7], VALUE_BYTES, "LIFEBOAT_MAC=%s", p->mac);
	snprintf(texts[8], VALUE_BYTES, "LIFEBOAT_KIND=%s", p->kind == LB_FAILOVER_LIVE ? "live" : "test");
	for (size_t i = 0; i < 9; i++)
		values[i] = texts[i];
	values[9] = NULL;
	r = r < 0 ? r : lb_hook_run(job->site->env, &hook, line);
	if (r < 0)
		return r;
	r = lb_job_say(job, "%s", line[0] != '\0' ? line : "done");
	return r < 0 ? r : 1;
}

/* A failure that the failover bears: in the step, in the events, in the result. */
static int bear(struct lb_job *job, const struct lb_failover_report *p, const char *name, int error)
{
	json_t *warnings = json_object_get(job->result, "warnings");
	char text[LB_ERR_TEXT_BYTES_MAX];
	int r;

	if (error >= 0)
		return error > 0 ? 0 : lb_job_say(job, "there is no script %s", name);
	if (error == -ECANCELED || error == -ESHUTDOWN)
		return error;
	snprintf(text, sizeof(text), "script %.64s: %.900s", name, lb_err_text());
	lb_event(job->site, "warning", p->machine_name, "%s", text);
	if (warnings == NULL) {
		warnings = json_array();
		if (json_object_set_new(job->result, "warnings", warnings) < 0)
			return lb_fail(-ENOMEM, "out of memory for a result");
	}
	if (json_array_append_new(warnings, json_string(text)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a result");
	r = lb_job_say(job, "failed, and the failover goes on: %s", text);
	return r < 0 ? r : lb_job_keep(job);
}

/* ---- the source's last writes ---------------------------------------------------------------------------------------
 */

/* Until the vault holds everything up to `since_ns`. */
static int wait_drained(struct lb_job *job, const struct lb_failover_report *p, int64_t since_ns)
{
	struct lb_env *env = job->site->env;
	int64_t end_ns = lb_mono_ns(env) + LB_DRAINED_WAIT_S * LB_NS_PER_S, held_ns = 0;
	char when[LB_TIME_TEXT_BYTES];
	json_int_t limit_s = json_integer_value(json_object_get(job->request, "drained_wait_s"));
	int r;

	if (limit_s > 0)
		end_ns = lb_mono_ns(env) + LB_MIN(limit_s, (json_int_t)LB_DRAINED_WAIT_S) * LB_NS_PER_S;
	for (;;) {
		struct lb_point point;

		r = lb_job_check(job);
		r = r < 0 ? r : lb_point_find(job->site->vault, &p->machine, "latest", &point);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0)
			held_ns = LB_MAX(point.time_ns, point.until_ns);
		if (held_ns >= since_ns)
			return lb_job_say(job, "the vault holds all that was written up to %s",
					  lb_time_format(held_ns, when));
		if (lb_mono_ns(env) >= end_ns)
			return lb_fail(-ETIMEDOUT,
				       "nothing was changed: the vault holds %s's writes up to %s, and not yet up to "
				       "when its workload "
				       "was stopped. Its agent must still run and reach its process server; without "
				       "--wait-drained the "
				       "failover takes what there is",
				       p->machine_name, lb_time_format(held_ns, when));
		env->ops->wait_until(env, lb_mono_ns(env) + DRAIN_LOOK_NS, -1);
	}
}

static int stop_source(struct lb_job *job, const struct lb_failover_report *p)
{
	int r;

	r = lb_job_step(job, "stop the source's workload");
	return r < 0 ? r : bear(job, p, "stop-source", run_hook(job, p, "stop-source"));
}

static int fence_source(struct lb_job *job, const struct lb_failover_report *p)
{
	int r;

	r = lb_job_step(job, "keep the source down");
	if (r < 0)
		return r;
	r = run_hook(job, p, "fence-source");
	if (r > 0 || !asks(job, "fence_required"))
		return bear(job, p, "fence-source", r);
	if (r == 0)
		return lb_fail(-ENOENT,
			       "nothing was changed: the source must be kept down, and %s has no script fence-source",
			       job->site->settings.hook_folder);
	return r == -ECANCELED || r == -ESHUTDOWN
		       ? r
		       : lb_wrap(r, "nothing was changed: the source can't be kept down: script fence-source");
}

int lb_source_is_fenced(struct lb_job *job, const struct lb_failover_report *p, bool *ret_fenced)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	char id[LB_UUID_TEXT_BYTES];
	int r;

	lb_uuid_format(&p->machine, id);
	r = lb_reg_machine_find(job->site->db, id, &m);
	if (r < 0 && r != -ENOENT)
		return r;
	lb_err_clear();
	*ret_fenced = r == 0 && m.fenced;
	return 0;
}

int lb_source_prepare(struct lb_job *job, const struct lb_failover_report *report)
{
	bool fenced = false;
	int r = 0;

	if (asks(job, "shutdown_source"))
		r = stop_source(job, report);
	if (r == 0 && asks(job, "wait_drained")) {
		r = lb_job_step(job, "wait until nothing would be lost");
		r = r < 0 ? r : lb_source_is_fenced(job, report, &fenced);
		if (r == 0 && fenced)
			r = lb_job_say(job, "it was fenced before: nothing more of it can come");
		else if (r == 0)
			r = wait_drained(job, report, lb_now_ns(job->site->env));
	}
	return r < 0 ? r : fence_source(job, report);
}

/* ---- the way back of the fence --------------------------------------------------------------------------- */

int lb_source_give_back(struct lb_job *job, const char *machine, bool new_hardware)
{
	struct lb_site *site = job->site;
	int r;

	r = lb_reg_machine_unfence(site->db, machine, LB_REVOKED_FAILED_OVER, new_hardware, lb_now_ns(site->env));
	if (r != -ENOENT)
		return r;
	lb_err_clear();
	return lb_job_say(job, "the machine is not enrolled here: it replicates when it is");
}

int lb_source_keep_down(struct lb_job *job, const struct lb_failover_report *report)
{
	int r = run_hook(job, report, "fence-source");

	if (r == 0)
		return lb_fail(-ENOENT, "%s has no script fence-source", job->site->settings.hook_folder);
	return r < 0 ? lb_wrap(r, "script fence-source") : 0;
}

int lb_source_release(struct lb_job *job, const struct lb_failover_report *report)
{
	int r = lb_job_step(job, "let the source work again");

	return r < 0 ? r : bear(job, report, "unfence-source", run_hook(job, report, "unfence-source"));
}

int lb_double_announce(struct lb_job *job, const struct lb_failover_report *report)
{
	int r;

	if (report->network[0] == '\0' || lb_network_segment(report->network) != NULL)
		return 0;
	r = lb_hook_check(job->site->settings.hook_folder, "double-network");
	if (r == -ENOENT) {
		lb_err_clear();
		return 0;
	}
	r = lb_job_step(job, "announce the double to its network");
	return r < 0 ? r : bear(job, report, "double-network", run_hook(job, report, "double-network"));
}

int lb_double_tell(struct lb_job *job, const struct lb_failover_report *report)
{
	int r;

	if (report->kind != LB_FAILOVER_LIVE)
		return 0;
	r = lb_job_step(job, "tell where the double is");
	return r < 0 ? r : bear(job, report, "double-up", run_hook(job, report, "double-up"));
}
