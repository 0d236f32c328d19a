/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "fabric/export.h"

/* Writes `temporary` by qemu-img from our NBD server, and makes it durable. What it leaves at a failure is the caller's
 * to remove. */
int lb_export_qcow2(struct lb_env *env, struct lb_vault *v, const struct lb_catalog_item *item,
		    const struct lb_position *position, const struct lb_catalog_disk *disk, const char *temporary,
		    uint64_t data_bytes, lb_export_progress_fn progress, void *arg);
