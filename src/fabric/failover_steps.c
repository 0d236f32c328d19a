/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a failover. Each can be done again after a kill at any place in it. */
#include <errno.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/failover_internal.h"
#include "wire/told.h"

#define START_TRIES_MAX 4 /* a port that was free may be taken when QEMU binds it */
#define LOOK_AGAIN_MS 10

int lb_failover_point(struct lb_failover *f)
{
	int r;

	r = lb_failover_vault(f);
	return r < 0 ? r : lb_point_find(f->vault, &f->machine, f->point_text, &f->point);
}

static int step_fence(struct lb_failover *f)
{
	char reason[LB_TEXT_BYTES];
	int r;

	if (f->kind != LB_FAILOVER_LIVE || f->fenced)
		return 0;
	r = lb_failover_vault(f);
	if (r < 0)
		return r;
	snprintf(reason, sizeof(reason), "failover to %s", f->vm.name);
	r = lb_journal_fence(f->vault, &f->machine, reason);
	if (r < 0)
		return r;
	f->fenced = true;
	/* what reached the vault between looking and fencing is newer still */
	return strncmp(f->point_text, "latest", 6) == 0 ? lb_failover_point(f) : 0;
}

static int pin(struct lb_failover *f)
{
	char name[LB_POINT_NAME_BYTES];
	int r;

	r = lb_failover_vault(f);
	if (r < 0)
		return r;
	lb_failover_pin_name(f, name);
	r = lb_point_pin(f->vault, &f->machine, &f->point, name);
	if (r != -EEXIST)
		return r;
	/* ours, of a try before: perhaps of another point */
	r = lb_point_unpin(f->vault, &f->machine, name);
	return r < 0 && r != -ENOENT ? r : lb_point_pin(f->vault, &f->machine, &f->point, name);
}

static int step_pin(struct lb_failover *f)
{
	int r;

	f->pinned = true;
	r = lb_record_save(f);
	r = r < 0 ? r : pin(f);
	if (f->kind != LB_FAILOVER_TEST || (r != -EROFS && r != -EACCES))
		return r;
	/* a test from a vault that may only be read: retention might take the point away under it */
	f->pinned = false;
	free(f->warning);
	f->warning = NULL;
	if (asprintf(&f->warning, "the recovery point is not pinned: %s", lb_err_text()) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	return 0;
}

static bool all_served(struct lb_failover *f)
{
	struct lb_serve serve;

	for (uint32_t i = 0; i < f->vm.n_disks; i++) {
		lb_failover_serve_of(f, i, NULL, &serve);
		if (!f->disks[i].whole && !lb_serve_runs(f->env, &serve))
			return false;
	}
	return true;
}

static int step_serve(struct lb_failover *f)
{
	_cleanup_(lb_keyring_wipe) struct lb_keyring keys = {0};
	struct lb_serve serve;
	int r = 0;

	if (!all_served(f)) {
		r = lb_failover_vault(f);
		r = r < 0 ? r : lb_vault_keyring(f->vault, &f->machine, false, &keys);
	}
	for (int waiting = 0; waiting < 2; waiting++) {
		for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++) {
			lb_failover_serve_of(f, i, &keys, &serve);
			if (!f->disks[i].whole)
				r = waiting ? lb_serve_wait(f->env, &serve) : lb_serve_begin(f->env, &serve);
		}
	}
	return r;
}

/* One whose VM has died between the end of a pull and its flush: what it lacks is still in the vault. */
static int mend_overlay(struct lb_failover *f, uint32_t n)
{
	const struct lb_vm_disk *disk = &f->vm.disks[n];
	bool rests;
	int r;

	r = lb_overlay_rests(f->env, disk->path, &rests);
	return r < 0 || rests ? r : lb_overlay_reattach(f->env, disk->path, disk->nbd_socket);
}

static int step_overlays(struct lb_failover *f)
{
	enum lb_vm_state state;
	int r;

	r = lb_failover_state(f, &state);
	r = r < 0 ? r : lb_failover_unmend(f);
	for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++) {
		r = lb_overlay_make(f->env, f->vm.disks[i].path, f->vm.disks[i].nbd_socket, f->disks[i].size_bytes);
		if (r == 0 && !f->disks[i].whole && (state == LB_VM_STOPPED || state == LB_VM_ABSENT))
			r = mend_overlay(f, i);
	}
	return r;
}

static int free_port(const char *address, uint16_t *ret_port)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(in);

	if (fd < 0 || inet_pton(AF_INET, address, &in.sin_addr) != 1 ||
	    bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || getsockname(fd, (struct sockaddr *)&in, &size) < 0)
		return lb_fail(-EADDRNOTAVAIL, "no port can be had on address %s", address);
	*ret_port = ntohs(in.sin_port);
	return 0;
}

int lb_failover_choose_ports(struct lb_failover *f, bool again)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < f->vm.n_forwards; i++)
		if (f->port_chosen[i] && (again || f->vm.forwards[i].host_port == 0))
			r = free_port(f->vm.forwards[i].address, &f->vm.forwards[i].host_port);
	return r;
}

static bool any_port_chosen(const struct lb_failover *f)
{
	for (uint32_t i = 0; i < f->vm.n_forwards; i++)
		if (f->port_chosen[i])
			return true;
	return false;
}

/* How the agent in the double learns that it is one. */
static int set_oem_strings(struct lb_failover *f)
{
	char machine[LB_UUID_TEXT_BYTES];

	if (f->vm.n_oem_strings != 0)
		return 0;
	lb_uuid_format(&f->machine, machine);
	if (asprintf(&f->vm.oem_strings[0], "lifeboat:double=%s", machine) < 0 ||
	    asprintf(&f->vm.oem_strings[1], "lifeboat:failover=%s", f->kind == LB_FAILOVER_TEST ? "test" : "live") < 0)
		return lb_fail(-ENOMEM, "out of memory");
	f->vm.n_oem_strings = 2;
	return 0;
}

/* How it may become a machine of its own. The secret lasts as long as what the double has written. */
static int tell(struct lb_failover *f)
{
	_cleanup_(lb_told_wipe) struct lb_told told;
	_cleanup_free_ char *path = lb_vm_path(&f->vm, LB_TOLD_FILE);
	int r;

	if (f->config_url == NULL || f->ca_fingerprint == NULL)
		return 0;
	r = path == NULL ? lb_fail(-ENOMEM, "out of memory") : lb_told_read(f->env, path, &told);
	if (r == -ENOENT) {
		r = lb_told_make(f->env, f->config_url, f->ca_fingerprint, &told);
		r = r < 0 ? r : lb_told_write(f->env, path, &told);
	}
	f->vm.told = r == 0;
	return r;
}

/* With another secret, under which its agent has no identity yet. The file first: killed in between it is done again.
 */
int lb_failover_tell_anew(struct lb_failover *f, const char *config_url, const char *ca_fingerprint, bool *ret_changed)
{
	_cleanup_(lb_told_wipe) struct lb_told told = {0};
	_cleanup_free_ char *path = lb_vm_path(&f->vm, LB_TOLD_FILE), *url = strdup(config_url),
			    *fingerprint = strdup(ca_fingerprint);
	int r;

	if (path == NULL || url == NULL || fingerprint == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	*ret_changed = f->ca_fingerprint == NULL || strcmp(f->ca_fingerprint, ca_fingerprint) != 0;
	if (!*ret_changed)
		return 0;
	r = lb_told_make(f->env, config_url, ca_fingerprint, &told);
	f->env->ops->unlink(f->env, path);
	r = r < 0 ? r : lb_told_write(f->env, path, &told);
	if (r < 0)
		return r;
	free(f->config_url);
	free(f->ca_fingerprint);
	f->config_url = lb_steal_ptr(url);
	f->ca_fingerprint = lb_steal_ptr(fingerprint);
	return lb_record_save(f);
}

static int step_start(struct lb_failover *f)
{
	int r;

	r = lb_failover_fabric(f);
	r = r < 0 ? r : set_oem_strings(f);
	r = r < 0 ? r : tell(f);
	for (unsigned int tries = 1; r == 0; tries++) {
		r = f->fabric->ops->create(f->fabric, &f->vm);
		r = r < 0 ? r : f->fabric->ops->start(f->fabric, &f->vm);
		if (r != -EREMOTEIO || tries == START_TRIES_MAX || !any_port_chosen(f))
			break;
		r = lb_failover_choose_ports(f, true);
		r = r < 0 ? r : f->fabric->ops->destroy(f->fabric, &f->vm);
		r = r < 0 ? r : lb_record_save(f);
	}
	return r;
}

void lb_failover_idle_set(struct lb_failover *f, int (*idle)(void *arg), void *arg)
{
	f->idle = idle;
	f->idle_arg = arg;
}

int lb_failover_idle(struct lb_failover *f)
{
	int64_t now_ns = lb_mono_ns(f->env);

	if (f->idle == NULL || now_ns - f->idle_ns < LB_NS_PER_S)
		return 0;
	f->idle_ns = now_ns;
	return f->idle(f->idle_arg);
}

static int wait_running(struct lb_failover *f, int64_t end_ns)
{
	enum lb_vm_state state = LB_VM_ABSENT;
	int r;

	for (;;) {
		r = f->fabric->ops->state(f->fabric, &f->vm, &state);
		if (r < 0)
			return r;
		if (state == LB_VM_RUNNING)
			return 0;
		if (state == LB_VM_STOPPED || state == LB_VM_ABSENT)
			return lb_fail(-EREMOTEIO,
				       "the VM has stopped; its console is in %s/console.log, QEMU's words in qemu.log "
				       "beside it",
				       f->vm.folder);
		if (lb_mono_ns(f->env) >= end_ns)
			return lb_fail(-ETIMEDOUT, "after %u s the VM is %s; look into %s", f->wait_s,
				       lb_vm_state_name(state), f->vm.folder);
		r = lb_failover_idle(f);
		if (r < 0)
			return r;
		lb_proc_pause(f->env, LOOK_AGAIN_MS);
	}
}

static int step_wait(struct lb_failover *f)
{
	int64_t end_ns = lb_mono_ns(f->env) + (int64_t)f->wait_s * LB_NS_PER_S;
	int r;

	r = lb_failover_fabric(f);
	r = r < 0 ? r : wait_running(f, end_ns);
	if (r == 0 && f->probe_port != 0)
		r = lb_failover_probe(f, end_ns);
	if (r < 0)
		return r;
	f->running_ns = lb_now_ns(f->env);
	return 0;
}

int lb_step_do(struct lb_failover *f, enum lb_failover_step step)
{
	switch (step) {
	case LB_STEP_POINT:
		return lb_failover_point(f);
	case LB_STEP_FENCE:
		return step_fence(f);
	case LB_STEP_PIN:
		return step_pin(f);
	case LB_STEP_SERVE:
		return step_serve(f);
	case LB_STEP_OVERLAYS:
		return step_overlays(f);
	case LB_STEP_MEND:
		return lb_failover_mend(f);
	case LB_STEP_START:
		return step_start(f);
	case LB_STEP_WAIT:
		return step_wait(f);
	case LB_STEP_PULL:
		return f->no_pull ? 0 : lb_failover_tend(f);
	case LB_STEP_DONE:
		return 0;
	}
	return lb_fail(-EINVAL, "unknown step");
}
