/* SPDX-License-Identifier: Apache-2.0 */
#include "config/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/drills.h"
#include "config/readiness.h"
#include "config/reprotect.h"

enum health { HEALTH_OK, HEALTH_WARNING, HEALTH_CRITICAL };
static const char *const health_names[] = {"ok", "warning", "critical"};

#define REASONS_MAX 16

/* What is being found out about one machine. */
struct view {
	struct lb_site *site;
	const struct lb_reg_machine *m;
	struct lb_policy policy;
	struct lb_live_machine live;
	int64_t now_ns;
	const char *mode;  /* the agent's word on itself, or "" */
	const char *state; /* ours */
	const char *error; /* the agent's or process server's, or NULL */
	enum health health;
	json_t *reasons;
	int64_t point_ns; /* 0: none */
	uint64_t done_bytes, total_bytes;
};

static void view_clear(struct view *v)
{
	lb_live_machine_clear(&v->live);
	json_decref(v->reasons);
}

static void reason(struct view *v, enum health health, const char *cure, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static void reason(struct view *v, enum health health, const char *cure, const char *fmt, ...)
{
	char text[512];
	json_t *one;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	v->health = LB_MAX(v->health, health);
	if (json_array_size(v->reasons) >= REASONS_MAX)
		return;
	one = json_pack("{s:s,s:s}", "text", text, "cure", cure);
	if (one != NULL)
		json_array_append_new(v->reasons, one);
}

static const char *text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL ? text : "";
}

static uint64_t number_of(const json_t *object, const char *member)
{
	json_int_t n = json_integer_value(json_object_get(object, member));

	return n > 0 ? (uint64_t)n : 0;
}

/* The newest point, from the vault itself; what a process server says can only make it newer. */
static int look_into_vault(struct view *v)
{
	struct lb_live_point *p = &v->live.point;
	struct lb_uuid id;
	int r;

	if (p->known && v->now_ns - p->asked_ns < LB_STATUS_VAULT_S * LB_NS_PER_S)
		return 0;
	r = lb_uuid_parse(v->m->id, &id);
	if (r < 0)
		return r;
	memset(p, 0, sizeof(*p));
	r = lb_point_find(v->site->vault, &id, "latest", &p->point);
	p->known = true;
	p->there = r == 0;
	p->asked_ns = v->now_ns;
	if (r < 0 && r != -ENOENT)
		snprintf(p->error, sizeof(p->error), "%s", lb_err_text());
	lb_live_point_put(v->site->live, v->m->id, p);
	return 0;
}

static bool heard(const struct view *v, int64_t ns)
{
	return ns > 0 && v->now_ns - ns < LB_STATUS_SILENT_S * LB_NS_PER_S;
}

static void find_point(struct view *v)
{
	const struct lb_live_point *p = &v->live.point;
	int64_t told_ns = (int64_t)number_of(v->live.process, "rpo_vault_ns");

	if (!p->there)
		return;
	v->point_ns = LB_MAX(p->point.time_ns, p->point.until_ns);
	if (heard(v, v->live.process_ns))
		v->point_ns = LB_MAX(v->point_ns, told_ns);
	v->point_ns = LB_MIN(v->point_ns, v->now_ns);
}

static void find_mode(struct view *v)
{
	const json_t *beat = json_object_get(v->live.process, "agent");
	bool agent = heard(v, v->live.agent_ns), process = heard(v, v->live.process_ns);

	v->mode = "";
	if (process && (text_of(beat, "mode")[0] != '\0' || text_of(v->live.process, "mode")[0] != '\0'))
		v->mode = text_of(beat, "mode")[0] != '\0' ? text_of(beat, "mode") : text_of(v->live.process, "mode");
	/* the agent speaks to us also when it can't reach the process server */
	if (agent && (v->live.agent_ns >= v->live.process_ns || v->mode[0] == '\0' ||
		      strcmp(text_of(v->live.agent, "state"), "refused") == 0))
		v->mode = text_of(v->live.agent, "state");
	if (process && text_of(v->live.process, "error")[0] != '\0')
		v->error = text_of(v->live.process, "error");
	if (agent && text_of(v->live.agent, "error")[0] != '\0')
		v->error = text_of(v->live.agent, "error");
	v->done_bytes = number_of(v->live.process, "scan_done_bytes");
	v->total_bytes = number_of(v->live.process, "scan_total_bytes");
	if (v->total_bytes == 0 && beat != NULL) {
		v->done_bytes = number_of(beat, "scan_done_bytes");
		v->total_bytes = number_of(beat, "scan_total_bytes");
	}
}

static bool mode_is(const struct view *v, const char *mode)
{
	return strcasecmp(v->mode, mode) == 0;
}

static void find_state(struct view *v)
{
	if (v->m->fenced)
		v->state = "failed over";
	else if (!v->m->enabled)
		v->state = "not protected";
	else if (mode_is(v, "refused"))
		v->state = "refused";
	else if (!heard(v, v->live.agent_ns) && !heard(v, v->live.process_ns))
		v->state = v->live.agent_ns == 0 && v->m->seen_ns == 0 ? "waiting" : "silent";
	else if (mode_is(v, "protected"))
		v->state = v->point_ns > 0 ? "protected" : "replicating";
	else if (v->point_ns > 0 && v->mode[0] != '\0')
		v->state = "resyncing";
	else
		v->state = v->mode[0] != '\0' ? "replicating" : "waiting";
}

static const char *age_text(int64_t age_ns, char text[32])
{
	int64_t s = age_ns / LB_NS_PER_S;

	if (s < 120)
		snprintf(text, 32, "%" PRId64 " s", s);
	else if (s < 7200)
		snprintf(text, 32, "%" PRId64 " min", s / 60);
	else
		snprintf(text, 32, "%" PRId64 " h", s / 3600);
	return text;
}

static void judge_silence(struct view *v)
{
	char age[32], cure[160];
	int64_t last_ns = LB_MAX(LB_MAX(v->live.agent_ns, v->live.process_ns), v->m->seen_ns);

	snprintf(cure, sizeof(cure), "on %s: systemctl restart lifeboat-mobility; journalctl -u lifeboat-mobility",
		 v->m->name);
	if (strcmp(v->state, "silent") == 0)
		reason(v, HEALTH_WARNING, cure, "its agent has been silent for %s", age_text(v->now_ns - last_ns, age));
	else if (strcmp(v->state, "waiting") == 0)
		reason(v, HEALTH_WARNING, cure, "its agent has not begun yet");
}

static void judge_rpo(struct view *v)
{
	char age[32], threshold[32], cure[160];
	int64_t rpo_ns = v->now_ns - v->point_ns;

	if (v->point_ns == 0 && strcmp(v->state, "replicating") == 0) {
		snprintf(cure, sizeof(cure), "wait; lifeboat machine protect %s follows it", v->m->name);
		reason(v, HEALTH_WARNING, cure, "initial replication is not complete: there is no recovery point yet");
	} else if (v->point_ns == 0) {
		snprintf(cure, sizeof(cure), "lifeboat machine resync %s", v->m->name);
		reason(v, HEALTH_CRITICAL, cure, "there is no recovery point in the vault");
	} else if (rpo_ns > (int64_t)v->policy.rpo_threshold_s * LB_NS_PER_S) {
		snprintf(cure, sizeof(cure), "lifeboat server list; on %s: journalctl -u lifeboat-mobility",
			 v->m->name);
		reason(v, HEALTH_CRITICAL, cure, "its newest recovery point is %s old, the policy allows %s",
		       age_text(rpo_ns, age), age_text((int64_t)v->policy.rpo_threshold_s * LB_NS_PER_S, threshold));
	}
}

/* Healthy, and still worth knowing: what was never tried may not work. */
static void judge_proof(struct view *v)
{
	char cure[160], text[256], age[32];
	int64_t failed_ns;

	if (lb_drill_last_failed(v->site->db, v->m->id, v->m->proven_ns, text, &failed_ns) == 0) {
		snprintf(cure, sizeof(cure), "lifeboat drill list %s", v->m->name);
		reason(v, HEALTH_WARNING, cure, "its last drill, %s ago, failed: %s",
		       age_text(v->now_ns - failed_ns, age), text);
	}
	if (v->m->proven_warning[0] != '\0') {
		snprintf(cure, sizeof(cure), "lifeboat machine check %s", v->m->name);
		reason(v, HEALTH_OK, cure, "the double that proved it last: %s", v->m->proven_warning);
	}
	if (v->point_ns == 0 || v->m->proven_ns > 0)
		return;
	snprintf(cure, sizeof(cure), "lifeboat drill start %s", v->m->name);
	reason(v, HEALTH_OK, cure, "no drill has proven it yet");
}

static void judge_findings(struct view *v)
{
	const json_t *findings = json_object_get(v->live.agent, "findings"), *one;
	size_t i;

	json_array_foreach(findings, i, one)
	{
		const char *level = text_of(one, "level");

		if (strcmp(level, "warning") == 0 || strcmp(level, "error") == 0)
			reason(v, strcmp(level, "error") == 0 ? HEALTH_CRITICAL : HEALTH_WARNING, text_of(one, "cure"),
			       "%s", text_of(one, "text"));
	}
}

/* Recoverable, but what is recovered would not come up. */
static void judge_readiness(struct view *v)
{
	_cleanup_json_ json_t *readiness = NULL;
	const json_t *one;
	size_t i;

	if (lb_readiness_get(v->site, v->m->id, &readiness) < 0)
		return;
	json_array_foreach(json_object_get(readiness, "findings"), i, one)
	{
		if (strcmp(text_of(one, "level"), "error") == 0)
			reason(v, HEALTH_WARNING, text_of(one, "cure"), "at a failover %s: %s", text_of(one, "effect"),
			       text_of(one, "text"));
	}
}

static void judge_process(struct view *v)
{
	char cure[160];

	if (v->live.process_ns == 0 || heard(v, v->live.process_ns))
		return;
	snprintf(cure, sizeof(cure),
		 "on the process server: systemctl restart lifeboat-process; journalctl -u lifeboat-process");
	reason(v, HEALTH_WARNING, cure, "its process server has been silent: nothing new reaches the vault");
}

/* It is failed over, or it is the double itself on its way home. */
static void judge_fenced(struct view *v)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	char cure[160];

	if (lb_reprotect_of(v->site->db, v->m->id, &p) < 0) {
		lb_err_clear();
		reason(v, HEALTH_WARNING, "lifeboat failover list", "it is failed over: it is no longer replicated");
		return;
	}
	if (lb_reprotect_goes_home(&p))
		snprintf(cure, sizeof(cure), "when it runs at home: lifeboat failback commit %s", p.double_name);
	else
		snprintf(cure, sizeof(cure), "lifeboat failover list; to go home: lifeboat failback start %s",
			 p.double_name);
	if (strcmp(p.back, v->m->id) == 0)
		reason(v, HEALTH_WARNING, cure, "it was %s, the double of %s, which goes home", p.double_name, p.name);
	else
		reason(v, HEALTH_WARNING, cure, "it is failed over; its double %s replicates back as %s", p.double_name,
		       p.back_name);
}

static void judge(struct view *v)
{
	char cure[160];

	if (v->live.point.error[0] != '\0')
		reason(v, HEALTH_CRITICAL, "lifeboat vault verify", "the vault can't be read: %s", v->live.point.error);
	if (v->m->fenced) {
		judge_fenced(v);
		return;
	}
	if (!v->m->enabled) {
		snprintf(cure, sizeof(cure), "lifeboat machine protect %s", v->m->name);
		reason(v, HEALTH_WARNING, cure, "it is not protected");
		return;
	}
	snprintf(cure, sizeof(cure), "on %s: journalctl -u lifeboat-mobility", v->m->name);
	if (v->error != NULL)
		reason(v, strcmp(v->state, "refused") == 0 ? HEALTH_CRITICAL : HEALTH_WARNING, cure, "%s", v->error);
	if (strcmp(v->state, "resyncing") == 0)
		reason(v, HEALTH_WARNING, "wait: earlier points stay good",
		       "it is catching up with what was missed; points wait until it is done");
	judge_silence(v);
	judge_process(v);
	judge_rpo(v);
	judge_findings(v);
	judge_readiness(v);
	judge_proof(v);
}

static int look(struct lb_site *site, const struct lb_reg_machine *m, struct view *v)
{
	int r;

	memset(v, 0, sizeof(*v));
	v->site = site;
	v->m = m;
	v->now_ns = lb_now_ns(site->env);
	v->reasons = json_array();
	if (v->reasons == NULL)
		return lb_fail(-ENOMEM, "out of memory for a status");
	if (lb_reg_policy_get(site->db, m->policy, &v->policy) < 0)
		v->policy = lb_policy_default;
	r = lb_live_get(site->live, m->id, &v->live);
	if (r == 0)
		r = look_into_vault(v);
	if (r < 0)
		return r;
	find_point(v);
	find_mode(v);
	find_state(v);
	judge(v);
	return 0;
}

static json_t *time_or_null(int64_t ns)
{
	return ns > 0 ? json_integer(ns) : json_null();
}

static json_t *active_disks(const struct lb_reg_machine *m)
{
	json_t *disks = json_array(), *one;
	size_t i;

	json_array_foreach(m->disks, i, one)
	{
		if (!json_is_true(json_object_get(one, "retired")))
			json_array_append(disks, one);
	}
	return disks;
}

static json_t *progress_of(const struct view *v)
{
	if (v->total_bytes == 0 || (strcmp(v->state, "replicating") != 0 && strcmp(v->state, "resyncing") != 0))
		return json_null();
	return json_pack("{s:I,s:I}", "done_bytes", (json_int_t)v->done_bytes, "total_bytes",
			 (json_int_t)v->total_bytes);
}

/* Whose double it is, and as what its double replicates back; null where that is not so. */
static int add_way_back(const struct view *v, json_t *object)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	int r = lb_reprotect_of(v->site->db, v->m->id, &p);
	bool is_back = r == 0 && strcmp(p.back, v->m->id) == 0;

	if (r < 0 && r != -ENOENT)
		return r;
	lb_err_clear();
	return json_object_set_new(object, "double_of", is_back ? json_string(p.name) : json_null()) < 0 ||
			       json_object_set_new(object, "replicates_back_as",
						   r == 0 && !is_back ? json_string(p.back_name) : json_null()) < 0
		       ? lb_fail(-ENOMEM, "out of memory for a status")
		       : 0;
}

static json_t *view_json(const struct view *v)
{
	const struct lb_reg_machine *m = v->m;
	int64_t seen_ns = LB_MAX(LB_MAX(v->live.agent_ns, v->live.process_ns), m->seen_ns);
	json_t *j = json_pack(
		"{s:s,s:s,s:s,s:b,s:o,s:o,s:s,s:o,s:o,s:O}", "id", m->id, "name", m->name, "health",
		health_names[v->health], "recoverable", v->point_ns > 0, "point_ns", time_or_null(v->point_ns), "rpo_s",
		v->point_ns > 0 ? json_integer((v->now_ns - v->point_ns) / LB_NS_PER_S) : json_null(), "state",
		v->state, "progress", progress_of(v), "proven_ns", time_or_null(m->proven_ns), "reasons", v->reasons);
	json_t *more =
		json_pack("{s:s?,s:s,s:s,s:b,s:b,s:s,s:o,s:o,s:o,s:I,s:I,s:I,s:I}", "error", v->error, "proven_warning",
			  m->proven_warning, "policy", m->policy, "enabled", m->enabled, "fenced", m->fenced, "process",
			  m->process, "disks", active_disks(m), "seen_ns", time_or_null(seen_ns), "proven_point_ns",
			  time_or_null(m->proven_point_ns), "resync_generation", (json_int_t)m->resync_generation,
			  "backlog_bytes", (json_int_t)number_of(v->live.process, "backlog_bytes"), "churn_bytes_per_s",
			  (json_int_t)number_of(v->live.process, "churn_bytes_per_s"), "bandwidth_bytes_per_s",
			  (json_int_t)number_of(v->live.process, "bandwidth_bytes_per_s"));

	if (j == NULL || more == NULL || json_object_update(j, more) < 0) {
		json_decref(j);
		j = NULL;
	}
	json_decref(more);
	return j;
}

int lb_status_machine(struct lb_site *site, const struct lb_reg_machine *machine, json_t **ret_object)
{
	_cleanup_(view_clear) struct view v = {0};
	json_t *object;
	int r;

	r = look(site, machine, &v);
	if (r < 0)
		return r;
	object = view_json(&v);
	if (object == NULL)
		return lb_fail(-ENOMEM, "out of memory for a status");
	r = add_way_back(&v, object);
	if (r < 0) {
		json_decref(object);
		return r;
	}
	*ret_object = object;
	return 0;
}
