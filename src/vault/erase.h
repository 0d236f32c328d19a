/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Taking a machine out of a vault for good. */
#include "vault/vault.h"

/*
 * Removes everything of the machine: first what it is found by, then its key, which makes the rest unreadable, then the
 * rest. Nobody may write for it any more. Can be begun again after a kill; nothing to do is no error. What an object
 * lock keeps is kept: -EACCES or -EPERM.
 */
int lb_vault_machine_erase(struct lb_vault *v, const struct lb_uuid *machine);
