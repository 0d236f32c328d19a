/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which of this host's doubles asks, by its secret (wire/told.h), and when each has asked: what proves that a double
 * reaches this server. Kept in memory; a secret's digest is remembered, never the secret. Any thread.
 */
#include "config/site.h"

#define LB_DOUBLES_MAX 1024
#define LB_DOUBLES_LOOK_MS 1000 /* at most once in this time all doubles are looked through for an unknown secret */

int lb_doubles_new(struct lb_doubles **ret_doubles);
void lb_doubles_free(struct lb_doubles *doubles);

/* The double that has this secret, noted as having asked now; -EACCES when none has. */
int lb_doubles_asked(struct lb_site *site, const char *secret, char double_name[LB_SUBJECT_BYTES]);
/* When it last asked (wall clock); 0: not since this server started. */
int64_t lb_doubles_asked_ns(struct lb_site *site, const char *double_name);
