/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Anchors: what somebody outside the vault knows of its newest state. A whole older copy of a vault, or one whose tail
 * was cut, is authentic in itself; only an anchor tells. The configuration server keeps one of each machine; a receipt
 * is one in a file, authenticated under a key derived from the vault key, that an operator keeps elsewhere.
 */
#include "vault/journal.h"
#include "vault/pack.h"

#define LB_ANCHOR_MACHINES_MAX 100000
#define LB_ANCHOR_TEXT_BYTES 512
#define LB_RECEIPT_BYTES_MAX (64u << 20)

struct lb_anchor {
	struct lb_uuid machine;
	struct lb_position position; /* of a segment that was in the vault; epoch 0: none was */
	struct lb_digest digest;     /* of that segment */
	struct lb_place object; /* a journal object that was there, at or after the segment's; epoch 0: not known */
	struct lb_digest object_digest;
	uint64_t item; /* newest version of the catalog entry; 0: not known */
	int64_t time_ns;
};

enum lb_anchor_state {
	LB_ANCHOR_HOLDS,   /* the vault is at least as new, and of the same history */
	LB_ANCHOR_OLDER,   /* what the anchor knows is not there: rolled back, or its tail cut */
	LB_ANCHOR_DIFFERS, /* something else is there: another history */
	LB_ANCHOR_UNKNOWN, /* the place can't be read */
};

struct lb_anchor_result {
	enum lb_anchor_state state;
	char text[LB_ANCHOR_TEXT_BYTES]; /* what it means for the points; empty when it holds */
};

/* Holds the vault against what the anchor knows of one machine. Only failures to read the store are errors. */
int lb_anchor_check(struct lb_vault *v, const struct lb_anchor *anchor, struct lb_anchor_result *ret_result);

struct lb_receipt {
	int64_t made_ns;
	char *vault_json; /* as it was; to be freed with the receipt */
	struct lb_anchor *anchors;
	size_t n;
};

/* Appends the receipt of the vault as it is now, a few lines of text. Needs the vault key. */
int lb_receipt_make(struct lb_vault *v, struct lb_buf *out);
/* -EBADMSG unless it is authentic and of this vault. */
int lb_receipt_open(struct lb_vault *v, const void *data, size_t size_bytes, struct lb_receipt *ret_receipt);
/*
 * Puts vault.json back from a receipt, where it is lost or can't be read (what was there stays beside it, as
 * evidence/<hex>); -EEXIST where the passphrase opens the vault as it is.
 */
int lb_receipt_restore(struct lb_store *store, const char *passphrase, const void *data, size_t size_bytes,
		       bool dry_run);
void lb_receipt_clear(struct lb_receipt *receipt); /* for _cleanup_() */
/* NULL when the receipt does not know the machine. */
const struct lb_anchor *lb_receipt_find(const struct lb_receipt *receipt, const struct lb_uuid *machine);
