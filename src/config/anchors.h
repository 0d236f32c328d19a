/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The newest position of each machine that a process server said to be in the vault, kept in the database: an anchor
 * against a vault that is put back to an older copy. Any thread.
 */
#include "config/site.h"
#include "vault/anchor.h"

/* What a process server says of one of its machines; a position that went back is an event. */
int lb_anchor_note(struct lb_site *site, const char *machine, const json_t *report);
/* -ENOENT when nothing is known of the machine. */
int lb_anchor_get(struct lb_site *site, const struct lb_uuid *machine, struct lb_anchor *ret_anchor);
void lb_anchor_forget(struct lb_site *site, const char *machine);

/* {"state": "anchored", "older", "unproven"; "text"}: the vault now, held against what is known. */
int lb_anchor_freshness(struct lb_site *site, const struct lb_uuid *machine, json_t **ret_freshness);
