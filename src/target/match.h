/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which of this host's block devices are a machine's disks, when nobody says so: those with the disk's serial number;
 * for what is left, the only free one of exactly the disk's size; for a single disk that is left, the only free one
 * that is large enough. What is in use, or can be pulled out, is taken by its serial number alone. Anything less clear
 * is refused with what there is.
 */
#include "target/disk.h"

#define LB_TARGET_DEVICE_BYTES 48

struct lb_target_match {
	char path[LB_HRL_DISKS_MAX][LB_TARGET_DEVICE_BYTES]; /* as item->disks */
};
/* `root` is "" (a folder before /sys and /dev in tests). */
int lb_target_match(struct lb_env *env, const char *root, const struct lb_catalog_item *item,
		    struct lb_target_match *ret_match);
