/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The state of a verification, shared by the journal's proof (verify.c), that of checkpoints (verify_checkpoint.c), of
 * the small objects of a machine (verify_small.c) and of what belongs to no machine (verify_site.c).
 */
#include "vault/chain.h"
#include "vault/losses.h"
#include "vault/map.h"
#include "vault/repair.h"
#include "vault/verify.h"

/* Something that says how far the journal went: read before the journal, which must then reach it. */
struct lb_verify_witness {
	struct lb_uuid machine;
	struct lb_position position;
	int64_t time_ns;
	char object[LB_OBJECT_NAME_BYTES];
};

struct lb_verify_witnesses {
	struct lb_verify_witness *w;
	size_t n, room;
};

/* A checkpoint whose head was read: parts of others are left over. */
struct lb_verify_parts {
	struct lb_place place;
	uint8_t salt[8];
	uint32_t parts;
};

struct lb_verify {
	struct lb_vault *v;
	bool deep;
	void (*progress)(void *arg, const struct lb_verify_progress *p);
	void (*finding)(void *arg, const struct lb_verify_finding *f);
	void *arg;
	struct lb_verify_report report;
	/* of the machine under way */
	struct lb_uuid machine;
	struct lb_losses losses;      /* that a repair recorded */
	struct lb_repairs repairs;    /* that lead over some of them */
	struct lb_manifest *manifest; /* of the folded part */
	uint64_t manifest_newest;     /* version read last */
	struct lb_chain chain;
	bool prev_is_known; /* the object before was read: what follows is compared with it */
	bool is_whole;      /* nothing was lost so far: points up to here can be recovered */
	bool map_is_whole;
	struct lb_map *map; /* when deep: after the objects read so far */
	struct lb_checkpoint_list checkpoints;
	size_t checkpoint_next; /* the first that lies after the objects read so far */
	struct lb_verify_parts *parts;
	size_t n_parts;
	uint64_t item_newest;                 /* version of the catalog entry read last */
	struct lb_verify_witnesses witnesses; /* heartbeats of all machines, named points of this one */
	size_t n_beats;                       /* of them, those that stay for the next machine */
};

void lb_verify_find(struct lb_verify *w, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same for what is only worth knowing. */
void lb_verify_note(struct lb_verify *w, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool lb_verify_is_damage(int r);
int lb_verify_list_under(struct lb_verify *w, const char *under, lb_store_list_fn fn);
void lb_verify_parts_free(struct lb_verify *w);

/* Before the journal: what was folded; the chain then begins at the cut. */
int lb_verify_folded(struct lb_verify *w);
bool lb_verify_is_below_cut(const struct lb_verify *w, const struct lb_place *place);
/* An object that the journal no longer begins with: its data is looked at through the maps. */
int lb_verify_below_cut(struct lb_verify *w, const char *object, uint64_t size_bytes, const struct lb_place *place);
int lb_verify_frames(struct lb_verify *w, const char *object, const struct lb_map_segment *place,
		     const struct lb_hrl_segment *s);

/* After each journal object: the checkpoint of that place, if there is one. */
int lb_verify_checkpoint_at(struct lb_verify *w, const struct lb_place *place);
/* Checkpoints of places that the journal does not have, and objects that are no checkpoints. */
int lb_verify_checkpoints_end(struct lb_verify *w);

/* Before the journal: named points, which become witnesses. */
int lb_verify_pins(struct lb_verify *w);
/* After it: catalog entries, what is in no folder of a vault, and what the witnesses know. */
int lb_verify_small(struct lb_verify *w);

/* Heartbeats of all machines (or of `only`), before any journal. */
int lb_verify_beats(struct lb_verify *w, const struct lb_uuid *only);
int lb_verify_witness_add(struct lb_verify *w, const struct lb_verify_witness *witness);
/* vault.json, the site's own objects, and names that no vault has. */
int lb_verify_site(struct lb_verify *w);
