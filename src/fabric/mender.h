/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The mender: a small VM without a network that gets the overlays of a double before the double is started, and puts
 * into them what the double would lack: drivers behind its initramfs, a rule that names its card
 * (packaging/mender/init). What is on those disks is a stranger's; neither this host's kernel nor any program of it
 * reads them. The kernel and the initramfs of that VM are made beforehand by `lifeboat rescue mender`, and lie in
 * LB_MENDER_FOLDER, or in the folder that the environment's LIFEBOAT_MENDER names.
 */
#include "fabric/fabric.h"

#define LB_MENDER_FOLDER "/var/lib/lifeboat/mender"
#define LB_MENDER_WAIT_S 600 /* then it is ended */
#define LB_MENDER_MEMORY_MIB 512
#define LB_MENDER_TEXT_BYTES 1024
#define LB_MENDER_LOG "mender.log" /* in the VM's folder: the mender's console */

/* -ENOENT: there is none on this host, with what makes one. */
int lb_mender_check(void);
/* What was done, also when nothing was to be; and what was not though the rest was: "" if there is no such thing. */
struct lb_mender_result {
	char done[LB_MENDER_TEXT_BYTES];
	char left[LB_MENDER_TEXT_BYTES];
};

/*
 * Mends the disks of a VM that does not run. A failure may
 * leave them half mended: make the overlays anew. `idle` is asked about once a second; non-zero ends it and is passed
 * on. The mender never outlives us.
 */
int lb_mender_run(struct lb_env *env, const struct lb_vm_spec *vm, int (*idle)(void *arg), void *arg,
		  struct lb_mender_result *ret_result);

/* What the mender prints, read: "say TEXT", "left TEXT" and "warn TEXT" a line, then "end ok", "end nothing" or "end
 * failed". */
int lb_mender_outcome(const char *output, size_t size_bytes, struct lb_mender_result *ret_result);
