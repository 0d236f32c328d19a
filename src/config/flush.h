/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * "latest" is the latest of all that was received: what the machine's process server holds goes into the vault before
 * the point is looked for. A live failover fences for that (job_failover.c); what leaves the replication alone asks for
 * it here, and never waits without end: a recovery goes on with what the vault has.
 */
#include "config/jobs.h"

#define LB_FLUSH_S 60        /* at most, for what the process server holds to be in the vault */
#define LB_FLUSH_SILENT_S 10 /* of a process server that says nothing; it reports every 2 s */

/* Asks for it and does not wait. `machine`: an id. */
void lb_flush_order(struct lb_site *site, const char *machine);
/*
 * Asks and waits, for `limit_s` at most; in vain is told in the job's step and is no failure. `machine`: a name or an
 * id; one that only the vault knows, or that is not replicated, has nothing to wait for. -ECANCELED and such only.
 */
int lb_flush(struct lb_job *job, const char *machine, int64_t limit_s);
/* Whether that point means all that was received; NULL is "latest". */
bool lb_flush_is_for(const char *point);
