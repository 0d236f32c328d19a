/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Resync compares the machine's disks with the frozen image of the end of the epoch before, by the hashes of the
 * vault's indexes (settle.h). Agents of older versions send keyed hashes of their blocks instead, and all of the image
 * is read for them. Images stay open between calls, at most LB_COMPARE_IMAGES_MAX of them.
 */
#include <pthread.h>

#include "process/settle.h"

#define LB_COMPARE_IMAGES_MAX 8
#define LB_COMPARE_IMAGE_CACHE_BYTES (16u << 20)
#define LB_COMPARE_IMAGE_IDLE_S 60
#define LB_COMPARE_SETTLED_IDLE_S 5 /* of one of which all was asked */
#define LB_COMPARE_HASHES_MAX 16384
#define LB_COMPARE_BLOCK_BYTES_MIN 512
#define LB_COMPARE_BLOCK_BYTES_MAX (1u << 20)
#define LB_COMPARE_BYTES_MAX (64u << 20) /* of image that one call may cover */

struct lb_compare_image {
	struct lb_image *image;
	struct lb_uuid machine;
	struct lb_position at;
	uint64_t settle_epoch; /* whose disks `settle` is about */
	struct lb_settle *settle;
	char name[LB_PROCESS_NAME_BYTES];
	unsigned int users;
	int64_t used_mono_ns;
	bool opening;
};

struct lb_compare {
	pthread_mutex_t lock;
	struct lb_compare_image images[LB_COMPARE_IMAGES_MAX];
};

void lb_compare_init(struct lb_compare *c);
void lb_compare_destroy(struct lb_compare *c);
/* Closes images that nobody used lately. */
void lb_compare_sweep(struct lb_process *p);

struct lb_compare_request {
	uint64_t epoch, offset_bytes, block_bytes;
	uint16_t disk;
	struct lb_key key;
	const uint8_t *hashes; /* n * LB_DIGEST_BYTES */
	size_t n;
};
/* Bit i (the lowest of byte 0 first) of `differ` tells whether block i differs; the last block of a disk may be short.
 */
int lb_compare_blocks(struct lb_machine *m, const struct lb_compare_request *request, uint8_t *differ);

/* Of `epoch`, the machine's newest; the answer's buffer is the caller's. As lb_settle_ask(); -EAGAIN later. */
int lb_compare_settle(struct lb_machine *m, uint64_t epoch, const struct lb_settle_question *question,
		      struct lb_settle_answer *answer);
