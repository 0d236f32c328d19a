/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Write capture: what the agent sees of the BPF engine. See docs/architecture.md for the why.
 *
 * A capture is a set of 1..LB_CAPTURE_DISKS_MAX whole disks of this machine, one ring in which every write to any of
 * them stands with its data in the order in which it was given to the disks, a bitmap of what did not fit, a scan set,
 * and counters. It lives in the kernel, pinned under /sys/fs/bpf: it goes on when the agent dies, and ends only by
 * lb_capture_detach() or a reboot. `struct lb_capture` is one process's view of it.
 *
 * The life of an epoch, all from one thread:
 *
 *     lb_capture_begin_epoch(c, everything, &generation, &position)    the flip; the scan set is then fixed
 *     lb_capture_limit(c, &limit, &in_debt)                            how far may be cut now
 *     while (lb_capture_next(c, &position, limit, &record) == 1) ...   whole requests, in order
 *     lb_capture_scan_next(), lb_capture_chunk_ready(), pread on lb_capture_disk_fd(), lb_capture_scan_clear()
 *     lb_capture_acknowledge(c, position)                              only what is durable elsewhere
 *     ... until in_debt and position == limit: close the epoch, begin the next one
 *
 * The first point of an epoch is the first cut at or past lb_capture_producer() sampled after the last scan read.
 *
 * Positions are byte counts since the ring was made; they never wrap. Errors are negative errno with lb_err_text().
 * Threads: one thread consumes (everything that isn't const here); const functions may be called from any thread.
 * Records point into the mapped ring: they stay valid until lb_capture_acknowledge() passes them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "capture/abi.h"

#define LB_CAPTURE_SOCKET "/run/lifeboat/capture.sock"
#define LB_CAPTURE_PIN_FOLDER "/sys/fs/bpf/lifeboat"
#define LB_CAPTURE_STUCK_S 2 /* a chunk that isn't ready after this long: lb_capture_drain() its disk */
#define LB_CAPTURE_DRAIN_MS_MAX 30000
#define LB_CAPTURE_NAME_BYTES 32

struct lb_capture;

struct lb_capture_disk {
	uint16_t id;                      /* 0..disk_count-1, the order in which the disks were given */
	char name[LB_CAPTURE_NAME_BYTES]; /* the kernel's: "sda", "nvme0n1", "loop3", "dm-0" */
	uint32_t major, minor;
	uint64_t size_bytes; /* when it was attached */
	uint64_t diskseq;
	uint32_t logical_block_bytes;
	bool bio_based;
};

struct lb_capture_params {
	const char *const *disks; /* kernel names or /dev paths of whole disks */
	size_t disk_count;
	uint64_t ring_bytes;    /* a power of two, LB_CAPTURE_RING_BYTES_MIN..MAX */
	const char *pin_folder; /* NULL: LB_CAPTURE_PIN_FOLDER; in bpffs */
};

struct lb_capture_info {
	struct lb_uuid instance; /* new whenever a capture is attached anew */
	char boot_id[40];
	bool resumed;       /* the kernel held it before this process came */
	bool epoch_pending; /* lb_capture_begin_epoch() was never called or was cut short: call it before cutting */
	uint32_t generation;
	enum lb_capture_mode mode;
	uint64_t ring_bytes;
	unsigned int disk_count;
};

/* ---- Opening -------------------------------------------------------------------------------------------------- */

/*
 * Through the privileged helper's socket. `attach` finds what is pinned (then `params` must name the same disks and
 * ring, -EEXIST otherwise) or attaches anew; `open` only finds: -ENOENT when nothing is attached.
 * -EOPNOTSUPP when a disk or this kernel can't be captured: the text names the reason and what to protect instead.
 * After `attach` made a new capture its mode is OFF until lb_capture_begin_epoch(c, true, ...).
 */
int lb_capture_attach(const char *socket_path, const struct lb_capture_params *params, struct lb_capture **ret_capture);
int lb_capture_open(const char *socket_path, struct lb_capture **ret_capture);
/* The same without a helper, for tools and tests that run as root. */
int lb_capture_attach_direct(const struct lb_capture_params *params, struct lb_capture **ret_capture);
int lb_capture_open_direct(const char *pin_folder, struct lb_capture **ret_capture);

/* Ends this process's view only; the capture goes on in the kernel. */
void lb_capture_free(struct lb_capture *capture);
LB_DEFINE_CLEANUP(struct lb_capture *, lb_capture_free);
#define _cleanup_capture_ _cleanup_(lb_capture_freep)

/* Ends the capture: programs detached, everything unpinned, nothing left behind. `capture` is then only good to free.
 */
int lb_capture_detach(struct lb_capture *capture);
/* The same where nothing is open; 0 when nothing was attached. */
int lb_capture_detach_pinned(const char *socket_path);
int lb_capture_detach_pinned_direct(const char *pin_folder);

void lb_capture_info(const struct lb_capture *capture, struct lb_capture_info *ret_info);
int lb_capture_disk(const struct lb_capture *capture, unsigned int id, struct lb_capture_disk *ret_disk);
/* Opened O_RDONLY | O_DIRECT; the capture's own, not to be closed. -1 when the id is unknown. */
int lb_capture_disk_fd(const struct lb_capture *capture, unsigned int id);

/* ---- The ring -------------------------------------------------------------------------------------------------- */

struct lb_capture_record {
	uint64_t position;      /* where it begins */
	uint64_t next_position; /* a cut here includes it */
	uint64_t offset_bytes;
	uint64_t ktime_ns;   /* CLOCK_MONOTONIC */
	const uint8_t *data; /* length_bytes in the mapped ring; NULL for LB_CAPTURE_ZERO */
	uint64_t length_bytes;
	uint32_t generation;
	uint16_t disk;
	enum lb_capture_kind kind;
};

uint64_t lb_capture_producer(const struct lb_capture *capture);
/* What was acknowledged last: the kernel keeps everything from here on. */
uint64_t lb_capture_consumer(const struct lb_capture *capture);
/*
 * How far a cut may go now: the producer's position, or the loss position when something was lost. In this order
 * sampled (rule 3). `ret_in_debt`: something was lost; at the limit this epoch ends. */
void lb_capture_limit(const struct lb_capture *capture, uint64_t *ret_limit, bool *ret_in_debt);
/*
 * The next whole request of the present generation at or after *position and before `limit`: 1, and *position moves
 * past it. 0: none is complete there yet (*position may have moved over records that don't count; it is always a place
 * for a cut). -EUCLEAN: the ring holds what the program can't have written, or `position` is no record's beginning.
 */
int lb_capture_next(const struct lb_capture *capture, uint64_t *position, uint64_t limit,
		    struct lb_capture_record *ret_record);
/* Gives the ring up to `position` back. -EINVAL when it is before what was acknowledged or past the producer. */
int lb_capture_acknowledge(struct lb_capture *capture, uint64_t position);

/* ---- Epochs and debt ------------------------------------------------------------------------------------------- */

/*
 * Begins a new generation (rule 4): the loss position reset, CAPTURE set, a grace, then the bitmap moved into the scan
 * set. What stands in the ring and was not acknowledged becomes marks in the scan set too, and the ring is given back
 * up to `ret_position`, where the new epoch's records begin. `everything`: the scan set is all of every disk. May be
 * called again at any time; a kill within it leaves `epoch_pending`. -EAGAIN when writes were lost again while it
 * began, LB_CAPTURE_BEGIN_TRIES times: call it again later (the marks are kept).
 */
#define LB_CAPTURE_BEGIN_TRIES 8
int lb_capture_begin_epoch(struct lb_capture *capture, bool everything, uint32_t *ret_generation,
			   uint64_t *ret_position);
uint32_t lb_capture_generation(const struct lb_capture *capture);
enum lb_capture_mode lb_capture_mode(const struct lb_capture *capture);
/* Declares a range lost (a failed drift check, a reconciliation): marks it and enters debt. length 0: the whole disk.
 */
int lb_capture_declare_loss(struct lb_capture *capture, unsigned int disk, uint64_t offset_bytes,
			    uint64_t length_bytes);
/* Bytes marked and not yet in the scan set (new debt). */
uint64_t lb_capture_debt_bytes(const struct lb_capture *capture);

/* 16 words of the agent's own that live as long as the capture (its epoch, say). Zero at first. */
uint64_t lb_capture_note_get(const struct lb_capture *capture, unsigned int slot);
void lb_capture_note_set(struct lb_capture *capture, unsigned int slot, uint64_t value);

/* ---- The scan set ---------------------------------------------------------------------------------------------- */

struct lb_capture_range {
	uint64_t offset_bytes;
	uint64_t length_bytes; /* at most `length_bytes_max`, never past the disk, within one 1 MiB chunk */
	uint16_t disk;
};

/*
 * The first range of the scan set at or after `cursor`: 1, and *ret_cursor is the cursor behind it; 0 at the end. A
 * cursor is a number over all disks, 0 at the beginning, that grows; lb_capture_scan_cursor() gives that of a place.
 */
int lb_capture_scan_next(const struct lb_capture *capture, uint64_t cursor, uint64_t length_bytes_max,
			 struct lb_capture_range *ret_range, uint64_t *ret_cursor);
uint64_t lb_capture_scan_cursor(const struct lb_capture *capture, unsigned int disk, uint64_t offset_bytes);
/* Takes whole granules out: call it when their contents are durable elsewhere. */
void lb_capture_scan_clear(struct lb_capture *capture, const struct lb_capture_range *range);
void lb_capture_scan_mark(struct lb_capture *capture, const struct lb_capture_range *range);
uint64_t lb_capture_scan_bytes(const struct lb_capture *capture);
/*
 * Rule 5: 1 when every write that was in flight at the flip has ended in all chunks of the range, so that it may be
 * read. 0: not yet, ask again. After LB_CAPTURE_STUCK_S of 0, lb_capture_drain() settles it.
 */
int lb_capture_chunk_ready(const struct lb_capture *capture, const struct lb_capture_range *range);
/*
 * Empties the disk's queue once (its in-flight requests end, later ones wait for microseconds): every chunk of it is
 * then ready in this generation, and writes from before the attach have ended. -ETIMEDOUT.
 */
int lb_capture_drain(struct lb_capture *capture, unsigned int disk, unsigned int timeout_ms);

/* ---- Watching -------------------------------------------------------------------------------------------------- */

enum lb_capture_fit {
	LB_CAPTURE_FIT_OK,
	LB_CAPTURE_FIT_MISSED,  /* the kernel counted more than was seen; the whole disk was declared lost */
	LB_CAPTURE_FIT_GONE,    /* the disk is no longer there, or another took its name */
	LB_CAPTURE_FIT_GROWN,   /* its size changed: attach again */
	LB_CAPTURE_FIT_UNKNOWN, /* the kernel's counters are off (queue/iostats) */
};

struct lb_capture_reconciled {
	enum lb_capture_fit fit;
	uint64_t missed_bytes;
	uint64_t size_bytes; /* now */
	bool exact;          /* both counters were compared at a moment without writes in flight */
};

/* Compares one disk's seen bytes with /sys/block/NAME/stat; call it at each cut, before trusting the cut. */
int lb_capture_reconcile(struct lb_capture *capture, unsigned int disk, struct lb_capture_reconciled *ret_result);

struct lb_capture_disk_stats {
	uint64_t written_bytes, discarded_bytes; /* seen since the attach: the churn */
	uint64_t captured_bytes, captured_requests;
	uint64_t lost_bytes, lost_requests;
};

struct lb_capture_stats {
	uint64_t reason[LB_REASONS];        /* enum lb_capture_reason */
	uint64_t cost_ns_total, cost_count; /* time spent in the program at submission */
	uint64_t cost[LB_CAPTURE_COST_BUCKETS];
};

int lb_capture_disk_stats(const struct lb_capture *capture, unsigned int disk, struct lb_capture_disk_stats *ret_stats);
void lb_capture_stats(const struct lb_capture *capture, struct lb_capture_stats *ret_stats);
/*
 * Runs that the kernel skipped in every copy of the program since the attach, by asking the helper. A rise means that
 * requests went by unseen: declare every disk lost. -ENODEV when nothing is attached any more: what we hold sees
 * nothing. */
int lb_capture_skipped(struct lb_capture *capture, uint64_t *ret_skipped);

/* ---- What this machine can do ---------------------------------------------------------------------------------- */

/*
 * A JSON object for `make doctor` and `machine assess`:
 * {"bpf":bool,"btf":bool,"ring":bool,"direct_map":bool,"can_capture":bool,"reason":text or absent,"cure":text or
 * absent, "disks":[{"name","size_bytes","bio_based","fit":bool,"reason","cure","written_bytes","discarded_bytes"}]}
 * free() it. Works without privileges too; it then says what it could not try.
 */
int lb_capture_probe_direct(char **ret_json);
int lb_capture_probe(const char *socket_path, char **ret_json);

/*
 * A file that starts the machine (below /boot, /efi, and a few of /etc) and that only root may read, O_RDONLY. -ENOENT;
 * -EPERM for any other.
 */
int lb_capture_boot_file(const char *socket_path, const char *path, int *ret_fd);

#ifdef LB_FAULT_INJECTION
void lb_capture_set_faults(struct lb_capture *capture, uint32_t faults); /* enum lb_capture_fault */
uint32_t lb_capture_faults(const struct lb_capture *capture);
#endif
