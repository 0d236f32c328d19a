/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Reprotect: a committed double becomes a machine of its own, "<machine>-back", and replicates, while it runs, through
 * the temporary process server into a journal of its own; a target server follows that journal. With it the machine
 * goes home at the price of the last seconds. One row per reprotected double says how far it is; jobs go on from there.
 */
#include "config/jobs.h"
#include "config/registry.h"
#include "fabric/failover.h"

#define LB_BACK_SUFFIX "-back"
#define LB_REPROTECT_ASKED_S 60 /* so lately its agent must have asked, to be called reachable */
#define LB_REPROTECT_LOOK_S 45  /* so long the check waits for it to ask */
#define LB_REPROTECT_ENROL_S 1800
#define LB_REPROTECT_START_S 60 /* for the temporary process server to speak */

struct lb_reprotect {
	char double_name[LB_REG_NAME_BYTES];
	char machine[LB_UUID_TEXT_BYTES]; /* whose double it is */
	char name[LB_REG_NAME_BYTES];
	char back_name[LB_REG_NAME_BYTES];
	char back[LB_UUID_TEXT_BYTES]; /* the machine that the double is itself; empty: not enrolled yet */
	char key[LB_REG_HEX_BYTES];    /* digest of the key that it enrolled with */
	char process[LB_UUID_TEXT_BYTES];
	char state[16]; /* below */
	char job[LB_UUID_TEXT_BYTES];
	json_t *request;
	int64_t made_ns;
};
/* In this order; "ending" and "home" from any of them, "landed" and "started" from "home". */
#define LB_REPROTECT_STARTING "starting"       /* the temporary process server is made */
#define LB_REPROTECT_ENROLLING "enrolling"     /* its agent may enrol */
#define LB_REPROTECT_ENABLING "enabling"       /* its disks are chosen */
#define LB_REPROTECT_REPLICATING "replicating" /* initial replication */
#define LB_REPROTECT_FOLLOWING "following"     /* the target takes the newest point */
#define LB_REPROTECT_PROTECTED "protected"
#define LB_REPROTECT_HOME "home" /* failback was begun: the double is shut, or is being so */
/* The target's disks are at the last point, and it let go of them: nothing writes them again, as their machine may. */
#define LB_REPROTECT_LANDED "landed"
#define LB_REPROTECT_STARTED "started" /* and the target server started the original */
#define LB_REPROTECT_ENDING "ending"   /* everything of it is being removed */

bool lb_reprotect_landed(const struct lb_reprotect *p);    /* landed, or started */
bool lb_reprotect_goes_home(const struct lb_reprotect *p); /* home, or one of these */

#define LB_REVOKED_GOES_HOME "its machine goes home" /* of the double's own machine; also its journal's seal */

void lb_reprotect_clear(struct lb_reprotect *p); /* for _cleanup_() */
/* -ENOENT when the double is not reprotected. */
int lb_reprotect_find(struct lb_db *db, const char *double_name, struct lb_reprotect *ret_reprotect);
/* By the machine that it stands for, or that it is itself. */
int lb_reprotect_of(struct lb_db *db, const char *machine, struct lb_reprotect *ret_reprotect);
int lb_reprotect_put(struct lb_db *db, const struct lb_reprotect *p);
int lb_reprotect_remove(struct lb_db *db, const char *double_name);
/* How it is, in words a person can act on: {"state", "text", "machine", "back", "job", "target"}; JSON null when it is
 * not reprotected. */
int lb_reprotect_json(struct lb_site *site, const char *double_name, json_t **ret_object);

/* Jobs that wait for agents and servers look again. */
int lb_reprotect_wake(struct lb_site *site);

/*
 * Orders the job for one double; `body` as of POST /v1/failover/{name}/reprotect. `parent`: a job that waits for it, or
 * "". -ENOENT no such double; -EEXIST it is reprotected, or worked on; -EINVAL.
 */
int lb_reprotect_order(struct lb_site *site, const char *parent, const char *double_name, const json_t *body,
		       const char *made_by, char ret_job[LB_UUID_TEXT_BYTES]);

/* reprotect_check.c: the way back, before anything is begun: findings {"level", "what", "text"}. -EINVAL, with the
 * first of the errors in words, when the way is not clear. */
int lb_reprotect_check(struct lb_job *job, json_t **ret_findings);

/* reprotect_disks.c: the double's disks under the lasting numbers and names of its source's. */
int lb_reprotect_disks(struct lb_site *site, const struct lb_reprotect *p, struct lb_reg_machine *back);

/* reprotect_target.c: nothing to do where no target server is named */
int lb_reprotect_check_body(struct lb_site *site, const json_t *body);
int lb_reprotect_target_check(struct lb_job *job, const char *machine, json_t **ret_findings);
int lb_reprotect_target_follow(struct lb_job *job, const struct lb_reprotect *p);
int lb_reprotect_target_finish(struct lb_job *job, const struct lb_reprotect *p, const struct lb_position *last);
/*
 * Whether what `boot` names is there and could be started on the disks that are written for it; -EREMOTEIO with the
 * target server's words. With `wait` false it is only ordered; the same with `wait` tells.
 */
int lb_reprotect_target_ready(struct lb_job *job, const struct lb_reprotect *p, const json_t *boot, bool wait);
/* If the job's request says what to start ("boot"). */
int lb_reprotect_target_boot(struct lb_job *job, const struct lb_reprotect *p);
int lb_reprotect_target_drop(struct lb_job *job, const struct lb_reprotect *p);

/* reprotect_copy.c: for the registry's copy in the vault. */
int lb_reprotect_copy(struct lb_db *db, json_t *list);
int lb_reprotect_restore(struct lb_db *db, const json_t *list);

/* reprotect_end.c */
/* Its journal takes nothing more; what the process server acknowledged is in the vault. */
int lb_reprotect_fence(struct lb_job *job, struct lb_reprotect *p);
/* Takes everything of it away: identity, journal, and the process server with the last. Again after a kill. */
int lb_reprotect_end(struct lb_job *job, const char *double_name);
