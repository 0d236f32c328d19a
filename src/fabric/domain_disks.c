/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/domain_disks.h"

#include <string.h>

#include "fabric/description.h"

LB_DEFINE_CLEANUP(xmlChar *, xmlFree);

static const xmlNode *first(const xmlNode *node, const char *name)
{
	while (node != NULL && !lb_description_is(node, name))
		node = node->next;
	return node;
}

static int look_at_disk(const xmlNode *disk, lb_domain_disk_fn fn, void *arg)
{
	_cleanup_(xmlFreep) xmlChar *device = lb_description_attribute(disk, "device"), *path = NULL;
	const xmlNode *source = first(disk->children, "source");

	if (device != NULL && strcmp((char *)device, "disk") != 0 && strcmp((char *)device, "lun") != 0)
		return 0;
	if (source != NULL)
		path = lb_description_attribute(source, "file");
	if (source != NULL && path == NULL)
		path = lb_description_attribute(source, "dev");
	return fn(arg, (const char *)path);
}

int lb_domain_disks(const char *xml, lb_domain_disk_fn fn, void *arg)
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	const xmlNode *devices, *disk;
	int r;

	r = lb_description_parse(xml, "domain", &doc);
	if (r < 0)
		return r;
	devices = first(xmlDocGetRootElement(doc)->children, "devices");
	for (disk = devices != NULL ? first(devices->children, "disk") : NULL; r == 0 && disk != NULL;
	     disk = first(disk->next, "disk"))
		r = look_at_disk(disk, fn, arg);
	return r;
}
