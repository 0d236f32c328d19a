/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Would this machine's double start, and be reached? Looked at while the machine is well, so that a failover holds no
 * surprise: drivers in the initramfs, firmware, partition table, fstab, boot loader, network, swap, encryption, memory.
 * Everything is read below `root` ("" on the real machine). Blocks for seconds (an initramfs is unpacked): from a
 * thread that may. The result:
 *
 *   {"checked_ns", "findings": [{"check", "level", "text", "effect", "cure", "mend"}, ...]}
 *
 * "level": "error" the double would not come up; "warning" it would come up lacking something, or it can't be told;
 * "info" worth knowing; "ok". "effect" is what happens at failover, "cure" what to do, "mend" what Lifeboat can mend by
 * itself: "initramfs" or "network" (`lifeboat-mobility mend`), "sata" (the double gets hardware that it has drivers
 * for), or "".
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/env.h"

#define LB_READY_FINDINGS_MAX 64
#define LB_READY_INTERVAL_S (24 * 3600)
#define LB_READY_FILE_BYTES_MAX (1u << 20) /* of a configuration file */
#define LB_READY_FILES_MAX 64              /* in one folder */

struct lb_ready_options {
	struct lb_env *env;
	const char *root;
	const char *kernel; /* release; NULL: the running one */
	/* Opens what only root may read, O_RDONLY; NULL: nobody can. A descriptor, or a negative errno. */
	int (*open_privileged)(void *arg, const char *path);
	void *arg;
	uint64_t ring_bytes; /* that the policy asks for and the machine doesn't have yet; 0: it has it */
};

int lb_ready_check(const struct lb_ready_options *options, json_t **ret_object);
