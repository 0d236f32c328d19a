/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The XML that object stores answer with. Pure functions over bytes from the network: no entity is expanded, nothing is
 * fetched, a document type is refused, sizes are bounded before they are taken. -EBADMSG for what is no such answer.
 */
#include <stddef.h>
#include <stdint.h>

#define LB_LISTING_BYTES_MAX (16u << 20) /* one page of it */
#define LB_LISTING_PAGE_ITEMS 1000       /* asked for */
#define LB_LISTING_ITEMS_MAX 10000       /* taken */
#define LB_LISTING_MARKER_BYTES_MAX 4096
#define LB_CLOUD_CODE_BYTES 64
#define LB_CLOUD_MESSAGE_BYTES 256

enum lb_listing_format { LB_LISTING_AZURE, LB_LISTING_S3 };

struct lb_listing {
	struct lb_listing_item {
		char *name; /* as the store gives it: not checked */
		uint64_t size_bytes;
	} * items;
	size_t n_items;
	char **folders; /* with their slash, as given */
	size_t n_folders;
	char *next; /* the marker of the next page, or NULL */
};

int lb_listing_parse(enum lb_listing_format format, const void *data, size_t size_bytes,
		     struct lb_listing *ret_listing);
void lb_listing_clear(struct lb_listing *l); /* for _cleanup_() */

/* "BlobNotFound" and the first line of its message, made printable. Both empty when the bytes are no error's. */
void lb_cloud_error_parse(const void *data, size_t size_bytes, char ret_code[LB_CLOUD_CODE_BYTES],
			  char ret_message[LB_CLOUD_MESSAGE_BYTES]);
