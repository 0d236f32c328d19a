/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a live failover does besides the journal's fence: the source's workload is stopped and waited for, the source is
 * kept down, and the world is told where its double is. Each by a script of the server's hook_folder (fabric/hook.h)
 * with a fixed name; one that is not there is not missed, and the job's step says so.
 *
 *   stop-source   ordered by "shutdown_source": stops the workload and leaves the agent running; a failure is told, and
 *                 the failover goes on
 *   fence-source  keeps the workload down (power, switch port); a failure is told, and with "fence_required" ends the
 *                 failover before anything has changed
 *   unfence-source  when a failover was given up before its commit: the source may work again; a failure is told
 *   double-network  before a double, also of a test, is started on a network: its address there (DHCP); a failure is
 * told double-up     when the double runs and answers: names and addresses; a failure is told
 */
#include "config/jobs.h"
#include "fabric/failover.h"

#define LB_DRAINED_WAIT_S 600 /* for the vault to hold all that was written before the workload was stopped */

/* Before the journal is fenced; each step may be done again after a kill. -ETIMEDOUT, -EREMOTEIO: nothing has changed.
 */
int lb_source_prepare(struct lb_job *job, const struct lb_failover_report *report);
/* Whether this server refuses its agent already. */
int lb_source_is_fenced(struct lb_job *job, const struct lb_failover_report *report, bool *ret_fenced);
/*
 * The way back of the fence: its certificates count again, and its replication goes on, every disk compared, because
 * nobody replicated it meanwhile. Only when nothing of its double runs. Done already, or not enrolled here: 0.
 */
int lb_source_give_back(struct lb_job *job, const char *machine, bool new_hardware);
/* The script fence-source by itself; -ENOENT: there is none. Its failure is the caller's to bear. */
int lb_source_keep_down(struct lb_job *job, const struct lb_failover_report *report);
/* The script unfence-source: the source may work again. Never fails but for the job's own end. */
int lb_source_release(struct lb_job *job, const struct lb_failover_report *report);
/* Before the VM is started. Never fails but for the job's own end. */
int lb_double_announce(struct lb_job *job, const struct lb_failover_report *report);
/* After the double runs. Never fails but for the job's own end. */
int lb_double_tell(struct lb_job *job, const struct lb_failover_report *report);
/* -EINVAL, -EACCES: what no failover of a physical server can be asked for. */
int lb_source_check_order(const json_t *body, const struct lb_failover_request *request);
