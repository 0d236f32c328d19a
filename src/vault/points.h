/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Recovery points: the positions at which a machine may be recovered, found in the vault alone. Thread-safe. */
#include "vault/journal.h"

#define LB_POINT_NAME_BYTES 65

struct lb_point {
	struct lb_position position;
	int64_t time_ns;  /* clamped-monotone receipt time of the segment */
	int64_t until_ns; /* nothing was written from time_ns to here (heartbeats, the next empty segments) */
	uint32_t flags;   /* LB_HRL_POINT, marks; LB_HRL_MARK_GROUP only where all of its group have the point */
	bool is_damaged;  /* ranges of its disks were lost with objects of the vault: offered by position only */
	char name[LB_POINT_NAME_BYTES]; /* of a hold or else of a pin, or empty */
	bool held;                      /* the name is a hold's */
};

/* From the oldest to the newest that lie in [from_ns, to_ns]; a non-zero return ends it and is passed on. */
int lb_points_list(struct lb_vault *v, const struct lb_uuid *machine, int64_t from_ns, int64_t to_ns,
		   int (*fn)(void *arg, const struct lb_point *point), void *arg);

/*
 * "latest", "latest-app", "latest-multi-vm", "shared:UUID" (one point of a replication group), a pin's name, "E:S"
 * (epoch:sequence), or a UTC time (the newest point at or before it). -ENOENT tells what there is instead. A damaged
 * point is found by its position or its pin alone.
 *
 * latest-multi-vm is the newest shared point that every member still has. Members of one group that are recovered
 * together should be asked for the same one by lb_point_shared_text(): a newer one may be made in between.
 */
int lb_point_find(struct lb_vault *v, const struct lb_uuid *machine, const char *text, struct lb_point *ret_point);

/* "latest-multi-vm" becomes "shared:UUID", as it is for this machine now; every other text stays as it is. */
int lb_point_shared_text(struct lb_vault *v, const struct lb_uuid *machine, const char *text,
			 char ret_text[LB_POINT_NAME_BYTES]);

/* Those that the journal still holds behind what was folded, also those that are about to be pruned. */
int lb_points_list_journal(struct lb_vault *v, const struct lb_uuid *machine,
			   int (*fn)(void *arg, const struct lb_point *point), void *arg);

/* -ESTALE when the point was pruned before the pin could hold it. */
int lb_point_pin(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *name);
int lb_point_unpin(struct lb_vault *v, const struct lb_uuid *machine, const char *name);
/* A legal hold: like a pin, but only lb_point_release() ends it. */
int lb_point_hold(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *name);
int lb_point_release(struct lb_vault *v, const struct lb_uuid *machine, const char *name);
