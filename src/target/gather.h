/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The last point of a machine that was stopped: what its disks hold and the end of its journal does not is written into
 * the vault as an epoch of its own, which ends in a recovery point. After it everything that the machine ever wrote is
 * in the vault, whether or not an agent replicated it. The journal is fenced first; nobody else extends it afterwards.
 * Begun again after a kill, it writes what is left.
 */
#include "target/disk.h"
#include "vault/points.h"

struct lb_gather_stats {
	uint64_t compared_bytes, gathered_bytes, stored_bytes;
};

/* `paths` are the disks' images or devices, as item->disks; nothing may use them (-EBUSY). */
int lb_gather(struct lb_env *env, struct lb_vault *v, const struct lb_catalog_item *item, const char *const *paths,
	      const char *reason, int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes), void *arg,
	      struct lb_point *ret_point, struct lb_gather_stats *ret_stats);
