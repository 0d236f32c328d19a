/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * `lifeboat-mobility assess`: before anything is installed for good. Churn per disk from the kernel's counters, what
 * this kernel and these disks allow, and the ring and link that protection would need. Prints text or JSON:
 *
 *   {"seconds","hardware":{...},"capture":{probe},"disks":[{"name","written_bytes_per_s","writes_per_s",
 *    "discarded_bytes_per_s"}],"written_bytes_per_s","ring_bytes","link_bits_per_s","verdict","findings":[...]}
 */
#include <stdbool.h>

#include "base/env.h"

#define LB_ASSESS_SECONDS_DEFAULT 10
#define LB_ASSESS_SECONDS_MAX 86400
#define LB_ASSESS_OUTAGE_S 60 /* the ring rides out this long without the process server */

struct lb_assess {
	unsigned int seconds;
	const char *capture_socket; /* NULL: probed in this process */
	bool json;
};

int lb_assess(struct lb_env *env, const struct lb_assess *a);

/* The ring for this churn: a power of two within the policy's limits. Exposed for tests. */
uint64_t lb_assess_ring_bytes(uint64_t written_bytes_per_s, uint64_t writes_per_s);
