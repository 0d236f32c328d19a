/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The job of a move. It can begin again at any point: whose the machine is stands in the registry, where its journal
 * ends in the vault.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/json.h"
#include "config/api.h"
#include "config/live.h"
#include "config/moves.h"

#define POLL_NS (200 * LB_NS_PER_MS)

struct move {
	struct lb_job *job;
	struct lb_reg_machine m;
	struct lb_reg_process from, to;
	bool now;
};

static void move_clear(struct move *w)
{
	lb_reg_machine_clear(&w->m);
}

static int read_request(struct lb_job *job, struct move *w)
{
	struct lb_db *db = job->site->db;
	const char *machine, *to;
	int r;

	w->job = job;
	w->now = json_is_true(json_object_get(job->request, "now"));
	r = lb_json_get_str(job->request, "machine", &machine);
	if (r == 0)
		r = lb_json_get_str(job->request, "to", &to);
	if (r == 0)
		r = lb_reg_machine_find(db, machine, &w->m);
	if (r == 0)
		r = lb_reg_process_find(db, to, &w->to);
	if (r == 0)
		r = lb_reg_process_find(db, w->m.process, &w->from);
	return r;
}

static int check_not_fenced(struct move *w)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_reg_machine_find(w->job->site->db, w->m.id, &m);
	if (r < 0)
		return r;
	return m.fenced ? lb_fail(-EBUSY, "%s was failed over meanwhile: its journal has ended", m.name) : 0;
}

/* ---- hand-over ------------------------------------------------------------------------------------------- */

enum handover { HANDOVER_WAIT, HANDOVER_DONE, HANDOVER_STOPPED, HANDOVER_SILENT };

static int64_t spoke_ns(struct move *w)
{
	_cleanup_json_ json_t *report = NULL;
	int64_t told_ns = 0;

	if (lb_live_process_get(w->job->site->live, w->from.id, &report, &told_ns) < 0)
		told_ns = 0;
	/* a server that has just started has heard of nobody yet */
	return LB_MAX(LB_MAX(told_ns, w->from.seen_ns), w->job->site->started_ns);
}

static enum handover look(struct move *w, int64_t since_ns, int64_t *ret_backlog_bytes)
{
	struct lb_site *site = w->job->site;
	struct lb_live_machine live = {0};
	enum handover result = HANDOVER_WAIT;
	const char *state;

	if (lb_now_ns(site->env) - spoke_ns(w) > (int64_t)site->settings.process_lost_s * LB_NS_PER_S)
		return HANDOVER_SILENT;
	if (lb_live_get(site->live, w->m.id, &live) < 0)
		return HANDOVER_WAIT;
	state = json_string_value(json_object_get(live.process, "state"));
	*ret_backlog_bytes = json_integer_value(json_object_get(live.process, "backlog_bytes"));
	if (state != NULL && live.process_ns > since_ns) {
		if (strcmp(state, "handed over") == 0)
			result = HANDOVER_DONE;
		else if (strcmp(state, "fenced") == 0 || strcmp(state, "diverged") == 0)
			result = HANDOVER_STOPPED;
	}
	lb_live_machine_clear(&live);
	return result;
}

/* Waits as long as the one that has it speaks: what it acknowledged is worth the time. `ret_clean`: nothing is left. */
static int wait_handover(struct move *w, int64_t since_ns, bool *ret_clean)
{
	struct lb_env *env = w->job->site->env;
	int64_t backlog_bytes = 0, told_bytes = -1;
	enum handover h;
	int r;

	while ((h = look(w, since_ns, &backlog_bytes)) == HANDOVER_WAIT) {
		r = lb_job_progress(w->job, 0.1);
		if (r == 0)
			r = check_not_fenced(w);
		if (r == 0 && backlog_bytes != told_bytes)
			r = lb_job_say(w->job, "%" PRId64 " KiB are still to go to the vault", backlog_bytes >> 10);
		if (r < 0)
			return r;
		told_bytes = backlog_bytes;
		env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	}
	*ret_clean = h == HANDOVER_DONE;
	return lb_job_say(w->job,
			  h == HANDOVER_DONE      ? "%s has sent everything"
			  : h == HANDOVER_STOPPED ? "%s had stopped already"
						  : "%s does not answer",
			  w->from.name);
}

static int hand_over(struct move *w, bool *ret_clean)
{
	struct lb_site *site = w->job->site;
	int64_t since_ns = lb_now_ns(site->env);
	int r;

	*ret_clean = false;
	r = lb_job_step(w->job, "hand over");
	if (r < 0 || w->now)
		return r;
	r = lb_reg_move_begin(site->db, w->m.id, w->from.id, since_ns);
	return r < 0 ? r : wait_handover(w, since_ns, ret_clean);
}

/* Nobody puts anything after what is in the vault now. */
static int seal(struct move *w)
{
	char reason[160];
	struct lb_uuid id;
	int r;

	r = lb_job_step(w->job, "seal the journal");
	if (r == 0)
		r = lb_uuid_parse(w->m.id, &id);
	if (r < 0)
		return r;
	snprintf(reason, sizeof(reason), "moved from process server %.40s to %.40s", w->from.name, w->to.name);
	r = lb_journal_fence(w->job->site->vault, &id, reason);
	lb_fault_place("move of %s: sealed", w->m.name);
	return r;
}

/* ---- the other one --------------------------------------------------------------------------------------- */

static int assign(struct move *w)
{
	struct lb_site *site = w->job->site;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_machine_find(site->db, w->m.id, &m);
	if (r < 0)
		return r;
	memcpy(m.process, w->to.id, sizeof(m.process));
	r = lb_reg_machine_put(site->db, &m);
	if (r == 0)
		r = lb_reg_move_switch(site->db, m.id, w->from.id, lb_now_ns(site->env));
	return r < 0 ? r : lb_db_commit(&txn);
}

static bool has_taken_over(struct move *w, int64_t since_ns)
{
	struct lb_live_machine live = {0};
	const char *state;
	bool taken;

	if (lb_live_get(w->job->site->live, w->m.id, &live) < 0)
		return false;
	state = json_string_value(json_object_get(live.process, "state"));
	taken = live.process_ns > since_ns && state != NULL && strcmp(state, "opening") != 0;
	lb_live_machine_clear(&live);
	return taken;
}

static int wait_taken_over(struct move *w)
{
	struct lb_env *env = w->job->site->env;
	int64_t since_ns = lb_now_ns(env), until_ns = lb_mono_ns(env) + LB_MOVE_TAKE_OVER_S * LB_NS_PER_S;
	int r = 0;

	while (r == 0 && !has_taken_over(w, since_ns)) {
		if (lb_mono_ns(env) > until_ns)
			return lb_fail(
				-ETIMEDOUT,
				"%s belongs to process server %s now, which has not opened its journal within %d s; "
				"`lifeboat server list` shows how it is",
				w->m.name, w->to.name, LB_MOVE_TAKE_OVER_S);
		r = lb_job_progress(w->job, 0.9);
		if (r == 0)
			env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	}
	return r;
}

static int take_over(struct move *w)
{
	int r;

	r = lb_job_step(w->job, "take over");
	if (r == 0)
		r = wait_taken_over(w);
	/* whatever became of it, the agent belongs there now */
	if (r != -ESHUTDOWN && lb_reg_move_end(w->job->site->db, w->m.id) < 0)
		return lb_wrap(-EIO, "the agent of %s is not told where to go", w->m.name);
	return r;
}

static int move_away(struct move *w)
{
	bool clean;
	int r;

	r = hand_over(w, &clean);
	if (r == 0)
		r = check_not_fenced(w);
	if (r == 0 && !clean)
		r = seal(w);
	if (r == 0)
		r = lb_job_step(w->job, "assign");
	if (r == 0)
		r = assign(w);
	lb_fault_place("move of %s: assigned", w->m.name);
	return r;
}

int lb_move_run(struct lb_job *job)
{
	_cleanup_(move_clear) struct move w = {0};
	int r;

	r = read_request(job, &w);
	if (r < 0)
		return r;
	if (strcmp(w.m.process, w.to.id) != 0) {
		r = move_away(&w);
		/* what does not move goes on where it is */
		if (r < 0 && r != -ESHUTDOWN && lb_reg_move_cancel(job->site->db, w.m.id) < 0)
			return lb_wrap(r, "the machine waits for a move that ended");
		if (r < 0)
			return r;
		lb_event(job->site, "info", w.m.name, "moved from process server %s to %s", w.from.name, w.to.name);
	}
	r = lb_vault_copy_write(job->site);
	return r < 0 ? r : take_over(&w);
}
