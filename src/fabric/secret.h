/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Opening a vault for recovery, by a secret that is in a file: never in an argument, never in a log. */
#include "vault/vault.h"

/* One of the two. Files that everybody may read are refused (-EACCES). */
struct lb_vault_secret {
	const char *passphrase_file; /* one line */
	const char *key_file; /* a machine's keys, 32 bytes each, or one in 64 hex digits; opens that machine alone */
};

/* The file's one line, without its end. Wipe and free it. */
int lb_passphrase_read(struct lb_env *env, const char *path, char **ret_passphrase);
int lb_keyring_read(struct lb_env *env, const char *path, struct lb_keyring *ret_ring);

/*
 * Opens the store and the vault in it. `machine` is needed with a key file, and must then be a UUID. Free the vault
 * before the store. -EKEYREJECTED when the passphrase is wrong, -EINVAL when the secret is not said.
 */
int lb_recovery_vault_open(struct lb_env *env, const char *vault_url, const struct lb_vault_secret *secret,
			   const char *machine, struct lb_store **ret_store, struct lb_vault **ret_vault);
