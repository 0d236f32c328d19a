/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/io.h"

#define CPUINFO_BYTES_MAX (4u << 20)

enum verdict { VERDICT_NONE, VERDICT_NO_DEVICE, VERDICT_NO_HARDWARE, VERDICT_FAILED, VERDICT_HANGS, VERDICT_WORKS };

static const char *const verdict_text[] = {
	[VERDICT_NO_DEVICE] = "/dev/kvm is not there or not ours to use",
	[VERDICT_NO_HARDWARE] = ("/dev/kvm is there, but the processor's virtualisation is not, and stock kernels hang "
				 "on what stands in"),
	[VERDICT_FAILED] = "/dev/kvm is there, but does not run a trial guest",
	[VERDICT_HANGS] = "/dev/kvm is there, but a trial guest hangs in it",
	[VERDICT_WORKS] = "KVM runs a trial guest",
};

#ifdef __x86_64__
#define GUEST_BYTES (1u << 20)
#define GUEST_CODE 0x8000
#define GUEST_PORT 0x10
#define GUEST_ANSWER 42

/* Long mode, as a kernel is soon after its entry: loads its page table, drops a translation, counts, and answers by a
 * port. */
static const uint8_t guest_code[] = {
	0x0f, 0x20,         0xd8,             /* mov %cr3, %rax */
	0x0f, 0x22,         0xd8,             /* mov %rax, %cr3 */
	0x0f, 0x01,         0x38,             /* invlpg (%rax) */
	0xb9, 0x40,         0x42, 0x0f, 0x00, /* mov $1000000, %ecx */
	0xff, 0xc9,                           /* dec %ecx */
	0x75, 0xfc,                           /* jnz -4 */
	0xb0, GUEST_ANSWER,                   /* mov $42, %al */
	0xe6, GUEST_PORT,                     /* out %al, $port */
	0xf4,                                 /* hlt */
};

static int guest_registers(int cpu)
{
	struct kvm_segment code = {
		.limit = UINT32_MAX, .selector = 8, .present = 1, .type = 11, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = UINT32_MAX, .selector = 16, .present = 1, .type = 3, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = GUEST_CODE, .rsp = GUEST_CODE - 16, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(cpu, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = 0x1000;
	sregs.cr4 = 1 << 5;     /* PAE */
	sregs.cr0 = 0x80050033; /* paging, protection */
	sregs.efer = 0x500;     /* long mode */
	return ioctl(cpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(cpu, KVM_SET_REGS, &regs) < 0 ? -1 : 0;
}

/* System calls only: it runs in a fork of a program with threads. 0 when the guest answered. */
static int guest_run(int kvm)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), cpu, run_bytes;
	uint8_t *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {.memory_size = GUEST_BYTES, .userspace_addr = (uintptr_t)memory};
	struct kvm_run *run;

	if (vm < 0 || memory == MAP_FAILED || ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000) < 0 ||
	    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return 1;
	/* one 2 MiB page, mapped to itself */
	lb_put_le64(memory + 0x1000, 0x2003);
	lb_put_le64(memory + 0x2000, 0x3003);
	lb_put_le64(memory + 0x3000, 0x83);
	memcpy(memory + GUEST_CODE, guest_code, sizeof(guest_code));
	cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (cpu < 0 || run_bytes < (int)sizeof(*run) || guest_registers(cpu) < 0)
		return 1;
	run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	if (run == MAP_FAILED)
		return 1;
	while (ioctl(cpu, KVM_RUN, 0) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return 1;
	return run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_PORT &&
			       ((uint8_t *)run)[run->io.data_offset] == GUEST_ANSWER
		       ? 0
		       : 1;
}

static bool has_hardware(struct lb_env *env)
{
	_cleanup_free_ uint8_t *text = NULL;
	size_t size_bytes;

	if (lb_file_read(env, "/proc/cpuinfo", CPUINFO_BYTES_MAX, &text, &size_bytes) < 0)
		return false;
	return strstr((char *)text, " vmx ") != NULL || strstr((char *)text, " svm ") != NULL;
}
#else
/* Elsewhere, creating a machine with one processor is the trial. */
static int guest_run(int kvm)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	return vm >= 0 && ioctl(vm, KVM_CREATE_VCPU, 0) >= 0 ? 0 : 1;
}

static bool has_hardware(struct lb_env *env)
{
	return env != NULL;
}
#endif

/* It may hang where nothing but a signal ends it: nothing of its parent's is held meanwhile, locks and sockets least.
 */
static int trial(int kvm)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	kvm = dup2(kvm, STDIN_FILENO);
	if (kvm < 0 || close_range(STDERR_FILENO + 1, ~0U, 0) < 0)
		return 1;
	return guest_run(kvm);
}

static enum verdict wait_for_trial(struct lb_env *env, pid_t pid)
{
	int64_t end_ns = lb_mono_ns(env) + LB_KVM_PROBE_MS * LB_NS_PER_MS;
	int status;

	for (;;) {
		pid_t done = waitpid(pid, &status, WNOHANG);

		if (done == pid)
			return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? VERDICT_WORKS : VERDICT_FAILED;
		if (done < 0 && errno != EINTR)
			return VERDICT_FAILED;
		if (lb_mono_ns(env) >= end_ns)
			break;
		env->ops->wait_until(env, lb_mono_ns(env) + LB_NS_PER_MS, -1);
	}
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return VERDICT_HANGS;
}

static enum verdict probe(struct lb_env *env)
{
	_cleanup_close_ int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (kvm < 0 || ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return VERDICT_NO_DEVICE;
	if (!has_hardware(env))
		return VERDICT_NO_HARDWARE;
	pid = fork();
	if (pid == 0)
		_exit(trial(kvm));
	return pid < 0 ? VERDICT_FAILED : wait_for_trial(env, pid);
}

bool lb_kvm_works(struct lb_env *env, const char **ret_why)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	static enum verdict verdict;
	LB_LOCK_SCOPE(&mutex);

	if (verdict == VERDICT_NONE)
		verdict = probe(env);
	lb_err_clear();
	*ret_why = verdict_text[verdict];
	return verdict == VERDICT_WORKS;
}
