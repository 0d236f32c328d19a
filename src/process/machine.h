/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One machine as its process server sees it: what the configuration server says of it, where its journal durably
 * ends (in the cache or in the vault, whichever is further), and which of it still waits for the vault.
 *
 * Locks, in the order in which they are taken: `order` (one change of the journal at a time: ingest, epoch, join; held
 * over disk writes), the process server's `lock` (registry and schedule), `lock` (the fields below it); the last two
 * never over I/O. `writer` and what is named "the uploader's" belong to the one worker that has the machine marked
 * busy.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "hrl/hrl.h"
#include "vault/journal.h"
#include "wire/policy.h"

#define LB_PROCESS_NAME_BYTES 65
#define LB_HARDWARE_BYTES (2 * LB_DIGEST_BYTES + 1)
#define LB_REASON_BYTES 65
#define LB_MACHINE_ERROR_BYTES 512
#define LB_EPOCHS_CACHED_MAX 64       /* epochs that wait for the vault; past it agents wait */
#define LB_SEGMENTS_CACHED_MAX 262144 /* segments of one machine that wait for the vault */
#define LB_HEARTBEAT_BYTES_MAX (8u << 10)

struct lb_process;

struct lb_process_disk {
	uint16_t id;
	char name[LB_PROCESS_NAME_BYTES];
	uint64_t size_bytes;
};

struct lb_process_disks {
	uint32_t n;
	struct lb_process_disk disk[LB_HRL_DISKS_MAX];
};

/* What the configuration server says of a machine. */
struct lb_assignment {
	struct lb_uuid id;
	char name[LB_PROCESS_NAME_BYTES];
	struct lb_keyring keys;
	char hardware[LB_HARDWARE_BYTES]; /* may be empty: not reported yet */
	struct lb_digest cert_fingerprint;
	bool enabled, fenced;
	bool handover;              /* it moves to another process server: take nothing more, send what is here */
	uint64_t resync_generation; /* rises when an operator asks for a resync */
	int64_t flush_ns;           /* rises when all that is here is wanted in the vault now */
	struct lb_process_disks disks;
	struct lb_policy policy;
};

/* How an epoch began; rests in the cache until the vault has all of it and a later epoch has begun. */
struct lb_epoch_record {
	uint64_t epoch;
	struct lb_uuid instance;
	char hardware[LB_HARDWARE_BYTES];
	char reason[LB_REASON_BYTES];
	bool lost;               /* the cache lost it: `prev` and `hardware` are unknown */
	struct lb_position prev; /* newest durable segment before it; epoch 0: none */
	struct lb_digest prev_digest;
	uint64_t ring_cut;
	int64_t begun_ns;
	struct lb_process_disks disks;
};

/* An epoch that is not wholly in the vault, or the newest. Its segments [first_seq, next_seq) are in the cache. */
struct lb_epoch {
	struct lb_epoch *newer;
	struct lb_epoch_record record;
	uint64_t first_seq, next_seq;
};

enum lb_machine_state {
	LB_MACHINE_OPENING, /* cache and vault are not yet compared */
	LB_MACHINE_READY,
	LB_MACHINE_FENCED,   /* another writer sealed the journal */
	LB_MACHINE_DIVERGED, /* the vault holds other content at our positions */
};

/* Where the journal durably ends. */
struct lb_durable {
	uint64_t epoch;          /* the newest begun; 0: none */
	uint64_t next_seq;       /* in it */
	struct lb_position last; /* newest segment, maybe of an earlier epoch; epoch 0: none */
	struct lb_digest digest; /* of it */
	struct lb_uuid instance; /* of `epoch` */
	uint64_t ring_cut, scan_cursor;
	int64_t receipt_ns; /* no later receipt may be below it */
	int64_t point_ns;   /* receipt of the newest recovery point; 0: none seen */
};

struct lb_machine_figures {
	uint64_t plain_bytes, sealed_bytes; /* since the start */
	uint64_t churn_bytes;               /* since the last report */
	double churn_bytes_per_s;
	int64_t churn_mono_ns;
	int64_t last_seen_ns;
	int64_t throttled_mono_ns; /* when an agent was last told to wait; 0: never */
};

/* What folding its journal did since the start. */
struct lb_machine_folded {
	uint64_t points; /* that are kept; 0: not folded yet */
	uint64_t points_pruned;
	uint64_t rewritten_bytes; /* maps included */
	uint64_t deleted_bytes, deleted_objects;
	double write_ratio, space_ratio; /* of vault/fold.h, since the beginning; 0: nothing was folded yet */
};

struct lb_machine {
	struct lb_process *process;
	struct lb_uuid id;
	char id_text[LB_UUID_TEXT_BYTES];

	pthread_mutex_t order;
	pthread_mutex_t lock;
	struct lb_assignment assigned;
	enum lb_machine_state state;
	char error[LB_MACHINE_ERROR_BYTES];  /* why it is not well, or empty */
	char damage[LB_MACHINE_ERROR_BYTES]; /* what was found damaged in the cache, or empty; kept until a new epoch */
	struct lb_durable durable;
	struct lb_epoch *oldest, *newest;
	uint32_t n_epochs;
	uint64_t cached_bytes;
	struct lb_position vault;
	struct lb_digest vault_digest; /* of that segment */
	int64_t vault_point_ns;        /* receipt of the newest recovery point in the vault */
	struct lb_position beat_at;    /* the agent was idle at this position ... */
	int64_t beat_ns;               /* ... up to this receipt time */
	int64_t beat_vault_ns;         /* what of it the vault has */
	json_t *agent;                 /* its last heartbeat */
	bool unfence;                  /* an operator wants it replicated again */
	int64_t flush_ns;              /* the order to flush that was taken last ... */
	struct lb_position flush_to;   /* ... and what the vault must hold then; epoch 0: nothing */
	bool ingesting;                /* a segment is on its way into the cache and will be acknowledged */
	bool clock_back;               /* our clock is behind the last receipt: said once */
	struct lb_machine_figures figures;
	struct lb_machine_folded folded;

	/* registry and schedule: under the process server's lock */
	unsigned int refs;
	bool gone, busy;
	int64_t due_mono_ns, not_before_mono_ns;
	int64_t fold_due_mono_ns;
	int64_t fold_period_s; /* that the due time was reckoned with; 0: a retry */

	/* the uploader's */
	struct lb_journal_writer *writer;
	unsigned int failures, conflicts;
	uint32_t objects_since_checkpoint;
	bool point_since_epoch;
	bool failing;               /* the failure was logged */
	double upload_tokens_bytes; /* what the policy's bandwidth still lets go; below 0: waited for */
	int64_t upload_tokens_mono_ns;

	/* the folder's */
	bool fold_failing; /* the failure was logged */
};

int lb_machine_new(struct lb_process *p, const struct lb_assignment *a, struct lb_machine **ret_machine);
void lb_machine_free(struct lb_machine *m);

/* Takes one more reference to the machine of that id; -EACCES when this process server has no such machine, -EAGAIN
 * when it moved to another one. */
int lb_machine_find(struct lb_process *p, const struct lb_uuid *id, struct lb_machine **ret_machine);
void lb_machine_unref(struct lb_machine *m);
LB_DEFINE_CLEANUP(struct lb_machine *, lb_machine_unref);
#define _cleanup_machine_ _cleanup_(lb_machine_unrefp)

/* With `lock` held: appends an epoch that has begun durably; takes it over. */
void lb_machine_epoch_add(struct lb_machine *m, struct lb_epoch *e);
/* With `lock` held: forgets the oldest. */
void lb_machine_epoch_pop(struct lb_machine *m);

/* With `lock` held: all that was ever acknowledged to it is in the vault, and nothing is on its way here. */
bool lb_machine_drained(const struct lb_machine *m);
/* {"known", "epoch", "seq", "next_seq", ...}: what GET /v1/journal answers; takes `lock`. */
int lb_machine_journal_json(struct lb_machine *m, json_t **ret_object);
/* Sets `state` and `error` from this thread's error text, and logs it once. */
void lb_machine_stop(struct lb_machine *m, enum lb_machine_state state);
void lb_assignment_wipe(struct lb_assignment *a); /* for _cleanup_() */
