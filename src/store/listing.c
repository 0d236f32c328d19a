/* SPDX-License-Identifier: Apache-2.0 */
#include "store/listing.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/text.h"

#define DEPTH_MAX 8
#define ERROR_BYTES_MAX (64u << 10)

static const struct format {
	const char *root, *list, *item, *name, *size_parent, *size, *folder, *folder_name, *next;
} formats[] = {
	[LB_LISTING_AZURE] = {"EnumerationResults", "Blobs", "Blob", "Name", "Properties", "Content-Length",
			      "BlobPrefix", "Name", "NextMarker"},
	[LB_LISTING_S3] = {"ListBucketResult", NULL, "Contents", "Key", NULL, "Size", "CommonPrefixes", "Prefix",
			   "NextContinuationToken"},
};

LB_DEFINE_CLEANUP(xmlDoc *, xmlFreeDoc);

static bool is(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

static const xmlNode *child(const xmlNode *parent, const char *name)
{
	for (const xmlNode *n = parent != NULL ? parent->children : NULL; n != NULL; n = n->next)
		if (is(n, name))
			return n;
	return NULL;
}

/* The text of an element that has nothing else in it, or NULL. */
static const char *text_of(const xmlNode *node)
{
	if (node == NULL)
		return NULL;
	if (node->children == NULL)
		return "";
	if (node->children->next != NULL ||
	    (node->children->type != XML_TEXT_NODE && node->children->type != XML_CDATA_SECTION_NODE))
		return NULL;
	return (const char *)node->children->content;
}

static int take_text(const xmlNode *node, size_t length_max, char **ret_text)
{
	const char *text = text_of(node);

	if (text == NULL || strnlen(text, length_max + 1) > length_max)
		return lb_fail(-EBADMSG, "a listing has an element without its text, or one that is too long");
	*ret_text = strdup(text);
	return *ret_text != NULL ? 0 : lb_fail(-ENOMEM, "out of memory for a listing");
}

static int take_item(const struct format *f, const xmlNode *node, struct lb_listing *l)
{
	const char *size = text_of(child(f->size_parent != NULL ? child(node, f->size_parent) : node, f->size));
	struct lb_listing_item item = {0};

	if (size == NULL || lb_u64_parse(size, INT64_MAX, &item.size_bytes) < 0)
		return lb_fail(-EBADMSG, "a listing has an object without a size");
	if (take_text(child(node, f->name), LB_LISTING_MARKER_BYTES_MAX, &item.name) < 0)
		return -EBADMSG;
	l->items[l->n_items++] = item;
	return 0;
}

static size_t count(const xmlNode *list, const char *name)
{
	size_t n = 0;

	for (const xmlNode *i = list->children; i != NULL; i = i->next)
		n += is(i, name);
	return n;
}

static int take_all(const struct format *f, const xmlNode *list, struct lb_listing *l)
{
	size_t n_items = count(list, f->item), n_folders = count(list, f->folder);
	int r = 0;

	if (n_items > LB_LISTING_ITEMS_MAX || n_folders > LB_LISTING_ITEMS_MAX)
		return lb_fail(-EBADMSG, "one page of a listing has more than %d entries", LB_LISTING_ITEMS_MAX);
	l->items = calloc(n_items + 1, sizeof(*l->items));
	l->folders = calloc(n_folders + 1, sizeof(*l->folders));
	if (l->items == NULL || l->folders == NULL)
		return lb_fail(-ENOMEM, "out of memory for a listing");
	for (const xmlNode *i = list->children; r == 0 && i != NULL; i = i->next) {
		if (is(i, f->item)) {
			r = take_item(f, i, l);
		} else if (is(i, f->folder)) {
			r = take_text(child(i, f->folder_name), LB_LISTING_MARKER_BYTES_MAX, &l->folders[l->n_folders]);
			l->n_folders += r == 0;
		}
	}
	return r;
}

static int take_next(const struct format *f, const xmlNode *root, struct lb_listing *l)
{
	const char *truncated = text_of(child(root, "IsTruncated"));
	const xmlNode *next = child(root, f->next);
	int r = 0;

	if (next != NULL)
		r = take_text(next, LB_LISTING_MARKER_BYTES_MAX, &l->next);
	if (r == 0 && l->next != NULL && l->next[0] == '\0') {
		free(l->next);
		l->next = NULL;
	}
	if (r == 0 && truncated != NULL && (strcmp(truncated, "true") == 0) != (l->next != NULL))
		r = lb_fail(-EBADMSG, "a listing says that it goes on, but not where");
	return r;
}

static bool holds(const uint8_t *data, size_t size_bytes, const char *text)
{
	return data != NULL && memmem(data, size_bytes, text, strlen(text)) != NULL;
}

/* NULL for what isn't plain XML in UTF-8. */
static xmlDoc *read_xml(const uint8_t *data, size_t size_bytes)
{
	if (data == NULL || size_bytes == 0 || holds(data, size_bytes, "<!DOCTYPE") ||
	    holds(data, size_bytes, "<!ENTITY"))
		return NULL;
	return xmlReadMemory((const char *)data, (int)size_bytes, NULL, "UTF-8",
			     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOCDATA |
				     XML_PARSE_COMPACT);
}

int lb_listing_parse(enum lb_listing_format format, const void *data, size_t size_bytes, struct lb_listing *ret_listing)
{
	_cleanup_(lb_listing_clear) struct lb_listing l = {0};
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	const struct format *f = &formats[format];
	const xmlNode *root, *list;
	int r;

	if (size_bytes > LB_LISTING_BYTES_MAX)
		return lb_fail(-EBADMSG, "one page of a listing has more than %u bytes", LB_LISTING_BYTES_MAX);
	doc = read_xml(data, size_bytes);
	root = doc != NULL ? xmlDocGetRootElement(doc) : NULL;
	if (root == NULL || !is(root, f->root))
		return lb_fail(-EBADMSG, "the answer to a listing is damaged or no listing");
	list = f->list != NULL ? child(root, f->list) : root;
	if (list == NULL)
		return lb_fail(-EBADMSG, "the answer to a listing has no list");
	r = take_all(f, list, &l);
	if (r == 0)
		r = take_next(f, root, &l);
	if (r < 0)
		return r;
	*ret_listing = l;
	l = (struct lb_listing){0};
	return 0;
}

void lb_listing_clear(struct lb_listing *l)
{
	for (size_t i = 0; i < l->n_items; i++)
		free(l->items[i].name);
	for (size_t i = 0; i < l->n_folders; i++)
		free(l->folders[i]);
	free(l->items);
	free(l->folders);
	free(l->next);
	*l = (struct lb_listing){0};
}

/* ---- errors --------------------------------------------------------------------------------------------- */

static void copy_line(const char *text, char *out, size_t room)
{
	size_t n = 0;

	for (; text != NULL && text[n] != '\0' && text[n] != '\n' && n + 1 < room; n++)
		out[n] = text[n] >= ' ' && text[n] < 0x7f ? text[n] : '?';
	out[n] = '\0';
}

void lb_cloud_error_parse(const void *data, size_t size_bytes, char ret_code[LB_CLOUD_CODE_BYTES],
			  char ret_message[LB_CLOUD_MESSAGE_BYTES])
{
	_cleanup_(xmlFreeDocp) xmlDoc *doc = NULL;
	const xmlNode *root;

	ret_code[0] = ret_message[0] = '\0';
	if (size_bytes > ERROR_BYTES_MAX)
		return;
	doc = read_xml(data, size_bytes);
	root = doc != NULL ? xmlDocGetRootElement(doc) : NULL;
	if (root == NULL || !is(root, "Error"))
		return;
	copy_line(text_of(child(root, "Code")), ret_code, LB_CLOUD_CODE_BYTES);
	copy_line(text_of(child(root, "Message")), ret_message, LB_CLOUD_MESSAGE_BYTES);
}
