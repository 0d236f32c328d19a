/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Which whole disks a mounted filesystem rests on, by /proc/self/mountinfo and /sys. Pure reading, any thread. */
#include <stdbool.h>

#include "base/env.h"

#define LB_MOUNTS_DEPTH_MAX 8 /* of partitions, volumes and arrays on top of one another */

/* Whether what is mounted at `where` rests on the disk of that kernel name, whatever lies in between. */
bool lb_mounts_on_disk(struct lb_env *env, const char *root, const char *disk, const char *where);
