/* SPDX-License-Identifier: Apache-2.0 */
#include "config/failovers.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"
#include "config/target.h"

json_t *lb_failover_json(const struct lb_failover_report *report, enum lb_vm_state state)
{
	json_t *forwards = json_array(), *object, *more;
	char id[LB_UUID_TEXT_BYTES];

	lb_uuid_format(&report->machine, id);
	for (uint32_t i = 0; i < report->n_forwards; i++) {
		const struct lb_vm_forward *f = &report->forwards[i];

		json_array_append_new(forwards, json_pack("{s:s,s:i,s:i}", "address", f->address, "host_port",
							  (int)f->host_port, "guest_port", (int)f->guest_port));
	}
	object = json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:b,s:I,s:s,s:o}", "name", report->vm_name, "machine", id,
			   "machine_name", report->machine_name, "kind",
			   report->kind == LB_FAILOVER_LIVE ? "live" : "test", "state", lb_vm_state_name(state),
			   "point_ns", (json_int_t)report->point_time_ns, "epoch", (json_int_t)report->position.epoch,
			   "seq", (json_int_t)report->position.seq, "committed", (int)report->committed, "rto_ms",
			   (json_int_t)report->rto_ms, "console", report->console_path, "forwards", forwards);
	more = json_pack("{s:s,s:s,s:s,s:I,s:I,s:b}", "step", lb_failover_step_name(report->next), "fabric",
			 report->fabric != NULL ? report->fabric : "", "warning",
			 report->warning != NULL ? report->warning : "", "started_ns", (json_int_t)report->started_ns,
			 "running_ns", (json_int_t)report->running_ns, "cleaning", (int)report->cleaning);
	if (object == NULL || more == NULL || json_object_update(object, more) < 0 ||
	    json_object_update_new(object,
				   json_pack("{s:s,s:s,s:s,s:s}", "network", report->network, "mac", report->mac,
					     "address", report->address, "mended", report->mended)) < 0) {
		json_decref(object);
		object = NULL;
	}
	json_decref(more);
	return object;
}

struct search {
	const char *machine, *except;
	bool there;
};

static int look_for_live(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct search *s = arg;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	lb_uuid_format(&report->machine, id);
	if (report->kind == LB_FAILOVER_LIVE && strcmp(id, s->machine) == 0 &&
	    (s->except == NULL || strcmp(report->vm_name, s->except) != 0))
		s->there = true;
	return 0;
}

static int look_for_name(void *arg, const char *name, bool is_dir)
{
	struct search *s = arg;

	s->there = s->there || (is_dir && strcmp(name, s->machine) == 0);
	return 0;
}

/* By its folder: no fabric is asked. */
int lb_failovers_has(struct lb_site *site, const char *double_name, bool *ret_there)
{
	struct search s = {.machine = double_name};
	int r;

	r = site->env->ops->list(site->env, site->settings.vm_folder, look_for_name, &s);
	if (r < 0 && r != -ENOENT)
		return lb_fail(r, "the doubles in %s can't be listed: %s", site->settings.vm_folder, strerror(-r));
	*ret_there = s.there;
	return 0;
}

bool lb_failovers_is_unfinished(const struct lb_failover_report *report)
{
	return report->kind == LB_FAILOVER_LIVE && report->next != LB_STEP_DONE && !report->committed &&
	       !report->cleaning;
}

int lb_failovers_live_of(struct lb_site *site, const char *machine, const char *except, bool *ret_there)
{
	struct search s = {.machine = machine, .except = except};
	int r;

	r = lb_failover_list(site->env, site->settings.vm_folder, look_for_live, &s);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_there = s.there;
	return 0;
}

/* Through its network, or user-mode networking's way to this host. */
void lb_failovers_told_url(const struct lb_site *site, bool networked, char url[LB_TOLD_URL_BYTES])
{
	const struct lb_settings *s = &site->settings;
	const char *host = !networked ? lb_double_host(s) : s->double_host != NULL ? s->double_host : s->hosts[0];

	snprintf(url, LB_TOLD_URL_BYTES, strchr(host, ':') != NULL ? "https://[%s]:%u" : "https://%s:%u", host,
		 (unsigned int)s->port);
}

static int set_told(struct lb_site *site, const json_t *body, struct lb_failover_request *q)
{
	char url[LB_TOLD_URL_BYTES];

	lb_failovers_told_url(site, q->network != NULL, url);
	/* kept with the body, as the other texts are */
	if (json_object_set_new((json_t *)(uintptr_t)body, "told_url", json_string(url)) < 0)
		return lb_fail(-ENOMEM, "out of memory for a failover");
	q->config_url = json_string_value(json_object_get(body, "told_url"));
	q->ca_fingerprint = site->ca_fingerprint;
	return 0;
}

int lb_failover_request_read(struct lb_site *site, const json_t *body, struct lb_failover_request *ret_request,
			     struct lb_vm_forward *forwards)
{
	struct lb_failover_request q = {.vault_url = site->settings.vault,
					.secret = {.passphrase_file = site->passphrase_path},
					.vm_folder = site->settings.vm_folder,
					.fabric = site->settings.fabric};
	int r;

	/* texts stay the body's own: what it lacks is put into it */
	r = lb_target_fill(site, (json_t *)(uintptr_t)body);
	if (r < 0)
		return r;
	r = lb_failover_request_parse(body, &q, forwards);
	r = r < 0 || q.kind != LB_FAILOVER_LIVE ? r : set_told(site, body, &q);
	if (r < 0)
		return r;
	*ret_request = q;
	return 0;
}
