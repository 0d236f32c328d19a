/* SPDX-License-Identifier: Apache-2.0 */
/* A target server's part in the way back: it is looked at, follows, takes the last point, starts the original. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/reprotect.h"
#include "config/targets.h"

#define POLL_NS (200 * LB_NS_PER_MS)

static const char *server_of(const json_t *request)
{
	return json_string_value(json_object_get(request, "target"));
}

int lb_reprotect_check_body(struct lb_site *site, const json_t *body)
{
	static const char *const known[] = {"target",     "to",          "some",    "overwrite",
					    "undo_bytes", "undo_points", "dry_run", NULL};
	_cleanup_(lb_targets_server_clear) struct lb_targets_server server = {0};
	const char *target, *name;
	const json_t *value;
	int r;

	json_object_foreach((json_t *)(uintptr_t)body, name, value)
	{
		size_t i = 0;

		while (known[i] != NULL && strcmp(known[i], name) != 0)
			i++;
		if (known[i] == NULL)
			return lb_fail(-EINVAL, "reprotect knows no \"%.40s\"", name);
	}
	r = lb_api_optional_str(body, "target", &target);
	if (r == 0 && (target == NULL) != (json_object_get(body, "to") == NULL))
		r = lb_fail(-EINVAL, "a target server and its disks go together: \"target\" and \"to\"");
	return r < 0 || target == NULL ? r : lb_targets_find(site->db, target, &server);
}

/* One that joined this very moment is about to speak. */
static int wait_for(struct lb_job *job, const char *name)
{
	struct lb_env *env = job->site->env;
	int r;

	do {
		_cleanup_(lb_targets_server_clear) struct lb_targets_server server = {0};

		r = lb_job_check(job);
		r = r < 0 ? r : lb_targets_find(job->site->db, name, &server);
		r = r < 0 ? r : lb_targets_speaks(job->site, &server);
		if (r == -EAGAIN)
			env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	} while (r == -EAGAIN);
	return r;
}

/* The journal is not there yet; its source's has the same disks. */
int lb_reprotect_target_check(struct lb_job *job, const char *machine, json_t **ret_findings)
{
	_cleanup_json_ json_t *report = NULL;
	const struct lb_targets_order order = {
		.server = server_of(job->request), .machine = machine, .kind = "check", .body = job->request};
	json_t *findings;
	int r;

	r = wait_for(job, order.server);
	r = r < 0 ? r : lb_targets_run(job, &order, &report);
	if (r < 0)
		return r;
	findings = json_object_get(report, "findings");
	*ret_findings = findings != NULL ? json_incref(findings) : json_array();
	return *ret_findings != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for findings");
}

int lb_reprotect_target_follow(struct lb_job *job, const struct lb_reprotect *p)
{
	const struct lb_targets_order order = {
		.server = server_of(p->request), .machine = p->back, .kind = "follow", .body = p->request};
	int r;

	if (order.server == NULL)
		return 0;
	r = lb_job_step_on(job, "bring the target's disks to its newest point");
	return r < 0 ? r : lb_targets_run(job, &order, NULL);
}

int lb_reprotect_target_finish(struct lb_job *job, const struct lb_reprotect *p, const struct lb_position *last)
{
	_cleanup_json_ json_t *body = json_copy(p->request), *report = NULL;
	const struct lb_targets_order order = {
		.server = server_of(p->request), .machine = p->back, .kind = "finish", .body = body};
	int r;

	if (order.server == NULL)
		return 0;
	r = body == NULL ? lb_fail(-ENOMEM, "out of memory for an order") : lb_json_set_u64(body, "epoch", last->epoch);
	r = r < 0 ? r : lb_json_set_u64(body, "seq", last->seq);
	r = r < 0 ? r : lb_job_step_on(job, "bring the target's disks to the last point");
	r = r < 0 ? r : lb_targets_run(job, &order, &report);
	if (r == 0 && json_object_set(job->result, "target", report) < 0)
		r = lb_fail(-ENOMEM, "out of memory for a result");
	return r;
}

/* Where "auto" chose the disks nobody but the target server knows them: it does not compare them. */
static int ready_body(const struct lb_reprotect *p, const json_t *boot, json_t **ret_body)
{
	_cleanup_json_ json_t *body = json_copy((json_t *)(uintptr_t)boot);
	json_t *disks = json_array(), *path;
	const char *disk;
	int r = 0;

	if (body == NULL || disks == NULL || json_object_set_new(body, "disks", disks) < 0)
		return lb_fail(-ENOMEM, "out of memory for an order");
	json_object_foreach(json_object_get(p->request, "to"), disk, path)
	{
		if (json_array_append(disks, path) < 0)
			r = lb_fail(-ENOMEM, "out of memory for an order");
	}
	if (r == 0)
		*ret_body = lb_steal_ptr(body);
	return r;
}

/* On its source's journal, beside the order that follows its own. */
int lb_reprotect_target_ready(struct lb_job *job, const struct lb_reprotect *p, const json_t *boot, bool wait)
{
	_cleanup_json_ json_t *body = NULL;
	struct lb_targets_order order = {.server = server_of(p->request), .machine = p->machine, .kind = "ready"};
	int r = ready_body(p, boot, &body);

	if (r < 0)
		return r;
	order.body = body;
	return wait ? lb_targets_run(job, &order, NULL) : lb_targets_begin(job, &order);
}

int lb_reprotect_target_boot(struct lb_job *job, const struct lb_reprotect *p)
{
	const json_t *body = json_object_get(job->request, "boot");
	const struct lb_targets_order order = {
		.server = server_of(p->request), .machine = p->back, .kind = "boot", .body = body};
	int r;

	if (body == NULL)
		return 0;
	if (order.server == NULL)
		return lb_fail(-EINVAL, "%s has no target server that could start its original", job->target);
	r = lb_job_step_on(job, "start the original");
	return r < 0 ? r : lb_targets_run(job, &order, NULL);
}

/* Nobody waits for it: the server lets go when it hears of it. */
int lb_reprotect_target_drop(struct lb_job *job, const struct lb_reprotect *p)
{
	const struct lb_targets_order order = {.server = server_of(p->request), .machine = p->back, .kind = "drop"};
	char key[2 * LB_UUID_TEXT_BYTES + 8], id[LB_UUID_TEXT_BYTES];
	int64_t open = 0;
	int r;

	if (order.server == NULL || p->back[0] == '\0')
		return 0;
	r = lb_db_get_int(job->site->db, &open,
			  "SELECT count(*) FROM target_order WHERE machine = ? AND kind <> 'drop' AND state IN "
			  "('ordered', 'running', 'reached')",
			  "s", p->back);
	if (r < 0 || open == 0)
		return r;
	snprintf(key, sizeof(key), "drop/%s", p->back);
	r = lb_targets_order(job->site, &order, key, job->id, id);
	/* a server that was removed follows no more */
	return r == -ENOENT ? 0 : r;
}
