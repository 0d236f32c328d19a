/* SPDX-License-Identifier: Apache-2.0 */
/* Proves where the kernel's direct map lies, or refuses: see calibrate.bpf.c. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/env.h"
#include "base/err.h"
#include "capture/bpf_load.h"
#include "capture/calibrate.h"
#include "calibrate.skel.h"

#define PAGES 2
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_FRAME ((UINT64_C(1) << 55) - 1)

#if defined(__x86_64__)
#define STEP_BYTES LB_GIB(1) /* the randomised direct map begins at a multiple of 1 GiB */
#else
#define STEP_BYTES LB_MIB(2) /* a divisor of every alignment that arm64 uses for it */
#endif

struct lb_pages {
	void *address[PAGES];
	size_t page_bytes;
	int pipe[2];
};

static void pages_free(struct lb_pages *p)
{
	for (int i = 0; i < PAGES; i++)
		if (p->address[i] != NULL)
			munmap(p->address[i], p->page_bytes);
	for (int i = 0; i < 2; i++)
		if (p->pipe[i] >= 0)
			close(p->pipe[i]);
}

/* Pages in a pipe have a reference more: they can't be moved to another frame meanwhile. */
static int pages_make(struct lb_pages *p, struct lb_calibration *c)
{
	struct lb_env *env = lb_env_real();

	if (pipe2(p->pipe, O_CLOEXEC) < 0)
		return lb_fail(-errno, "calibration of the direct map: no pipe: %s", strerror(errno));
	for (int i = 0; i < PAGES; i++) {
		void *a = mmap(NULL, p->page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (a == MAP_FAILED)
			return lb_fail(-ENOMEM, "calibration of the direct map: out of memory");
		p->address[i] = a;
		int r = env->ops->random(env, c->nonce[i], sizeof(c->nonce[i]));
		if (r < 0)
			return lb_fail(r, "calibration of the direct map: no random bytes: %s", strerror(-r));
		memcpy(a, c->nonce[i], sizeof(c->nonce[i]));
		struct iovec v = {.iov_base = a, .iov_len = p->page_bytes};
		if (vmsplice(p->pipe[1], &v, 1, 0) != (ssize_t)p->page_bytes)
			return lb_fail(-EOPNOTSUPP, "calibration of the direct map: vmsplice: %s", strerror(errno));
	}
	return 0;
}

static int frames_find(const struct lb_pages *p, struct lb_calibration *c)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return lb_fail(-errno, "calibration of the direct map: /proc/self/pagemap: %s", strerror(errno));
	for (int i = 0; i < PAGES; i++) {
		uint64_t entry;
		off_t at = (off_t)((uintptr_t)p->address[i] / p->page_bytes * sizeof(entry));
		if (pread(fd, &entry, sizeof(entry), at) != sizeof(entry))
			return lb_fail(-EIO, "calibration of the direct map: /proc/self/pagemap can't be read");
		c->frame[i] = entry & PAGEMAP_FRAME;
		if ((entry & PAGEMAP_PRESENT) == 0 || c->frame[i] == 0)
			return lb_fail(
				-EPERM,
				"calibration of the direct map: page frames are hidden; CAP_SYS_ADMIN is needed");
	}
	return 0;
}

static int search_run(struct lb_calibration *c)
{
	_cleanup_(calibrate_bpf__destroyp) struct calibrate_bpf *skel = NULL;
	int r = lb_bpf_check(calibrate_bpf__open(), (void **)&skel, "calibration program");
	if (r < 0)
		return r;
	if (calibrate_bpf__load(skel) != 0)
		return lb_bpf_fail("the calibration program");
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = c, .ctx_size_in = sizeof(*c));
	r = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.calibrate), &opts);
	if (r < 0)
		return lb_fail(r, "calibration of the direct map: the program did not run: %s", strerror(-r));
	return 0;
}

int lb_calibrate(struct lb_direct_map *ret_map)
{
	_cleanup_(pages_free) struct lb_pages pages = {.page_bytes = (size_t)sysconf(_SC_PAGESIZE), .pipe = {-1, -1}};
	struct lb_calibration c = {.step_bytes = STEP_BYTES};
	int r = pages_make(&pages, &c);
	if (r < 0)
		return r;
	r = frames_find(&pages, &c);
	if (r < 0)
		return r;
	c.pipe_fd = (uint32_t)pages.pipe[0];
	c.page_shift = (uint32_t)__builtin_ctzl(pages.page_bytes);
	r = search_run(&c);
	if (r < 0)
		return r;
	uint64_t vmemmap_base = c.page[0] - c.frame[0] * c.page_struct_bytes;
	if (c.direct_base == 0 || !c.second_matches || c.page[0] == 0 || c.page_struct_bytes == 0 ||
	    vmemmap_base != c.page[1] - c.frame[1] * c.page_struct_bytes)
		return lb_fail(-EOPNOTSUPP,
			       "the kernel's direct map can't be proven on this machine (nonce %s, second %s); "
			       "capture is refused here: protect this machine by its hypervisor or as a guest",
			       c.direct_base != 0 ? "found" : "not found", c.second_matches ? "found" : "not found");
	*ret_map = (struct lb_direct_map){
		.direct_base = c.direct_base,
		.vmemmap_base = vmemmap_base,
		.page_struct_bytes = c.page_struct_bytes,
		.page_shift = c.page_shift,
	};
	return 0;
}
