/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Shared recovery points of a replication group, as a state machine over messages: each agent is a member, and one of
 * them at a time the coordinator. A point is made in phases, each with a deadline on the monotonic clock:
 *
 *     PREPARE  every member: scripts (if asked for), filesystems synced, watchdog made
 *     SETTLE   every member syncs once more: what was written while the slowest one prepared is not left to the freeze
 *     FREEZE   every member frozen ...
 *     MARK     ... before the first one marks its journal; every mark set ...
 *     THAW     ... before the first one thaws: nothing that was sent after a mark is written before another's mark
 *     COMMIT   every member was frozen all the time, so the marks are cut; or ABORT
 *     RESULT   where each mark is durable
 *
 * The coordinator is the lowest id among those that answered; it takes a new term, higher than any that it heard of. A
 * point needs all members of one version of the roster in one term, and a member takes part in one point at a time: so
 * two coordinators can't both make one. A member that does not answer, or does so late, makes the point fail; its own
 * watchdog and lb_group_tick() end what a coordinator began and did not end.
 *
 * Time, network and what a member does come in by ops. lb_group_handle() may be called from any thread; election,
 * rounds and ticks from one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/text.h"

#define LB_GROUP_MEMBERS_MAX 32
#define LB_GROUP_PORT_DEFAULT 20004
#define LB_GROUP_TEXT_BYTES 256
#define LB_GROUP_NAME_BYTES 65
#define LB_GROUP_HOST_BYTES 128

#define LB_GROUP_PREPARE_MS 90000 /* scripts and a sync */
#define LB_GROUP_SETTLE_MS 8000   /* the sync right before the freeze */
#define LB_GROUP_FREEZE_MS 2000   /* each member's watchdog thaws after it */
#define LB_GROUP_PHASE_MS 1500    /* freeze, mark, thaw: what a coordinator waits for */
#define LB_GROUP_COMMIT_MS 4000   /* below LB_MARK_HELD_S, above which a member's journal goes on without the mark */
#define LB_GROUP_RESULT_MS 60000  /* until every mark is durable */
#define LB_GROUP_MEMBER_WAIT_MS 10000 /* a member that hears nothing for so long gives the point up */
#define LB_GROUP_HELLO_MS 2000

struct lb_group_member {
	struct lb_uuid id;
	char name[LB_GROUP_NAME_BYTES];
	char host[LB_GROUP_HOST_BYTES]; /* empty: not known yet */
	uint16_t port;
};

struct lb_group_roster {
	struct lb_uuid id; /* of the group; zeroes: none */
	char name[LB_GROUP_NAME_BYTES];
	uint64_t version;
	uint32_t interval_s, app_interval_s; /* of its points; 0: on demand */
	uint64_t order_generation;           /* a point is asked for; 0: none is */
	bool order_app;
	struct lb_group_member members[LB_GROUP_MEMBERS_MAX];
	unsigned int n;
};

enum lb_group_phase {
	LB_GROUP_HELLO,
	LB_GROUP_PREPARE,
	LB_GROUP_SETTLE,
	LB_GROUP_FREEZE,
	LB_GROUP_MARK,
	LB_GROUP_THAW,
	LB_GROUP_COMMIT,
	LB_GROUP_ABORT,
	LB_GROUP_RESULT,
	LB_GROUP_PHASES,
};
const char *lb_group_phase_name(enum lb_group_phase phase);

struct lb_group_message {
	enum lb_group_phase phase;
	struct lb_uuid group, from, coordinator; /* `coordinator` of the term, zeroes: not known */
	uint64_t version, term;
	struct lb_uuid point;
	bool app;
};

struct lb_group_reply {
	int result; /* 0 or a negative errno with a text; -EINPROGRESS: ask again */
	char text[LB_GROUP_TEXT_BYTES];
	uint64_t version, term;
	struct lb_uuid coordinator;
	int64_t frozen_ns;   /* THAW */
	uint64_t epoch, seq; /* RESULT */
};

/* One call to one member; a failure of the network is a reply too. */
struct lb_group_call {
	const struct lb_group_member *to;
	struct lb_group_message message;
	struct lb_group_reply reply;
};

struct lb_group_ops {
	/* What this member does; errors with text. `end` thaws, runs post-scripts, cancels a mark: after anything. */
	int (*prepare)(void *arg, bool app);
	int (*settle)(void *arg, uint32_t max_ms);
	int (*freeze)(void *arg, uint32_t max_ms);
	int (*mark)(void *arg);
	int (*thaw)(void *arg, int64_t *ret_frozen_ns);
	int (*commit)(void *arg, bool app);
	int (*result)(void *arg, uint64_t *ret_epoch, uint64_t *ret_seq); /* -EINPROGRESS */
	void (*end)(void *arg);
	/* To all of them at once, until each has answered or `timeout_ms` is over. */
	void (*call)(void *arg, struct lb_group_call *calls, size_t n, uint32_t timeout_ms);
};

struct lb_group;
int lb_group_new(struct lb_env *env, const struct lb_uuid *me, const struct lb_group_ops *ops, void *arg,
		 struct lb_group **ret_group);
void lb_group_free(struct lb_group *g);
LB_DEFINE_CLEANUP(struct lb_group *, lb_group_free);

/* What the configuration server says; a point of an older version of it is given up. A member whose address it does not
 * know keeps the one that it had. NULL: in no group. */
void lb_group_configure(struct lb_group *g, const struct lb_group_roster *roster);
/* A message of a member whose certificate says that it is `message->from`. */
void lb_group_handle(struct lb_group *g, const struct lb_group_message *message, struct lb_group_reply *ret_reply);
/* Gives up what nobody goes on with. Often. */
void lb_group_tick(struct lb_group *g);
/* Greets the others. True when this is the coordinator now. */
bool lb_group_elect(struct lb_group *g);

struct lb_group_outcome {
	struct lb_group_roster roster; /* by which it was made */
	struct lb_uuid point;
	bool app;
	int result;
	char text[LB_GROUP_TEXT_BYTES + LB_GROUP_NAME_BYTES + 32];
	struct lb_group_reply members[LB_GROUP_MEMBERS_MAX]; /* frozen_ns, epoch, seq of each */
	int64_t frozen_ns;                                   /* the longest of them */
	int64_t phase_ns[LB_GROUP_PHASES];                   /* until the last one had answered */
};
/* Makes a shared point, as the coordinator. -EAGAIN when this is none; otherwise the outcome's result. */
int lb_group_round(struct lb_group *g, bool app, struct lb_group_outcome *ret_outcome);
