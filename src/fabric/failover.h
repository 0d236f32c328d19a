/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Failover: the double of a machine, started from a recovery point. It needs the vault, a secret that opens it, and
 * this host; nothing of the site that was lost. What is done is written to <vm folder>/<vm name>/failover.json before
 * it is done, and each step can be done again, so that a failover that was killed anywhere goes on by
 * lb_failover_open() + lb_failover_run(). One process at a time works on a VM (the folder is locked; -EBUSY for
 * others).
 *
 * A struct lb_failover is used by one thread.
 */
#include <jansson.h>

#include "fabric/fabric.h"
#include "fabric/secret.h"
#include "vault/points.h"

#define LB_PATH_BYTES 1024

enum lb_failover_kind { LB_FAILOVER_TEST, LB_FAILOVER_LIVE };

struct lb_failover_request {
	const char *vault_url;
	struct lb_vault_secret secret;
	const char *machine; /* name or UUID */
	const char *point;   /* as lb_point_find() takes it; NULL: "latest" */
	enum lb_failover_kind kind;
	const char *vm_name;                  /* NULL: "<machine>-test" or "<machine>-double" */
	const char *vm_folder;                /* absolute; made if missing */
	const char *fabric;                   /* NULL: "auto" */
	uint64_t memory_bytes;                /* 0: as the machine has */
	uint32_t cpus;                        /* 0: as the machine has, at most this host's */
	const char *bus;                      /* "virtio" (NULL), "scsi", "sata": for guests without virtio drivers */
	const char *network;                  /* as fabric/network.h says; NULL: user-mode */
	const char *mac;                      /* of its card; NULL: one of its own */
	const char *address;                  /* the guest's, "A.B.C.D[/PREFIX]"; NULL: not known */
	bool isolated;                        /* a test is isolated unless it asks for a network */
	const struct lb_vm_forward *forwards; /* host_port 0: a free one is chosen */
	uint32_t n_forwards;
	uint16_t probe_port;    /* a guest port among the forwards that must answer before the VM counts as running; 0:
				   none */
	const char *probe_send; /* sent to it first, for services that don't speak first; NULL: nothing */
	uint32_t wait_s;        /* for the VM to run (and answer); 0: LB_FAILOVER_WAIT_S */
	bool no_pull;           /* keep reading from the vault; a test never pulls */
	/*
	 * Put what the double would lack into its overlays before it starts (mender.h). It is started without if that
	 * fails, with a warning, on `bus_unmended` (NULL: on its bus); where it is required, the failover stops there.
	 */
	bool mend, mend_required;
	const char *bus_unmended;
	/* Live: what the double is told of a configuration server (wire/told.h), as it reaches it; NULL: of none. */
	const char *config_url, *ca_fingerprint;
};

#define LB_FAILOVER_WAIT_S 300

/*
 * What the body of an order says ("machine", "kind": "test" or "live", "point", "name", "memory_bytes", "forwards",
 * ...), into a request whose other members stay as they are; `forwards` holds LB_VM_FORWARDS_MAX, texts stay the
 * object's own.
 */
int lb_failover_request_parse(const json_t *body, struct lb_failover_request *request, struct lb_vm_forward *forwards);

enum lb_failover_step {
	LB_STEP_POINT, /* look the recovery point up */
	LB_STEP_FENCE, /* live: nobody extends the journal any more; the point is then looked up again if it is "latest"
			*/
	LB_STEP_PIN,   /* the point stays while the double depends on it */
	LB_STEP_SERVE, /* its disks over NBD, from the vault */
	LB_STEP_OVERLAYS, /* what the double writes stays here */
	LB_STEP_MEND,     /* what it would lack, if that was asked for; passed over otherwise */
	LB_STEP_START,
	LB_STEP_WAIT, /* until it runs, and answers if it was asked to */
	LB_STEP_PULL, /* live: its blocks are pulled in behind it; begun here, complete at commit */
	LB_STEP_DONE,
};
const char *lb_failover_step_name(enum lb_failover_step step); /* "look up the recovery point", ... */

struct lb_failover;
/* -EEXIST when there is a double of that name. Nothing is done yet but the record. The machine's key is kept in memory
 * until free. */
int lb_failover_begin(struct lb_env *env, const struct lb_failover_request *request, struct lb_failover **ret_failover);
/* One that is there: to go on with it, or to act on it. -ENOENT, -EBUSY. */
int lb_failover_open(struct lb_env *env, const char *vm_folder, const char *vm_name, struct lb_failover **ret_failover);
/* The secret files that the record names are no more where they were (credentials of a service change place at each
 * start). */
int lb_failover_secret_set(struct lb_failover *f, const struct lb_vault_secret *secret);
void lb_failover_free(struct lb_failover *f);
LB_DEFINE_CLEANUP(struct lb_failover *, lb_failover_free);

/* Does the next step. A failure leaves it the next. */
int lb_failover_do(struct lb_failover *f);
/*
 * Does all that is left, telling each step that applies before it is done; non-zero from `step` ends it there. On a
 * failover that is done already: brings back whatever of it is missing (host restarted, nbdkit or QEMU killed).
 * -ECANCELED from `step` is passed on.
 */
int lb_failover_run(struct lb_failover *f, int (*step)(void *arg, enum lb_failover_step step), void *arg);

/* `idle` is asked about once a second while the VM is waited for; non-zero ends the wait and is passed on, with its
 * text. */
void lb_failover_idle_set(struct lb_failover *f, int (*idle)(void *arg), void *arg);

struct lb_failover_report {
	const char *vm_name, *machine_name, *fabric, *network, *address; /* valid as long as the failover */
	char mac[LB_MAC_TEXT_BYTES];
	uint32_t probe_port; /* 0: none */
	struct lb_uuid machine;
	enum lb_failover_kind kind;
	struct lb_position position;
	int64_t point_time_ns;
	enum lb_failover_step next;
	bool committed;
	bool fenced;                    /* its source's journal takes nothing more */
	bool probed;                    /* a port was to answer, and has when it runs */
	bool cleaning;                  /* a cleanup was begun and must be finished */
	bool shut;                      /* for good: its machine goes home */
	bool taken;                     /* and the last that it wrote is in the vault */
	bool told;                      /* it knows a configuration server, and may be reprotected */
	const char *warning;            /* "" or what is weaker than asked */
	const char *mended;             /* "" or what was mended in it */
	int64_t started_ns, running_ns; /* wall clock; running_ns 0: not yet */
	uint64_t rto_ms; /* from the command to a machine that runs (and answers, if it was asked to); 0: not yet */
	char console_path[LB_PATH_BYTES];
	uint32_t n_disks;
	uint32_t n_forwards;
	struct lb_vm_forward forwards[LB_VM_FORWARDS_MAX];
};
void lb_failover_report(const struct lb_failover *f, struct lb_failover_report *ret_report);
/* What the fabric says of it now. */
int lb_failover_state(struct lb_failover *f, enum lb_vm_state *ret_state);
/* Sum of all disks; `complete` when none rests on the vault. */
int lb_failover_pull_look(struct lb_failover *f, struct lb_vm_pull *ret_pull);

/* Stops it and starts it again from another point; what it has written is gone. Not after commit. Then
 * lb_failover_run(). */
int lb_failover_repoint(struct lb_failover *f, const char *point);
/*
 * Live only: pulls everything in at full speed, waits for it (`progress` may be NULL, non-zero ends the wait; the pull
 * goes on), then drops the dependence on the vault and the pin.
 */
int lb_failover_commit(struct lb_failover *f, int (*progress)(void *arg, const struct lb_vm_pull *pull), void *arg);
/*
 * Live and not committed: its machine goes on instead. The VM is destroyed, and from here on nothing starts it again;
 * what is left of it goes with lb_failover_cleanup(). -EINVAL.
 */
int lb_failover_give_up(struct lb_failover *f);
/*
 * Destroys it without trace: VM, servers, overlays, pin, record. A live double holds writes that are nowhere else:
 * -EPERM unless `live_too`. Works on what any killed step left behind, and without the secret if nothing was pinned.
 * Frees `f` on success.
 */
int lb_failover_cleanup(struct lb_failover *f, bool live_too);

/*
 * Committed ones only, when the machine goes home: presses the power button, and after `wait_s` turns the double off.
 * From then on nothing starts it again (until lb_failover_unshut()), and its disks are its own files, which nobody
 * uses.
 */
int lb_failover_shut(struct lb_failover *f, uint32_t wait_s, bool *ret_gracefully);
/* Of one that is shut: all that it wrote is in the vault. Remembered until lb_failover_unshut(). */
int lb_failover_taken(struct lb_failover *f);
/* The machine stays here after all; lb_failover_run() starts the double. */
int lb_failover_unshut(struct lb_failover *f);
/*
 * Of a live double whose configuration server was rebuilt: it knows the one that was lost. From its next start on it is
 * told of this one. `ret_changed`: it was not known before.
 */
int lb_failover_tell_anew(struct lb_failover *f, const char *config_url, const char *ca_fingerprint, bool *ret_changed);
/* The image of the disk with this id of the catalog; NULL: the double has none. */
const char *lb_failover_disk(const struct lb_failover *f, uint16_t id);

/* Every failover below a VM folder; one that another process works on is told with its last record. */
int lb_failover_list(struct lb_env *env, const char *vm_folder,
		     int (*fn)(void *arg, const struct lb_failover_report *report, enum lb_vm_state state), void *arg);
