/* SPDX-License-Identifier: Apache-2.0 */
/* VMs through libvirt: one persistent domain per VM, whose metadata names its folder. */
#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/libvirt_internal.h"
#include "fabric/libvirt_xml.h"

#define STATE_WAIT_MS 30000
#define LOOK_AGAIN_MS 5

LB_DEFINE_CLEANUP(virDomainPtr, virDomainFree);

static int failed(const struct lb_vm_spec *vm, const char *what)
{
	return lb_fail(-EREMOTEIO, "libvirt can't %s VM %s: %s", what, vm->name, lb_libvirt_reason());
}

/*
 * The VM's domain, or NULL when there is none: by UUID, so that a stranger of the same name is never taken for it. That
 * libvirtd was started anew since the last call shows only when one is made.
 */
static int lookup(struct lb_fabric *f, const struct lb_vm_spec *vm, virDomainPtr *ret_domain)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	virDomainPtr domain = NULL;
	int r;

	for (int tries = 0; tries < 2; tries++) {
		r = lb_libvirt_connect(l);
		if (r < 0)
			return r;
		domain = virDomainLookupByUUID(l->connection, vm->uuid.bytes);
		if (domain != NULL || virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
			break;
		if (tries > 0 || virConnectIsAlive(l->connection) == 1)
			return failed(vm, "look up");
	}
	*ret_domain = domain;
	return 0;
}

static int libvirt_create(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	_cleanup_buf_ struct lb_buf xml = LB_BUF(LB_DOMAIN_XML_BYTES_MAX);
	virSecurityModel model = {0};
	struct lb_firmware firmware;
	int r;

	r = lookup(f, vm, &domain);
	if (r < 0 || (domain != NULL && virDomainIsActive(domain) == 1))
		return r;
	if (strcmp(vm->firmware, "uefi") == 0) {
		r = lb_firmware_find(&firmware);
		r = r < 0 ? r : lb_firmware_variables_make(f->env, vm, &firmware);
		if (r < 0)
			return r;
	}
	/* and not virConnectGetCapabilities(), which may try every emulator of the host first */
	if (virNodeGetSecurityModel(l->connection, &model) < 0)
		model.model[0] = '\0';
	r = lb_libvirt_xml(f->env, vm, strcmp(model.model, "apparmor") == 0, &xml);
	if (r < 0)
		return r;
	if (domain != NULL)
		virDomainFree(domain);
	domain = virDomainDefineXML(l->connection, (char *)xml.data);
	return domain == NULL ? failed(vm, "define") : 0;
}

static int libvirt_start(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r;

	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain == NULL)
		return lb_fail(-ENOENT, "libvirt knows no VM %s", vm->name);
	if (virDomainIsActive(domain) == 1)
		return 0;
	r = lb_libvirt_join((struct lb_libvirt *)f, vm);
	if (r < 0)
		return r;
	return virDomainCreate(domain) < 0 ? failed(vm, "start") : 0;
}

static int libvirt_stop(struct lb_fabric *f, const struct lb_vm_spec *vm, bool gracefully)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r, active;

	r = lookup(f, vm, &domain);
	if (r < 0 || domain == NULL)
		return r;
	active = virDomainIsActive(domain);
	if (active < 0)
		return failed(vm, "look at");
	if (active == 1 && (gracefully ? virDomainShutdown(domain) : virDomainDestroy(domain)) < 0)
		return virDomainIsActive(domain) == 0 ? 0 : failed(vm, "stop");
	return 0;
}

static enum lb_vm_state state_named(int state, int reason)
{
	switch (state) {
	case VIR_DOMAIN_RUNNING:
	case VIR_DOMAIN_BLOCKED:
		return LB_VM_RUNNING;
	case VIR_DOMAIN_PAUSED:
		return reason == VIR_DOMAIN_PAUSED_STARTING_UP ? LB_VM_STARTING : LB_VM_PAUSED;
	case VIR_DOMAIN_PMSUSPENDED:
		return LB_VM_PAUSED;
	default:
		return LB_VM_STOPPED;
	}
}

/* A libvirtd that has just gone knows nothing: its VMs run on, and must not be taken for absent. */
static int state_of(virDomainPtr domain, enum lb_vm_state *ret_state)
{
	int state, reason;

	if (virDomainGetState(domain, &state, &reason, 0) == 0)
		*ret_state = state_named(state, reason);
	else if (virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
		*ret_state = LB_VM_ABSENT;
	else
		return lb_fail(-EREMOTEIO, "libvirt can't look at VM %s: %s", virDomainGetName(domain),
			       lb_libvirt_reason());
	return 0;
}

/* libvirt changes a state when QEMU's event has come, not when the call returns: later calls would go by the old one.
 */
static int wait_state(struct lb_fabric *f, const struct lb_vm_spec *vm, virDomainPtr domain, enum lb_vm_state wanted)
{
	int64_t end_ns = lb_mono_ns(f->env) + STATE_WAIT_MS * LB_NS_PER_MS;
	enum lb_vm_state state;
	int r;

	while ((r = state_of(domain, &state)) == 0 && state != wanted) {
		if (lb_mono_ns(f->env) >= end_ns)
			return lb_fail(-EAGAIN, "VM %s is %s and does not become %s", vm->name, lb_vm_state_name(state),
				       lb_vm_state_name(wanted));
		lb_proc_pause(f->env, LOOK_AGAIN_MS);
	}
	return r;
}

static int resume(struct lb_fabric *f, const struct lb_vm_spec *vm, virDomainPtr domain)
{
	bool refused = virDomainResume(domain) < 0;
	enum lb_vm_state state = LB_VM_RUNNING;
	int r = refused ? failed(vm, "resume") : 0;

	/* somebody else may have done it */
	if (refused && (state_of(domain, &state) < 0 || state != LB_VM_RUNNING))
		return r;
	return wait_state(f, vm, domain, LB_VM_RUNNING);
}

static int libvirt_resume(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r;

	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	return domain == NULL ? lb_fail(-ENOENT, "libvirt knows no VM %s", vm->name) : resume(f, vm, domain);
}

static int libvirt_destroy(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r;

	r = libvirt_stop(f, vm, false);
	r = r < 0 ? r : lookup(f, vm, &domain);
	r = r < 0 ? r : lb_libvirt_leave((struct lb_libvirt *)f, vm);
	if (r < 0 || domain == NULL)
		return r;
	if (virDomainUndefineFlags(domain, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM) < 0 &&
	    virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
		return failed(vm, "forget");
	return 0;
}

static int libvirt_state(struct lb_fabric *f, const struct lb_vm_spec *vm, enum lb_vm_state *ret_state)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	int r;

	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain != NULL)
		return state_of(domain, ret_state);
	*ret_state = LB_VM_ABSENT;
	return 0;
}

/* Whether it is ours, and lives below `vm_folder`. */
static bool is_below(virDomainPtr domain, const char *vm_folder)
{
	_cleanup_free_ char *xml = virDomainGetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, LB_LIBVIRT_NAMESPACE, 0);
	const char *folder = xml != NULL ? strstr(xml, vm_folder) : NULL;

	return folder != NULL && folder[strlen(vm_folder)] == '/';
}

static int libvirt_list(struct lb_fabric *f, const char *vm_folder, lb_fabric_list_fn fn, void *arg)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	enum lb_vm_state state;
	virDomainPtr *domains;
	int r, n;

	r = lb_libvirt_connect(l);
	if (r < 0)
		return r;
	n = virConnectListAllDomains(l->connection, &domains, 0);
	if (n < 0)
		return lb_fail(-EREMOTEIO, "libvirt can't list its VMs: %s", lb_libvirt_reason());
	for (int i = 0; i < n; i++) {
		if (r == 0 && is_below(domains[i], vm_folder)) {
			r = state_of(domains[i], &state);
			r = r < 0 ? r : fn(arg, virDomainGetName(domains[i]), state);
		}
		virDomainFree(domains[i]);
	}
	free(domains);
	return r;
}

static int take_piece(virStreamPtr stream, const char *data, size_t size_bytes, void *arg)
{
	const int *fd = arg;

	(void)stream;
	return (int)write(*fd, data, size_bytes);
}

static int libvirt_screenshot(struct lb_fabric *f, const struct lb_vm_spec *vm, const char *path, char type[8])
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *mime = NULL;
	virStreamPtr stream;
	int r;

	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain == NULL)
		return lb_fail(-ENOENT, "libvirt knows no VM %s", vm->name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return lb_fail(-errno, "can't make %s: %s", path, strerror(errno));
	stream = virStreamNew(l->connection, 0);
	if (stream == NULL)
		return failed(vm, "take a screenshot of");
	mime = virDomainScreenshot(domain, stream, 0, 0);
	r = mime == NULL || virStreamRecvAll(stream, take_piece, &fd) < 0 || virStreamFinish(stream) < 0
		    ? failed(vm, "take a screenshot of")
		    : 0;
	virStreamFree(stream);
	if (r == 0)
		snprintf(type, 8, "%s", strstr(mime, "png") != NULL ? "png" : "ppm");
	return r;
}

static int libvirt_console(struct lb_fabric *f, const struct lb_vm_spec *vm, char **ret_path)
{
	char *path = f != NULL ? lb_vm_path(vm, "console.log") : NULL;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	*ret_path = path;
	return 0;
}

static int libvirt_pull(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, uint64_t bytes_per_s)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	virDomainBlockJobInfo info;
	char target[LB_TARGET_BYTES];
	int r;

	lb_libvirt_target(vm, n, target);
	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain == NULL)
		return lb_fail(-ENOENT, "libvirt knows no VM %s", vm->name);
	if (virDomainGetBlockJobInfo(domain, target, &info, VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES) == 1)
		r = virDomainBlockJobSetSpeed(domain, target, bytes_per_s, VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES);
	else
		r = virDomainBlockPull(domain, target, bytes_per_s, VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES);
	return r < 0 ? failed(vm, "pull in the blocks of") : 0;
}

static int libvirt_pull_look(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, struct lb_vm_pull *ret_pull)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	struct lb_vm_pull pull = {0};
	virDomainBlockJobInfo info;
	char target[LB_TARGET_BYTES];
	bool rests = true;
	int r, runs = 0;

	lb_libvirt_target(vm, n, target);
	r = lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain != NULL)
		runs = virDomainGetBlockJobInfo(domain, target, &info, VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES);
	if (runs < 0 && virConnectIsAlive(((struct lb_libvirt *)f)->connection) != 1)
		return failed(vm, "look at the pull of");
	if (runs == 1) {
		pull.running = true;
		pull.done_bytes = info.cur;
		pull.total_bytes = info.end;
	} else {
		r = lb_overlay_rests(f->env, vm->disks[n].path, &rests);
		if (r < 0)
			return r;
		pull.complete = !rests;
	}
	*ret_pull = pull;
	return 0;
}

static int libvirt_flush(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n)
{
	_cleanup_(virDomainFreep) virDomainPtr domain = NULL;
	enum lb_vm_state state;
	int r;

	/* most of it, while the guest still runs */
	r = lb_overlay_sync(f->env, vm->disks[n].path);
	r = r < 0 ? r : lookup(f, vm, &domain);
	if (r < 0)
		return r;
	if (domain == NULL)
		return lb_fail(-ENOENT, "libvirt knows no VM %s", vm->name);
	/* libvirt has no word for it, but QEMU flushes when a VM is suspended; one that is paused is not suspended
	 * again */
	r = state_of(domain, &state);
	if (r == 0 && state != LB_VM_RUNNING)
		r = resume(f, vm, domain);
	if (r < 0)
		return r;
	if (virDomainSuspend(domain) < 0)
		return failed(vm, "suspend");
	r = wait_state(f, vm, domain, LB_VM_PAUSED);
	if (r == 0)
		r = resume(f, vm, domain);
	if (r < 0)
		return r;
	return lb_overlay_sync(f->env, vm->disks[n].path);
}

static void libvirt_free(struct lb_fabric *f)
{
	struct lb_libvirt *l = (struct lb_libvirt *)f;

	if (l->connection != NULL)
		virConnectClose(l->connection);
	free(l);
}

static const struct lb_fabric_ops libvirt_ops = {
	.name = "libvirt",
	.network = lb_libvirt_network,
	.address = lb_libvirt_address,
	.create = libvirt_create,
	.start = libvirt_start,
	.stop = libvirt_stop,
	.resume = libvirt_resume,
	.destroy = libvirt_destroy,
	.state = libvirt_state,
	.list = libvirt_list,
	.screenshot = libvirt_screenshot,
	.console = libvirt_console,
	.pull = libvirt_pull,
	.flush = libvirt_flush,
	.pull_look = libvirt_pull_look,
	.free = libvirt_free,
};

int lb_fabric_libvirt(struct lb_env *env, struct lb_fabric **ret_fabric)
{
	struct lb_libvirt *l;
	int r;

	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	l->fabric = (struct lb_fabric){.ops = &libvirt_ops, .env = env};
	r = lb_libvirt_connect(l);
	if (r < 0) {
		free(l);
		return r;
	}
	*ret_fabric = &l->fabric;
	return 0;
}
