/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a machine's doubles are made like when an order says nothing else:
 *
 *   {"cpus", "memory_bytes", "network", "mac", "address", "test_network", "test_mac", "test_address", "bus", "mend"}
 *
 * All are optional: without them a double is as its machine, on the fabric's own network (a test: on none), with virtio
 * disks, or SATA ones where its initramfs has drivers for no others. Networks, MAC addresses and addresses are written
 * as fabric/network.h says; those of tests are apart. Kept with the machine, and in the vault's copy.
 */
#include "config/registry.h"

/* An empty object when nothing was set. */
int lb_target_get(struct lb_site *site, const char *machine, json_t **ret_target);
/* -EINVAL names the member and its limits. */
int lb_target_check(const json_t *target);
int lb_target_put(struct lb_site *site, const char *machine, const json_t *target);
/*
 * target_network.c: whether the fabric has the networks of `target` (NULL members: not asked for), and no other machine
 * has the same address or MAC address on the same network. -ENOENT, -EEXIST, with what to do.
 */
int lb_target_networks_check(struct lb_site *site, const char *machine, const json_t *target);
/* Whether the fabric has this network (NULL: none is wanted). */
int lb_target_network_check(struct lb_site *site, const char *network);
/* Its initramfs has drivers for SATA disks and for no virtio ones. */
bool lb_target_wants_sata(struct lb_site *site, const char *machine);
/* Puts into the body of a failover's order what it doesn't say (fabric/double_settings.h). */
int lb_target_fill(struct lb_site *site, json_t *body);
