/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Whether this machine is a double: failover writes that into the firmware's tables (SMBIOS type 11), where the disks
 * that it started from can't say otherwise. Pure reading; any thread.
 */
#include "base/env.h"
#include "base/text.h"

#define LB_SMBIOS_BYTES_MAX (256u << 10)
#define LB_SMBIOS_COPY_NAME "smbios" /* put into the run folder by the unit: only root may read the tables */

/*
 * The machine that this one is the double of. `copy`: where a readable copy of the tables is, or NULL. -ENOENT: it is
 * none; -ENODATA: its firmware can't be asked. The servers refuse a double's old identity in any case.
 */
int lb_double_of(struct lb_env *env, const char *root, const char *copy, struct lb_uuid *ret_machine);
/* The same from the tables' bytes. */
int lb_double_in_tables(const uint8_t *tables, size_t size_bytes, struct lb_uuid *ret_machine);
