/* SPDX-License-Identifier: Apache-2.0 */
#include "process/report.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "process/throttle.h"

#define RATE_OLD_PART 0.8 /* of a rate that is kept at each report: smooths over about ten seconds */
#define THROTTLED_NS (10 * LB_NS_PER_S)

/* With the machine's lock held, as all below. */
static const char *state_of(const struct lb_machine *m, int64_t mono_ns)
{
	/*
	 * "fenced" promises that nothing more is acknowledged, and that the backlog is all there is: a failover relies
	 * on it. What the cache holds isn't known before the journal is open.
	 */
	if (m->assigned.fenced)
		return m->ingesting || m->state == LB_MACHINE_OPENING ? "draining" : "fenced";
	/* likewise: a move to another process server relies on it */
	if (m->assigned.handover && m->state == LB_MACHINE_READY)
		return lb_machine_drained(m) ? "handed over" : "handing over";
	if (!m->assigned.enabled)
		return "disabled";
	switch (m->state) {
	case LB_MACHINE_OPENING:
		return "opening";
	case LB_MACHINE_FENCED:
		return "fenced";
	case LB_MACHINE_DIVERGED:
		return "diverged";
	case LB_MACHINE_READY:
		break;
	}
	if (m->error[0] != '\0')
		return "error";
	if (m->figures.throttled_mono_ns != 0 && mono_ns - m->figures.throttled_mono_ns < THROTTLED_NS)
		return "throttled";
	return m->durable.epoch == 0 ? "waiting" : "replicating";
}

static void advance_rate(struct lb_machine *m, int64_t mono_ns)
{
	struct lb_machine_figures *f = &m->figures;
	double rate;

	if (f->churn_mono_ns != 0 && mono_ns > f->churn_mono_ns) {
		rate = (double)f->churn_bytes * (double)LB_NS_PER_S / (double)(mono_ns - f->churn_mono_ns);
		f->churn_bytes_per_s = RATE_OLD_PART * f->churn_bytes_per_s + (1 - RATE_OLD_PART) * rate;
		f->churn_bytes = 0;
	}
	f->churn_mono_ns = mono_ns;
}

/* The newest order to flush of which all is in the vault; 0: none. */
static int64_t flushed_ns(const struct lb_machine *m)
{
	bool there = m->vault.epoch > m->flush_to.epoch ||
		     (m->vault.epoch == m->flush_to.epoch && m->vault.seq >= m->flush_to.seq);

	return there ? m->flush_ns : 0;
}

static int set_journal(const struct lb_machine *m, json_t *j)
{
	const struct lb_machine_figures *f = &m->figures;
	int64_t vault_ns = m->vault_point_ns;
	int r;

	/* of an idle machine the newest point is as good as its last heartbeat */
	if (vault_ns != 0 && m->beat_at.epoch == m->vault.epoch && m->beat_at.seq == m->vault.seq)
		vault_ns = LB_MAX(vault_ns, m->beat_vault_ns);
	r = lb_json_set_u64(j, "epoch", m->durable.epoch);
	if (r == 0)
		r = lb_json_set_u64(j, "seq", m->durable.last.epoch == m->durable.epoch ? m->durable.last.seq : 0);
	if (r == 0)
		r = lb_json_set_u64(j, "vault_epoch", m->vault.epoch);
	if (r == 0)
		r = lb_json_set_u64(j, "vault_seq", m->vault.seq);
	if (r == 0 && m->vault.epoch != 0)
		r = lb_json_set_digest(j, "vault_digest", &m->vault_digest);
	if (r == 0)
		r = lb_json_set_i64(j, "rpo_vault_ns", vault_ns);
	if (r == 0)
		r = lb_json_set_i64(j, "newest_point_ns", m->durable.point_ns);
	if (r == 0)
		r = lb_json_set_i64(j, "flushed_ns", flushed_ns(m));
	if (r == 0)
		r = lb_json_set_u64(j, "backlog_bytes", m->cached_bytes);
	if (r == 0)
		r = lb_json_set_u64(j, "plain_bytes", f->plain_bytes);
	if (r == 0)
		r = lb_json_set_u64(j, "sealed_bytes", f->sealed_bytes);
	if (r == 0)
		r = lb_json_set_u64(j, "churn_bytes_per_s", (uint64_t)f->churn_bytes_per_s);
	if (r == 0 &&
	    json_object_set_new(j, "ratio",
				json_real(f->sealed_bytes > 0 ? (double)f->plain_bytes / (double)f->sealed_bytes : 1)) <
		    0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	return r == 0 ? lb_json_set_i64(j, "last_seen_ns", f->last_seen_ns) : r;
}

static int set_folded(const struct lb_machine *m, json_t *j)
{
	const struct lb_machine_folded *f = &m->folded;
	json_t *folded = json_pack(
		"{s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f}", "taken_bytes", (json_int_t)m->figures.sealed_bytes, "points",
		(json_int_t)f->points, "points_pruned", (json_int_t)f->points_pruned, "rewritten_bytes",
		(json_int_t)f->rewritten_bytes, "deleted_bytes", (json_int_t)f->deleted_bytes, "deleted_objects",
		(json_int_t)f->deleted_objects, "write_ratio", f->write_ratio, "space_ratio", f->space_ratio);

	return json_object_set_new(j, "folded", folded) < 0 ? lb_fail(-ENOMEM, "out of memory for a report") : 0;
}

/* Figures that the agent tells and that stand beside ours. */
static int set_agent(const struct lb_machine *m, json_t *j)
{
	static const char *const figures[] = {"scan_done_bytes", "scan_total_bytes", "dirty_bytes"};
	const char *mode = json_string_value(json_object_get(m->agent, "mode"));
	uint64_t value;
	int r;

	r = lb_json_set_str(j, "mode", mode != NULL ? mode : "unknown");
	for (size_t i = 0; r == 0 && i < LB_ARRAY_LEN(figures); i++) {
		value = 0;
		if (m->agent != NULL)
			lb_json_get_u64(m->agent, figures[i], &value);
		r = lb_json_set_u64(j, figures[i], value);
	}
	/* a copy: the report is read without the machine's lock */
	if (r == 0 && json_object_set_new(j, "agent", m->agent != NULL ? json_deep_copy(m->agent) : json_null()) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	return r;
}

static int report_machine(struct lb_machine *m, int64_t mono_ns, json_t *j)
{
	const char *error;
	int r;
	LB_LOCK_SCOPE(&m->lock);

	if (m->assigned.fenced && m->state == LB_MACHINE_READY && lb_machine_drained(m))
		lb_fault_server_place("process server, %s: fenced, and all is in the vault, not told",
				      m->assigned.name);
	advance_rate(m, mono_ns);
	error = m->error[0] != '\0' ? m->error : m->damage;
	r = lb_json_set_uuid(j, "id", &m->id);
	if (r == 0)
		r = lb_json_set_str(j, "state", state_of(m, mono_ns));
	if (r == 0)
		r = set_journal(m, j);
	if (r == 0)
		r = set_folded(m, j);
	if (r == 0)
		r = set_agent(m, j);
	if (r == 0)
		r = lb_json_set_u64(j, "bandwidth_bytes_per_s", lb_throttle_limit(m));
	if (r == 0 && json_object_set_new(j, "error", *error != '\0' ? json_string(error) : json_null()) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a report");
	return r;
}

static int report_machines(struct lb_process *p, uint32_t *cursor, json_t *machines)
{
	int64_t mono_ns = lb_mono_ns(p->env);
	uint32_t i = *cursor;
	int r;
	LB_LOCK_SCOPE(&p->lock);

	for (; i < p->n_machines && json_array_size(machines) < LB_REPORT_MACHINES_MAX; i++) {
		json_t *j = json_object();

		if (j == NULL || json_array_append_new(machines, j) < 0)
			return lb_fail(-ENOMEM, "out of memory for a report");
		r = report_machine(p->machines[i], mono_ns, j);
		if (r < 0)
			return r;
		if (p->machines[i]->gone)
			json_array_remove(machines, json_array_size(machines) - 1);
	}
	*cursor = i;
	return 0;
}

int lb_report(struct lb_process *p, uint32_t *cursor, json_t **ret_report)
{
	_cleanup_json_ json_t *report = json_object();
	json_t *machines = json_array();
	uint32_t from = *cursor;
	int r;

	if (report == NULL || machines == NULL || json_object_set_new(report, "machines", machines) < 0)
		return lb_fail(-ENOMEM, "out of memory for a report");
	r = lb_json_set_uuid(report, "process_id", &p->id);
	if (r == 0)
		r = lb_json_set_u64(report, "cache_bytes", lb_process_cache_bytes(&p->cache));
	if (r == 0)
		r = lb_json_set_u64(report, "cache_bytes_max", p->cache.bytes_max);
	if (r == 0)
		r = report_machines(p, cursor, machines);
	if (r < 0)
		return r;
	*ret_report = from > 0 && json_array_size(machines) == 0 ? NULL : lb_steal_ptr(report);
	return 0;
}
