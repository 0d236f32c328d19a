/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a machine's doubles are like when an order says nothing else: the machine's target settings, filled into the
 * order's body. Pure functions over JSON; the same for the configuration server and for the command line that works on
 * a vault alone.
 *
 * Of a network: "none" is none even where the settings name one. An address and a MAC address belong to the network
 * that they were set for. Of a MAC address: "source" is that of the machine's own first card, "own" is one that no
 * other has; without a word it is the source's, but in a test on a network that others are on: the source may be there.
 * A test where nobody else is has the address of its source, if its agent has told of it and no other was set.
 *
 * One that is mended has drivers for virtio: SATA is then only for when mending fails.
 */
#include <jansson.h>
#include <stdbool.h>

struct lb_double_source {
	const json_t *target; /* the settings; may be NULL */
	const json_t *cards;  /* as its agent reports them, may be NULL */
	bool sata;            /* its initramfs has drivers for SATA disks and for no virtio ones */
};

#define LB_MAC_SOURCE "source"
#define LB_MAC_OWN "own"
#define LB_NETWORK_NONE "none"

/* "source", "own", or a MAC address of one card. */
int lb_double_mac_check(const char *text);
/* Changes the body. -EINVAL when the order can't be met. */
int lb_double_fill(json_t *body, const struct lb_double_source *source);
/*
 * The settings of a machine (name or UUID) in the registry's copy of a vault; all NULL when it is not in there.
 * Borrowed.
 */
void lb_double_source_find(const json_t *copy, const char *machine, struct lb_double_source *ret_source);
