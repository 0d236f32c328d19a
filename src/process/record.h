/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * JSON of disks and of epoch records. A record rests in the cache sealed under the machine's key:
 *
 *   {"epoch", "instance", "hardware", "reason", "prev_epoch", "prev_seq", "prev_digest", "ring_cut", "begun_ns",
 *    "disks"}
 *
 * Pure functions but for the two that go through the cache.
 */
#include "process/cache.h"
#include "vault/vault.h"

#define LB_RECORD_BYTES_MAX (48u << 10)

/* An array of {"id", "name", "size_bytes", ...}; other members are passed over, and disks that are retired. */
int lb_disks_parse(const json_t *array, struct lb_process_disks *ret_disks);
const struct lb_process_disk *lb_disks_find(const struct lb_process_disks *disks, uint16_t id);

int lb_record_put(struct lb_process_cache *c, struct lb_vault *v, const struct lb_machine *m,
		  const struct lb_epoch_record *record);
int lb_record_get(struct lb_process_cache *c, struct lb_vault *v, const struct lb_machine *m, uint64_t epoch,
		  struct lb_epoch_record *ret_record);
