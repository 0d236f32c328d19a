/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of the vault share and nobody else sees. */
#include <pthread.h>

#include "vault/journal.h"

#define LB_VAULT_MACHINES_MAX 100000
#define LB_SMALL_BYTES_MAX (1u << 20)
#define LB_SMALL_OVERHEAD_BYTES (32 + LB_TAG_BYTES)
#define LB_OBJECT_NAME_BYTES (LB_STORE_NAME_BYTES_MAX + 1)

struct lb_repairs;

struct lb_vault_machine {
	struct lb_uuid id;
	struct lb_key key;
};

struct lb_vault {
	struct lb_store *store;
	struct lb_uuid id;
	bool has_key;
	bool lost_as_zeroes;
	struct lb_key key;    /* the vault key */
	pthread_mutex_t lock; /* of what follows */
	unsigned int slot;    /* that the passphrase opened */
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

/* Reads the machine's key from the store once more and compares it with the one in memory: -EBADMSG, -ENOENT. */
int lb_vault_machine_key_check(struct lb_vault *v, const struct lb_uuid *machine);

/* A whole small object: sealed and put, got and opened. */
int lb_small_put_new(struct lb_vault *v, const struct lb_uuid *machine, const char *name, const void *data,
		     size_t size_bytes);
int lb_small_get(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_buf *out);

/* For verification: every record of one object; `wrong` says what is wrong with it (with no machine: with all of it).
 */
typedef int (*lb_heartbeat_fn)(void *arg, const char *object, const struct lb_heartbeat *beat, const char *wrong);
int lb_heartbeats_read(struct lb_vault *v, const char *object, lb_heartbeat_fn fn, void *arg);
