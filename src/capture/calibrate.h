/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once
/* What user space and the calibrating program exchange. */
#include <linux/types.h>

#define LB_NONCE_WORDS 4

struct lb_calibration {
	/* in */
	__u64 frame[2]; /* of two locked pages */
	__u64 nonce[2][LB_NONCE_WORDS];
	__u64 step_bytes; /* the direct map begins at a multiple of it */
	__u32 page_shift;
	__u32 pipe_fd; /* holds the two pages */
	/* out */
	__u64 page[2]; /* the addresses of their struct page */
	__u64 direct_base;
	__u64 page_struct_bytes;
	__u64 second_matches;
};

#ifndef __bpf__
struct lb_direct_map {
	__u64 direct_base;
	__u64 vmemmap_base;
	__u64 page_struct_bytes;
	__u32 page_shift;
};

/* -EOPNOTSUPP when the direct map can't be proven; the text says what was missing. Needs CAP_BPF, PERFMON, SYS_ADMIN.
 */
int lb_calibrate(struct lb_direct_map *ret_map);
#endif
