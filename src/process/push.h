/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Push install: the agent is brought to another host by SSH, enrolled, upgraded or removed, as the configuration server
 * orders. An order holds secrets: they stay in memory and are wiped with it.
 *
 * Order: {"id", "action": "assess"|"install"|"upgrade"|"remove", "host", "port", "user", "key", "password", "host_key",
 * "accept_new_host_key", "name", "token", "config_url", "ca_fingerprint"}. Report: {"state": "running"|"done"|"failed",
 * "step", "text", "fitness"}.
 */
#include <stdbool.h>

#include <jansson.h>

#define LB_PUSH_PACKAGE_BYTES_MAX (64u << 20)
#define LB_PUSH_STEP_S 120
#define LB_PUSH_INSTALL_S 900 /* packages are fetched over whatever link there is */

struct lb_push {
	const json_t *order;
	const char *package;     /* the agent's Debian package on this host */
	const char *known_hosts; /* file of remembered host keys */
	/* Tells how far it is. */
	void (*say)(void *arg, const char *step, const char *text);
	void *arg;
};

/* Does it all; `ret_fitness` is what was found on the host (also after a failure when it was reached), or NULL. */
int lb_push_run(const struct lb_push *push, json_t **ret_fitness);
