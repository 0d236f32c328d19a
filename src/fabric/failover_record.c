/* SPDX-License-Identifier: Apache-2.0 */
/* failover.json: what is going to be done, and how far it is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/failover_internal.h"

static const char *const kind_names[] = {[LB_FAILOVER_TEST] = "test", [LB_FAILOVER_LIVE] = "live"};
static const char *const step_names[] = {
	[LB_STEP_POINT] = "point",       [LB_STEP_FENCE] = "fence", [LB_STEP_PIN] = "pin",   [LB_STEP_SERVE] = "serve",
	[LB_STEP_OVERLAYS] = "overlays", [LB_STEP_START] = "start", [LB_STEP_MEND] = "mend", [LB_STEP_WAIT] = "wait",
	[LB_STEP_PULL] = "pull",         [LB_STEP_DONE] = "done",
};

static int name_index(const char *const *names, size_t n, const char *text, const char *what, int *ret_index)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(names[i], text) == 0) {
			*ret_index = (int)i;
			return 0;
		}
	}
	return lb_fail(-EBADMSG, "\"%.40s\" is no %s", text, what);
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static json_t *disks_json(const struct lb_failover *f)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < f->vm.n_disks; i++)
		json_array_append_new(list,
				      json_pack("{s:I,s:I,s:s,s:b,s:b}", "id", (json_int_t)f->disks[i].id, "size_bytes",
						(json_int_t)f->disks[i].size_bytes, "serial", f->vm.disks[i].serial,
						"boot", f->vm.disks[i].boot, "whole", f->disks[i].whole));
	return list;
}

static json_t *forwards_json(const struct lb_failover *f)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < f->vm.n_forwards; i++)
		json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:b}", "address", f->vm.forwards[i].address,
						      "host_port", (int)f->vm.forwards[i].host_port, "guest_port",
						      (int)f->vm.forwards[i].guest_port, "chosen", f->port_chosen[i]));
	return list;
}

static int set_vm(json_t *j, const struct lb_failover *f)
{
	int r;

	r = lb_json_set_str(j, "vm_name", f->vm.name);
	r = r < 0 ? r : lb_json_set_uuid(j, "vm_uuid", &f->vm.uuid);
	r = r < 0 ? r : lb_json_set_str(j, "fabric", f->fabric_name);
	r = r < 0 ? r : lb_json_set_str(j, "firmware", f->vm.firmware);
	r = r < 0 ? r : lb_json_set_u64(j, "memory_bytes", f->vm.memory_bytes);
	r = r < 0 ? r : lb_json_set_u64(j, "cpus", f->vm.cpus);
	r = r < 0 ? r : lb_json_set_u64(j, "bus", f->vm.bus);
	r = r < 0 ? r : lb_json_set_bool(j, "isolated", f->vm.isolated);
	r = r < 0 ? r : lb_json_set_str(j, "network", f->vm.network);
	r = r < 0 ? r : lb_json_set_str(j, "mac", f->vm.mac);
	r = r < 0 ? r : lb_json_set_str(j, "address", f->vm.address);
	r = r < 0 ? r : json_object_set_new(j, "disks", disks_json(f)) < 0 ? -ENOMEM : 0;
	return r < 0 ? r : json_object_set_new(j, "forwards", forwards_json(f)) < 0 ? -ENOMEM : 0;
}

static int set_source(json_t *j, const struct lb_failover *f)
{
	int r;

	r = lb_json_set_str(j, "vault_url", f->vault_url);
	/* where the secrets are, never what they are */
	if (r == 0 && f->passphrase_file != NULL)
		r = lb_json_set_str(j, "passphrase_file", f->passphrase_file);
	if (r == 0 && f->key_file != NULL)
		r = lb_json_set_str(j, "key_file", f->key_file);
	r = r < 0 ? r : lb_json_set_uuid(j, "machine", &f->machine);
	r = r < 0 ? r : lb_json_set_str(j, "machine_name", f->machine_name);
	r = r < 0 ? r : lb_json_set_str(j, "point_text", f->point_text);
	r = r < 0 ? r : lb_json_set_u64(j, "epoch", f->point.position.epoch);
	r = r < 0 ? r : lb_json_set_u64(j, "seq", f->point.position.seq);
	r = r < 0 ? r : lb_json_set_i64(j, "point_time_ns", f->point.time_ns);
	return r < 0 ? r : lb_json_set_u64(j, "point_flags", f->point.flags);
}

static int set_mend(json_t *j, const struct lb_failover *f)
{
	int r;

	r = lb_json_set_bool(j, "mend", true);
	r = r < 0 ? r : lb_json_set_bool(j, "mend_required", f->mend_required);
	r = r < 0 ? r : lb_json_set_bool(j, "mend_done", f->mend_done);
	r = r < 0 ? r : lb_json_set_u64(j, "bus_unmended", f->bus_unmended);
	return r < 0 || f->mended == NULL ? r : lb_json_set_str(j, "mended", f->mended);
}

static int set_progress(json_t *j, const struct lb_failover *f)
{
	int r;

	r = lb_json_set_str(j, "next", step_names[f->next]);
	r = r < 0 ? r : lb_json_set_bool(j, "fenced", f->fenced);
	r = r < 0 ? r : lb_json_set_bool(j, "pinned", f->pinned);
	r = r < 0 ? r : lb_json_set_bool(j, "teardown", f->teardown);
	r = r < 0 ? r : lb_json_set_bool(j, "committed", f->committed);
	r = r < 0 ? r : lb_json_set_bool(j, "cleaning", f->cleaning);
	r = r < 0 ? r : lb_json_set_bool(j, "shut", f->shut);
	r = r < 0 ? r : lb_json_set_bool(j, "taken", f->taken);
	r = r < 0 ? r : lb_json_set_i64(j, "started_ns", f->started_ns);
	r = r < 0 ? r : lb_json_set_i64(j, "running_ns", f->running_ns);
	r = r < 0 ? r : lb_json_set_u64(j, "wait_s", f->wait_s);
	r = r < 0 ? r : lb_json_set_u64(j, "probe_port", f->probe_port);
	if (r == 0 && f->probe_send != NULL)
		r = lb_json_set_str(j, "probe_send", f->probe_send);
	if (r == 0 && f->warning != NULL)
		r = lb_json_set_str(j, "warning", f->warning);
	if (r == 0 && f->mend)
		r = set_mend(j, f);
	if (r == 0 && f->config_url != NULL)
		r = lb_json_set_str(j, "config_url", f->config_url);
	if (r == 0 && f->ca_fingerprint != NULL)
		r = lb_json_set_str(j, "ca_fingerprint", f->ca_fingerprint);
	return r < 0 ? r : lb_json_set_bool(j, "no_pull", f->no_pull);
}

int lb_record_save(struct lb_failover *f)
{
	_cleanup_json_ json_t *j = json_object();
	_cleanup_free_ char *text = NULL, *path = NULL;
	int r;

	r = j == NULL ? -ENOMEM : lb_json_set_u64(j, "version", LB_RECORD_VERSION);
	r = r < 0 ? r : lb_json_set_str(j, "kind", kind_names[f->kind]);
	r = r < 0 ? r : set_source(j, f);
	r = r < 0 ? r : set_vm(j, f);
	r = r < 0 ? r : set_progress(j, f);
	if (r < 0)
		return lb_fail(r, "the record of VM %s can't be made", f->vm.name);
	text = json_dumps(j, JSON_INDENT(1));
	if (text == NULL || asprintf(&path, "%s/" LB_RECORD_FILE, f->vm.folder) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_file_write(f->env, path, text, strlen(text), 0600);
	lb_fault_place("double %s: noted: next %s%s%s%s%s%s%s%s", f->vm.name, step_names[f->next],
		       f->fenced ? ", fenced" : "", f->pinned ? ", pinned" : "", f->teardown ? ", teardown" : "",
		       f->committed ? ", committed" : "", f->cleaning ? ", cleaning" : "", f->shut ? ", shut" : "",
		       f->taken ? ", taken" : "");
	return r;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static int get_copy(const json_t *j, const char *member, bool required, char **ret_text)
{
	const char *text;
	int r;

	if (!required && json_object_get(j, member) == NULL)
		return 0;
	r = lb_json_get_str(j, member, &text);
	if (r < 0)
		return r;
	free(*ret_text);
	*ret_text = strdup(text);
	return *ret_text != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

static int get_disk(const json_t *j, struct lb_failover *f, uint32_t n)
{
	struct lb_vm_disk *disk = &f->vm.disks[n];
	int r;

	r = lb_json_get_u32(j, "id", UINT16_MAX, &f->disks[n].id);
	r = r < 0 ? r : lb_json_get_u64(j, "size_bytes", &f->disks[n].size_bytes);
	r = r < 0 ? r : lb_json_get_text(j, "serial", disk->serial, sizeof(disk->serial));
	r = r < 0 ? r : lb_json_get_bool(j, "boot", &disk->boot);
	r = r < 0 ? r : lb_json_get_bool(j, "whole", &f->disks[n].whole);
	if (r < 0)
		return r;
	if (asprintf(&disk->path, "%s/disk%u.qcow2", f->vm.folder, n) < 0 ||
	    asprintf(&disk->nbd_socket, "%s/nbd%u.sock", f->vm.folder, n) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return 0;
}

static int get_forward(const json_t *j, struct lb_failover *f, uint32_t n)
{
	struct lb_vm_forward *forward = &f->vm.forwards[n];
	uint32_t host_port = 0, guest_port = 0;
	int r;

	r = lb_json_get_text(j, "address", forward->address, sizeof(forward->address));
	r = r < 0 ? r : lb_json_get_u32(j, "host_port", UINT16_MAX, &host_port);
	r = r < 0 ? r : lb_json_get_u32(j, "guest_port", UINT16_MAX, &guest_port);
	r = r < 0 ? r : lb_json_get_bool(j, "chosen", &f->port_chosen[n]);
	forward->host_port = (uint16_t)host_port;
	forward->guest_port = (uint16_t)guest_port;
	return r;
}

static int get_list(const json_t *j, const char *member, uint32_t max, struct lb_failover *f, uint32_t *ret_n,
		    int (*fn)(const json_t *j, struct lb_failover *f, uint32_t n))
{
	const json_t *list = json_object_get(j, member);
	size_t n = json_array_size(list);
	int r;

	if (!json_is_array(list) || n > max)
		return lb_fail(-EBADMSG, "%s is no list of at most %u", member, max);
	for (size_t i = 0; i < n; i++) {
		r = fn(json_array_get(list, i), f, (uint32_t)i);
		if (r < 0)
			return r;
	}
	*ret_n = (uint32_t)n;
	return 0;
}

/* Older records lack it. */
static int get_if_there(const json_t *j, const char *member, char *text, size_t size_bytes)
{
	return json_object_get(j, member) != NULL ? lb_json_get_text(j, member, text, size_bytes) : 0;
}

static int get_vm(const json_t *j, struct lb_failover *f)
{
	uint32_t bus = 0;
	int r;

	r = lb_json_get_text(j, "vm_name", f->vm.name, sizeof(f->vm.name));
	r = r < 0 ? r : lb_json_get_uuid(j, "vm_uuid", &f->vm.uuid);
	r = r < 0 ? r : lb_json_get_text(j, "fabric", f->fabric_name, sizeof(f->fabric_name));
	r = r < 0 ? r : lb_json_get_text(j, "firmware", f->vm.firmware, sizeof(f->vm.firmware));
	r = r < 0 ? r : lb_json_get_u64(j, "memory_bytes", &f->vm.memory_bytes);
	r = r < 0 ? r : lb_json_get_u32(j, "cpus", LB_VM_CPUS_MAX, &f->vm.cpus);
	r = r < 0 ? r : lb_json_get_u32(j, "bus", LB_VM_SATA, &bus);
	r = r < 0 ? r : lb_json_get_bool(j, "isolated", &f->vm.isolated);
	r = r < 0 ? r : lb_json_get_text(j, "network", f->vm.network, sizeof(f->vm.network));
	r = r < 0 ? r : get_if_there(j, "mac", f->vm.mac, sizeof(f->vm.mac));
	r = r < 0 ? r : get_if_there(j, "address", f->vm.address, sizeof(f->vm.address));
	r = r < 0 ? r : get_list(j, "disks", LB_VM_DISKS_MAX, f, &f->vm.n_disks, get_disk);
	r = r < 0 ? r : get_list(j, "forwards", LB_VM_FORWARDS_MAX, f, &f->vm.n_forwards, get_forward);
	f->vm.bus = (enum lb_vm_bus)bus;
	return r;
}

static int get_source(const json_t *j, struct lb_failover *f)
{
	int r;

	r = get_copy(j, "vault_url", true, &f->vault_url);
	r = r < 0 ? r : get_copy(j, "passphrase_file", false, &f->passphrase_file);
	r = r < 0 ? r : get_copy(j, "key_file", false, &f->key_file);
	r = r < 0 ? r : lb_json_get_uuid(j, "machine", &f->machine);
	r = r < 0 ? r : lb_json_get_text(j, "machine_name", f->machine_name, sizeof(f->machine_name));
	r = r < 0 ? r : get_copy(j, "point_text", true, &f->point_text);
	r = r < 0 ? r : lb_json_get_u64(j, "epoch", &f->point.position.epoch);
	r = r < 0 ? r : lb_json_get_u64(j, "seq", &f->point.position.seq);
	r = r < 0 ? r : lb_json_get_i64(j, "point_time_ns", &f->point.time_ns);
	f->point.until_ns = f->point.time_ns;
	return r < 0 ? r : lb_json_get_u32(j, "point_flags", UINT32_MAX, &f->point.flags);
}

static int get_mend(const json_t *j, struct lb_failover *f)
{
	uint32_t bus = 0;
	int r;

	if (json_object_get(j, "mend") == NULL) /* it was not asked for; older records */
		return 0;
	r = lb_json_get_bool(j, "mend", &f->mend);
	r = r < 0 ? r : lb_json_get_bool(j, "mend_required", &f->mend_required);
	r = r < 0 ? r : lb_json_get_bool(j, "mend_done", &f->mend_done);
	r = r < 0 ? r : lb_json_get_u32(j, "bus_unmended", LB_VM_SATA, &bus);
	f->bus_unmended = (enum lb_vm_bus)bus;
	return r < 0 ? r : get_copy(j, "mended", false, &f->mended);
}

static int get_progress(const json_t *j, struct lb_failover *f)
{
	const char *text;
	int r, next = 0, kind = 0;

	r = lb_json_get_str(j, "next", &text);
	r = r < 0 ? r : name_index(step_names, LB_ARRAY_LEN(step_names), text, "step", &next);
	r = r < 0 ? r : lb_json_get_str(j, "kind", &text);
	r = r < 0 ? r : name_index(kind_names, LB_ARRAY_LEN(kind_names), text, "kind of failover", &kind);
	f->next = (enum lb_failover_step)next;
	f->kind = (enum lb_failover_kind)kind;
	r = r < 0 ? r : lb_json_get_bool(j, "fenced", &f->fenced);
	r = r < 0 ? r : lb_json_get_bool(j, "pinned", &f->pinned);
	r = r < 0 ? r : lb_json_get_bool(j, "teardown", &f->teardown);
	r = r < 0 ? r : lb_json_get_bool(j, "committed", &f->committed);
	r = r < 0 ? r : lb_json_get_bool(j, "cleaning", &f->cleaning);
	if (r == 0 && json_object_get(j, "shut") != NULL) /* older records have none */
		r = lb_json_get_bool(j, "shut", &f->shut);
	if (r == 0 && json_object_get(j, "taken") != NULL)
		r = lb_json_get_bool(j, "taken", &f->taken);
	r = r < 0 ? r : lb_json_get_i64(j, "started_ns", &f->started_ns);
	r = r < 0 ? r : lb_json_get_i64(j, "running_ns", &f->running_ns);
	r = r < 0 ? r : lb_json_get_u32(j, "wait_s", UINT32_MAX, &f->wait_s);
	r = r < 0 ? r : lb_json_get_u32(j, "probe_port", UINT16_MAX, &f->probe_port);
	r = r < 0 ? r : get_copy(j, "probe_send", false, &f->probe_send);
	r = r < 0 ? r : get_copy(j, "warning", false, &f->warning);
	r = r < 0 ? r : get_mend(j, f);
	r = r < 0 ? r : get_copy(j, "config_url", false, &f->config_url);
	r = r < 0 ? r : get_copy(j, "ca_fingerprint", false, &f->ca_fingerprint);
	return r < 0 ? r : lb_json_get_bool(j, "no_pull", &f->no_pull);
}

int lb_record_load(struct lb_failover *f)
{
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ char *path = NULL;
	_cleanup_json_ json_t *j = NULL;
	uint64_t version = 0;
	size_t size_bytes;
	int r;

	if (asprintf(&path, "%s/" LB_RECORD_FILE, f->vm.folder) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_file_read(f->env, path, LB_RECORD_BYTES_MAX, &data, &size_bytes);
	if (r < 0)
		return r;
	r = lb_json_parse(data, size_bytes, LB_RECORD_BYTES_MAX, &j);
	r = r < 0 ? r : lb_json_get_u64(j, "version", &version);
	if (r == 0 && version != LB_RECORD_VERSION)
		r = lb_fail(-EBADMSG, "it has version %d and this program knows %d", (int)version, LB_RECORD_VERSION);
	r = r < 0 ? r : get_source(j, f);
	r = r < 0 ? r : get_vm(j, f);
	r = r < 0 ? r : get_progress(j, f);
	return r < 0 ? lb_wrap(r, "%s can't be used", path) : 0;
}
