/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Reads a vault and proves it: chain, numbers, seals, digests and, when `deep`, every frame. */
#include "vault/points.h"

struct lb_verify_progress {
	uint64_t objects, segments, frames, bytes;
};

struct lb_verify_finding {
	struct lb_uuid machine;
	const char *object; /* valid during the call */
	const char *text;   /* what is wrong and which positions it costs */
};

struct lb_verify_report {
	struct lb_verify_progress done;
	uint64_t findings;
	struct lb_position newest; /* of the last machine: freshness beyond it is unproven without an anchor */
	int64_t newest_ns;
};

/* `machine` NULL: all. Findings are told by `finding`; only failures to read the store are errors. */
int lb_vault_verify(struct lb_vault *v, const struct lb_uuid *machine, bool deep,
		    void (*progress)(void *arg, const struct lb_verify_progress *p),
		    void (*finding)(void *arg, const struct lb_verify_finding *f), void *arg,
		    struct lb_verify_report *ret_report);
