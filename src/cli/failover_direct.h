/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Failover with the vault and the passphrase alone, every server gone. */
#include "cli/cli.h"
#include "fabric/failover.h"

/* cmd_failover.c: the options as the body of an order; `kind`: "test" or "live". */
int cli_failover_body(const struct cli *c, const char *kind, json_t **ret_body);
int cli_failover_direct(struct cli *c, enum lb_failover_kind kind);
int cli_failover_list_direct(struct cli *c, json_t **ret_reply);
int cli_failover_cleanup_direct(struct cli *c);
int cli_failover_repoint_direct(struct cli *c);
int cli_failover_commit_direct(struct cli *c);
/* The double that the first argument names, of --folder. */
int cli_double_open(struct cli *c, struct lb_failover **ret_failover);
