/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Recovery points: the positions at which a machine may be recovered, found in the vault alone. Thread-safe. */
#include "vault/journal.h"

#define LB_POINT_NAME_BYTES 65

struct lb_point {
	struct lb_position position;
	int64_t time_ns;  /* clamped-monotone receipt time of the segment */
	int64_t until_ns; /* nothing was written from time_ns to here (heartbeats, the next empty segments) */
	uint32_t flags;   /* LB_HRL_POINT, marks */
	bool is_damaged;  /* ranges of its disks were lost with objects of the vault: offered by position only */
	char name[LB_POINT_NAME_BYTES]; /* of a pin, or empty */
};

/* From the oldest to the newest that lie in [from_ns, to_ns]; a non-zero return ends it and is passed on. */
int lb_points_list(struct lb_vault *v, const struct lb_uuid *machine, int64_t from_ns, int64_t to_ns,
		   int (*fn)(void *arg, const struct lb_point *point), void *arg);

/*
 * "latest", "latest-app", "latest-multi-vm", a pin's name, "E:S" (epoch:sequence), or a UTC time (the newest point
 * at or before it). A damaged point is found by its position or its pin alone. -ENOENT tells what there is instead.
 */
int lb_point_find(struct lb_vault *v, const struct lb_uuid *machine, const char *text, struct lb_point *ret_point);

int lb_point_pin(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *name);
int lb_point_unpin(struct lb_vault *v, const struct lb_uuid *machine, const char *name);
