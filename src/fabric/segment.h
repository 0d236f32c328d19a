/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Isolated networks for tests, "isolated:NAME": a bridge without uplink in a network namespace of its own, which the
 * doubles of that name share and nobody else reaches, this host included. A process of the folder of the VMs,
 * lifeboat-segment, makes it and ends when the last of its devices is gone: nothing is left of it whatever was killed.
 * It needs no rights where users may make namespaces.
 */
#include "base/env.h"
#include "fabric/network.h"

#define LB_SEGMENT_PROGRAM "lifeboat-segment"
#define LB_SEGMENT_NAME_BYTES 25 /* its socket is in the folder of the VMs */
#define LB_SEGMENT_WAIT_S 30
#define LB_SEGMENT_LISTENS "listens" /* its answer to who handed a socket over */

/* -EOPNOTSUPP, with why, where this host can't make one. */
int lb_segment_check(struct lb_env *env);
/* A tap device of the VM on the segment; the segment is made if there is none. */
int lb_segment_tap(struct lb_env *env, const struct lb_vm_spec *vm, const char *segment, int *ret_fd);
/*
 * The same for a QEMU that somebody else starts: the segment waits at `path` for it (-netdev stream), for
 * LB_STREAM_COME_S. The VM has lost its device when that connection ends. -ENAMETOOLONG.
 */
int lb_segment_socket(struct lb_env *env, const struct lb_vm_spec *vm, const char *segment, const char *path);
