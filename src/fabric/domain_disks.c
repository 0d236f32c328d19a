/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/domain_disks.h"

#include <errno.h>
#include <libxml/parser.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

LB_DEFINE_CLEANUP(xmlDoc *, xmlFreeDoc);
LB_DEFINE_CLEANUP(xmlChar *, xmlFree);

static const xmlNode *first(const xmlNode *node, const char *name)
{
	while (node != NULL && (node->type != XML_ELEMENT_NODE || strcmp((const char *)node->name, name) != 0))
		node = node->next;
	return node;
}

static xmlChar *attribute(const xmlNode *node, const char *name)
{
	return xmlGetNoNsProp((xmlNode *)(uintptr_t)node, (const xmlChar *)name);
}

static int look_at_disk(const xmlNode *disk, lb_domain_disk_fn fn, void *arg)
{
	_cleanup_(xmlFreep) xmlChar *device = attribute(disk, "device"), *path = NULL;
	const xmlNode *source = first(disk->children, "source");

	if (device != NULL && strcmp((char *)device, "disk") != 0 && strcmp((char *)device, "lun") != 0)
		return 0;
	if (source != NULL)
		path = attribute(source, "file");
	if (source != NULL && path == NULL)
		path = attribute(source, "dev");
	return fn(arg, (const char *)path);
}

int lb_domain_disks(const char *xml, lb_domain_disk_fn fn, void *arg)
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	const xmlNode *root, *devices, *disk;
	size_t size_bytes = strlen(xml);
	int r = 0;

	if (size_bytes > LB_DOMAIN_TEXT_BYTES_MAX)
		return lb_fail(-E2BIG, "the description of a domain has %zu bytes", size_bytes);
	if (strstr(xml, "<!DOCTYPE") == NULL && strstr(xml, "<!ENTITY") == NULL)
		doc = xmlReadMemory(xml, (int)size_bytes, NULL, "UTF-8",
				    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_COMPACT);
	root = doc != NULL ? first(xmlDocGetRootElement(doc), "domain") : NULL;
	if (root == NULL)
		return lb_fail(-EBADMSG, "libvirt describes a domain by what is none");
	devices = first(root->children, "devices");
	for (disk = devices != NULL ? first(devices->children, "disk") : NULL; r == 0 && disk != NULL;
	     disk = first(disk->next, "disk"))
		r = look_at_disk(disk, fn, arg);
	return r;
}
