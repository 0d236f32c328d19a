/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A vault: one container of an object store that holds the journals of machines, sealed. docs/vault-format.md names
 * its objects. What rests in it is readable with the passphrase alone, and with nothing else.
 *
 * Keys: the random vault key is wrapped by the passphrase (scrypt, two slots, so that a passphrase can be changed while
 * the old one still opens). Each machine has a random key of its own, wrapped by the vault key: a process server holds
 * only the keys of its machines, and destroying `m/<machine>/key*` erases one machine. A machine's key can be changed:
 * what was sealed before stays readable by the generation of the key that its salt names (base/keyring.h).
 *
 * A struct lb_vault may be used from any thread.
 */
#include <stdint.h>

#include "base/keyring.h"
#include "base/text.h"
#include "store/store.h"

#define LB_PASSPHRASE_BYTES_MIN 8
#define LB_PASSPHRASE_BYTES_MAX 1024

struct lb_vault;

/* Makes vault.json in an empty container (-EEXIST when a vault is there). Owns nothing of `store` afterwards. */
int lb_vault_create(struct lb_store *store, const char *passphrase, struct lb_uuid *ret_id);

/* Opens with the passphrase: -EKEYREJECTED when it is wrong. The vault borrows `store`, which must outlive it. */
int lb_vault_open(struct lb_store *store, const char *passphrase, struct lb_vault **ret_vault);
/* Opens without the vault key, for a process server: only machines whose keys are then given can be used. */
int lb_vault_open_keyless(struct lb_store *store, struct lb_vault **ret_vault);
void lb_vault_free(struct lb_vault *v);
LB_DEFINE_CLEANUP(struct lb_vault *, lb_vault_free);

const struct lb_uuid *lb_vault_id(const struct lb_vault *v);
struct lb_store *lb_vault_store(struct lb_vault *v);

/*
 * Images of this vault read as zeroes where objects were lost (vault/image.h), instead of failing: for who asked for
 * that in so many words. Before any image is opened.
 */
void lb_vault_lost_as_zeroes(struct lb_vault *v);

/* Changes the passphrase: the new one is put into the other slot, then the old slot is emptied. */
int lb_vault_passphrase_change(struct lb_vault *v, const char *passphrase_new);

struct lb_rotation {
	bool is_resumed;         /* an interrupted one was finished, and no further key made */
	uint64_t machines;       /* whose keys are wrapped by the new key */
	uint64_t keyless;        /* machines without a key, destroyed ones */
	uint64_t site_objects;   /* sealed by the new key */
	uint64_t site_damaged;   /* left as they are: no key opens them */
	uint64_t old_wraps_left; /* that the store refused to remove */
};

/*
 * Makes a new vault key, wraps every machine's key by it and seals the site's own objects by it; data stays as it is.
 * May be interrupted at any instant: the vault opens with the same passphrase, all of it, and the next call finishes.
 * The passphrase in the other slot, if any, opens no more. Others who have the vault open (with the old key) get
 * -ESTALE where they would write under the old key or look for an old wrap. No other thread uses `v` meanwhile.
 */
int lb_vault_rotate(struct lb_vault *v, const char *passphrase, struct lb_rotation *ret_rotation);

/* All generations of a machine's key; makes the first if it has none. They are kept in memory. -ENOKEY from a keyless
 * vault. */
int lb_vault_keyring(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_keyring *ret_ring);
/* Looks whether a machine whose key is in memory has newer ones by now. Nothing in a keyless vault. */
int lb_vault_keyring_refresh(struct lb_vault *v, const struct lb_uuid *machine);
/* The newest of them. */
int lb_vault_machine_key(struct lb_vault *v, const struct lb_uuid *machine, bool create, struct lb_key *ret_key);
/* Gives a keyless vault the keys of one machine, or further ones of it. -EKEYREJECTED when they are others. */
int lb_vault_machine_key_give(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_keyring *ring);

/* The newest key of a machine, and a fresh salt that names it: whatever is sealed gets one of its own. */
int lb_vault_key_to_seal(struct lb_vault *v, const struct lb_uuid *machine, uint8_t ret_salt[LB_SALT_BYTES],
			 struct lb_key *ret_key);
/* The key that a salt names. -EBADMSG when the machine has no such key. */
int lb_vault_key_to_open(struct lb_vault *v, const struct lb_uuid *machine, const uint8_t salt[LB_SALT_BYTES],
			 struct lb_key *ret_key);

/*
 * Gives a machine a new key for what is sealed from now on; data stays as it is, and opens with the keys before. One
 * object is put: interrupted, it is done or it is not. Processes that were given the machine's keys go on with those
 * until they are given this one as well. The keys of a machine are at most LB_KEYRING_MAX (-ENOSPC).
 */
int lb_vault_machine_key_rotate(struct lb_vault *v, const struct lb_uuid *machine, uint32_t *ret_generation);
/* Takes up keys that others made for machines whose keys are in memory, when there is news of such; `anyway`: without,
 * too, as who made one may have died before it told. By one thread. */
int lb_vault_keyrings_follow(struct lb_vault *v, bool anyway);
/* Wipes a machine's key from memory; what still runs for it fails with -ENOKEY. */
void lb_vault_machine_key_forget(struct lb_vault *v, const struct lb_uuid *machine);

/* The machines of the vault, by listing `m/`. */
int lb_vault_machines(struct lb_vault *v, int (*fn)(void *arg, const struct lb_uuid *machine), void *arg);

/* Small sealed objects under a machine's key (catalog entries, pins, heartbeat records); `name` is bound in. */
int lb_vault_seal_small(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
			size_t size_bytes, struct lb_buf *out);
int lb_vault_open_small(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
			size_t size_bytes, struct lb_buf *out);
