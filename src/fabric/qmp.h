/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* QEMU's monitor over its unix socket. One client at a time: open, ask, close. Used by one thread. */
#include <jansson.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"

#define LB_QMP_LINE_BYTES_MAX (1u << 20)
#define LB_QMP_WAIT_MS 10000 /* for one answer */

struct lb_qmp;
/* -ENOENT or -ECONNREFUSED when nobody listens there. */
int lb_qmp_open(struct lb_env *env, const char *socket_path, struct lb_qmp **ret_qmp);
void lb_qmp_free(struct lb_qmp *q);
LB_DEFINE_CLEANUP(struct lb_qmp *, lb_qmp_free);

/* Takes `arguments` over (NULL: none). `ret_value` may be NULL. -EREMOTEIO with QEMU's own words when it refuses. */
int lb_qmp_ask(struct lb_qmp *q, const char *command, json_t *arguments, json_t **ret_value);
