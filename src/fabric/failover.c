/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/check.h"
#include "fabric/failover_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/io.h"
#include "fabric/mender.h"

const char *lb_failover_step_name(enum lb_failover_step step)
{
	static const char *const names[] = {
		[LB_STEP_POINT] = "look up the recovery point",
		[LB_STEP_FENCE] = "fence the journal",
		[LB_STEP_PIN] = "pin the recovery point",
		[LB_STEP_SERVE] = "serve the disks from the vault",
		[LB_STEP_OVERLAYS] = "make the overlays",
		[LB_STEP_MEND] = "mend the double",
		[LB_STEP_START] = "start the VM",
		[LB_STEP_WAIT] = "wait until it runs",
		[LB_STEP_PULL] = "pull its blocks in behind it",
		[LB_STEP_DONE] = "done",
	};

	return names[step];
}

void lb_failover_free(struct lb_failover *f)
{
	if (f->vault != NULL)
		lb_vault_free(f->vault);
	if (f->store != NULL)
		lb_store_free(f->store);
	if (f->fabric != NULL)
		lb_fabric_free(f->fabric);
	lb_vm_spec_clear(&f->vm);
	free(f->vault_url);
	free(f->passphrase_file);
	free(f->key_file);
	free(f->point_text);
	free(f->probe_send);
	free(f->warning);
	free(f->mended);
	free(f->config_url);
	free(f->ca_fingerprint);
	if (f->lock_fd >= 0) {
		/* closing alone would not do it while a child that another thread is starting has this descriptor too
		 */
		(void)flock(f->lock_fd, LOCK_UN);
		close(f->lock_fd);
	}
	free(f);
}

static int failover_new(struct lb_env *env, const char *vm_folder, const char *vm_name,
			struct lb_failover **ret_failover)
{
	struct lb_failover *f;
	int r;

	r = lb_vm_folder_check(vm_folder, vm_name);
	if (r < 0)
		return r;
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	f->env = env;
	f->lock_fd = -1;
	snprintf(f->vm.name, sizeof(f->vm.name), "%s", vm_name);
	if (asprintf(&f->vm.folder, "%s/%s", vm_folder, vm_name) < 0) {
		f->vm.folder = NULL;
		lb_failover_free(f);
		return lb_fail(-ENOMEM, "out of memory");
	}
	*ret_failover = f;
	return 0;
}

/* The folder is the lock: it goes with the VM. -ESTALE when another process has removed it meanwhile. */
static int lock_folder(struct lb_failover *f)
{
	struct stat opened, there;

	f->lock_fd = open(f->vm.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->lock_fd < 0 && errno == ENOENT)
		return lb_fail(-ENOENT, "there is no double %s in %s", f->vm.name, f->vm.folder);
	if (f->lock_fd < 0)
		return lb_fail(-errno, "can't open %s: %s", f->vm.folder, strerror(errno));
	if (flock(f->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return lb_fail(-EBUSY, "another process is working on double %s; try again when it has ended",
			       f->vm.name);
	if (fstat(f->lock_fd, &opened) < 0 || stat(f->vm.folder, &there) < 0 || opened.st_ino != there.st_ino)
		return lb_fail(-ESTALE, "double %s has just been removed; try again", f->vm.name);
	return 0;
}

int lb_failover_fabric(struct lb_failover *f)
{
	return f->fabric != NULL ? 0 : lb_fabric_open(f->env, f->fabric_name, &f->fabric);
}

int lb_failover_vault(struct lb_failover *f)
{
	struct lb_vault_secret secret = {.passphrase_file = f->passphrase_file, .key_file = f->key_file};
	char machine[LB_UUID_TEXT_BYTES];

	if (f->vault != NULL)
		return 0;
	lb_uuid_format(&f->machine, machine);
	return lb_recovery_vault_open(f->env, f->vault_url, &secret, machine, &f->store, &f->vault);
}

void lb_failover_serve_of(const struct lb_failover *f, uint32_t n, const struct lb_keyring *keys,
			  struct lb_serve *ret_serve)
{
	*ret_serve = (struct lb_serve){.vault_url = f->vault_url,
				       .machine = f->machine,
				       .position = f->point.position,
				       .disk = f->disks[n].id,
				       .keys = keys,
				       .folder = f->vm.folder,
				       .n = n};
}

void lb_failover_pin_name(const struct lb_failover *f, char name[LB_POINT_NAME_BYTES])
{
	char hex[2 * 6 + 1];

	lb_hex_encode(f->vm.uuid.bytes, 6, hex);
	snprintf(name, LB_POINT_NAME_BYTES, "failover-%s", hex);
}

/* ---- beginning ---------------------------------------------------------------------------------------- */

static int copy_text(const char *text, char **ret_text)
{
	if (text == NULL)
		return 0;
	*ret_text = strdup(text);
	return *ret_text != NULL ? 0 : lb_fail(-ENOMEM, "out of memory");
}

/* A full path, because whoever goes on with it may stand elsewhere. */
static int copy_path(const char *path, char **ret_path)
{
	if (path == NULL)
		return 0;
	*ret_path = realpath(path, NULL);
	return *ret_path != NULL ? 0 : lb_fail(-errno, "can't open %s: %s", path, strerror(errno));
}

static int bus_read(const char *bus, enum lb_vm_bus *ret_bus)
{
	static const char *const names[] = {"virtio", "scsi", "sata"};

	for (size_t i = 0; bus != NULL && i < LB_ARRAY_LEN(names); i++) {
		if (strcmp(bus, names[i]) == 0) {
			*ret_bus = (enum lb_vm_bus)i;
			return 0;
		}
	}
	return bus == NULL ? 0 : lb_fail(-EINVAL, "there is no bus \"%.40s\", but: virtio, scsi, sata", bus);
}

static int take_bus(struct lb_failover *f, const struct lb_failover_request *request)
{
	int r;

	r = bus_read(request->bus, &f->vm.bus);
	if (r < 0)
		return r;
	f->mend_required = request->mend_required;
	f->mend = request->mend || request->mend_required;
	f->bus_unmended = f->vm.bus;
	return bus_read(request->bus_unmended, &f->bus_unmended);
}

bool lb_failover_is_on_network(const struct lb_failover *f)
{
	return f->vm.network[0] != '\0' && lb_network_segment(f->vm.network) == NULL;
}

static int take_forwards(struct lb_failover *f, const struct lb_failover_request *request)
{
	bool probe_is_there = request->probe_port == 0 || (lb_failover_is_on_network(f) && f->vm.address[0] != '\0');
	uint32_t n = request->n_forwards;

	if (request->n_forwards > LB_VM_FORWARDS_MAX)
		return lb_fail(-E2BIG, "%u forwards are more than %d", request->n_forwards, LB_VM_FORWARDS_MAX);
	/* a double on a network is reached by its own address */
	if (n > 0 && lb_failover_is_on_network(f)) {
		if (asprintf(&f->warning, "no port of this host is forwarded: the double is on network %s",
			     f->vm.network) < 0)
			return lb_fail(-ENOMEM, "out of memory");
		n = 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		const char *address = request->forwards[i].address;

		if (strspn(address, "0123456789.") != strlen(address) || request->forwards[i].guest_port == 0)
			return lb_fail(-EINVAL, "a forward needs an IPv4 address of this host and a port of the guest");
		f->vm.forwards[i] = request->forwards[i];
		if (address[0] == '\0')
			snprintf(f->vm.forwards[i].address, sizeof(f->vm.forwards[i].address), "127.0.0.1");
		f->port_chosen[i] = request->forwards[i].host_port == 0;
		probe_is_there |= request->forwards[i].guest_port == request->probe_port;
	}
	if (!probe_is_there)
		return lb_failover_is_on_network(f)
			       ? lb_fail(-EINVAL,
					 "port %u must answer: on network %s that needs the double's address "
					 "(--address)",
					 request->probe_port, f->vm.network)
			       : lb_fail(-EINVAL, "port %u, which must answer, is not forwarded", request->probe_port);
	f->vm.n_forwards = n;
	f->probe_port = request->probe_port;
	return 0;
}

static int take_network(struct lb_failover *f, const struct lb_failover_request *request)
{
	int r = 0;

	if (request->network != NULL) {
		r = lb_network_check(request->network);
		if (r < 0)
			return r;
		snprintf(f->vm.network, sizeof(f->vm.network), "%s", request->network);
	}
	if (request->mac != NULL)
		r = lb_mac_read(request->mac, f->vm.mac);
	if (r == 0 && request->address != NULL) {
		r = lb_address_read(request->address, NULL, NULL);
		snprintf(f->vm.address, sizeof(f->vm.address), "%s", request->address);
	}
	return r;
}

static int take_request(struct lb_failover *f, const struct lb_failover_request *request)
{
	int r;

	f->kind = request->kind;
	f->wait_s = request->wait_s != 0 ? request->wait_s : LB_FAILOVER_WAIT_S;
	f->no_pull = request->no_pull || request->kind == LB_FAILOVER_TEST;
	f->vm.isolated =
		request->isolated || (request->network != NULL && lb_network_segment(request->network) != NULL);
	f->vm.memory_bytes = request->memory_bytes;
	f->vm.cpus = request->cpus;
	r = take_network(f, request);
	r = r < 0 ? r : take_bus(f, request);
	r = r < 0 ? r : take_forwards(f, request);
	r = r < 0 ? r : copy_text(request->vault_url, &f->vault_url);
	r = r < 0 ? r : copy_path(request->secret.passphrase_file, &f->passphrase_file);
	r = r < 0 ? r : copy_path(request->secret.key_file, &f->key_file);
	r = r < 0 ? r : copy_text(request->point != NULL ? request->point : "latest", &f->point_text);
	r = r < 0 ? r : copy_text(request->probe_send, &f->probe_send);
	if (r == 0 && request->kind == LB_FAILOVER_LIVE) {
		r = copy_text(request->config_url, &f->config_url);
		r = r < 0 ? r : copy_text(request->ca_fingerprint, &f->ca_fingerprint);
	}
	r = r < 0 ? r : f->env->ops->random(f->env, f->vm.uuid.bytes, sizeof(f->vm.uuid.bytes));
	/* a random UUID says so: RFC 9562, version 4 */
	f->vm.uuid.bytes[6] = (f->vm.uuid.bytes[6] & 0x0f) | 0x40;
	f->vm.uuid.bytes[8] = (f->vm.uuid.bytes[8] & 0x3f) | 0x80;
	return r;
}

/* The machine's disks as those of the VM. */
static int take_disks(struct lb_failover *f, const struct lb_catalog_item *item)
{
	bool boots = false;

	if (item->n_disks == 0 || item->n_disks > LB_VM_DISKS_MAX)
		return lb_fail(-EBADMSG, "machine %s has %u disks in the catalog", item->name, item->n_disks);
	for (uint32_t i = 0; i < item->n_disks; i++) {
		struct lb_vm_disk *disk = &f->vm.disks[i];

		f->disks[i] =
			(struct lb_failover_disk){.id = item->disks[i].id, .size_bytes = item->disks[i].size_bytes};
		disk->boot = item->disks[i].boot && !boots;
		boots |= disk->boot;
		/* a serial goes onto a command line: what can't stand there is left out */
		if (lb_name_check("serial", item->disks[i].serial) == 0)
			snprintf(disk->serial, sizeof(disk->serial), "%.20s", item->disks[i].serial);
		if (asprintf(&disk->path, "%s/disk%u.qcow2", f->vm.folder, i) < 0 ||
		    asprintf(&disk->nbd_socket, "%s/nbd%u.sock", f->vm.folder, i) < 0)
			return lb_fail(-ENOMEM, "out of memory");
	}
	lb_err_clear();
	f->vm.disks[0].boot |= !boots;
	f->vm.n_disks = item->n_disks;
	return 0;
}

static int take_machine(struct lb_failover *f, const struct lb_catalog_item *item)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (item->architecture[0] != '\0' && strcmp(item->architecture, "x86_64") != 0)
		return lb_fail(-EOPNOTSUPP, "machine %s is of architecture %s, and VMs are made for x86_64 only",
			       item->name, item->architecture);
	f->machine = item->machine;
	snprintf(f->machine_name, sizeof(f->machine_name), "%s", item->name);
	snprintf(f->vm.firmware, sizeof(f->vm.firmware), "%s", item->firmware[0] != '\0' ? item->firmware : "bios");
	if (f->vm.memory_bytes == 0)
		f->vm.memory_bytes = item->memory_bytes;
	f->vm.memory_bytes = LB_MAX(f->vm.memory_bytes, LB_VM_MEMORY_BYTES_MIN);
	if (f->vm.cpus == 0)
		f->vm.cpus = cpus > 0 ? LB_MIN(item->cpus, (uint32_t)cpus) : item->cpus;
	f->vm.cpus = LB_MIN(LB_MAX(f->vm.cpus, 1u), (uint32_t)LB_VM_CPUS_MAX);
	return take_disks(f, item);
}

/* Everything that can be wrong with a request is found before anything is made. */
static int look_up(struct lb_failover *f, const struct lb_failover_request *request)
{
	struct lb_vault_secret secret = {.passphrase_file = f->passphrase_file, .key_file = f->key_file};
	struct lb_catalog_item item;
	int r;

	r = lb_recovery_vault_open(f->env, f->vault_url, &secret, request->machine, &f->store, &f->vault);
	r = r < 0 ? r : lb_catalog_find(f->vault, request->machine, &item);
	r = r < 0 ? r : take_machine(f, &item);
	r = r < 0 ? r : lb_failover_point(f);
	r = r < 0 ? r : lb_fabric_open(f->env, request->fabric != NULL ? request->fabric : "auto", &f->fabric);
	if (r < 0)
		return r;
	snprintf(f->fabric_name, sizeof(f->fabric_name), "%s", f->fabric->ops->name);
	r = f->vm.network[0] != '\0' ? f->fabric->ops->network(f->fabric, f->vm.network) : 0;
	if (r == 0 && f->fabric->ops->address != NULL)
		r = f->fabric->ops->address(f->fabric, &f->vm);
	r = r < 0 || !f->mend_required ? r : lb_mender_check();
	return r < 0 ? lb_wrap(r, "double %s of machine %s", f->vm.name, f->machine_name)
		     : lb_failover_choose_ports(f, false);
}

static int claim_folder(struct lb_failover *f, const char *vm_folder)
{
	_cleanup_free_ char *record = lb_vm_path(&f->vm, LB_RECORD_FILE);
	int r;

	r = lb_folder_make(f->env, vm_folder, 0711);
	if (r < 0)
		return r;
	r = f->env->ops->mkdir(f->env, f->vm.folder, 0700);
	if (r < 0 && r != -EEXIST)
		return lb_fail(r, "can't make %s: %s", f->vm.folder, strerror(-r));
	r = lock_folder(f);
	if (r < 0)
		return r;
	if (record == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (access(record, F_OK) == 0)
		return lb_fail(-EEXIST, "there is a double %s already; `lifeboat failover cleanup %s` removes it",
			       f->vm.name, f->vm.name);
	return 0;
}

int lb_failover_begin(struct lb_env *env, const struct lb_failover_request *request, struct lb_failover **ret_failover)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int64_t started_ns = lb_now_ns(env);
	char name[LB_VM_NAME_BYTES + LB_MACHINE_NAME_BYTES];
	int r;

	snprintf(name, sizeof(name), "%.64s-%s", request->machine,
		 request->kind == LB_FAILOVER_TEST ? "test" : "double");
	r = failover_new(env, request->vm_folder, request->vm_name != NULL ? request->vm_name : name, &f);
	r = r < 0 ? r : take_request(f, request);
	r = r < 0 ? r : claim_folder(f, request->vm_folder);
	if (r < 0)
		return r;
	lb_fault_place("double %s: its folder is there, empty", f->vm.name);
	f->started_ns = started_ns;
	f->next = LB_STEP_FENCE;
	r = look_up(f, request);
	r = r < 0 ? r : lb_record_save(f);
	if (r < 0) {
		rmdir(f->vm.folder);
		return r;
	}
	*ret_failover = lb_steal_ptr(f);
	return 0;
}

int lb_failover_open(struct lb_env *env, const char *vm_folder, const char *vm_name, struct lb_failover **ret_failover)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = failover_new(env, vm_folder, vm_name, &f);
	r = r < 0 ? r : lock_folder(f);
	r = r < 0 ? r : lb_record_load(f);
	if (r == -ENOENT && f != NULL) {
		/* killed before its record was there, or after it was gone: nothing has been made, or nothing is left
		 */
		rmdir(f->vm.folder);
		return lb_fail(-ENOENT, "there is no double %s in %s; `lifeboat failover list` tells which there are",
			       vm_name, vm_folder);
	}
	if (r < 0)
		return r;
	/* a host that was restarted has lost what these steps had made; they find what is still there */
	if (f->next > LB_STEP_SERVE && f->next < LB_STEP_DONE)
		f->next = LB_STEP_SERVE;
	*ret_failover = lb_steal_ptr(f);
	return 0;
}

int lb_failover_secret_set(struct lb_failover *f, const struct lb_vault_secret *secret)
{
	char *passphrase_file = NULL, *key_file = NULL;
	int r;

	r = copy_path(secret->passphrase_file, &passphrase_file);
	if (r < 0)
		return r;
	r = copy_path(secret->key_file, &key_file);
	if (r < 0) {
		free(passphrase_file);
		return r;
	}
	free(f->passphrase_file);
	free(f->key_file);
	f->passphrase_file = passphrase_file;
	f->key_file = key_file;
	return lb_record_save(f);
}

/* ---- going on ------------------------------------------------------------------------------------------ */

int lb_failover_do(struct lb_failover *f)
{
	char machine_point[64];
	int r;

	if (f->cleaning)
		return lb_fail(-EINVAL, "double %s is being cleaned up; `lifeboat failover cleanup %s` finishes that",
			       f->vm.name, f->vm.name);
	if (f->next == LB_STEP_DONE)
		return 0;
	r = f->teardown ? lb_failover_teardown(f) : 0;
	r = r < 0 ? r : lb_step_do(f, f->next);
	if (r == -ECANCELED || r == -ESHUTDOWN)
		return r; /* it was told to end */
	if (r < 0) {
		snprintf(machine_point, sizeof(machine_point), "%llu:%llu", (unsigned long long)f->point.position.epoch,
			 (unsigned long long)f->point.position.seq);
		return lb_wrap(r, "double %s of machine %s at %s: can't %s", f->vm.name, f->machine_name, machine_point,
			       lb_failover_step_name(f->next));
	}
	lb_fault_place("double %s: before it is noted: %s", f->vm.name, lb_failover_step_name(f->next));
	f->next++;
	if (f->next == LB_STEP_MEND && !f->mend)
		f->next++;
	return lb_record_save(f);
}

/* A step that has nothing to do for this kind of failover is done without a word. */
static bool is_told(const struct lb_failover *f)
{
	if (f->next == LB_STEP_FENCE)
		return f->kind == LB_FAILOVER_LIVE && !f->fenced;
	if (f->next == LB_STEP_MEND)
		return f->mend && !f->mend_done;
	return f->next != LB_STEP_PULL || !f->no_pull;
}

int lb_failover_run(struct lb_failover *f, int (*step)(void *arg, enum lb_failover_step step), void *arg)
{
	int r;

	if (f->next == LB_STEP_DONE && !f->cleaning)
		return lb_failover_tend(f);
	do {
		r = step != NULL && is_told(f) ? step(arg, f->next) : 0;
		if (r == 0)
			r = lb_failover_do(f);
		if (r != 0)
			return r;
	} while (f->next != LB_STEP_DONE);
	return 0;
}

/* ---- telling -------------------------------------------------------------------------------------------- */

void lb_failover_report(const struct lb_failover *f, struct lb_failover_report *ret_report)
{
	struct lb_failover_report *p = ret_report;

	*p = (struct lb_failover_report){
		.vm_name = f->vm.name,
		.machine_name = f->machine_name,
		.fabric = f->fabric_name,
		.network = f->vm.network,
		.address = f->vm.address,
		.probe_port = f->probe_port,
		.machine = f->machine,
		.kind = f->kind,
		.position = f->point.position,
		.point_time_ns = f->point.time_ns,
		.next = f->next,
		.committed = f->committed,
		.fenced = f->fenced,
		.probed = f->probe_port != 0,
		.cleaning = f->cleaning,
		.shut = f->shut,
		.taken = f->taken,
		.told = f->config_url != NULL,
		.warning = f->warning != NULL ? f->warning : "",
		.mended = f->mended != NULL ? f->mended : "",
		.started_ns = f->started_ns,
		.running_ns = f->running_ns,
		.n_disks = f->vm.n_disks,
		.n_forwards = f->vm.n_forwards,
	};
	if (f->running_ns > f->started_ns)
		p->rto_ms = (uint64_t)((f->running_ns - f->started_ns) / LB_NS_PER_MS);
	lb_vm_mac(&f->vm, p->mac);
	memcpy(p->forwards, f->vm.forwards, sizeof(p->forwards));
	snprintf(p->console_path, sizeof(p->console_path), "%s/console.log", f->vm.folder);
}

int lb_failover_state(struct lb_failover *f, enum lb_vm_state *ret_state)
{
	int r;

	r = lb_failover_fabric(f);
	return r < 0 ? r : f->fabric->ops->state(f->fabric, &f->vm, ret_state);
}

struct listing {
	struct lb_env *env;
	const char *vm_folder;
	int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state);
	void *arg;
};

static int list_one(void *arg, const char *name, bool is_dir)
{
	struct listing *l = arg;
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	enum lb_vm_state state = LB_VM_ABSENT;
	struct lb_failover_report report;
	int r;

	if (!is_dir || failover_new(l->env, l->vm_folder, name, &f) < 0)
		return 0;
	r = lb_record_load(f);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (lb_failover_state(f, &state) < 0) {
		state = LB_VM_UNKNOWN;
		lb_err_clear();
	}
	lb_failover_report(f, &report);
	return l->fn(l->arg, &report, state);
}

int lb_failover_list(struct lb_env *env, const char *vm_folder,
		     int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state), void *arg)
{
	struct listing l = {.env = env, .vm_folder = vm_folder, .fn = fn, .arg = arg};
	int r = env->ops->list(env, vm_folder, list_one, &l);

	return r == -ENOENT ? 0 : r;
}

int lb_failover_kill(struct lb_env *env, const char *vm_folder, const char *vm_name)
{
	_cleanup_(lb_failover_freep) struct lb_failover *f = NULL;
	int r;

	r = failover_new(env, vm_folder, vm_name, &f);
	r = r < 0 ? r : lb_record_load(f);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (f->kind == LB_FAILOVER_LIVE)
		return lb_fail(-EPERM, "double %s is no test", vm_name);
	r = lb_failover_fabric(f);
	return r < 0 ? r : f->fabric->ops->stop(f->fabric, &f->vm, false);
}
