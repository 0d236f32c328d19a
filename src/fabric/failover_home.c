/* SPDX-License-Identifier: Apache-2.0 */
/* The double's last hour: it is shut down for good, and its disks are taken home. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/failover_internal.h"

#define SHUT_LOOK_MS 500

static int wait_off(struct lb_failover *f, uint32_t wait_s, enum lb_vm_state *state)
{
	int64_t end_ns = lb_mono_ns(f->env) + wait_s * LB_NS_PER_S;
	int r;

	for (;;) {
		r = lb_failover_state(f, state);
		if (r < 0 || *state == LB_VM_STOPPED || *state == LB_VM_ABSENT || lb_mono_ns(f->env) >= end_ns)
			return r;
		r = lb_failover_idle(f);
		if (r < 0)
			return r;
		lb_proc_pause(f->env, SHUT_LOOK_MS);
	}
}

int lb_failover_shut(struct lb_failover *f, uint32_t wait_s, bool *ret_gracefully)
{
	enum lb_vm_state state;
	int r;

	if (!f->committed || f->cleaning)
		return lb_fail(
			-EINVAL,
			"double %s is not committed: its machine goes home only after `lifeboat failover commit`",
			f->vm.name);
	/* recorded first: nobody starts it again while its disks are read */
	f->shut = true;
	r = lb_record_save(f);
	r = r < 0 ? r : lb_failover_state(f, &state);
	if (r == 0 && state == LB_VM_PAUSED)
		r = f->fabric->ops->resume(f->fabric, &f->vm);
	if (r == 0 && state != LB_VM_STOPPED && state != LB_VM_ABSENT)
		r = f->fabric->ops->stop(f->fabric, &f->vm, true);
	r = r < 0 ? r : wait_off(f, wait_s, &state);
	if (r < 0)
		return r;
	*ret_gracefully = state == LB_VM_STOPPED || state == LB_VM_ABSENT;
	return *ret_gracefully ? 0 : f->fabric->ops->stop(f->fabric, &f->vm, false);
}

int lb_failover_taken(struct lb_failover *f)
{
	assert(f->shut);
	if (f->taken)
		return 0;
	f->taken = true;
	return lb_record_save(f);
}

int lb_failover_unshut(struct lb_failover *f)
{
	if (!f->shut)
		return 0;
	f->shut = false;
	f->taken = false;
	return lb_record_save(f);
}

const char *lb_failover_disk(const struct lb_failover *f, uint16_t id)
{
	for (uint32_t i = 0; i < f->vm.n_disks; i++)
		if (f->disks[i].id == id)
			return f->vm.disks[i].path;
	return NULL;
}
