/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What must be known of a protected machine to start its double, kept in the vault beside its journal: versions of
 * one JSON entry, `m/<machine>/item/<n>`, the newest wins. Thread-safe.
 */
#include "hrl/hrl.h"
#include "vault/vault.h"

#define LB_MACHINE_NAME_BYTES 65
#define LB_DISK_NAME_BYTES 65
#define LB_CATALOG_BYTES_MAX (256u << 10)

struct lb_catalog_disk {
	uint16_t id;                     /* never used for another disk of the machine */
	char name[LB_DISK_NAME_BYTES];   /* "vda" */
	char serial[LB_DISK_NAME_BYTES]; /* may be empty */
	uint64_t size_bytes;
	uint32_t sector_bytes; /* logical */
	bool boot;             /* firmware boots from it */
};

struct lb_catalog_item {
	struct lb_uuid machine;
	char name[LB_MACHINE_NAME_BYTES];
	char firmware[8];                       /* "bios" or "uefi" */
	char architecture[16];                  /* "x86_64" */
	char hardware[2 * LB_DIGEST_BYTES + 1]; /* the agent's hardware fingerprint, hex */
	uint32_t cpus;
	uint64_t memory_bytes;
	uint32_t n_disks;
	struct lb_catalog_disk disks[LB_HRL_DISKS_MAX];
	char policy[LB_MACHINE_NAME_BYTES]; /* name */
	uint64_t consistency_interval_s;
};

/* Writes the next version, nothing if the newest says the same. */
int lb_catalog_put(struct lb_vault *v, const struct lb_catalog_item *item);
/* -ENOENT when the machine has none. */
int lb_catalog_get(struct lb_vault *v, const struct lb_uuid *machine, struct lb_catalog_item *ret_item);
/* By name or UUID text; -ENOENT, -EEXIST when several have the name (the text lists their ids). */
int lb_catalog_find(struct lb_vault *v, const char *name_or_id, struct lb_catalog_item *ret_item);
/* The machine's name for a person, from the newest entry that is authentic; "" where there is none. Keeps the thread's
 * error text. */
void lb_catalog_name(struct lb_vault *v, const struct lb_uuid *machine, char ret_name[LB_MACHINE_NAME_BYTES]);
/* "NAME (ID)", or the id alone where the name is "": not known. Returns `label`. */
#define LB_MACHINE_LABEL_BYTES (LB_MACHINE_NAME_BYTES + LB_UUID_TEXT_BYTES + 3)
const char *lb_machine_label(const struct lb_uuid *machine, const char *name, char label[LB_MACHINE_LABEL_BYTES]);
/* The same by the name of lb_catalog_name(). Keeps the thread's error text. */
const char *lb_catalog_label(struct lb_vault *v, const struct lb_uuid *machine, char label[LB_MACHINE_LABEL_BYTES]);
/* The number of the newest version, 0 when there is none. */
int lb_catalog_version(struct lb_vault *v, const struct lb_uuid *machine, uint64_t *ret_version);
