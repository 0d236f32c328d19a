/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Recovery plans: which machines come back together, in which order, and what is done between. A plan is one JSON
 * object:
 *
 *   {"name": "shop", "groups": [
 *      {"name": "databases", "machines": ["db1", {"machine": "db2", "memory_bytes": 4294967296}],
 *       "before": [{"manual": "Is the old site really down?", "for": "failover"}],
 *       "after": [{"script": "move-dns", "timeout_s": 60, "on_failure": "continue"}]}, ...]}
 *
 * Groups come one after another; the machines of a group together. `before` and `after` are actions: a script of the
 * server's folder (fabric/hook.h), or words to a person, who confirms; "for" says in what they are done: "test",
 * "failover", "both" (the default: these two), or "failback". A group's "on_failure" says whether later groups are
 * begun when one of its machines fails ("stop", the default, or "continue"). A machine's "home" is its way back
 * (below).
 *
 * Pure functions over JSON; the same for the configuration server and for the command line that works on a vault alone.
 */
#include <stdbool.h>

#include <jansson.h>

#define LB_PLAN_GROUPS_MAX 32
#define LB_PLAN_MACHINES_MAX 512 /* of all groups */
#define LB_PLAN_ACTIONS_MAX 16   /* of one list */
#define LB_PLAN_TEXT_BYTES_MAX 400

/*
 * Checks what a person wrote and gives it back in its full form: every machine an object, every default written out.
 * -EINVAL says where and what; a machine may stand in one place only.
 */
int lb_plan_read(const json_t *body, json_t **ret_plan);

const json_t *lb_plan_group(const json_t *plan, size_t n); /* borrowed; NULL past the last */
size_t lb_plan_groups(const json_t *plan);
/* Its name, or "group N". Valid until the next call on this thread's `text`. */
#define LB_PLAN_GROUP_NAME_BYTES 80
const char *lb_plan_group_name(const json_t *plan, size_t n, char text[LB_PLAN_GROUP_NAME_BYTES]);
/* Whether an action of the full form is done in this kind of run: "test", "failover" or "failback". */
bool lb_plan_action_applies(const json_t *action, const char *kind);
/* The machine entry as the body of an order: what is for the other kind of failover is left out. */
int lb_plan_order(const json_t *machine, bool live, const char *point, json_t **ret_body);

/* How its double is called; `double_name` takes LB_VM_NAME_BYTES. -EINVAL when it is too long. */
int lb_plan_double(const json_t *machine, bool live, char *double_name);

/* Each machine entry in the order of the groups; non-zero ends it and is passed on. */
int lb_plan_each(const json_t *plan, int (*fn)(void *arg, size_t group, const json_t *machine), void *arg);

/* -EINVAL names a member of `object` that is none of `known` (ends with NULL). */
int lb_plan_members(const json_t *object, const char *where, const char *const *known);

/*
 * plan_home.c: a machine's "home" is {"target": SERVER, "to": {DISK: PATH, ...} | "auto", "some", "overwrite",
 * "undo_bytes", "undo_points"} for its reprotect, and {"boot": {"domain", "uri"} | {"hook"}, "wait_s"} for its
 * failback.
 */
#define LB_PLAN_HOME_WAIT_S_MAX 86400
int lb_plan_home_check(const json_t *home);
/* That no two machines of the plan are written onto one disk. */
int lb_plan_homes_check(const json_t *plan);
/* What an order says of machines, {NAME: home}, on top of what the plan says. -ENOENT: the plan has no such machine. */
int lb_plan_homes_set(json_t *plan, const json_t *homes);
/* The body of POST /v1/failover/{name}/reprotect, and of /failback. */
int lb_plan_reprotect_order(const json_t *machine, json_t **ret_body);
int lb_plan_failback_order(const json_t *machine, json_t **ret_body);
