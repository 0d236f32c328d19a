/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Per disk a sorted array of leaves, each a sorted array of extents: two binary searches to find, a move within one
 * leaf (8 KiB) to insert. The array of leaves is moved only when a leaf is split or goes.
 */
#include "vault/map.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/map_parts.h"

#define LEAF_EXTENTS LB_MAP_LEAF_EXTENTS
#define LEAF_MERGE_EXTENTS (LEAF_EXTENTS / 2)
/* A leaf filled in order leaves room, so that what is scattered over a loaded checkpoint does not split every leaf. */
#define LEAF_FILL_EXTENTS 304

struct place {
	size_t leaf;
	uint32_t i;
};

static int no_memory(void)
{
	return lb_fail(-ENOMEM, "out of memory for an extent map");
}

int lb_map_new(struct lb_map **ret_map)
{
	struct lb_map *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return no_memory();
	*ret_map = m;
	return 0;
}

void lb_map_free(struct lb_map *m)
{
	for (uint32_t i = 0; i < m->n_disks; i++) {
		for (size_t j = 0; j < m->disks[i].n; j++)
			free(m->disks[i].leaf[j]);
		free(m->disks[i].leaf);
		free(m->disks[i].first);
	}
	free(m->segments);
	free(m);
}

int lb_map_segment_add(struct lb_map *m, const struct lb_map_segment *segment, uint32_t *ret_index)
{
	if (m->n_segments == m->room_segments) {
		uint32_t room = m->room_segments > 0 ? 2 * m->room_segments : 64;
		struct lb_map_segment *segments;

		if (m->n_segments >= LB_MAP_SEGMENTS_MAX)
			return lb_fail(-EOVERFLOW, "a map refers to at most %u segments", LB_MAP_SEGMENTS_MAX);
		segments = reallocarray(m->segments, room, sizeof(*segments));
		if (segments == NULL)
			return no_memory();
		m->segments = segments;
		m->room_segments = room;
	}
	m->segments[m->n_segments] = *segment;
	*ret_index = m->n_segments++;
	return 0;
}

const struct lb_map_segment *lb_map_segment(const struct lb_map *m, uint32_t index)
{
	assert(index < m->n_segments);
	return &m->segments[index];
}

uint32_t lb_map_segments(const struct lb_map *m)
{
	return m->n_segments;
}

uint64_t lb_map_extents(const struct lb_map *m)
{
	return m->extents;
}

uint64_t lb_map_bytes(const struct lb_map *m)
{
	uint64_t bytes = sizeof(*m) + m->room_segments * sizeof(*m->segments);

	for (uint32_t i = 0; i < m->n_disks; i++)
		bytes += m->disks[i].n * sizeof(struct lb_map_leaf) +
			 m->disks[i].room * (sizeof(*m->disks[i].leaf) + sizeof(*m->disks[i].first));
	return bytes;
}

uint32_t lb_map_disks(const struct lb_map *m)
{
	return m->n_disks;
}

uint16_t lb_map_disk_id(const struct lb_map *m, uint32_t i)
{
	return m->disks[i].id;
}

static const struct lb_map_disk *find_disk(const struct lb_map *m, uint16_t id)
{
	for (uint32_t i = 0; i < m->n_disks; i++)
		if (m->disks[i].id == id)
			return &m->disks[i];
	return NULL;
}

int lb_map_disk_make(struct lb_map *m, uint16_t id, struct lb_map_disk **ret_disk)
{
	struct lb_map_disk *d = (struct lb_map_disk *)find_disk(m, id);

	if (d == NULL) {
		if (m->n_disks >= LB_HRL_DISKS_MAX)
			return lb_fail(-EOVERFLOW, "a machine has at most %d disks", LB_HRL_DISKS_MAX);
		d = &m->disks[m->n_disks++];
		d->id = id;
	}
	*ret_disk = d;
	return 0;
}

/* The leaf in which an extent that starts at `start` is or would be. */
static size_t leaf_of(const struct lb_map_disk *d, uint64_t start)
{
	size_t lo = 0, hi = d->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (d->first[mid] <= start)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* The first extent that ends after `start`; past the last leaf when there is none. */
static struct place seek(const struct lb_map_disk *d, uint64_t start)
{
	struct place p = {0};
	uint32_t lo = 0, hi;

	if (d->n == 0)
		return p;
	p.leaf = leaf_of(d, start);
	hi = d->leaf[p.leaf]->n;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (lb_map_extent_end(&d->leaf[p.leaf]->e[mid]) <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	p.i = lo;
	if (p.i == d->leaf[p.leaf]->n)
		p = (struct place){.leaf = p.leaf + 1};
	return p;
}

static int leaf_insert(struct lb_map_disk *d, size_t at, uint64_t first, struct lb_map_leaf **ret_leaf)
{
	struct lb_map_leaf *leaf;

	if (d->n == d->room) {
		size_t room = d->room > 0 ? 2 * d->room : 16;
		struct lb_map_leaf **leaves = reallocarray(d->leaf, room, sizeof(*leaves));
		uint64_t *firsts;

		if (leaves == NULL)
			return no_memory();
		d->leaf = leaves;
		firsts = reallocarray(d->first, room, sizeof(*firsts));
		if (firsts == NULL)
			return no_memory();
		d->first = firsts;
		d->room = room;
	}
	leaf = malloc(sizeof(*leaf));
	if (leaf == NULL)
		return no_memory();
	leaf->n = 0;
	memmove(d->leaf + at + 1, d->leaf + at, (d->n - at) * sizeof(*d->leaf));
	memmove(d->first + at + 1, d->first + at, (d->n - at) * sizeof(*d->first));
	d->leaf[at] = leaf;
	d->first[at] = first;
	d->n++;
	*ret_leaf = leaf;
	return 0;
}

static void leaves_remove(struct lb_map_disk *d, size_t from, size_t to)
{
	if (from >= to)
		return;
	for (size_t i = from; i < to; i++)
		free(d->leaf[i]);
	memmove(d->leaf + from, d->leaf + to, (d->n - to) * sizeof(*d->leaf));
	memmove(d->first + from, d->first + to, (d->n - to) * sizeof(*d->first));
	d->n -= to - from;
}

/* Makes room in a full leaf. */
static int leaf_split(struct lb_map_disk *d, struct place *p)
{
	struct lb_map_leaf *old = d->leaf[p->leaf], *fresh = NULL;
	uint32_t keep = old->n / 2;
	int r;

	r = leaf_insert(d, p->leaf + 1, 0, &fresh);
	if (r != 0)
		return r;
	assert(fresh != NULL);
	fresh->n = old->n - keep;
	memcpy(fresh->e, old->e + keep, fresh->n * sizeof(*fresh->e));
	old->n = keep;
	d->first[p->leaf + 1] = fresh->e[0].start;
	if (p->i > keep) {
		p->i -= keep;
		p->leaf++;
	}
	return 0;
}

/* Whether `b` right behind `a` is one extent with it. */
static bool can_join(const struct lb_map *m, const struct lb_map_extent *a, const struct lb_map_extent *b)
{
	if (lb_map_extent_end(a) != b->start || a->kind != b->kind || (uint64_t)a->sectors + b->sectors > UINT32_MAX)
		return false;
	if (!lb_hrl_kind_has_data(a->kind))
		return m->segments[a->segment].epoch == m->segments[b->segment].epoch;
	return a->segment == b->segment && a->frame == b->frame &&
	       (uint32_t)a->frame_sector + a->sectors == b->frame_sector;
}

static int check_room(const struct lb_map *m)
{
	return m->extents < LB_MAP_EXTENTS_MAX
		       ? 0
		       : lb_fail(-EOVERFLOW, "a map has at most %u extents", LB_MAP_EXTENTS_MAX);
}

/* Puts an extent behind all that is there, as when a checkpoint is loaded. */
int lb_map_append(struct lb_map *m, struct lb_map_disk *d, const struct lb_map_extent *x)
{
	struct lb_map_leaf *leaf = d->n > 0 ? d->leaf[d->n - 1] : NULL;
	int r;

	if (leaf != NULL && can_join(m, &leaf->e[leaf->n - 1], x)) {
		leaf->e[leaf->n - 1].sectors += x->sectors;
		return 0;
	}
	r = check_room(m);
	if (r < 0)
		return r;
	if (leaf == NULL || leaf->n >= LEAF_FILL_EXTENTS) {
		r = leaf_insert(d, d->n, x->start, &leaf);
		if (r < 0)
			return r;
	}
	leaf->e[leaf->n++] = *x;
	m->extents++;
	return 0;
}

/* Puts an extent where none is. */
static int put(struct lb_map *m, struct lb_map_disk *d, const struct lb_map_extent *x)
{
	struct lb_map_leaf *leaf;
	struct place p = {0};
	int r;

	if (d->n == 0) {
		r = leaf_insert(d, 0, x->start, &leaf);
		if (r < 0)
			return r;
	} else {
		p = seek(d, x->start);
		if (p.i == 0 && p.leaf > 0) /* behind a leaf's end or before its start: the leaf before has it */
			p = (struct place){.leaf = p.leaf - 1, .i = d->leaf[p.leaf - 1]->n};
	}
	leaf = d->leaf[p.leaf];
	if (p.i > 0 && can_join(m, &leaf->e[p.i - 1], x)) {
		leaf->e[p.i - 1].sectors += x->sectors;
		return 0;
	}
	if (p.i < leaf->n && can_join(m, x, &leaf->e[p.i])) {
		uint32_t sectors = leaf->e[p.i].sectors + x->sectors;

		leaf->e[p.i] = *x;
		leaf->e[p.i].sectors = sectors;
		if (p.i == 0)
			d->first[p.leaf] = x->start;
		return 0;
	}
	r = check_room(m);
	if (r < 0)
		return r;
	if (leaf->n == LEAF_EXTENTS) {
		r = leaf_split(d, &p);
		if (r < 0)
			return r;
		leaf = d->leaf[p.leaf];
	}
	memmove(leaf->e + p.i + 1, leaf->e + p.i, (leaf->n - p.i) * sizeof(*leaf->e));
	leaf->e[p.i] = *x;
	leaf->n++;
	m->extents++;
	if (p.i == 0)
		d->first[p.leaf] = x->start;
	return 0;
}

void lb_map_extent_trim(struct lb_map_extent *e, uint64_t start)
{
	uint64_t cut = start - e->start;

	e->start = start;
	e->sectors -= (uint32_t)cut;
	if (lb_hrl_kind_has_data(e->kind))
		e->frame_sector += (uint16_t)cut;
}

/* Removes the extents from `p` on that end by `end`, trims the one that goes over it. */
static void remove_until(struct lb_map *m, struct lb_map_disk *d, struct place p, uint64_t end)
{
	size_t empty_from = p.i == 0 ? p.leaf : p.leaf + 1, empty_to = empty_from;

	for (size_t l = p.leaf; l < d->n; l++, p.i = 0) {
		struct lb_map_leaf *leaf = d->leaf[l];
		uint32_t j = p.i;

		if (leaf->n > 0 && lb_map_extent_end(&leaf->e[leaf->n - 1]) <= end)
			j = leaf->n;
		while (j < leaf->n && lb_map_extent_end(&leaf->e[j]) <= end)
			j++;
		m->extents -= j - p.i;
		memmove(leaf->e + p.i, leaf->e + j, (leaf->n - j) * sizeof(*leaf->e));
		leaf->n -= j - p.i;
		if (p.i < leaf->n) {
			if (leaf->e[p.i].start < end)
				lb_map_extent_trim(&leaf->e[p.i], end);
			d->first[l] = leaf->e[0].start;
			break;
		}
		if (leaf->n == 0)
			empty_to = l + 1;
	}
	leaves_remove(d, empty_from, empty_to);
}

/* Small neighbours become one, so that carving does not leave memory full of near-empty leaves. */
static void merge_leaves(struct lb_map_disk *d, uint64_t at)
{
	size_t l;

	if (d->n < 2)
		return;
	l = leaf_of(d, at);
	if (l + 1 == d->n)
		l--;
	if (d->leaf[l]->n + d->leaf[l + 1]->n > LEAF_MERGE_EXTENTS)
		return;
	memcpy(d->leaf[l]->e + d->leaf[l]->n, d->leaf[l + 1]->e, d->leaf[l + 1]->n * sizeof(*d->leaf[l]->e));
	d->leaf[l]->n += d->leaf[l + 1]->n;
	leaves_remove(d, l + 1, l + 2);
}

/* Leaves [start, end) without extents. */
static int carve(struct lb_map *m, struct lb_map_disk *d, uint64_t start, uint64_t end)
{
	struct place p = seek(d, start);
	struct lb_map_extent *e, right;

	if (p.leaf >= d->n)
		return 0;
	e = &d->leaf[p.leaf]->e[p.i];
	if (e->start >= end)
		return 0;
	if (e->start < start) {
		right = *e;
		e->sectors = (uint32_t)(start - e->start);
		if (lb_map_extent_end(&right) > end) {
			lb_map_extent_trim(&right, end);
			return put(m, d, &right);
		}
		p.i++;
	}
	remove_until(m, d, p, end);
	merge_leaves(d, start);
	return 0;
}

static int overwrite(struct lb_map *m, struct lb_map_disk *d, const struct lb_map_extent *x, uint64_t start,
		     uint64_t end)
{
	struct lb_map_extent part = *x;
	int r;

	lb_map_extent_trim(&part, start);
	part.sectors = (uint32_t)(end - start);
	r = carve(m, d, start, end);
	return r < 0 ? r : put(m, d, &part);
}

/* The first captured extent of `epoch` that ends after `start` and starts before `end`. */
static bool next_captured(const struct lb_map *m, const struct lb_map_disk *d, uint64_t epoch, uint64_t start,
			  uint64_t end, struct lb_map_extent *ret)
{
	struct place p = seek(d, start);

	for (; p.leaf < d->n; p.leaf++, p.i = 0) {
		const struct lb_map_leaf *leaf = d->leaf[p.leaf];

		for (; p.i < leaf->n; p.i++) {
			const struct lb_map_extent *e = &leaf->e[p.i];

			if (e->start >= end)
				return false;
			if (!lb_hrl_kind_is_scanned(e->kind) && m->segments[e->segment].epoch == epoch) {
				*ret = *e;
				return true;
			}
		}
	}
	return false;
}

static int insert_scanned(struct lb_map *m, struct lb_map_disk *d, const struct lb_map_extent *x)
{
	uint64_t at = x->start, end = lb_map_extent_end(x), epoch = m->segments[x->segment].epoch;
	struct lb_map_extent captured;
	int r = 0;

	while (r == 0 && at < end && next_captured(m, d, epoch, at, end, &captured)) {
		if (captured.start > at)
			r = overwrite(m, d, x, at, captured.start);
		at = lb_map_extent_end(&captured);
	}
	return r == 0 && at < end ? overwrite(m, d, x, at, end) : r;
}

int lb_map_insert(struct lb_map *m, uint16_t disk, const struct lb_map_extent *x)
{
	struct lb_map_disk *d;
	int r;

	assert(x->sectors > 0 && x->segment < m->n_segments);
	r = lb_map_disk_make(m, disk, &d);
	if (r < 0)
		return r;
	if (d->n == 0 || lb_map_extent_end(&d->leaf[d->n - 1]->e[d->leaf[d->n - 1]->n - 1]) <= x->start)
		return lb_map_append(m, d, x);
	if (lb_hrl_kind_is_scanned(x->kind))
		return insert_scanned(m, d, x);
	return overwrite(m, d, x, x->start, lb_map_extent_end(x));
}

int lb_map_apply(struct lb_map *m, uint32_t segment, const struct lb_hrl_extent *extents, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct lb_hrl_extent *h = &extents[i];
		struct lb_map_extent x = {
			.start = h->offset_bytes / LB_HRL_SECTOR_BYTES,
			.sectors = h->length_bytes / LB_HRL_SECTOR_BYTES,
			.segment = segment,
			.frame = lb_hrl_kind_has_data(h->kind) ? h->frame : 0,
			.frame_sector = lb_hrl_kind_has_data(h->kind)
						? (uint16_t)(h->frame_offset_bytes / LB_HRL_SECTOR_BYTES)
						: 0,
			.kind = h->kind,
		};
		int r;

		if (x.sectors == 0)
			continue;
		r = lb_map_insert(m, h->disk, &x);
		if (r < 0)
			return r;
	}
	return 0;
}

int lb_map_walk(const struct lb_map *m, uint16_t disk, uint64_t start, uint64_t sectors, lb_map_fn fn, void *arg)
{
	const struct lb_map_disk *d = find_disk(m, disk);
	uint64_t end = start + sectors;
	struct place p;
	int r;

	if (d == NULL)
		return 0;
	p = seek(d, start);
	for (; p.leaf < d->n; p.leaf++, p.i = 0) {
		for (; p.i < d->leaf[p.leaf]->n; p.i++) {
			struct lb_map_extent e = d->leaf[p.leaf]->e[p.i];

			if (e.start >= end)
				return 0;
			if (e.start < start)
				lb_map_extent_trim(&e, start);
			if (lb_map_extent_end(&e) > end)
				e.sectors = (uint32_t)(end - e.start);
			r = fn(arg, &e);
			if (r != 0)
				return r;
		}
	}
	return 0;
}
