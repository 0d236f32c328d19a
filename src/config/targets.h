/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Master target servers, and what they are ordered to do with the journal of one machine and the disks of their host.
 * Orders rest in the database until they are done; servers ask for theirs (nobody calls them), work on them across
 * their own restarts, and report. Of one machine a server has one order at a time: a newer one replaces an older one
 * and takes over its disks. Kinds, what their body may say, and what their report says:
 *
 *   check   {"to", "some", "overwrite", "point", "undo_bytes"}: writes nothing. Report: {"findings": [{"level": "ok" |
 *           "warning" | "error", "text"}], "data_bytes", "vault_bytes_per_s"}; an error among them fails the order.
 *   follow  {"to", "some", "overwrite", "undo_bytes", "undo_points"}: brings the disks to the newest point, and to each
 *           that comes after it. Reached as soon as they are at one; goes on until it is replaced.
 *   finish  {"epoch", "seq"} or {"point"} (default "latest"), and as follow if nothing follows yet: brings the disks to
 *           that point and lets go of them.
 *   back    {"points": N} or {"epoch", "seq"}: to a point that the server itself keeps. The disks stay as they are
 *           then.
 *   boot    {"domain", "uri"}: starts a libvirt domain of the server's host; or {"hook"}: runs that script of its hook
 *           folder (power on). Nothing may follow for the machine.
 *   halt    the same the other way round: turns the domain off at once, or runs the script (power off).
 *   ready   {"domain", "uri", "disks": [PATH, ...]} or {"hook"}: whether boot could be done, and changes nothing: that
 *           domain is there, is off and has these disks, or that script is there.
 *   drop    {}: lets go of the disks as they are, and forgets them.
 *
 * "to" is {DISK: PATH, ...} or "auto". Every report has {"state", "text", "epoch", "seq", "point_ns", "done_bytes",
 * "total_bytes", "compared_bytes", "written_bytes", "fetched_bytes"} as far as they are known.
 */
#include "config/jobs.h"
#include "config/registry.h"

#define LB_TARGETS_ORDERS_KEPT_MAX 1000 /* ended ones beyond it are forgotten, oldest first */
#define LB_TARGETS_LOST_S 30            /* a server that is silent for so long is called away */

struct lb_targets_server {
	char id[LB_UUID_TEXT_BYTES];
	char name[LB_REG_NAME_BYTES];
	bool local; /* part of this host */
	int64_t created_ns, seen_ns;
	int64_t orders; /* open ones */
	json_t *report; /* last one, or NULL */
};
void lb_targets_server_clear(struct lb_targets_server *s); /* for _cleanup_() */

/* By UUID or name; the text names the cure. */
int lb_targets_find(struct lb_db *db, const char *name_or_id, struct lb_targets_server *ret_server);
int lb_targets_each(struct lb_db *db, int (*fn)(void *arg, const struct lb_targets_server *server), void *arg);
/* 0: it speaks. -EAGAIN: not yet, since it joined or this server started just now. -EHOSTDOWN: silent; the text has the
 * cure. */
int lb_targets_speaks(struct lb_site *site, const struct lb_targets_server *server);
int lb_targets_put(struct lb_db *db, const struct lb_targets_server *server);
/* -EBUSY while it has orders. Its certificates are revoked with it. */
int lb_targets_remove(struct lb_site *site, const struct lb_targets_server *server);

struct lb_targets_order {
	const char *server;  /* name or id */
	const char *machine; /* name or id: whose journal it is */
	const char *kind;
	const json_t *body; /* borrowed; NULL: empty */
};
/*
 * Durable when it returns. `key` is the caller's word for this order: put again, it is the same one, whatever became of
 * it. -ENOENT, -EINVAL; -EBUSY when a disk is another machine's there, or follow is under way (check, boot).
 */
int lb_targets_order(struct lb_site *site, const struct lb_targets_order *order, const char *key, const char *made_by,
		     char ret_id[LB_UUID_TEXT_BYTES]);

struct lb_targets_state {
	char server[LB_REG_NAME_BYTES], kind[16];
	char state[16];              /* "ordered", "reached" (follow), "done", "failed", "replaced" */
	int64_t changed_ns, seen_ns; /* of its last report; when its server was last heard */
	json_t *report;              /* the caller's own; an object */
};
int lb_targets_state(struct lb_site *site, const char *id, struct lb_targets_state *ret_state);
void lb_targets_state_clear(struct lb_targets_state *s); /* for _cleanup_() */
/* One that is open ends: of follow and finish the disks are let go of as they are. */
int lb_targets_withdraw(struct lb_site *site, const char *id);

/* All open ones of a machine, at whatever server. */
int lb_targets_withdraw_all(struct lb_site *site, const char *machine);
/* Whether a server was ever ordered to start it, done or not. */
int lb_targets_booted(struct lb_site *site, const char *machine, bool *ret_booted);

/*
 * In a job: puts the order (once, however often the job runs again), and waits until it is done, or reached (follow).
 * Tells progress, and in words whose turn it is: a server that is away is waited for. -EREMOTEIO with the server's own
 * words when it failed; -ECANCELED withdraws it. `ret_report` (may be NULL) is the caller's own.
 */
int lb_targets_run(struct lb_job *job, const struct lb_targets_order *order, json_t **ret_report);
/* Puts the order and does not wait: lb_targets_run() in the same job does, for the same order. */
int lb_targets_begin(struct lb_job *job, const struct lb_targets_order *order);
/* The job that is one order. */
int lb_job_target_run(struct lb_job *job);

/* {"id", "name", "kind", "health", "text", "cure", ...} */
int lb_status_target(struct lb_site *site, const struct lb_targets_server *server, json_t **ret_object);
