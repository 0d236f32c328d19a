/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of the vault share and nobody else sees. */
#include <pthread.h>

#include "vault/journal.h"
#include "vault/slots.h"

#define LB_VAULT_MACHINES_MAX 100000
#define LB_KEY_NEWS_BYTES 64
#define LB_SMALL_BYTES_MAX (1u << 20)
#define LB_SMALL_OVERHEAD_BYTES (32 + LB_TAG_BYTES)
#define LB_OBJECT_NAME_BYTES (LB_STORE_NAME_BYTES_MAX + 1)

struct lb_repairs;

struct lb_vault_machine {
	struct lb_uuid id;
	struct lb_keyring ring;
};

struct lb_vault {
	struct lb_store *store;
	struct lb_uuid id;
	bool has_key;
	bool lost_as_zeroes;
	bool has_previous;
	struct lb_vault_key now;          /* the vault key */
	struct lb_vault_key previous;     /* the one before, while the change to `now` is not finished */
	char key_news[LB_KEY_NEWS_BYTES]; /* of the thread that calls lb_vault_keyrings_follow() */
	pthread_mutex_t lock;             /* of what follows */
	unsigned int slot;                /* that the passphrase opened */
	bool store_proved;
	const struct lb_repairs *repairs_pending; /* of a dry run of a repair, by one thread; NULL */
	struct lb_vault_machine *machines;
	size_t n_machines, room_machines;
};

/* The cipher of one sealed thing: key = HKDF(key, salt, use). */
int lb_seal_cipher(const struct lb_key *key, const uint8_t salt[LB_SALT_BYTES], const char *use,
		   struct lb_gcm **ret_gcm);
LB_DEFINE_CLEANUP(struct lb_gcm *, lb_gcm_free);

int lb_vault_random(struct lb_vault *v, void *buf, size_t size_bytes);
/* "m/<uuid>/" and what `fmt` makes of the rest. */
int lb_vault_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Proves the store once per opened vault, before anything is written to it. */
int lb_vault_prove(struct lb_vault *v);

/* Takes the vault's id and keys out of `slots`. -EKEYREJECTED. */
int lb_vault_unlock(struct lb_vault *v, const struct lb_slots *slots, const char *passphrase);
/* vault.json as it is, and its etag (NULL: not wanted). */
int lb_vault_slots_read(struct lb_store *store, struct lb_slots *ret_slots, char *ret_etag);
/* -ESTALE when the vault key was changed since the vault was opened: what the old one seals would be lost. */
int lb_vault_key_check(struct lb_vault *v);

/* Wraps the machine's keys by the vault key, where they are wrapped by the one before only. -ENOENT: it has none. */
int lb_vault_machine_key_rewrap(struct lb_vault *v, const struct lb_uuid *machine);
/* Removes the wraps by the vault key before, where the one by the vault key opens. */
int lb_vault_machine_key_drop_previous(struct lb_vault *v, const struct lb_uuid *machine);
/* The same for one of the site's own objects; -EBADMSG when neither key opens it. */
int lb_vault_site_rewrap(struct lb_vault *v, const char *name);

/* Keeps the key that authenticates receipts of the time of the vault key before, sealed by the vault key. */
int lb_receipt_key_keep(struct lb_vault *v);

/* Reads the machine's keys from the store once more and compares them with those in memory: -EBADMSG, -ENOENT, with the
 * object's name. */
int lb_vault_machine_key_check(struct lb_vault *v, const struct lb_uuid *machine, char object[LB_OBJECT_NAME_BYTES]);

/* A whole small object: sealed and put, got and opened. */
int lb_small_put_new(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
		     size_t size_bytes);
int lb_small_get(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_buf *out);

/* For verification: every record of one object; `wrong` says what is wrong with it (with no machine: with all of it).
 */
typedef int (*lb_heartbeat_fn)(void *arg, const char *object, const struct lb_heartbeat *beat, const char *wrong);
int lb_heartbeats_read(struct lb_vault *v, const char *object, lb_heartbeat_fn fn, void *arg);
