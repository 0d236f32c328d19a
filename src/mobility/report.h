/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How this machine is, in the shapes that others read: the configuration server's report, the status file. Any thread.
 */
#include <jansson.h>

#include "base/env.h"
#include "mobility/session.h"

#define LB_STATUS_NAME "status.json"
#define LB_STATUS_BYTES_MAX (64u << 10)

/* The body of POST /v1/agent/report. */
int lb_report_json(struct lb_env *env, const char *hardware, const char *name, const struct lb_session_status *status,
		   json_t **ret_body);
/* What `lifeboat-mobility status` shows; also the report's figures. */
int lb_status_json(struct lb_env *env, const struct lb_session_status *status, json_t **ret_object);
/* Puts it into the run folder (tmpfs: no protected disk is written). */
int lb_status_write(struct lb_env *env, const char *run_folder, const struct lb_session_status *status);
