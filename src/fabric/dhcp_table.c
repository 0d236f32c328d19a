/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/dhcp_table.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "fabric/description.h"

static void attribute(const xmlNode *node, const char *name, char text[LB_DHCP_WHO_BYTES / 2])
{
	xmlChar *value = lb_description_attribute(node, name);

	snprintf(text, LB_DHCP_WHO_BYTES / 2, "%s", value != NULL ? (const char *)value : "");
	xmlFree(value);
}

static bool read_address(const char *text, uint32_t *ret_address)
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1)
		return false;
	*ret_address = ntohl(in.s_addr);
	return true;
}

/* Of an <ip>: false when it is no IPv4 one. */
static bool read_range(const xmlNode *ip, uint32_t *ret_own, uint32_t *ret_mask)
{
	char address[LB_DHCP_WHO_BYTES / 2], mask[LB_DHCP_WHO_BYTES / 2], prefix[LB_DHCP_WHO_BYTES / 2];
	uint64_t bits = 0;

	attribute(ip, "address", address);
	attribute(ip, "netmask", mask);
	attribute(ip, "prefix", prefix);
	if (!read_address(address, ret_own))
		return false;
	if (mask[0] != '\0')
		return read_address(mask, ret_mask);
	if (lb_u64_parse(prefix, 32, &bits) < 0 || bits == 0)
		return false;
	*ret_mask = UINT32_MAX << (32 - bits);
	return true;
}

static void look_at_host(const xmlNode *host, const char *mac, uint32_t address, struct lb_dhcp_look *look)
{
	char theirs[LB_DHCP_WHO_BYTES / 2], ip[LB_DHCP_WHO_BYTES / 2], name[LB_DHCP_WHO_BYTES / 2];
	uint32_t given = 0;
	bool same_card;

	attribute(host, "mac", theirs);
	attribute(host, "ip", ip);
	attribute(host, "name", name);
	same_card = strcasecmp(theirs, mac) == 0;
	if (!read_address(ip, &given) || (!same_card && given != address))
		return;
	if (same_card && given == address)
		look->there = true;
	else if (same_card)
		snprintf(look->other, sizeof(look->other), "it gives card %s the address %.20s", mac, ip);
	else
		snprintf(look->other, sizeof(look->other), "it keeps that address for %.40s%s%.60s%s",
			 theirs[0] != '\0' ? theirs : "another", name[0] != '\0' ? " (" : "", name,
			 name[0] != '\0' ? ")" : "");
}

static void look_at_ip(const xmlNode *ip, const char *mac, uint32_t address, struct lb_dhcp_look *look)
{
	uint32_t own = 0, mask = 0;

	if (!read_range(ip, &own, &mask) || ((own ^ address) & mask) != 0)
		return;
	for (const xmlNode *dhcp = ip->children; dhcp != NULL; dhcp = dhcp->next) {
		if (!lb_description_is(dhcp, "dhcp"))
			continue;
		look->serves = true;
		for (const xmlNode *host = dhcp->children; host != NULL; host = host->next)
			if (lb_description_is(host, "host"))
				look_at_host(host, mac, address, look);
	}
	if (look->serves && own == address)
		snprintf(look->other, sizeof(look->other), "it has that address itself");
}

int lb_dhcp_look(const char *xml, const char *mac, uint32_t address, struct lb_dhcp_look *ret_look)
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	struct lb_dhcp_look look = {0};
	int r;

	r = lb_description_parse(xml, "network", &doc);
	if (r < 0)
		return r;
	for (const xmlNode *ip = xmlDocGetRootElement(doc)->children; ip != NULL; ip = ip->next)
		if (lb_description_is(ip, "ip"))
			look_at_ip(ip, mac, address, &look);
	*ret_look = look;
	return 0;
}
