/* SPDX-License-Identifier: Apache-2.0 */
#include "mobility/session_state.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"

int lb_resync_key(struct lb_session *s)
{
	/* fresh for each run of the agent: hashes of our blocks mean nothing to whoever sees them later */
	int r = s->env->ops->random(s->env, s->compare_key.bytes, sizeof(s->compare_key.bytes));

	if (r < 0)
		return lb_fail(r, "no random bytes for the key of the comparison");
	return 0;
}

int lb_resync_compare(struct lb_session *s, const struct lb_capture_range *range, const uint8_t *data,
		      bool differ[LB_LINK_HASHES_MAX])
{
	struct lb_digest hashes[LB_LINK_HASHES_MAX];
	struct lb_link_compare compare = {
		.epoch = s->epoch,
		.disk = s->disk_ids[range->disk],
		.offset_bytes = range->offset_bytes,
		.block_bytes = LB_COMPARE_BLOCK_BYTES,
		.key = s->compare_key,
		.hashes = hashes,
		.length_bytes = range->length_bytes,
	};
	int r;

	_Static_assert(LB_SCAN_READ_BYTES / LB_COMPARE_BLOCK_BYTES <= LB_LINK_HASHES_MAX, "one read is one comparison");
	for (uint64_t at = 0; at < range->length_bytes; at += LB_COMPARE_BLOCK_BYTES) {
		uint64_t length = LB_MIN((uint64_t)LB_COMPARE_BLOCK_BYTES, range->length_bytes - at);

		r = lb_hmac_sha256(&s->compare_key, data + at, length, &hashes[compare.n_hashes++]);
		if (r < 0)
			return r;
	}
	return lb_link_compare(&s->link, &compare, differ);
}
