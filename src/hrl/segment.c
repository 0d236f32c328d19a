/* SPDX-License-Identifier: Apache-2.0 */
/* What an opened segment, plain or sealed, tells. */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "hrl/layout.h"

void lb_hrl_segment_free(struct lb_hrl_segment *s)
{
	if (s == NULL)
		return;
	free(s->extents);
	free(s->frames);
	if (s->gcm != NULL)
		lb_gcm_free(s->gcm);
	free(s);
}

const struct lb_hrl_header *lb_hrl_header(const struct lb_hrl_segment *s)
{
	return &s->head.header;
}

const struct lb_digest *lb_hrl_digest(const struct lb_hrl_segment *s)
{
	return &s->head.digest;
}

const struct lb_hrl_extent *lb_hrl_extents(const struct lb_hrl_segment *s, uint32_t *ret_n)
{
	*ret_n = s->head.n_extents;
	return s->extents;
}

void lb_hrl_extents_drop(struct lb_hrl_segment *s)
{
	free(s->extents);
	s->extents = NULL;
	s->head.n_extents = 0;
}

uint32_t lb_hrl_frames(const struct lb_hrl_segment *s)
{
	return s->head.n_frames;
}

int lb_hrl_frame_place(const struct lb_hrl_segment *s, uint32_t frame, struct lb_hrl_frame_place *ret_place)
{
	const struct lb_hrl_frame *f;

	if (frame >= s->head.n_frames)
		return lb_fail(-EINVAL, "the segment has %u frames and no frame %u", s->head.n_frames, frame);
	f = &s->frames[frame];
	*ret_place = (struct lb_hrl_frame_place){
		.offset_bytes = f->offset_bytes, .stored_bytes = f->stored_bytes, .raw_bytes = f->raw_bytes};
	return 0;
}
