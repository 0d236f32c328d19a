/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/description.h"

#include <errno.h>
#include <libxml/parser.h>
#include <string.h>

#include "base/err.h"

bool lb_description_is(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

xmlChar *lb_description_attribute(const xmlNode *node, const char *name)
{
	return xmlGetNoNsProp((xmlNode *)(uintptr_t)node, (const xmlChar *)name);
}

int lb_description_parse(const char *xml, const char *kind, xmlDoc **ret_doc)
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	const xmlNode *root;
	size_t size_bytes = strlen(xml);

	if (size_bytes > LB_DESCRIPTION_BYTES_MAX)
		return lb_fail(-E2BIG, "the description of a %s has %zu bytes", kind, size_bytes);
	if (strstr(xml, "<!DOCTYPE") == NULL && strstr(xml, "<!ENTITY") == NULL)
		doc = xmlReadMemory(xml, (int)size_bytes, NULL, "UTF-8",
				    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_COMPACT);
	root = doc != NULL ? xmlDocGetRootElement(doc) : NULL;
	if (root == NULL || !lb_description_is(root, kind))
		return lb_fail(-EBADMSG, "libvirt describes a %s by what is none", kind);
	*ret_doc = lb_steal_ptr(doc);
	return 0;
}
