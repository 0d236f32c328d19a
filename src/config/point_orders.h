/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Points that are made on purpose: what a machine's agent is asked for, what became of it, and what is known of a point
 * beside what the vault holds (for how long filesystems were frozen for it). Any thread.
 */
#include <jansson.h>

#include "config/jobs.h"
#include "config/registry.h"
#include "vault/points.h"

#define LB_POINT_AGENT_S 300    /* how long a job waits for the agent's point: scripts, freeze, the process server */
#define LB_POINT_VAULT_S 600    /* and for it to be in the vault */
#define LB_POINT_NOTES_MAX 2000 /* kept of one machine */

/* What the machine's agent is told: {"generation","app"}; NULL: nothing is asked for. */
int lb_point_order_json(struct lb_site *site, const char *machine, json_t **ret_order);
/* The "points" of an agent's report. */
int lb_point_report(struct lb_site *site, const struct lb_reg_machine *machine, const json_t *points);
/* Adds "frozen_ms" and "shared" to a point's JSON, where they are known. */
int lb_point_note_add(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq, json_t *point);
int lb_point_note_put(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq, int64_t frozen_ns,
		      const char *shared);
/* A point as the API shows it, with what is known of it; NULL: out of memory. */
json_t *lb_point_json(struct lb_site *site, const struct lb_uuid *machine, const struct lb_point *point);
/* The process server says that the vault holds the machine's journal up to there. */
bool lb_point_in_vault(struct lb_site *site, const char *machine, uint64_t epoch, uint64_t seq);
/* Until the process server says that the vault holds the machine's journal up to there. */
int lb_point_wait_vault(struct lb_job *job, const char *machine, uint64_t epoch, uint64_t seq);

/* The job of one machine's point: target the machine's id, request {"app", "name"}. */
int lb_point_job_run(struct lb_job *job);
/* Keeps the latest of all that was received under a name: target the machine's id, request {"name"}. job_pin.c */
int lb_pin_job_run(struct lb_job *job);
