/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where every byte of a segment is, and what an opened one looks like in memory. Private to src/hrl and its tests;
 * docs/hrl-format.md is the same in words. Integers are little-endian; bytes that have no meaning are zero, and a
 * reader refuses others.
 *
 *     header | index | frame 0 | frame 1 | ...
 *
 * The first half of the header and the canonical index are alike in a plain and in a sealed segment: the digest is
 * taken over them. The second half says how these bytes are stored.
 */
#include "base/bytes.h"
#include "base/crypto.h"
#include "hrl/hrl.h"

/* header, first half: canonical */
#define LB_HRL_MAGIC "\x89HRL\r\n\x1a\n"
#define LB_HRL_MAGIC_BYTES 8
#define LB_HRL_AT_VERSION 8       /* u32 */
#define LB_HRL_AT_FLAGS 12        /* u32 */
#define LB_HRL_AT_VAULT 16        /* 16 bytes */
#define LB_HRL_AT_MACHINE 32      /* 16 bytes */
#define LB_HRL_AT_INSTANCE 48     /* 16 bytes */
#define LB_HRL_AT_EPOCH 64        /* u64 */
#define LB_HRL_AT_SEQ 72          /* u64 */
#define LB_HRL_AT_RING_CUT 80     /* u64 */
#define LB_HRL_AT_SCAN_CURSOR 88  /* u64 */
#define LB_HRL_AT_TIME_FIRST 96   /* i64, ns */
#define LB_HRL_AT_TIME_LAST 104   /* i64, ns */
#define LB_HRL_AT_PREV_DIGEST 112 /* 32 bytes */
#define LB_HRL_AT_EXTENTS 144     /* u32 */
#define LB_HRL_AT_FRAMES 148      /* u32 */
#define LB_HRL_AT_DATA_BYTES 152  /* u64: raw bytes of all frames */
#define LB_HRL_AT_ZERO_1 160      /* up to the canonical end */
#define LB_HRL_CANONICAL_BYTES 256

/* header, second half: how it is stored */
#define LB_HRL_AT_FORM 256         /* u8 */
#define LB_HRL_AT_INDEX_CODEC 257  /* u8 */
#define LB_HRL_AT_ZERO_2 258       /* 2 bytes */
#define LB_HRL_AT_INDEX_STORED 260 /* u32: bytes of the index as it rests, tag included */
#define LB_HRL_AT_TOTAL 264        /* u64: bytes of the whole segment */
#define LB_HRL_AT_RECEIPT 272      /* i64, ns; 0 when plain */
#define LB_HRL_AT_DIGEST 280       /* 32 bytes */
#define LB_HRL_AT_SALT 312         /* 16 bytes; zero when plain */
#define LB_HRL_AT_ZERO_3 328       /* up to the end of the header */

/* an extent of the index */
#define LB_HRL_EXTENT_BYTES 24
#define LB_HRL_EXTENT_AT_OFFSET 0        /* u64 */
#define LB_HRL_EXTENT_AT_LENGTH 8        /* u32 */
#define LB_HRL_EXTENT_AT_FRAME 12        /* u32 */
#define LB_HRL_EXTENT_AT_FRAME_OFFSET 16 /* u32 */
#define LB_HRL_EXTENT_AT_DISK 20         /* u16 */
#define LB_HRL_EXTENT_AT_KIND 22         /* u8 */
#define LB_HRL_EXTENT_AT_ZERO 23         /* u8 */

/* a frame of the canonical index, after the extents */
#define LB_HRL_FRAME_BYTES 20
#define LB_HRL_FRAME_AT_RAW 0  /* u32 */
#define LB_HRL_FRAME_AT_HASH 4 /* XXH3-128 of the raw bytes in its canonical, big-endian form */

/* a frame's place, after the frames; only in a sealed index */
#define LB_HRL_PLACE_BYTES 8
#define LB_HRL_PLACE_AT_STORED 0 /* u32: bytes as they rest, tag included */
#define LB_HRL_PLACE_AT_CODEC 4  /* u8 */
#define LB_HRL_PLACE_AT_ZERO 5   /* 3 bytes */

#define LB_HRL_ZERO_BLOCK_BYTES 4096 /* aligned blocks of zeroes are told from data by the builder */
#define LB_HRL_SEAL_INFO "lifeboat hrl seal v1"
#define LB_HRL_INDEX_NONCE UINT32_MAX /* frames take their number */

enum lb_hrl_form { LB_HRL_PLAIN = 1, LB_HRL_SEALED = 2 };
enum lb_hrl_codec { LB_HRL_CODEC_NONE = 0, LB_HRL_CODEC_ZSTD = 1 };

/* Everything that a header says. */
struct lb_hrl_head {
	struct lb_hrl_header header;
	enum lb_hrl_form form;
	enum lb_hrl_codec index_codec;
	uint32_t n_extents;
	uint32_t n_frames;
	uint64_t data_bytes;
	uint32_t index_stored_bytes;
	uint64_t total_bytes;
	struct lb_digest digest;
	uint8_t salt[LB_SALT_BYTES];
};

struct lb_hrl_frame {
	uint64_t offset_bytes; /* within the segment */
	uint32_t raw_bytes;
	uint32_t stored_bytes;
	enum lb_hrl_codec codec;
	uint8_t hash[LB_HRL_HASH_BYTES];
};

struct lb_hrl_segment {
	struct lb_hrl_head head;
	struct lb_hrl_extent *extents;
	struct lb_hrl_frame *frames;
	const uint8_t *plain; /* the caller's bytes of a plain segment */
	struct lb_gcm *gcm;   /* of a sealed one */
};

/* -EINVAL with the reason when a header breaks a rule. */
int lb_hrl_header_check(const struct lb_hrl_header *header, uint32_t n_extents);
/* The digest enters as it is in `head`. */
void lb_hrl_head_encode(const struct lb_hrl_head *head, uint8_t out[LB_HRL_HEADER_BYTES]);
/* Checks every field against its limits and the others. */
int lb_hrl_head_decode(const uint8_t in[LB_HRL_HEADER_BYTES], struct lb_hrl_head *ret_head);

static inline uint32_t lb_hrl_index_canonical_bytes(const struct lb_hrl_head *head)
{
	return head->n_extents * LB_HRL_EXTENT_BYTES + head->n_frames * LB_HRL_FRAME_BYTES;
}

static inline uint32_t lb_hrl_index_sealed_bytes(const struct lb_hrl_head *head)
{
	return lb_hrl_index_canonical_bytes(head) + head->n_frames * LB_HRL_PLACE_BYTES;
}

void lb_hrl_extent_encode(const struct lb_hrl_extent *e, uint8_t out[LB_HRL_EXTENT_BYTES]);
/* Decodes and checks extents, frames and (when sealed) places into `s`, whose head is there. `index` has the
 * canonical or the sealed length that the head promises. */
int lb_hrl_index_decode(struct lb_hrl_segment *s, const uint8_t *index);
/* SHA-256 of the canonical half of the header and the canonical index. */
int lb_hrl_digest_compute(const uint8_t header[LB_HRL_HEADER_BYTES], const uint8_t *index, size_t index_canonical_bytes,
			  struct lb_digest *ret_digest);

/* What a frame's seal is bound to besides its bytes. */
#define LB_HRL_FRAME_AAD_BYTES 64
void lb_hrl_frame_aad(const struct lb_hrl_head *head, uint32_t frame, uint32_t raw_bytes, enum lb_hrl_codec codec,
		      uint8_t out[LB_HRL_FRAME_AAD_BYTES]);
void lb_hrl_nonce(uint32_t number, uint8_t out[LB_NONCE_BYTES]);
int lb_hrl_gcm_new(const struct lb_key *machine_key, const uint8_t salt[LB_SALT_BYTES], struct lb_gcm **ret_gcm);
