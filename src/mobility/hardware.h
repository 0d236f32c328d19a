/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What this machine is: its disks, firmware, kernel, and the fingerprint that its identity is bound to. Everything
 * comes from /sys, /proc and /etc below `root` ("" on the real machine); nothing needs privileges but the firmware's
 * UUID. Pure reading; may be called from any thread.
 */
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/crypto.h"
#include "base/env.h"
#include "capture/abi.h"

#define LB_HARDWARE_HEX_BYTES (2 * LB_DIGEST_BYTES + 1)
#define LB_INVENTORY_DISKS_MAX 256
#define LB_DISK_SERIAL_BYTES 256

struct lb_inventory_disk {
	char name[64];
	char serial[LB_DISK_SERIAL_BYTES]; /* or the world-wide name; empty: the disk has neither */
	uint64_t size_bytes;
	uint32_t sector_bytes;
	bool fixed; /* neither removable nor a loop device */
	bool boot;  /* holds / or /boot */
};

struct lb_inventory {
	struct lb_inventory_disk disks[LB_INVENTORY_DISKS_MAX];
	unsigned int n;
};

/* Whole disks in the order of their names; memory, optical and mapped devices (but multipath ones) are left out. */
int lb_inventory_read(struct lb_env *env, const char *root, struct lb_inventory *ret_inventory);
/* One disk by its kernel name, whatever its kind. -ENODEV. */
int lb_disk_read(struct lb_env *env, const char *root, const char *name, struct lb_inventory_disk *ret_disk);
/* The disk with this serial number, if it isn't empty, else with this name or path. -ENODEV with text. */
int lb_disk_find(struct lb_env *env, const char *root, const char *serial, const char *name, const char *path,
		 struct lb_inventory_disk *ret_disk);

/* Which secret of the machine the fingerprint is made from; kept at enrolment, so that it doesn't change with
 * privileges. */
enum lb_hardware_source { LB_HARDWARE_ANY, LB_HARDWARE_FIRMWARE, LB_HARDWARE_MACHINE_ID };

/*
 * SHA-256 over the firmware's UUID (or the machine id) and the sorted serial numbers of the fixed disks, as hex.
 * `uuid_copy`: where the unit put a readable copy of the firmware's UUID, or NULL.
 */
int lb_hardware_fingerprint(struct lb_env *env, const char *root, const char *uuid_copy, enum lb_hardware_source source,
			    char ret_hex[LB_HARDWARE_HEX_BYTES], enum lb_hardware_source *ret_source);

#define LB_CARDS_MAX 16
#define LB_CARD_ADDRESSES_MAX 8
/*
 * [{"name", "mac", "default": the default route goes through it, "addresses": ["192.0.2.10/24"]}], at most
 * LB_CARDS_MAX, that of the default route first. Addresses are IPv4, and of the real root only.
 */
int lb_cards_json(struct lb_env *env, const char *root, json_t **ret_list);

/* {"architecture","firmware","cpus","memory_bytes","kernel","disks":[...],"cards":[...]} */
int lb_hardware_json(struct lb_env *env, const char *root, json_t **ret_object);
