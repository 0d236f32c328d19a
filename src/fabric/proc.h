/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The other programs that recovery uses (nbdkit, QEMU, qemu-img). What outlives us is found again by one argument that
 * only it has, the path of its pidfile: a number in a file may by now belong to somebody else's process.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/env.h"

#define LB_PROC_OUTPUT_BYTES_MAX (64u << 10) /* kept of what a program prints */
#define LB_PROC_END_GRACE_MS 5000            /* between SIGTERM and SIGKILL */

struct lb_proc_run {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in $PATH */
	int keep_fd;             /* inherited under the same number; -1: none */
	uint32_t timeout_s;      /* 0: none; then SIGKILL and -ETIMEDOUT */
	/* Each piece of output as it comes, may be NULL; non-zero ends the program and is passed on. */
	int (*output)(void *arg, const char *text, size_t size_bytes);
	/* About once a second while it runs, may be NULL; non-zero ends the program and is passed on. */
	int (*idle)(void *arg);
	void *arg;
	const char *const *environment; /* NULL: ours */
	bool group;                     /* ends what it has started with it, when it is ended */
};
/*
 * Runs a program to its end, which it never outlives ours by much (it is killed with us). `out` (may be NULL) takes
 * standard output and standard error, at most its ceiling, the rest is read and dropped. -EREMOTEIO with the last line
 * it printed when it fails, -ENOENT when there is no such program.
 */
int lb_proc_run(struct lb_env *env, const struct lb_proc_run *run, struct lb_buf *out);

struct lb_proc_spawn {
	const char *const *argv;
	const char *log_path; /* takes standard output and standard error; appended to */
	int keep_fd;          /* the one descriptor that it inherits besides, under the same number; -1: none */
};
/* Starts a program that lives on, in a session of its own; not a child of ours, so nobody need wait for it. */
int lb_proc_spawn(struct lb_env *env, const struct lb_proc_spawn *spawn, pid_t *ret_pid);

/* A living process one of whose arguments is exactly `arg`; 0 when there is none. */
pid_t lb_proc_find(struct lb_env *env, const char *arg);
/* Ends every such process of ours: SIGTERM, SIGKILL after LB_PROC_END_GRACE_MS; returns when they are gone. */
int lb_proc_end(struct lb_env *env, const char *arg);

/* The full path of a program in $PATH or the sbin folders; -ENOENT names it. Free it. */
int lb_proc_which(const char *program, char **ret_path);

/* The last line of a log file that isn't empty, for an error text; "" when there is none. */
#define LB_PROC_LAST_LINE_BYTES 400
void lb_proc_last_line(struct lb_env *env, const char *log_path, char text[LB_PROC_LAST_LINE_BYTES]);

/* Sleeps between two looks at a condition. */
void lb_proc_pause(struct lb_env *env, uint32_t ms);
