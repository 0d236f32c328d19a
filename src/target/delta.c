/* SPDX-License-Identifier: Apache-2.0 */
#include "target/delta.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "vault/map.h"

#define ROOM_FIRST 1024
#define SECTOR LB_HRL_SECTOR_BYTES

struct making {
	struct lb_delta *d;
	const struct lb_map *map;
	struct lb_image *image;
	const struct lb_position *since;
	bool lost_too;
	uint16_t disk;
	uint64_t at; /* sectors told of this disk */
};

/* A larger array when it is full; NULL when memory is out. */
static void *grown(void *array, size_t n, size_t *room, size_t size_bytes)
{
	size_t wanted = *room > 0 ? 2 * *room : ROOM_FIRST;
	void *larger;

	if (n < *room)
		return array;
	larger = reallocarray(array, wanted, size_bytes);
	if (larger != NULL)
		*room = wanted;
	return larger;
}

static int add_zeroes(struct making *m, uint64_t start, uint64_t end, bool lost)
{
	struct lb_delta *d = m->d;
	struct lb_delta_zeroes *zeroes = grown(d->zeroes, d->n_zeroes, &d->room_zeroes, sizeof(*zeroes));

	if (zeroes == NULL)
		return lb_fail(-ENOMEM, "out of memory for the ranges of zeroes");
	d->zeroes = zeroes;
	zeroes[d->n_zeroes++] = (struct lb_delta_zeroes){
		.offset_bytes = start * SECTOR, .length_bytes = (end - start) * SECTOR, .disk = m->disk, .lost = lost};
	d->zero_bytes += (end - start) * SECTOR;
	return 0;
}

static int add_piece(struct making *m, const struct lb_map_extent *x)
{
	struct lb_delta *d = m->d;
	struct lb_delta_piece *pieces = grown(d->pieces, d->n_pieces, &d->room_pieces, sizeof(*pieces));

	if (pieces == NULL)
		return lb_fail(-ENOMEM, "out of memory for the pieces of an image");
	d->pieces = pieces;
	pieces[d->n_pieces++] = (struct lb_delta_piece){.start = x->start,
							.segment = x->segment,
							.frame = x->frame,
							.sectors = x->sectors,
							.frame_sector = x->frame_sector,
							.disk = m->disk};
	d->data_bytes += (uint64_t)x->sectors * SECTOR;
	return 0;
}

/* Zeroes of one epoch are joined in the map whatever their segments: of them only the epoch is known. */
static bool is_newer(const struct making *m, const struct lb_map_extent *x)
{
	const struct lb_map_segment *s = lb_map_segment(m->map, x->segment);

	if (m->since == NULL || s->epoch > m->since->epoch)
		return true;
	return s->epoch == m->since->epoch && (!lb_hrl_kind_has_data(x->kind) || s->seq > m->since->seq);
}

static int take(void *arg, const struct lb_map_extent *x)
{
	struct making *m = arg;
	int r = 0;

	if (m->since == NULL && x->start > m->at)
		r = add_zeroes(m, m->at, x->start, false);
	m->at = x->start + x->sectors;
	if (r < 0 || !is_newer(m, x))
		return r;
	if (lb_hrl_kind_has_data(x->kind))
		return add_piece(m, x);
	if (x->kind == LB_MAP_LOST && !m->lost_too) {
		uint8_t sector[SECTOR];

		/* says what was lost, or gives zeroes to who asked for them */
		r = lb_image_pread(m->image, m->disk, sector, sizeof(sector), x->start * SECTOR);
	}
	return r < 0 ? r : add_zeroes(m, x->start, m->at, x->kind == LB_MAP_LOST && m->lost_too);
}

static int by_frame(const void *a, const void *b)
{
	const struct lb_delta_piece *x = a, *y = b;

	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	if (x->frame != y->frame)
		return x->frame < y->frame ? -1 : 1;
	return x->frame_sector < y->frame_sector ? -1 : x->frame_sector > y->frame_sector;
}

int lb_delta_make(struct lb_image *image, const struct lb_catalog_item *item, const struct lb_position *since,
		  bool lost_too, struct lb_delta *ret_delta)
{
	_cleanup_(lb_delta_clear) struct lb_delta d = {0};
	struct making m = {.d = &d, .map = lb_image_map(image), .image = image, .since = since, .lost_too = lost_too};
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < item->n_disks; i++) {
		uint64_t sectors = item->disks[i].size_bytes / SECTOR;

		m.disk = item->disks[i].id;
		m.at = 0;
		r = lb_map_walk(m.map, m.disk, 0, sectors, take, &m);
		if (r == 0 && since == NULL && m.at < sectors)
			r = add_zeroes(&m, m.at, sectors, false);
	}
	if (r < 0)
		return r;
	if (d.n_pieces > 0)
		qsort(d.pieces, d.n_pieces, sizeof(*d.pieces), by_frame);
	*ret_delta = d;
	d = (struct lb_delta){0};
	return 0;
}

uint32_t lb_delta_disk(const struct lb_catalog_item *item, uint16_t disk)
{
	uint32_t n = 0;

	while (n < item->n_disks && item->disks[n].id != disk)
		n++;
	assert(n < item->n_disks);
	return n;
}

void lb_delta_clear(struct lb_delta *d)
{
	free(d->pieces);
	free(d->zeroes);
	*d = (struct lb_delta){0};
}
