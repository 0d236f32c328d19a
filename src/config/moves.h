/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Machines move between process servers, without a resync and never with two writers. The one that a machine has takes
 * nothing more from it and sends what it acknowledged to the vault; then the other one goes on with the same epoch. Of
 * one that does not answer the journal is sealed first: whatever its cache still holds is never offered, and the agent
 * sends again what it knows as not confirmed by the vault.
 */
#include "config/jobs.h"
#include "config/registry.h"

#define LB_PROCESS_ALIVE_S 60   /* who has spoken within it may be given machines */
#define LB_MOVE_RETRY_S 300     /* after a move that failed, before the next by itself */
#define LB_MOVE_TAKE_OVER_S 120 /* for the other one to open the journal */

/* Orders a move as a job. `to`: name or id; NULL: the least loaded other one. `now`: without a hand-over. */
int lb_move_order(struct lb_site *site, const struct lb_reg_machine *machine, const char *to, bool now,
		  const char *made_by, char ret_job[LB_UUID_TEXT_BYTES]);
/* The job's function. */
int lb_move_run(struct lb_job *job);
/* Orders moves of what process servers that are lost had. */
int lb_moves_watch(struct lb_site *site);
