/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The `.hrl` segment: an atomic delta set of one machine's disks. docs/hrl-format.md has it byte by byte.
 *
 * A *plain* segment travels from the agent to the process server (frames raw, nothing sealed); a *sealed* one
 * (frames compressed and sealed, index sealed, header authenticated) rests in caches and vaults. Both carry the same
 * canonical content and hence the same digest: SHA-256 over the canonical header and the canonical index, which
 * holds a hash of every frame's raw bytes. Digests chain segments: each names the one before it.
 *
 * Captured extents don't overlap one another; scanned extents don't overlap one another; where a captured and
 * a scanned extent of one epoch overlap, the captured one wins whatever their order (DESIGN: image of epoch e = end of
 * epoch e-1, then scan(e), then captured(e)).
 *
 * Pure functions over buffers: no I/O, no clock. Builders and readers are not shared between threads.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/text.h"

#define LB_HRL_VERSION 1
#define LB_HRL_FRAME_BYTES_MAX (256u << 10)  /* raw bytes of one frame */
#define LB_HRL_EXTENTS_MAX (256u << 10)      /* extents of one segment */
#define LB_HRL_DATA_BYTES_NOMINAL (8u << 20) /* the agent closes a segment at this many raw bytes */
#define LB_HRL_DATA_BYTES_MAX (24u << 20)    /* raw bytes that one segment may hold */
#define LB_HRL_FRAMES_MAX 1024               /* frames of one segment; our builder makes 96 at most */
#define LB_HRL_ZERO_BYTES_MAX (1u << 31)     /* one extent of zeroes; the builder splits longer ones */
#define LB_HRL_OFFSET_BYTES_MAX INT64_MAX    /* where the last extent of a disk may end */
#define LB_HRL_DISKS_MAX 64
#define LB_HRL_ZSTD_LEVEL_MAX 19
#define LB_HRL_HEADER_BYTES 512
#define LB_HRL_HASH_BYTES 16                 /* of a frame: XXH3-128 */
#define LB_HRL_SECTOR_BYTES 512              /* offsets and lengths are multiples of it */
#define LB_HRL_SEGMENT_BYTES_MAX (40u << 20) /* header + index + data, plain or sealed */

enum lb_hrl_kind {
	LB_HRL_CAPTURED = 1,      /* bytes of captured writes */
	LB_HRL_CAPTURED_ZERO = 2, /* zeroes: WRITE_ZEROES, DISCARD, or blocks found to be zero */
	LB_HRL_SCANNED = 3,       /* bytes read from the disk by the epoch's scan */
	LB_HRL_SCANNED_ZERO = 4,
};

static inline bool lb_hrl_kind_has_data(enum lb_hrl_kind kind)
{
	return kind == LB_HRL_CAPTURED || kind == LB_HRL_SCANNED;
}

static inline bool lb_hrl_kind_is_scanned(enum lb_hrl_kind kind)
{
	return kind == LB_HRL_SCANNED || kind == LB_HRL_SCANNED_ZERO;
}

enum lb_hrl_flag {
	LB_HRL_POINT = 1 << 0,      /* the boundary after this segment is a recovery point */
	LB_HRL_SCANNING = 1 << 1,   /* the epoch's scan was not finished at this boundary */
	LB_HRL_MARK_APP = 1 << 2,   /* app-consistent mark */
	LB_HRL_MARK_GROUP = 1 << 3, /* multi-VM mark */
	LB_HRL_HEARTBEAT = 1 << 4,  /* nothing was written: no extents */
	LB_HRL_LAST = 1 << 5,       /* the epoch ends here (debt, shutdown) */
};

/* The meaning of a header, without the parts that sealing adds. */
struct lb_hrl_header {
	struct lb_uuid vault;
	struct lb_uuid machine;
	struct lb_uuid instance; /* the capture that made it: one per attachment of the program */
	uint64_t epoch;          /* from 1 */
	uint64_t seq;            /* from 0 in each epoch, without gaps */
	uint64_t ring_cut;       /* ring position at which the next segment begins */
	uint64_t scan_cursor;    /* how far the scan is after this segment: an opaque, rising number of the agent's */
	int64_t time_first_ns;   /* agent's wall clock: the cut before, this cut */
	int64_t time_last_ns;
	int64_t receipt_ns; /* process server's clock, clamped to rise; 0 in a plain segment, not part of the digest */
	uint32_t flags;     /* enum lb_hrl_flag */
	struct lb_digest prev_digest; /* of segment seq - 1; for seq 0 of the last segment of the epoch before; zeroes
					 at the first */
};

struct lb_hrl_extent {
	uint16_t disk; /* the disk's id in the machine's catalog entry */
	uint8_t kind;  /* enum lb_hrl_kind */
	uint32_t length_bytes;
	uint64_t offset_bytes;
	uint32_t frame; /* with data: where its bytes are; a data extent lies in one frame */
	uint32_t frame_offset_bytes;
};

/* ---- building a plain segment ---------------------------------------------------------------------- */

struct lb_hrl_builder;
/* `data_bytes_max` is the ceiling of raw data (<= LB_HRL_DATA_BYTES_MAX). */
int lb_hrl_builder_new(size_t data_bytes_max, struct lb_hrl_builder **ret_builder);
void lb_hrl_builder_free(struct lb_hrl_builder *b);
LB_DEFINE_CLEANUP(struct lb_hrl_builder *, lb_hrl_builder_free);

/*
 * Adds one write in its order. `data` (NULL for zero kinds) is not copied: it must stay until lb_hrl_builder_finish().
 * Later captured writes hide earlier captured ones byte for byte; any captured one hides scanned ones of the same
 * segment. -EMSGSIZE when it does not fit any more: the builder is as it was, and the caller finishes this segment and
 * adds to the next. Bytes count before overlaps are resolved. A write longer than data_bytes_max fits no segment whole:
 * the caller cuts it.
 */
int lb_hrl_builder_add(struct lb_hrl_builder *b, uint16_t disk, enum lb_hrl_kind kind, uint64_t offset_bytes,
		       uint64_t length_bytes, const void *data);
size_t lb_hrl_builder_data_bytes(const struct lb_hrl_builder *b);
/* How many extents may come of what was added, at worst; 0 when nothing was. */
size_t lb_hrl_builder_extents(const struct lb_hrl_builder *b);
/* Sorts, resolves overlaps, makes zero extents of zero blocks (4 KiB), packs frames and writes the plain segment into
 * `out` (appended). The builder is then empty and can be used again; after a failure it and `out` are as they were. */
int lb_hrl_builder_finish(struct lb_hrl_builder *b, const struct lb_hrl_header *header, struct lb_buf *out,
			  struct lb_digest *ret_digest);

/* ---- reading a segment ------------------------------------------------------------------------------ */

struct lb_hrl_segment;
/*
 * Opens and checks a plain segment in memory, all of it: bounds, order, overlaps, frame hashes. `data` must stay.
 * -EBADMSG with a text that names the field.
 */
int lb_hrl_open_plain(const void *data, size_t size_bytes, struct lb_hrl_segment **ret_segment);

/*
 * Opens the head of a sealed segment: header and index, authenticated with the machine's key before they are parsed.
 * `expect` gives the position that the caller believes it reads (vault, machine, epoch, seq): anything else is
 * -EBADMSG. `head` needs lb_hrl_sealed_head_bytes() bytes; frames are then opened one by one.
 */
int lb_hrl_open_sealed(const struct lb_key *machine_key, const struct lb_hrl_header *expect, const void *head,
		       size_t head_bytes, struct lb_hrl_segment **ret_segment);
/* From the first LB_HRL_HEADER_BYTES of a sealed segment, not yet authenticated but bounded. */
int lb_hrl_sealed_sizes(const void *header, uint64_t *ret_head_bytes, uint64_t *ret_total_bytes);

/* The salt in the LB_HRL_HEADER_BYTES of a sealed segment, not yet authenticated: who keeps several keys of a machine
 * marks there which one it is (base/keyring.h). */
const uint8_t *lb_hrl_sealed_salt(const void *header);

void lb_hrl_segment_free(struct lb_hrl_segment *s);
LB_DEFINE_CLEANUP(struct lb_hrl_segment *, lb_hrl_segment_free);

const struct lb_hrl_header *lb_hrl_header(const struct lb_hrl_segment *s);
const struct lb_digest *lb_hrl_digest(const struct lb_hrl_segment *s);
const struct lb_hrl_extent *lb_hrl_extents(const struct lb_hrl_segment *s, uint32_t *ret_n);
/* Frees them in a segment of which only frames are read from now on: they are most of its memory. */
void lb_hrl_extents_drop(struct lb_hrl_segment *s);
uint32_t lb_hrl_frames(const struct lb_hrl_segment *s);

struct lb_hrl_frame_place {
	uint64_t offset_bytes; /* within the sealed segment */
	uint32_t stored_bytes; /* as it rests, tag included */
	uint32_t raw_bytes;
};
int lb_hrl_frame_place(const struct lb_hrl_segment *s, uint32_t frame, struct lb_hrl_frame_place *ret_place);
/* Opens one stored frame: authentic, decompressed, its hash compared. `out` takes raw_bytes. */
int lb_hrl_frame_open(const struct lb_hrl_segment *s, uint32_t frame, const void *stored, size_t stored_bytes,
		      void *out);
/* Whether these are the frame's raw bytes, by the hash in the index. */
bool lb_hrl_frame_is(const struct lb_hrl_segment *s, uint32_t frame, const void *raw, size_t raw_bytes);
/* The hash in the index, in place; NULL: there is no such frame. */
const uint8_t *lb_hrl_frame_hash_of(const struct lb_hrl_segment *s, uint32_t frame);
/* The hash that these raw bytes would have there. No cryptographic one: whoever chooses bytes can make two alike. */
void lb_hrl_frame_hash(const void *raw, size_t raw_bytes, uint8_t ret_hash[LB_HRL_HASH_BYTES]);
/* The raw bytes of a frame of a plain segment, in place. */
const void *lb_hrl_frame_plain(const struct lb_hrl_segment *s, uint32_t frame, uint32_t *ret_raw_bytes);

/* ---- sealing ------------------------------------------------------------------------------------------ */

/*
 * Compresses (zstd; level 0: not at all) and seals a plain segment. `receipt_ns` enters the header. `salt` must be
 * fresh random bytes: the key of this seal is HKDF(machine key, salt). Appends to `out`.
 */
int lb_hrl_seal(const struct lb_hrl_segment *plain, const struct lb_key *machine_key, int64_t receipt_ns,
		const uint8_t salt[LB_SALT_BYTES], int zstd_level, struct lb_buf *out);
