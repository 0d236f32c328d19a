/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What libvirt describes its objects by, parsed: bounded, without entities, of the kind that was asked for. */
#include <libxml/tree.h>
#include <stdbool.h>

#include "base/cleanup.h"

#define LB_DESCRIPTION_BYTES_MAX (4u << 20)

LB_DEFINE_CLEANUP(xmlDoc *, xmlFreeDoc);

/* `kind`: the root's name, "domain" or "network". -E2BIG; -EBADMSG when it is none. The caller's, by _cleanup_(). */
int lb_description_parse(const char *xml, const char *kind, xmlDoc **ret_doc);
bool lb_description_is(const xmlNode *node, const char *name);
/* NULL: it has none. xmlFree(). */
xmlChar *lb_description_attribute(const xmlNode *node, const char *name);
