/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A double's identity of its own. What its firmware tells it (wire/told.h) names a configuration server, which it asks
 * for one until it is allowed to have it (reprotect). The identity lies in a folder beside its source's, which is never
 * touched: <state folder>/double/<16 digits of the secret's digest>/. So it counts on this double only, and a disk that
 * went home, or another double, passes it by.
 */
#include "mobility/agent_config.h"

#define LB_OWN_FOLDER "double"
#define LB_OWN_RETRY_S 10
#define LB_OWN_COPY_NAME "double" /* put into the run folder by the unit: only root may read what firmware tells */
#define LB_OWN_TEXT_BYTES 512

struct lb_own {
	struct lb_agent_settings settings; /* the agent's, with this identity; borrowed but for what is below */
	char config_url[300], folder[512];
};

/* The identity that this double has. -ENOENT: it is told of no configuration server; -EAGAIN: it has none yet. */
int lb_own_find(struct lb_env *env, const struct lb_agent_settings *settings, struct lb_own *ret_own);
/*
 * Asks for one, once. 0: it has a (new) one. -EAGAIN: the server knows this double and lets it wait, `text` says in the
 * server's words for what; another one than before is no more wanted. Other errors: not heard of it.
 */
int lb_own_ask(struct lb_env *env, const struct lb_agent_settings *settings, const struct lb_uuid *source,
	       char text[LB_OWN_TEXT_BYTES]);
/* Forgets the one that it has. */
int lb_own_forget(struct lb_env *env, const struct lb_own *own);
/* Whether a double had this machine's identity as its own: then its disks are what this one started from. */
bool lb_own_was(struct lb_env *env, const struct lb_agent_settings *settings, const struct lb_uuid *machine);
/* On a machine that is no double: what doubles left on its disks. */
int lb_own_remove_all(struct lb_env *env, const struct lb_agent_settings *settings);
