/* SPDX-License-Identifier: Apache-2.0 */
/* Capture of bio-based devices (device mapper) and of slow ones. Needs root, BPF, loop devices and dm; skips without.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/wait.h>

#include "base/err.h"
#include "capture/capture.h"
#include "loop_disk.h"
#include "replica.h"

#define DISK_BYTES (16u << 20)
#define RING_BYTES (8u << 20)

struct bench {
	struct loop_disk below;
	char mapped[48], node[64], folder[64];
	int fd;
	struct lb_capture *capture;
	struct replica replica;
	uint8_t *buffer;
};

static const char *why_not;

#define must(call)                                                                                                     \
	do {                                                                                                           \
		int must_r = (call);                                                                                   \
		if (must_r < 0)                                                                                        \
			fail_msg("%s: %d, %s", #call, must_r, lb_err_text());                                          \
	} while (0)

static int shell(const char *command)
{
	char line[512];

	snprintf(line, sizeof(line), "PATH=$PATH:/sbin:/usr/sbin; %s >/dev/null 2>&1", command);
	int status = system(line);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_machine(void)
{
	_cleanup_free_ char *json = NULL;

	if (geteuid() != 0)
		why_not = "needs root";
	else if (access("/dev/loop-control", R_OK | W_OK) != 0)
		why_not = "needs loop devices";
	else if (shell("dmsetup version") != 0)
		why_not = "needs device mapper (run it in the guest)";
	else if (lb_capture_probe_direct(&json) < 0 || strstr(json, "\"can_capture\":true") == NULL)
		why_not = "this kernel can't capture";
}

static int setup(void **state)
{
	static int number;
	struct bench *b = calloc(1, sizeof(*b));

	b->fd = b->below.fd = b->below.backing = -1;
	snprintf(b->mapped, sizeof(b->mapped), "lifeboat_%d_%d", getpid(), number);
	snprintf(b->node, sizeof(b->node), "/dev/mapper/%s", b->mapped);
	snprintf(b->folder, sizeof(b->folder), "/sys/fs/bpf/lifeboat_dm_%d_%d", getpid(), number++);
	*state = b;
	return posix_memalign((void **)&b->buffer, 4096, 4 << 20);
}

static int teardown(void **state)
{
	struct bench *b = *state;
	char command[128];

	replica_free(&b->replica);
	lb_capture_free(b->capture);
	lb_capture_detach_pinned_direct(b->folder);
	if (b->fd >= 0)
		close(b->fd);
	snprintf(command, sizeof(command), "dmsetup remove --retry %s", b->mapped);
	if (b->below.fd >= 0)
		shell(command);
	loop_disk_end(&b->below);
	free(b->buffer);
	free(b);
	return 0;
}

/* `table` holds one %s for the loop device. */
static void bench_start(struct bench *b, const char *target, const char *arguments)
{
	char command[256];

	if (why_not != NULL) {
		print_message("skipped: %s\n", why_not);
		skip();
	}
	must(loop_disk_in_memory(&b->below, DISK_BYTES));
	snprintf(command, sizeof(command), "dmsetup create %s --table '0 %u %s %s %s'", b->mapped, DISK_BYTES / 512,
		 target, b->below.path, arguments);
	if (shell(command) != 0) {
		print_message("skipped: no dm target %s\n", target);
		skip();
	}
	shell("dmsetup mknodes");
	b->fd = open(b->node, O_RDWR | O_DIRECT | O_CLOEXEC);
	assert_true(b->fd >= 0);
	const char *names[] = {b->node};
	struct lb_capture_params p = {
		.disks = names, .disk_count = 1, .ring_bytes = RING_BYTES, .pin_folder = b->folder};
	must(lb_capture_attach_direct(&p, &b->capture));
	must(replica_init(&b->replica, b->capture));
	must(replica_begin(&b->replica, true));
	must(replica_scan(&b->replica, true));
}

static void put(struct bench *b, uint64_t offset, size_t n, int letter)
{
	memset(b->buffer, letter, n);
	memcpy(b->buffer, &offset, sizeof(offset));
	assert_int_equal(pwrite(b->fd, b->buffer, n, (off_t)offset), n);
}

static void a_bio_based_device_is_captured_whole(void **state)
{
	struct bench *b = *state;
	struct lb_capture_reconciled result;
	struct lb_capture_disk disk;
	uint64_t discarded[2] = {6 << 20, 1 << 20};
	bool in_debt;

	bench_start(b, "linear", "0");
	must(lb_capture_disk(b->capture, 0, &disk));
	assert_true(disk.bio_based);
	for (int i = 0; i < 12; i++)
		put(b, (uint64_t)i * 700 * 512, 512u << i, 'a' + i);
	put(b, 4 << 20, 4 << 20, 'z'); /* larger than one request of the disk below */
	ioctl(b->fd, BLKDISCARD, discarded);
	must(replica_take(&b->replica, &in_debt));
	assert_false(in_debt);
	assert_false(replica_differs(&b->replica, 0));
	must(lb_capture_reconcile(b->capture, 0, &result));
	assert_int_equal(result.fit, LB_CAPTURE_FIT_OK);
}

static void a_bio_that_fails_is_a_loss_of_its_range(void **state)
{
	struct bench *b = *state;
	bool in_debt;

	bench_start(b, "linear", "0");
	assert_int_equal(fcntl(b->below.backing, F_ADD_SEALS, F_SEAL_WRITE), 0);
	memset(b->buffer, 'x', 4096);
	assert_int_equal(pwrite(b->fd, b->buffer, 4096, 3 << 20), -1);
	must(replica_take(&b->replica, &in_debt));
	assert_true(in_debt);
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	assert_false(replica_differs(&b->replica, 0));
}

static void *write_at_3m(void *arg)
{
	struct bench *b = arg;
	memset(b->buffer, 'd', 4096);
	return (void *)(intptr_t)pwrite(b->fd, b->buffer, 4096, 3 << 20);
}

static void a_slow_bio_holds_its_chunk_back_until_it_ends(void **state)
{
	struct bench *b = *state;
	struct lb_capture_range range = {.offset_bytes = 3 << 20, .length_bytes = 65536};
	pthread_t thread;

	bench_start(b, "delay", "0 0");
	char command[448];
	snprintf(command, sizeof(command),
		 "dmsetup suspend %s && dmsetup load %s --table '0 %u delay %s 0 0 %s 0 1500' && dmsetup resume %s",
		 b->mapped, b->mapped, DISK_BYTES / 512, b->below.path, b->below.path, b->mapped);
	assert_int_equal(shell(command), 0);
	must(replica_begin(&b->replica, false));
	assert_int_equal(pthread_create(&thread, NULL, write_at_3m, b), 0);
	for (int i = 0; i < 100000 && lb_capture_chunk_ready(b->capture, &range) != 0; i++)
		usleep(50);
	assert_int_equal(lb_capture_chunk_ready(b->capture, &range), 0);
	assert_int_equal(lb_capture_drain(b->capture, 0, 20), -ETIMEDOUT);
	pthread_join(thread, NULL);
	for (int i = 0; i < 100000 && lb_capture_chunk_ready(b->capture, &range) != 1; i++)
		usleep(50);
	assert_int_equal(lb_capture_chunk_ready(b->capture, &range), 1);
	must(lb_capture_drain(b->capture, 0, LB_CAPTURE_DRAIN_MS_MAX));
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test_setup_teardown(a_bio_based_device_is_captured_whole, setup, teardown),
	cmocka_unit_test_setup_teardown(a_bio_that_fails_is_a_loss_of_its_range, setup, teardown),
	cmocka_unit_test_setup_teardown(a_slow_bio_holds_its_chunk_back_until_it_ends, setup, teardown),
};

int main(void)
{
	check_machine();
	return cmocka_run_group_tests_name("capture_dm", tests, NULL, NULL);
}
