/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Answers as libmicrohttpd wants them. Inside src/wire. */
#include <microhttpd.h>

#include "wire/server.h"

/* Queues `reply` and takes its contents over; MHD_NO closes the connection. */
enum MHD_Result lb_reply_send(struct MHD_Connection *connection, struct lb_http_reply *reply);
/* Queues {"error": {"code", "message"}} with this thread's error text. `status` 0: lb_http_status_of(error). */
enum MHD_Result lb_reply_error(struct MHD_Connection *connection, unsigned int status, int error,
			       uint32_t retry_after_s);
