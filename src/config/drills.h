/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Drills: a double of a machine is started on an isolated network from a recovery point, proven by checks
 * (fabric/check.h), pictured, and removed without trace. A drill is a job of kind "drill" on the double's name,
 * MACHINE-drill; what it found is kept beyond it: a row, and <state folder>/drills/<job>/ with the screen and the
 * consoles.
 *
 * No drill outlives its deadline, which is written into the order: past it the job ends its work, and the double's VM
 * is turned off by lb_drills_tick() whatever its job is doing; what a drill without a job left behind is removed there
 * too.
 */
#include "config/jobs.h"

#define LB_DRILL_LIMIT_S_DEFAULT 1800
#define LB_DRILL_LIMIT_S_MIN 30
#define LB_DRILL_LIMIT_S_MAX (24 * 3600)
#define LB_DRILLS_KEPT_MAX 50 /* of one machine; older ones go with their pictures */
#define LB_DRILL_EVERY_S_MIN 60
#define LB_DRILL_EVERY_S_MAX (400u * 24 * 3600)
#define LB_DRILL_SCHEDULES_MAX 2000
#define LB_DRILL_NOTE_BYTES_MAX 2000

/* The kinds' functions; a plan's drills each of its machines, in the order of its groups. */
int lb_drill_run(struct lb_job *job);
int lb_plan_run_drill(struct lb_job *job);

/*
 * Checks an order's body ("machine", "point", "note", "limit_s", "check", "keep" and what a failover takes) and gives
 * it back as the job's request, its deadline still to be set; `double_name` takes LB_VM_NAME_BYTES.
 */
int lb_drill_request(const json_t *body, json_t **ret_request, char *double_name);
/* The body of an order with the deadline that its limit gives it from now on. */
int lb_drill_set_deadline(struct lb_site *site, json_t *request);

/* drill_schedule.c: the schedules, for the registry's copy in the vault and from it (NULL: an older copy). */
int lb_drills_copy(struct lb_db *db, json_t *list);
int lb_drills_restore(struct lb_db *db, const json_t *list);

/* What is due is ordered; what is over its time is turned off; what was left behind is removed. About every 10 s. */
void lb_drills_tick(struct lb_site *site);

/* The last one of a machine (its id) that failed after it was last proven: its text and end, or -ENOENT. */
int lb_drill_last_failed(struct lb_db *db, const char *machine, int64_t proven_ns, char text[256],
			 int64_t *ret_ended_ns);
/* <state folder>/drills/<id> */
int lb_drill_folder(struct lb_site *site, const char *id, char *path);
