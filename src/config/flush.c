/* SPDX-License-Identifier: Apache-2.0 */
#include "config/flush.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/live.h"
#include "config/registry.h"

#define LOOK_NS (200 * LB_NS_PER_MS)

enum flush_state { FLUSH_WAITS, FLUSH_SILENT, FLUSH_STOPPED, FLUSH_DONE };

bool lb_flush_is_for(const char *point)
{
	return point == NULL || strcmp(point, "latest") == 0;
}

void lb_flush_order(struct lb_site *site, const char *machine)
{
	lb_live_flush_order(site->live, machine, lb_now_ns(site->env));
}

/* What the process server says of the order, if it has spoken since. */
static enum flush_state look(struct lb_site *site, const char *machine, int64_t order_ns, char state[32])
{
	struct lb_live_machine live = {0};
	enum flush_state is = FLUSH_SILENT;
	const char *text;

	if (lb_live_get(site->live, machine, &live) < 0) {
		lb_err_clear();
		return FLUSH_SILENT;
	}
	text = json_string_value(json_object_get(live.process, "state"));
	if (live.process_ns > order_ns && text != NULL) {
		snprintf(state, 32, "%s", text);
		is = FLUSH_WAITS;
		if (json_integer_value(json_object_get(live.process, "flushed_ns")) >= order_ns)
			is = FLUSH_DONE;
		else if (strcmp(text, "fenced") == 0 || strcmp(text, "diverged") == 0)
			is = FLUSH_STOPPED;
	}
	lb_live_machine_clear(&live);
	return is;
}

static int wait_flushed(struct lb_job *job, const char *machine, int64_t order_ns, int64_t limit_s)
{
	struct lb_env *env = job->site->env;
	int64_t begun_ns = lb_mono_ns(env), waited_ns;
	enum flush_state is;
	char state[32] = "";
	int r;

	for (;;) {
		is = look(job->site, machine, order_ns, state);
		waited_ns = lb_mono_ns(env) - begun_ns;
		if (is == FLUSH_DONE)
			return lb_job_say(job, "everything received is in the vault");
		if (is == FLUSH_STOPPED)
			return lb_job_say(job,
					  "its process server can bring no more into the vault (%s); it goes on with "
					  "what the vault has",
					  state);
		if (is == FLUSH_SILENT && waited_ns > LB_MIN(limit_s, (int64_t)LB_FLUSH_SILENT_S) * LB_NS_PER_S)
			return lb_job_say(job, "its process server does not answer; it goes on with what the vault "
					       "has");
		if (waited_ns > limit_s * LB_NS_PER_S)
			return lb_job_say(job,
					  "its process server did not bring everything into the vault within %" PRId64
					  " s; it goes on with what the vault has",
					  limit_s);
		r = lb_job_progress(job, 0);
		if (r < 0)
			return r;
		env->ops->wait_until(env, lb_mono_ns(env) + LOOK_NS, -1);
	}
}

int lb_flush(struct lb_job *job, const char *machine, int64_t limit_s)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int64_t order_ns;
	int r;

	r = lb_reg_machine_find(job->site->db, machine, &m);
	if (r == -ENOENT || (r == 0 && (!m.enabled || m.fenced))) {
		lb_err_clear();
		return 0;
	}
	r = r < 0 ? r : lb_job_step(job, "bring what was received into the vault");
	if (r < 0)
		return r;
	order_ns = lb_now_ns(job->site->env);
	lb_live_flush_order(job->site->live, m.id, order_ns);
	return wait_flushed(job, m.id, order_ns, LB_MIN(limit_s, (int64_t)LB_FLUSH_S));
}
