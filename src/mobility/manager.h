/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent's talk with the configuration server, on a thread of its own, so that one that hangs delays no segment:
 * asks every few seconds what is wanted, tells how this machine is, and renews the certificate in time.
 */
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "mobility/agent_config.h"
#include "mobility/group_run.h"
#include "mobility/points.h"
#include "mobility/session.h"

#define LB_MANAGER_POLL_S 5
#define LB_MANAGER_REPORT_S 60 /* at the latest; sooner when the state changes */

struct lb_manager_options {
	struct lb_env *env;
	const struct lb_agent_settings *settings;
	const char *hardware; /* fingerprint, hex */
	const char *name;
	int wake_fd; /* eventfd that is written when the configuration changed */
};

struct lb_manager;
int lb_manager_start(const struct lb_manager_options *options, struct lb_manager **ret_manager);
void lb_manager_stop(struct lb_manager *m);
LB_DEFINE_CLEANUP(struct lb_manager *, lb_manager_stop);

/* Any thread. True when the configuration changed since the last call. */
bool lb_manager_config(struct lb_manager *m, struct lb_agent_config *ret_config);
/* True when the certificate was renewed since the last call: make clients anew. */
bool lb_manager_renewed(struct lb_manager *m);
/* True when the configuration server refused this identity since the last call. */
bool lb_manager_refused(struct lb_manager *m);
/* Whose results are reported too; it outlives the manager. */
void lb_manager_points(struct lb_manager *m, struct lb_points *points, struct lb_group_run *group);
/* What is reported next. */
void lb_manager_tell(struct lb_manager *m, const struct lb_session_status *status);
