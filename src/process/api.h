/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What agents ask of the process server over HTTPS (client certificate: CN = machine, OU = machine). The argument of
 * the handlers is the struct lb_process. J is where the journal durably stands:
 *
 *   J = {"known", "epoch", "seq", "next_seq", "last_epoch", "last_seq", "ring_cut", "scan_cursor", "digest",
 *        "instance", "vault_epoch", "vault_seq", "time_ns", "policy"}
 *
 * "seq" is null while the epoch holds nothing; "last_*" and "digest" are the newest segment's, of whatever epoch.
 *
 *   GET  /v1/journal             -> J
 *   POST /v1/epoch               {"epoch", "instance", "hardware", "reason", "prev_digest", "disks", "ring_cut"?}
 *                                -> J
 *   PUT  /v1/journal/EPOCH/SEQ?cut_ns=T   a plain segment, cut at T on our clock (0: not known)
 *                                -> {"epoch", "seq", "vault_epoch", "vault_seq", "time_ns"}
 *   POST /v1/compare             {"epoch", "disk", "offset", "block_bytes", "key" (hex), "hashes" (base64)}
 *                                -> {"differ"} (base64 bitmap)
 *   POST /v1/settle              {"epoch", "session" (hex), "disk", "offset", "length", "batch"?, "hashes"? (base64)}
 *                                -> {"batch", "entries" (base64, batch.h)}: hash these, and ask again with them;
 *                                   {"send", "zero", "mixed"} (base64): settled: bitmaps of the units that are to be
 *                                   sent, and that are zeroes there; of those that are zeroes in parts unit (u16), bits
 *                                   of its sectors that are (u8); what is neither is the same
 *                                -> {}: ask again
 *   POST /v1/heartbeat           {"epoch", "seq", "idle", "cut_ns", "hardware", "mode", figures}
 *                                -> {"time_ns", "vault_epoch", "vault_seq", "policy", "commands"}
 *
 * Refusals are {"error": {"code", "message"}}: 400 not sound; 403 unknown, disabled, failed over, taken over, or of
 * other hardware; 409 the journal stands elsewhere, with "journal": J; 429 later, with Retry-After; 507 the cache's
 * disk is full; 503 too many bodies at once.
 */
#include "process/process.h"
#include "wire/server.h"

#define LB_API_RETRY_AFTER_S 2       /* of a 429 that time cures soon */
#define LB_API_RETRY_AFTER_FULL_S 10 /* of a cache that is full */

extern const struct lb_http_route lb_process_routes[];
extern const size_t lb_process_routes_n;
