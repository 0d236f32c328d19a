/* SPDX-License-Identifier: Apache-2.0 */
#include "process/pack.h"

#include <assert.h>
#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "process/process.h"

void lb_upload_pack_free(struct lb_upload_pack *pack)
{
	lb_buf_free(&pack->bytes);
	free(pack->segments);
}

static int load_one(struct lb_machine *m, const struct lb_position *at, struct lb_upload_pack *pack)
{
	size_t before = pack->bytes.size_bytes;
	int r;

	r = lb_process_cache_segment_get(&m->process->cache, m, at, &pack->bytes);
	if (r < 0)
		return r;
	pack->segments[pack->n++].size_bytes = pack->bytes.size_bytes - before;
	pack->last = *at;
	return 0;
}

static int load_all(struct lb_machine *m, const struct lb_position *first, uint64_t seq_end,
		    struct lb_upload_pack *pack)
{
	struct lb_position at = *first;
	uint64_t size_bytes;
	int r;

	for (; at.seq < seq_end && pack->n < LB_PACK_SEGMENTS_MAX; at.seq++) {
		r = lb_process_cache_segment_size(&m->process->cache, m, &at, &size_bytes);
		if (r < 0)
			return r;
		if (pack->n > 0 && pack->bytes.size_bytes + size_bytes > LB_PACK_BYTES_NOMINAL)
			break;
		r = load_one(m, &at, pack);
		if (r < 0)
			return r;
	}
	return 0;
}

static int open_frames(const struct lb_hrl_segment *s, const struct lb_sealed_segment *sealed, uint8_t *raw)
{
	const uint8_t *bytes = sealed->data;
	struct lb_hrl_frame_place place;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_hrl_frames(s); i++) {
		r = lb_hrl_frame_place(s, i, &place);
		if (r == 0 && place.offset_bytes + place.stored_bytes > sealed->size_bytes)
			r = lb_fail(-EBADMSG, "it is cut short in frame %u", i);
		if (r == 0)
			r = lb_hrl_frame_open(s, i, bytes + place.offset_bytes, place.stored_bytes, raw);
	}
	return r;
}

/* Its index is sound, so nothing else would ever look at its data again before somebody needs it. */
static int put_aside(struct lb_machine *m, const struct lb_position *at, int error)
{
	lb_error("machine %s: a segment in the cache was altered on its disk; it is put aside as *.bad and what it "
		 "held is read "
		 "from the machine again; check that disk: %s",
		 m->assigned.name, lb_err_text());
	if (lb_process_cache_put_aside(&m->process->cache, m, &(struct lb_process_cache_file){.at = *at}) < 0)
		lb_warning("machine %s: %s", m->assigned.name, lb_err_text());
	return error;
}

/* Authenticates all of it: what is damaged must neither be taken for the vault's fault nor come into the vault. */
static int look_at(struct lb_machine *m, const struct lb_position *first, struct lb_upload_pack *pack)
{
	struct lb_hrl_header expect = {
		.vault = *lb_vault_id(m->process->vault), .machine = m->id, .epoch = first->epoch, .seq = first->seq};
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	const uint8_t *p = pack->bytes.data;
	int r;

	if (raw == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	for (size_t i = 0; i < pack->n; i++, expect.seq++) {
		_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
		struct lb_sealed_segment *sealed = &pack->segments[i];
		_cleanup_(lb_key_wipe) struct lb_key key = {0};

		sealed->data = p;
		p += sealed->size_bytes;
		r = sealed->size_bytes < LB_HRL_HEADER_BYTES
			    ? lb_fail(-EBADMSG, "a segment of %zu bytes in the cache is none", sealed->size_bytes)
			    : lb_vault_key_to_open(m->process->vault, &m->id, lb_hrl_sealed_salt(sealed->data), &key);
		if (r == 0)
			r = lb_hrl_open_sealed(&key, &expect, sealed->data, sealed->size_bytes, &s);
		if (r < 0)
			return r;
		r = open_frames(s, sealed, raw);
		if (r == -EBADMSG)
			return put_aside(m, &(struct lb_position){.epoch = expect.epoch, .seq = expect.seq}, r);
		if (r < 0)
			return r;
		if ((lb_hrl_header(s)->flags & LB_HRL_POINT) != 0)
			pack->point_ns = lb_hrl_header(s)->receipt_ns;
	}
	return 0;
}

int lb_upload_pack_load(struct lb_machine *m, const struct lb_position *first, uint64_t seq_end,
			struct lb_upload_pack *ret_pack)
{
	_cleanup_(lb_upload_pack_free) struct lb_upload_pack pack = {.bytes = LB_BUF(LB_PACK_BYTES_MAX)};
	size_t n = LB_MIN(seq_end - first->seq, (uint64_t)LB_PACK_SEGMENTS_MAX);
	int r;

	assert(first->seq < seq_end);
	pack.segments = calloc(n, sizeof(pack.segments[0]));
	if (pack.segments == NULL)
		return lb_fail(-ENOMEM, "out of memory for a pack of %zu segments", n);
	r = load_all(m, first, seq_end, &pack);
	if (r == 0)
		r = look_at(m, first, &pack);
	if (r < 0)
		return r;
	*ret_pack = pack;
	pack = (struct lb_upload_pack){0};
	return 0;
}
