/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Mending on a protected machine: the job of POST /v1/machine/{}/mend. Target: the machine's id. */
#include "config/jobs.h"

#define LB_MEND_S                                                                                                      \
	1200 /* above what the machine may take (mobility/mend_order.h) and an agent that is away for a while */

int lb_job_mend_run(struct lb_job *job);
