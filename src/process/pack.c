/* SPDX-License-Identifier: Apache-2.0 */
#include "process/pack.h"

#include <assert.h>
#include <errno.h>

#include "base/bytes.h"
#include "base/err.h"
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

/* Authenticates the heads: what is damaged must not be taken for the vault's fault. */
static int look_at(struct lb_machine *m, const struct lb_position *first, struct lb_upload_pack *pack)
{
	struct lb_hrl_header expect = {
		.vault = *lb_vault_id(m->process->vault), .machine = m->id, .epoch = first->epoch, .seq = first->seq};
	_cleanup_(lb_key_wipe) struct lb_key key;
	const uint8_t *p = pack->bytes.data;
	int r;

	pthread_mutex_lock(&m->lock);
	key = m->assigned.key;
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < pack->n; i++, expect.seq++) {
		_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
		struct lb_sealed_segment *sealed = &pack->segments[i];

		sealed->data = p;
		p += sealed->size_bytes;
		r = lb_hrl_open_sealed(&key, &expect, sealed->data, sealed->size_bytes, &s);
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
