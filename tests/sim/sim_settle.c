/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process server's part of a resync: asks about blocks in random heaps, wherever they lie, believes a heap that
 * hashes as the frozen image's does, asks block by block about one that doesn't, and is sent the blocks that differ.
 */
#include <assert.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "sim/sim.h"

#define HEAP_BLOCKS_MAX 6
#define BATCH_HEAPS_MAX 12

static struct sim_settle *st(void)
{
	return &sim->process.settle;
}

static bool is_zero(unsigned int disk, uint64_t block)
{
	static const uint8_t zeroes[SIM_BLOCK_BYTES];

	return memcmp(sim->process.frozen[disk] + block * SIM_BLOCK_BYTES, zeroes, SIM_BLOCK_BYTES) == 0;
}

static bool is_open(unsigned int disk, uint64_t block)
{
	return !is_zero(disk, block) &&
	       (st()->block[disk][block] == SIM_UNASKED || st()->block[disk][block] == SIM_ALONE);
}

static void add_heap(unsigned int disk, uint64_t block)
{
	struct sim_heap *heap = &st()->heap[st()->n_heaps++];
	bool alone = st()->block[disk][block] == SIM_ALONE;
	uint64_t wanted = alone ? 1 : 1 + sim_random() % HEAP_BLOCKS_MAX;

	heap->n = 0;
	while (heap->n < wanted) {
		heap->disk[heap->n] = disk;
		heap->block[heap->n++] = block;
		st()->block[disk][block] = SIM_ASKED;
		for (int tries = 0; tries < 20; tries++) {
			disk = (unsigned int)(sim_random() % SIM_DISKS);
			block = sim_random() % SIM_BLOCKS;
			if (!is_zero(disk, block) && st()->block[disk][block] == SIM_UNASKED)
				break;
		}
		if (is_zero(disk, block) || st()->block[disk][block] != SIM_UNASKED)
			return;
	}
}

static void take_hashes(const uint8_t *hashes)
{
	for (unsigned int i = 0; i < st()->n_heaps; i++) {
		static uint8_t joined[HEAP_BLOCKS_MAX * SIM_BLOCK_BYTES];
		const struct sim_heap *heap = &st()->heap[i];
		uint8_t hash[LB_HRL_HASH_BYTES];
		bool same;

		for (unsigned int k = 0; k < heap->n; k++)
			memcpy(joined + k * SIM_BLOCK_BYTES,
			       sim->process.frozen[heap->disk[k]] + heap->block[k] * SIM_BLOCK_BYTES, SIM_BLOCK_BYTES);
		lb_hrl_frame_hash(joined, heap->n * SIM_BLOCK_BYTES, hash);
		same = memcmp(hash, hashes + i * LB_HRL_HASH_BYTES, sizeof(hash)) == 0;
		for (unsigned int k = 0; k < heap->n; k++)
			st()->block[heap->disk[k]][heap->block[k]] = same          ? SIM_SAME
								     : heap->n > 1 ? SIM_ALONE
										   : SIM_DIFFERS;
		sim->process.settled++;
	}
	st()->n_heaps = 0;
}

static json_t *print_heaps(void)
{
	_cleanup_buf_ struct lb_buf bytes = LB_BUF(1 << 20);
	_cleanup_free_ char *text = NULL;

	for (unsigned int i = 0; i < st()->n_heaps; i++) {
		const struct sim_heap *heap = &st()->heap[i];
		uint8_t piece[14];

		lb_put_le16(piece, (uint16_t)heap->n);
		assert(lb_buf_append(&bytes, piece, 2) == 0);
		for (unsigned int k = 0; k < heap->n; k++) {
			lb_put_le16(piece, (uint16_t)heap->disk[k]);
			lb_put_le64(piece + 2, heap->block[k] * SIM_BLOCK_BYTES);
			lb_put_le32(piece + 10, SIM_BLOCK_BYTES);
			assert(lb_buf_append(&bytes, piece, sizeof(piece)) == 0);
		}
	}
	text = lb_base64_encode(bytes.data, bytes.size_bytes);
	return json_pack("{s:I,s:s}", "batch", (json_int_t)st()->batch, "entries", text);
}

static json_t *print_units(unsigned int disk, uint64_t first, uint64_t n)
{
	_cleanup_free_ char *send_text = NULL, *zero_text = NULL;
	uint8_t send[SIM_BLOCKS / 8] = {0}, zero[SIM_BLOCKS / 8] = {0};

	for (uint64_t i = 0; i < n; i++) {
		if (is_zero(disk, first + i))
			zero[i / 8] |= (uint8_t)(1u << i % 8);
		else if (st()->block[disk][first + i] == SIM_DIFFERS)
			send[i / 8] |= (uint8_t)(1u << i % 8);
	}
	send_text = lb_base64_encode(send, (n + 7) / 8);
	zero_text = lb_base64_encode(zero, (n + 7) / 8);
	return json_pack("{s:s,s:s,s:s}", "send", send_text, "zero", zero_text, "mixed", "");
}

/* What was settled for another session, or another image, is nothing. */
static void know(uint64_t epoch, const char *session)
{
	if (st()->epoch == epoch && strcmp(st()->session, session) == 0)
		return;
	memset(st()->block, 0, sizeof(st()->block));
	st()->n_heaps = 0;
	st()->batch = sim_random() >> 2;
	st()->epoch = epoch;
	assert(strlen(session) < sizeof(st()->session));
	strcpy(st()->session, session);
}

json_t *sim_settle(const json_t *body)
{
	_cleanup_free_ uint8_t *hashes = NULL;
	uint64_t epoch, disk, offset, length, batch = 0, first, n;
	const char *session, *text;
	size_t size_bytes = 0;

	if (lb_json_get_u64(body, "epoch", &epoch) < 0 || lb_json_get_str(body, "session", &session) < 0 ||
	    lb_json_get_u64(body, "disk", &disk) < 0 || lb_json_get_u64(body, "offset", &offset) < 0 ||
	    lb_json_get_u64(body, "length", &length) < 0 || disk >= SIM_DISKS || (offset + length) > SIM_DISK_BYTES ||
	    offset % SIM_BLOCK_BYTES != 0)
		return NULL;
	know(epoch, session);
	if (lb_json_get_u64(body, "batch", &batch) == 0 && lb_json_get_str(body, "hashes", &text) == 0 &&
	    lb_base64_decode(text, 1 << 20, &hashes, &size_bytes) == 0 && batch == st()->batch &&
	    size_bytes == st()->n_heaps * (size_t)LB_HRL_HASH_BYTES) {
		take_hashes(hashes);
		st()->batch++;
	}
	if (sim_random() % 16 == 0)
		return json_object(); /* ask again */
	first = offset / SIM_BLOCK_BYTES;
	n = length / SIM_BLOCK_BYTES;
	if (st()->n_heaps == 0)
		for (uint64_t i = 0; i < n && st()->n_heaps < BATCH_HEAPS_MAX; i++)
			if (is_open((unsigned int)disk, first + i))
				add_heap((unsigned int)disk, first + i);
	return st()->n_heaps > 0 ? print_heaps() : print_units((unsigned int)disk, first, n);
}
