/* SPDX-License-Identifier: Apache-2.0 */
/* What comes after: another point, commit, cleanup. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/fault.h"
#include "fabric/failover_internal.h"

#define PULL_LOOK_MS 200
#define PULL_RESTARTS_MAX 30 /* of one commit; each goes on where it was */
#define PULL_RESTART_MS 1000

static int stop_serving(struct lb_failover *f)
{
	struct lb_serve serve;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++) {
		lb_failover_serve_of(f, i, NULL, &serve);
		r = lb_serve_stop(f->env, &serve);
	}
	return r;
}

int lb_failover_unpin(struct lb_failover *f)
{
	char name[LB_POINT_NAME_BYTES];
	int r;

	if (!f->pinned)
		return 0;
	r = lb_failover_vault(f);
	/* even when it seems to be gone: a disk that is not mounted comes back, and the pin with it */
	if (r < 0)
		return lb_wrap(r,
			       "the point pinned for %s stays pinned until the vault opens (if the vault is gone for "
			       "good, remove %s)",
			       f->vm.name, f->vm.folder);
	lb_failover_pin_name(f, name);
	r = lb_point_unpin(f->vault, &f->machine, name);
	if (r < 0 && r != -ENOENT)
		return r;
	lb_fault_place("double %s: its pin is gone, which is not noted", f->vm.name);
	f->pinned = false;
	return lb_record_save(f);
}

static int stop_and_forget(struct lb_failover *f)
{
	int r;

	r = lb_failover_fabric(f);
	r = r < 0 ? r : f->fabric->ops->destroy(f->fabric, &f->vm);
	if (r < 0)
		return r;
	lb_fault_place("double %s: its VM is gone, its disks are still served", f->vm.name);
	return stop_serving(f);
}

struct removal {
	struct lb_failover *f;
	const char *keep;
};

static int remove_one(void *arg, const char *name, bool is_dir)
{
	struct removal *removal = arg;
	_cleanup_free_ char *path = lb_vm_path(&removal->f->vm, name);
	int r;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	if (strcmp(name, removal->keep) == 0)
		return 0;
	if (is_dir)
		return lb_fail(-ENOTEMPTY, "%s is not of Lifeboat's making; move it away", path);
	r = removal->f->env->ops->unlink(removal->f->env, path);
	return r < 0 && r != -ENOENT ? lb_fail(r, "can't remove %s: %s", path, strerror(-r)) : 0;
}

static int remove_files(struct lb_failover *f)
{
	return f->env->ops->list(f->env, f->vm.folder, remove_one, &(struct removal){.f = f, .keep = LB_RECORD_FILE});
}

int lb_failover_teardown(struct lb_failover *f)
{
	int r;

	r = stop_and_forget(f);
	r = r < 0 ? r : remove_files(f);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < f->vm.n_disks; i++)
		f->disks[i].whole = false;
	f->mend_done = false;
	f->teardown = false;
	return lb_record_save(f);
}

int lb_failover_repoint(struct lb_failover *f, const char *point)
{
	struct lb_point found;
	char *text;
	int r;

	if (f->committed || f->cleaning)
		return lb_fail(-EINVAL, "double %s is %s: its recovery point can't be changed any more", f->vm.name,
			       f->committed ? "committed" : "being cleaned up");
	r = lb_failover_vault(f);
	r = r < 0 ? r : lb_point_find(f->vault, &f->machine, point, &found);
	if (r < 0)
		return r;
	text = strdup(point);
	if (text == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	free(f->point_text);
	f->point_text = text;
	f->point = found;
	f->teardown = true;
	f->next = LB_STEP_POINT;
	f->started_ns = lb_now_ns(f->env);
	f->running_ns = 0;
	return lb_record_save(f);
}

/* ---- pulling in ------------------------------------------------------------------------------------------ */

static int look_one(struct lb_failover *f, uint32_t n, enum lb_vm_state state, struct lb_vm_pull *ret_pull)
{
	bool rests;
	int r;

	if (state != LB_VM_STOPPED && state != LB_VM_ABSENT)
		return f->fabric->ops->pull_look(f->fabric, &f->vm, n, ret_pull);
	r = lb_overlay_rests(f->env, f->vm.disks[n].path, &rests);
	if (r < 0)
		return r;
	*ret_pull = (struct lb_vm_pull){.complete = !rests};
	return 0;
}

/* `one` (may be NULL) sees each disk. */
static int look_all(struct lb_failover *f, struct lb_vm_pull *ret_pull,
		    int (*one)(struct lb_failover *f, uint32_t n, const struct lb_vm_pull *pull))
{
	struct lb_vm_pull sum = {.complete = true};
	enum lb_vm_state state;
	int r;

	r = lb_failover_state(f, &state);
	for (uint32_t i = 0; r == 0 && i < f->vm.n_disks; i++) {
		struct lb_vm_pull pull = {0};

		r = look_one(f, i, state, &pull);
		if (r < 0)
			break;
		sum.running |= pull.running;
		sum.complete &= pull.complete;
		sum.total_bytes += f->disks[i].size_bytes;
		sum.done_bytes +=
			pull.complete ? f->disks[i].size_bytes : LB_MIN(pull.done_bytes, f->disks[i].size_bytes);
		if (one != NULL)
			r = one(f, i, &pull);
	}
	if (r == 0)
		*ret_pull = sum;
	return r;
}

int lb_failover_pull_look(struct lb_failover *f, struct lb_vm_pull *ret_pull)
{
	return look_all(f, ret_pull, NULL);
}

/* A disk that is whole needs its server no more; one whose pull has ended early gets another. */
static int tend_pull(struct lb_failover *f, uint32_t n, const struct lb_vm_pull *pull)
{
	struct lb_serve serve;
	int r;

	if (!pull->complete)
		return pull->running || f->no_pull
			       ? 0
			       : f->fabric->ops->pull(f->fabric, &f->vm, n, LB_PULL_FIRST_BYTES_PER_S);
	if (!f->disks[n].whole) {
		r = f->fabric->ops->flush(f->fabric, &f->vm, n);
		if (r < 0)
			return r;
		f->disks[n].whole = true;
		r = lb_record_save(f);
		if (r < 0)
			return r;
	}
	lb_failover_serve_of(f, n, NULL, &serve);
	return lb_serve_stop(f->env, &serve);
}

int lb_failover_tend(struct lb_failover *f)
{
	enum lb_vm_state state;
	struct lb_vm_pull pull;
	int r;

	if (f->shut)
		return lb_fail(-EINVAL, "double %s is shut down for good: its machine goes home (`lifeboat failback`)",
			       f->vm.name);
	r = f->committed ? 0 : lb_step_do(f, LB_STEP_SERVE);
	r = r < 0 || f->committed ? r : lb_step_do(f, LB_STEP_OVERLAYS);
	r = r < 0 ? r : lb_failover_state(f, &state);
	if (r < 0)
		return r;
	if (state == LB_VM_PAUSED)
		r = f->fabric->ops->resume(f->fabric, &f->vm);
	else if (state != LB_VM_RUNNING)
		r = lb_step_do(f, LB_STEP_START);
	if (r < 0 || f->committed)
		return r;
	return look_all(f, &pull, tend_pull);
}

static int full_speed(struct lb_failover *f, uint32_t n, const struct lb_vm_pull *pull)
{
	return pull->complete ? 0 : f->fabric->ops->pull(f->fabric, &f->vm, n, 0);
}

static int pull_wait(struct lb_failover *f, int (*progress)(void *arg, const struct lb_vm_pull *pull), void *arg)
{
	unsigned int restarts = 0;
	struct lb_vm_pull pull;
	int r;

	r = look_all(f, &pull, full_speed);
	for (;;) {
		if (r == 0)
			r = look_all(f, &pull, NULL);
		if (r == 0 && progress != NULL) {
			r = progress(arg, &pull);
			if (r != 0)
				return r;
		}
		if (r == 0 && pull.complete)
			return 0;
		if (r != 0 || !pull.running) {
			if (++restarts > PULL_RESTARTS_MAX)
				return r < 0 ? r
					     : lb_fail(-EIO, "the blocks of double %s can't be pulled in", f->vm.name);
			lb_proc_pause(f->env, PULL_RESTART_MS);
			r = lb_failover_tend(f);
			r = r < 0 ? r : look_all(f, &pull, full_speed);
			continue;
		}
		lb_proc_pause(f->env, PULL_LOOK_MS);
	}
}

static bool all_whole(const struct lb_failover *f)
{
	for (uint32_t i = 0; i < f->vm.n_disks; i++)
		if (!f->disks[i].whole)
			return false;
	return true;
}

int lb_failover_commit(struct lb_failover *f, int (*progress)(void *arg, const struct lb_vm_pull *pull), void *arg)
{
	struct lb_vm_pull pull;
	int r;

	if (f->committed)
		return 0;
	if (f->kind != LB_FAILOVER_LIVE)
		return lb_fail(-EINVAL, "double %s is a test: it can be cleaned up, not committed", f->vm.name);
	if (f->next != LB_STEP_DONE || f->cleaning)
		return lb_fail(-EINVAL, "double %s is not running yet: next is to %s", f->vm.name,
			       lb_failover_step_name(f->next));
	r = lb_failover_tend(f);
	r = r < 0 ? r : pull_wait(f, progress, arg);
	/* flushes what has come last */
	r = r != 0 ? r : look_all(f, &pull, tend_pull);
	if (r == 0 && !all_whole(f))
		r = lb_fail(-EAGAIN, "double %s has stopped just now; commit it again when it runs", f->vm.name);
	r = r != 0 ? r : lb_failover_unpin(f);
	if (r != 0)
		return r;
	f->committed = true;
	return lb_record_save(f);
}

/* ---- cleanup ---------------------------------------------------------------------------------------------- */

static int remove_record(struct lb_failover *f)
{
	_cleanup_free_ char *path = lb_vm_path(&f->vm, LB_RECORD_FILE);
	int r;

	if (path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = f->env->ops->unlink(f->env, path);
	if (r < 0 && r != -ENOENT)
		return lb_fail(r, "can't remove %s: %s", path, strerror(-r));
	lb_fault_place("double %s: its record is gone, its folder is there", f->vm.name);
	return rmdir(f->vm.folder) < 0 ? lb_fail(-errno, "can't remove %s: %s", f->vm.folder, strerror(errno)) : 0;
}

int lb_failover_give_up(struct lb_failover *f)
{
	int r;

	if (f->kind != LB_FAILOVER_LIVE)
		return lb_fail(-EINVAL, "double %s is a test: its machine goes on anyway", f->vm.name);
	if (f->committed)
		return lb_fail(-EINVAL,
			       "double %s is committed: its machine comes home by `lifeboat failback start %s`, with "
			       "what the double wrote",
			       f->vm.name, f->vm.name);
	f->cleaning = true;
	r = lb_record_save(f);
	return r < 0 ? r : stop_and_forget(f);
}

int lb_failover_cleanup(struct lb_failover *f, bool live_too)
{
	int r;

	if (f->kind == LB_FAILOVER_LIVE && !live_too)
		return lb_fail(-EPERM, "double %s is no test: what it has written since its start is nowhere else",
			       f->vm.name);
	f->cleaning = true;
	r = lb_record_save(f);
	r = r < 0 ? r : stop_and_forget(f);
	r = r < 0 ? r : remove_files(f);
	r = r < 0 ? r : lb_failover_unpin(f);
	r = r < 0 ? r : remove_record(f);
	if (r < 0)
		return lb_wrap(r, "double %s is not cleaned up", f->vm.name);
	lb_failover_free(f);
	return 0;
}
