/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the site knows besides its machines' journals (policies, who is protected how), kept in the vault so that a lost
 * configuration server can be rebuilt from it: small objects `site/<name>`, sealed under a key derived from the vault
 * key (only who has the passphrase reads them), replaced as a whole. Thread-safe.
 */
#include "vault/vault.h"

#define LB_SITE_BYTES_MAX (16u << 20)

/* Writes the object anew; -ESTALE when somebody else did so at the same time. */
int lb_vault_site_put(struct lb_vault *v, const char *name, const void *data, size_t size_bytes);
/* -ENOENT when there is none, -EBADMSG when it is not authentic. */
int lb_vault_site_get(struct lb_vault *v, const char *name, struct lb_buf *out);
