/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/failover_source.h"
#include "config/failovers.h"
#include "config/registry.h"
#include "config/reprotect.h"
#include "config/target.h"
#include "vault/catalog.h"

#define FAILBACK_WAIT_S_MAX 86400

static int reply_job(struct lb_http_reply *reply, const char *id, const char *name)
{
	reply->json = json_pack("{s:s,s:s}", "job", id, "name", name);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* The machine's name, from the vault: a failover needs nothing else of the site. */
static int machine_name(struct lb_site *site, const char *name_or_id, char name[LB_MACHINE_NAME_BYTES])
{
	struct lb_catalog_item *item = malloc(sizeof(*item));
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_find(site->vault, name_or_id, item);
	if (r == 0)
		snprintf(name, LB_MACHINE_NAME_BYTES, "%s", item->name);
	free(item);
	return r;
}

/*
 * Under this name there is nothing, or a live failover of the same machine that ended on its way and goes on; or whose
 * removal did, which the job ends first.
 */
static int check_free(struct lb_site *site, const char *machine, enum lb_failover_kind kind, const char *vm_name)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report = {0};
	int64_t busy;
	int r;

	r = lb_db_get_int(site->db, &busy,
			  "SELECT count(*) FROM job WHERE target = ? AND kind = 'failover' AND"
			  " state IN ('queued', 'running')",
			  "s", vm_name);
	if (r == 0 && busy > 0)
		return lb_fail(-EEXIST, "a failover to %s is under way; `lifeboat job list` shows it", vm_name);
	if (r == 0)
		r = lb_failover_open(site->env, site->settings.vm_folder, vm_name, &f);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		lb_failover_report(f, &report);
	if (r == 0 && kind == LB_FAILOVER_LIVE && strcmp(report.machine_name, machine) == 0 &&
	    (lb_failovers_is_unfinished(&report) || (report.cleaning && !report.committed)))
		return 0;
	if (r == 0 || r == -EBUSY)
		return lb_fail(-EEXIST,
			       "there is a double %s already; `lifeboat failover cleanup %s` removes it, or choose "
			       "another name",
			       vm_name, vm_name);
	return r;
}

int lb_api_failover_start(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX] = {0};
	_cleanup_json_ json_t *body = NULL;
	struct lb_failover_request request;
	char machine[LB_MACHINE_NAME_BYTES], vm_name[LB_MACHINE_NAME_BYTES + 8], id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_failover_request_read(site, body, &request, forwards);
	if (r == 0)
		r = lb_source_check_order(body, &request);
	if (r == 0)
		r = lb_target_network_check(site, request.network);
	if (r == 0)
		r = machine_name(site, request.machine, machine);
	if (r != 0)
		return r;
	snprintf(vm_name, sizeof(vm_name), "%s%s", request.vm_name != NULL ? request.vm_name : machine,
		 request.vm_name != NULL            ? ""
		 : request.kind == LB_FAILOVER_LIVE ? "-double"
						    : "-test");
	r = lb_name_check("double", vm_name);
	if (r == 0)
		r = lb_db_begin(site->db, &txn); /* of two operators exactly one */
	if (r == 0)
		r = lb_job_check_free(site, vm_name, vm_name);
	if (r == 0)
		r = check_free(site, machine, request.kind, vm_name);
	if (r == 0)
		r = lb_job_submit(site, "failover", vm_name, body, call->peer.name, id);
	if (r == 0)
		r = lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_event(site, request.kind == LB_FAILOVER_LIVE ? "warning" : "info", machine,
		 "%s failover to %s ordered by %s", request.kind == LB_FAILOVER_LIVE ? "live" : "test", vm_name,
		 call->peer.name);
	return reply_job(reply, id, vm_name);
}

struct listing {
	struct lb_site *site;
	json_t *list;
};

static int append(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct listing *l = arg;
	json_t *one = lb_failover_json(report, state), *reprotect = NULL;
	int r;

	r = one == NULL || json_array_append_new(l->list, one) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer")
								   : 0;
	r = r < 0 ? r : lb_reprotect_json(l->site, report->vm_name, &reprotect);
	return r < 0                                                  ? r
	       : json_object_set_new(one, "reprotect", reprotect) < 0 ? lb_fail(-ENOMEM, "out of memory for an answer")
								      : 0;
}

int lb_api_failover_list(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *list = json_array();
	int r;

	(void)call;
	r = lb_failover_list(site->env, site->settings.vm_folder, append, &(struct listing){site, list});
	if (r < 0 && r != -ENOENT)
		return r;
	return lb_api_reply_list(reply, "failovers", lb_steal_ptr(list));
}

struct search {
	const char *name;
	bool there;
};

static int look_for(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct search *s = arg;

	(void)state;
	s->there = s->there || strcmp(report->vm_name, s->name) == 0;
	return 0;
}

static int submit(struct lb_site *site, const char *kind, const struct lb_http_call *call, const json_t *request,
		  struct lb_http_reply *reply)
{
	struct search s = {.name = call->params[0]};
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_failover_list(site->env, site->settings.vm_folder, look_for, &s);
	if (r < 0 && r != -ENOENT)
		return r;
	if (!s.there)
		return lb_fail(-ENOENT, "there is no double \"%.64s\"; `lifeboat failover list` shows them", s.name);
	r = lb_db_begin(site->db, &txn); /* of two operators exactly one */
	/* what takes a reprotection back has told its job to end, and comes after it */
	if (r == 0 && strcmp(kind, "reprotect-cancel") != 0)
		r = lb_job_check_free(site, s.name, s.name);
	r = r < 0 ? r : lb_job_submit(site, kind, s.name, request, call->peer.name, id);
	r = r < 0 ? r : lb_db_commit(&txn);
	return r < 0 ? r : reply_job(reply, id, s.name);
}

int lb_api_failover_cleanup(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_api_body(call, &body);
	return r < 0 ? r : submit(arg, "cleanup", call, body, reply);
}

int lb_api_failover_commit(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	int r;

	r = lb_api_body(call, &body);
	return r < 0 ? r : submit(arg, "commit", call, body, reply);
}

/* The machine of a double, or of one whose double is gone already: then the order is for the machine itself. */
static int undo_request(struct lb_site *site, const char *name, char target[LB_SUBJECT_BYTES], json_t *request)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	struct lb_failover_report report;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_failover_open(site->env, site->settings.vm_folder, name, &f);
	if (r == 0) {
		lb_failover_report(f, &report);
		snprintf(target, LB_SUBJECT_BYTES, "%s", report.vm_name);
		lb_uuid_format(&report.machine, id);
		r = lb_job_undo_check(site, f, id);
	} else if (r == -ENOENT && lb_reg_machine_find(site->db, name, &m) == 0) {
		snprintf(target, LB_SUBJECT_BYTES, "%s", m.name);
		memcpy(id, m.id, sizeof(id));
		r = m.fenced ? lb_job_undo_check(site, NULL, id)
			     : lb_fail(-EINVAL, "%s is not failed over: there is nothing to undo", m.name);
	} else if (r == -ENOENT) {
		r = lb_fail(r, "there is no double and no machine \"%.64s\"; `lifeboat failover list` shows doubles",
			    name);
	}
	return r < 0 ? r : lb_json_set_str(request, "machine", id);
}

int lb_api_failover_undo(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_(lb_db_endp) struct lb_db_txn txn = {0};
	_cleanup_json_ json_t *request = json_object();
	struct lb_site *site = arg;
	char target[LB_SUBJECT_BYTES], id[LB_UUID_TEXT_BYTES];
	int r;

	if (request == NULL)
		return lb_fail(-ENOMEM, "out of memory for an order");
	r = lb_db_begin(site->db, &txn); /* of two operators exactly one */
	r = r < 0 ? r : lb_job_check_free(site, call->params[0], call->params[0]);
	r = r < 0 ? r : undo_request(site, call->params[0], target, request);
	r = r < 0 ? r : lb_job_submit(site, "failover-undo", target, request, call->peer.name, id);
	r = r < 0 ? r : lb_db_commit(&txn);
	if (r < 0)
		return r;
	lb_event(site, "warning", target, "the failover is given up, ordered by %s", call->peer.name);
	return reply_job(reply, id, target);
}

int lb_api_failover_reprotect(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	char id[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_api_body(call, &body);
	r = r < 0 ? r : lb_reprotect_order(arg, "", call->params[0], body, call->peer.name, id);
	return r < 0 ? r : reply_job(reply, id, call->params[0]);
}

/* A job that still works on it ends first, and takes away what it made; this one finds what is left. */
int lb_api_failover_unreprotect(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	_cleanup_json_ json_t *body = NULL;
	struct lb_site *site = arg;
	int64_t runs = 0;
	int r;

	r = lb_api_body(call, &body);
	r = r < 0 ? r : lb_reprotect_find(site->db, call->params[0], &p);
	if (r == 0 && lb_reprotect_goes_home(&p))
		r = lb_fail(-EINVAL,
			    "%s is on its way home: `lifeboat failback commit %s` ends it with its way back, `lifeboat "
			    "failback undo %s` keeps its machine here",
			    call->params[0], call->params[0], call->params[0]);
	r = r < 0 ? r
		  : lb_db_get_int(site->db, &runs, "SELECT count(*) FROM job WHERE id = ? AND ended_ns IS NULL", "s",
				  p.job);
	if (r == 0 && runs > 0)
		r = lb_job_cancel(site, p.job);
	return r < 0 ? r : submit(site, "reprotect-cancel", call, body, reply);
}

/* Found out before the double is shut down, or started. */
static int check_boot(struct lb_site *site, const char *double_name, const json_t *boot)
{
	_cleanup_(lb_reprotect_clear) struct lb_reprotect p = {0};
	bool domain = json_is_string(json_object_get(boot, "domain")),
	     hook = json_is_string(json_object_get(boot, "hook"));
	int r;

	if (domain == hook)
		return lb_fail(-EINVAL,
			       "what is meant? \"boot\" and \"halt\" name a libvirt \"domain\", or a \"hook\", of "
			       "the target server's host");
	r = lb_reprotect_find(site->db, double_name, &p);
	if (r == 0 && json_object_get(p.request, "target") == NULL)
		r = lb_fail(-EINVAL, "%s was reprotected without a target server: nobody could switch its original",
			    double_name);
	return r;
}

int lb_api_failover_failback(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	uint32_t wait_s;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0 && json_object_get(body, "wait_s") != NULL)
		r = lb_json_get_u32(body, "wait_s", FAILBACK_WAIT_S_MAX, &wait_s);
	if (r == 0 && json_object_get(body, "boot") != NULL)
		r = check_boot(arg, call->params[0], json_object_get(body, "boot"));
	return r < 0 ? r : submit(arg, "failback", call, body, reply);
}

/* -EINVAL: no failback of it was begun. One that is worked on is found out by the order. */
static int check_begun(struct lb_site *site, const char *double_name)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	struct lb_failover_report report;
	int r = lb_failover_open(site->env, site->settings.vm_folder, double_name, &f);

	if (r < 0)
		return r == -EBUSY || r == -ENOENT ? 0 : r;
	lb_failover_report(f, &report);
	return lb_failback_is_begun(site, &report)
		       ? 0
		       : lb_fail(-EINVAL, "%.64s is not on its way home: there is nothing to undo", double_name);
}

int lb_api_failover_stay(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	bool down;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0 && json_object_get(body, "original_is_down") != NULL)
		r = lb_json_get_bool(body, "original_is_down", &down);
	if (r == 0 && json_object_get(body, "halt") != NULL)
		r = check_boot(arg, call->params[0], json_object_get(body, "halt"));
	r = r < 0 ? r : check_begun(arg, call->params[0]);
	return r < 0 ? r : submit(arg, "failback-undo", call, body, reply);
}

int lb_api_failover_home(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	bool said;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0 && json_object_get(body, "new_hardware") != NULL)
		r = lb_json_get_bool(body, "new_hardware", &said);
	if (r == 0 && json_object_get(body, "discard") != NULL)
		r = lb_json_get_bool(body, "discard", &said);
	return r < 0 ? r : submit(arg, "failback-commit", call, body, reply);
}

int lb_api_failover_repoint(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	_cleanup_json_ json_t *body = NULL;
	const char *point;
	int r;

	r = lb_api_body(call, &body);
	if (r == 0)
		r = lb_json_get_str(body, "point", &point);
	return r < 0 ? r : submit(arg, "repoint", call, body, reply);
}
