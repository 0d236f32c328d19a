/* SPDX-License-Identifier: Apache-2.0 */
/* Loading of BPF objects: messages and cleanup. */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "capture/bpf_load.h"
#include "calibrate.skel.h"
#include "capture.skel.h"

#define WORDS_BYTES_MAX 256

static __thread char words[WORDS_BYTES_MAX];

/* The first warning is the cause; the rest follows from it. The verifier's log, many pages, is cut to its first line.
 */
static int keep_words(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN && words[0] == '\0') {
		vsnprintf(words, sizeof(words), format, args);
		words[strcspn(words, "\n")] = '\0';
	}
	if (getenv("LIFEBOAT_BPF_LOG") != NULL)
		return vfprintf(stderr, format, args);
	return 0;
}

void lb_bpf_quiet(void)
{
	libbpf_set_print(keep_words);
	words[0] = '\0';
}

int lb_bpf_check(void *opened, void **ret_opened, const char *what)
{
	if (opened == NULL)
		return lb_bpf_fail(what);
	*ret_opened = opened;
	return 0;
}

int lb_bpf_fail(const char *what)
{
	int code = errno > 0 ? errno : EINVAL;

	if (access("/sys/kernel/btf/vmlinux", R_OK) != 0)
		return lb_fail(-EOPNOTSUPP,
			       "%s can't be loaded: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); "
			       "boot the distribution's own kernel",
			       what);
	if (code == EPERM || code == EACCES)
		return lb_fail(-EPERM,
			       "%s can't be loaded: not permitted (%s); CAP_BPF and CAP_PERFMON are needed, and "
			       "kernel lockdown must not be in confidentiality mode",
			       what, words);
	return lb_fail(-EOPNOTSUPP,
		       "%s can't be loaded on this kernel: %s (%s); capture needs ring buffers with dynptr, "
		       "bpf_loop and BTF tracepoints (Linux 6.1, or RHEL 9)",
		       what, words, strerror(code));
}

void calibrate_bpf__destroyp(struct calibrate_bpf **skel)
{
	calibrate_bpf__destroy(*skel);
}

void capture_bpf__destroyp(struct capture_bpf **skel)
{
	capture_bpf__destroy(*skel);
}
