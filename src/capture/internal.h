/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the files of this folder share: the mapped view of a capture, and the privileged operations behind it. */
#include <jansson.h>

#include "capture/capture.h"

enum lb_capture_map { LB_MAP_RING, LB_MAP_CONTROL, LB_MAP_BITMAP, LB_MAP_SCAN, LB_MAP_INFLIGHT, LB_MAPS };

/* Names in the pin folder, in the order of enum lb_capture_map. */
extern const char *const lb_capture_map_names[LB_MAPS];

#define LB_FDS_MAX (LB_MAPS + LB_CAPTURE_DISKS_MAX)

struct lb_fds {
	int map[LB_MAPS];
	int disk[LB_CAPTURE_DISKS_MAX];
	unsigned int disk_count;
};

#define LB_FDS_NONE ((struct lb_fds){.map = {-1, -1, -1, -1, -1}})

void lb_fds_close(struct lb_fds *fds);

/* What needs privileges: done in this process, or asked of the helper. */
struct lb_capture_ops {
	int (*drain)(struct lb_capture *c, unsigned int disk, unsigned int timeout_ms);
	int (*grace)(struct lb_capture *c);
	int (*skipped)(struct lb_capture *c, uint64_t *ret_skipped);
	int (*detach)(struct lb_capture *c);
};

struct lb_capture {
	const struct lb_capture_ops *ops;
	char *socket_path; /* of the helper */
	char *pin_folder;  /* when there is none */
	struct lb_fds fds;
	bool resumed;

	struct lb_capture_control *control;
	uint64_t *bitmap, *scan;
	int64_t *inflight;
	size_t control_bytes, bitmap_bytes, scan_bytes, inflight_bytes;

	uint64_t *consumer;       /* the kernel's own page, writable */
	const uint64_t *producer; /* read-only */
	const uint8_t *ring;      /* twice in a row, read-only */
	size_t consumer_bytes, producer_bytes;
};

/* Builds a view and takes the fds over, also on failure. */
int lb_capture_map(struct lb_fds *fds, bool resumed, struct lb_capture **ret_capture);

/* Words that the program, the kernel or another process changes; macros because the kernel's __u64 is another type. */
#define lb_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define lb_store(p, value) __atomic_store_n((p), (value), __ATOMIC_SEQ_CST)

static inline bool lb_fault(const struct lb_capture *c, uint32_t fault)
{
#ifdef LB_FAULT_INJECTION
	return (__atomic_load_n(&c->control->faults, __ATOMIC_SEQ_CST) & fault) != 0;
#else
	(void)c;
	(void)fault;
	return false;
#endif
}

static inline const struct lb_capture_disk_slot *lb_disk_slot(const struct lb_capture *c, unsigned int disk)
{
	return disk < c->control->disk_count ? &c->control->disk[disk] : NULL;
}

static inline uint64_t lb_granules(uint64_t size_bytes)
{
	return (size_bytes + LB_CAPTURE_GRANULE_BYTES - 1) >> LB_CAPTURE_GRANULE_SHIFT;
}

/* bitmap.c: sets the granules of a range in a set of the capture; the range is cut to the disk. */
void lb_set_range(const struct lb_capture *c, uint64_t *set, unsigned int disk, uint64_t offset_bytes,
		  uint64_t length_bytes);
void lb_scan_everything(struct lb_capture *c);
/* Moves the bitmap into the scan set, so that a kill at any instant loses no bit. */
void lb_bitmap_exchange(struct lb_capture *c);
/* ring.c: marks every record of an older generation in [from, to) in the scan set. */
int lb_ring_to_marks(struct lb_capture *c, uint64_t from, uint64_t to);

/* client.c: asks the helper; takes at most `fds_max` fds with the answer. */
int lb_helper_ask(const char *path, const json_t *request, int *fds, size_t fds_max, json_t **ret_answer,
		  size_t *ret_fds);

/* grace.c */
int lb_grace_membarrier(void);

/* disk.c: what /sys tells of a block device. */
struct lb_disk_facts {
	char name[LB_CAPTURE_NAME_BYTES];
	uint32_t major, minor;
	uint64_t size_bytes;
	uint64_t diskseq;
	uint64_t written_bytes, discarded_bytes;
	uint64_t writes_in_flight;
	uint32_t logical_block_bytes;
	bool bio_based;
	bool iostats;
};

/* A kernel name or a /dev path (links are followed). -ENOENT. */
int lb_disk_facts(const char *disk, struct lb_disk_facts *ret_facts);
/* 0, or -EOPNOTSUPP with the reason and what to protect instead. */
int lb_disk_fit(const struct lb_disk_facts *facts);
int lb_disk_open(const struct lb_disk_facts *facts);

/* drain.c: empties a disk's queue once. */
int lb_disk_drain(const char *name, unsigned int timeout_ms);
int lb_drain_now(const struct lb_capture *c, unsigned int disk, unsigned int timeout_ms);

/* pins.c: the privileged half: programs, maps and links under a folder of bpffs. */
int lb_pins_attach(const struct lb_capture_params *params, struct lb_fds *ret_fds, bool *ret_resumed);
int lb_pins_open(const char *folder, struct lb_fds *ret_fds);
int lb_pins_remove(const char *folder);
int lb_pins_skipped(const char *folder, uint64_t *ret_skipped);
/* Waits until every program that runs now has ended. */
int lb_pins_grace(void);

/* reconcile.c: after a drain, the base of all later comparisons. */
void lb_reconcile_begin(struct lb_capture_control *control, unsigned int disk);
