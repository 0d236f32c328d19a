/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Questions to an agent about its disks: each entry names pieces of them, and what the bytes there, put one behind the
 * other, hash to if they are as in the image. Coarse ones have an entry per frame of one segment: of a frame of which
 * all is live the hash is the one in the index, and nothing is read for it; of a frame of which a part was overwritten
 * the frame is fetched, once, and what is live is hashed. Fine ones ask anew about frames that were not the same, by
 * units of the disk. Frames are asked about wherever their pieces lie, so none is fetched twice for being scattered.
 *
 * One thread at a time.
 */
#include "process/machine.h"
#include "vault/image.h"

#define LB_BATCH_PIECES_MAX 8192     /* and entries */
#define LB_BATCH_BYTES_MAX LB_MIB(8) /* of disk that one batch asks about; one frame more at most */
#define LB_BATCH_UNIT_BYTES 4096u
#define LB_BATCH_ENTRIES_BYTES_MAX (LB_BATCH_PIECES_MAX * 16) /* as they are sent */

struct lb_piece {
	uint64_t offset_bytes;
	uint32_t length_bytes, frame_offset_bytes;
	uint16_t disk;
};

struct lb_batch_entry {
	uint32_t frame, first, n; /* pieces */
	uint8_t hash[LB_HRL_HASH_BYTES];
};

struct lb_batch {
	struct lb_piece *pieces;
	struct lb_batch_entry *entries;
	uint32_t n_pieces, n_entries;
	uint64_t bytes;
	bool fine;
};
int lb_batch_init(struct lb_batch *b);
void lb_batch_destroy(struct lb_batch *b);
void lb_batch_clear(struct lb_batch *b);

/* The segment that is being asked about. */
struct lb_batch_source {
	struct lb_image *image;
	const struct lb_process_disks *disks; /* what lies elsewhere can't be asked about */
	struct lb_hrl_segment *head;          /* NULL: none */
	uint32_t segment;
	uint32_t next;         /* of its extents */
	uint8_t *raw, *joined; /* LB_HRL_FRAME_BYTES_MAX each */
};
int lb_batch_source_init(struct lb_batch_source *s, struct lb_image *image, const struct lb_process_disks *disks);
void lb_batch_source_destroy(struct lb_batch_source *s);
int lb_batch_source_open(struct lb_batch_source *s, uint32_t segment);
void lb_batch_source_close(struct lb_batch_source *s);

/* Adds the next frame of the source that has anything live: 1; 0: it has none, or no room is left. */
int lb_batch_coarse(struct lb_batch *b, struct lb_batch_source *s);
/* Adds the units of an entry of a coarse batch: 1; 0: no room is left, or the vault has lost the frame. */
int lb_batch_fine(struct lb_batch *b, struct lb_batch_source *s, const struct lb_batch *coarse, uint32_t entry);

/* As it is sent: of each entry n (u16), and of each of its pieces disk (u16), offset (u64), length (u32). */
int lb_batch_print(const struct lb_batch *b, struct lb_buf *out);
