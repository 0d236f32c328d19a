/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The inside of a session, shared by the files that make it: session.c (states), epoch.c (where the journal ends,
 * new epochs), cut.c (ring to segments), scan.c and resync.c (scan set to segments), ship.c (segments to the process
 * server), heartbeat.c. One thread.
 *
 * Functions that return int: 0 go on with this step, LB_TURNED the state was changed and this step is over.
 */
#include "capture/capture.h"
#include "hrl/hrl.h"
#include "mobility/confirm.h"
#include "mobility/link.h"
#include "mobility/session.h"

#define LB_TURNED 1

/* What outlives the agent, in the capture's notes. */
enum lb_note {
	LB_NOTE_EPOCH,      /* the epoch whose records and scan set the capture holds; 0: none */
	LB_NOTE_GENERATION, /* the capture's generation of that epoch */
	LB_NOTE_INTENT,     /* the epoch that is being begun */
	LB_NOTE_EVERYTHING, /* its scan set is everything */
	LB_NOTE_COMPARE,    /* the scan sends only what differs from the image before */
	LB_NOTE_BLANK,      /* the image before is all zeroes */
	LB_NOTE_SCAN_END, /* 1 + the producer's position sampled after the last scan read (rule 6); 0: not there yet */
	LB_NOTE_SCAN_TOTAL, /* bytes of the scan set when the epoch began */
	LB_NOTE_ACKED,      /* segments acknowledged in this epoch */
	LB_NOTE_RESYNC,     /* 1 + the resync generation last obeyed */
	LB_NOTE_SUSPECT,    /* writes went by unseen: no point any more in this epoch */
	LB_NOTE_DRAINED,    /* queues were empty once since the attach */
	LB_NOTE_PASSES,     /* epochs in a row without a recovery point */
	LB_NOTE_POINTED,    /* this epoch has made a recovery point */
	LB_NOTE_CHECKING,   /* the kernel's counters are being compared: a loss that is found may be a miss */
	LB_NOTE_BELONGS,    /* to which machine, vault and disk ids the capture belongs: a hash, never 0 */
	LB_NOTES_USED,
};

_Static_assert(LB_NOTES_USED <= LB_CAPTURE_NOTES, "the capture has room for our notes");

#define LB_SEGMENT_EXTENTS_MAX (32u << 10) /* well below the format's bound: it bounds our memory */
#define LB_SCAN_READ_BYTES (1u << 20)
#define LB_SCAN_BUFFER_BYTES LB_HRL_DATA_BYTES_NOMINAL
#define LB_SCAN_SLICE_MS 250 /* at most that long between two looks at the ring */
#define LB_COMPARE_BLOCK_BYTES (64u << 10)

struct lb_pending { /* a finished segment that waits for its acknowledgement */
	bool set;
	uint64_t seq, ring_cut, scan_cursor;
	uint32_t flags;
	int64_t time_ns;
	int64_t cut_mono_ns; /* every write that had completed by then is in this segment or before it */
	struct lb_digest prev, digest;
	size_t data_bytes;
};

/* How a resync stands with the process server (resync.c). */
struct lb_settling {
	uint8_t session[LB_LINK_SESSION_BYTES];
	bool unknown; /* the server is too old for it: blocks are compared, for which it reads all of the image */
	/* settled: of this range of that disk, by units (struct lb_link_settled); length 0: nothing is */
	unsigned int disk;
	uint64_t offset_bytes, length_bytes;
	uint8_t send[LB_LINK_UNITS_MAX / 8], zeroes[LB_LINK_UNITS_MAX];
	/* a batch that is being hashed; 0: none */
	uint64_t batch;
	uint8_t *entries;
	size_t entries_bytes, at_bytes, n_hashed;
	uint8_t *hashes; /* LB_LINK_ENTRIES_MAX; made when it is needed, as is the frame's buffer */
	uint8_t *frame;
};

struct lb_session {
	struct lb_session_options o;
	struct lb_env *env;
	enum lb_session_state state;
	char text[LB_SESSION_TEXT_BYTES];
	char refused_text[LB_SESSION_TEXT_BYTES]; /* last logged */
	struct lb_agent_config config;
	bool configured;

	struct lb_capture *capture;
	struct lb_capture_info info;
	struct lb_capture_disk disks[LB_CAPTURE_DISKS_MAX];
	uint16_t disk_ids[LB_CAPTURE_DISKS_MAX]; /* the catalog's, by the capture's */
	unsigned int n_disks;
	struct lb_confirm *confirm;
	struct lb_link link;

	/* the journal */
	struct lb_durable durable; /* where it ends, as last heard */
	bool want_everything, want_compare;
	const char *want_reason;
	bool announced; /* the process server knows of the new epoch, the flip is still to come */
	uint64_t epoch, next_seq;
	struct lb_digest prev;

	/* the segment that is being made */
	struct lb_hrl_builder *builder;
	uint64_t position;                 /* the ring is in it up to here */
	uint64_t cursor;                   /* and the scan set up to here */
	uint64_t cut_position, cut_cursor; /* where it began */
	int64_t began_ns;                  /* wall clock */
	int64_t gathered_mono_ns;          /* every write that had completed by then lies before `position` */
	int64_t due_mono_ns;
	bool full;
	bool marked; /* it ends at a mark, with these flags */
	uint32_t mark_flags;
	bool in_debt, drained; /* something is lost; all before it is in */
	bool doomed;           /* ... before the scan was done: no point can come of this epoch */
	uint8_t *scan_buffer;
	size_t scan_fill;
	struct lb_key compare_key;
	struct lb_settling settling;
	int64_t chunk_waits_mono_ns; /* a chunk isn't ready since then; 0: none */
	int64_t tokens_bytes, tokens_mono_ns;
	bool scan_more; /* the slice ended by time, not by waiting */

	/* shipping */
	struct lb_pending pending;
	struct lb_buf out;
	int64_t retry_mono_ns;
	uint32_t backoff_ms, refused_s;
	int64_t beat_mono_ns, audit_mono_ns;
	uint64_t skipped;
	bool skipped_known;

	/* figures */
	uint64_t shipped_bytes;
	int64_t point_ns, point_mono_ns, held_rpo_ns;
};

static inline uint64_t lb_note(const struct lb_session *s, enum lb_note note)
{
	return lb_capture_note_get(s->capture, note);
}

static inline void lb_note_set(struct lb_session *s, enum lb_note note, uint64_t value)
{
	lb_capture_note_set(s->capture, note, value);
}

static inline bool lb_scan_done(const struct lb_session *s)
{
	return lb_note(s, LB_NOTE_SCAN_END) != 0;
}

/* attach.c */
int lb_attach(struct lb_session *s);
/* Closes our view; the capture goes on in the kernel. */
void lb_attach_close(struct lb_session *s);
/* It was detached behind our back: what we have mapped sees nothing any more. This thread's error text says so. */
int lb_attach_gone(struct lb_session *s);
/* Ends the capture: nothing of it is left in the kernel. */
int lb_attach_end(struct lb_session *s);

/* session.c */
void lb_session_turn(struct lb_session *s, enum lb_session_state state, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* A person has to do something: this thread's error text says what. */
int lb_session_refuse(struct lb_session *s);
/* Waits longer each time, with jitter; at least `at_least_s`. */
void lb_session_back_off(struct lb_session *s, uint32_t at_least_s);
/* A request to the process server failed with `error`: decides what comes next. */
int lb_session_link_failed(struct lb_session *s, int error);

/* epoch.c */
/* Takes up the journal where the process server has it, or decides for a new epoch. */
int lb_epoch_adopt(struct lb_session *s, const struct lb_durable *durable);
int lb_epoch_want(struct lb_session *s, bool everything, bool compare, const char *reason);
int lb_epoch_begin(struct lb_session *s);

/* cut.c */
int lb_cut_reset(struct lb_session *s); /* forgets the segment being made; begins it again at cut_position */
int lb_cut_gather(struct lb_session *s);
bool lb_cut_has_something(const struct lb_session *s);
/* Finishes the segment; it is then pending. */
int lb_cut_close(struct lb_session *s, uint32_t flags);
/* Compares what was seen with the kernel's counters. */
int lb_cut_reconcile(struct lb_session *s);
int lb_cut_lost_everything(struct lb_session *s, const char *why);

/* scan.c */
int lb_scan_slice(struct lb_session *s);
/* Rule 5: 1 when the range may be read. */
int lb_scan_ready(struct lb_session *s, const struct lb_capture_range *range);
void lb_scan_clear(struct lb_session *s, uint64_t from_cursor, uint64_t to_cursor);

/*
 * resync.c. The process server says, range by range, what of a disk it holds already; before it does it asks for hashes
 * of pieces, wherever on the disks they lie (src/process/settle.h). One small step: LB_SETTLED what lies in the range
 * is known (or the server is too old to tell), LB_SETTLE_STEP call again, LB_SETTLE_WAIT later; or the link's error.
 */
enum { LB_SETTLED, LB_SETTLE_STEP, LB_SETTLE_WAIT };
int lb_resync_settle(struct lb_session *s, const struct lb_capture_range *range);
/* Of a settled range, by the unit at this place. */
bool lb_resync_is_sent(const struct lb_session *s, uint64_t offset_bytes);
/* A bit for each sector of it that is zeroes there; here we look ourselves. Other sectors are the same. */
uint8_t lb_resync_zeroes(const struct lb_session *s, uint64_t offset_bytes);
/* For a server that is too old: which blocks of `data` must be sent; differ[i] for each LB_COMPARE_BLOCK_BYTES. */
int lb_resync_compare(struct lb_session *s, const struct lb_capture_range *range, const uint8_t *data,
		      bool differ[LB_LINK_HASHES_MAX]);
/* For each flip and each run of the agent: nothing that was compared before holds any more. */
int lb_resync_key(struct lb_session *s);
/* The scan is over: frees what it needed. */
void lb_resync_end(struct lb_session *s);

/* ship.c */
int lb_ship(struct lb_session *s);
int lb_ship_acknowledged(struct lb_session *s, const struct lb_confirmed *confirmed);

/* heartbeat.c */
int lb_heartbeat_send(struct lb_session *s, bool idle);
