/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Process servers of this host (of an all-in-one; temporary.h): lifeboat-process as a child of ours, with an identity
 * of its own, started again when it ends (after 1 s, then 2, 4 ... LB_CHILD_BACKOFF_S_MAX; anew from 1 s once it has
 * run for LB_CHILD_STABLE_S). It dies with us. The target server of this host is one more such child.
 */
#include "config/site.h"

#define LB_CHILD_BACKOFF_S_MAX 5 /* the agents' rings fill meanwhile */
#define LB_CHILD_STABLE_S 10
#define LB_CHILD_STOP_S 45 /* then SIGKILL: its cache is made for that */

struct lb_child_spec {
	bool target;        /* lifeboat-target; the rest of what follows the folder is of process servers */
	const char *folder; /* its identity is below it, its configuration is written into it */
	const char *cache_folder;
	uint64_t cache_bytes_max;
	uint16_t port;
};
/* Writes its configuration and starts it, on a thread that watches it. Its identity is there. */
int lb_process_child_start(struct lb_site *site, const struct lb_child_spec *spec, struct lb_process_child **ret_child);
/* The one of an all-in-one host, with its identity. */
int lb_process_child_local(struct lb_site *site, struct lb_process_child **ret_child);
/* The target server of an all-in-one host, with its identity. */
int lb_target_child_local(struct lb_site *site, struct lb_process_child **ret_child);
/* Ends it once so that it takes a new identity. */
void lb_process_child_restart(struct lb_process_child *child);
void lb_process_child_stop(struct lb_process_child *child);
