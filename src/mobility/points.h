/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Recovery points that are made on purpose, on a thread of their own: application-consistent ones as often as the
 * policy says, and any kind on demand. Pre-scripts, freeze, mark, thaw, post-scripts, each within a time limit.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "mobility/agent_config.h"
#include "mobility/mark.h"

#define LB_POINTS_SCRIPTS_MS 60000      /* each phase */
#define LB_POINTS_POST_WITHIN_MS 120000 /* after the pre-scripts, whatever becomes of us */
#define LB_POINTS_FREEZE_MS 5000        /* the watchdog thaws after it */
#define LB_POINTS_DURABLE_MS 60000
#define LB_POINTS_TOLD_MAX 8 /* results that wait for the next report; older ones are dropped */

struct lb_points_options {
	struct lb_env *env;
	struct lb_mark *mark;
	const char *capture_socket;
	int wake_fd; /* the session's eventfd */
};

struct lb_points;
int lb_points_start(const struct lb_points_options *options, struct lb_points **ret_points);
void lb_points_stop(struct lb_points *p);
LB_DEFINE_CLEANUP(struct lb_points *, lb_points_stop);

/* Any thread, as what follows. */
void lb_points_configure(struct lb_points *p, const struct lb_agent_config *config);
/*
 * What became of points since the last lb_points_told(): [{"generation","app","ok","text","epoch","seq","time_ns",
 * "frozen_ns"}], newest last; `ret_upto` goes to lb_points_told() when it has arrived.
 */
int lb_points_json(struct lb_points *p, json_t **ret_list, uint64_t *ret_upto);
bool lb_points_untold(struct lb_points *p);
void lb_points_told(struct lb_points *p, uint64_t upto);
