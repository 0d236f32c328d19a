/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What loading BPF objects shares: libbpf's words kept for the error text, skeletons that clean up after themselves. */
#include <stddef.h>

struct calibrate_bpf;
struct capture_bpf;

/* Routes libbpf's messages into a bounded buffer that lb_bpf_fail() quotes; call it before the first use. */
void lb_bpf_quiet(void);
/* Hands an opened skeleton on, or fails with libbpf's words. */
int lb_bpf_check(void *opened, void **ret_opened, const char *what);
/* Turns errno after a failed load into an error whose text tells the likely cause and the cure. */
int lb_bpf_fail(const char *what);

void calibrate_bpf__destroyp(struct calibrate_bpf **skel);
void capture_bpf__destroyp(struct capture_bpf **skel);
