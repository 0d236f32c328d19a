/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/*
 * The kernel skips a program that is already running on its CPU, so each program is attached twice. The first copy
 * notes what it took on a small per-CPU stack; the second, called right after it for the same event, takes the event
 * when the note isn't there. Events that interrupt others nest, so the notes do; notes that a skipped second copy left
 * behind lie above the second copy that was interrupted, which cuts the stack at its end.
 */
#include "maps.bpf.h"

#define LB_NOTES 8 /* task, softirq, hardirq, NMI: twice as many as can nest */

struct lb_note {
	__u64 object;
	__u64 event;
};

struct lb_notes {
	struct lb_note note[LB_NOTES];
	__u32 depth;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lb_notes);
} notes SEC(".maps");

enum lb_event { LB_EVENT_ISSUE = 1, LB_EVENT_COMPLETE, LB_EVENT_REQUEUE, LB_EVENT_BIO_QUEUE, LB_EVENT_BIO_COMPLETE };

static __always_inline void lb_note_push(void *object, enum lb_event event)
{
	__u32 zero = 0;
	struct lb_notes *n = bpf_map_lookup_elem(&notes, &zero);

	if (n == 0 || n->depth >= LB_NOTES)
		return;
	struct lb_note *note = &n->note[n->depth & (LB_NOTES - 1)];
	note->object = (__u64)object;
	note->event = event;
	n->depth++;
}

/* 1 when the first copy took the event. *depth is for lb_note_cut(). */
static __always_inline int lb_note_pop(void *object, enum lb_event event, __u32 *depth)
{
	__u32 zero = 0;
	struct lb_notes *n = bpf_map_lookup_elem(&notes, &zero);

	if (n == 0)
		return 0;
	struct lb_note *note = &n->note[(n->depth - 1) & (LB_NOTES - 1)];
	int taken = n->depth > 0 && note->object == (__u64)object && note->event == event;
	if (taken)
		n->depth--;
	*depth = n->depth;
	return taken;
}

static __always_inline void lb_note_cut(__u32 depth)
{
	__u32 zero = 0;
	struct lb_notes *n = bpf_map_lookup_elem(&notes, &zero);

	if (n != 0)
		n->depth = depth;
}
