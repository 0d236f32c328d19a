/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Can a machine be recovered, to which moment, and what is in the way: from the registry, the live reports and the
 * vault itself. The vault is asked at most once per LB_STATUS_VAULT_S per machine.
 */
#include "config/live.h"
#include "config/registry.h"

#define LB_STATUS_VAULT_S 5
#define LB_STATUS_SILENT_S 45 /* an agent or process server that has not spoken for so long is told as silent */

/*
 * {"id","name","health","recoverable","point_ns","rpo_s","state","progress","proven_ns","reasons"} and what
 * GET /v1/machine adds: "error", "policy", "enabled", "process", "disks", ...
 */
int lb_status_machine(struct lb_site *site, const struct lb_reg_machine *machine, json_t **ret_object);
/* {"id","name","kind","health","text","cure"} */
int lb_status_process(struct lb_site *site, const struct lb_reg_process *process, json_t **ret_object);
/* GET /v1/status: worst first. */
int lb_status_all(struct lb_site *site, json_t **ret_object);
/* Tells as events what became better or worse since the last look. */
int lb_status_watch(struct lb_site *site);
