/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who is to be worked on when. Each machine has the time at which it is due (or none); workers sleep until the
 * earliest and take it; nobody looks at idle machines. Thread-safe.
 */
#include "process/process.h"

#define LB_NEVER_NS INT64_MAX

/* Due at `mono_ns` at the latest, though not before a backoff that runs. */
void lb_schedule(struct lb_machine *m, int64_t mono_ns);
/* Due at `mono_ns` and not before, whatever else asks. */
void lb_schedule_not_before(struct lb_machine *m, int64_t mono_ns);

enum lb_due { LB_DUE_NOTHING, LB_DUE_MACHINE, LB_DUE_BEATS };
/*
 * Takes what is due now: a machine comes with a reference and marked busy, for lb_schedule_done(). With LB_DUE_NOTHING
 * `ret_next_mono_ns` is when to look again.
 */
enum lb_due lb_schedule_take(struct lb_process *p, struct lb_machine **ret_machine, int64_t *ret_next_mono_ns);
void lb_schedule_done(struct lb_machine *m);
void lb_schedule_beats_done(struct lb_process *p, int64_t next_mono_ns);
/* Wakes all workers to see `stopping`. */
void lb_schedule_wake(struct lb_process *p);
