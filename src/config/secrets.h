/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The vault's passphrase on its way from the file to the vault, and a process that gives none of its memory away. */
#include "base/env.h"

/* No core dumps, no ptrace by others, memory locked where the limit allows it. */
void lb_secrets_harden(void);

/*
 * Reads the passphrase from $CREDENTIALS_DIRECTORY/vault-passphrase if that is there, else from `file` (or NULL); one
 * newline at its end is not part of it. -EPERM when others may read the file. `ret_path` (PATH_MAX) tells which file it
 * was. Free with lb_secret_free().
 */
int lb_passphrase_load(struct lb_env *env, const char *file, char *ret_path, char **ret_passphrase);
