/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What was on the disks before it was written over, in a file that is durable before the disks are written: played
 * backwards, it brings them back to the point that it is of. A torn end was never followed by writes and is cut off.
 * Local and trusted like the disks themselves; each entry has a digest against torn writes.
 */
#include "base/env.h"

#define LB_UNDO_DATA_BYTES_MAX (1u << 20)

struct lb_undo {
	struct lb_env *env;
	int fd;
	uint64_t size_bytes;
	char path[1100];
};

/* Opens or makes it, and cuts a torn end off. */
int lb_undo_open(struct lb_env *env, const char *folder, uint64_t number, struct lb_undo *ret_undo);
void lb_undo_close(struct lb_undo *u); /* an empty one (fd -1) is fine */
int lb_undo_append(struct lb_undo *u, uint16_t disk, uint64_t offset_bytes, const void *old, size_t size_bytes);
int lb_undo_sync(struct lb_undo *u);
/* From the newest entry to the oldest. */
int lb_undo_play(struct lb_undo *u,
		 int (*fn)(void *arg, uint16_t disk, uint64_t offset_bytes, const void *old, size_t size_bytes),
		 void *arg);
int lb_undo_remove(struct lb_env *env, const char *folder, uint64_t number);
