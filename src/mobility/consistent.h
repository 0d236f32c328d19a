/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The steps of an application-consistent point on this machine, one after the other; who uses them decides what comes
 * in between. Everything that began ends with lb_consistent_end(), which thaws and runs the post-scripts. One thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "mobility/mark.h"

/* One point at a time on this machine, whoever makes it. -EBUSY when it is still another's turn. */
int lb_turn_take(uint32_t timeout_ms);
void lb_turn_give(void);

struct lb_consistent_options {
	struct lb_env *env;
	struct lb_mark *mark;
	const char *capture_socket;
	bool scripts; /* run the operator's */
	bool whole;   /* refuse a machine that writes past its filesystems, or has none */
	uint32_t scripts_ms, post_within_ms;
};

struct lb_consistent;
/* Scripts, then the watchdog with synced filesystems. On failure nothing is left: the post-scripts ran. */
int lb_consistent_prepare(const struct lb_consistent_options *options, struct lb_consistent **ret_c);
/* Syncs them once more, for when others were waited for since; nothing is frozen. -ETIMEDOUT. */
int lb_consistent_settle(struct lb_consistent *c, uint32_t max_ms);
/* From here to the thaw no file of ours is written and no line logged. */
int lb_consistent_freeze(struct lb_consistent *c, uint32_t max_ms);
/* The mark, held. */
int lb_consistent_mark(struct lb_consistent *c);
/* -ETIMEDOUT: the watchdog thawed before; the mark is void then. */
int lb_consistent_thaw(struct lb_consistent *c, int64_t *ret_frozen_ns);
/* What can't be frozen and was only synced; empty: nothing. */
const char *lb_consistent_note(const struct lb_consistent *c);
/* Thaws if need be and runs the post-scripts; marks are left to who set them. The error of a post-script is
 * returned, for the record: the point stands. */
int lb_consistent_end(struct lb_consistent *c);
