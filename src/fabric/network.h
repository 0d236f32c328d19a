/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The network that a VM joins. "bridge:NAME" is a bridge of this host, in the network namespace that we run in; "NAME"
 * is a network of libvirt's and, for QEMU without libvirt, a bridge too; "isolated:NAME" is an isolated network of
 * the doubles that name it (segment.h).
 *
 * The tap device of a VM belongs to its QEMU alone: it is gone when that has ended, whatever it died of.
 */
#include <stdbool.h>
#include <stdint.h>

#define LB_VM_NETWORK_BYTES 81
#define LB_BRIDGE_NAME_BYTES 16
#define LB_MAC_TEXT_BYTES 18
#define LB_ADDRESS_TEXT_BYTES 19 /* "255.255.255.255/32" */

struct lb_vm_spec;

/* -EINVAL says what is wrong with the text. */
int lb_network_check(const char *network);
/* The bridge's name in "bridge:NAME"; NULL when it is a network's name. */
const char *lb_network_bridge(const char *network);
/* The segment's name in "isolated:NAME"; NULL when it is another network. */
const char *lb_network_segment(const char *network);
/* Lower case into `mac`. -EINVAL: no address, or none that one card may have. */
int lb_mac_read(const char *text, char mac[LB_MAC_TEXT_BYTES]);
/* "A.B.C.D" or "A.B.C.D/PREFIX", of a host; parts may be NULL. A prefix that is not said is 0. */
int lb_address_read(const char *text, uint32_t *ret_address, uint32_t *ret_prefix);

/* -ENOENT when this host has no such bridge, -EINVAL when that is no bridge. */
int lb_bridge_check(const char *bridge);
/* -EPERM when we have not the right to put VMs on bridges. */
int lb_bridge_right(const char *bridge);
/* A tap device on the bridge, up; it lives as long as somebody has the descriptor. */
int lb_tap_open(const struct lb_vm_spec *vm, const char *bridge, int *ret_fd);
#define LB_TAP_NAME_BYTES 16
/* "lb" and 12 hex digits of the VM's UUID. */
void lb_tap_name(const struct lb_vm_spec *vm, char name[LB_TAP_NAME_BYTES]);
