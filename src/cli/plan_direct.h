/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Recovery plans from the registry's copy in the vault, every server gone. */
#include "cli/cli.h"
#include "cli/plan_record.h"

int cli_plan_list_direct(struct cli *c, json_t **ret_reply);
int cli_plan_get_direct(struct cli *c, const char *name, json_t **ret_plan);
/* Group after group on this host, the machines of a group at once; a person is asked here. Killed, it goes on when it
 * is run again. */
int cli_plan_run_direct(struct cli *c, bool live);
int cli_plan_commit_direct(struct cli *c);
int cli_plan_cleanup_direct(struct cli *c);

/* plan_direct_pins.c: by the record's own name, once for a run; again after a kill. -ESTALE: one was pruned meanwhile.
 */
int cli_plan_pin(struct cli *c, struct cli_plan_record *record, bool live);
/* Lets them go; what stays is told to the person. */
void cli_plan_unpin(struct cli *c, const struct cli_plan_record *record);
