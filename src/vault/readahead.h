/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Reading ahead of those who read in order, so that a distant store's latency is paid beside the reading and not in
 * it. Who reads is told apart by disk and place: a few streams at once, each with a window that grows with its run.
 * Everything is bounded: streams, the window, what is asked for, the threads, which are started by the first stream.
 * Thread-safe. What fails ahead fails again, and is told, when it is read.
 */
#include <stddef.h>
#include <stdint.h>

struct lb_readahead;

struct lb_readahead_ops {
	/* Asks (lb_readahead_ask()) for what lies in [from, to) of a disk, in order; returns how far it got. */
	uint64_t (*plan)(void *arg, uint16_t disk, uint64_t from_bytes, uint64_t to_bytes);
	void (*load)(void *arg, uint64_t key); /* from a thread of its own */
};

/* `window_bytes`: the most that is read ahead of one stream. */
int lb_readahead_new(size_t window_bytes, const struct lb_readahead_ops *ops, void *arg,
		     struct lb_readahead **ret_readahead);
/* Waits for what is being loaded. */
void lb_readahead_free(struct lb_readahead *ra);
/* Told of each read, before it. */
void lb_readahead_note(struct lb_readahead *ra, uint16_t disk, uint64_t offset_bytes, size_t size_bytes);
/* From plan() only. -EAGAIN: nothing more now. */
int lb_readahead_ask(struct lb_readahead *ra, uint64_t key);
