/* SPDX-License-Identifier: Apache-2.0 */
/* Process servers as operators order them about: machines move between them; one that has none is let go. */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/moves.h"
#include "config/targets.h"

int lb_api_machine_move(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	_cleanup_json_ json_t *body = NULL;
	char id[LB_UUID_TEXT_BYTES];
	const char *to;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_api_optional_str(body, "to", &to);
	if (r == 0)
		r = lb_reg_machine_find(site->db, call->params[0], &m);
	if (r == 0)
		r = lb_move_order(site, &m, to, json_is_true(json_object_get(body, "now")), call->peer.name, id);
	if (r < 0)
		return r;
	reply->status = 202;
	reply->json = json_pack("{s:s}", "job", id);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

struct drain {
	const struct lb_reg_process *p;
	json_t *machines;
};

static int collect(void *arg, const struct lb_reg_machine *m)
{
	struct drain *d = arg;

	if (strcmp(m->process, d->p->id) != 0 || m->fenced)
		return 0;
	return json_array_append_new(d->machines, json_string(m->id)) < 0 ? lb_fail(-ENOMEM, "out of memory") : 0;
}

int lb_api_server_drain(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *body = NULL, *machines = json_array(), *jobs = json_array();
	struct lb_reg_process p = {0};
	struct drain d = {&p, machines};
	const json_t *id;
	bool now;
	size_t i;
	int r;

	r = lb_api_body(call, &body);
	now = json_is_true(json_object_get(body, "now"));
	if (r == 0)
		r = lb_reg_process_find(site->db, call->params[0], &p);
	if (r == 0)
		r = lb_reg_machines(site->db, collect, &d);
	json_array_foreach(machines, i, id)
	{
		_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
		char job[LB_UUID_TEXT_BYTES];

		if (r == 0)
			r = lb_reg_machine_find(site->db, json_string_value(id), &m);
		if (r == 0)
			r = lb_move_order(site, &m, NULL, now, call->peer.name, job);
		if (r == 0 && json_array_append_new(jobs, json_pack("{s:s,s:s}", "machine", m.name, "job", job)) < 0)
			r = lb_fail(-ENOMEM, "out of memory for an answer");
	}
	if (r < 0)
		return r;
	reply->status = 202;
	return lb_api_reply_list(reply, "jobs", lb_steal_ptr(jobs));
}

/* In one transaction: a machine that is given to it meanwhile would be nobody's. */
static int let_go(struct lb_site *site, const char *name, struct lb_reg_process *ret_process)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	int64_t machines = 0;
	int r;

	r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_process_find(site->db, name, ret_process);
	if (r == 0)
		r = lb_db_get_int(site->db, &machines, "SELECT count(*) FROM machine WHERE process = ?", "s",
				  ret_process->id);
	if (r < 0)
		return r;
	if (ret_process->local)
		return lb_fail(-EINVAL,
			       "process server %s is part of this host: set process_server = no in config.conf instead",
			       ret_process->name);
	if (ret_process->temporary)
		return lb_fail(-EINVAL, "process server %s goes by itself, with the last double that is reprotected",
			       ret_process->name);
	if (machines > 0)
		return lb_fail(-EBUSY,
			       "process server %s has %lld machines; `lifeboat server drain %s` moves them first",
			       ret_process->name, (long long)machines, ret_process->name);
	r = lb_reg_certs_revoke(site->db, ret_process->id, NULL, "process server removed", lb_now_ns(site->env));
	if (r == 0)
		r = lb_reg_process_remove(site->db, ret_process->id);
	return r < 0 ? r : lb_db_commit(&txn);
}

int lb_api_server_remove(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_(lb_targets_server_clear) struct lb_targets_server t = {0};
	struct lb_site *site = arg;
	struct lb_reg_process p = {0};
	bool target;
	int r;

	r = lb_targets_find(site->db, call->params[0], &t);
	target = r == 0;
	if (r == 0)
		r = lb_targets_remove(site, &t);
	else if (r == -ENOENT)
		r = let_go(site, call->params[0], &p);
	if (r < 0)
		return r;
	lb_event(site, "info", target ? t.name : p.name, "%s server removed by %s", target ? "target" : "process",
		 call->peer.name);
	reply->json = json_object();
	return 0;
}
