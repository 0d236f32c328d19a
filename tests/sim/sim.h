/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A whole site in one process, on one seeded clock: disks that programs write to, a kernel that captures (the contract
 * of capture/capture.h, implemented in memory), a network that fails, a process server that keeps what it acknowledged,
 * and an oracle that knows every prefix of the write order. The agent's session runs in it unchanged. A failure replays
 * from its seed.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/json.h"
#include "capture/capture.h"
#include "hrl/hrl.h"
#include "mobility/session.h"
#include "wire/client.h"

#define SIM_DISKS 2
#define SIM_DISK_BYTES (4u << 20)
#define SIM_BLOCK_BYTES 4096u
#define SIM_BLOCKS (SIM_DISK_BYTES / SIM_BLOCK_BYTES)
#define SIM_GRANULES (SIM_DISK_BYTES / LB_CAPTURE_GRANULE_BYTES)
#define SIM_CHUNKS (SIM_DISK_BYTES / LB_CAPTURE_CHUNK_BYTES)
#define SIM_WRITES_MAX 24 /* in flight */
#define SIM_WRITE_BLOCKS_MAX 12
#define SIM_RING_BYTES (1u << 20)

/* One fill of a block: zero, or its number in the write order in every word. */
struct sim_version {
	uint64_t index;
	uint64_t value;
};

struct sim_history {
	struct sim_version *versions;
	size_t n, room;
};

enum sim_stage { SIM_FREE, SIM_SUBMITTED, SIM_RECORDED };

struct sim_write {
	enum sim_stage stage;
	unsigned int disk;
	uint64_t block, n_blocks;
	bool zero, fails;
	uint64_t value, index;
	int64_t submitted_ns;
	uint32_t generation;
	enum lb_capture_mode mode;
};

struct sim_record {
	uint64_t position, next_position, offset_bytes, length_bytes;
	uint32_t generation;
	int64_t ktime_ns;
	unsigned int disk;
	bool zero;
	uint8_t *data;
};

/* By this time the newest write that had ended was that one. */
struct sim_ended {
	int64_t mono_ns;
	uint64_t index;
};

#define SIM_SERVER_CLOCK_NS (INT64_C(1600000000) * LB_NS_PER_S) /* the process server's clock is not ours */

struct sim_disk {
	uint8_t *data;
	uint64_t size_bytes; /* as /sys has it now */
	bool gone;
	struct sim_history history[SIM_BLOCKS];
	uint64_t kernel_bytes, seen_bytes, churn_bytes;
};

/* What the kernel holds: outlives the agent, not the boot. */
struct sim_kernel {
	bool attached, helper_away;
	struct lb_uuid instance;
	enum lb_capture_mode mode;
	uint32_t generation, ready_generation;
	uint64_t producer, consumer, loss_pos;
	struct sim_record *records;
	size_t n_records, room;
	bool bitmap[SIM_DISKS][SIM_GRANULES], scan[SIM_DISKS][SIM_GRANULES];
	int inflight[SIM_DISKS][SIM_CHUNKS];
	uint32_t ready[SIM_DISKS][SIM_CHUNKS]; /* generation in which the chunk was last without writes in flight */
	uint64_t notes[LB_CAPTURE_NOTES];
	uint64_t skipped;
	bool stuck;      /* completions don't come */
	uint32_t faults; /* enum lb_capture_fault */
};

struct sim_segment {
	uint64_t epoch, seq;
	struct lb_digest digest;
	uint8_t *bytes;
	size_t size_bytes;
};

struct sim_epoch {
	uint64_t epoch;
	struct lb_uuid instance;
};

#define SIM_EPOCHS_MAX 4096

enum sim_known { SIM_UNASKED, SIM_ASKED, SIM_ALONE, SIM_SAME, SIM_DIFFERS };

struct sim_heap {
	unsigned int n, disk[8];
	uint64_t block[8];
};

/* What it knows of the agent's disks in a resync, and what it is asking. */
struct sim_settle {
	uint64_t epoch, batch;
	char session[64];
	enum sim_known block[SIM_DISKS][SIM_BLOCKS];
	struct sim_heap heap[16];
	unsigned int n_heaps;
};

/* What the process server holds durably, and what of it the vault has. */
struct sim_process {
	struct sim_segment *segments;
	size_t n, room, n_vault;
	struct sim_epoch epochs[SIM_EPOCHS_MAX];
	size_t n_epochs, n_epochs_vault;
	uint8_t *image[SIM_DISKS], *frozen[SIM_DISKS];
	uint64_t captured_in[SIM_DISKS][SIM_BLOCKS]; /* epoch that last captured the block */
	unsigned int status;                         /* 0: works; else it answers this */
	bool old;                                    /* it knows nothing of settling */
	struct sim_settle settle;
	uint64_t requests, puts, beats, compared, settled, points;
	uint64_t data_bytes; /* received, this far */
	uint32_t last_flags; /* of the newest segment, and where it ends */
	uint64_t last_ring_cut;
};

struct sim {
	uint64_t random;
	int64_t mono_ns, wall_skew_ns;
	uint64_t next_index; /* in the write order */
	uint64_t point_low;  /* no later point may be an older prefix */
	struct sim_disk disks[SIM_DISKS];
	struct sim_write writes[SIM_WRITES_MAX];
	struct sim_ended *ended;
	size_t n_ended, ended_room;
	struct sim_kernel kernel;
	struct sim_process process;

	/* what happens, in parts of 1024 per millisecond or per request */
	unsigned int writes_per_ms;
	unsigned int p_slow; /* a write that could end doesn't yet */
	unsigned int p_fail, p_miss, p_drop_request, p_drop_answer, p_busy;
	bool network_down;
	int64_t request_ns; /* what a request takes */
	int64_t ns_per_kib; /* and each KiB of it */

	int64_t kill_after; /* kill points until the agent dies; < 0: never */
	jmp_buf killed;
	bool can_die;
	char failure[1024]; /* the oracle's verdict; empty: all well */
};

/* The one world: capture.h has no place for it. */
extern struct sim *sim;

void sim_new(uint64_t seed);
void sim_free(void);
uint64_t sim_random(void);
/* True `parts` times of 1024. */
bool sim_chance(unsigned int parts);
void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The agent may die here. */
void sim_kill_point(void);

/* sim_disk.c: programs that write, and the oracle */
void sim_pass(int64_t ns); /* time goes by: writes are submitted, recorded, completed */
void sim_quiesce(void);    /* every write in flight ends */
void sim_submit(unsigned int disk, uint64_t block, uint64_t n_blocks, bool zero);
void sim_submit_unseen(unsigned int disk, uint64_t block);
/* 1 + the newest write that had ended by then: whoever was told of it may ask a point of that time for it. */
uint64_t sim_ended_by(int64_t mono_ns);
void sim_reboot(void); /* power goes: some of what was in flight is lost, the kernel forgets */
/* Is this image a prefix of the write order, no older than the last one that was? Else sim_fail(). */
void sim_check_point(uint8_t *const image[SIM_DISKS], uint64_t at_least, const char *what);
struct lb_env *sim_env(void);

/* sim_capture.c */
void sim_kernel_record(struct sim_write *w);
void sim_kernel_ends(struct sim_write *w, bool failed);
void sim_kernel_forget(void);

/* sim_process.c */
struct lb_http_client *sim_client(void);
void sim_process_vault(size_t n_segments); /* the vault confirms that many in all */
void sim_process_lose_cache(void);
void sim_process_free(void);
/* sim_settle.c: its answer; NULL: a question that makes no sense */
json_t *sim_settle(const json_t *body);

/* Runs a session until `done` says so or the time is over; true when done. */
struct sim_agent {
	struct lb_session *session;
	struct lb_agent_config config;
	char confirm_path[64];
	struct lb_mark *mark;
	int64_t wake_mono_ns;
	unsigned int deaths;
};
void sim_agent_start(struct sim_agent *a);
void sim_agent_stop(struct sim_agent *a);
/* One step; a kill within it starts the agent anew. */
void sim_agent_step(struct sim_agent *a);
bool sim_agent_until(struct sim_agent *a, bool (*done)(struct sim_agent *a), int64_t within_ns);
bool sim_agent_protected(struct sim_agent *a);
/* Protected, nothing waits, and the process server's image is the disks. */
bool sim_agent_caught_up(struct sim_agent *a);
