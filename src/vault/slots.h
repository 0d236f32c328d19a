/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* vault.json: the vault's id, two passphrase slots, each of which may wrap the vault key, and while the vault key is
 * being changed the one before, wrapped by the new one. Pure but for scrypt's time. */
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

#define LB_VAULT_KEY_ID_BYTES 8
#define LB_PREVIOUS_BYTES (LB_SALT_BYTES + LB_KEY_BYTES + LB_VAULT_KEY_ID_BYTES + LB_TAG_BYTES)

struct lb_vault_key {
	struct lb_key key;
	uint8_t id[LB_VAULT_KEY_ID_BYTES]; /* random; zeroes: the key that the vault was made with */
};

struct lb_slots {
	struct lb_uuid vault;
	uint8_t key_id[LB_VAULT_KEY_ID_BYTES]; /* of the key in the slots; bound into their wraps */
	bool has_previous;
	uint8_t previous[LB_PREVIOUS_BYTES]; /* salt, then sealed by the vault key: the one before and its id */
	struct lb_slot slot[LB_SLOTS];
};

int lb_slots_parse(const void *text, size_t size_bytes, struct lb_slots *ret_slots);
int lb_slots_print(const struct lb_slots *slots, struct lb_buf *out);
/* `salt` is fresh. */
int lb_slot_wrap(struct lb_slots *slots, unsigned int i, const uint8_t salt[LB_SLOT_SALT_BYTES], const char *passphrase,
		 const struct lb_key *vault_key);
/* Puts the vault key before into `slots`, sealed by `vault_key`; `salt` is fresh. */
int lb_slots_previous_wrap(struct lb_slots *slots, const uint8_t salt[LB_SALT_BYTES], const struct lb_key *vault_key,
			   const struct lb_vault_key *previous);
int lb_slots_previous_unwrap(const struct lb_slots *slots, const struct lb_key *vault_key,
			     struct lb_vault_key *ret_previous);
bool lb_vault_key_id_is_first(const uint8_t id[LB_VAULT_KEY_ID_BYTES]);

/* -EKEYREJECTED when no slot opens. */
int lb_slots_unwrap(const struct lb_slots *slots, const char *passphrase, struct lb_key *ret_vault_key,
		    unsigned int *ret_slot);
