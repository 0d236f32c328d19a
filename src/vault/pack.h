/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One object of a journal: a sealed head (who, where, what came before, the table of its segments), then the sealed
 * segments. docs/vault-format.md has it byte by byte. Encoding and decoding are pure; lb_pack_read() reads a head.
 */
#include "vault/head.h"
#include "vault/journal.h"

#define LB_SEAL_REASON_BYTES 128

enum lb_pack_kind { LB_PACK_SEGMENTS = 1, LB_PACK_SEAL = 2 };

struct lb_pack_entry {
	uint64_t seq;
	uint32_t offset_bytes; /* in the object */
	uint32_t size_bytes;
	uint32_t head_bytes; /* header and index of the segment */
	uint32_t flags;
	uint32_t extents;
	int64_t receipt_ns; /* clamped to rise over the whole journal */
	struct lb_digest digest;
};

/* The journal's end after an object: what a writer and a list of points need of the past. */
struct lb_pack_after {
	struct lb_position position;
	struct lb_digest digest;
	struct lb_uuid instance;
	uint64_t ring_cut, scan_cursor;
	int64_t receipt_ns;
	uint32_t flags;
};

struct lb_pack {
	enum lb_pack_kind kind;
	struct lb_place place;
	struct lb_place prev;         /* epoch 0: the first object of the journal */
	struct lb_digest prev_digest; /* of the object before */
	struct lb_uuid writer;        /* one per opened writer: tells one's own seal from another's */
	int64_t time_ns;              /* writer's clock */
	struct lb_pack_after after;
	char reason[LB_SEAL_REASON_BYTES]; /* of a seal */
	uint32_t n;
	struct lb_pack_entry *entries;
	/* results of encoding and decoding */
	uint32_t generation; /* of the machine's key that sealed it */
	uint32_t head_bytes;
	uint64_t total_bytes;
	struct lb_digest digest; /* of the plain head: names the object to its successor */
};

void lb_pack_free(struct lb_pack *p);
LB_DEFINE_CLEANUP(struct lb_pack *, lb_pack_free);

int lb_pack_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_uuid *machine, const struct lb_place *place);
/* The number of an object of `m/<machine>/e/`: -EINVAL for other names. */
int lb_pack_name_parse(const char *name, struct lb_place *ret_place);

/* Appends the sealed head; places the segments (entries[].offset_bytes) and fills in the results. */
int lb_pack_encode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
		   const uint8_t salt[LB_SALT_BYTES], struct lb_pack *p, struct lb_buf *out);

/* -EBADMSG unless it is authentic and of this place. */
int lb_pack_decode(const struct lb_uuid *vault, const struct lb_uuid *machine, const struct lb_key *key,
		   const struct lb_place *place, const void *head, size_t head_bytes, struct lb_pack **ret_pack);

/* -ENOENT when there is no such object. */
int lb_pack_read(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_place *place,
		 struct lb_pack **ret_pack);
