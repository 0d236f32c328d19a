/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Keeps what a machine sends to the vault within its policy's limit of the hour: an object goes whole, and what it was
 * over the limit is waited for before the next. A failover's last objects are never held up.
 */
#include "process/machine.h"

#define LB_THROTTLE_LOOK_S 10 /* the limit is looked at again at least so often: windows begin and end */

/* With the machine's lock held: what holds now, in bytes per second; 0: unlimited. */
uint64_t lb_throttle_limit(const struct lb_machine *m);
/* The uploader's: 0 when the next object may go now, else the monotonic time at which to ask again. */
int64_t lb_throttle_wait(struct lb_machine *m);
void lb_throttle_spend(struct lb_machine *m, uint64_t bytes);
