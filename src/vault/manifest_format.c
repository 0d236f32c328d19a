/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a manifest: a fixed part, then its lists. Every count is bounded before anything is allocated. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/manifest.h"

#define FIXED_BYTES 384
#define POINT_BYTES 112
#define SPAN_BYTES (24 + POINT_BYTES + 8)
#define LIVE_BYTES 80
#define GARBAGE_BYTES 56

void lb_manifest_free(struct lb_manifest *m)
{
	free(m->kept);
	free(m->spans);
	free(m->live);
	free(m->garbage);
	free(m);
}

static void put_position(uint8_t *p, const struct lb_position *x)
{
	lb_put_le64(p, x->epoch);
	lb_put_le64(p + 8, x->seq);
}

static struct lb_position get_position(const uint8_t *p)
{
	return (struct lb_position){.epoch = lb_get_le64(p), .seq = lb_get_le64(p + 8)};
}

static void put_point(uint8_t *p, const struct lb_point *x)
{
	memset(p, 0, POINT_BYTES);
	put_position(p, &x->position);
	lb_put_le64(p + 16, (uint64_t)x->time_ns);
	lb_put_le64(p + 24, (uint64_t)x->until_ns);
	lb_put_le32(p + 32, x->flags);
}

static struct lb_point get_point(const uint8_t *p)
{
	return (struct lb_point){.position = get_position(p),
				 .time_ns = (int64_t)lb_get_le64(p + 16),
				 .until_ns = (int64_t)lb_get_le64(p + 24),
				 .flags = lb_get_le32(p + 32)};
}

static void fixed_encode(const struct lb_manifest *m, uint8_t *p)
{
	lb_put_le64(p, m->version);
	lb_put_le64(p + 8, (uint64_t)m->time_ns);
	lb_put_le64(p + 16, m->deletable);
	lb_put_le64(p + 24, m->cut.epoch);
	lb_put_le64(p + 32, m->cut.number);
	memcpy(p + 40, m->cut_digest.bytes, LB_DIGEST_BYTES);
	lb_put_le32(p + 72, m->cut_is_seal);
	put_position(p + 80, &m->cut_after.position);
	memcpy(p + 96, m->cut_after.digest.bytes, LB_DIGEST_BYTES);
	memcpy(p + 128, m->cut_after.instance.bytes, 16);
	lb_put_le64(p + 144, m->cut_after.ring_cut);
	lb_put_le64(p + 152, m->cut_after.scan_cursor);
	lb_put_le64(p + 160, (uint64_t)m->cut_after.receipt_ns);
	lb_put_le32(p + 168, m->cut_after.flags);
	lb_put_le64(p + 176, m->next.epoch);
	lb_put_le64(p + 184, m->next.number);
	put_position(p + 192, &m->next_end);
	lb_put_le32(p + 208, (uint32_t)m->n_kept);
	lb_put_le32(p + 212, (uint32_t)m->n_spans);
	lb_put_le32(p + 216, (uint32_t)m->n_live);
	lb_put_le32(p + 220, (uint32_t)m->n_garbage);
	lb_put_le64(p + 224, m->totals.journal_bytes);
	lb_put_le64(p + 232, m->totals.rewritten_bytes);
	lb_put_le64(p + 240, m->totals.map_bytes);
	lb_put_le64(p + 248, m->totals.manifest_bytes);
	lb_put_le64(p + 256, m->totals.deleted_bytes);
	lb_put_le64(p + 264, m->totals.deleted_objects);
}

static void fixed_decode(const uint8_t *p, struct lb_manifest *m)
{
	m->version = lb_get_le64(p);
	m->time_ns = (int64_t)lb_get_le64(p + 8);
	m->deletable = lb_get_le64(p + 16);
	m->cut = (struct lb_place){.epoch = lb_get_le64(p + 24), .number = lb_get_le64(p + 32)};
	memcpy(m->cut_digest.bytes, p + 40, LB_DIGEST_BYTES);
	m->cut_is_seal = lb_get_le32(p + 72) != 0;
	m->cut_after.position = get_position(p + 80);
	memcpy(m->cut_after.digest.bytes, p + 96, LB_DIGEST_BYTES);
	memcpy(m->cut_after.instance.bytes, p + 128, 16);
	m->cut_after.ring_cut = lb_get_le64(p + 144);
	m->cut_after.scan_cursor = lb_get_le64(p + 152);
	m->cut_after.receipt_ns = (int64_t)lb_get_le64(p + 160);
	m->cut_after.flags = lb_get_le32(p + 168);
	m->next = (struct lb_place){.epoch = lb_get_le64(p + 176), .number = lb_get_le64(p + 184)};
	m->next_end = get_position(p + 192);
	m->n_kept = lb_get_le32(p + 208);
	m->n_spans = lb_get_le32(p + 212);
	m->n_live = lb_get_le32(p + 216);
	m->n_garbage = lb_get_le32(p + 220);
	m->totals = (struct lb_fold_totals){.journal_bytes = lb_get_le64(p + 224),
					    .rewritten_bytes = lb_get_le64(p + 232),
					    .map_bytes = lb_get_le64(p + 240),
					    .manifest_bytes = lb_get_le64(p + 248),
					    .deleted_bytes = lb_get_le64(p + 256),
					    .deleted_objects = lb_get_le64(p + 264)};
}

static void span_encode(const struct lb_span *s, uint8_t *p)
{
	lb_put_le64(p, s->map);
	lb_put_le64(p + 8, s->map_bytes);
	lb_put_le64(p + 16, s->data_bytes);
	put_point(p + 24, &s->point);
	lb_put_le64(p + 24 + POINT_BYTES, s->doomed);
}

static void live_encode(const struct lb_live *o, uint8_t *p)
{
	lb_put_le64(p, o->epoch);
	lb_put_le64(p + 8, o->number);
	put_position(p + 16, &o->first);
	put_position(p + 32, &o->last);
	lb_put_le64(p + 48, o->size_bytes);
	lb_put_le64(p + 56, o->raw_bytes);
	lb_put_le64(p + 64, o->live_bytes);
	lb_put_le64(p + 72, (uint64_t)o->created_ns);
}

static void garbage_encode(const struct lb_garbage *g, uint8_t *p)
{
	lb_put_le64(p, g->kind);
	lb_put_le64(p + 8, g->epoch);
	lb_put_le64(p + 16, g->number);
	lb_put_le64(p + 24, g->size_bytes);
	lb_put_le64(p + 32, g->version);
	lb_put_le64(p + 40, (uint64_t)g->created_ns);
	lb_put_le64(p + 48, (uint64_t)g->dropped_ns);
}

static size_t total_bytes(const struct lb_manifest *m)
{
	return FIXED_BYTES + m->n_kept * POINT_BYTES + m->n_spans * SPAN_BYTES + m->n_live * LIVE_BYTES +
	       m->n_garbage * GARBAGE_BYTES;
}

int lb_manifest_encode(const struct lb_manifest *m, struct lb_buf *out)
{
	size_t bytes = total_bytes(m);
	uint8_t *p;
	int r;

	r = lb_buf_reserve(out, bytes);
	if (r < 0)
		return r;
	p = out->data + out->size_bytes;
	memset(p, 0, bytes);
	fixed_encode(m, p);
	p += FIXED_BYTES;
	for (size_t i = 0; i < m->n_kept; i++, p += POINT_BYTES)
		put_point(p, &m->kept[i]);
	for (size_t i = 0; i < m->n_spans; i++, p += SPAN_BYTES)
		span_encode(&m->spans[i], p);
	for (size_t i = 0; i < m->n_live; i++, p += LIVE_BYTES)
		live_encode(&m->live[i], p);
	for (size_t i = 0; i < m->n_garbage; i++, p += GARBAGE_BYTES)
		garbage_encode(&m->garbage[i], p);
	out->size_bytes += bytes;
	return 0;
}

/* Lists have room for a power of two: manifest.c grows them by that. */
static void *list_new(size_t n, size_t size_bytes)
{
	size_t room = 1;

	while (room < n)
		room *= 2;
	return calloc(room, size_bytes);
}

static int points_decode(const uint8_t *p, struct lb_manifest *m)
{
	for (size_t i = 0; i < m->n_kept; i++, p += POINT_BYTES)
		m->kept[i] = get_point(p);
	for (size_t i = 0; i < m->n_spans; i++, p += SPAN_BYTES) {
		struct lb_span *s = &m->spans[i];

		*s = (struct lb_span){.map = lb_get_le64(p),
				      .map_bytes = lb_get_le64(p + 8),
				      .data_bytes = lb_get_le64(p + 16),
				      .point = get_point(p + 24),
				      .doomed = lb_get_le64(p + 24 + POINT_BYTES) != 0};
		if (i > 0 && lb_position_compare(&s->point.position, &m->spans[i - 1].point.position) <= 0)
			return lb_fail(-EBADMSG, "span %zu of a manifest does not follow the one before it", i);
	}
	if (m->n_spans > 0 &&
	    lb_position_compare(&m->spans[m->n_spans - 1].point.position, &m->cut_after.position) != 0)
		return lb_fail(-EBADMSG, "the spans of a manifest do not end at its cut");
	return 0;
}

static int objects_decode(const uint8_t *p, struct lb_manifest *m)
{
	for (size_t i = 0; i < m->n_live; i++, p += LIVE_BYTES) {
		struct lb_live *o = &m->live[i];
		uint64_t size_bytes = lb_get_le64(p + 48);

		*o = (struct lb_live){.epoch = lb_get_le64(p),
				      .number = lb_get_le64(p + 8),
				      .first = get_position(p + 16),
				      .last = get_position(p + 32),
				      .size_bytes = (uint32_t)size_bytes,
				      .raw_bytes = lb_get_le64(p + 56),
				      .live_bytes = lb_get_le64(p + 64),
				      .created_ns = (int64_t)lb_get_le64(p + 72)};
		if (size_bytes > LB_STORE_OBJECT_BYTES_MAX || o->live_bytes > o->raw_bytes ||
		    (i > 0 && (o->epoch < o[-1].epoch || (o->epoch == o[-1].epoch && o->number <= o[-1].number))))
			return lb_fail(-EBADMSG, "object %zu of a manifest is out of bounds", i);
	}
	for (size_t i = 0; i < m->n_garbage; i++, p += GARBAGE_BYTES) {
		m->garbage[i] = (struct lb_garbage){.kind = (enum lb_garbage_kind)lb_get_le64(p),
						    .epoch = lb_get_le64(p + 8),
						    .number = lb_get_le64(p + 16),
						    .size_bytes = lb_get_le64(p + 24),
						    .version = lb_get_le64(p + 32),
						    .created_ns = (int64_t)lb_get_le64(p + 40),
						    .dropped_ns = (int64_t)lb_get_le64(p + 48)};
		if (m->garbage[i].kind < LB_GARBAGE_JOURNAL || m->garbage[i].kind > LB_GARBAGE_CHECKPOINT)
			return lb_fail(-EBADMSG, "garbage %zu of a manifest is of an unknown kind", i);
	}
	return 0;
}

int lb_manifest_decode(const void *data, size_t size_bytes, struct lb_manifest **ret)
{
	_cleanup_manifest_ struct lb_manifest *m = calloc(1, sizeof(*m));
	const uint8_t *p = data;
	int r;

	if (m == NULL)
		return lb_fail(-ENOMEM, "out of memory for a manifest");
	if (size_bytes < FIXED_BYTES)
		return lb_fail(-EBADMSG, "a manifest is cut short");
	fixed_decode(p, m);
	if (m->n_kept > LB_MANIFEST_KEPT_MAX || m->n_spans > LB_MANIFEST_SPANS_MAX ||
	    m->n_live > LB_MANIFEST_OBJECTS_MAX || m->n_garbage > LB_MANIFEST_GARBAGE_MAX ||
	    total_bytes(m) != size_bytes || m->version == 0 || m->version > LB_MANIFEST_VERSION_MAX ||
	    (m->n_spans > 0) != (m->cut.epoch > 0) || m->deletable > m->version)
		return lb_fail(-EBADMSG, "a manifest's counts are out of bounds");
	m->kept = list_new(m->n_kept, sizeof(*m->kept));
	m->spans = list_new(m->n_spans, sizeof(*m->spans));
	m->live = list_new(m->n_live, sizeof(*m->live));
	m->garbage = list_new(m->n_garbage, sizeof(*m->garbage));
	if (m->kept == NULL || m->spans == NULL || m->live == NULL || m->garbage == NULL)
		return lb_fail(-ENOMEM, "out of memory for a manifest");
	p += FIXED_BYTES;
	r = points_decode(p, m);
	if (r == 0)
		r = objects_decode(p + m->n_kept * POINT_BYTES + m->n_spans * SPAN_BYTES, m);
	if (r < 0)
		return r;
	*ret = lb_steal_ptr(m);
	return 0;
}
