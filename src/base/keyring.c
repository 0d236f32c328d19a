/* SPDX-License-Identifier: Apache-2.0 */
#include "base/keyring.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"

void lb_keyring_wipe(struct lb_keyring *ring)
{
	lb_wipe(ring, sizeof(*ring));
}

const struct lb_key *lb_keyring_of(const struct lb_keyring *ring, const uint8_t salt[LB_SALT_BYTES])
{
	uint32_t generation = lb_salt_generation(salt);

	return generation < ring->n ? &ring->key[generation] : NULL;
}

bool lb_keyring_is_begin_of(const struct lb_keyring *ring, const struct lb_keyring *longer)
{
	return ring->n <= longer->n && lb_equal_ct(ring->key, longer->key, lb_keyring_bytes(ring));
}

int lb_keyring_parse(const void *data, size_t size_bytes, struct lb_keyring *ret_ring)
{
	if (size_bytes == 0 || size_bytes > LB_KEYRING_BYTES_MAX || size_bytes % LB_KEY_BYTES != 0)
		return lb_fail(-EINVAL, "%zu bytes are not 1 to %d keys of %d bytes", size_bytes, LB_KEYRING_MAX,
			       LB_KEY_BYTES);
	memset(ret_ring, 0, sizeof(*ret_ring));
	ret_ring->n = (uint32_t)(size_bytes / LB_KEY_BYTES);
	memcpy(ret_ring->key, data, size_bytes);
	return 0;
}
