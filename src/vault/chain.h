/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Goes through a machine's journal objects in order and checks that each is the one that follows. */
#include "vault/checkpoint.h"
#include "vault/manifest.h"
#include "vault/pack.h"

struct lb_repair;

struct lb_chain {
	struct lb_vault *v;
	struct lb_uuid machine;
	struct lb_place last; /* epoch 0: none read */
	struct lb_digest last_digest;
	bool last_is_seal;
	struct lb_pack_after after;
	/* told of each piece of damage that a repair record leads over; may be NULL */
	int (*crossed)(void *arg, const struct lb_repair *record);
	void *crossed_arg;
	uint32_t generation; /* of the machine's key that sealed the newest object read; 0 when it began later */
	uint64_t manifest;   /* version of the manifest that it began with */
};

/* At the beginning of the journal; -ENOENT, -ENOKEY when the machine can't be read at all. */
int lb_chain_begin(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine);
/* After the object that a checkpoint is of. */
int lb_chain_after(struct lb_chain *c, struct lb_vault *v, const struct lb_checkpoint *checkpoint);
/* At the cut of a folded journal, or at the beginning. */
int lb_chain_at_cut(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine, const struct lb_manifest *m);
/* After the newest checkpoint that can be read, or at the cut. */
int lb_chain_newest(struct lb_chain *c, struct lb_vault *v, const struct lb_uuid *machine);

struct lb_place lb_chain_next_place(const struct lb_chain *c);
/*
 * -ENOENT at the end, with the chain as it was; -EBADMSG for an object that does not follow. Where a repair record
 * leads over the damage, the next object is the one behind it.
 */
int lb_chain_next(struct lb_chain *c, struct lb_pack **ret_pack);
/* Whether `p` follows; what lb_chain_next() checks. */
int lb_chain_check(const struct lb_chain *c, const struct lb_pack *p);
/* Takes `p`, which was checked, as read. */
void lb_chain_step(struct lb_chain *c, const struct lb_pack *p);

/* After -ENOENT: 0 at the true end, -EAGAIN when the next object came meanwhile, -EBADMSG when objects follow a missing
 * one. */
int lb_chain_check_end(const struct lb_chain *c);
/* Puts the chain behind what a repair record leads over. */
void lb_chain_cross(struct lb_chain *c, const struct lb_repair *record);
/* To the end. */
int lb_chain_finish(struct lb_chain *c);
void lb_chain_tail(const struct lb_chain *c, struct lb_journal_tail *ret_tail);
