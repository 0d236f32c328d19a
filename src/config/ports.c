/* SPDX-License-Identifier: Apache-2.0 */
#include "config/ports.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/live.h"

#define HEARD_S 180 /* an agent reports once a minute */
#define SETTING_KEY "process_port"

struct change {
	int64_t next, old, until_ns, keep_s; /* 0: none */
};

static int read_change(struct lb_site *site, const char *process, struct change *ret_change)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT port_next, port_old, port_until_ns, port_keep_s FROM process WHERE id = ?", "s",
			process);
	if (r == 0)
		r = lb_db_next(site->db, rows);
	if (r < 0)
		return r;
	*ret_change = r == 0 ? (struct change){0}
			     : (struct change){lb_db_int(rows, 0), lb_db_int(rows, 1), lb_db_int(rows, 2),
					       lb_db_int(rows, 3)};
	return 0;
}

int lb_ports_wanted(struct lb_site *site, const struct lb_reg_process *p, json_t **ret_list)
{
	struct change c = {0};
	json_t *list;
	int r;

	r = read_change(site, p->id, &c);
	if (r < 0)
		return r;
	list = json_pack("[i]", (int)p->port);
	if (list != NULL && c.next + c.old > 0)
		json_array_append_new(list, json_integer(c.next > 0 ? c.next : c.old));
	*ret_list = list;
	return list != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

static bool is_open(const json_t *report, int64_t port)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(report, "ports"), i, one)
	{
		if (json_integer_value(one) == port)
			return true;
	}
	return false;
}

/* The new port is open: from now on agents are told of it. */
static int switch_over(struct lb_site *site, const struct lb_reg_process *p, const struct change *c)
{
	int r;

	r = lb_db_run(
		site->db,
		"UPDATE process SET port = port_next, port_old = port, port_next = 0, port_until_ns = ? WHERE id = ? "
		"AND port_next = ?",
		"isi", lb_now_ns(site->env) + c->keep_s * LB_NS_PER_S, p->id, c->next);
	if (r == 0)
		lb_event(site, "info", p->name,
			 "port %" PRId64 " is open; agents are told, port %u stays open for them", c->next, p->port);
	return r;
}

static int give_up(struct lb_site *site, const struct lb_reg_process *p, const struct change *c, const char *why)
{
	int r;

	r = lb_db_run(site->db, "UPDATE process SET port_next = 0 WHERE id = ? AND port_next = ?", "si", p->id,
		      c->next);
	if (r == 0)
		lb_event(site, "warning", p->name, "it stays on port %u, port %" PRId64 " can't be opened: %.300s",
			 p->port, c->next, why);
	return r;
}

struct followers {
	struct lb_site *site;
	const struct lb_reg_process *p;
	unsigned int missing;
	char first[LB_REG_NAME_BYTES];
};

static int look_at_machine(void *arg, const struct lb_reg_machine *m)
{
	struct followers *f = arg;
	struct lb_live_machine live = {0};
	const char *url;
	char end[16];
	int r;

	if (strcmp(m->process, f->p->id) != 0 || !m->enabled || m->fenced)
		return 0;
	r = lb_live_get(f->site->live, m->id, &live);
	if (r < 0)
		return r;
	snprintf(end, sizeof(end), ":%u", f->p->port);
	url = json_string_value(json_object_get(live.agent, "process_url"));
	if (url == NULL || strlen(url) < strlen(end) || strcmp(url + strlen(url) - strlen(end), end) != 0 ||
	    lb_now_ns(f->site->env) - live.agent_ns > HEARD_S * LB_NS_PER_S) {
		if (f->missing++ == 0)
			memcpy(f->first, m->name, sizeof(f->first));
	}
	lb_live_machine_clear(&live);
	return 0;
}

static int close_old(struct lb_site *site, const struct lb_reg_process *p, const struct change *c)
{
	struct followers f = {.site = site, .p = p};
	int r;

	r = lb_reg_machines(site->db, look_at_machine, &f);
	if (r < 0 || (f.missing > 0 && lb_now_ns(site->env) < c->until_ns))
		return r;
	r = lb_db_run(site->db, "UPDATE process SET port_old = 0, port_until_ns = 0 WHERE id = ? AND port_old = ?",
		      "si", p->id, c->old);
	if (r < 0)
		return r;
	if (f.missing == 0)
		lb_event(site, "info", p->name, "all agents are on port %u; port %" PRId64 " is closed", p->port,
			 c->old);
	else
		lb_event(site, "warning", p->name,
			 "port %" PRId64
			 " is closed at its limit; %u agents (%s, ...) have not followed: they do when they "
			 "reach the configuration server",
			 c->old, f.missing, f.first);
	return 0;
}

int lb_ports_reported(struct lb_site *site, const struct lb_reg_process *p, const json_t *report)
{
	const char *error = json_string_value(json_object_get(report, "port_error"));
	struct change c = {0};
	int r;

	r = read_change(site, p->id, &c);
	if (r < 0)
		return r;
	if (c.next > 0 && is_open(report, c.next))
		return switch_over(site, p, &c);
	if (c.next > 0 && error != NULL && error[0] != '\0')
		return give_up(site, p, &c, error);
	return c.old > 0 && is_open(report, p->port) ? close_old(site, p, &c) : 0;
}

int lb_ports_local(struct lb_site *site, bool is_new, uint16_t *port)
{
	int64_t known = 0;
	int r;

	r = lb_db_get_int(site->db, &known,
			  "SELECT ifnull((SELECT CAST(value AS INTEGER) FROM meta WHERE key = '" SETTING_KEY "'), 0)",
			  "");
	if (r < 0 || (!is_new && known == (int64_t)site->settings.process_port))
		return r;
	*port = (uint16_t)site->settings.process_port;
	return lb_db_run(site->db,
			 "INSERT INTO meta (key, value) VALUES ('" SETTING_KEY
			 "', CAST(? AS TEXT)) ON CONFLICT(key) DO "
			 "UPDATE SET value = excluded.value",
			 "i", (int64_t)site->settings.process_port);
}

/* ---- the order ------------------------------------------------------------------------------------------ */

static int check_order(struct lb_site *site, const struct lb_reg_process *p, const struct change *c, uint64_t port,
		       uint64_t keep_s)
{
	if (port == 0 || port > UINT16_MAX)
		return lb_fail(-EINVAL, "\"port\" is no port from 1 to 65535");
	if (keep_s > LB_PORT_KEEP_OLD_S_MAX)
		return lb_fail(-EINVAL, "the old port is kept for at most %d s", LB_PORT_KEEP_OLD_S_MAX);
	if (p->local && port == site->settings.port)
		return lb_fail(-EINVAL, "port %" PRIu64 " is the configuration server's own", port);
	if (c->next > 0 || c->old > 0)
		return lb_fail(-EBUSY, "the port of %s is being changed to %" PRId64 " already; agents still follow",
			       p->name, c->next > 0 ? c->next : (int64_t)p->port);
	return 0;
}

int lb_api_server_port(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *body = NULL;
	uint64_t port = 0, keep_s = LB_PORT_KEEP_OLD_S_DEFAULT;
	struct lb_reg_process p = {0};
	struct change c = {0};
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_u64(body, "port", &port);
	if (r == 0 && json_object_get(body, "keep_old_s") != NULL)
		r = lb_json_get_u64(body, "keep_old_s", &keep_s);
	if (r == 0)
		r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_reg_process_find(site->db, call->params[0], &p);
	if (r == 0)
		r = read_change(site, p.id, &c);
	if (r == 0)
		r = check_order(site, &p, &c, port, keep_s);
	if (r == 0 && port != p.port)
		r = lb_db_run(site->db, "UPDATE process SET port_next = ?, port_keep_s = ? WHERE id = ?", "iis",
			      (int64_t)port, (int64_t)keep_s, p.id);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_event(site, "info", p.name, "change of its port from %u to %" PRIu64 " ordered by %s", p.port, port,
		 call->peer.name);
	reply->json = json_pack("{s:s,s:i,s:I}", "name", p.name, "port", (int)p.port, "port_next", (json_int_t)port);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}
