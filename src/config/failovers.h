/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Failover as jobs: the orchestration of fabric/failover.h, with what the site adds to it (fence, certificates, proof).
 */
#include "config/jobs.h"
#include "fabric/failover.h"
#include "wire/told.h"

int lb_job_failover_run(struct lb_job *job);
int lb_job_cleanup_run(struct lb_job *job);
int lb_job_commit_run(struct lb_job *job);
/* job_reprotect.c (reprotect.h) */
int lb_job_reprotect_run(struct lb_job *job);
int lb_job_reprotect_check_run(struct lb_job *job);
int lb_job_reprotect_cancel_run(struct lb_job *job);
int lb_job_repoint_run(struct lb_job *job);
/* job_failover_undo.c: the double is given up before its commit, and its machine replicates again. */
int lb_job_failover_undo_run(struct lb_job *job);
/* -EINVAL, in words, when double `f` (NULL: it is gone) of machine (its id) can't be given up, or not that alone. */
int lb_job_undo_check(struct lb_site *site, const struct lb_failover *f, const char *machine);
/* A plan's double is shut down on its way home, and nothing else: those of the other machines come first. */
int lb_job_shut_run(struct lb_job *job);
/* The machine goes home: its double is shut down, the last of what it wrote becomes a point. */
int lb_job_failback_run(struct lb_job *job);
/* It runs at home: the double goes, the machine has its identity and its replication back. */
int lb_job_failback_commit_run(struct lb_job *job);

/* job_failback_undo.c: the machine stays where its double is. */
int lb_job_failback_undo_run(struct lb_job *job);
/* Whether the double is shut down to go home, or about to be. */
/* What keeps a double from being thrown away: it works, or not all that it wrote is at home. */
enum lb_failback_lack { LB_FAILBACK_COMPLETE, LB_FAILBACK_WORKS, LB_FAILBACK_NOT_TAKEN, LB_FAILBACK_NOT_LANDED };
int lb_failback_lack(struct lb_site *site, const struct lb_failover_report *report, enum lb_failback_lack *ret_lack);
bool lb_failback_is_begun(struct lb_site *site, const struct lb_failover_report *report);

/* The double that the job's target names. */
int lb_job_double_open(struct lb_job *job, struct lb_failover **ret_failover);

/*
 * Whether the machine's process server, which was told after `since_ns` that it is fenced, holds nothing more of it.
 * `ret_silent`: none speaks for it.
 */
bool lb_job_drained(struct lb_site *site, const char *machine, int64_t since_ns, bool *ret_silent);
#define LB_DRAIN_S 60       /* how long a live failover waits for what the process server still holds */
#define LB_DRAIN_HEARD_S 10 /* after our start every process server that is alive has spoken; they do each 2 s */

/* Whether a double of this name is on this host. */
int lb_failovers_has(struct lb_site *site, const char *double_name, bool *ret_there);
/* A live one that ended on its way: it may be ordered again, or given up. */
bool lb_failovers_is_unfinished(const struct lb_failover_report *report);
/* Whether a live double of the machine (its id), but not `except` (a double's name; NULL: any), is on this host. */
int lb_failovers_live_of(struct lb_site *site, const char *machine, const char *except, bool *ret_there);

/* Where a double will find this server; `networked`: on a network of its own. */
void lb_failovers_told_url(const struct lb_site *site, bool networked, char url[LB_TOLD_URL_BYTES]);
/* What request JSON of POST /v1/failover asks; `forwards` holds LB_VM_FORWARDS_MAX. Texts stay the object's own. */
int lb_failover_request_read(struct lb_site *site, const json_t *body, struct lb_failover_request *ret_request,
			     struct lb_vm_forward *forwards);
/* {"name","machine","machine_name","kind","state","point_ns",...} */
json_t *lb_failover_json(const struct lb_failover_report *report, enum lb_vm_state state);
