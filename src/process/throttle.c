/* SPDX-License-Identifier: Apache-2.0 */
#include "process/throttle.h"

#include "base/bytes.h"
#include "process/process.h"

#define SAVED_S 1 /* of the limit that may be saved up */

uint64_t lb_throttle_limit(const struct lb_machine *m)
{
	return m->assigned.fenced ? 0 : lb_policy_bandwidth(&m->assigned.policy, lb_now_ns(m->process->env));
}

static uint64_t limit_now(struct lb_machine *m)
{
	LB_LOCK_SCOPE(&m->lock);

	return lb_throttle_limit(m);
}

int64_t lb_throttle_wait(struct lb_machine *m)
{
	uint64_t limit = limit_now(m);
	int64_t now = lb_mono_ns(m->process->env);
	double rate = (double)limit, tokens, wait_s;

	if (limit == 0) {
		m->upload_tokens_bytes = 0;
		m->upload_tokens_mono_ns = now;
		return 0;
	}
	tokens = m->upload_tokens_bytes + rate * (double)(now - m->upload_tokens_mono_ns) / (double)LB_NS_PER_S;
	m->upload_tokens_bytes = LB_MIN(tokens, rate * SAVED_S);
	m->upload_tokens_mono_ns = now;
	if (m->upload_tokens_bytes >= 0)
		return 0;
	wait_s = LB_MIN(-m->upload_tokens_bytes / rate, (double)LB_THROTTLE_LOOK_S);
	return now + (int64_t)(wait_s * (double)LB_NS_PER_S) + 1;
}

void lb_throttle_spend(struct lb_machine *m, uint64_t bytes)
{
	if (limit_now(m) != 0)
		m->upload_tokens_bytes -= (double)bytes;
}
