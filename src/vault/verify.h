/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Reads a vault and proves it: chain, numbers, seals, digests and, when `deep`, every frame. What a whole older copy of
 * the vault would lack is not found here but by an anchor (vault/anchor.h), except where something that is still there
 * knows of it: a checkpoint, a heartbeat, a named point.
 */
#include "vault/points.h"

struct lb_verify_progress {
	uint64_t objects, segments, frames, bytes;
};

struct lb_verify_finding {
	struct lb_uuid machine; /* all zeroes: of the vault as a whole */
	const char *object;     /* valid during the call */
	const char *text;       /* what is wrong and which positions it costs */
	bool is_recorded;       /* a repair recorded it: no damage that came since */
	bool is_note;           /* worth knowing, but nothing is wrong: left over by a crash, waiting for an order */
};

struct lb_verify_report {
	struct lb_verify_progress done;
	uint64_t findings;         /* without notes, and without what a repair recorded */
	uint64_t recorded;         /* losses that a repair recorded */
	struct lb_position newest; /* of the last machine, that can be used: what is newer, only an anchor tells */
	int64_t newest_ns;
};

/* `machine` NULL: all. Findings are told by `finding`; only failures to read the store are errors. */
int lb_vault_verify(struct lb_vault *v, const struct lb_uuid *machine, bool deep,
		    void (*progress)(void *arg, const struct lb_verify_progress *p),
		    void (*finding)(void *arg, const struct lb_verify_finding *f), void *arg,
		    struct lb_verify_report *ret_report);

struct lb_verify_point_report {
	struct lb_verify_progress done;
	uint64_t findings;   /* 0: the point is proven */
	uint64_t lost_bytes; /* of the disks at this point */
	uint64_t data_bytes; /* that the vault holds for it */
};

/*
 * The same for one point: what recovery from it needs (key, catalog entry, the journal up to it or a checkpoint, every
 * segment that the image refers to and, when `deep`, every frame), and nothing else. Findings name disk and bytes.
 */
int lb_vault_verify_point(struct lb_vault *v, const struct lb_uuid *machine, const struct lb_position *position,
			  bool deep, void (*progress)(void *arg, const struct lb_verify_progress *p),
			  void (*finding)(void *arg, const struct lb_verify_finding *f), void *arg,
			  struct lb_verify_point_report *ret_report);
