/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What needs more than the helper keeps: the operator's scripts around a point, and a look at which processes write to
 * disks past every filesystem. The helper makes this process before it drops its privileges; it takes three orders and
 * no other, from the helper alone, and answers straight to whoever asked.
 *
 * Scripts are files LB_SCRIPTS_FOLDER/pre-* and post-*, run as root in the order of their names with a minimal
 * environment. Only those are run that root owns and nobody else can write, in such a folder. After pre-scripts have
 * run the post-scripts run in any case: when they are asked for, `post_within_ms` later, or when the helper is gone.
 */
#include <stddef.h>
#include <stdint.h>

#define LB_SCRIPTS_FOLDER "/etc/lifeboat/scripts.d"
#define LB_SCRIPTS_MAX 32
#define LB_SCRIPTS_MS_MAX 60000 /* all of one phase together */
#define LB_SCRIPTS_POST_WITHIN_MS_MAX 300000
#define LB_SCRIPT_OUTPUT_BYTES_MAX 300 /* its end is told with a failure */

/* ---- the agent's side ----------------------------------------------------------------------------------------------
 */

/* 0 when all ended well (or there are none); else the text names the script, and the others of a pre-phase were not
 * begun. -ETIMEDOUT: its process group was killed at the time limit. */
int lb_scripts_pre(const char *socket_path, unsigned int max_ms, unsigned int post_within_ms);
int lb_scripts_post(const char *socket_path, unsigned int max_ms);
/* -EBUSY: a process has one of these disks, or what rests on it, open for writing as a device; the text names both. */
int lb_raw_writers(const char *socket_path, const char *const *disks, size_t disk_count);

/* ---- the helper's side ---------------------------------------------------------------------------------------------
 */

struct lb_runner {
	int socket;
};
int lb_runner_start(const char *scripts_folder, struct lb_runner *ret_runner);
/* Hands an order over, with the connection to whoever is to be answered. */
int lb_runner_pass(struct lb_runner *runner, const char *line, size_t length, int connection);

/* scripts.c */
enum lb_script_phase { LB_SCRIPT_PRE, LB_SCRIPT_POST };
int lb_scripts_run(const char *folder, enum lb_script_phase phase, unsigned int max_ms);
/* What pre-scripts left running in their process groups. */
void lb_scripts_end(void);
/* writers.c */
int lb_raw_writers_find(const char *const *disks, size_t disk_count);
