/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A place in the ring that shall be a recovery point of its own: set by whoever makes points (on its thread, maybe
 * while filesystems are frozen), reached and cut by the session (on its own, which may be waiting for the network just
 * then). One at a time. While a mark is HELD the session cuts up to it and not past it, for LB_MARK_HELD_S at most.
 *
 *     NONE --set--> HELD --release--> READY --the session's cut--> CUT --acknowledged--> DONE
 *                    |                  |                           |
 *                    +----- cancel, debt, new epoch, detach --------+--> FAILED
 *
 * Any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "capture/capture.h"

#define LB_MARK_HELD_S 10
#define LB_MARK_TEXT_BYTES 256

struct lb_mark;
int lb_mark_new(struct lb_env *env, struct lb_mark **ret_mark);
void lb_mark_free(struct lb_mark *m);
LB_DEFINE_CLEANUP(struct lb_mark *, lb_mark_free);

/* ---- who makes points -------------------------------------------------------------------------------------------- */

/* The kernel names of the protected disks. -EAGAIN with the reason when no recovery point can be made now. */
int lb_mark_disks(struct lb_mark *m, char names[LB_CAPTURE_DISKS_MAX][LB_CAPTURE_NAME_BYTES], unsigned int *ret_n);
/* Here: everything that was given to the disks before is before it. -EAGAIN as above. */
int lb_mark_set(struct lb_mark *m);
/* The cut is made there, with these flags (LB_HRL_MARK_*; 0: a point and no more). -EAGAIN when it has failed. */
int lb_mark_release(struct lb_mark *m, uint32_t flags);
/* As if it had never been; a cut that was made remains a point without a name. */
void lb_mark_cancel(struct lb_mark *m);

struct lb_marked {
	uint64_t epoch, seq;
	int64_t time_ns; /* wall clock of the cut */
};
/* Whether the marked segment is durable yet: -EINPROGRESS, or -EAGAIN with the reason. */
int lb_mark_poll(struct lb_mark *m, struct lb_marked *ret_marked);
/* Until the marked segment is durable at the process server. -ETIMEDOUT, or -EAGAIN with the reason. Ends the mark. */
int lb_mark_wait(struct lb_mark *m, uint32_t timeout_ms, struct lb_marked *ret_marked);

/* ---- the session ---------------------------------------------------------------------------------------------------
 */

/* Points can be made of this capture from now on. */
void lb_mark_open(struct lb_mark *m, const struct lb_capture *capture, const struct lb_capture_disk *disks,
		  unsigned int n_disks);
/* No more, and why; what is under way fails. Before the capture is freed. */
void lb_mark_shut(struct lb_mark *m, const char *why);
/* How far may be gathered: `limit`, or a mark before it; then `ret_mono_ns` is when it was set. Called after `limit`
 * was sampled: a mark that comes later lies at or past it. */
uint64_t lb_mark_limit(struct lb_mark *m, uint64_t limit, int64_t *ret_mono_ns);
/* Whether the segment that ends here is to be cut for the mark, with these flags. */
bool lb_mark_due(struct lb_mark *m, uint64_t position, uint32_t *ret_flags);
/* It was, as this one; `is_point`: false fails it. */
void lb_mark_cut(struct lb_mark *m, uint64_t epoch, uint64_t seq, int64_t time_ns, bool is_point);
void lb_mark_acknowledged(struct lb_mark *m, uint64_t epoch, uint64_t seq);
/* The journal goes on from here: a cut that is not in it is made again. */
void lb_mark_resume(struct lb_mark *m, uint64_t position);
