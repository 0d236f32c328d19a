/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What agents and process servers last said, and what the vault last showed: figures that are out of date within
 * seconds, kept in memory only. Reports are bounded by the API's body limits, machines by the registry. Any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "vault/points.h"

struct lb_live;
int lb_live_new(struct lb_live **ret_live);
void lb_live_free(struct lb_live *live);

/* Keeps a copy of an agent's report; wakes who waits for one. */
int lb_live_agent_put(struct lb_live *live, const char *machine, const json_t *report, int64_t now_ns);
/* A process server's whole report; what it says of each machine is filed there. */
int lb_live_process_put(struct lb_live *live, const char *process, const json_t *report, int64_t now_ns);
/* Forgets a machine. */
void lb_live_forget(struct lb_live *live, const char *machine);

/* Where other machines reach an agent, as its last question said; empty: not heard since this server started. */
#define LB_LIVE_HOST_BYTES 128
void lb_live_reach_put(struct lb_live *live, const char *machine, const char *host, uint16_t port);
void lb_live_reach_get(struct lb_live *live, const char *machine, char ret_host[LB_LIVE_HOST_BYTES],
		       uint16_t *ret_port);

struct lb_live_point {
	bool known;      /* the vault was asked */
	bool there;      /* it holds a recovery point */
	char error[256]; /* why it could not be asked; else empty */
	struct lb_point point;
	int64_t asked_ns;
};

/* What the machine's agent is to have mended there. */
struct lb_live_mend {
	uint64_t generation; /* 0: nothing */
	bool network, initramfs;
};

struct lb_live_machine {
	json_t *agent;                /* last report of its agent, or NULL; the caller's own */
	json_t *process;              /* last report of its process server on it, or NULL */
	int64_t agent_ns, process_ns; /* when they came; 0: never since this server started */
	int64_t check_ns;             /* lb_live_check_order() */
	int64_t flush_ns;             /* lb_live_flush_order() */
	struct lb_live_mend mend;     /* lb_live_mend_order() */
	struct lb_live_point point;
};
/* Never fails for a machine that nobody spoke of: then it is empty. */
int lb_live_get(struct lb_live *live, const char *machine, struct lb_live_machine *ret_machine);
void lb_live_machine_clear(struct lb_live_machine *m); /* for _cleanup_() */
/* The last report of a process server without its machines, or NULL. */
int lb_live_process_get(struct lb_live *live, const char *process, json_t **ret_report, int64_t *ret_ns);

/* An operator's order that the machine's agent look at its readiness again, as the time at which it was given; 0: none.
 */
void lb_live_check_order(struct lb_live *live, const char *machine, int64_t now_ns);
int64_t lb_live_check_ordered(struct lb_live *live, const char *machine);

/* Likewise: an order that the machine's process server bring all that it holds into the vault. */
void lb_live_flush_order(struct lb_live *live, const char *machine, int64_t now_ns);
int64_t lb_live_flush_ordered(struct lb_live *live, const char *machine);

void lb_live_mend_order(struct lb_live *live, const char *machine, const struct lb_live_mend *mend);
struct lb_live_mend lb_live_mend_ordered(struct lb_live *live, const char *machine);

void lb_live_point_put(struct lb_live *live, const char *machine, const struct lb_live_point *point);

/* Waits until an agent's report of after `since_ns` is there, for `wait_ms` at most; -ETIMEDOUT. */
int lb_live_agent_wait(struct lb_live *live, const char *machine, int64_t since_ns, uint32_t wait_ms);
