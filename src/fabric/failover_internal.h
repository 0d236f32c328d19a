/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the parts of failover share: the record, and what is open while one works on it. */
#include "fabric/failover.h"
#include "fabric/serve.h"
#include "fabric/backends.h"
#include "vault/catalog.h"

#define LB_RECORD_FILE "failover.json"
#define LB_RECORD_BYTES_MAX (256u << 10)
#define LB_RECORD_VERSION 1
#define LB_TEXT_BYTES 256
/* A double's own reads come first: until commit its blocks are pulled in at this rate. */
#define LB_PULL_FIRST_BYTES_PER_S (32u << 20)

struct lb_failover_disk {
	uint32_t id;
	uint64_t size_bytes;
	/* Rests on nothing, durably. Until this is recorded an overlay without a backing file is one that has lost it.
	 */
	bool whole;
};

struct lb_failover {
	struct lb_env *env;
	int lock_fd; /* of the VM's folder; -1: only looked at */

	/* the record */
	char *vault_url, *passphrase_file, *key_file;
	char *point_text, *probe_send, *warning;
	char *mended;                      /* what the mender did; NULL: nothing */
	char *config_url, *ca_fingerprint; /* what it is told; NULL: of none */
	struct lb_uuid machine;
	char machine_name[LB_MACHINE_NAME_BYTES];
	enum lb_failover_kind kind;
	struct lb_point point;
	char fabric_name[16];
	struct lb_vm_spec vm; /* without nbd_socket, which follows from the folder */
	struct lb_failover_disk disks[LB_VM_DISKS_MAX];
	bool port_chosen[LB_VM_FORWARDS_MAX]; /* by us, so that another may be chosen */
	uint32_t probe_port, wait_s;
	bool no_pull;
	bool mend, mend_required;
	bool mend_done; /* as well as it went: the overlays are what the double starts with */
	enum lb_vm_bus bus_unmended;
	enum lb_failover_step next;
	bool fenced, pinned, teardown, committed, cleaning;
	bool shut; /* for good: its machine goes home */
	bool taken;
	int64_t started_ns, running_ns;

	/* opened when needed */
	struct lb_fabric *fabric;
	struct lb_store *store;
	struct lb_vault *vault;

	int (*idle)(void *arg); /* may be NULL */
	void *idle_arg;
	int64_t idle_ns; /* when it was asked last */
};

/* failover_record.c */
int lb_record_save(struct lb_failover *f);
/* Fills `f` from <folder>/failover.json, whose folder f->vm.folder names; -ENOENT. */
int lb_record_load(struct lb_failover *f);

/* failover.c */
int lb_failover_fabric(struct lb_failover *f);
int lb_failover_vault(struct lb_failover *f);
/* On a network where others reach it by its own address, and not by forwards of this host. */
bool lb_failover_is_on_network(const struct lb_failover *f);
void lb_failover_serve_of(const struct lb_failover *f, uint32_t n, const struct lb_keyring *keys,
			  struct lb_serve *ret_serve);
/* "failover-<12 hex digits of the VM's UUID>" */
void lb_failover_pin_name(const struct lb_failover *f, char name[LB_POINT_NAME_BYTES]);

/* failover_steps.c */
int lb_failover_point(struct lb_failover *f); /* point_text -> point */
int lb_step_do(struct lb_failover *f, enum lb_failover_step step);
int lb_failover_idle(struct lb_failover *f); /* now and then while something is waited for */
int lb_failover_choose_ports(struct lb_failover *f, bool again);

/* failover_end.c */
int lb_failover_teardown(struct lb_failover *f);
int lb_failover_unpin(struct lb_failover *f);
/* Brings back what is missing of one that is done. */
int lb_failover_tend(struct lb_failover *f);

/* failover_mend.c */
int lb_failover_mend(struct lb_failover *f);
/* Takes away overlays that an unfinished mending may have left half changed. */
int lb_failover_unmend(struct lb_failover *f);

/* failover_probe.c: a byte from the guest, through the forward of `guest_port`, until `end_ns`. */
int lb_failover_probe(struct lb_failover *f, int64_t end_ns);
/* One try: whether a byte comes back from there. */
bool lb_failover_answers(const struct lb_failover *f, uint16_t guest_port, const char *send_text);
