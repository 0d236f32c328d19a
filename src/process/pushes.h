/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Orders of push installs that came with the configuration: at most LB_PUSHES_MAX run at once, each on a thread of its
 * own that tells the configuration server how far it is. They end with the process server.
 */
#include <jansson.h>

#include "base/cleanup.h"

#define LB_PUSHES_MAX 4 /* the configuration server hands out no more at a time */

struct lb_pushes;
/* Texts are copied. */
int lb_pushes_new(const char *config_url, const char *identity_folder, const char *package,
		  struct lb_pushes **ret_pushes);
/* Waits for those that run: none begins a step after it. */
void lb_pushes_free(struct lb_pushes *p);
LB_DEFINE_CLEANUP(struct lb_pushes *, lb_pushes_free);

/*
 * Tells the configuration server what has become of each of these installs (ids): it, or this process server, may have
 * restarted. What has ended is remembered until others begin.
 */
void lb_pushes_tell(struct lb_pushes *p, const json_t *ids);

/* Begins each of the list and wipes its secrets here; one too many is reported as failed. */
void lb_pushes_take(struct lb_pushes *p, json_t *orders);
