/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The manifest of a folded journal, m/<uuid>/f/<version>: what stands in place of the journal objects up to the *cut*.
 * Versions are put if absent and never changed; the newest wins. Between retained points lie *spans*: each has a map of
 * the extents that its segments wrote, the first one (the base) the whole image. The image at the end of a span is
 * those maps one over the other.
 *
 * Order, on which everything rests: a point is dropped by one version only after an earlier version called it doomed,
 * and pins are read between the two; an object is dropped by one version, called deletable by a later one, and deleted
 * after that one is durable and leases were read. Encoding and decoding are pure.
 */
#include "vault/head.h"
#include "vault/pack.h"
#include "vault/points.h"

#define LB_MANIFEST_VERSION_MAX 99999999
#define LB_MANIFEST_BYTES_MAX (48u << 20)
#define LB_MANIFEST_SPANS_MAX 16384
#define LB_MANIFEST_OBJECTS_MAX 400000
#define LB_MANIFEST_GARBAGE_MAX 400000
#define LB_MANIFEST_KEPT_MAX 8192
#define LB_MANIFESTS_KEPT 16 /* versions that stay, for who lists and then reads */

/* Set in the number of an object that holds rewritten data: m/<uuid>/o/<version>-<random>. */
#define LB_FOLDED_OBJECT (UINT64_C(1) << 63)

/* (end of the span before, end] */
struct lb_span {
	uint64_t map;          /* m/<uuid>/d/<version>-<random> */
	uint64_t map_bytes;    /* as it rests */
	uint64_t data_bytes;   /* raw bytes of the extents of its map */
	struct lb_point point; /* at its end; flags without LB_HRL_POINT: none is offered there */
	bool doomed;           /* a later version merges it with the next one, unless a pin forbids */
};

/* An object with live data at or below the cut. */
struct lb_live {
	uint64_t epoch, number;         /* epoch 0: number is that of rewritten data, with LB_FOLDED_OBJECT */
	struct lb_position first, last; /* positions whose spans refer to it */
	uint32_t size_bytes;
	uint64_t raw_bytes, live_bytes; /* of its data, before compression */
	int64_t created_ns;
};

enum lb_garbage_kind { LB_GARBAGE_JOURNAL = 1, LB_GARBAGE_FOLDED, LB_GARBAGE_SPAN, LB_GARBAGE_CHECKPOINT };

struct lb_garbage {
	enum lb_garbage_kind kind;
	uint64_t epoch, number;
	uint64_t size_bytes;
	uint64_t version; /* the first that does not need it */
	int64_t created_ns, dropped_ns;
};

struct lb_fold_totals {
	uint64_t journal_bytes;   /* of journal objects that were folded */
	uint64_t rewritten_bytes; /* of objects with rewritten data */
	uint64_t map_bytes;       /* of span maps */
	uint64_t manifest_bytes;
	uint64_t deleted_bytes, deleted_objects;
};

struct lb_manifest {
	uint64_t version;   /* 0: nothing was folded */
	int64_t time_ns;    /* by which it pruned */
	uint64_t deletable; /* what versions up to this dropped may be gone */
	/* the journal's state after the last object folded; epoch 0: none */
	struct lb_place cut;
	struct lb_digest cut_digest;
	bool cut_is_seal;
	struct lb_pack_after cut_after;
	/* what the next version may fold: up to an object; points that are not kept are doomed */
	struct lb_place next;
	struct lb_position next_end;
	struct lb_point *kept;
	size_t n_kept;
	struct lb_span *spans;
	size_t n_spans;
	struct lb_live *live; /* rising by epoch and number */
	size_t n_live;
	struct lb_garbage *garbage;
	size_t n_garbage;
	struct lb_fold_totals totals;
};

void lb_manifest_free(struct lb_manifest *m);
LB_DEFINE_CLEANUP(struct lb_manifest *, lb_manifest_free);
#define _cleanup_manifest_ _cleanup_(lb_manifest_freep)

/* Order of positions: <0, 0, >0. */
int lb_position_compare(const struct lb_position *a, const struct lb_position *b);

/* Pure. */
int lb_manifest_encode(const struct lb_manifest *m, struct lb_buf *out);
int lb_manifest_decode(const void *data, size_t size_bytes, struct lb_manifest **ret);

/* The newest; one of version 0 where nothing was folded. */
int lb_manifest_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_manifest **ret);
int lb_manifest_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, uint64_t version);
/* One version. */
int lb_manifest_get(struct lb_vault *v, const struct lb_uuid *machine, uint64_t version, struct lb_manifest **ret);
/* -EEXIST when another one put that version first. Adds its size to the totals of the next. */
int lb_manifest_put(struct lb_vault *v, const struct lb_uuid *machine, struct lb_manifest *m);

bool lb_manifest_is_folded(const struct lb_manifest *m, const struct lb_position *position);
/* The span that holds a position at or before the cut; n_spans when it lies after it. */
size_t lb_manifest_span(const struct lb_manifest *m, const struct lb_position *position);
/* Whether a span ends there and a point is offered, or the journal still has it and it is not doomed. */
bool lb_manifest_offers(const struct lb_manifest *m, const struct lb_position *position);
struct lb_live *lb_manifest_live(struct lb_manifest *m, uint64_t epoch, uint64_t number);
/* Adds an object; the caller saw that it is not there. */
int lb_manifest_live_add(struct lb_manifest *m, const struct lb_live *live);
int lb_manifest_garbage_add(struct lb_manifest *m, const struct lb_garbage *g);

/* Names of objects under m/<uuid>/o/ and d/: the version that made them, then random. */
int lb_folded_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, char folder, uint64_t number);
/* -EINVAL for others; parts of a map ("d/V-R-SALT-PART") have its number. */
int lb_folded_name_parse(const char *name, char folder, uint64_t *ret_number);
static inline uint64_t lb_folded_version(uint64_t number)
{
	return (number & ~LB_FOLDED_OBJECT) >> 32;
}
