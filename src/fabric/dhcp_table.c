/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/dhcp_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

LB_DEFINE_CLEANUP(xmlDoc *, xmlFreeDoc);

static bool is(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

static void attribute(const xmlNode *node, const char *name, char text[LB_DHCP_WHO_BYTES / 2])
{
	xmlChar *value = xmlGetNoNsProp((xmlNode *)(uintptr_t)node, (const xmlChar *)name);

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
		if (!is(dhcp, "dhcp"))
			continue;
		look->serves = true;
		for (const xmlNode *host = dhcp->children; host != NULL; host = host->next)
			if (is(host, "host"))
				look_at_host(host, mac, address, look);
	}
	if (look->serves && own == address)
		snprintf(look->other, sizeof(look->other), "it has that address itself");
}

int lb_dhcp_look(const char *xml, const char *mac, uint32_t address, struct lb_dhcp_look *ret_look)
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	struct lb_dhcp_look look = {0};
	const xmlNode *root;
	size_t size_bytes = strlen(xml);

	if (size_bytes > LB_DHCP_TEXT_BYTES_MAX)
		return lb_fail(-E2BIG, "the description of a network has %zu bytes", size_bytes);
	if (strstr(xml, "<!DOCTYPE") == NULL && strstr(xml, "<!ENTITY") == NULL)
		doc = xmlReadMemory(xml, (int)size_bytes, NULL, "UTF-8",
				    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_COMPACT);
	root = doc != NULL ? xmlDocGetRootElement(doc) : NULL;
	if (root == NULL || !is(root, "network"))
		return lb_fail(-EBADMSG, "libvirt describes a network by what is none");
	for (const xmlNode *ip = root->children; ip != NULL; ip = ip->next)
		if (is(ip, "ip"))
			look_at_ip(ip, mac, address, &look);
	*ret_look = look;
	return 0;
}
