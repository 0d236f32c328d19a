/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the configuration server orders of a target server (its kinds: src/config/targets.h), and what became of an
 * order, kept beside the machine's record: a restart between the deed and the report must not do it twice.
 */
#include <jansson.h>

#include "base/env.h"
#include "base/text.h"
#include "vault/vault.h"

struct lb_target_order {
	char id[LB_UUID_TEXT_BYTES], machine_text[LB_UUID_TEXT_BYTES];
	struct lb_uuid machine;
	char machine_name[65];
	char kind[16];
	bool has_keys; /* none: the machine's journal was erased */
	struct lb_keyring keys;
	json_t *body;
};
/* Wipes the key in `object`. */
int lb_target_order_parse(json_t *object, struct lb_target_order *ret_order);
void lb_target_order_clear(struct lb_target_order *o); /* wipes; for _cleanup_() */

/* Durable at return. */
int lb_target_outcome_write(struct lb_env *env, const char *folder, const json_t *report);
/* -ENOENT when none is kept of this order. */
int lb_target_outcome_read(struct lb_env *env, const char *folder, const char *order, json_t **ret_report);
/* The same for what an order chose when it began, and must not choose anew. */
int lb_target_choice_write(struct lb_env *env, const char *folder, const json_t *choice);
int lb_target_choice_read(struct lb_env *env, const char *folder, const char *order, json_t **ret_choice);
