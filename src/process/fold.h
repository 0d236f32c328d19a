/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Folds the journals of this process server's machines (vault/fold.h) and deletes what nothing needs: in one thread,
 * one machine at a time, beside ingest. What it reads and writes is paced. A machine is due a quarter of its policy's
 * "every point" after it was folded last. After the clock jumped nothing is pruned for a while.
 */
#include "process/process.h"

#define LB_FOLDER_BYTES_PER_S (32u << 20) /* read and written; at most a quarter of the policy's bandwidth */
#define LB_FOLDER_PERIOD_S_MIN 5
#define LB_FOLDER_PERIOD_S_MAX 1800
#define LB_FOLDER_RETRY_S 300
#define LB_FOLDER_PAUSE_S (24 * 3600) /* after the clock jumped */

struct lb_folder {
	struct lb_process *process;
	int wake_fd;
	pthread_t thread;
	bool running;
	/* the thread's */
	int64_t seen_now_ns, seen_mono_ns; /* both clocks when they were last compared; 0: never */
	int64_t paused_until_mono_ns;
	struct lb_machine *machine; /* under way */
	double unpaid_bytes;        /* read and written, and not yet waited for */
};

/* A round for the machine that is due first: false when none is, with when to look again. For the thread and tests. */
bool lb_folder_next(struct lb_folder *f, int64_t *ret_next_mono_ns);

int lb_folder_start(struct lb_process *p, struct lb_folder *f);
/* Ends a round that runs at its next step; what it did stays or is found later. */
void lb_folder_stop(struct lb_folder *f);
