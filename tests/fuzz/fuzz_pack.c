/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heads of journal objects: each input is decoded as it is, which must fail for want of a key; then it is taken for the
 * body of a head and sealed with the right key, as a broken or hostile writer that holds it would.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/err.h"
#include "vault/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static const struct lb_key key = {.bytes = {42}};
static const struct lb_uuid vault = {.bytes = {1}}, machine = {.bytes = {2}};
static const struct lb_place place = {.epoch = 3, .number = 4};

static void try_with_key(const uint8_t *data, size_t size_bytes)
{
	struct lb_head_id id = {.magic = "LBPACK01",
				.use = "lifeboat journal object 1",
				.vault = &vault,
				.machine = &machine,
				.key = &key,
				.place = place};
	uint32_t head_bytes = lb_head_bytes_for(size_bytes - 8);
	_cleanup_free_ uint8_t *head = calloc(1, head_bytes);
	_cleanup_(lb_pack_freep) struct lb_pack *p = NULL;
	uint8_t salt[LB_SALT_BYTES] = {7}, *body;

	if (head == NULL)
		return;
	body = head + LB_HEAD_PREFIX_BYTES;
	memcpy(body, data + 8, size_bytes - 8);
	memcpy(body, vault.bytes, 16);
	memcpy(body + 16, machine.bytes, 16);
	lb_put_le64(body + 32, place.epoch);
	lb_put_le64(body + 40, place.number);
	if (lb_head_seal(&id, salt, lb_get_le64(data), head, head_bytes) < 0)
		abort();
	if (lb_pack_decode(&vault, &machine, &key, &place, head, head_bytes, &p) == 0 &&
	    (p->n > LB_PACK_SEGMENTS_MAX || p->total_bytes > LB_PACK_BYTES_MAX))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct lb_pack *p;

	if (lb_pack_decode(&vault, &machine, &key, &place, data, size_bytes, &p) == 0)
		abort();
	if (size_bytes >= 8 + 512 && size_bytes < 1u << 19)
		try_with_key(data, size_bytes);
	return 0;
}
