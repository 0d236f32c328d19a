/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Freezing filesystems, bounded. The helper makes a process beforehand, the watchdog: locked in memory, with the
 * filesystems open and synced, and nothing left to allocate or to load. Whoever asked for it holds its socket and
 * speaks to it alone: the helper may be killed in between. It thaws when it is told to, when its time is over, and when
 * the socket's other end is gone, whichever comes first.
 *
 * One thread per freezer. Between freeze and thaw its user touches no frozen filesystem: no log, no file.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define LB_FREEZE_MOUNTS_MAX 64
#define LB_FREEZE_MS_MAX 60000
#define LB_FREEZE_READY_S_MAX 60 /* to sync the filesystems beforehand */
#define LB_FREEZE_IDLE_S_MAX 300 /* a watchdog that is told nothing ends */

struct lb_freezer;
/* The watchdog of these filesystems, synced; nothing is frozen yet. They are frozen in this order, thawed in reverse.
 */
int lb_freezer_new(const char *socket_path, const char *const *mounts, size_t mount_count,
		   struct lb_freezer **ret_freezer);
/* Syncs them once more, in `max_ms`: the less is unwritten, the shorter is the freeze. -ETIMEDOUT: of no use any more.
 */
int lb_freezer_sync(struct lb_freezer *f, unsigned int max_ms);
/*
 * Freezes all of them, or none; thaws by itself `max_ms` after it began. Bit i of `ret_skipped`: filesystem i can't be
 * frozen by its kind (vfat); it was synced. -EBUSY somebody else has frozen one, -ETIMEDOUT it took longer than
 * `max_ms`.
 */
int lb_freezer_freeze(struct lb_freezer *f, unsigned int max_ms, uint64_t *ret_skipped);
/* -ETIMEDOUT: they had to be thawed before. `ret_frozen_ns`: from the first freeze to the last thaw. */
int lb_freezer_thaw(struct lb_freezer *f, int64_t *ret_frozen_ns);
/* Thaws too. */
void lb_freezer_free(struct lb_freezer *f);
LB_DEFINE_CLEANUP(struct lb_freezer *, lb_freezer_free);

/* ---- what goes over the socket, in whole packets ---------------------------------------------------------------- */

enum lb_freeze_what { LB_FREEZE_SYNC = 's', LB_FREEZE_FREEZE = 'f', LB_FREEZE_THAW = 't' };

struct lb_freeze_order {
	uint32_t what;
	uint32_t max_ms;
};

/* The first says that it is ready, then one for each order; one without an order: it had to thaw. */
struct lb_freeze_answer {
	int64_t frozen_ns;
	uint64_t skipped;
	int32_t result; /* 0 or a negative errno */
	uint32_t reserved;
};

/* The helper's: makes the process. `ret_socket` is its user's end. */
int lb_watchdog_start(const char *const *mounts, size_t mount_count, pid_t *ret_pid, int *ret_socket);
