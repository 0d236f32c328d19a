/* SPDX-License-Identifier: Apache-2.0 */
#include "config/failovers.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "config/api.h"

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
	if (object == NULL || more == NULL || json_object_update(object, more) < 0) {
		json_decref(object);
		object = NULL;
	}
	json_decref(more);
	return object;
}

struct search {
	const char *machine;
	bool there;
};

static int look_for_live(void *arg, const struct lb_failover_report *report, enum lb_vm_state state)
{
	struct search *s = arg;
	char id[LB_UUID_TEXT_BYTES];

	(void)state;
	lb_uuid_format(&report->machine, id);
	if (report->kind == LB_FAILOVER_LIVE && strcmp(id, s->machine) == 0)
		s->there = true;
	return 0;
}

int lb_failovers_live_of(struct lb_site *site, const char *machine, bool *ret_there)
{
	struct search s = {.machine = machine};
	int r;

	r = lb_failover_list(site->env, site->settings.vm_folder, look_for_live, &s);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_there = s.there;
	return 0;
}

/* "tcp:[ADDRESS:]HOSTPORT:GUESTPORT" */
static int read_forward(const char *text, struct lb_vm_forward *f)
{
	_cleanup_free_ char *copy = NULL;
	char *guest, *host, *address;
	uint64_t guest_port, host_port;

	if (text == NULL || strncmp(text, "tcp:", 4) != 0 || (copy = strdup(text + 4)) == NULL)
		return lb_fail(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT");
	guest = strrchr(copy, ':');
	if (guest == NULL)
		return lb_fail(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT, not \"%.60s\"", text);
	*guest++ = '\0';
	host = strrchr(copy, ':');
	address = host != NULL ? copy : NULL;
	if (host != NULL)
		*host++ = '\0';
	else
		host = copy;
	if (lb_u64_parse(host, UINT16_MAX, &host_port) < 0 || lb_u64_parse(guest, UINT16_MAX, &guest_port) < 0)
		return lb_wrap(-EINVAL, "a forward is written tcp:HOSTPORT:GUESTPORT, not \"%.60s\"", text);
	*f = (struct lb_vm_forward){.host_port = (uint16_t)host_port, .guest_port = (uint16_t)guest_port};
	if (address != NULL && strlen(address) >= sizeof(f->address))
		return lb_fail(-EINVAL, "a forward's address is too long: \"%.60s\"", text);
	if (address != NULL)
		memcpy(f->address, address, strlen(address) + 1);
	return 0;
}

static int read_forwards(const json_t *body, struct lb_vm_forward *forwards, uint32_t *ret_n)
{
	const json_t *list = json_object_get(body, "forwards"), *one;
	size_t i;
	int r;

	if (list != NULL && !json_is_array(list))
		return lb_fail(-EINVAL, "\"forwards\" is not a list");
	if (json_array_size(list) > LB_VM_FORWARDS_MAX)
		return lb_fail(-EINVAL, "at most %d ports can be forwarded", LB_VM_FORWARDS_MAX);
	json_array_foreach(list, i, one)
	{
		r = read_forward(json_string_value(one), &forwards[i]);
		if (r < 0)
			return r;
	}
	*ret_n = (uint32_t)json_array_size(list);
	return 0;
}

static int read_numbers(const json_t *body, struct lb_failover_request *q)
{
	uint64_t cpus = 0, port = 0, wait_s = 0;
	int r = 0;

	if (json_object_get(body, "memory_bytes") != NULL)
		r = lb_json_get_u64(body, "memory_bytes", &q->memory_bytes);
	if (r == 0 && json_object_get(body, "cpus") != NULL)
		r = lb_json_get_u64(body, "cpus", &cpus);
	if (r == 0 && json_object_get(body, "probe_port") != NULL)
		r = lb_json_get_u64(body, "probe_port", &port);
	if (r == 0 && json_object_get(body, "wait_s") != NULL)
		r = lb_json_get_u64(body, "wait_s", &wait_s);
	if (r == 0 && json_object_get(body, "no_pull") != NULL)
		r = lb_json_get_bool(body, "no_pull", &q->no_pull);
	if (r < 0)
		return r;
	if (cpus > LB_VM_CPUS_MAX || port > UINT16_MAX || wait_s > 24 * 3600)
		return lb_fail(-EINVAL, "cpus, probe_port or wait_s is beyond its limit");
	q->cpus = (uint32_t)cpus;
	q->probe_port = (uint16_t)port;
	q->wait_s = (uint32_t)wait_s;
	return 0;
}

int lb_failover_request_read(struct lb_site *site, const json_t *body, struct lb_failover_request *ret_request,
			     struct lb_vm_forward *forwards)
{
	struct lb_failover_request q = {.vault_url = site->settings.vault,
					.secret = {.passphrase_file = site->passphrase_path},
					.vm_folder = site->settings.vm_folder,
					.fabric = site->settings.fabric,
					.forwards = forwards};
	const char *kind;
	int r;

	r = lb_json_get_str(body, "machine", &q.machine);
	if (r == 0)
		r = lb_json_get_str(body, "kind", &kind);
	if (r == 0)
		r = lb_api_optional_str(body, "point", &q.point);
	if (r == 0)
		r = lb_api_optional_str(body, "name", &q.vm_name);
	if (r == 0)
		r = lb_api_optional_str(body, "bus", &q.bus);
	if (r == 0)
		r = lb_api_optional_str(body, "network", &q.network);
	if (r == 0)
		r = lb_api_optional_str(body, "probe_send", &q.probe_send);
	if (r == 0)
		r = read_numbers(body, &q);
	if (r == 0)
		r = read_forwards(body, forwards, &q.n_forwards);
	if (r != 0)
		return r;
	if (strcmp(kind, "test") != 0 && strcmp(kind, "live") != 0)
		return lb_fail(-EINVAL, "a failover is of kind test or live, not \"%.40s\"", kind);
	q.kind = strcmp(kind, "live") == 0 ? LB_FAILOVER_LIVE : LB_FAILOVER_TEST;
	q.isolated = q.kind == LB_FAILOVER_TEST && q.network == NULL;
	*ret_request = q;
	return 0;
}
