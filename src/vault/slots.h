/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* vault.json: the vault's id and two passphrase slots, each of which may wrap the vault key. Pure but for scrypt's
 * time. */
#include "base/buf.h"
#include "base/crypto.h"
#include "base/text.h"

#define LB_VAULT_JSON "vault.json"
#define LB_VAULT_JSON_BYTES_MAX 4096
#define LB_SLOTS 2
#define LB_SLOT_SALT_BYTES 32

struct lb_slot {
	bool used;
	uint64_t n; /* scrypt's cost; bounded when read */
	uint32_t r, p;
	uint8_t salt[LB_SLOT_SALT_BYTES];
	uint8_t wrapped[LB_KEY_BYTES + LB_TAG_BYTES];
};

struct lb_slots {
	struct lb_uuid vault;
	struct lb_slot slot[LB_SLOTS];
};

int lb_slots_parse(const void *text, size_t size_bytes, struct lb_slots *ret_slots);
int lb_slots_print(const struct lb_slots *slots, struct lb_buf *out);
/* `salt` is fresh. */
int lb_slot_wrap(struct lb_slots *slots, unsigned int i, const uint8_t salt[LB_SLOT_SALT_BYTES], const char *passphrase,
		 const struct lb_key *vault_key);
/* -EKEYREJECTED when no slot opens. */
int lb_slots_unwrap(const struct lb_slots *slots, const char *passphrase, struct lb_key *ret_vault_key,
		    unsigned int *ret_slot);
