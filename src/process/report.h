/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the configuration server is told: POST /v1/process/report, in parts of at most LB_REPORT_MACHINES_MAX machines.
 */
#include "process/process.h"

#define LB_REPORT_MACHINES_MAX 64

/*
 * The part that begins with machine number `*cursor` (0 at first), which is moved on; NULL in `ret_report` past the end
 * (an empty process server makes one part). Called by one thread: it advances the rates.
 */
int lb_report(struct lb_process *p, uint32_t *cursor, json_t **ret_report);
