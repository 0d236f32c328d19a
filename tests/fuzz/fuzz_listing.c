/* SPDX-License-Identifier: Apache-2.0 */
/* XML that a store over HTTP answers with. The first byte says whose; the rest is a page of a list and an error. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	char code[LB_CLOUD_CODE_BYTES], message[LB_CLOUD_MESSAGE_BYTES];
	_cleanup_(lb_listing_clear) struct lb_listing l = {0};

	if (size_bytes < 1)
		return 0;
	if (lb_listing_parse((data[0] & 1) != 0 ? LB_LISTING_S3 : LB_LISTING_AZURE, data + 1, size_bytes - 1, &l) ==
	    0) {
		if (l.n_items > LB_LISTING_ITEMS_MAX || l.n_folders > LB_LISTING_ITEMS_MAX ||
		    (l.next != NULL && strlen(l.next) > LB_LISTING_MARKER_BYTES_MAX))
			abort();
		for (size_t i = 0; i < l.n_items; i++)
			if (l.items[i].name == NULL)
				abort();
	}
	lb_cloud_error_parse(data + 1, size_bytes - 1, code, message);
	if (memchr(code, 0, sizeof(code)) == NULL || memchr(message, 0, sizeof(message)) == NULL)
		abort();
	return 0;
}
