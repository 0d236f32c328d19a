/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A checkpoint: the extent map after one journal object, so that a point opens without the whole journal. Frames of at
 * most LB_CHECKPOINT_FRAME_BYTES (compressed, sealed) hold it; a sealed head names them. A map that is too large for
 * one object spills into parts, which are written first: a checkpoint is there when its head is. Checkpoints only save
 * time. One that is damaged is passed over, and the journal read instead.
 *
 * The maps of spans (manifest.h) are stored alike, under names of their own: their place has epoch 0 and the map's
 * number. They hold what nothing else does.
 */
#include "vault/map.h"
#include "vault/pack.h"

#define LB_CHECKPOINT_FRAME_BYTES (1u << 20)
#define LB_CHECKPOINT_FRAMES_MAX 65536
#define LB_CHECKPOINT_PART_BYTES (16u << 20)

struct lb_checkpoint_frame {
	uint32_t part; /* 0: the head's own object, behind the head */
	uint32_t offset_bytes, stored_bytes, raw_bytes;
};

struct lb_checkpoint {
	struct lb_uuid machine;
	struct lb_place place; /* of the journal object */
	struct lb_digest object_digest;
	bool is_seal; /* that object is one */
	struct lb_pack_after after;
	uint64_t n_extents;
	uint32_t n_segments, n_frames;
	uint64_t stored_bytes; /* of head and frames, set by putting */
	struct lb_checkpoint_frame *frames;
	uint64_t manifest; /* version of the manifest that its map was built with: what that version names is there */
	uint8_t salt[LB_SALT_BYTES];
	uint64_t total_bytes; /* of the head's object, when it was read */
};

void lb_checkpoint_free(struct lb_checkpoint *c);
LB_DEFINE_CLEANUP(struct lb_checkpoint *, lb_checkpoint_free);

int lb_checkpoint_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const struct lb_place *place);
/* Of heads; -EINVAL for parts and other names. */
int lb_checkpoint_name_parse(const char *name, struct lb_place *ret_place);

/* Puts parts and head. `c` names the journal object; frames and counts are filled in. -EEXIST when it is there. */
int lb_checkpoint_put(struct lb_vault *v, struct lb_checkpoint *c, const struct lb_map *map);

/* Pure: opens a head that was read. */
int lb_checkpoint_decode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
			 const struct lb_place *place, const void *head, size_t head_bytes, struct lb_checkpoint **ret);
int lb_checkpoint_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		       struct lb_checkpoint **ret);
/* Pure: applies the raw bytes of one opened frame. */
int lb_checkpoint_frame_apply(const void *raw, size_t raw_bytes, struct lb_map *map);
int lb_checkpoint_load(struct lb_vault *v, const struct lb_checkpoint *c, struct lb_map **ret_map);

/* ---- finding (checkpoint_find.c) ---- */

struct lb_checkpoint_list {
	struct lb_place *places; /* rising */
	size_t n, room;
};
void lb_checkpoint_list_free(struct lb_checkpoint_list *list);
int lb_checkpoint_list(struct lb_vault *v, const struct lb_uuid *machine, struct lb_checkpoint_list *ret_list);
/*
 * The newest readable checkpoint that `fits` (true up to some place, false after it) among the first `n`; its index
 * goes to `ret_index`. -ENOENT when none fits.
 */
int lb_checkpoint_search(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_checkpoint_list *list,
			 size_t n, bool (*fits)(const void *arg, const struct lb_checkpoint *c), const void *arg,
			 struct lb_checkpoint **ret, size_t *ret_index);
struct lb_manifest;
/* Leaves out those from before the manifest's cut: the journal that follows them is gone. */
void lb_checkpoint_list_cut(struct lb_checkpoint_list *list, const struct lb_manifest *m);
/* The newest at or before a position (NULL: the newest of all) and not before the manifest's cut. */
int lb_checkpoint_find(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m,
		       const struct lb_position *position, struct lb_checkpoint **ret);
