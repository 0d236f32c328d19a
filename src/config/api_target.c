/* SPDX-License-Identifier: Apache-2.0 */
/* Target servers: what they ask and tell; what operators order of them. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/status.h"
#include "config/targets.h"

#define SHOWN_MAX 200
#define TARGET_NAME_BYTES 80 /* of a job */

/* ---- what a target server is told ------------------------------------------------------------------------- */

static int add_order(struct lb_site *site, json_t *list, lb_db_rows *rows)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0};
	_cleanup_(lb_secret_free) char *text = NULL;
	const char *machine = lb_db_text(rows, 1), *name = lb_db_text(rows, 4);
	struct lb_uuid uuid;
	json_t *body = lb_db_json(rows, 3);
	int r;

	r = lb_uuid_parse(machine, &uuid);
	if (r == 0)
		r = lb_vault_keyring(site->vault, &uuid, false, &ring);
	if (r == -ENOENT)
		r = 0; /* its journal was erased: the server says so when it works on the order */
	else if (r == 0 && (text = lb_base64_encode(ring.key, lb_keyring_bytes(&ring))) == NULL)
		r = lb_fail(-ENOMEM, "out of memory for a key");
	if (r < 0) {
		json_decref(body);
		return r;
	}
	return json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s,s:s*,s:o}", "id", lb_db_text(rows, 0), "machine",
						     machine, "machine_name", name != NULL ? name : machine, "kind",
						     lb_db_text(rows, 2), "key", text, "body", body)) < 0
		       ? lb_fail(-ENOMEM, "out of memory for an answer")
		       : 0;
}

static int open_orders(struct lb_site *site, const char *server, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT target_order.id, machine, kind, body, machine.name FROM target_order LEFT JOIN machine "
			"ON machine.id = machine WHERE server = ? AND target_order.state IN ('ordered', 'running', "
			"'reached') ORDER BY made_ns, target_order.rowid",
			"s", server);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1)
		r = add_order(site, list, rows);
	return r;
}

static int note_seen(struct lb_site *site, const char *server)
{
	return lb_db_run(site->db, "UPDATE target_server SET seen_ns = ? WHERE id = ?", "is", lb_now_ns(site->env),
			 server);
}

int lb_api_target_orders(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_targets_server_clear) struct lb_targets_server s = {0};
	_cleanup_json_ json_t *list = json_array();
	char vault_id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_targets_find(site->db, call->peer.name, &s);
	if (r == 0)
		r = note_seen(site, s.id);
	if (r == 0)
		r = open_orders(site, s.id, list);
	if (r < 0)
		return r;
	lb_uuid_format(lb_vault_id(site->vault), vault_id);
	reply->json = json_pack("{s:s,s:s,s:s,s:O}", "vault_id", vault_id, "vault_url", site->settings.vault,
				"server_id", s.id, "orders", list);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- what it tells ------------------------------------------------------------------------------------------ */

/* It speaks of its own open orders alone: one that was replaced meanwhile stays so. */
static int take_one(struct lb_site *site, const char *server, const json_t *one)
{
	static const char *const states[] = {"running", "reached", "done", "failed"};
	const char *id, *state;
	bool known = false;
	int r;

	r = lb_json_get_str(one, "id", &id);
	if (r == 0)
		r = lb_json_get_str(one, "state", &state);
	if (r != 0)
		return r;
	for (size_t i = 0; i < LB_ARRAY_LEN(states); i++)
		known = known || strcmp(state, states[i]) == 0;
	if (!known)
		return lb_fail(-EINVAL, "\"%.40s\" is no state of an order", state);
	return lb_db_run(
		site->db,
		"UPDATE target_order SET state = ?, report = ?, changed_ns = ? WHERE id = ? AND server = ? AND "
		"state IN ('ordered', 'running', 'reached') AND (report IS NULL OR report <> ? OR state <> ?)",
		"sjissjs", state, one, lb_now_ns(site->env), id, server, one, state);
}

int lb_api_target_report(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_targets_server_clear) struct lb_targets_server s = {0};
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *report = NULL;
	const json_t *one;
	size_t i;
	int r;

	r = lb_api_body(call, &report);
	if (r == 0)
		r = lb_db_begin(site->db, &txn);
	if (r == 0)
		r = lb_targets_find(site->db, call->peer.name, &s);
	json_array_foreach(json_object_get(report, "orders"), i, one) if (r == 0) r = take_one(site, s.id, one);
	if (r < 0)
		return r;
	json_object_del(report, "orders");
	r = lb_db_run(site->db, "UPDATE target_server SET seen_ns = ?, report = ? WHERE id = ?", "ijs",
		      lb_now_ns(site->env), report, s.id);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	reply->json = json_object();
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- for people ---------------------------------------------------------------------------------------------- */

int lb_api_server_order(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_targets_server_clear) struct lb_targets_server s = {0};
	_cleanup_json_ json_t *body = NULL, *request = NULL;
	char job[LB_UUID_TEXT_BYTES], target[TARGET_NAME_BYTES];
	const char *kind, *machine;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "kind", &kind);
	if (r == 0)
		r = lb_json_get_str(body, "machine", &machine);
	if (r == 0)
		r = lb_targets_find(site->db, call->params[0], &s);
	if (r != 0)
		return r;
	request = json_pack("{s:s,s:s,s:s,s:O}", "server", s.id, "machine", machine, "kind", kind, "body", body);
	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	snprintf(target, sizeof(target), "%.64s@target", machine);
	r = lb_job_submit(site, "target", target, request, call->peer.name, job);
	if (r < 0)
		return r;
	reply->status = 202;
	reply->json = json_pack("{s:s}", "job", job);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

static int shown_orders(struct lb_site *site, const char *server, json_t *list)
{
	_cleanup_rows_ lb_db_rows *rows = NULL;
	int r;

	LB_DB_SCOPE(site->db);
	r = lb_db_query(site->db, &rows,
			"SELECT target_order.id, machine, machine.name, kind, target_order.state, made_ns, changed_ns, "
			"body, target_order.report FROM target_order LEFT JOIN machine ON machine.id = machine WHERE "
			"server = ? ORDER BY made_ns DESC, target_order.rowid DESC LIMIT ?",
			"si", server, (int64_t)SHOWN_MAX);
	while (r == 0 && (r = lb_db_next(site->db, rows)) == 1) {
		json_t *report = lb_db_null(rows, 8) ? json_object() : lb_db_json(rows, 8);
		json_t *one =
			json_pack("{s:s,s:s,s:s?,s:s,s:s,s:I,s:I,s:o,s:o}", "id", lb_db_text(rows, 0), "machine",
				  lb_db_text(rows, 1), "machine_name", lb_db_text(rows, 2), "kind", lb_db_text(rows, 3),
				  "state", lb_db_text(rows, 4), "made_ns", (json_int_t)lb_db_int(rows, 5), "changed_ns",
				  (json_int_t)lb_db_int(rows, 6), "body", lb_db_json(rows, 7), "report", report);

		r = json_array_append_new(list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer") : 0;
	}
	return r;
}

int lb_status_target(struct lb_site *site, const struct lb_targets_server *s, json_t **ret_object)
{
	int64_t silent_s = (lb_now_ns(site->env) - s->seen_ns) / LB_NS_PER_S;
	const char *error = json_string_value(json_object_get(s->report, "error")), *health = "ok", *cure = "";
	char text[300];

	if (s->seen_ns == 0 || silent_s > LB_TARGETS_LOST_S) {
		/* nothing that is protected waits on it, unless something comes home just now */
		health = s->orders > 0 ? "critical" : "warning";
		snprintf(text, sizeof(text), s->seen_ns == 0 ? "was never heard" : "does not answer");
		cure = s->local ? "journalctl -u lifeboat-config" : "on it: systemctl restart lifeboat-target";
	} else if (error != NULL) {
		health = "warning";
		snprintf(text, sizeof(text), "%.280s", error);
	} else {
		snprintf(text, sizeof(text), "%lld orders under way", (long long)s->orders);
	}
	*ret_object = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:b,s:I,s:I}", "id", s->id, "name", s->name, "kind",
				"target", "health", health, "text", text, "cure", cure, "hosts", "", "port", 0, "local",
				(int)s->local, "orders", (json_int_t)s->orders, "seen_ns", (json_int_t)s->seen_ns);
	return *ret_object != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a status");
}

static int show_target(struct lb_site *site, const struct lb_targets_server *s, json_t **ret_object)
{
	json_t *list = json_array(), *object;
	int r;

	r = lb_status_target(site, s, &object);
	if (r < 0) {
		json_decref(list);
		return r;
	}
	r = shown_orders(site, s->id, list);
	if (json_object_set_new(object, "order_list", list) < 0 ||
	    json_object_set_new(object, "report", s->report != NULL ? json_incref(s->report) : json_null()) < 0)
		r = lb_fail(-ENOMEM, "out of memory for an answer");
	if (r < 0) {
		json_decref(object);
		return r;
	}
	*ret_object = object;
	return 0;
}

int lb_api_server_get(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_targets_server_clear) struct lb_targets_server s = {0};
	struct lb_reg_process p;
	int r;

	r = lb_targets_find(site->db, call->params[0], &s);
	if (r == 0)
		return show_target(site, &s, &reply->json);
	if (r != -ENOENT)
		return r;
	r = lb_reg_process_find(site->db, call->params[0], &p);
	if (r == -ENOENT)
		return lb_fail(r,
			       "there is no process server and no target server \"%.80s\"; `lifeboat server list` "
			       "shows them",
			       call->params[0]);
	return r < 0 ? r : lb_status_process(site, &p, &reply->json);
}
