/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a libvirt network's description says about who gets which address of it. Pure: text in, words out. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/network.h"

#define LB_DHCP_WHO_BYTES 160

struct lb_dhcp_look {
	bool serves; /* the network gives out addresses where this one is; nothing below holds otherwise */
	bool there;  /* it gives this address to this card already */
	/* Why it can't: "" or what the address or the card is there. */
	char other[LB_DHCP_WHO_BYTES];
};

/* `mac` in any case. -EBADMSG when `xml` is no network, -E2BIG. */
int lb_dhcp_look(const char *xml, const char *mac, uint32_t address, struct lb_dhcp_look *ret_look);
