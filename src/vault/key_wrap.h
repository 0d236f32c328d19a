/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The objects `m/<machine>/key*`: a machine's key of each generation, as wrapped by the vault key. */
#include "vault/internal.h"

/* The object that holds, or would hold, it as wrapped by the vault key. */
int lb_key_wrap_name(const struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation,
		     char name[LB_OBJECT_NAME_BYTES]);
/* Of an object's name below its machine's folder: whether it can be one of those, by which vault key, and which. */
bool lb_key_wrap_is_name(const char *rest, uint8_t ret_id[LB_VAULT_KEY_ID_BYTES], uint32_t *ret_generation);
/* Whether the vault key of that id is in use. */
bool lb_key_wrap_is_used(const struct lb_vault *v, const uint8_t id[LB_VAULT_KEY_ID_BYTES]);

/* By the vault key, or the one before while that is being changed. -ENOENT, -EBADMSG. */
int lb_key_wrap_read(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, struct lb_key *ret_key);
/* Puts a new random one, or gives the one that is there. */
int lb_key_wrap_make(struct lb_vault *v, const struct lb_uuid *machine, uint32_t generation, struct lb_key *ret_key);
/* By listing: one more than the newest generation that is there, 0 when there is none. Some before it may be gone. */
int lb_key_wrap_count(struct lb_vault *v, const struct lb_uuid *machine, uint32_t *ret_n);
