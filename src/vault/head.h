/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The sealed head that journal objects and checkpoints begin with: a 64-byte prefix in the clear (magic, length, salt,
 * length of the object) and a body that is authentic only for this vault, machine, place and prefix. Padded to
 * LB_HEAD_ALIGN_BYTES, so that one range request of that size reads most heads.
 */
#include "vault/internal.h"

#define LB_HEAD_ALIGN_BYTES 4096
#define LB_HEAD_PREFIX_BYTES 64
#define LB_HEAD_BYTES_MAX (2u << 20)

struct lb_place {
	uint64_t epoch, number;
};

struct lb_head_id {
	const char *magic; /* 8 bytes */
	const char *use;   /* of the key */
	const struct lb_uuid *vault, *machine;
	const struct lb_key *key;
	struct lb_place place;
};

/* In the first LB_HEAD_PREFIX_BYTES, not authentic yet. */
static inline const uint8_t *lb_head_salt(const void *head)
{
	return (const uint8_t *)head + 16;
}

/* How long a head with a body of at least `body_bytes` is, and how long its body then is. */
uint32_t lb_head_bytes_for(size_t body_bytes);
static inline size_t lb_head_body_bytes(uint32_t head_bytes)
{
	return head_bytes - LB_HEAD_PREFIX_BYTES - LB_TAG_BYTES;
}

/* `head` holds the plain body behind the prefix's place; both are made and sealed where they are. */
int lb_head_seal(const struct lb_head_id *id, const uint8_t salt[LB_SALT_BYTES], uint64_t total_bytes, uint8_t *head,
		 uint32_t head_bytes);
/* The length that the first bytes of an object tell: bounded, not authentic. */
int lb_head_bytes(const struct lb_head_id *id, const void *data, size_t size_bytes, uint32_t *ret_head_bytes);
/* -EBADMSG unless the head is authentic. `ret_body` (to be freed) has lb_head_body_bytes(head_bytes). */
int lb_head_open(const struct lb_head_id *id, const void *head, size_t head_bytes, uint8_t **ret_body,
		 uint64_t *ret_total_bytes);
/* Reads the head of an object; one that is shorter than its head is -EBADMSG. */
int lb_head_read(struct lb_store *store, const struct lb_head_id *id, const char *name, struct lb_buf *out);
