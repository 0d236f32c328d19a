/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What agents ask of the process server over HTTPS; the argument of the handlers is the struct lb_process. */
#include "process/process.h"
#include "wire/server.h"

#define LB_API_RETRY_AFTER_S 2	      /* of a 429 that time cures soon */
#define LB_API_RETRY_AFTER_FULL_S 10  /* of a cache that is full */

extern const struct lb_http_route lb_process_routes[];
extern const size_t lb_process_routes_n;
