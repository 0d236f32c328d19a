/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Mending (mend.h) that the configuration server asks for. The agent has no right to it: it leaves an order in its run
 * folder. There lifeboat-mend.path sees it, and lifeboat-mend.service, as root, does what is ordered (nothing else can
 * be) and leaves the outcome in a folder of its own, into which the agent can't write. An order is carried out again
 * after a kill, which changes nothing more.
 *
 *   RUN_FOLDER/mend.order       {"generation", "network", "initramfs"}
 *   MEND_FOLDER/outcome.json    {"generation", "ok", "text"}
 */
#include <jansson.h>
#include <stdbool.h>

#include "base/env.h"

#define LB_MEND_ORDER_NAME "mend.order"
#define LB_MEND_OUTCOME_NAME "outcome.json"
#define LB_MEND_FOLDER "/run/lifeboat-mend"
#define LB_MEND_FILE_BYTES_MAX 4096
#define LB_MEND_COMMAND_S 600 /* for making the initramfs of all kernels anew */
#define LB_MEND_WAIT_S 900    /* what the agent waits for the outcome */
#define LB_MEND_TEXT_BYTES 512

struct lb_mend_order {
	uint64_t generation; /* 0: none */
	bool network, initramfs;
};

/* ---- the agent's ---- */

/* Once for each order, however often it is called: leaves it, unless its outcome is there. Takes `ret_outcome` when it
 * is, or when the wait for it is over; else NULL. `*since_ns`: 0 at first, then its own. */
int lb_mend_follow(struct lb_env *env, const char *run_folder, const char *mend_folder,
		   const struct lb_mend_order *order, int64_t *since_ns, json_t **ret_outcome);

/* Takes an order back that was not carried out yet. */
void lb_mend_withdraw(struct lb_env *env, const char *run_folder);

/* ---- root's ---- */

/* Takes the order away and carries it out below `root` ("": this machine). -ENOENT: there is none. What fails is the
 * outcome's text, not this function's. */
int lb_mend_obey(struct lb_env *env, const char *root, const char *run_folder, const char *mend_folder);
