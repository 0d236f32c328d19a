/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Points that stay: pins, `m/<machine>/p/<name>`, holds, `m/<machine>/h/<name>`, and those of a replication group's
 * shared points, `m/<machine>/g/<point's id>`, for as long as the group keeps it.
 */
#include "vault/internal.h"
#include "vault/points.h"

#define LB_PINS_MAX 4096

struct lb_pins {
	struct lb_vault *v;
	const struct lb_uuid *machine;
	char folder; /* under way */
	struct lb_point *points;
	size_t n;
	size_t n_unreadable;
};

void lb_pins_free(struct lb_pins *pins);
/* All pins of a machine; one that can't be read is passed over with a warning. */
int lb_pins_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_pins *ret_pins);
/* With those of shared points: all that pruning must leave. */
int lb_pins_read_kept(struct lb_vault *v, const struct lb_uuid *machine, struct lb_pins *ret_pins);
/* Keeps the machine's part of a shared point; as lb_point_pin(), -ESTALE when it was pruned. `id`: as text. */
int lb_pin_shared_put(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_point *point, const char *id);
/* One that is not there is removed already. */
int lb_pin_shared_remove(struct lb_vault *v, const struct lb_uuid *machine, const char *id);
/* Names a point after a hold at its position, else after a pin there. */
void lb_pins_apply(const struct lb_pins *pins, struct lb_point *point);
int lb_pin_read(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_point *ret_point);
/* By the name of its object. */
int lb_pin_object_read(struct lb_vault *v, const struct lb_uuid *machine, const char *object,
		       struct lb_point *ret_point);
/* A pin of that name, or a hold. */
int lb_pin_find(struct lb_vault *v, const struct lb_uuid *machine, const char *name, struct lb_point *ret_point);
