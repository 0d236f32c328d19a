/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A process server's port is changed while agents are enrolled: it opens the new one beside the old, says so, agents
 * are then told of the new one, and when all of them have followed, or at the limit, the old one is closed. Each step
 * is in the database before it is told, so that a kill of either server changes nothing.
 */
#include "config/registry.h"

#define LB_PORT_KEEP_OLD_S_DEFAULT 3600
#define LB_PORT_KEEP_OLD_S_MAX (7 * 24 * 3600)

/* The ports to be served on, the one for agents first. */
int lb_ports_wanted(struct lb_site *site, const struct lb_reg_process *process, json_t **ret_list);
/* Takes what a report says of ports, and makes the next step. */
int lb_ports_reported(struct lb_site *site, const struct lb_reg_process *process, const json_t *report);
/* What `process_port` of the settings means for the process server here: an operator's later change outlives a start.
 */
int lb_ports_local(struct lb_site *site, bool is_new, uint16_t *port);
