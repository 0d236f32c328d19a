/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who belongs to the site: machines, process servers, certificates, tokens, policies. Each function is a short
 * transaction of its own unless the caller holds one. Times are wall-clock ns. Errors: -ENOENT absent, -EEXIST taken.
 */
#include "base/text.h"
#include "config/db.h"
#include "config/site.h"
#include "wire/pki.h"
#include "wire/policy.h"

#define LB_REG_NAME_BYTES 65
#define LB_REG_WARNING_BYTES 512
#define LB_REG_HEX_BYTES (2 * LB_DIGEST_BYTES + 1)
#define LB_REG_MACHINES_MAX 4096

struct lb_reg_machine {
	char id[LB_UUID_TEXT_BYTES];
	char name[LB_REG_NAME_BYTES];
	char hardware[LB_REG_HEX_BYTES]; /* what its certificate is bound to; empty: not known yet */
	char policy[LB_REG_NAME_BYTES];
	char process[LB_UUID_TEXT_BYTES]; /* empty: none yet */
	bool enabled;
	bool fenced; /* failed over: it must not write any more */
	int64_t resync_generation;
	json_t *disks;     /* every disk that was ever protected; "retired": true on those that are no more */
	json_t *inventory; /* last report of its agent, or NULL */
	int64_t created_ns, enabled_ns, seen_ns, proven_ns, proven_point_ns; /* 0: never */
	char proven_warning[LB_REG_WARNING_BYTES]; /* of the double that proved it, "" or "it is not mended: ..." */
};
void lb_reg_machine_clear(struct lb_reg_machine *m); /* for _cleanup_() */

/* By UUID or name; the text names the cure. */
int lb_reg_machine_find(struct lb_db *db, const char *name_or_id, struct lb_reg_machine *ret_machine);
int lb_reg_machine_find_hardware(struct lb_db *db, const char *hardware, struct lb_reg_machine *ret_machine);
/* In the order of names; a non-zero return ends it and is passed on. Called with the database's lock held. */
int lb_reg_machines(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_machine *machine), void *arg);
/* Writes all members but proven_warning; a new one by its id. */
int lb_reg_machine_put(struct lb_db *db, const struct lb_reg_machine *machine);
/* A double of this point answered, then. */
int lb_reg_machine_proven(struct lb_db *db, const char *id, int64_t proven_ns, int64_t point_ns, const char *warning);
/*
 * From here on its agent is refused and its certificates are worth nothing. 0 also when the machine is not known here:
 * nobody replicates it through us.
 */
int lb_reg_machine_fence(struct lb_db *db, const char *id, const char *reason, int64_t now_ns);
/*
 * Takes that back: certificates that were revoked for this reason count again, and every disk is compared, because
 * nobody replicated it meanwhile. With `new_hardware` its identity is bound to the one that reports first. 0 also when
 * it is not fenced; -ENOENT.
 */
int lb_reg_machine_unfence(struct lb_db *db, const char *id, const char *reason, bool new_hardware, int64_t now_ns);
int lb_reg_machine_remove(struct lb_db *db, const char *id);

struct lb_reg_process {
	char id[LB_UUID_TEXT_BYTES];
	char name[LB_REG_NAME_BYTES];
	char hosts[1024]; /* by comma; the first is what agents are told */
	uint16_t port;
	bool local;
	bool temporary; /* for the way back of doubles; here, and gone with the last of them */
	int64_t created_ns, seen_ns;
	int64_t machines; /* enabled ones that are assigned to it */
};
int lb_reg_process_find(struct lb_db *db, const char *name_or_id, struct lb_reg_process *ret_process);
int lb_reg_processes(struct lb_db *db, int (*fn)(void *arg, const struct lb_reg_process *process), void *arg);
int lb_reg_process_put(struct lb_db *db, const struct lb_reg_process *process);
/* The one for another machine, never a temporary one, but not `except` ("": any): seen since `alive_since_ns` before
 * others, then the least loaded, moves that are ordered counted. -ENOENT: there is none. */
int lb_reg_process_choose(struct lb_db *db, int64_t alive_since_ns, const char *except,
			  struct lb_reg_process *ret_process);
int lb_reg_process_remove(struct lb_db *db, const char *id);

/* registry_move.c: a machine leaves process server `from` (begin), belongs to another one (switch), which has opened
 * its journal (end); or it stays after all (cancel). */
int lb_reg_move_begin(struct lb_db *db, const char *machine, const char *from, int64_t now_ns);
int lb_reg_move_switch(struct lb_db *db, const char *machine, const char *from, int64_t now_ns);
int lb_reg_move_end(struct lb_db *db, const char *machine);
int lb_reg_move_cancel(struct lb_db *db, const char *machine);
int lb_reg_move_under_way(struct lb_db *db, const char *machine, bool *ret_under_way);
/* Where its agent is still sent to while the other one opens its journal; else `process` stays as it is. */
int lb_reg_move_stand_in(struct lb_db *db, const char *machine, char process[LB_UUID_TEXT_BYTES]);
/* The ids of machines that left that process server and are with another one. */
int lb_reg_moves_from(struct lb_db *db, const char *process, json_t **ret_machines);

/* Certificates: what was issued to whom, and whether it still counts. */
int lb_reg_cert_put(struct lb_db *db, const struct lb_cert_info *info, const char *holder, int64_t now_ns);
/* Revokes all of a holder's but `keep` (NULL: all). */
int lb_reg_certs_revoke(struct lb_db *db, const char *holder, const char *keep, const char *reason, int64_t now_ns);
#define LB_REVOKED_FAILED_OVER "failed over"
/* Takes a revocation for this reason back, of certificates that were in use. */
int lb_reg_certs_reinstate(struct lb_db *db, const char *holder, const char *reason, int64_t now_ns);
/* Unknown ones don't count. -EACCES when it is revoked or not ours; notes the first use otherwise. */
int lb_reg_cert_check(struct lb_db *db, const struct lb_digest *fingerprint, const char *holder, int64_t now_ns);
/* The newest that counts and was used: a renewed one whose answer was lost must not shut its holder out. -ENOENT. */
int lb_reg_cert_current(struct lb_db *db, const char *holder, char ret_fingerprint[LB_REG_HEX_BYTES]);

#define LB_TOKEN_BYTES 32
#define LB_TOKEN_TEXT_BYTES (2 * LB_TOKEN_BYTES + 1)
#define LB_TOKEN_VALID_S_DEFAULT 3600
#define LB_TOKEN_VALID_S_MAX (30 * 86400)

struct lb_reg_token {
	char kind[16];                /* "machine", "process", "user" */
	char name[LB_REG_NAME_BYTES]; /* empty: the enrolling one's choice */
	enum lb_role role;            /* of a user */
	bool replaces;                /* other hardware may take over the name */
	char used_by[LB_UUID_TEXT_BYTES > LB_REG_NAME_BYTES ? LB_UUID_TEXT_BYTES
							    : LB_REG_NAME_BYTES]; /* empty: unused */
	int64_t expires_ns;
};
/* The text is the secret; only its SHA-256 is kept. */
int lb_reg_token_make(struct lb_site *site, const struct lb_reg_token *token, const char *made_by,
		      char ret_text[LB_TOKEN_TEXT_BYTES]);
/*
 * Takes a token for the holder of `key` (digest of the public key): -EACCES when it is unknown, expired, for another
 * kind, or was used with another key. With the same key it is good again (the answer may have been lost): then
 * `used_by` says for whom.
 */
int lb_reg_token_take(struct lb_db *db, const char *text, const char *kind, const struct lb_digest *key, int64_t now_ns,
		      struct lb_reg_token *ret_token);
int lb_reg_token_used(struct lb_db *db, const char *text, const struct lb_digest *key, const char *used_by,
		      int64_t now_ns);

int lb_reg_policy_get(struct lb_db *db, const char *name, struct lb_policy *ret_policy);
/* Rises with each change; 0: there is no such policy. */
int lb_reg_policy_version(struct lb_db *db, const char *name, int64_t *ret_version);
int lb_reg_policy_put(struct lb_db *db, const struct lb_policy *policy, int64_t now_ns);
/* The policy of the way back, made like `name` when it isn't there. No policy of a way back has one of its own. */
#define LB_POLICY_FAILBACK_SUFFIX "-failback"
int lb_reg_policy_failback(struct lb_db *db, const struct lb_policy *policy, int64_t now_ns);
bool lb_policy_is_failback(const char *name);
int lb_reg_policies(struct lb_db *db, int (*fn)(void *arg, const struct lb_policy *policy), void *arg);
/* Makes the default policy if there is none. */
int lb_reg_policy_init(struct lb_db *db, int64_t now_ns);

/* What happened, for people; at most LB_EVENTS_MAX are kept. Failures are logged, not returned: telling is never the
 * deed. */
#define LB_EVENTS_MAX 100000
void lb_event(struct lb_site *site, const char *level, const char *subject, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void lb_audit(struct lb_site *site, const struct lb_http_call *call, int result);
