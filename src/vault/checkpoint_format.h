/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The layout of checkpoints, shared by who writes (checkpoint_put.c) and who reads them (checkpoint.c). */
#include <zstd.h>

#include "vault/checkpoint.h"

#define LB_CHECKPOINT_BODY_BYTES 256 /* before the table of frames */
#define LB_CHECKPOINT_ENTRY_BYTES 16
#define LB_CHECKPOINT_STORED_BYTES_MAX (ZSTD_COMPRESSBOUND(LB_CHECKPOINT_FRAME_BYTES) + LB_TAG_BYTES)
#define LB_CHECKPOINT_AAD_BYTES 56
#define LB_CHECKPOINT_SECTORS_MAX (UINT64_C(1) << 54) /* 2^63 bytes */

/* a frame, raw: u32 kind, u32 count, u16 disk, 6 zeroes, then the records */
#define LB_CHECKPOINT_FRAME_HEAD_BYTES 16
#define LB_CHECKPOINT_OF_SEGMENTS 1
#define LB_CHECKPOINT_OF_EXTENTS 2
#define LB_CHECKPOINT_SEGMENT_BYTES 68
#define LB_CHECKPOINT_EXTENT_BYTES_MAX 48

int lb_checkpoint_part_name(char name[LB_OBJECT_NAME_BYTES], const struct lb_checkpoint *c, uint32_t part);
struct lb_head_id lb_checkpoint_head_id(const struct lb_uuid *vault, const struct lb_uuid *machine,
					const struct lb_key *key, const struct lb_place *place);
void lb_checkpoint_body_encode(const struct lb_uuid *vault, const struct lb_checkpoint *c, uint8_t *body);
void lb_checkpoint_frame_aad(const struct lb_uuid *vault, const struct lb_checkpoint *c, uint32_t i, uint32_t raw_bytes,
			     uint8_t nonce[LB_NONCE_BYTES], uint8_t aad[LB_CHECKPOINT_AAD_BYTES]);
