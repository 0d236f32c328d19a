/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What an image holds that disks at an older position may not: data by frames, so that each is fetched at most once
 * and its hash can be held against bytes that are here already, and zeroes by ranges. One thread.
 */
#include "vault/image.h"

struct lb_delta_piece {
	uint64_t start; /* on the disk, in sectors of LB_HRL_SECTOR_BYTES */
	uint32_t segment, frame, sectors;
	uint16_t frame_sector, disk;
};

struct lb_delta_zeroes {
	uint64_t offset_bytes, length_bytes;
	uint16_t disk;
	bool lost; /* no zeroes: nobody knows what was there */
};

struct lb_delta {
	struct lb_delta_piece *pieces; /* by segment, frame, place in it */
	struct lb_delta_zeroes *zeroes;
	size_t n_pieces, n_zeroes, room_pieces, room_zeroes;
	uint64_t data_bytes, zero_bytes;
};

/*
 * `since`: the disks are as at this position, or somewhere between it and the image's (NULL: nothing is known of them,
 * everything is told). What is told may be more than what changed, never less. What the vault has lost is -EBADMSG,
 * naming the object, unless `lost_too`, or the vault was asked for zeroes in its place.
 */
int lb_delta_make(struct lb_image *image, const struct lb_catalog_item *item, const struct lb_position *since,
		  bool lost_too, struct lb_delta *ret_delta);
/* Where a disk of the delta is in `item`. */
uint32_t lb_delta_disk(const struct lb_catalog_item *item, uint16_t disk);
void lb_delta_clear(struct lb_delta *d);
