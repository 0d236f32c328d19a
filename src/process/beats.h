/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Machines that have nothing to send still have a recovery point that is as good as now: their heartbeats go into one
 * object of the vault per upload interval.
 */
#include "process/process.h"

#define LB_BEATS_INTERVAL_S_DEFAULT 15

/* Puts what is new; returns in how many nanoseconds to do so again. Never two at once. */
int64_t lb_beats_run(struct lb_process *p);
