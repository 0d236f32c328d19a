/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is known of the target's disks, written before it is acted upon: they are as at `applied`; while `goal` is set,
 * they are anywhere between `applied` and `goal`, block by block. An undo file leads from there, or from the point
 * after it, back to its own point.
 */
#include <jansson.h>

#include "base/env.h"
#include "target/disk.h"
#include "vault/points.h"

#define LB_TARGET_UNDO_MAX 64 /* points to which there is a way back */

struct lb_target_point {
	struct lb_position position; /* epoch 0: none */
	int64_t time_ns;
};

struct lb_target_undo_entry {
	uint64_t number; /* of its file */
	struct lb_target_point point;
};

struct lb_target_record {
	struct lb_uuid machine;
	char machine_name[LB_MACHINE_NAME_BYTES];
	uint32_t n_disks;
	struct lb_target_record_disk {
		uint16_t id;
		char name[LB_DISK_NAME_BYTES], serial[LB_DISK_NAME_BYTES];
		char path[LB_TARGET_PATH_BYTES];
	} disks[LB_HRL_DISKS_MAX];
	struct lb_target_point applied, goal;
	uint32_t n_undo;
	struct lb_target_undo_entry undo[LB_TARGET_UNDO_MAX]; /* oldest first */
	uint64_t undo_next;                                   /* number of the next file */
};

/* -ENOENT when the folder has none. */
int lb_target_record_read(struct lb_env *env, const char *folder, struct lb_target_record *ret_record);
int lb_target_record_write(struct lb_env *env, const char *folder, const struct lb_target_record *record);
/* Gone, with the undo files. */
int lb_target_record_remove(struct lb_env *env, const char *folder);
/* As JSON, for the file and for people. */
int lb_target_record_json(const struct lb_target_record *record, json_t **ret_json);
