/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The generations of one key, oldest first. Who seals uses the newest and marks the salt, whose last byte is the
 * generation's number; who opens takes the one that the salt names. A salt is part of what it keys, so that a changed
 * mark opens nothing. Pure functions.
 */
#include "base/crypto.h"

#define LB_KEYRING_MAX 32 /* generations */
#define LB_KEYRING_BYTES_MAX (LB_KEYRING_MAX * LB_KEY_BYTES)

struct lb_keyring {
	uint32_t n;
	struct lb_key key[LB_KEYRING_MAX];
};

void lb_keyring_wipe(struct lb_keyring *ring); /* for _cleanup_(lb_keyring_wipe) */

static inline uint32_t lb_salt_generation(const uint8_t salt[LB_SALT_BYTES])
{
	return salt[LB_SALT_BYTES - 1];
}

static inline void lb_salt_mark(uint8_t salt[LB_SALT_BYTES], uint32_t generation)
{
	salt[LB_SALT_BYTES - 1] = (uint8_t)generation;
}

/* The key that the salt names; NULL when the ring has none such. */
const struct lb_key *lb_keyring_of(const struct lb_keyring *ring, const uint8_t salt[LB_SALT_BYTES]);
/* Whether `longer` holds all of `ring`, and nothing else in its place. Constant time in the keys. */
bool lb_keyring_is_begin_of(const struct lb_keyring *ring, const struct lb_keyring *longer);

/* As bytes: the keys one behind the other. -EINVAL unless it is 1 to LB_KEYRING_MAX whole keys. */
int lb_keyring_parse(const void *data, size_t size_bytes, struct lb_keyring *ret_ring);
static inline size_t lb_keyring_bytes(const struct lb_keyring *ring)
{
	return ring->n * sizeof(ring->key[0]);
}
