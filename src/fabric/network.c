/* SPDX-License-Identifier: Apache-2.0 */
/* What a network, a card's address and a host's address are written like. */
#include "fabric/network.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/text.h"
#include "fabric/segment.h"

#define BRIDGE_PREFIX "bridge:"
#define SEGMENT_PREFIX "isolated:"
#define PREFIX_MIN 8

const char *lb_network_bridge(const char *network)
{
	size_t length = strlen(BRIDGE_PREFIX);

	return strncmp(network, BRIDGE_PREFIX, length) == 0 ? network + length : NULL;
}

const char *lb_network_segment(const char *network)
{
	size_t length = strlen(SEGMENT_PREFIX);

	return strncmp(network, SEGMENT_PREFIX, length) == 0 ? network + length : NULL;
}

static int check_segment(const char *segment)
{
	int r = lb_name_check("isolated network", segment);

	return r == 0 && strlen(segment) >= LB_SEGMENT_NAME_BYTES
		       ? lb_fail(-EINVAL, "an isolated network's name has at most %d characters, \"%.80s\" has more",
				 LB_SEGMENT_NAME_BYTES - 1, segment)
		       : r;
}

int lb_network_check(const char *network)
{
	const char *bridge = lb_network_bridge(network), *segment = lb_network_segment(network);
	int r;

	if (segment != NULL)
		return check_segment(segment);

	r = lb_name_check(bridge != NULL ? "bridge" : "network", bridge != NULL ? bridge : network);
	if (r == 0 && bridge != NULL && strlen(bridge) >= LB_BRIDGE_NAME_BYTES)
		r = lb_fail(-EINVAL, "a bridge's name has at most %d characters, \"%.80s\" has more",
			    LB_BRIDGE_NAME_BYTES - 1, bridge);
	return r;
}

int lb_mac_read(const char *text, char mac[LB_MAC_TEXT_BYTES])
{
	uint8_t b[6], sum = 0;

	if (strlen(text) != LB_MAC_TEXT_BYTES - 1)
		return lb_fail(-EINVAL, "a MAC address is written 52:54:00:12:34:56, not \"%.40s\"", text);
	for (size_t i = 0; text[i] != '\0'; i++)
		if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
			return lb_fail(-EINVAL, "a MAC address is written 52:54:00:12:34:56, not \"%.40s\"", text);
	for (size_t i = 0; i < 6; i++) {
		b[i] = (uint8_t)strtoul(text + 3 * i, NULL, 16);
		sum |= b[i];
	}
	if ((b[0] & 1) != 0 || sum == 0)
		return lb_fail(-EINVAL,
			       "MAC address %s is not one of a single card (unicast): its first byte must be even, and "
			       "not all of it zero",
			       text);
	snprintf(mac, LB_MAC_TEXT_BYTES, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
	return 0;
}

int lb_address_read(const char *text, uint32_t *ret_address, uint32_t *ret_prefix)
{
	char part[INET_ADDRSTRLEN] = "";
	const char *slash = strchr(text, '/');
	size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
	uint64_t prefix = 0;
	struct in_addr in;
	uint32_t address, host_bits = 0;

	if (length < sizeof(part))
		memcpy(part, text, length);
	if (inet_pton(AF_INET, part, &in) != 1 || (slash != NULL && lb_u64_parse(slash + 1, 32, &prefix) < 0) ||
	    (slash != NULL && prefix < PREFIX_MIN))
		return lb_fail(-EINVAL, "an address is written 192.0.2.10/24 (or 192.0.2.10), not \"%.60s\"", text);
	address = ntohl(in.s_addr);
	if (prefix > 0 && prefix < 31)
		host_bits = UINT32_MAX >> prefix;
	if (address >> 24 == 0 || address >> 24 == 127 || address >> 28 >= 14 ||
	    (host_bits != 0 && ((address & host_bits) == 0 || (address & host_bits) == host_bits)))
		return lb_fail(-EINVAL, "%s is not the address of a host", text);
	if (ret_address != NULL)
		*ret_address = address;
	if (ret_prefix != NULL)
		*ret_prefix = (uint32_t)prefix;
	return 0;
}
