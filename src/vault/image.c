/* SPDX-License-Identifier: Apache-2.0 */
#include "vault/image.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/cache.h"
#include "vault/lease.h"
#include "vault/readahead.h"
#include "vault/repair.h"
#include "vault/replay.h"

#define CACHE_BYTES_MIN LB_MIB(2)
#define READERS_PER_SEGMENT 4      /* an opened segment serves one thread at a time; more are opened while it is busy */
#define AHEAD_BYTES_MAX LB_MIB(16) /* of one stream; at most an eighth of the cache */
#define SECTOR LB_HRL_SECTOR_BYTES
#define OFFSET_BYTES_MAX (UINT64_C(1) << 62)

/* An opened segment in the cache. */
struct reader {
	pthread_mutex_t busy;
	struct lb_hrl_segment *segment;
};

struct lb_image {
	struct lb_vault *v;
	struct lb_uuid machine;
	struct lb_lease *lease; /* NULL: can't be had */
	struct lb_map *map;
	struct lb_cache *cache;
	struct lb_readahead *readahead;
	uint32_t ahead_frames_max; /* of one plan */
	struct lb_replay_stats opened;
	bool lost_as_zeroes;
	struct lb_repairs repairs; /* lb_image_load_losses() */
	atomic_uint_fast64_t objects_read, bytes_read, heads_read;
};

/* Cache keys: the segment's index in the map, above the frame's number; past the frames, its readers. */
static uint64_t frame_key(uint32_t segment, uint32_t frame)
{
	return (uint64_t)segment << 32 | frame;
}

static uint64_t reader_key(uint32_t segment, uint32_t i)
{
	return (uint64_t)segment << 32 | (UINT32_MAX - i);
}

static bool is_reader(uint64_t key)
{
	return (uint32_t)key > UINT32_MAX - READERS_PER_SEGMENT;
}

static int load_reader(struct lb_image *image, uint32_t segment, void **ret_data, size_t *ret_size_bytes)
{
	const struct lb_map_segment *place = lb_map_segment(image->map, segment);
	struct reader *reader = calloc(1, sizeof(*reader));
	int r;

	if (reader == NULL)
		return lb_fail(-ENOMEM, "out of memory for a segment");
	r = lb_segment_read(image->v, &image->machine, place, &reader->segment);
	if (r < 0) {
		free(reader);
		return r;
	}
	pthread_mutex_init(&reader->busy, NULL);
	lb_hrl_extents_drop(reader->segment); /* the map has them */
	atomic_fetch_add(&image->objects_read, 1);
	atomic_fetch_add(&image->heads_read, 1);
	atomic_fetch_add(&image->bytes_read, place->head_bytes);
	*ret_size_bytes = sizeof(*reader) + 4096 + lb_hrl_frames(reader->segment) * 64;
	*ret_data = reader;
	return 0;
}

static int hold_reader(struct lb_image *image, uint32_t segment, struct lb_cache_entry **ret_entry)
{
	struct lb_cache_entry *entry = NULL;
	struct reader *reader;
	int r;

	for (uint32_t i = 0;; i++) {
		r = lb_cache_hold(image->cache, reader_key(segment, i), &entry);
		if (r < 0)
			return r;
		reader = lb_cache_data(entry);
		if (i + 1 == READERS_PER_SEGMENT)
			pthread_mutex_lock(&reader->busy);
		else if (pthread_mutex_trylock(&reader->busy) != 0) {
			lb_cache_release(image->cache, entry);
			continue;
		}
		*ret_entry = entry;
		return 0;
	}
}

static void release_reader(struct lb_image *image, struct lb_cache_entry *entry)
{
	struct reader *reader = lb_cache_data(entry);

	pthread_mutex_unlock(&reader->busy);
	lb_cache_release(image->cache, entry);
}

static int fetch_frame(struct lb_image *image, const struct lb_map_segment *place, const char *name,
		       const struct lb_hrl_segment *segment, uint32_t frame, struct lb_hrl_frame_place *ret_at,
		       struct lb_buf *stored)
{
	int r;

	r = lb_hrl_frame_place(segment, frame, ret_at);
	if (r < 0)
		return lb_wrap(-EBADMSG, "%s: object %s", image->v->store->url, name);
	if (ret_at->raw_bytes > LB_HRL_FRAME_BYTES_MAX || ret_at->offset_bytes > place->size_bytes ||
	    ret_at->stored_bytes > place->size_bytes - ret_at->offset_bytes)
		return lb_fail(-EBADMSG, "%s: object %s: frame %u lies outside its segment", image->v->store->url, name,
			       frame);
	r = lb_store_get(image->v->store, name, place->offset_bytes + ret_at->offset_bytes, ret_at->stored_bytes,
			 stored);
	if (r == -ENOENT || r == -ENODATA)
		return lb_wrap(-EBADMSG, "frame %u of segment %llu is lost", frame, (unsigned long long)place->seq);
	if (r < 0)
		return r;
	atomic_fetch_add(&image->objects_read, 1);
	atomic_fetch_add(&image->bytes_read, ret_at->stored_bytes);
	return 0;
}

/* The segment is busy with opening alone: while frames are fetched it serves others. */
static int read_frame(struct lb_image *image, uint32_t number, uint32_t frame, uint8_t **ret_raw, size_t *ret_raw_bytes)
{
	const struct lb_map_segment *place = lb_map_segment(image->map, number);
	_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	_cleanup_free_ uint8_t *raw = NULL;
	struct lb_hrl_frame_place at = {0};
	struct lb_cache_entry *entry = NULL;
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(name, &image->machine, place);
	if (r == 0)
		r = lb_cache_hold(image->cache, reader_key(number, 0), &entry);
	if (r < 0)
		return r;
	r = fetch_frame(image, place, name, ((struct reader *)lb_cache_data(entry))->segment, frame, &at, &stored);
	lb_cache_release(image->cache, entry);
	if (r < 0)
		return r;
	raw = malloc(at.raw_bytes);
	if (raw == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	r = hold_reader(image, number, &entry);
	if (r < 0)
		return r;
	r = lb_hrl_frame_open(((struct reader *)lb_cache_data(entry))->segment, frame, stored.data, stored.size_bytes,
			      raw);
	release_reader(image, entry);
	if (r < 0)
		return lb_wrap(r, "%s: object %s", image->v->store->url, name);
	*ret_raw = lb_steal_ptr(raw);
	*ret_raw_bytes = at.raw_bytes;
	return 0;
}

/* A frame in the cache. */
struct frame {
	size_t raw_bytes;
	uint8_t *raw;
};

static int load_frame(struct lb_image *image, uint32_t segment, uint32_t number, void **ret_data,
		      size_t *ret_size_bytes)
{
	struct frame *frame;
	int r;

	frame = calloc(1, sizeof(*frame));
	if (frame == NULL)
		return lb_fail(-ENOMEM, "out of memory for a frame");
	r = read_frame(image, segment, number, &frame->raw, &frame->raw_bytes);
	if (r < 0) {
		free(frame);
		return r;
	}
	*ret_data = frame;
	*ret_size_bytes = sizeof(*frame) + frame->raw_bytes;
	return 0;
}

static int cache_load(void *arg, uint64_t key, void **ret_data, size_t *ret_size_bytes)
{
	if (is_reader(key))
		return load_reader(arg, (uint32_t)(key >> 32), ret_data, ret_size_bytes);
	return load_frame(arg, (uint32_t)(key >> 32), (uint32_t)key, ret_data, ret_size_bytes);
}

static void cache_unload(void *arg, uint64_t key, void *data)
{
	(void)arg;
	if (is_reader(key)) {
		struct reader *reader = data;

		pthread_mutex_destroy(&reader->busy);
		lb_hrl_segment_free(reader->segment);
	} else {
		free(((struct frame *)data)->raw);
	}
	free(data);
}

static const struct lb_cache_ops cache_ops = {.load = cache_load, .unload = cache_unload};

/* ---- reading ahead ---- */

struct plan {
	struct lb_image *image;
	uint64_t key, reached_bytes;
	uint32_t frames;
};

static int plan_extent(void *arg, const struct lb_map_extent *x)
{
	struct plan *p = arg;
	uint64_t key = frame_key(x->segment, x->frame);

	if (lb_hrl_kind_has_data(x->kind) && key != p->key) {
		if (p->frames == p->image->ahead_frames_max || lb_readahead_ask(p->image->readahead, key) < 0) {
			p->reached_bytes = x->start * SECTOR;
			return 1;
		}
		p->key = key;
		p->frames++;
	}
	return 0;
}

static uint64_t plan_ahead(void *arg, uint16_t disk, uint64_t from_bytes, uint64_t to_bytes)
{
	struct plan p = {.image = arg, .key = UINT64_MAX, .reached_bytes = to_bytes};
	uint64_t first = from_bytes / SECTOR;

	lb_map_walk(p.image->map, disk, first, (to_bytes + SECTOR - 1) / SECTOR - first, plan_extent, &p);
	return p.reached_bytes;
}

static void load_ahead(void *arg, uint64_t key)
{
	struct lb_image *image = arg;
	struct lb_cache_entry *entry = NULL;

	if (lb_cache_hold(image->cache, key, &entry) == 0)
		lb_cache_release(image->cache, entry);
}

static const struct lb_readahead_ops readahead_ops = {.plan = plan_ahead, .load = load_ahead};

static int caches_make(struct lb_image *image, size_t cache_bytes)
{
	size_t ahead_bytes;
	int r;

	cache_bytes = LB_MAX(cache_bytes, CACHE_BYTES_MIN);
	ahead_bytes = LB_MIN(cache_bytes / 8, AHEAD_BYTES_MAX);
	image->ahead_frames_max = (uint32_t)LB_MAX(ahead_bytes / LB_HRL_FRAME_BYTES_MAX, 1u);
	r = lb_cache_new(cache_bytes, &cache_ops, image, &image->cache);
	return r < 0 ? r : lb_readahead_new(ahead_bytes, &readahead_ops, image, &image->readahead);
}

static int image_new(struct lb_vault *v, const struct lb_uuid *machine, size_t cache_bytes, struct lb_image **ret)
{
	_cleanup_(lb_image_freep) struct lb_image *image = calloc(1, sizeof(*image));
	_cleanup_(lb_keyring_wipe) struct lb_keyring ring = {0}; /* that it can be read at all */
	int r;

	if (image == NULL)
		return lb_fail(-ENOMEM, "out of memory for an image");
	image->v = v;
	image->lost_as_zeroes = v->lost_as_zeroes;
	image->machine = *machine;
	r = lb_vault_keyring(v, machine, false, &ring);
	if (r == 0)
		r = caches_make(image, cache_bytes);
	if (r < 0)
		return r;
	*ret = lb_steal_ptr(image);
	return 0;
}

int lb_image_open(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
		  size_t cache_bytes, struct lb_image **ret_image)
{
	_cleanup_(lb_image_freep) struct lb_image *image = NULL;
	int r;

	r = image_new(v, machine, cache_bytes, &image);
	if (r == 0)
		r = lb_lease_take(v, machine, &image->lease);
	if (r == 0)
		r = lb_replay(v, machine, position, &image->map, NULL, &image->opened);
	if (r < 0)
		return r;
	*ret_image = lb_steal_ptr(image);
	return 0;
}

int lb_image_over(struct lb_vault *v, const struct lb_uuid *machine, struct lb_map *map, size_t cache_bytes,
		  struct lb_image **ret_image)
{
	int r;

	r = image_new(v, machine, cache_bytes, ret_image);
	if (r < 0)
		return r;
	(*ret_image)->map = map;
	return 0;
}

void lb_image_free(struct lb_image *image)
{
	if (image->readahead != NULL)
		lb_readahead_free(image->readahead);
	if (image->cache != NULL)
		lb_cache_free(image->cache);
	if (image->map != NULL)
		lb_map_free(image->map);
	lb_lease_release(image->lease);
	lb_repairs_free(&image->repairs);
	free(image);
}

void lb_image_lost_as_zeroes(struct lb_image *image)
{
	image->lost_as_zeroes = true;
}

struct reading {
	struct lb_image *image;
	uint8_t *buf;
	uint64_t offset_bytes, end_bytes, at_bytes; /* all of the disk; `at`: filled so far */
};

static int is_lost(const struct lb_image *image, const struct lb_map_extent *x)
{
	char name[LB_OBJECT_NAME_BYTES];
	int r = lb_segment_object(name, &image->machine, lb_map_segment(image->map, x->segment));

	return r < 0 ? r : lb_fail(-EBADMSG, "what was written there was lost with object %s", name);
}

static int read_extent(void *arg, const struct lb_map_extent *x)
{
	struct reading *rd = arg;
	uint64_t from = LB_MAX(x->start * SECTOR, rd->offset_bytes);
	uint64_t to = LB_MIN((x->start + x->sectors) * SECTOR, rd->end_bytes);
	uint64_t in_frame = (uint64_t)x->frame_sector * SECTOR + (from - x->start * SECTOR);
	struct lb_cache_entry *entry = NULL;
	struct frame *frame;
	int r;

	if (x->kind == LB_MAP_LOST && !rd->image->lost_as_zeroes)
		return is_lost(rd->image, x);
	if (!lb_hrl_kind_has_data(x->kind))
		return 0; /* like a gap: what is not filled is zeroed */
	memset(rd->buf + (rd->at_bytes - rd->offset_bytes), 0, from - rd->at_bytes);
	rd->at_bytes = from;
	r = lb_cache_hold(rd->image->cache, frame_key(x->segment, x->frame), &entry);
	if (r == -EBADMSG && rd->image->lost_as_zeroes)
		return 0;
	if (r < 0)
		return r;
	frame = lb_cache_data(entry);
	if (in_frame + (to - from) > frame->raw_bytes)
		r = lb_fail(-EBADMSG, "segment %llu of epoch %llu: an extent lies outside its frame %u",
			    (unsigned long long)lb_map_segment(rd->image->map, x->segment)->seq,
			    (unsigned long long)lb_map_segment(rd->image->map, x->segment)->epoch, x->frame);
	else
		memcpy(rd->buf + (from - rd->offset_bytes), frame->raw + in_frame, to - from);
	lb_cache_release(rd->image->cache, entry);
	rd->at_bytes = to;
	return r;
}

int lb_image_pread(struct lb_image *image, uint16_t disk, void *buf, size_t size_bytes, uint64_t offset_bytes)
{
	struct reading rd = {.image = image, .buf = buf, .offset_bytes = offset_bytes, .at_bytes = offset_bytes};
	uint64_t first = offset_bytes / SECTOR;
	char uuid[LB_UUID_TEXT_BYTES];
	int r;

	if (size_bytes > OFFSET_BYTES_MAX || offset_bytes > OFFSET_BYTES_MAX)
		return lb_fail(-EINVAL, "offset or length of a read is out of bounds");
	lb_readahead_note(image->readahead, disk, offset_bytes, size_bytes);
	rd.end_bytes = offset_bytes + size_bytes;
	r = lb_map_walk(image->map, disk, first, (rd.end_bytes + SECTOR - 1) / SECTOR - first, read_extent, &rd);
	if (r < 0) {
		lb_uuid_format(&image->machine, uuid);
		return lb_wrap(r, "can't read %zu bytes at %llu of disk %u of machine %s", size_bytes,
			       (unsigned long long)offset_bytes, disk, uuid);
	}
	memset(rd.buf + (rd.at_bytes - offset_bytes), 0, rd.end_bytes - rd.at_bytes);
	return 0;
}

struct telling {
	int (*fn)(void *arg, const struct lb_image_extent *extent);
	void *arg;
	uint64_t start_bytes, end_bytes;
	struct lb_image_extent pending; /* length 0: none */
};

static int tell(struct telling *t, uint64_t to_bytes, bool zero)
{
	uint64_t from_bytes = t->pending.offset_bytes + t->pending.length_bytes;
	int r;

	if (to_bytes <= from_bytes)
		return 0;
	if (t->pending.length_bytes > 0 && t->pending.zero != zero) {
		r = t->fn(t->arg, &t->pending);
		if (r != 0)
			return r;
		t->pending = (struct lb_image_extent){.offset_bytes = from_bytes};
	}
	t->pending.zero = zero;
	t->pending.length_bytes += to_bytes - from_bytes;
	return 0;
}

static int tell_extent(void *arg, const struct lb_map_extent *x)
{
	struct telling *t = arg;
	uint64_t from = LB_MAX(x->start * SECTOR, t->start_bytes),
		 to = LB_MIN((x->start + x->sectors) * SECTOR, t->end_bytes);
	int r;

	r = tell(t, from, true);
	/* what is lost is told as data: whoever reads it learns of it */
	return r != 0 ? r : tell(t, to, !lb_hrl_kind_has_data(x->kind) && x->kind != LB_MAP_LOST);
}

int lb_image_extents(struct lb_image *image, uint16_t disk, uint64_t offset_bytes, uint64_t length_bytes,
		     int (*fn)(void *arg, const struct lb_image_extent *extent), void *arg)
{
	struct telling t = {
		.fn = fn, .arg = arg, .start_bytes = offset_bytes, .pending = {.offset_bytes = offset_bytes}};
	uint64_t first = offset_bytes / SECTOR;
	int r;

	if (length_bytes > OFFSET_BYTES_MAX || offset_bytes > OFFSET_BYTES_MAX)
		return lb_fail(-EINVAL, "offset or length of a question for extents is out of bounds");
	t.end_bytes = offset_bytes + length_bytes;
	r = lb_map_walk(image->map, disk, first, (t.end_bytes + SECTOR - 1) / SECTOR - first, tell_extent, &t);
	if (r == 0)
		r = tell(&t, t.end_bytes, true);
	if (r == 0 && t.pending.length_bytes > 0)
		r = fn(arg, &t.pending);
	return r;
}

const struct lb_map *lb_image_map(const struct lb_image *image)
{
	return image->map;
}

int lb_image_frame(struct lb_image *image, uint32_t segment, uint32_t frame, void *raw, size_t *ret_raw_bytes)
{
	_cleanup_free_ uint8_t *opened = NULL;
	size_t raw_bytes = 0;
	int r;

	r = read_frame(image, segment, frame, &opened, &raw_bytes);
	if (r < 0)
		return r;
	memcpy(raw, opened, raw_bytes);
	*ret_raw_bytes = raw_bytes;
	return 0;
}

int lb_image_frame_is(struct lb_image *image, uint32_t segment, uint32_t frame, const void *raw, size_t raw_bytes,
		      bool *ret_is)
{
	struct lb_cache_entry *entry = NULL;
	int r;

	r = hold_reader(image, segment, &entry);
	if (r < 0)
		return r;
	*ret_is = lb_hrl_frame_is(((struct reader *)lb_cache_data(entry))->segment, frame, raw, raw_bytes);
	release_reader(image, entry);
	return 0;
}

int lb_image_segment(struct lb_image *image, uint32_t segment, struct lb_hrl_segment **ret_head)
{
	const struct lb_map_segment *place = lb_map_segment(image->map, segment);
	int r;

	r = lb_segment_read(image->v, &image->machine, place, ret_head);
	if (r < 0)
		return r;
	atomic_fetch_add(&image->objects_read, 1);
	atomic_fetch_add(&image->heads_read, 1);
	atomic_fetch_add(&image->bytes_read, place->head_bytes);
	return 0;
}

int lb_image_segment_frame(struct lb_image *image, uint32_t segment, const struct lb_hrl_segment *head, uint32_t frame,
			   void *raw, size_t *ret_raw_bytes)
{
	const struct lb_map_segment *place = lb_map_segment(image->map, segment);
	_cleanup_buf_ struct lb_buf stored = LB_BUF(LB_HRL_SEGMENT_BYTES_MAX);
	struct lb_hrl_frame_place at = {0};
	char name[LB_OBJECT_NAME_BYTES];
	int r;

	r = lb_segment_object(name, &image->machine, place);
	if (r == 0)
		r = fetch_frame(image, place, name, head, frame, &at, &stored);
	if (r == 0)
		r = lb_hrl_frame_open(head, frame, stored.data, stored.size_bytes, raw);
	if (r < 0)
		return lb_wrap(r, "%s: object %s", image->v->store->url, name);
	*ret_raw_bytes = at.raw_bytes;
	return 0;
}

int lb_image_load_losses(struct lb_image *image)
{
	lb_repairs_free(&image->repairs);
	image->repairs = (struct lb_repairs){0};
	return lb_repairs_read(image->v, &image->machine, &image->repairs);
}

bool lb_image_is_lost(const struct lb_image *image, const struct lb_map_extent *extent)
{
	for (size_t i = 0; i < image->repairs.n; i++)
		if (lb_repair_concerns(image->repairs.r[i], image->map, extent))
			return true;
	return false;
}

uint64_t lb_image_bytes_read(const struct lb_image *image)
{
	return image->opened.bytes_read + atomic_load(&image->bytes_read);
}

static int add_data(void *arg, const struct lb_map_extent *x)
{
	if (lb_hrl_kind_has_data(x->kind))
		*(uint64_t *)arg += (uint64_t)x->sectors * SECTOR;
	return 0;
}

void lb_image_stats(struct lb_image *image, struct lb_image_stats *ret_stats)
{
	*ret_stats = (struct lb_image_stats){
		.map_extents = lb_map_extents(image->map),
		.map_bytes = lb_map_bytes(image->map),
		.objects_read = image->opened.objects_read + atomic_load(&image->objects_read),
		.bytes_read = image->opened.bytes_read + atomic_load(&image->bytes_read),
		.heads_read = atomic_load(&image->heads_read),
		.from_checkpoint = image->opened.from_checkpoint,
	};
	for (uint32_t i = 0; i < lb_map_disks(image->map); i++)
		lb_map_walk(image->map, lb_map_disk_id(image->map, i), 0, OFFSET_BYTES_MAX / SECTOR, add_data,
			    &ret_stats->data_bytes);
}
