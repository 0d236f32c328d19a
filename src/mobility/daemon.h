/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The running agent: session on this thread, manager on another; ends at SIGTERM or SIGINT. Capture goes on in the
 * kernel. */
#include "mobility/agent_config.h"

#define LB_STATUS_INTERVAL_S 5

int lb_daemon_run(struct lb_env *env, const struct lb_agent_settings *settings);
