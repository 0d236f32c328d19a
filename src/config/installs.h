/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Push installs under way: what an operator ordered, on its way to the process server that does it, and what that one
 * reports. The logins are secrets: they are in memory only, are wiped when they were handed out, and are gone with a
 * restart; the process server, which does it, is then asked what has become of it. Any thread.
 */
#include <jansson.h>

#include "base/cleanup.h"
#include "base/text.h"

#define LB_INSTALLS_MAX 256
#define LB_INSTALLS_AT_ONCE 4 /* of one process server, see process/pushes.h */
#define LB_INSTALL_TEXT_BYTES 1024

struct lb_installs;
int lb_installs_new(struct lb_installs **ret_installs);
void lb_installs_free(struct lb_installs *installs);

/* Keeps a copy of the order for a process server and wipes the secrets of the one given. -EBUSY: too many. */
int lb_installs_add(struct lb_installs *installs, const char *id, const char *process, json_t *order);
/* One whose order was given before a restart: its process server is asked until it has reported. */
int lb_installs_expect(struct lb_installs *installs, const char *id, const char *process);
/* The ids of those that a process server is asked for: it, or this server, may have restarted. */
int lb_installs_asked(struct lb_installs *installs, const char *process, json_t **ret_ids);
/* What the process server is to begin now, secrets included: the caller wipes them. Each is handed out once. */
int lb_installs_take(struct lb_installs *installs, const char *process, json_t **ret_orders);
/* A report: {"state", "step", "text", "fitness"}. -ENOENT: unknown, or another process server's. */
int lb_installs_note(struct lb_installs *installs, const char *id, const char *process, const json_t *report);

struct lb_install_state {
	char state[16]; /* "waiting", "running", "asked", "done", "failed" */
	char step[64], text[LB_INSTALL_TEXT_BYTES];
	json_t *fitness; /* the caller's own, or NULL */
};
/* -ENOENT after a restart. */
int lb_installs_get(struct lb_installs *installs, const char *id, struct lb_install_state *ret_state);
void lb_installs_remove(struct lb_installs *installs, const char *id);
