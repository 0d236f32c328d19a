/* SPDX-License-Identifier: Apache-2.0 */
/* Ordering moves: by hand, and by themselves when a process server is lost. */
#include "config/moves.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/live.h"

static int64_t alive_since_ns(struct lb_site *site)
{
	return lb_now_ns(site->env) - LB_PROCESS_ALIVE_S * LB_NS_PER_S;
}

static int choose(struct lb_site *site, const struct lb_reg_machine *m, const char *to, struct lb_reg_process *ret_to)
{
	struct lb_reg_process p;
	int r;

	r = to != NULL ? lb_reg_process_find(site->db, to, &p)
		       : lb_reg_process_choose(site->db, alive_since_ns(site), m->process, &p);
	if (r == -ENOENT && to == NULL)
		return lb_fail(r,
			       "there is no other process server for %s; `lifeboat server add` makes the token for one",
			       m->name);
	if (r < 0)
		return r;
	if (p.temporary)
		return lb_fail(-EINVAL, "process server %s is for doubles on their way back only", p.name);
	if (strcmp(p.id, m->process) == 0)
		return lb_fail(-EINVAL, "%s is at process server %s already", m->name, p.name);
	if (p.seen_ns < alive_since_ns(site))
		return lb_fail(-EHOSTDOWN,
			       "process server %s has not spoken for %d s: nothing moves there; look at it with "
			       "`systemctl status lifeboat-process`, on it",
			       p.name, LB_PROCESS_ALIVE_S);
	*ret_to = p;
	return 0;
}

int lb_move_order(struct lb_site *site, const struct lb_reg_machine *m, const char *to, bool now, const char *made_by,
		  char ret_job[LB_UUID_TEXT_BYTES])
{
	_cleanup_json_ json_t *request = NULL;
	struct lb_reg_process p;
	int r;

	if (m->process[0] == '\0')
		return lb_fail(-EINVAL,
			       "%s is not protected yet: it gets a process server with `lifeboat machine protect`",
			       m->name);
	if (m->fenced)
		return lb_fail(-EBUSY, "%s is failed over: its journal has ended and moves nowhere", m->name);
	r = choose(site, m, to, &p);
	if (r < 0)
		return r;
	request = json_pack("{s:s,s:s,s:b}", "machine", m->id, "to", p.id, "now", now);
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for a job");
	return lb_job_submit(site, "move", m->name, request, made_by, ret_job);
}

struct lost {
	struct lb_site *site;
	json_t *servers; /* ids of those that are lost */
	json_t *names;
};

static int note_lost(void *arg, const struct lb_reg_process *p)
{
	struct lost *l = arg;
	_cleanup_json_ json_t *report = NULL;
	int64_t told_ns, silent_ns;
	int r;

	r = lb_live_process_get(l->site->live, p->id, &report, &told_ns);
	if (r < 0 || p->machines == 0)
		return r;
	/* a server that has just started has heard of nobody yet */
	told_ns = LB_MAX(LB_MAX(told_ns, p->seen_ns), l->site->started_ns);
	silent_ns = lb_now_ns(l->site->env) - told_ns;
	if (silent_ns < (int64_t)l->site->settings.process_lost_s * LB_NS_PER_S)
		return 0;
	return json_object_set_new(l->names, p->id, json_string(p->name)) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

static int collect(void *arg, const struct lb_reg_machine *m)
{
	struct lost *l = arg;

	if (!m->enabled || m->fenced || json_object_get(l->names, m->process) == NULL)
		return 0;
	return json_array_append_new(l->servers, json_string(m->id)) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

/* Whether a move of it waits, runs, or ended so lately that another one would end like it. */
static int is_ordered(struct lb_site *site, const char *machine, bool *ret_ordered)
{
	int64_t n;
	int r;

	r = lb_db_get_int(site->db, &n,
			  "SELECT count(*) FROM job WHERE kind = 'move' AND target = ? AND state <> 'done' AND "
			  "ifnull(ended_ns, ?) > "
			  "?",
			  "sii", machine, INT64_MAX, lb_now_ns(site->env) - LB_MOVE_RETRY_S * LB_NS_PER_S);
	if (r == 0)
		*ret_ordered = n > 0;
	return r;
}

static int order_one(struct lb_site *site, const char *id, const char *server)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	char job[LB_UUID_TEXT_BYTES];
	bool ordered = false;
	int r;

	r = lb_reg_machine_find(site->db, id, &m);
	if (r == 0)
		r = is_ordered(site, m.name, &ordered);
	if (r < 0 || ordered)
		return r;
	r = lb_move_order(site, &m, NULL, false, "lifeboat-config", job);
	if (r == 0)
		lb_event(site, "warning", m.name,
			 "process server %s has not spoken for %" PRIu64 " s: the machine moves to another one", server,
			 site->settings.process_lost_s);
	/* without another one its machines wait: the status says so */
	return r == -ENOENT || r == -EHOSTDOWN ? 0 : r;
}

int lb_moves_watch(struct lb_site *site)
{
	_cleanup_json_ json_t *names = json_object(), *machines = json_array();
	struct lost l = {site, machines, names};
	const json_t *id;
	size_t i;
	int r;

	r = lb_reg_processes(site->db, note_lost, &l);
	if (r == 0 && json_object_size(names) > 0)
		r = lb_reg_machines(site->db, collect, &l);
	json_array_foreach(machines, i, id)
	{
		_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};

		if (r == 0)
			r = lb_reg_machine_find(site->db, json_string_value(id), &m);
		if (r == 0)
			r = order_one(site, m.id, json_string_value(json_object_get(names, m.process)));
	}
	return r;
}
