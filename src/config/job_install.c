/* SPDX-License-Identifier: Apache-2.0 */
/* Push installs: the order, and the job that follows it to its end. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/installs.h"
#include "config/jobs.h"
#include "wire/login.h"

#define POLL_NS (200 * LB_NS_PER_MS)
#define ASKED_S_MAX 300 /* for a process server's word after a restart */
#define PORT_DEFAULT 22

static int check_order(json_t *order)
{
	const char *action = "", *host = "", *user = "", *name = "";
	uint32_t port = PORT_DEFAULT;
	int r;

	r = lb_json_get_str(order, "action", &action);
	if (r == 0)
		r = lb_json_get_str(order, "host", &host);
	if (r == 0)
		r = lb_json_get_str(order, "user", &user);
	if (r == 0)
		r = lb_json_get_str(order, "name", &name);
	if (r == 0)
		r = lb_name_check("machine", name);
	if (r == 0 && json_object_get(order, "port") != NULL)
		r = lb_json_get_u32(order, "port", UINT16_MAX, &port);
	if (r < 0)
		return r;
	if (strcmp(action, "assess") != 0 && strcmp(action, "install") != 0 && strcmp(action, "upgrade") != 0 &&
	    strcmp(action, "remove") != 0)
		return lb_fail(-EINVAL, "a push install can assess, install, upgrade or remove, not \"%.40s\"", action);
	if (*host == '\0' || strlen(host) > 253 || *host == '-' || *user == '\0' || strlen(user) > 64 || port == 0)
		return lb_fail(-EINVAL, "host, port or user can't be right");
	if (json_object_get(order, "key") == NULL && json_object_get(order, "password") == NULL)
		return lb_fail(-EINVAL, "a login needs a key or a password");
	return json_object_set_new(order, "port", json_integer(port));
}

/* The machine is enrolled by a token of its own name, good once. */
static int add_token(struct lb_site *site, json_t *order, const char *made_by)
{
	struct lb_reg_token token = {.kind = "machine", .role = LB_ROLE_MACHINE};
	char text[LB_TOKEN_TEXT_BYTES], url[400];
	const char *host = site->settings.hosts[0];
	int r;

	snprintf(token.name, sizeof(token.name), "%s", json_string_value(json_object_get(order, "name")));
	token.replaces = json_is_true(json_object_get(order, "replace"));
	token.expires_ns = lb_now_ns(site->env) + LB_TOKEN_VALID_S_DEFAULT * LB_NS_PER_S;
	r = lb_reg_token_make(site, &token, made_by, text);
	if (r < 0)
		return r;
	snprintf(url, sizeof(url), strchr(host, ':') != NULL ? "https://[%s]:%u" : "https://%s:%u", host,
		 (unsigned int)site->settings.port);
	r = json_object_set_new(order, "token", json_string(text)) |
	    json_object_set_new(order, "config_url", json_string(url)) |
	    json_object_set_new(order, "ca_fingerprint", json_string(site->ca_fingerprint));
	lb_wipe(text, sizeof(text));
	return r < 0 ? lb_fail(-ENOMEM, "out of memory for a push install") : 0;
}

static int choose(struct lb_site *site, const json_t *order, struct lb_reg_process *ret_process)
{
	const char *wanted;
	int r;

	r = lb_api_optional_str(order, "process", &wanted);
	if (r < 0)
		return r;
	return wanted != NULL ? lb_reg_process_find(site->db, wanted, ret_process)
			      : lb_reg_process_choose(site->db, 0, "", ret_process);
}

static int submit(struct lb_site *site, json_t *order, const struct lb_reg_process *p, const char *made_by,
		  char ret_job[LB_UUID_TEXT_BYTES])
{
	const char *host = json_string_value(json_object_get(order, "host"));
	_cleanup_json_ json_t *request = NULL;
	char id[LB_UUID_TEXT_BYTES], target[65];
	int r;

	snprintf(target, sizeof(target), "%s", host);
	r = lb_site_uuid(site, id);
	if (r < 0)
		return r;
	request = json_pack("{s:s,s:O,s:s,s:s,s:s}", "install", id, "action", json_object_get(order, "action"), "host",
			    host, "process", p->name, "process_id", p->id);
	if (request == NULL || json_object_set_new(order, "id", json_string(id)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a push install");
	r = lb_installs_add(site->installs, id, p->id, order);
	if (r < 0)
		return r;
	r = lb_job_submit(site, "install", target, request, made_by, ret_job);
	if (r < 0)
		lb_installs_remove(site->installs, id);
	return r;
}

int lb_api_install(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *order = NULL;
	struct lb_reg_process p = {0};
	char job[LB_UUID_TEXT_BYTES];
	int r;

	r = lb_api_body(call, &order);
	if (r < 0)
		return r;
	r = check_order(order);
	if (r == 0)
		r = choose(site, order, &p);
	if (r == 0 && strcmp(json_string_value(json_object_get(order, "action")), "install") == 0)
		r = add_token(site, order, call->peer.name);
	if (r == 0)
		r = submit(site, order, &p, call->peer.name, job);
	lb_install_order_wipe(order);
	if (r < 0)
		return r;
	reply->status = 202;
	reply->json = json_pack("{s:s}", "job", job);
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

int lb_api_install_report(void *arg, const struct lb_http_call *call, struct lb_http_reply *reply)
{
	struct lb_site *site = arg;
	_cleanup_json_ json_t *report = NULL;
	int r;

	r = lb_api_body(call, &report);
	if (r == 0)
		r = lb_installs_note(site->installs, call->params[0], call->peer.name, report);
	if (r < 0)
		return r;
	reply->json = json_object();
	return reply->json != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for an answer");
}

/* ---- the job ---------------------------------------------------------------------------------------------- */

static int follow(struct lb_job *job, const char *id, struct lb_install_state *now)
{
	struct lb_env *env = job->site->env;
	const int64_t asked_until_ns = lb_mono_ns(env) + ASKED_S_MAX * LB_NS_PER_S;
	char step[64] = "", text[LB_INSTALL_TEXT_BYTES] = "";
	int r;

	for (;;) {
		json_decref(now->fitness);
		now->fitness = NULL;
		r = lb_installs_get(job->site->installs, id, now);
		if (r == 0 && now->step[0] != '\0' && strcmp(step, now->step) != 0)
			r = lb_job_step(job, now->step);
		if (r == 0 && strcmp(text, now->text) != 0)
			r = lb_job_say(job, "%s", now->text);
		if (r == 0)
			r = lb_job_progress(job, 0);
		if (r < 0 || strcmp(now->state, "done") == 0)
			return r;
		if (strcmp(now->state, "failed") == 0)
			return lb_fail(-EREMOTEIO, "%s", now->text);
		if (strcmp(now->state, "asked") == 0 && lb_mono_ns(env) > asked_until_ns)
			return lb_fail(-ETIMEDOUT, "the process server does not say what has become of it");
		memcpy(step, now->step, sizeof(step));
		memcpy(text, now->text, sizeof(text));
		env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	}
}

/* After a restart the process server knows, if it was not restarted, too. */
static int expect_again(struct lb_job *job, const char *id)
{
	struct lb_install_state now = {0};
	const char *process;
	int r = lb_installs_get(job->site->installs, id, &now);

	json_decref(now.fitness);
	if (r == -ENOENT && lb_json_get_str(job->request, "process_id", &process) == 0)
		r = lb_installs_expect(job->site->installs, id, process);
	return r;
}

int lb_job_install_run(struct lb_job *job)
{
	struct lb_install_state now = {0};
	const char *id, *process;
	int r;

	r = lb_json_get_str(job->request, "install", &id);
	if (r == 0)
		r = lb_json_get_str(job->request, "process", &process);
	if (r == 0)
		r = expect_again(job, id);
	if (r == 0)
		r = lb_job_step(job, "wait for the process server");
	if (r == 0)
		r = lb_job_say(job, "%s", process);
	if (r == 0)
		r = follow(job, id, &now);
	if (now.fitness != NULL)
		json_object_set_new(job->result, "fitness", now.fitness);
	if (r == -ESHUTDOWN)
		return r;
	lb_installs_remove(job->site->installs, id != NULL ? id : "");
	return r;
}
