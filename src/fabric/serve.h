/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A disk at a recovery point over NBD: nbdkit with our plugin, on a unix socket in the VM's folder. It outlives us and
 * is found again by its pidfile. The machine's key reaches it in a sealed piece of memory; it rests nowhere.
 */
#include <stdbool.h>

#include "base/crypto.h"
#include "fabric/proc.h"
#include "vault/journal.h"

#define LB_SERVE_WAIT_S 120      /* for the socket to answer: opening a point without a checkpoint reads its journal */
#define LB_SERVE_RECONNECT_S 120 /* a VM waits so long for a server that has died, then pauses */

struct lb_serve {
	const char *vault_url;
	struct lb_uuid machine;
	struct lb_position position;
	uint32_t disk; /* its id in the catalog entry */
	const struct lb_keyring *keys;
	const char *folder; /* takes nbd<n>.sock, .pid, .log */
	uint32_t n;
};

/* Starts it unless it runs; several may then be waited for one by one. */
int lb_serve_begin(struct lb_env *env, const struct lb_serve *s);
/* Until it answers, or has ended: then its own words. */
int lb_serve_wait(struct lb_env *env, const struct lb_serve *s);
/* `s` needs folder and n only. */
int lb_serve_stop(struct lb_env *env, const struct lb_serve *s);
bool lb_serve_runs(struct lb_env *env, const struct lb_serve *s);

/* Runs `shell_command` with "$uri" naming the disk, then ends the server. -EREMOTEIO with the command's last line. */
int lb_serve_run(struct lb_env *env, const struct lb_serve *s, const char *shell_command,
		 int (*output)(void *arg, const char *text, size_t size_bytes), void *arg, struct lb_buf *out);

/* An overlay on a served disk: what the VM writes stays here. Kept if it is there. */
int lb_overlay_make(struct lb_env *env, const char *path, const char *socket_path, uint64_t size_bytes);
/* Puts the backing file back into the header of an overlay that no VM uses, and changes nothing else. */
int lb_overlay_reattach(struct lb_env *env, const char *path, const char *socket_path);
