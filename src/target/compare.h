/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Holds disks against an image: frames by their hashes, what can't be told by a hash is fetched. The sink is given each
 * place where bytes may differ, with both sides; it compares them itself.
 */
#include "target/delta.h"
#include "target/disk.h"

#define LB_COMPARE_BLOCK_BYTES 4096

struct lb_compare_sink {
	/* `image` is NULL where it has zeroes. `n`: of the disk in `item`. Non-zero ends it and is passed on. */
	int (*take)(void *arg, uint32_t n, uint64_t offset_bytes, const uint8_t *image, const uint8_t *disk,
		    size_t size_bytes);
	/* The image has lost what was there; only with a delta that tells of it. */
	int (*take_lost)(void *arg, uint32_t n, uint64_t offset_bytes, const uint8_t *disk, size_t size_bytes);
	int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */
	void *arg, *progress_arg;
};

/* `item` names the disks that are open in `disks`, in its order. */
int lb_compare_disks(struct lb_image *image, const struct lb_catalog_item *item, struct lb_target_disk *disks,
		     const struct lb_delta *delta, const struct lb_compare_sink *sink);

/* The runs of blocks that differ, of what a sink was given: told as (offset in it, length). */
int lb_compare_runs(uint64_t offset_bytes, const uint8_t *image, const uint8_t *disk, size_t size_bytes,
		    int (*run)(void *arg, size_t at, size_t size_bytes), void *arg);
