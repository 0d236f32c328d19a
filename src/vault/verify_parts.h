/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The state of a verification, shared by the journal's proof (verify.c) and that of checkpoints (verify_checkpoint.c).
 */
#include "vault/chain.h"
#include "vault/map.h"
#include "vault/verify.h"

struct lb_verify {
	struct lb_vault *v;
	bool deep;
	void (*progress)(void *arg, const struct lb_verify_progress *p);
	void (*finding)(void *arg, const struct lb_verify_finding *f);
	void *arg;
	struct lb_verify_report report;
	/* of the machine under way */
	struct lb_uuid machine;
	struct lb_key key;
	struct lb_chain chain;
	bool prev_is_known; /* the object before was read: what follows is compared with it */
	bool is_whole;      /* nothing was lost so far: points up to here can be recovered */
	bool map_is_whole;
	struct lb_map *map; /* when deep: after the objects read so far */
	struct lb_checkpoint_list checkpoints;
	size_t checkpoint_next; /* the first that lies after the objects read so far */
};

void lb_verify_find(struct lb_verify *w, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool lb_verify_is_damage(int r);
void lb_verify_parts_free(struct lb_verify *w);

/* After each journal object: the checkpoint of that place, if there is one. */
int lb_verify_checkpoint_at(struct lb_verify *w, const struct lb_place *place);
/* Checkpoints of places that the journal does not have, and objects that are no checkpoints. */
int lb_verify_checkpoints_end(struct lb_verify *w);
