/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which whole disks a mounted filesystem rests on, by /proc/self/mountinfo and /sys. Pure reading, any thread. */
#include <stdbool.h>
#include <stddef.h>

#include "base/env.h"

#define LB_MOUNTS_DEPTH_MAX 8 /* of partitions, volumes and arrays on top of one another */

/* Whether what is mounted at `where` rests on the disk of that kernel name, whatever lies in between. */
bool lb_mounts_on_disk(struct lb_env *env, const char *root, const char *disk, const char *where);

#define LB_MOUNT_PATH_BYTES 512
struct lb_mount {
	char path[LB_MOUNT_PATH_BYTES];
	char type[32];
	unsigned int major, minor; /* of what it rests on */
};
/*
 * The writable filesystems that rest on any of these disks, each once, the last mounted first: what lies on top of
 * another is frozen before it. -E2BIG when there are more than `max`.
 */
int lb_mounts_of_disks(struct lb_env *env, const char *root, const char *const *disks, size_t n_disks,
		       struct lb_mount *ret_mounts, size_t max, size_t *ret_n);
