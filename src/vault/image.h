/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The disks of a machine at a position, read straight from the vault: an extent map (newest checkpoint before the
 * position, then the indexes after it) and a bounded cache of segment heads and opened frames, in which reads in order
 * are read ahead. Memory: the map (`map_bytes`: 27 bytes an extent when it is loaded from a checkpoint, twice that at
 * worst), `cache_bytes`, and a frame of LB_HRL_FRAME_BYTES_MAX per thread that reads.
 * May be used from several threads at once.
 * While it is open it holds a lease (lease.h), so that nothing that it may read is deleted; it must be freed before its
 * vault.
 */
#include "vault/catalog.h"
#include "vault/points.h"

#define LB_IMAGE_CACHE_BYTES_DEFAULT (128u << 20)

struct lb_image;

/* Any position that the journal holds: a point, or (for comparing) the end of an epoch. */
int lb_image_open(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
		  size_t cache_bytes, struct lb_image **ret_image);
struct lb_map;
/* What a map refers to, without a lease; takes the map over. */
int lb_image_over(struct lb_vault *v, const struct lb_uuid *machine, struct lb_map *map, size_t cache_bytes,
		  struct lb_image **ret_image);
void lb_image_free(struct lb_image *image);
LB_DEFINE_CLEANUP(struct lb_image *, lb_image_free);

/* Bytes that no extent covers are zeroes. -EBADMSG names the object that is not authentic, missing or foreign. */
int lb_image_pread(struct lb_image *image, uint16_t disk, void *buf, size_t size_bytes, uint64_t offset_bytes);

/*
 * What was lost with damaged or missing objects reads as zeroes from now on, instead of failing: for who asked for that
 * in so many words.
 */
void lb_image_lost_as_zeroes(struct lb_image *image);

struct lb_image_extent {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	bool zero; /* reads as zeroes and holds no data */
};
/* The extents of [offset, offset + length) in order, adjacent ones of a kind merged; a non-zero return ends it. */
int lb_image_extents(struct lb_image *image, uint16_t disk, uint64_t offset_bytes, uint64_t length_bytes,
		     int (*fn)(void *arg, const struct lb_image_extent *extent), void *arg);

/* For whoever has an older copy of the disks: what the map names, frame by frame. */
struct lb_map;
const struct lb_map *lb_image_map(const struct lb_image *image);
/* Fetches and opens one frame of a segment of the map, past the cache; `raw` has room for LB_HRL_FRAME_BYTES_MAX. */
int lb_image_frame(struct lb_image *image, uint32_t segment, uint32_t frame, void *raw, size_t *ret_raw_bytes);
/* Whether these are the frame's raw bytes, by its hash in the segment's index: the frame is not fetched. */
int lb_image_frame_is(struct lb_image *image, uint32_t segment, uint32_t frame, const void *raw, size_t raw_bytes,
		      bool *ret_is);
/*
 * The head of a segment of the map, with its extents, and frames of it: each is fetched anew, past the cache, for who
 * goes by segments. `raw` has room for LB_HRL_FRAME_BYTES_MAX.
 */
int lb_image_segment(struct lb_image *image, uint32_t segment, struct lb_hrl_segment **ret_head);
int lb_image_segment_frame(struct lb_image *image, uint32_t segment, const struct lb_hrl_segment *head, uint32_t frame,
			   void *raw, size_t *ret_raw_bytes);
/*
 * Whether a repair found that the bytes of an extent of the map are lost, for who doesn't read them: first
 * lb_image_load_losses(), then from one thread at a time.
 */
int lb_image_load_losses(struct lb_image *image);
struct lb_map_extent;
bool lb_image_is_lost(const struct lb_image *image, const struct lb_map_extent *extent);
/* Bytes fetched from the store since it was opened, and by opening it. */
uint64_t lb_image_bytes_read(const struct lb_image *image);

/* Figures for people and benches. */
struct lb_image_stats {
	uint64_t map_extents, map_bytes, data_bytes, objects_read, bytes_read;
	uint64_t heads_read; /* of those: of segments, each once while it is in the cache */
	bool from_checkpoint;
};
void lb_image_stats(struct lb_image *image, struct lb_image_stats *ret_stats);
