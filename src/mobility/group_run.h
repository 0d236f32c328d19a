/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A replication group on this machine, for real: the port on which its members are heard, calls to them over mutual
 * TLS, and a thread that elects, makes points when they are due, and gives up what is not gone on with.
 */
#include <jansson.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "mobility/agent_config.h"
#include "mobility/mark.h"

#define LB_GROUP_FIRST_S 10  /* after it took the lead a coordinator makes its first point */
#define LB_GROUP_RETRY_S 30  /* after a point that failed, unless they are due sooner */
#define LB_GROUP_TOLD_MAX 16 /* outcomes that wait for the configuration server; older ones are dropped */

struct lb_group_run_options {
	struct lb_env *env;
	const struct lb_agent_settings *settings;
	struct lb_mark *mark;
	int wake_fd; /* the session's */
};

struct lb_group_run;
int lb_group_run_start(const struct lb_group_run_options *options, struct lb_group_run **ret_run);
void lb_group_run_stop(struct lb_group_run *run);
LB_DEFINE_CLEANUP(struct lb_group_run *, lb_group_run_stop);

/* Any thread, as what follows. */
void lb_group_run_configure(struct lb_group_run *run, const struct lb_agent_config *config);
/* The certificate was renewed. */
void lb_group_run_renewed(struct lb_group_run *run);
/* The oldest outcome that was not told; NULL: none. lb_group_run_told() takes it away. */
int lb_group_run_outcome(struct lb_group_run *run, json_t **ret_outcome, uint64_t *ret_number);
void lb_group_run_told(struct lb_group_run *run, uint64_t number);
