/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One order being worked on, on a thread of its own, with a vault of its own that has this machine's key and no other.
 * What can pass (a link that is cut, a store that is away) is waited for; the rest fails the order. The key is wiped
 * when the task ends.
 */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "target/order.h"
#include "target/settings.h"
#include "target/target.h"

struct lb_target_task {
	struct lb_env *env;
	const struct lb_target_settings *settings;
	struct lb_target_order order;
	char folder[PATH_MAX]; /* of the machine's record, undo files and outcome */
	char *vault_url;
	struct lb_uuid vault_id;
	atomic_bool stop;
	int wake_fd;
	pthread_mutex_t lock; /* of what follows, and of the order's keys */
	json_t *report;       /* {"id", "state", "text", ...} */
	bool ended;
	pthread_t thread;
	bool running; /* a thread to be joined */
};

/* Takes the order over. One whose outcome is kept has ended already. */
int lb_target_task_start(struct lb_env *env, const struct lb_target_settings *settings, const char *vault_url,
			 const struct lb_uuid *vault_id, struct lb_target_order *order,
			 struct lb_target_task **ret_task);
/* Asks it to end; it does so at its next look. */
void lb_target_task_stop(struct lb_target_task *t);
/* The machine's keys may become more while it is followed. */
void lb_target_task_keys(struct lb_target_task *t, const struct lb_keyring *keys);
bool lb_target_task_ended(struct lb_target_task *t);
/* A copy. */
int lb_target_task_report(struct lb_target_task *t, json_t **ret_report);
/* Waits for its thread. */
void lb_target_task_join(struct lb_target_task *t);
void lb_target_task_free(struct lb_target_task *t);
LB_DEFINE_CLEANUP(struct lb_target_task *, lb_target_task_free);

/* ---- inside a task ---- */
#define LB_TARGET_LOOK_MS 2000
#define LB_TARGET_RETRY_MS 5000

void lb_target_task_say(struct lb_target_task *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void lb_target_task_set(struct lb_target_task *t, const char *member, json_t *value); /* takes it over */
/* -ECANCELED when it should end. */
int lb_target_task_check(struct lb_target_task *t);
/* Sleeps, or until it should end. */
void lb_target_task_wait(struct lb_target_task *t, uint32_t ms);

/* What an order works with; opened as far as it needs. */
struct lb_target_work {
	struct lb_target_task *task;
	struct lb_store *store;
	struct lb_vault *vault;
	struct lb_catalog_item *item;
	struct lb_target *target;
	bool reached; /* the disks were at a point once */
	struct lb_target_stats sum;
};
/* The vault and the machine's entry in it. */
int lb_target_work_vault(struct lb_target_work *w);
/* The disks that the order names. */
int lb_target_work_disks(struct lb_target_work *w);
/* How much may be kept of the points before; the settings' limit counts. */
uint64_t lb_target_work_undo_bytes(const struct lb_target_work *w);
/* {"to"} as pairs; free() the list. Paths are checked against the settings. */
int lb_target_work_to(struct lb_target_work *w, struct lb_target_to **ret_to, uint32_t *ret_n);
int lb_target_work_point(struct lb_target_work *w, struct lb_point *ret_point);

/* check_order.c, follow.c, boot.c: 0, -ECANCELED, or an error. */
int lb_target_do_check(struct lb_target_work *w);
int lb_target_do_follow(struct lb_target_work *w);
int lb_target_do_finish(struct lb_target_work *w);
int lb_target_do_back(struct lb_target_work *w);
int lb_target_do_boot(struct lb_target_work *w);
int lb_target_do_halt(struct lb_target_work *w);
int lb_target_do_ready(struct lb_target_work *w);
/* `lifeboat-target start-domain URI NAME`: what the orders to look at, start and turn off a domain run. */
#define LB_TARGET_LOOK_DOMAIN "look-domain" /* and the paths that are to be its disks */
#define LB_TARGET_START_DOMAIN "start-domain"
#define LB_TARGET_HALT_DOMAIN "halt-domain"
int lb_target_do_drop(struct lb_target_work *w);
