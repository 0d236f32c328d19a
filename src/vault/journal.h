/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The journal of one machine in the vault, from its writer's side: packs of sealed segments, written once and in
 * order, each naming its predecessor and digest; a seal ends an epoch, and nothing after a seal is ever offered.
 * One writer per machine at a time: a struct lb_journal_writer is used by one thread.
 */
#include "hrl/hrl.h"
#include "vault/vault.h"

#define LB_PACK_BYTES_MAX (48u << 20) /* one object: nominally 8 MiB of segments, at most one large segment more */
#define LB_PACK_BYTES_NOMINAL (8u << 20)
#define LB_PACK_SEGMENTS_MAX 4096
#define LB_JOURNAL_EPOCH_GAP_MAX 1024

struct lb_position {
	uint64_t epoch; /* 0: nothing yet */
	uint64_t seq;
};

/* Where a machine's journal in the vault ends. */
struct lb_journal_tail {
	struct lb_position position; /* newest segment in the vault; epoch 0: empty journal */
	struct lb_digest digest;     /* of that segment */
	struct lb_uuid instance;
	uint64_t ring_cut, scan_cursor;
	int64_t receipt_ns;
	uint32_t flags;
	uint64_t epoch_newest; /* that has any object, with segments or only a seal; a new epoch is above it. 0: none */
	uint64_t epoch_open;   /* the epoch that may be extended, 0: the newest is sealed */
	uint64_t next_object;  /* number of the next object in it */
};

/* Reads the tail by GETs of next numbers. */
int lb_journal_tail_read(struct lb_vault *v, const struct lb_uuid *machine, struct lb_journal_tail *ret_tail);

struct lb_journal_writer;
/* Takes the machine's journal up where the vault has it. -EBUSY/-ESTALE when another writer's seal is found later on.
 */
int lb_journal_writer_open(struct lb_vault *v, const struct lb_uuid *machine, struct lb_journal_writer **ret_writer);
void lb_journal_writer_free(struct lb_journal_writer *w);
LB_DEFINE_CLEANUP(struct lb_journal_writer *, lb_journal_writer_free);
const struct lb_journal_tail *lb_journal_writer_tail(const struct lb_journal_writer *w);

/*
 * Begins epoch `epoch`, above epoch_newest: the one before is sealed first if it is open, and epochs between (at most
 * LB_JOURNAL_EPOCH_GAP_MAX), which never came to the vault, are sealed empty. Beginning the open epoch again is fine;
 * -ESTALE for one that is over. Its first object is written by lb_journal_append().
 */
int lb_journal_epoch_begin(struct lb_journal_writer *w, uint64_t epoch);

struct lb_sealed_segment {
	const void *data;
	size_t size_bytes;
};
/*
 * Puts one object with these consecutive sealed segments of the open epoch. Each is authenticated first and must follow
 * the tail (seq + 1, prev_digest). When the name is taken: the same content (authenticated plaintext digests are
 * compared) counts as done; a seal of another writer is -ESTALE ("fenced"), other content -EEXIST.
 */
int lb_journal_append(struct lb_journal_writer *w, const struct lb_sealed_segment *segments, size_t n);
/* Ends the open epoch: after this nobody extends it. `reason` is kept in the seal. */
int lb_journal_seal(struct lb_journal_writer *w, const char *reason);

/* Writes the checkpoint of the tail if enough has come since the last one (or `force`). */
int lb_checkpoint_write(struct lb_vault *v, const struct lb_uuid *machine, bool force, bool *ret_written);

/* Takes over from whoever wrote: seals the newest epoch at its end, trying the next number on conflict. */
int lb_journal_fence(struct lb_vault *v, const struct lb_uuid *machine, const char *reason);

struct lb_chain;
/*
 * Puts a seal at the place where `c` goes on, as a repair does behind objects that are lost: whoever still writes there
 * is fenced by it. -EEXIST, -ESTALE when an object or a seal is there.
 */
int lb_journal_seal_at(struct lb_chain *c, const char *reason);

/* Newest position and time of machines that had nothing to send, one object per process server. */
struct lb_heartbeat {
	struct lb_uuid machine;
	struct lb_position position;
	int64_t time_ns; /* receipt clock: the machine's disks are as at `position` up to this time */
};
int lb_heartbeat_put(struct lb_vault *v, const struct lb_uuid *process_server, const struct lb_heartbeat *beats,
		     size_t n);
/* The newest heartbeat of a machine at exactly this position; -ENOENT without one. */
int lb_heartbeat_get(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
		     int64_t *ret_time_ns);
