/* SPDX-License-Identifier: Apache-2.0 */
/* VMs by QEMU alone: one process per VM, found by its pidfile's path, asked through its monitor. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/io.h"
#include "base/json.h"
#include "fabric/backends.h"
#include "fabric/segment.h"
#include "fabric/qmp.h"

#define ENDING_MS_MAX 10000
#define ENDING_LOOK_MS 50

#define START_WAIT_MS 30000
#define LOOK_AGAIN_MS 10

static pid_t find_process(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_free_ char *pidfile = lb_vm_path(vm, "qemu.pid");

	return pidfile != NULL ? lb_proc_find(f->env, pidfile) : 0;
}

static int monitor(struct lb_fabric *f, const struct lb_vm_spec *vm, struct lb_qmp **ret_qmp)
{
	_cleanup_free_ char *path = lb_vm_path(vm, "qmp.sock");
	int r;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_qmp_open(f->env, path, ret_qmp);
	return r < 0 ? lb_wrap(r, "VM %s", vm->name) : 0;
}

/* Without libvirt there are no networks but the host's bridges. */
static const char *bridge_of(const char *network)
{
	const char *bridge = lb_network_bridge(network);

	return bridge != NULL ? bridge : network;
}

static int qemu_network(struct lb_fabric *f, const char *network)
{
	const char *bridge = bridge_of(network);
	int r;

	if (lb_network_segment(network) != NULL)
		return lb_segment_check(f->env);
	r = lb_bridge_check(bridge);
	return r < 0 ? r : lb_bridge_right(bridge);
}

static int open_tap(struct lb_fabric *f, const struct lb_vm_spec *vm, int *ret_tap)
{
	const char *segment = lb_network_segment(vm->network);

	if (vm->network[0] == '\0')
		return 0;
	return segment != NULL ? lb_segment_tap(f->env, vm, segment, ret_tap)
			       : lb_tap_open(vm, bridge_of(vm->network), ret_tap);
}

static int qemu_create(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	struct lb_firmware firmware;
	int r;

	if (strcmp(vm->firmware, "uefi") != 0)
		return 0;
	r = lb_firmware_find(&firmware);
	return r < 0 ? r : lb_firmware_variables_make(f->env, vm, &firmware);
}

/* Until its monitor answers, or it has ended. */
static int wait_started(struct lb_fabric *f, const struct lb_vm_spec *vm, const char *log_path)
{
	int64_t end_ns = lb_mono_ns(f->env) + START_WAIT_MS * LB_NS_PER_MS;
	char line[LB_PROC_LAST_LINE_BYTES];

	for (;;) {
		_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
		bool runs = find_process(f, vm) != 0;

		if (monitor(f, vm, &q) == 0)
			return 0;
		if (!runs) {
			lb_proc_last_line(f->env, log_path, line);
			return lb_fail(-EREMOTEIO, "QEMU does not start VM %s: %s", vm->name, line);
		}
		if (lb_mono_ns(f->env) >= end_ns)
			return lb_fail(-ETIMEDOUT, "QEMU of VM %s has not answered for %d s; see %s", vm->name,
				       START_WAIT_MS / 1000, log_path);
		lb_proc_pause(f->env, LOOK_AGAIN_MS);
	}
}

static int qemu_start(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_free_ char *log_path = lb_vm_path(vm, "qemu.log");
	_cleanup_(lb_argv_clear) struct lb_argv argv = {0};
	_cleanup_close_ int tap = -1;
	pid_t pid;
	int r;

	if (log_path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (find_process(f, vm) == 0) {
		for (uint32_t i = 0; i < vm->n_disks; i++)
			lb_file_wait_released(f->env, vm->disks[i].path, LB_FILE_RELEASE_MS);
		r = open_tap(f, vm, &tap);
		r = r < 0 ? r : lb_qemu_argv(f->env, vm, tap, &argv);
		if (r == 0)
			r = lb_proc_spawn(f->env,
					  &(struct lb_proc_spawn){.argv = (const char *const *)argv.argv,
								  .log_path = log_path,
								  .keep_fd = tap},
					  &pid);
		if (r < 0)
			return lb_wrap(r, "VM %s", vm->name);
	}
	return wait_started(f, vm, log_path);
}

static int qemu_destroy(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	_cleanup_free_ char *pidfile = lb_vm_path(vm, "qemu.pid");
	int r;

	if (pidfile == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_proc_end(f->env, pidfile);
	return r < 0 ? lb_wrap(r, "VM %s", vm->name) : 0;
}

static int ask(struct lb_fabric *f, const struct lb_vm_spec *vm, const char *command)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	int r;

	r = monitor(f, vm, &q);
	if (r == 0)
		r = lb_qmp_ask(q, command, NULL, NULL);
	return r;
}

/* QEMU's monitor goes before QEMU does: whether a failure to reach it means that the VM has ended. */
static bool has_ended(struct lb_fabric *f, const struct lb_vm_spec *vm, int r)
{
	const int64_t end_ns = lb_mono_ns(f->env) + ENDING_MS_MAX * LB_NS_PER_MS;

	if (r != -ECONNRESET && r != -EPIPE && r != -ECONNREFUSED && r != -ENOENT)
		return false;
	while (find_process(f, vm) != 0) {
		if (lb_mono_ns(f->env) > end_ns)
			return false;
		lb_proc_pause(f->env, ENDING_LOOK_MS);
	}
	return true;
}

static int qemu_stop(struct lb_fabric *f, const struct lb_vm_spec *vm, bool gracefully)
{
	int r;

	if (find_process(f, vm) == 0)
		return 0;
	if (!gracefully)
		return qemu_destroy(f, vm);
	r = ask(f, vm, "system_powerdown");
	return has_ended(f, vm, r) ? 0 : r;
}

static int qemu_resume(struct lb_fabric *f, const struct lb_vm_spec *vm)
{
	return ask(f, vm, "cont");
}

static enum lb_vm_state state_of(const char *status)
{
	static const char *const starting[] = {"prelaunch", "inmigrate", "restore-vm", "finish-migrate", "postmigrate"};

	if (strcmp(status, "running") == 0)
		return LB_VM_RUNNING;
	if (strcmp(status, "shutdown") == 0)
		return LB_VM_STOPPED;
	for (size_t i = 0; i < LB_ARRAY_LEN(starting); i++)
		if (strcmp(status, starting[i]) == 0)
			return LB_VM_STARTING;
	return LB_VM_PAUSED;
}

static int qemu_state(struct lb_fabric *f, const struct lb_vm_spec *vm, enum lb_vm_state *ret_state)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	_cleanup_json_ json_t *value = NULL;
	const char *status;
	int r;

	if (find_process(f, vm) == 0) {
		*ret_state = LB_VM_STOPPED;
		return 0;
	}
	r = monitor(f, vm, &q);
	/* whoever started it was killed before its monitor was there */
	if (r == -ENOENT || r == -ECONNREFUSED) {
		*ret_state = LB_VM_STARTING;
		return 0;
	}
	if (r == 0)
		r = lb_qmp_ask(q, "query-status", NULL, &value);
	if (r == 0)
		r = lb_json_get_str(value, "status", &status);
	if (r != 0 && has_ended(f, vm, r)) {
		*ret_state = LB_VM_STOPPED;
		return 0;
	}
	if (r != 0)
		return r;
	*ret_state = state_of(status);
	return 0;
}

struct listing {
	struct lb_fabric *f;
	const char *vm_folder;
	lb_fabric_list_fn fn;
	void *arg;
};

static int list_one(void *arg, const char *name, bool is_dir)
{
	struct listing *l = arg;
	_cleanup_(lb_vm_spec_clear) struct lb_vm_spec vm = {0};
	enum lb_vm_state state = LB_VM_STARTING;

	if (!is_dir || strlen(name) >= sizeof(vm.name) || asprintf(&vm.folder, "%s/%s", l->vm_folder, name) < 0)
		return 0;
	snprintf(vm.name, sizeof(vm.name), "%s", name);
	if (find_process(l->f, &vm) == 0)
		return 0;
	/* one whose monitor does not answer yet is still starting */
	if (qemu_state(l->f, &vm, &state) != 0)
		lb_err_clear();
	return l->fn(l->arg, name, state);
}

static int qemu_list(struct lb_fabric *f, const char *vm_folder, lb_fabric_list_fn fn, void *arg)
{
	struct listing l = {.f = f, .vm_folder = vm_folder, .fn = fn, .arg = arg};
	int r = f->env->ops->list(f->env, vm_folder, list_one, &l);

	return r == -ENOENT ? 0 : r;
}

static int dump_screen(struct lb_qmp *q, const char *path, const char *type)
{
	json_t *arguments = json_pack("{s:s}", "filename", path);

	/* without "format" every QEMU writes PPM */
	if (strcmp(type, "png") == 0 && json_object_set_new(arguments, "format", json_string(type)) < 0) {
		json_decref(arguments);
		return lb_fail(-ENOMEM, "out of memory");
	}
	return lb_qmp_ask(q, "screendump", arguments, NULL);
}

static int qemu_screenshot(struct lb_fabric *f, const struct lb_vm_spec *vm, const char *path, char type[8])
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	int r;

	r = monitor(f, vm, &q);
	if (r < 0)
		return r;
	snprintf(type, 8, "png");
	r = dump_screen(q, path, type);
	if (r != -EREMOTEIO)
		return r;
	snprintf(type, 8, "ppm"); /* older than 7.1, or built without libpng */
	return dump_screen(q, path, type);
}

static int qemu_console(struct lb_fabric *f, const struct lb_vm_spec *vm, char **ret_path)
{
	char *path = f != NULL ? lb_vm_path(vm, "console.log") : NULL;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	*ret_path = path;
	return 0;
}

/* A borrowed member of `jobs` with this id, or NULL. */
static const json_t *job_find(const json_t *jobs, const char *id)
{
	const json_t *job;
	const char *text;
	size_t i;

	json_array_foreach(jobs, i, job)
	{
		text = json_string_value(json_object_get(job, "id"));
		if (text != NULL && strcmp(text, id) == 0)
			return job;
	}
	return NULL;
}

static int qemu_pull(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, uint64_t bytes_per_s)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	_cleanup_json_ json_t *jobs = NULL;
	char id[16], node[16];
	int r;

	snprintf(id, sizeof(id), "pull%u", n);
	snprintf(node, sizeof(node), "disk%u", n);
	r = monitor(f, vm, &q);
	if (r == 0)
		r = lb_qmp_ask(q, "query-jobs", NULL, &jobs);
	if (r < 0)
		return r;
	if (job_find(jobs, id) != NULL)
		return lb_qmp_ask(q, "block-job-set-speed",
				  json_pack("{s:s,s:I}", "device", id, "speed", (json_int_t)bytes_per_s), NULL);
	return lb_qmp_ask(q, "block-stream",
			  json_pack("{s:s,s:s,s:I,s:b}", "job-id", id, "device", node, "speed", (json_int_t)bytes_per_s,
				    "auto-dismiss", 0),
			  NULL);
}

/* A job that has ended is taken away; with its error, if it has one. */
static int job_conclude(struct lb_qmp *q, const struct lb_vm_spec *vm, uint32_t n, const json_t *job, const char *id)
{
	const char *error = json_string_value(json_object_get(job, "error"));
	int r;

	r = lb_qmp_ask(q, "job-dismiss", json_pack("{s:s}", "id", id), NULL);
	if (r < 0 || error == NULL)
		return r;
	return lb_fail(-EIO, "pulling disk %u of VM %s in from the vault has stopped: %s", n, vm->name, error);
}

static int rests_on_nothing(struct lb_qmp *q, uint32_t n, bool *ret_complete)
{
	_cleanup_json_ json_t *devices = NULL;
	const json_t *device, *inserted;
	char name[16];
	size_t i;
	int r;

	snprintf(name, sizeof(name), "disk%u", n);
	r = lb_qmp_ask(q, "query-block", NULL, &devices);
	if (r < 0)
		return r;
	json_array_foreach(devices, i, device)
	{
		const char *text;

		inserted = json_object_get(device, "inserted");
		text = json_string_value(json_object_get(inserted, "node-name"));
		if (text == NULL || strcmp(text, name) != 0)
			continue;
		*ret_complete = json_integer_value(json_object_get(inserted, "backing_file_depth")) == 0;
		return 0;
	}
	return lb_fail(-ENOENT, "QEMU has no %s", name);
}

static int qemu_pull_look(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n, struct lb_vm_pull *ret_pull)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	_cleanup_json_ json_t *jobs = NULL;
	struct lb_vm_pull pull = {0};
	const json_t *job;
	const char *status;
	char id[16];
	int r;

	snprintf(id, sizeof(id), "pull%u", n);
	r = monitor(f, vm, &q);
	if (r == 0)
		r = lb_qmp_ask(q, "query-jobs", NULL, &jobs);
	if (r < 0)
		return r;
	job = job_find(jobs, id);
	status = job != NULL ? json_string_value(json_object_get(job, "status")) : NULL;
	if (status != NULL && strcmp(status, "concluded") == 0) {
		r = job_conclude(q, vm, n, job, id);
		if (r < 0)
			return r;
	} else if (status != NULL) {
		pull.running = true;
		pull.done_bytes = (uint64_t)json_integer_value(json_object_get(job, "current-progress"));
		pull.total_bytes = (uint64_t)json_integer_value(json_object_get(job, "total-progress"));
	}
	if (!pull.running)
		r = rests_on_nothing(q, n, &pull.complete);
	if (r == 0)
		*ret_pull = pull;
	return r;
}

static int qemu_flush(struct lb_fabric *f, const struct lb_vm_spec *vm, uint32_t n)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	_cleanup_json_ json_t *words = NULL;
	char command[32];
	const char *text;
	int r;

	/* stopping the VM would flush too; this does not stop it */
	snprintf(command, sizeof(command), "qemu-io disk%u flush", n);
	r = monitor(f, vm, &q);
	r = r < 0 ? r : lb_qmp_ask(q, "human-monitor-command", json_pack("{s:s}", "command-line", command), &words);
	if (r < 0)
		return r;
	text = json_string_value(words);
	if (text == NULL || text[0] != '\0')
		return lb_fail(-EIO, "QEMU can't flush disk %u of VM %s: %s", n, vm->name,
			       text != NULL ? text : "no answer");
	return lb_overlay_sync(f->env, vm->disks[n].path);
}

static void qemu_free(struct lb_fabric *f)
{
	free(f);
}

static const struct lb_fabric_ops qemu_ops = {
	.name = "qemu",
	.network = qemu_network,
	.create = qemu_create,
	.start = qemu_start,
	.stop = qemu_stop,
	.resume = qemu_resume,
	.destroy = qemu_destroy,
	.state = qemu_state,
	.list = qemu_list,
	.screenshot = qemu_screenshot,
	.console = qemu_console,
	.pull = qemu_pull,
	.flush = qemu_flush,
	.pull_look = qemu_pull_look,
	.free = qemu_free,
};

int lb_fabric_qemu(struct lb_env *env, struct lb_fabric **ret_fabric)
{
	_cleanup_free_ char *path = NULL;
	struct lb_fabric *f;
	int r;

	r = lb_proc_which(LB_QEMU_PROGRAM, &path);
	if (r < 0)
		return lb_fail(-EOPNOTSUPP, "%s is not installed; install qemu-system-x86", LB_QEMU_PROGRAM);
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	*f = (struct lb_fabric){.ops = &qemu_ops, .env = env};
	*ret_fabric = f;
	return 0;
}
