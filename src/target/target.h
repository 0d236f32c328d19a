/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The master target: brings real disks to a recovery point, straight from the vault, and from point to point. Of disks
 * that hold something already it takes over what is right and fetches only what differs; it reads them, holds frames'
 * hashes against them, and writes only blocks that change. What is done is recorded before it is done: killed anywhere,
 * the same call goes on, and the disks are brought to a known point (forward by the vault, back by undo files).
 *
 * A struct lb_target is used by one thread; its folder is locked, -EBUSY for others.
 */
#include "target/record.h"
#include "vault/image.h"

#define LB_TARGET_FOLDER_DEFAULT "/var/lib/lifeboat/target"
#define LB_TARGET_UNDO_BYTES_DEFAULT (4096ull << 20)
#define LB_TARGET_UNDO_POINTS_DEFAULT 24

struct lb_target_to {
	const char *disk; /* name or id in the catalog */
	const char *path;
};

struct lb_target_request {
	const char *folder; /* of the record, made if missing */
	const struct lb_target_to *to;
	uint32_t n_to;
	bool some;              /* leave the machine's other disks out */
	bool overwrite;         /* also disks that hold something else */
	uint64_t undo_bytes;    /* at most so much for the way back; 0: none is kept */
	uint32_t undo_points;   /* to so many points; at most LB_TARGET_UNDO_MAX */
	struct lb_vault *vault; /* borrowed */
	const struct lb_catalog_item *item;
};

struct lb_target;
/*
 * Opens the disks and checks what can be checked before anything is written. A record that is there is gone on with, if
 * it is of the same machine and disks (-EEXIST when not).
 */
int lb_target_open(struct lb_env *env, const struct lb_target_request *request, struct lb_target **ret_target);
void lb_target_free(struct lb_target *t);
LB_DEFINE_CLEANUP(struct lb_target *, lb_target_free);

struct lb_target_stats {
	uint64_t compared_bytes; /* of the disks, read and held against the image */
	uint64_t written_bytes;  /* that differed */
	uint64_t fetched_bytes;  /* from the vault, as they rest there */
};
/* Non-zero ends it there and is passed on. */
typedef int (*lb_target_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/*
 * Whether lb_target_apply() could: the disks are the machine's or blank, files have room, the vault has lost nothing of
 * the point. Writes nothing. `ret_data_bytes`: what would be compared, zeroes apart.
 */
int lb_target_check(struct lb_target *t, const struct lb_point *point, uint64_t *ret_data_bytes);
/* Brings the disks to a point; durable at return. `ret_stats` and `progress` may be NULL. */
int lb_target_apply(struct lb_target *t, const struct lb_point *point, lb_target_progress_fn progress, void *arg,
		    struct lb_target_stats *ret_stats);
/* One point back, by the newest undo file; also finishes or takes back a step that was broken off. -ENOENT: none. */
int lb_target_back(struct lb_target *t);
/* The disks go into other hands: nothing is known of them any more. The record and the undo files go. */
int lb_target_release(struct lb_target *t);

const struct lb_target_record *lb_target_known(const struct lb_target *t);
