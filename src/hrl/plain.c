/* SPDX-License-Identifier: Apache-2.0 */
/* Opens plain segments, which come over the network: nothing in them is believed before it is checked. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "hrl/layout.h"

static int check_contents(struct lb_hrl_segment *s)
{
	const uint8_t *index = s->plain + LB_HRL_HEADER_BYTES;
	struct lb_digest digest;
	int r;

	r = lb_hrl_digest_compute(s->plain, index, s->head.index_stored_bytes, &digest);
	if (r < 0)
		return r;
	if (memcmp(&digest, &s->head.digest, sizeof(digest)) != 0)
		return lb_fail(-EBADMSG, "its header and index aren't those that its digest names");
	r = lb_hrl_index_decode(s, index);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->head.n_frames; i++) {
		const struct lb_hrl_frame *f = &s->frames[i];
		uint8_t hash[LB_HRL_HASH_BYTES];

		lb_hrl_frame_hash(s->plain + f->offset_bytes, f->raw_bytes, hash);
		if (memcmp(hash, f->hash, sizeof(hash)) != 0)
			return lb_fail(-EBADMSG, "the bytes of frame %u aren't those that its hash names", i);
	}
	return 0;
}

int lb_hrl_open_plain(const void *data, size_t size_bytes, struct lb_hrl_segment **ret_segment)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	struct lb_hrl_head head;
	int r;

	if (size_bytes < LB_HRL_HEADER_BYTES)
		return lb_fail(-EBADMSG, "%zu bytes are too few for a segment", size_bytes);
	r = lb_hrl_head_decode(data, &head);
	if (r < 0)
		return r;
	if (head.form != LB_HRL_PLAIN)
		return lb_fail(-EBADMSG, "a plain segment was expected and this one is sealed");
	if (head.total_bytes != size_bytes)
		return lb_fail(-EBADMSG, "the segment's header says %" PRIu64 " bytes and there are %zu",
			       head.total_bytes, size_bytes);
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return lb_fail(-ENOMEM, "out of memory for a segment");
	s->head = head;
	s->plain = data;
	r = check_contents(s);
	if (r < 0)
		return lb_wrap(r, "plain segment %" PRIu64 " of epoch %" PRIu64, head.header.seq, head.header.epoch);
	*ret_segment = lb_steal_ptr(s);
	return 0;
}

const void *lb_hrl_frame_plain(const struct lb_hrl_segment *s, uint32_t frame, uint32_t *ret_raw_bytes)
{
	if (s->plain == NULL || frame >= s->head.n_frames)
		return NULL;
	*ret_raw_bytes = s->frames[frame].raw_bytes;
	return s->plain + s->frames[frame].offset_bytes;
}
