/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The orders of a target server: those that the configuration server lists are worked on, at most
 * settings->machines_max at once, one of a machine at a time; those that it lists no more are let go of. Used by one
 * thread.
 */
#include "target/task.h"

#define LB_TARGET_TASKS_MAX 64

struct lb_target_service {
	struct lb_env *env;
	const struct lb_target_settings *settings; /* borrowed */
	struct lb_target_task *tasks[LB_TARGET_TASKS_MAX];
	unsigned int n_tasks;
	json_t *waiting; /* reports of orders whose turn is later */
	char error[512];
};
int lb_target_service_init(struct lb_env *env, const struct lb_target_settings *settings,
			   struct lb_target_service *ret_service);
/* An answer of /v1/target/orders; the keys in it are wiped. */
int lb_target_service_take(struct lb_target_service *s, json_t *config);
int lb_target_service_report(struct lb_target_service *s, json_t **ret_report);
/* A machine of this host was started, or will be as soon as we end: an order `boot` is done. */
bool lb_target_service_has_booted(struct lb_target_service *s);
/* We are no longer trusted: nothing goes on, and no key is kept. */
void lb_target_service_revoke(struct lb_target_service *s, const char *why);
/* Ends all tasks and waits for them; their reports can still be had. */
void lb_target_service_stop(struct lb_target_service *s);
/* The same, and forgets them. */
void lb_target_service_end(struct lb_target_service *s);
