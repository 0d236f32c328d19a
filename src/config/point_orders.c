/* SPDX-License-Identifier: Apache-2.0 */
#include "config/point_orders.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/flush.h"
#include "config/live.h"
#include "vault/points.h"

#define POLL_NS (200 * LB_NS_PER_MS)

int lb_point_order_json(struct lb_site *site, const char *machine, json_t **ret_order)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows, "SELECT generation, app FROM point_order WHERE machine = ? AND result IS NULL",
			"s", machine);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	*ret_order = NULL;
	if (r == 0)
		return 0;
	*ret_order =
		json_pack("{s:I,s:b}", "generation", (json_int_t)lb_db_int(rows, 0), "app", lb_db_int(rows, 1) != 0);
	return *ret_order != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_point_note_put(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq, int64_t frozen_ns,
		      const char *shared)
{
	int r;

	r = lb_db_run(site->db,
		      "INSERT OR REPLACE INTO point_note (machine, epoch, seq, frozen_ns, shared) VALUES (?,?,?,?,?)",
		      "siiis", machine, (int64_t)epoch, (int64_t)seq, frozen_ns, shared);
	if (r < 0)
		return r;
	return lb_db_run(site->db,
			 "DELETE FROM point_note WHERE machine = ? AND rowid NOT IN (SELECT rowid FROM point_note WHERE"
			 " machine = ? ORDER BY epoch DESC, seq DESC LIMIT ?)",
			 "ssi", machine, machine, (int64_t)LB_POINT_NOTES_MAX);
}

int lb_point_note_add(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq, json_t *point)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT frozen_ns, shared FROM point_note WHERE machine = ? AND epoch = ? AND seq = ?", "sii",
			machine, (int64_t)epoch, (int64_t)seq);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r <= 0)
		return r;
	r = json_object_set_new(point, "frozen_ms", json_real((double)lb_db_int(rows, 0) / (double)LB_NS_PER_MS));
	if (r == 0 && lb_db_text(rows, 1)[0] != '\0')
		r = json_object_set_new(point, "shared", json_string(lb_db_text(rows, 1)));
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for a point") : 0;
}

json_t *lb_point_json(struct lb_site *site, const struct lb_uuid *machine, const struct lb_point *p)
{
	char id[LB_UUID_TEXT_BYTES];
	json_t *json;

	const char *kind = "crash";

	if (p->flags & LB_HRL_MARK_GROUP)
		kind = "multi-vm";
	else if (p->flags & LB_HRL_MARK_APP)
		kind = "app";
	json = json_pack("{s:I,s:I,s:I,s:I,s:[s],s:s,s:b,s:b}", "epoch", (json_int_t)p->position.epoch, "seq",
			 (json_int_t)p->position.seq, "time_ns", (json_int_t)p->time_ns, "until_ns",
			 (json_int_t)p->until_ns, "kinds", kind, "name", p->name, "held", p->held, "damaged",
			 p->is_damaged);
	lb_uuid_format(machine, id);
	if (json != NULL && (p->flags & (LB_HRL_MARK_APP | LB_HRL_MARK_GROUP)) != 0 &&
	    lb_point_note_add(site, id, p->position.epoch, p->position.seq, json) < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

/* ---- what agents tell ----------------------------------------------------------------------------------------------
 */

static void tell(struct lb_site *site, const struct lb_reg_machine *m, const json_t *point, bool app, bool ok)
{
	const char *text = json_string_value(json_object_get(point, "text"));

	if (ok && json_integer_value(json_object_get(point, "generation")) == 0 && (text == NULL || text[0] == '\0'))
		return; /* as every so often, by the policy */
	lb_event(site, ok ? "info" : "warning", m->name,
		 ok ? "%s recovery point made%s%s" : "no %s recovery point was made%s%s",
		 app ? "application-consistent" : "crash-consistent", text != NULL && text[0] != '\0' ? ": " : "",
		 text != NULL ? text : "");
}

static int take_report(struct lb_site *site, const struct lb_reg_machine *m, const json_t *point)
{
	uint64_t generation, epoch, seq;
	int64_t frozen_ns;
	int64_t changed = 0;
	bool app, ok;
	int r;

	if ((r = lb_json_get_u64(point, "generation", &generation)) < 0 ||
	    (r = lb_json_get_bool(point, "app", &app)) < 0 || (r = lb_json_get_bool(point, "ok", &ok)) < 0 ||
	    (r = lb_json_get_u64(point, "epoch", &epoch)) < 0 || (r = lb_json_get_u64(point, "seq", &seq)) < 0 ||
	    (r = lb_json_get_i64(point, "frozen_ns", &frozen_ns)) < 0)
		return r;
	if (ok && app)
		r = lb_point_note_put(site, m->id, epoch, seq, frozen_ns, "");
	if (r == 0 && generation != 0)
		r = lb_db_run_changes(
			site->db, &changed,
			"UPDATE point_order SET result = ? WHERE machine = ? AND generation = ? AND result IS NULL",
			"jsi", point, m->id, (int64_t)generation);
	/* reported again, when its answer was lost: said once */
	if (r == 0 && (generation == 0 || changed > 0))
		tell(site, m, point, app, ok);
	return r;
}

int lb_point_report(struct lb_site *site, const struct lb_reg_machine *machine, const json_t *points)
{
	const json_t *point;
	size_t i;
	int r = 0;

	json_array_foreach(points, i, point) if (r == 0) r = take_report(site, machine, point);
	return r;
}

/* ---- the job
 * --------------------------------------------------------------------------------------------------------- */

/* Asked for once, however often the job begins again. */
static int ask(struct lb_job *job, bool app)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_db *db = job->site->db;
	int64_t n;
	int r;

	r = lb_db_begin(db, &txn);
	if (r == 0)
		r = lb_db_get_int(db, &n, "SELECT count(*) FROM point_order WHERE machine = ? AND job = ?", "ss",
				  job->target, job->id);
	if (r == 0 && n == 0)
		r = lb_db_run(db,
			      "INSERT INTO point_order (machine, generation, app, job, made_ns, result) VALUES"
			      " (?, ?, ?, ?, ?, NULL) ON CONFLICT(machine) DO UPDATE SET generation ="
			      " max(generation + 1, excluded.generation), app = excluded.app, job = excluded.job,"
			      " made_ns = excluded.made_ns, result = NULL",
			      "siisi", job->target, lb_now_ns(job->site->env), (int64_t)app, job->id,
			      lb_now_ns(job->site->env));
	return r < 0 ? r : lb_db_commit(&txn);
}

static int withdraw(struct lb_job *job)
{
	return lb_db_run(job->site->db,
			 "UPDATE point_order SET result = '{}' WHERE machine = ? AND job = ? AND result IS NULL", "ss",
			 job->target, job->id);
}

static int read_result(struct lb_job *job, json_t **ret_result)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(job->site->db);
	r = lb_db_query(job->site->db, &rows, "SELECT result FROM point_order WHERE machine = ? AND job = ?", "ss",
			job->target, job->id);
	if (r == 0)
		r = lb_db_next(job->site->db, rows);
	if (r < 0)
		return r;
	*ret_result = r == 1 ? lb_db_json(rows, 0) : NULL;
	return 0;
}

static int pause_job(struct lb_job *job, int64_t until_ns, const char *fmt, const char *what)
{
	struct lb_env *env = job->site->env;

	if (lb_mono_ns(env) > until_ns)
		return lb_fail(-ETIMEDOUT, fmt, what);
	env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	return lb_job_progress(job, 0);
}

static int wait_agent(struct lb_job *job, const char *name, json_t **ret_result)
{
	int64_t until_ns = lb_mono_ns(job->site->env) + LB_POINT_AGENT_S * LB_NS_PER_S;
	int r;

	for (;;) {
		r = read_result(job, ret_result);
		if (r < 0 || *ret_result != NULL)
			return r;
		r = pause_job(job, until_ns,
			      "the agent of %s did not make the point in time; `lifeboat status` says how it is", name);
		if (r < 0) {
			(void)withdraw(job);
			return r;
		}
	}
}

bool lb_point_in_vault(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq)
{
	struct lb_live_machine live = {0};
	uint64_t e = 0, s = 0;

	if (lb_live_get(site->live, machine, &live) < 0)
		return false;
	if (live.process != NULL) {
		e = (uint64_t)json_integer_value(json_object_get(live.process, "vault_epoch"));
		s = (uint64_t)json_integer_value(json_object_get(live.process, "vault_seq"));
	}
	lb_live_machine_clear(&live);
	return e > epoch || (e == epoch && s >= seq);
}

int lb_point_wait_vault(struct lb_job *job, const char *machine, uint64_t epoch, uint64_t seq)
{
	int64_t until_ns = lb_mono_ns(job->site->env) + LB_POINT_VAULT_S * LB_NS_PER_S;
	int r = 0;

	lb_flush_order(job->site, machine);
	while (r == 0 && !lb_point_in_vault(job->site, machine, epoch, seq))
		r = pause_job(job, until_ns,
			      "the point was made, but the process server did not bring it into the vault%s",
			      " in time");
	return r;
}

/* Keeps it under a name. */
static int name_it(struct lb_job *job, uint64_t epoch, uint64_t seq, const char *name)
{
	char text[48];
	struct lb_point point;
	struct lb_uuid id;
	int r;

	snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)epoch, (unsigned long long)seq);
	r = lb_uuid_parse(job->target, &id);
	if (r == 0)
		r = lb_point_find(job->site->vault, &id, text, &point);
	return r < 0 ? r : lb_point_pin(job->site->vault, &id, &point, name);
}

static int carry_out(struct lb_job *job, const char *machine_name, const char *name, bool app)
{
	_cleanup_json_ json_t *result = NULL;
	const char *text;
	uint64_t epoch, seq;
	int r;

	r = lb_job_step(job, "ask the agent");
	if (r == 0)
		r = ask(job, app);
	if (r == 0)
		r = lb_job_step(job, "make the point");
	if (r == 0)
		r = wait_agent(job, machine_name, &result);
	if (r < 0)
		return r;
	text = json_string_value(json_object_get(result, "text"));
	if (!json_is_true(json_object_get(result, "ok")))
		return lb_fail(-EREMOTEIO, "%s: %s", machine_name, text != NULL ? text : "no point was made");
	json_object_update(job->result, result);
	epoch = (uint64_t)json_integer_value(json_object_get(result, "epoch"));
	seq = (uint64_t)json_integer_value(json_object_get(result, "seq"));
	r = lb_job_say(job, "point %llu:%llu, frozen for %.1f ms%s%s", (unsigned long long)epoch,
		       (unsigned long long)seq,
		       (double)json_integer_value(json_object_get(result, "frozen_ns")) / (double)LB_NS_PER_MS,
		       text != NULL && text[0] != '\0' ? "; " : "", text != NULL ? text : "");
	if (r == 0)
		r = lb_job_step(job, "bring it into the vault");
	if (r == 0)
		r = lb_point_wait_vault(job, job->target, epoch, seq);
	if (r == 0 && name != NULL)
		r = name_it(job, epoch, seq, name);
	return r;
}

int lb_point_job_run(struct lb_job *job)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_reg_machine_find(job->site->db, job->target, &m);
	if (r < 0)
		return r;
	return carry_out(job, m.name, json_string_value(json_object_get(job->request, "name")),
			 json_is_true(json_object_get(job->request, "app")));
}
