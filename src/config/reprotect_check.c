/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the way back is clear, before anything is begun: the double, its link, ports, room, the vault, the target. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/doubles.h"
#include "config/failovers.h"
#include "config/reprotect.h"
#include "config/temporary.h"

#define POLL_NS (500 * LB_NS_PER_MS)

struct check {
	struct lb_job *job;
	struct lb_site *site;
	struct lb_failover_report report; /* names in it are gone: what is kept is below */
	char machine[LB_UUID_TEXT_BYTES], name[LB_REG_NAME_BYTES];
	json_t *findings;
	unsigned int errors;
};

static int found(struct check *c, const char *level, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static int found(struct check *c, const char *level, const char *what, const char *fmt, ...)
{
	char text[600];
	json_t *one;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->errors += strcmp(level, "error") == 0;
	one = json_pack("{s:s,s:s,s:s}", "level", level, "what", what, "text", text);
	lb_err_clear();
	return json_array_append_new(c->findings, one) < 0 ? lb_fail(-ENOMEM, "out of memory for findings") : 0;
}

static int check_double(struct check *c)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	const char *name = c->job->target;
	enum lb_vm_state state = LB_VM_ABSENT;
	int r;

	r = lb_job_double_open(c->job, &f);
	if (r < 0)
		return r;
	lb_failover_report(f, &c->report);
	lb_uuid_format(&c->report.machine, c->machine);
	snprintf(c->name, sizeof(c->name), "%s", c->report.machine_name);
	if (lb_failover_state(f, &state) < 0)
		return found(c, "error", "double", "%s: %s", name, lb_err_text());
	if (c->report.kind != LB_FAILOVER_LIVE)
		return found(c, "error", "double", "%s is a test: only what was failed over goes back", name);
	if (!c->report.committed)
		return found(c, "error", "double",
			     "%s is not committed: `lifeboat failover commit %s` first; until then another recovery "
			     "point may still be chosen",
			     name, name);
	if (c->report.shut)
		return found(c, "error", "double", "%s is shut down: its machine is on its way home already", name);
	if (state != LB_VM_RUNNING)
		return found(c, "error", "double", "%s is %s: it replicates only while it runs", name,
			     lb_vm_state_name(state));
	return found(c, "ok", "double", "%s is committed and runs", name);
}

/* That it has asked is the proof: of its agent, of its link, of our address as it knows it. */
static int check_link(struct check *c)
{
	struct lb_env *env = c->site->env;
	int64_t until_ns = lb_mono_ns(env) + LB_REPROTECT_LOOK_S * LB_NS_PER_S, asked_ns = 0;
	const char *name = c->job->target;
	int r = 0;

	if (!c->report.told)
		return found(
			c, "error", "link",
			"%s was made without this server and knows of none: enrol the agent in it by hand "
			"(`lifeboat-mobility enrol`), or take it home without reprotect (`lifeboat failback start %s`)",
			name, name);
	for (;;) {
		asked_ns = lb_doubles_asked_ns(c->site, name);
		if (lb_now_ns(env) - asked_ns < LB_REPROTECT_ASKED_S * LB_NS_PER_S)
			return found(c, "ok", "link", "its agent asked this server %" PRId64 " s ago",
				     (lb_now_ns(env) - asked_ns) / LB_NS_PER_S);
		if (lb_mono_ns(env) > until_ns)
			return found(
				c, "error", "link",
				"the agent in %s does not ask this server: look on it at `lifeboat-mobility status` "
				"and journalctl -u lifeboat-mobility, and whether it reaches this host (double_host "
				"in config.conf)",
				name);
		r = lb_job_check(c->job);
		if (r < 0)
			return r;
		env->ops->wait_until(env, lb_mono_ns(env) + POLL_NS, -1);
	}
}

static int check_name(struct check *c)
{
	_cleanup_(lb_reg_machine_clear) struct lb_reg_machine m = {0};
	char back[LB_REG_NAME_BYTES + sizeof(LB_BACK_SUFFIX)];
	int r;

	snprintf(back, sizeof(back), "%s" LB_BACK_SUFFIX, c->name);
	if (lb_name_check("machine", back) < 0)
		return found(c, "error", "name", "%s", lb_err_text());
	r = lb_reg_machine_find(c->site->db, back, &m);
	if (r == 0)
		return found(c, "error", "name",
			     "there is a machine %s, and the double would have this name: remove it", back);
	return r == -ENOENT ? found(c, "ok", "name", "it will be machine %s", back) : r;
}

static int check_host(struct check *c)
{
	char size[LB_SIZE_TEXT_BYTES];
	uint64_t free_bytes = 0;
	uint16_t port = 0;
	int r;

	if (lb_temporary_check_port(c->site, &port) < 0)
		r = found(c, "error", "port", "%s", lb_err_text());
	else
		r = found(c, "ok", "port", "port %u for the temporary process server", port);
	if (r < 0)
		return r;
	if (lb_temporary_check_room(c->site, &free_bytes) < 0)
		return found(c, "error", "room", "%s", lb_err_text());
	return found(c, "ok", "room", "%s free for its cache", lb_size_format(free_bytes, size));
}

static int check_vault(struct check *c)
{
	if (lb_vault_copy_write(c->site) < 0)
		return found(c, "error", "vault", "the vault can't be written to: %s", lb_err_text());
	return found(c, "ok", "vault", "the vault takes what is written");
}

static int check_target(struct check *c)
{
	const char *server = json_string_value(json_object_get(c->job->request, "target"));
	_cleanup_json_ json_t *findings = NULL;
	const json_t *one;
	size_t i;
	int r;

	if (server == NULL)
		return found(c, "warning", "target",
			     "no target server is named: what replicates back rests in the vault until one follows it");
	r = lb_reprotect_target_check(c->job, c->machine, &findings);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r;
	if (r < 0)
		return found(c, "error", "target", "%s", lb_err_text());
	json_array_foreach(findings, i, one)
	{
		const char *level = json_string_value(json_object_get(one, "level")),
			   *text = json_string_value(json_object_get(one, "text"));

		r = level != NULL && text != NULL ? found(c, level, "target", "%s: %s", server, text) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static const char *first_error(const json_t *findings)
{
	const json_t *one;
	size_t i;

	json_array_foreach(findings, i, one)
	{
		if (strcmp(json_string_value(json_object_get(one, "level")), "error") == 0)
			return json_string_value(json_object_get(one, "text"));
	}
	return "";
}

int lb_reprotect_check(struct lb_job *job, json_t **ret_findings)
{
	_cleanup_json_ json_t *findings = json_array();
	struct check c = {.job = job, .site = job->site, .findings = findings};
	int r;

	r = check_double(&c);
	r = r < 0 ? r : check_name(&c);
	r = r < 0 ? r : check_host(&c);
	r = r < 0 ? r : check_vault(&c);
	/* what waits for others comes last, and only when the rest is well */
	r = r < 0 || c.errors > 0 ? r : check_link(&c);
	r = r < 0 || c.errors > 0 ? r : check_target(&c);
	if (r < 0)
		return r;
	*ret_findings = json_incref(findings);
	if (c.errors > 0)
		return lb_fail(-EINVAL, "the way back of %s is not clear: %s", job->target, first_error(findings));
	return 0;
}
