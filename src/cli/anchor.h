/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What is known of the vault's newest state outside of it, for the commands that recover or prove. */
#include "cli/cli.h"
#include "vault/anchor.h"

/* Reads a receipt; the vault is open. */
int cli_receipt_read(struct cli *c, const char *path, struct lb_receipt *ret_receipt);
/*
 * Before a recovery: holds the machine in the vault against --anchor FILE and says what came of it; without one, that
 * freshness is unproven. -EPERM when the vault is older than the receipt, or of another history.
 */
int cli_anchor_check(struct cli *c, const struct lb_uuid *machine, int64_t newest_ns);
