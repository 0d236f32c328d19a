/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Scripts of the operator, run by the server at moments of a failover: to move a name or an address, to switch a
 * machine's power off, to try a double. They live in one folder that only an administrator writes to, and are named by
 * their file's name alone: an order can choose among them, and bring none of its own.
 *
 * What a script is to know comes in its environment (LIFEBOAT_...); it has no input. It fails by its exit status; its
 * last line says why. After its time limit it is killed with all that it has started. One that was interrupted by the
 * end of the server is run again: it must bear that.
 */
#include "fabric/proc.h"

#define LB_HOOK_TIMEOUT_S_DEFAULT 300
#define LB_HOOK_TIMEOUT_S_MAX (24 * 3600)
#define LB_HOOK_VALUES_MAX 24

struct lb_hook {
	const char *folder, *name;
	uint32_t timeout_s;        /* 0: LB_HOOK_TIMEOUT_S_DEFAULT */
	const char *const *values; /* "LIFEBOAT_MACHINE=web1", ...; NULL-terminated */
	int (*idle)(void *arg);    /* about once a second; non-zero ends it. May be NULL */
	void *arg;
};

/* -ENOENT, -EACCES when others than root and we could write to it, -EINVAL for a name that is a path. */
int lb_hook_check(const char *folder, const char *name);
/* `line` takes its last words, also on success. -ETIMEDOUT, -EREMOTEIO, and as lb_hook_check(). */
int lb_hook_run(struct lb_env *env, const struct lb_hook *hook, char line[LB_PROC_LAST_LINE_BYTES]);
