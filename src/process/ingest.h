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
int lb_ingest(struct lb_machine *m, uint64_t epoch, uint64_t seq, const void *plain, size_t size_bytes);
/* Whether the machine may send at all: -EACCES disabled, failed over or taken over, -EAGAIN not ready. */
int lb_ingest_allowed(struct lb_machine *m);
