/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/*
 * Every look into the block layer's structures is here. The structs name only the fields that are read; libbpf
 * relocates them against the running kernel's BTF, and what differs between kernels is told by the field's presence.
 */
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct page {
	unsigned long flags;
};

struct bio_vec {
	struct page *bv_page;
	unsigned int bv_len;
	unsigned int bv_offset;
};

struct bvec_iter {
	__u64 bi_sector;
	unsigned int bi_size;
	unsigned int bi_idx;
	unsigned int bi_bvec_done;
} __attribute__((packed));

struct gendisk {
	int major;
	int first_minor;
};

struct block_device {
	struct gendisk *bd_disk;
};

struct request_queue {
	struct gendisk *disk;
};

struct bio_crypt_ctx;

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	unsigned int bi_opf;
	__u8 bi_status;
	struct bvec_iter bi_iter;
	struct bio_vec *bi_io_vec;
	struct bio_crypt_ctx *bi_crypt_context;
};

/* Before 5.12 */
struct bio___disk {
	struct gendisk *bi_disk;
};

enum mq_rq_state { MQ_RQ_IDLE = 0 };

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
	enum mq_rq_state state;
};

/* Before 5.17 the disk hung on the request itself. */
struct request___disk {
	struct gendisk *rq_disk;
};

enum req_op {
	REQ_OP_WRITE = 1,
	REQ_OP_DISCARD = 3,
	REQ_OP_SECURE_ERASE = 5,
	REQ_OP_WRITE_ZEROES = 9,
	REQ_OP_DRV_OUT = 35,
};

/* Before 6.0 the operations were an enum of another name. */
enum req_opf {
	REQ_OP_WRITE___opf = 1,
	REQ_OP_DISCARD___opf = 3,
	REQ_OP_SECURE_ERASE___opf = 5,
	REQ_OP_WRITE_ZEROES___opf = 9,
	REQ_OP_DRV_OUT___opf = 35,
};

#pragma clang attribute pop

#define LB_OP_MASK 0xffu
#define LB_SECTOR_SHIFT 9

#define LB_OP(name)                                                                                                    \
	((unsigned int)(bpf_core_enum_value_exists(enum req_op, name)                                                  \
				? bpf_core_enum_value(enum req_op, name)                                               \
				: bpf_core_enum_value(enum req_opf, name##___opf)))

enum lb_op { LB_OP_IGNORE, LB_OP_WRITE, LB_OP_ZERO, LB_OP_DISCARD, LB_OP_PASSTHROUGH, LB_OP_UNKNOWN };

static __always_inline enum lb_op lb_op_of(unsigned int flags)
{
	unsigned int op = flags & LB_OP_MASK;

	if (op == LB_OP(REQ_OP_WRITE))
		return LB_OP_WRITE;
	/* The block layer's own convention: an odd operation sends data or changes the disk. */
	if ((op & 1) == 0)
		return LB_OP_IGNORE;
	if (op == LB_OP(REQ_OP_WRITE_ZEROES))
		return LB_OP_ZERO;
	if (op == LB_OP(REQ_OP_DISCARD) || op == LB_OP(REQ_OP_SECURE_ERASE))
		return LB_OP_DISCARD;
	if (op == LB_OP(REQ_OP_DRV_OUT))
		return LB_OP_PASSTHROUGH;
	return LB_OP_UNKNOWN;
}

static __always_inline __u32 lb_disk_device(struct gendisk *disk)
{
	return (__u32)disk->major << 20 | (__u32)disk->first_minor;
}

static __always_inline __u32 lb_request_device(struct request *rq)
{
	if (bpf_core_field_exists(rq->q->disk))
		return lb_disk_device(rq->q->disk);
	struct request___disk *old = (void *)rq;
	struct gendisk *disk = BPF_CORE_READ(old, rq_disk);
	return (__u32)BPF_CORE_READ(disk, major) << 20 | (__u32)BPF_CORE_READ(disk, first_minor);
}

static __always_inline __u32 lb_bio_device(struct bio *bio)
{
	if (bpf_core_field_exists(bio->bi_bdev))
		return lb_disk_device(bio->bi_bdev->bd_disk);
	struct bio___disk *old = (void *)bio;
	struct gendisk *disk = BPF_CORE_READ(old, bi_disk);
	return (__u32)BPF_CORE_READ(disk, major) << 20 | (__u32)BPF_CORE_READ(disk, first_minor);
}

static __always_inline int lb_request_started(struct request *rq)
{
	return (unsigned int)rq->state != bpf_core_enum_value(enum mq_rq_state, MQ_RQ_IDLE);
}

/* A bio's position, read at once. Its layout is checked against the kernel's: constants after relocation. */
struct lb_iter {
	__u64 sector;
	__u32 size;
	__u32 index;
	__u32 done;
	__u32 pad;
};

#define LB_ITER_BYTES 20

static __always_inline int lb_layout_known(void)
{
	return bpf_core_field_offset(struct bvec_iter, bi_sector) == 0 &&
	       bpf_core_field_offset(struct bvec_iter, bi_size) == 8 &&
	       bpf_core_field_offset(struct bvec_iter, bi_idx) == 12 &&
	       bpf_core_field_offset(struct bvec_iter, bi_bvec_done) == 16 &&
	       bpf_core_field_offset(struct bio_vec, bv_page) == 0 &&
	       bpf_core_field_offset(struct bio_vec, bv_len) == 8 &&
	       bpf_core_field_offset(struct bio_vec, bv_offset) == 12 && bpf_core_type_size(struct bio_vec) == 16;
}

struct lb_bvec {
	__u64 page;
	__u32 length;
	__u32 offset;
};

static __always_inline long lb_bio_iter(__u64 bio, struct lb_iter *iter)
{
	struct bio *b = (void *)bio;
	return bpf_probe_read_kernel(iter, LB_ITER_BYTES, __builtin_preserve_access_index(&b->bi_iter));
}

static __always_inline int lb_bio_encrypted(__u64 bio)
{
	struct bio *b = (void *)bio;

	if (!bpf_core_field_exists(b->bi_crypt_context))
		return 0;
	return BPF_CORE_READ(b, bi_crypt_context) != 0;
}
