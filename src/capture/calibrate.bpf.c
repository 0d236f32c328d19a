/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/*
 * Finds the kernel's direct map and its array of struct page, with neither symbols nor /proc/kcore: a page of ours,
 * whose frame number is known and which holds a nonce, lies in a pipe (so its struct page's address can be read there),
 * and the nonce is searched for at every place where the direct map may begin. Nothing but the nonce is a proof.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "calibrate.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct page {
	unsigned long flags;
};
struct pipe_buffer {
	struct page *page;
};
struct pipe_inode_info {
	struct pipe_buffer *bufs;
};
struct file {
	void *private_data;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct task_struct {
	struct files_struct *files;
};
#pragma clang attribute pop

char _license[] SEC("license") = "Dual BSD/GPL";

#define STEPS_MAX (1u << 22)

struct search {
	__u64 top;
	__u64 step;
	__u64 inside; /* the page's place in the direct map */
	__u64 nonce[LB_NONCE_WORDS];
	__u64 base;
};

static __always_inline int holds_nonce(__u64 address, const __u64 *nonce)
{
	__u64 seen[LB_NONCE_WORDS] = {};

	if (bpf_probe_read_kernel(seen, sizeof(seen), (void *)address) != 0)
		return 0;
	return ((seen[0] ^ nonce[0]) | (seen[1] ^ nonce[1]) | (seen[2] ^ nonce[2]) | (seen[3] ^ nonce[3])) == 0;
}

static long try_base(__u32 i, void *arg)
{
	struct search *s = arg;
	__u64 base = s->top - (__u64)i * s->step;

	if (!holds_nonce(base + s->inside, s->nonce))
		return 0;
	s->base = base;
	return 1;
}

static __always_inline __u64 pipe_page(struct task_struct *task, __u32 fd, __u32 slot)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	struct pipe_inode_info *pipe = BPF_CORE_READ(file, private_data);
	__u64 buffer = (__u64)BPF_CORE_READ(pipe, bufs) + slot * bpf_core_type_size(struct pipe_buffer);
	return (__u64)BPF_CORE_READ((struct pipe_buffer *)buffer, page);
}

SEC("syscall")
int calibrate(struct lb_calibration *c)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct search s = {
		.step = c->step_bytes,
		.inside = c->frame[0] << c->page_shift,
		.nonce = {c->nonce[0][0], c->nonce[0][1], c->nonce[0][2], c->nonce[0][3]},
	};
	__u64 second[LB_NONCE_WORDS] = {c->nonce[1][0], c->nonce[1][1], c->nonce[1][2], c->nonce[1][3]};

	c->page[0] = pipe_page(task, c->pipe_fd, 0);
	c->page[1] = pipe_page(task, c->pipe_fd, 1);
	c->page_struct_bytes = bpf_core_type_size(struct page);
	s.top = (__u64)task & ~(s.step - 1);
	bpf_loop(STEPS_MAX, try_base, &s, 0);
	c->direct_base = s.base;
	c->second_matches = s.base != 0 && holds_nonce(s.base + (c->frame[1] << c->page_shift), second);
	return 0;
}
