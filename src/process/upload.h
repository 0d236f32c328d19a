/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Brings what the cache holds into the vault, in order: packs of consecutive segments up to LB_PACK_BYTES_NOMINAL or
 * what has come within the policy's upload interval. A few workers serve all machines, one worker a machine at a time.
 * Failures are tried again, later and later and never at once for all.
 */
#include "process/process.h"

#define LB_UPLOAD_ROUND_OBJECTS_MAX 16 /* of one machine before others get their turn */
#define LB_UPLOAD_CHECKPOINT_OBJECTS 64
#define LB_UPLOAD_BACKOFF_MS_MIN 500
#define LB_UPLOAD_BACKOFF_MS_MAX 60000
#define LB_UPLOAD_CONFLICTS_MAX 3
#define LB_UPLOAD_WORKERS_MAX 32

/* Works on what is due now, if anything is: true when it did, else `ret_next_mono_ns` says when to look again. */
bool lb_upload_next(struct lb_process *p, int64_t *ret_next_mono_ns);

struct lb_upload_pool {
	struct lb_process *process;
	pthread_t threads[LB_UPLOAD_WORKERS_MAX];
	unsigned int n;
};
int lb_upload_start(struct lb_process *p, unsigned int workers, struct lb_upload_pool *ret_pool);
/* Ends rounds that run at their next object. */
void lb_upload_stop(struct lb_upload_pool *pool);
