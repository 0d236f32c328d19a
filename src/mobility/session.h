/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The protection of this machine, from the ring to the process server's acknowledgement, as one state machine that one
 * thread drives: lb_session_step() does what is due and says when it wants to be called again. It waits for
 * nothing but its requests to the process server and to the capture helper, each of which has a time limit.
 *
 *     DISABLED --enabled--> ATTACHING --> CONNECTING --> NEW_EPOCH --> SCANNING --> PROTECTED
 *                               ^             |  ^           ^             |            |
 *                               |             |  +- network -+---- lost ---+--- lost ---+--> DEBT --> NEW_EPOCH
 *                            REFUSED <--------+ (clear text, tries again slowly)
 *
 * What must outlive the agent lives in the capture's notes (kernel memory) and in a bitmap on tmpfs: killing the agent
 * at any instant loses nothing and causes no resync.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "mobility/agent_config.h"
#include "mobility/mark.h"
#include "wire/client.h"

enum lb_session_state {
	LB_SESSION_DISABLED,   /* nothing is captured */
	LB_SESSION_ATTACHING,  /* the disks and the helper are looked for */
	LB_SESSION_CONNECTING, /* the process server is asked where our journal ends; writes go on into the ring */
	LB_SESSION_NEW_EPOCH,  /* announced, and the flip */
	LB_SESSION_SCANNING,   /* captured data and the scan set flow; no recovery point yet */
	LB_SESSION_PROTECTED,  /* every cut is a recovery point */
	LB_SESSION_DEBT,       /* something was lost: drain to it, then a new epoch */
	LB_SESSION_REFUSED,    /* a person has to do something; tries again, more and more slowly */
	LB_SESSION_STATES,
};
const char *lb_session_state_name(enum lb_session_state state);

#define LB_SESSION_TEXT_BYTES 512
#define LB_SESSION_REFUSED_S_MIN 4 /* doubled at each refusal in a row */
#define LB_SESSION_REFUSED_S_MAX 60
#define LB_SESSION_BACKOFF_MS_MIN 250
#define LB_SESSION_BACKOFF_MS_MAX 8000 /* the ring fills meanwhile */
#define LB_SESSION_AUDIT_S 30          /* an idle agent asks that often whether its journal is still where it was */
#define LB_SESSION_POLL_MS 50          /* how often the ring's fill is looked at */

struct lb_session_options {
	struct lb_env *env;
	struct lb_http_client *client; /* stays the caller's */
	const char *capture_socket;
	const char *confirm_path; /* on tmpfs; NULL: in memory only */
	const char *hardware;     /* fingerprint, hex */
	struct lb_mark *mark;     /* where points are asked for; NULL: nobody does */
	/* Where a configured disk is now: its kernel name and size. -ENODEV with text. */
	int (*find_disk)(void *arg, const struct lb_agent_disk *disk, char ret_name[64], uint64_t *ret_size_bytes);
	void *arg;
};

struct lb_session;
int lb_session_new(const struct lb_session_options *options, struct lb_session **ret_session);
/* The capture goes on in the kernel. */
void lb_session_free(struct lb_session *s);
LB_DEFINE_CLEANUP(struct lb_session *, lb_session_free);

/* What is asked of this machine now; may come at any time, as often as wanted. */
void lb_session_configure(struct lb_session *s, const struct lb_agent_config *config);
/* From now on this client, which stays the caller's: the certificate was renewed. */
void lb_session_use_client(struct lb_session *s, struct lb_http_client *client);
/* Never fails: failures become states. `ret_wake_mono_ns`: when to come again. */
void lb_session_step(struct lb_session *s, int64_t *ret_wake_mono_ns);

struct lb_session_status {
	enum lb_session_state state;
	char text[LB_SESSION_TEXT_BYTES]; /* why it is not well, or empty */
	uint64_t epoch;
	uint64_t segments;      /* acknowledged in this epoch */
	uint64_t backlog_bytes; /* captured and not yet acknowledged */
	uint64_t ring_bytes;
	uint64_t dirty_bytes; /* lost, for the next epoch's scan */
	uint64_t churn_bytes; /* written since the capture was attached */
	uint64_t scan_done_bytes, scan_total_bytes;
	uint64_t shipped_bytes;  /* since the agent started */
	int64_t point_ns;        /* wall clock of the newest acknowledged recovery point; 0: none by this agent */
	uint32_t passes;         /* epochs in a row that ended without a recovery point */
	int64_t held_rpo_ns;     /* under overload: time between the last points of two epochs; 0: not overloaded */
	int64_t cost_ns_per_kib; /* of the capture program; -1: nothing captured yet */
};
void lb_session_status(const struct lb_session *s, struct lb_session_status *ret_status);
