/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What agents found about how a double of their machine would start (mobility/ready.h), as it was last told: kept with
 * the machine, told as an event where it got worse.
 */
#include "config/registry.h"

#define LB_READINESS_FINDINGS_MAX 64
#define LB_READINESS_EVENTS_MAX 8 /* of one report */

/* Takes the "readiness" of a report, if it has one: -EBADMSG when it makes no sense. */
int lb_readiness_take(struct lb_site *site, const struct lb_reg_machine *machine, const json_t *report);
/* Looks again whether the doubles' network can be had: after a change of the target settings. */
int lb_readiness_look_again(struct lb_site *site, const struct lb_reg_machine *machine);
/*
 * {"verdict", "checked_ns", "findings"}; "verdict" is "ready", "warnings", "blocked" or "unknown" (then "checked_ns" is
 * null and there are no findings).
 */
int lb_readiness_get(struct lb_site *site, const char *machine, json_t **ret_object);
/* -EPERM with what is in the way and what mends it when the double would not come up. */
int lb_readiness_allows(struct lb_site *site, const struct lb_reg_machine *machine);
