/* SPDX-License-Identifier: Apache-2.0 */
#include "process/beats.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"

struct beats {
	struct lb_heartbeat *beats;
	size_t n;
	bool news;
	uint32_t interval_s;
};

static void collect_one(struct lb_machine *m, struct beats *b)
{
	LB_LOCK_SCOPE(&m->lock);

	b->interval_s = LB_MIN(b->interval_s, m->assigned.policy.upload_interval_s);
	/* only where the vault ends is a heartbeat worth anything */
	if (m->beat_ns == 0 || m->beat_at.epoch != m->vault.epoch || m->beat_at.seq != m->vault.seq)
		return;
	b->news = b->news || m->beat_ns > m->beat_vault_ns;
	b->beats[b->n++] = (struct lb_heartbeat){.machine = m->id, .position = m->beat_at, .time_ns = m->beat_ns};
}

static int collect(struct lb_process *p, struct beats *b)
{
	bool any = false;
	LB_LOCK_SCOPE(&p->lock);

	b->interval_s = LB_POLICY_INTERVAL_S_MAX;
	b->beats = calloc(p->n_machines + 1, sizeof(b->beats[0]));
	if (b->beats == NULL)
		return lb_fail(-ENOMEM, "out of memory for heartbeats");
	for (uint32_t i = 0; i < p->n_machines; i++)
		if (!p->machines[i]->gone) {
			collect_one(p->machines[i], b);
			any = true;
		}
	if (!any)
		b->interval_s = LB_BEATS_INTERVAL_S_DEFAULT;
	return 0;
}

static void note_in_vault(struct lb_process *p, const struct lb_heartbeat *beat)
{
	_cleanup_machine_ struct lb_machine *m = NULL;

	if (lb_machine_find(p, &beat->machine, &m) < 0)
		return;
	LB_LOCK_SCOPE(&m->lock);
	m->beat_vault_ns = LB_MAX(m->beat_vault_ns, beat->time_ns);
}

int64_t lb_beats_run(struct lb_process *p)
{
	struct beats b = {.interval_s = LB_BEATS_INTERVAL_S_DEFAULT};
	_cleanup_free_ void *freed = NULL;
	int r;

	r = collect(p, &b);
	freed = b.beats;
	if (r == 0 && b.news)
		r = lb_heartbeat_put(p->vault, &p->id, b.beats, b.n);
	/* said once: it is tried again every second or so */
	if (r < 0 && !p->beats_failing)
		lb_warning("heartbeats of idle machines can't be put into the vault: %s", lb_err_text());
	if (r == 0 && b.news && p->beats_failing)
		lb_notice("the vault takes heartbeats of idle machines again");
	p->beats_failing = r < 0 || (p->beats_failing && !b.news);
	if (r == 0 && b.news)
		for (size_t i = 0; i < b.n; i++)
			note_in_vault(p, &b.beats[i]);
	return (int64_t)b.interval_s * LB_NS_PER_S;
}
