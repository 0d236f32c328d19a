/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof of one point. The map that recovery would use says which frames of which segments are needed; those are opened,
 * and what can't be is told as ranges of the disks by one more walk over the map.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/catalog.h"
#include "vault/replay.h"
#include "vault/verify_parts.h"

#define SECTORS_MAX (UINT64_C(1) << 54)
#define PROGRESS_SEGMENTS 16
#define FRAMES_ROOM_MIN 1024

/* A frame that the image needs: the segment's index above the frame's number. */
struct frames {
	uint64_t *at;
	size_t n, room;
};

struct proof {
	struct lb_verify w; /* for its findings */
	struct lb_map *map;
	struct frames needed, lost;
	bool *segment_lost;
	void (*progress)(void *arg, const struct lb_verify_progress *p);
	struct lb_verify_point_report report;
	/* of the last walk: a range that is being put together */
	uint16_t disk;
	uint64_t from, to; /* sectors; equal: none */
	uint32_t segment;
};

static void proof_free(struct proof *p)
{
	if (p->map != NULL)
		lb_map_free(p->map);
	free(p->needed.at);
	free(p->lost.at);
	free(p->segment_lost);
}

static uint64_t frame_id(const struct lb_map_extent *x)
{
	return (uint64_t)x->segment << 32 | x->frame;
}

static int frames_add(struct frames *f, uint64_t id)
{
	uint64_t *grown;

	if (f->n > 0 && f->at[f->n - 1] == id)
		return 0;
	if (f->n == f->room) {
		f->room = f->room > 0 ? 2 * f->room : FRAMES_ROOM_MIN;
		grown = reallocarray(f->at, f->room, sizeof(*grown));
		if (grown == NULL)
			return lb_fail(-ENOMEM, "out of memory for a list of frames");
		f->at = grown;
	}
	f->at[f->n++] = id;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* In the order of segments, each once. */
static void frames_sort(struct frames *f)
{
	size_t n = 0;

	if (f->n == 0)
		return;
	qsort(f->at, f->n, sizeof(*f->at), compare_ids);
	for (size_t i = 0; i < f->n; i++)
		if (n == 0 || f->at[n - 1] != f->at[i])
			f->at[n++] = f->at[i];
	f->n = n;
}

static int need(void *arg, const struct lb_map_extent *x)
{
	struct proof *p = arg;

	if (!lb_hrl_kind_has_data(x->kind))
		return 0;
	p->report.data_bytes += (uint64_t)x->sectors * LB_HRL_SECTOR_BYTES;
	return frames_add(&p->needed, frame_id(x));
}

static int each_extent(struct proof *p, lb_map_fn fn)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_map_disks(p->map); i++) {
		p->disk = lb_map_disk_id(p->map, i);
		r = lb_map_walk(p->map, p->disk, 0, SECTORS_MAX, fn, p);
	}
	return r;
}

static int open_frame(struct proof *p, const char *object, const struct lb_map_segment *place,
		      const struct lb_hrl_segment *s, uint32_t frame, uint8_t *raw)
{
	_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_frame_place at;
	int r;

	r = lb_hrl_frame_place(s, frame, &at);
	if (r == 0 && (at.raw_bytes > LB_HRL_FRAME_BYTES_MAX || at.offset_bytes > place->size_bytes ||
		       at.stored_bytes > place->size_bytes - at.offset_bytes))
		return lb_fail(-EBADMSG, "it lies outside its segment");
	if (r == 0)
		r = lb_store_get(p->w.v->store, object, place->offset_bytes + at.offset_bytes, at.stored_bytes,
				 &stored);
	p->report.done.bytes += stored.size_bytes;
	return r < 0 ? r : lb_hrl_frame_open(s, frame, stored.data, stored.size_bytes, raw);
}

/* The frames [from, to) of `needed`, all of one segment. */
static int check_segment(struct proof *p, size_t from, size_t to, uint8_t *raw)
{
	_cleanup_(lb_hrl_segment_freep) struct lb_hrl_segment *s = NULL;
	uint32_t index = (uint32_t)(p->needed.at[from] >> 32);
	const struct lb_map_segment *place = lb_map_segment(p->map, index);
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(object, &p->w.machine, place);
	if (r == 0)
		r = lb_segment_read(p->w.v, &p->w.machine, place, &s);
	if (lb_verify_is_damage(r)) {
		p->segment_lost[index] = true;
		return 0;
	}
	p->report.done.segments++;
	p->report.done.bytes += place->head_bytes;
	for (size_t i = from; r == 0 && p->w.deep && i < to; i++) {
		r = open_frame(p, object, place, s, (uint32_t)p->needed.at[i], raw);
		p->report.done.frames++;
		if (lb_verify_is_damage(r))
			r = frames_add(&p->lost, p->needed.at[i]);
	}
	if (p->progress != NULL && p->report.done.segments % PROGRESS_SEGMENTS == 0)
		p->progress(p->w.arg, &p->report.done);
	return r;
}

static int check_segments(struct proof *p)
{
	_cleanup_free_ uint8_t *raw = malloc(LB_HRL_FRAME_BYTES_MAX);
	size_t from = 0;
	int r = 0;

	p->segment_lost = calloc(lb_map_segments(p->map) + 1, sizeof(*p->segment_lost));
	if (raw == NULL || p->segment_lost == NULL)
		return lb_fail(-ENOMEM, "out of memory for the proof of a point");
	while (r == 0 && from < p->needed.n) {
		size_t to = from + 1;

		while (to < p->needed.n && p->needed.at[to] >> 32 == p->needed.at[from] >> 32)
			to++;
		r = check_segment(p, from, to, raw);
		from = to;
	}
	return r;
}

static void tell_range(struct proof *p)
{
	unsigned long long from_bytes = p->from * LB_HRL_SECTOR_BYTES, to_bytes = p->to * LB_HRL_SECTOR_BYTES;
	const struct lb_map_segment *s;
	char object[LB_OBJECT_NAME_BYTES];

	if (p->to == p->from)
		return;
	s = lb_map_segment(p->map, p->segment);
	if (lb_segment_object(object, &p->w.machine, s) < 0)
		snprintf(object, sizeof(object), "?");
	p->report.lost_bytes += to_bytes - from_bytes;
	lb_verify_find(&p->w, object,
		       "disk %u bytes %llu..%llu, written by segment %llu of epoch %llu, are lost at this point",
		       p->disk, from_bytes, to_bytes - 1, (unsigned long long)s->seq, (unsigned long long)s->epoch);
	p->from = p->to = 0;
}

static int tell_lost(void *arg, const struct lb_map_extent *x)
{
	struct proof *p = arg;
	uint64_t id = frame_id(x);

	if (x->kind != LB_MAP_LOST && !lb_hrl_kind_has_data(x->kind))
		return 0;
	if (x->kind != LB_MAP_LOST &&
	    (!p->segment_lost[x->segment] &&
	     (p->lost.n == 0 || bsearch(&id, p->lost.at, p->lost.n, sizeof(id), compare_ids) == NULL)))
		return 0;
	if (p->to != x->start || p->segment != x->segment || p->to == p->from) {
		tell_range(p);
		p->from = x->start;
		p->segment = x->segment;
	}
	p->to = x->start + x->sectors;
	return 0;
}

static int tell_all_lost(struct proof *p)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < lb_map_disks(p->map); i++) {
		p->disk = lb_map_disk_id(p->map, i);
		r = lb_map_walk(p->map, p->disk, 0, SECTORS_MAX, tell_lost, p);
		tell_range(p);
	}
	return r;
}

/* 1 when it can't be opened at all, which was then told. */
static int open_map(struct proof *p, const struct lb_position *position)
{
	struct lb_replay_stats stats = {0};
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	r = p->w.v->has_key ? lb_vault_machine_key_check(p->w.v, &p->w.machine, object) : 0;
	if (lb_verify_is_damage(r)) {
		lb_verify_find(&p->w, object, "%s: nothing of this machine can be read", lb_err_text());
		return 1;
	}
	if (r < 0)
		return r;
	r = lb_replay(p->w.v, &p->w.machine, position, &p->map, NULL, &stats);
	if (r == -EBADMSG && lb_vault_name(object, &p->w.machine, "e/") == 0) {
		lb_verify_find(&p->w, object, "the point can't be opened: %s", lb_err_text());
		return 1;
	}
	p->report.done.objects += stats.objects_read;
	p->report.done.bytes += stats.bytes_read;
	return r;
}

static int check_catalog(struct proof *p)
{
	_cleanup_free_ struct lb_catalog_item *item = malloc(sizeof(*item));
	char object[LB_OBJECT_NAME_BYTES];
	int r;

	if (item == NULL)
		return lb_fail(-ENOMEM, "out of memory for a catalog entry");
	r = lb_catalog_get(p->w.v, &p->w.machine, item);
	if (lb_verify_is_damage(r) && lb_vault_name(object, &p->w.machine, "item/") == 0) {
		lb_verify_find(&p->w, object, "%s: failover needs sizes and order of the disks from another source",
			       lb_err_text());
		return 0;
	}
	return r;
}

int lb_vault_verify_point(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
			  bool deep, void (*progress)(void *arg, const struct lb_verify_progress *p),
			  void (*finding)(void *arg, const struct lb_verify_finding *f), void *arg,
			  struct lb_verify_point_report *ret_report)
{
	_cleanup_(proof_free) struct proof p = {
		.w = {.v = v, .deep = deep, .finding = finding, .arg = arg, .machine = *machine}, .progress = progress};
	int r;

	r = check_catalog(&p);
	if (r == 0)
		r = open_map(&p, position);
	if (r == 0)
		r = each_extent(&p, need);
	if (r == 0) {
		frames_sort(&p.needed);
		r = check_segments(&p);
	}
	if (r == 0)
		r = tell_all_lost(&p);
	if (r < 0)
		return r;
	if (progress != NULL)
		progress(arg, &p.report.done);
	lb_err_clear();
	p.report.findings = p.w.report.findings;
	*ret_report = p.report;
	return 0;
}
