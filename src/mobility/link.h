/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent's side of the process server's API (port 9443): one request at a time, each with one answer or one error.
 * Nothing is retried here; who calls decides.
 *
 * Errors, with text: -ESTALE the server's journal stands elsewhere (ask it where), or is fenced;
 * -EACCES refused (unknown, revoked or fenced machine, wrong hardware); -EAGAIN and -ENOSPC the server wants us to wait
 * (`retry_after_s`); -EBADMSG an answer that makes no sense; anything else: the network.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/env.h"
#include "base/text.h"
#include "hrl/hrl.h"
#include "wire/client.h"
#include "wire/policy.h"

#define LB_LINK_REPLY_BYTES_MAX (256u << 10)
#define LB_LINK_RETRY_S_MAX 60
#define LB_LINK_HASHES_MAX 128 /* of one comparison */
#define LB_LINK_TIMEOUT_S 60

/* The last thing that the process server holds durably for this machine. */
struct lb_durable {
	bool known;       /* false: it never had anything of ours */
	uint64_t epoch;   /* 0: none yet */
	bool has_segment; /* of that epoch; without one `seq` and `scan_cursor` say nothing */
	uint64_t seq;
	uint64_t ring_cut, scan_cursor;
	struct lb_digest digest; /* of the last segment, of whatever epoch */
	struct lb_uuid instance;
	uint64_t last_epoch, last_seq; /* of the last segment, of whatever epoch; epoch 0: there is none */
};

/* What the vault holds; epoch 0: not said. */
struct lb_confirmed {
	uint64_t epoch, seq;
};

struct lb_link {
	struct lb_http_client *client;
	const char *url; /* the process server's, without a slash at its end */
	uint32_t retry_after_s;
	/* the server's clock, as its last answer told it, and ours (monotonic) when that came; 0: not told yet */
	int64_t server_ns, server_mono_ns;
	struct lb_env *env;
};

/*
 * A time on the server's clock that is not later than the moment `mono_ns` of ours was, whatever the network took: the
 * answer left the server before it came here. 0: not known.
 */
int64_t lb_link_server_time(const struct lb_link *link, int64_t mono_ns);

int lb_link_journal(struct lb_link *link, struct lb_durable *ret_durable);
int lb_link_epoch(struct lb_link *link, const json_t *body);
/* `cut_ns`: when the cut was made, by lb_link_server_time(). */
int lb_link_put(struct lb_link *link, uint64_t epoch, uint64_t seq, int64_t cut_ns, const void *segment,
		size_t size_bytes, struct lb_confirmed *ret_confirmed);

struct lb_link_compare {
	uint64_t epoch; /* compared with the image at the end of the epoch before */
	uint16_t disk;
	uint64_t offset_bytes;
	uint32_t block_bytes; /* the last block may be shorter */
	struct lb_key key;
	const struct lb_digest *hashes; /* HMAC-SHA-256 of each block under `key` */
	unsigned int n_hashes;          /* <= LB_LINK_HASHES_MAX */
	uint64_t length_bytes;          /* of all blocks together */
};
/* Sets differ[i] for each block that is not the same there. */
int lb_link_compare(struct lb_link *link, const struct lb_link_compare *compare, bool differ[LB_LINK_HASHES_MAX]);

#define LB_LINK_SESSION_BYTES 16
#define LB_LINK_ENTRIES_MAX 8192
#define LB_LINK_UNIT_BYTES 4096u
#define LB_LINK_SETTLE_BYTES_MAX (16u << 20)
#define LB_LINK_UNITS_MAX (LB_LINK_SETTLE_BYTES_MAX / LB_LINK_UNIT_BYTES)

struct lb_link_question {
	uint64_t epoch, offset_bytes, length_bytes;
	uint8_t session[LB_LINK_SESSION_BYTES];
	uint16_t disk;
	uint64_t batch;        /* 0: of none, */
	const uint8_t *hashes; /* or n_hashes * LB_HRL_HASH_BYTES, one for each of its entries; zeroes: not read */
	size_t n_hashes;
};

/* What to do about a range of a disk: hash a batch of pieces first; or, settled, what to send of it; neither: ask
 * again. */
struct lb_link_settled {
	uint64_t batch;
	uint8_t *entries; /* the caller's to free: of each n (u16), n times disk (u16), offset (u64), length (u32) */
	size_t entries_bytes;
	bool settled;
	uint8_t send[LB_LINK_UNITS_MAX / 8]; /* a bit for each unit */
	uint8_t zeroes[LB_LINK_UNITS_MAX]; /* of each other unit, a bit for each sector: it is zeroes there; 0: the same
					    */
};
/* -ENOENT: the server is of a version that does not know this. */
int lb_link_settle(struct lb_link *link, const struct lb_link_question *question, struct lb_link_settled *ret_settled);

struct lb_link_advice {
	struct lb_confirmed confirmed;
	bool resync; /* an operator asks for a resync */
};
int lb_link_heartbeat(struct lb_link *link, const json_t *body, struct lb_link_advice *ret_advice);
