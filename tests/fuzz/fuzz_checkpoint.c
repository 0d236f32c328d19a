/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints and the maps of spans, as a broken or hostile writer that holds the key would make them: the first byte
 * says whether the rest is the body of a head or the raw bytes of frames, each with its length in front.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vault/checkpoint.h"
#include "vault/checkpoint_format.h"
#include "vault/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static const struct lb_key key = {.bytes = {42}};
static const struct lb_uuid vault = {.bytes = {1}}, machine = {.bytes = {2}};
static const struct lb_place place = {.epoch = 3, .number = 4};

static void try_head(const uint8_t *data, size_t size_bytes)
{
	struct lb_head_id id = lb_checkpoint_head_id(&vault, &machine, &key, &place);
	uint32_t head_bytes = lb_head_bytes_for(size_bytes);
	_cleanup_(lb_checkpoint_freep) struct lb_checkpoint *c = NULL;
	_cleanup_free_ uint8_t *head = calloc(1, head_bytes);
	uint8_t salt[LB_SALT_BYTES] = {7}, *body;

	if (head == NULL)
		return;
	body = head + LB_HEAD_PREFIX_BYTES;
	memcpy(body, data, size_bytes);
	memcpy(body, vault.bytes, 16);
	memcpy(body + 16, machine.bytes, 16);
	lb_put_le64(body + 32, place.epoch);
	lb_put_le64(body + 40, place.number);
	if (lb_head_seal(&id, salt, head_bytes, head, head_bytes) < 0)
		abort();
	(void)lb_checkpoint_decode(&vault, &machine, &key, &place, head, head_bytes, &c);
}

struct order {
	uint64_t at;
};

static int check_order(void *arg, const struct lb_map_extent *x)
{
	struct order *o = arg;

	if (x->start < o->at || x->sectors == 0)
		abort();
	o->at = x->start + x->sectors;
	return 0;
}

static void check_map(const struct lb_map *map)
{
	for (uint32_t i = 0; i < lb_map_disks(map); i++)
		lb_map_walk(map, lb_map_disk_id(map, i), 0, LB_CHECKPOINT_SECTORS_MAX, check_order, &(struct order){0});
}

static int add_bytes(void *arg, uint64_t epoch, uint64_t number, uint64_t raw_bytes)
{
	(void)epoch;
	(void)number;
	*(uint64_t *)arg += raw_bytes;
	return 0;
}

/* As a reader lays the maps of spans over one another, and who folds counts what they refer to. */
static void lay_over(const struct lb_map *map)
{
	_cleanup_(lb_map_freep) struct lb_map *image = NULL;
	uint64_t there = 0, here = 0;

	if (lb_map_new(&image) < 0 || lb_map_overlay(image, map) < 0)
		return;
	check_map(image);
	if (lb_map_objects(map, add_bytes, &there) < 0 || lb_map_objects(image, add_bytes, &here) < 0 || here != there)
		abort();
}

static void try_frames(const uint8_t *data, size_t size_bytes)
{
	_cleanup_(lb_map_freep) struct lb_map *map = NULL;

	if (lb_map_new(&map) < 0)
		return;
	while (size_bytes >= 2) {
		size_t n = LB_MIN(lb_get_le16(data), size_bytes - 2);

		if (lb_checkpoint_frame_apply(data + 2, n, map) < 0)
			break;
		data += 2 + n;
		size_bytes -= 2 + n;
	}
	check_map(map);
	lay_over(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	if (size_bytes > 1 && (data[0] & 1) == 0)
		try_frames(data + 1, size_bytes - 1);
	else if (size_bytes > LB_CHECKPOINT_BODY_BYTES && size_bytes < LB_HEAD_BYTES_MAX / 2)
		try_head(data + 1, size_bytes - 1);
	return 0;
}
