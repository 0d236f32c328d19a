/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The temporary process server: through it doubles replicate back. A child of ours with port, cache and identity of its
 * own, made with the first double that is reprotected, gone without trace with the last. It is in the registry, so
 * that it is there again after a restart.
 */
#include "config/site.h"

#define LB_TEMPORARY_NAME "temporary"
#define LB_TEMPORARY_ROOM_BYTES (256u << 20) /* that its cache must find free */

/* Registers and starts it unless it is there. -EADDRINUSE: its port is another one's. */
int lb_temporary_start(struct lb_site *site, char ret_process[LB_UUID_TEXT_BYTES]);
/* Whether its port and the room for its cache could be had now. -EADDRINUSE, -ENOSPC, with words; 0 when it runs. */
int lb_temporary_check_port(struct lb_site *site, uint16_t *ret_port);
int lb_temporary_check_room(struct lb_site *site, uint64_t *ret_free_bytes);
/* Ends and forgets it unless a double still needs it. */
int lb_temporary_release(struct lb_site *site);

/* The daemon's: at its start, at its end, when certificates are renewed. */
int lb_temporary_resume(struct lb_site *site);
void lb_temporary_stop(struct lb_site *site);
int lb_temporary_renew(struct lb_site *site);
