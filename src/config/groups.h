/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Replication groups: which machines share multi-VM consistent recovery points, how often, and what became of the
 * points. A machine is in one group at most. Each change of the members makes a new version of the roster; agents of
 * different versions make no point together. Each function is a short transaction of its own. Any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "config/jobs.h"
#include "config/registry.h"
#include "vault/retention.h"

#define LB_GROUPS_MAX 1024
#define LB_GROUP_SIZE_MAX 32
#define LB_GROUP_INTERVAL_S_DEFAULT 300
#define LB_GROUP_INTERVAL_S_MIN 10
#define LB_GROUP_INTERVAL_S_MAX 86400
#define LB_GROUP_VAULT_S 600      /* a point whose journals are not in the vault by then is none */
#define LB_GROUP_POINTS_MAX 10000 /* remembered of all groups; the vault keeps its own */

struct lb_reg_group {
	char id[LB_UUID_TEXT_BYTES];
	char name[LB_REG_NAME_BYTES];
	int64_t version, interval_s, app_interval_s; /* 0: on demand */
	int64_t created_ns;
};

/* By id or name; the text names the cure. */
int lb_reg_group_find(struct lb_db *db, const char *name_or_id, struct lb_reg_group *ret_group);
/* The group that a machine is in; -ENOENT without text. */
int lb_reg_group_of(struct lb_db *db, const char *machine, struct lb_reg_group *ret_group);
int lb_reg_groups(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_group *group), void *arg);
/* New by its id, or other intervals. */
int lb_reg_group_put(struct lb_db *db, const struct lb_reg_group *group);
int lb_reg_group_delete(struct lb_db *db, const char *id);
/* -EEXIST: the machine is in a group already; -ENOSPC: the group is full. */
int lb_reg_group_add(struct lb_db *db, const char *id, const char *machine);
/* -ENOENT: it isn't in it. */
int lb_reg_group_remove(struct lb_db *db, const char *id, const char *machine);
/* Out of whatever group it is in. */
int lb_reg_group_leave(struct lb_db *db, const char *machine);

/* {"id","name","version","interval_s","app_interval_s","members":[{"id","name","host","port"}],"order"} */
int lb_group_json(struct lb_site *site, const struct lb_reg_group *group, json_t **ret_object);
/* How long shared points stay: the longest ladder of the members' policies, and the longest keeping of application-
 * consistent ones. */
int lb_group_retention(struct lb_db *db, const char *group, struct lb_retention *ret_retention);
/* The groups for the registry's copy in the vault, and back. */
int lb_groups_copy(struct lb_db *db, json_t *list);
int lb_groups_restore(struct lb_db *db, const json_t *list);

/* ---- group_points.c ---- */

/* What a coordinator tells of a point. -EACCES: it is in no such group; -EINVAL: of another roster than ours now. */
int lb_group_point_take(struct lb_site *site, const char *machine, const json_t *outcome);
/* Points whose journals have arrived in the vault become points. After each report of a process server. */
int lb_group_points_settle(struct lb_site *site);
/* [{"id","state","app","made_ns","frozen_ns","text","members"}], newest first. */
int lb_group_points_json(struct lb_site *site, const char *group, json_t **ret_list);
/* The job of a point that an operator asks for: target the group's id, request {"app", "name"}. */
int lb_group_point_job_run(struct lb_job *job);
