/* SPDX-License-Identifier: Apache-2.0 */
/* vault.json: parsed before anything is authenticated, for it is what names the key. What parses, prints and parses
 * again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vault/slots.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	_cleanup_buf_ struct lb_buf text = LB_BUF(LB_VAULT_JSON_BYTES_MAX);
	struct lb_slots slots, again;

	if (lb_slots_parse(data, size_bytes, &slots) < 0)
		return 0;
	if (lb_slots_print(&slots, &text) < 0 || lb_slots_parse(text.data, text.size_bytes, &again) < 0)
		abort();
	if (memcmp(slots.key_id, again.key_id, sizeof(slots.key_id)) != 0 || slots.has_previous != again.has_previous ||
	    memcmp(slots.previous, again.previous, sizeof(slots.previous)) != 0)
		abort();
	for (int i = 0; i < LB_SLOTS; i++)
		if (slots.slot[i].used != again.slot[i].used || slots.slot[i].n != again.slot[i].n ||
		    memcmp(slots.slot[i].wrapped, again.slot[i].wrapped, sizeof(slots.slot[i].wrapped)) != 0)
			abort();
	return 0;
}
