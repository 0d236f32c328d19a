/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Between the agent and the privileged helper, on a Unix stream socket: one JSON line each way per connection, fds
 * beside the answer's first byte. Request: {"cmd":..., ...}. Answer: {"ok":true, ...} or {"error":ERRNO,"text":...}.
 */
#include <stddef.h>

#include "base/json.h"

#define LB_LINE_BYTES_MAX (64u << 10)
#define LB_REQUEST_S_MAX 5 /* how long the helper waits for a whole request */

int lb_line_send(int socket, const json_t *message, const int *fds, size_t n_fds);
/* Takes at most `fds_max` fds (all closed on failure, more are an error). The socket's own timeout bounds the wait. */
int lb_line_receive(int socket, int *fds, size_t fds_max, json_t **ret_message, size_t *ret_fds);
