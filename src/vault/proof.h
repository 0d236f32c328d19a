/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A word that a machine carries on its disk, so that its double can show what it was started from: the time at which it
 * was given, and a code that only who holds the machine's key can make: "<wall clock ns>:<32 hex digits>". The machine
 * itself holds no key and takes it as it is. Nothing is kept to check it by. Thread-safe.
 */
#include "base/proof_word.h"
#include "vault/vault.h"

#define LB_PROOF_INTERVAL_S 60 /* a new word this often */

int lb_proof_make(struct lb_vault *v, const struct lb_uuid *machine, int64_t time_ns, char text[LB_PROOF_TEXT_BYTES]);
/* -EBADMSG when it is none of this machine's. */
int lb_proof_check(struct lb_vault *v, const struct lb_uuid *machine, const char *text, int64_t *ret_time_ns);
