/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Acknowledged is not yet in the vault: which ranges were sent since the last position that the vault is known to
 * hold. If a process server loses its cache, these and what is dirty are all that the next epoch must scan.
 *
 * Two bitmaps of 1 MiB chunks take turns: `old` has what was sent up to `upper`, `young` what was sent after it. When
 * the vault has passed `upper`, old is emptied and they change places. They live in a file on tmpfs, mapped: they
 * outlive the agent exactly as long as the capture does. Not thread-safe.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"

#define LB_CONFIRM_CHUNK_BYTES (1u << 20)
#define LB_CONFIRM_BYTES_MAX (64u << 20) /* both bitmaps: 256 TiB of disks */

struct lb_confirm;

struct lb_confirm_disk {
	uint16_t id; /* the capture's */
	uint64_t size_bytes;
};

/*
 * Takes up what `path` holds if it is of this capture instance and these disks, else begins empty and *not valid*.
 * `path` NULL: memory only.
 */
int lb_confirm_open(const char *path, const struct lb_uuid *instance, const struct lb_confirm_disk *disks,
		    unsigned int n_disks, struct lb_confirm **ret_confirm);
void lb_confirm_free(struct lb_confirm *c);
LB_DEFINE_CLEANUP(struct lb_confirm *, lb_confirm_free);

/* Everything sent from (epoch, 0) on will be noted: valid from here, and nothing is unconfirmed before. */
void lb_confirm_begin(struct lb_confirm *c, uint64_t epoch);
/* A range that the segment (epoch, seq), not yet acknowledged, will carry. */
void lb_confirm_note(struct lb_confirm *c, uint16_t disk, uint64_t offset_bytes, uint64_t length_bytes);
/* The vault holds everything up to and with (epoch, seq); `next_*` is the segment now being made. */
void lb_confirm_vault(struct lb_confirm *c, uint64_t epoch, uint64_t seq, uint64_t next_epoch, uint64_t next_seq);
/*
 * Whether the bitmaps tell everything that was sent after (epoch, seq), which is where a process server's journal ends.
 * `has_segment` false: it ends at the beginning of that epoch.
 */
bool lb_confirm_covers(const struct lb_confirm *c, uint64_t epoch, bool has_segment, uint64_t seq);
/* The first noted range at or after *cursor (a number that grows, 0 at first): 1, or 0 at the end. */
int lb_confirm_next(const struct lb_confirm *c, uint64_t *cursor, uint16_t *ret_disk, uint64_t *ret_offset_bytes,
		    uint64_t *ret_length_bytes);
