/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A segment comes in: checked whole, sealed, durable in the cache, and only then acknowledged. One that comes again is
 * acknowledged again. Any thread.
 */
#include "process/machine.h"

/*
 * Errors: -EBADMSG the segment is not sound; -ESTALE the journal stands elsewhere (or another instance or writer has
 * taken over); -EEXIST another segment has that place; -EAGAIN later; -ENOSPC the cache's disk is full.
 */
int lb_ingest(struct lb_machine *m, uint64_t epoch, uint64_t seq, int64_t cut_ns, const void *plain, size_t size_bytes);
/*
 * The time of a point on our clock. `cut_ns` is the agent's word for when it was cut, worked out from the times that
 * our answers told it so that it is never too late; 0: not known. Never later than now.
 */
int64_t lb_ingest_cut_time(int64_t now_ns, int64_t cut_ns);
/* Whether the machine may send at all: -EACCES disabled, failed over or taken over, -EAGAIN not ready. */
int lb_ingest_allowed(struct lb_machine *m);
