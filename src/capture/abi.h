/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/*
 * What the BPF program and user space share in memory: the record header in the ring and the control page.
 * Included by both sides, so it uses only <linux/types.h>. Everything is in the machine's own byte order and never
 * leaves it. A change of any shape raises LB_ABI_VERSION: pinned state of another version is refused.
 */
#include <linux/types.h>

#define LB_ABI_VERSION 1
#define LB_ABI_MAGIC 0x6c62636170747572ULL

#define LB_CAPTURE_DISKS_MAX 64
#define LB_CAPTURE_GRANULE_SHIFT 16 /* one bit of the bitmap and of the scan set: 64 KiB */
#define LB_CAPTURE_GRANULE_BYTES (1u << LB_CAPTURE_GRANULE_SHIFT)
#define LB_CAPTURE_CHUNK_SHIFT 20 /* one in-flight counter: 1 MiB */
#define LB_CAPTURE_CHUNK_BYTES (1u << LB_CAPTURE_CHUNK_SHIFT)
#define LB_CAPTURE_RING_BYTES_MAX (1u << 31)
#define LB_CAPTURE_RING_BYTES_MIN (1u << 20)
/* A record with its header stays below the kernel's bound for one dynptr, 2^24 - 1. Larger requests are a loss. */
#define LB_CAPTURE_REQUEST_BYTES_MAX (15u << 20)

#define LB_CAPTURE_NO_LOSS (~0ULL)
#define LB_CAPTURE_NOTES 16
#define LB_CAPTURE_COST_BUCKETS 32 /* bucket i: [2^i, 2^(i+1)) ns */

enum lb_capture_mode {
	LB_CAPTURE_OFF = 0,     /* attached, takes nothing: only counts what is in flight */
	LB_CAPTURE_DEBT = 1,    /* marks ranges, no data */
	LB_CAPTURE_RUNNING = 2, /* data into the ring */
};

enum lb_capture_kind {
	LB_CAPTURE_DATA = 1, /* length_bytes of data follow the header */
	LB_CAPTURE_ZERO = 2, /* the range reads as zeroes: write-zeroes or discard */
};

/* The header of each record in the ring; a record is a whole request (or one range of a discard). */
struct lb_capture_entry {
	__u64 offset_bytes;
	__u64 ktime_ns; /* CLOCK_MONOTONIC at submission */
	__u32 length_bytes;
	__u32 generation;
	__u16 disk;
	__u8 kind; /* enum lb_capture_kind */
	__u8 flags;
	__u32 reserved;
};

/* Why something is in debt: counters of control->reason[]. */
enum lb_capture_reason {
	LB_REASON_RING_FULL,    /* no room for a record */
	LB_REASON_TOO_LARGE,    /* a request above LB_CAPTURE_REQUEST_BYTES_MAX */
	LB_REASON_UNREADABLE,   /* a page that could not be read, or a bio that the loop did not finish */
	LB_REASON_ENCRYPTED,    /* inline encryption: the memory holds plain text */
	LB_REASON_FAILED,       /* the disk refused a request */
	LB_REASON_UNDERFLOW,    /* a completion of a request that was never seen */
	LB_REASON_PASSTHROUGH,  /* a command past the block layer */
	LB_REASON_UNKNOWN_OP,   /* an operation that this program doesn't know */
	LB_REASON_OUT_OF_RANGE, /* past the size at which the disk was attached */
	LB_REASON_TABLE_FULL,   /* no room for a bio in flight (bio-based disks) */
	LB_REASON_DECLARED,     /* user space asked for it */
	LB_REASONS,
};

/* One protected disk in the control page; the first part is written once, when the disk is attached. */
struct lb_capture_disk_slot {
	__u64 size_bytes;
	__u64 diskseq;    /* 0: the kernel has none */
	__u64 first_word; /* of its slice of the bitmap and of the scan set, in 64-bit words */
	__u64 first_chunk;
	__u32 device; /* (major << 20) | minor: the kernel's dev_t */
	__u32 bio_based;
	__u32 logical_block_bytes;
	__u32 reserved;
	char name[32];

	/* written by the program */
	__u64 seen_write_bytes __attribute__((aligned(64))); /* includes write-zeroes, less what was requeued */
	__u64 seen_discard_bytes;
	__u64 captured_bytes;
	__u64 captured_requests;
	__u64 lost_bytes;
	__u64 lost_requests;
	__u64 whole; /* the whole disk is marked, beside what the bitmap says */

	/* written by user space */
	__s64 reconcile_base[2] __attribute__((aligned(64))); /* kernel's count - seen: writes, discards */
	__u64 reconcile_state;
	__u64 quiet_seen[2]; /* seen bytes since quiet_since_ns (CLOCK_MONOTONIC): nothing was given to the disk */
	__u64 quiet_since_ns;
	__u64 drained_generation; /* the queue was empty once since that generation began */
};

struct lb_capture_control {
	__u64 magic;
	__u32 abi_version;
	__u32 disk_count;
	__u8 instance[16];
	char boot_id[40];
	__u64 ring_bytes;
	__u64 bitmap_words;
	__u64 chunk_count;

	/* generation << 32 | mode: one word, so that both change at once */
	__u64 word __attribute__((aligned(64)));
	/* the ring position past which records don't tell the whole story; LB_CAPTURE_NO_LOSS */
	__u64 loss_pos;
	__u32 owner;  /* which copies of the program count: reserved for the program's upgrade */
	__u32 faults; /* enum lb_capture_fault, only in builds with fault injection */

	__u64 reason[LB_REASONS] __attribute__((aligned(64)));
	__u64 cost_ns_total;
	__u64 cost_count;
	__u64 cost[LB_CAPTURE_COST_BUCKETS];

	/* user space's own; they outlive the agent */
	__u64 epoch_ready __attribute__((aligned(64))); /* generation whose begin was finished */
	__u64 note[LB_CAPTURE_NOTES];

	struct lb_capture_disk_slot disk[LB_CAPTURE_DISKS_MAX];
};

/* Each switches exactly one rule of "no silent loss" off, so that a test can show what the rule is for. */
enum lb_capture_fault {
	LB_FAULT_NO_MARK = 1 << 0,             /* rule 1: a lost request doesn't mark its range */
	LB_FAULT_NO_LOSS_POS = 1 << 1,         /* rule 1: a lost request doesn't set loss_pos */
	LB_FAULT_NO_FAILURE_DEBT = 1 << 2,     /* rule 2: failed requests and underflows don't enter debt */
	LB_FAULT_CUT_PAST_LOSS = 1 << 3,       /* rule 3: the consumer ignores loss_pos */
	LB_FAULT_NO_GRACE = 1 << 4,            /* rule 4: no grace between the flip and the exchange */
	LB_FAULT_KEEP_OLD_GENERATION = 1 << 5, /* rule 4: late records of the old generation are not made marks */
	LB_FAULT_IGNORE_INFLIGHT = 1 << 6,     /* rule 5: chunks are read while writes to them are in flight */
	LB_FAULT_POINT_BEFORE_SAMPLE = 1 << 7, /* rule 6: the first point doesn't wait for the scan (the agent's) */
	LB_FAULT_DROP_WRITE = 1 << 8,          /* one write vanishes: the oracle must see it; clears itself */
	LB_FAULT_SLOW = 1 << 9,                /* no rule: the program dawdles after it looked at the mode */
};
