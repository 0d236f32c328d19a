/* SPDX-License-Identifier: Apache-2.0 */
/* Capture on loop devices of this machine. Needs root, BPF and loop devices; says so and skips where one is missing. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/err.h"
#include "capture/capture.h"
#include "loop_disk.h"
#include "replica.h"

#define SLOW_TRIES_MAX 100
#define DISK_BYTES (16u << 20)
#define RING_BYTES (8u << 20)
#define BUFFER_BYTES (4u << 20)

/* A disk on a file of a file system that can be frozen: then its writes stay in flight. */
struct stall {
	struct loop_disk below;
	char mount[64];
	int mounted;
	int frozen;
};

struct bench {
	struct loop_disk disk[3];
	struct stall stall;
	unsigned int disks;
	char folder[64];
	struct lb_capture *capture;
	struct replica replica;
	uint8_t *buffer;
	uint64_t seed;
};

static const char *why_not;

static void check_machine(void)
{
	_cleanup_free_ char *json = NULL;

	if (geteuid() != 0)
		why_not = "needs root";
	else if (access("/dev/loop-control", R_OK | W_OK) != 0)
		why_not = "needs loop devices";
	else if (lb_capture_probe_direct(&json) < 0 || strstr(json, "\"can_capture\":true") == NULL)
		why_not = "this kernel can't capture";
}

static void skip_where_impossible(void)
{
	if (why_not != NULL) {
		print_message("skipped: %s\n", why_not);
		skip();
	}
}

/* Expects 0 or more, and prints the error text otherwise. */
#define must(call)                                                                                                     \
	do {                                                                                                           \
		int must_r = (call);                                                                                   \
		if (must_r < 0)                                                                                        \
			fail_msg("%s: %d, %s", #call, must_r, lb_err_text());                                          \
	} while (0)

static void bench_attach(struct bench *b, uint64_t ring_bytes)
{
	const char *names[3] = {b->disk[0].name, b->disk[1].name, b->disk[2].name};
	struct lb_capture_params p = {
		.disks = names, .disk_count = b->disks, .ring_bytes = ring_bytes, .pin_folder = b->folder};

	must(lb_capture_attach_direct(&p, &b->capture));
	must(replica_init(&b->replica, b->capture));
}

/* Disks made and attached, the first epoch begun and its scan done. */
static void bench_start(struct bench *b, unsigned int disks, uint64_t ring_bytes)
{
	skip_where_impossible();
	for (unsigned int i = 0; i < disks; i++)
		must(loop_disk_in_memory(&b->disk[i], DISK_BYTES));
	b->disks = disks;
	bench_attach(b, ring_bytes);
	must(replica_begin(&b->replica, true));
	must(replica_scan(&b->replica, true));
}

static int shell(const char *command)
{
	int status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void stall_make(struct stall *s, struct loop_disk *ret_disk)
{
	char command[160], path[96];

	must(loop_disk_in_memory(&s->below, 2 * DISK_BYTES));
	snprintf(s->mount, sizeof(s->mount), "/tmp/lifeboat-test-XXXXXX");
	assert_non_null(mkdtemp(s->mount));
	snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -O ^has_journal %s >/dev/null 2>&1",
		 s->below.path);
	assert_int_equal(shell(command), 0);
	assert_int_equal(mount(s->below.path, s->mount, "ext4", 0, NULL), 0);
	s->mounted = 1;
	snprintf(path, sizeof(path), "%s/disk", s->mount);
	int backing = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(backing >= 0);
	assert_int_equal(posix_fallocate(backing, 0, DISK_BYTES), 0);
	must(loop_disk_make(ret_disk, backing, DISK_BYTES));
}

static void stall_set(struct stall *s, bool frozen)
{
	int fd = open(s->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = ioctl(fd, frozen ? FIFREEZE : FITHAW, 0);
	close(fd);
	s->frozen = frozen;
	assert_int_equal(r, 0);
}

static void stall_end(struct stall *s)
{
	if (!s->mounted) {
		loop_disk_end(&s->below);
		return;
	}
	if (umount(s->mount) < 0)
		umount2(s->mount, MNT_DETACH);
	rmdir(s->mount);
	loop_disk_end(&s->below);
}

static int setup(void **state)
{
	static unsigned int number;
	struct bench *b = calloc(1, sizeof(*b));

	snprintf(b->folder, sizeof(b->folder), "/sys/fs/bpf/lifeboat_test_%d_%u", getpid(), number++);
	for (int i = 0; i < 3; i++)
		b->disk[i].fd = b->disk[i].backing = -1;
	b->stall.below.fd = b->stall.below.backing = -1;
	b->seed = 88172645463325252ULL;
	*state = b;
	return posix_memalign((void **)&b->buffer, 4096, BUFFER_BYTES);
}

static int teardown(void **state)
{
	struct bench *b = *state;

	if (b->stall.frozen)
		stall_set(&b->stall, false); /* first: a test that failed may have writers that wait */
	replica_free(&b->replica);
	lb_capture_free(b->capture);
	lb_capture_detach_pinned_direct(b->folder);
	for (int i = 0; i < 3; i++)
		loop_disk_end(&b->disk[i]);
	stall_end(&b->stall);
	free(b->buffer);
	free(b);
	return 0;
}

static uint64_t dice(struct bench *b)
{
	b->seed ^= b->seed << 13;
	b->seed ^= b->seed >> 7;
	b->seed ^= b->seed << 17;
	return b->seed;
}

static void fill(struct bench *b, size_t n)
{
	for (size_t i = 0; i + 8 <= n; i += 8) {
		uint64_t v = dice(b);
		memcpy(b->buffer + i, &v, 8);
	}
}

static void put(struct bench *b, unsigned int disk, uint64_t offset, size_t n)
{
	fill(b, n);
	assert_int_equal(pwrite(b->disk[disk].fd, b->buffer, n, (off_t)offset), n);
}

/* ---- Records ---------------------------------------------------------------------------------------------------- */

static void a_write_is_recorded_with_its_data_and_place(void **state)
{
	static const struct {
		uint64_t offset;
		size_t n;
	} writes[] = {
		{0, 512}, {512, 1024}, {4096, 4096}, {12288, 65536}, {1 << 20, 131072 + 512}, {(2 << 20) + 512, 3584}};
	struct bench *b = *state;
	struct lb_capture_record record;
	bool in_debt;
	uint64_t limit;

	bench_start(b, 1, RING_BYTES);
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
		put(b, 0, writes[i].offset, writes[i].n);
		lb_capture_limit(b->capture, &limit, &in_debt);
		assert_false(in_debt);
		assert_int_equal(lb_capture_next(b->capture, &b->replica.position, limit, &record), 1);
		assert_int_equal(record.kind, LB_CAPTURE_DATA);
		assert_int_equal(record.disk, 0);
		assert_int_equal(record.offset_bytes, writes[i].offset);
		assert_int_equal(record.length_bytes, writes[i].n);
		assert_memory_equal(record.data, b->buffer, writes[i].n);
		assert_int_equal(record.next_position, b->replica.position);
		assert_int_equal(lb_capture_next(b->capture, &b->replica.position, limit, &record), 0);
	}
}

static void a_write_from_an_unaligned_buffer_is_recorded_byte_for_byte(void **state)
{
	struct bench *b = *state;
	bool in_debt;

	bench_start(b, 1, RING_BYTES);
	fill(b, 65536);
	/* Buffers that begin at any multiple of the device's DMA alignment are given to the disk as they are. */
	for (size_t shift = 512; shift <= 2048; shift += 512)
		assert_int_equal(pwrite(b->disk[0].fd, b->buffer + shift, 8192, (off_t)(shift * 64)), 8192);
	must(replica_take(&b->replica, &in_debt));
	assert_false(in_debt);
	assert_true(b->replica.records >= 4);
	assert_false(replica_differs(&b->replica, 0));
}

static void writes_to_several_disks_stand_in_one_order(void **state)
{
	struct bench *b = *state;
	struct lb_capture_record record;
	bool in_debt;
	uint64_t limit;

	bench_start(b, 3, RING_BYTES);
	for (unsigned int i = 0; i < 60; i++)
		put(b, (i * 7) % 3, 4096 * (uint64_t)i, 4096);
	lb_capture_limit(b->capture, &limit, &in_debt);
	for (unsigned int i = 0; i < 60; i++) {
		assert_int_equal(lb_capture_next(b->capture, &b->replica.position, limit, &record), 1);
		assert_int_equal(record.disk, (i * 7) % 3);
		assert_int_equal(record.offset_bytes, 4096 * (uint64_t)i);
	}
	assert_int_equal(b->replica.position, limit);
}

/* On a file: memory can't be told to become zeroes in place. */
static void zeroing_and_discarding_are_ranges_of_zeroes(void **state)
{
	struct bench *b = *state;
	struct lb_capture_record record;
	uint64_t zeroed[2] = {1 << 20, 1 << 20}, discarded[2] = {4 << 20, 2 << 20}, limit;
	uint64_t bytes[2] = {0};
	bool in_debt;
	int r;

	skip_where_impossible();
	int backing = open("/var/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (backing < 0 || posix_fallocate(backing, 0, DISK_BYTES) != 0 ||
	    fallocate(backing, FALLOC_FL_ZERO_RANGE, 0, DISK_BYTES) < 0) {
		print_message("skipped: /var/tmp is on a file system that can't zero a range\n");
		skip();
	}
	must(loop_disk_make(&b->disk[0], backing, DISK_BYTES));
	b->disks = 1;
	bench_attach(b, RING_BYTES);
	must(replica_begin(&b->replica, true));
	must(replica_scan(&b->replica, true));
	put(b, 0, 0, BUFFER_BYTES);
	put(b, 0, 4 << 20, 2 << 20);
	must(replica_take(&b->replica, &in_debt));
	assert_int_equal(ioctl(b->disk[0].fd, BLKZEROOUT, zeroed), 0);
	assert_int_equal(ioctl(b->disk[0].fd, BLKDISCARD, discarded), 0);
	lb_capture_limit(b->capture, &limit, &in_debt);
	uint64_t position = b->replica.position;
	while ((r = lb_capture_next(b->capture, &position, limit, &record)) == 1) {
		assert_int_equal(record.kind, LB_CAPTURE_ZERO);
		assert_null(record.data);
		bytes[record.offset_bytes >= discarded[0]] += record.length_bytes;
	}
	must(r);
	assert_int_equal(bytes[0], zeroed[1]);
	assert_int_equal(bytes[1], discarded[1]);
	must(replica_take(&b->replica, &in_debt));
	assert_false(in_debt);
	assert_false(replica_differs(&b->replica, 0));
}

/* ---- Debt and epochs -------------------------------------------------------------------------------------------- */

static void a_full_ring_becomes_debt_and_the_next_epoch_settles_it(void **state)
{
	struct bench *b = *state;
	bool in_debt;

	bench_start(b, 2, LB_CAPTURE_RING_BYTES_MIN);
	for (unsigned int i = 0; i < 12; i++)
		put(b, i % 2, (uint64_t)i << 20, 256 << 10);
	must(replica_take(&b->replica, &in_debt));
	assert_true(in_debt);
	assert_int_equal(lb_capture_mode(b->capture), LB_CAPTURE_DEBT);
	assert_true(lb_capture_debt_bytes(b->capture) >= 9 * (256 << 10));
	assert_true(replica_differs(&b->replica, 0));
	must(replica_begin(&b->replica, false));
	assert_true(lb_capture_scan_bytes(b->capture) < 2 * DISK_BYTES);
	assert_int_equal(lb_capture_debt_bytes(b->capture), 0);
	must(replica_scan(&b->replica, true));
	assert_int_equal(lb_capture_scan_bytes(b->capture), 0);
	put(b, 0, 8 << 20, 4096);
	must(replica_take(&b->replica, &in_debt));
	assert_false(in_debt);
	assert_false(replica_differs(&b->replica, 0));
	assert_false(replica_differs(&b->replica, 1));
}

static void what_was_not_acknowledged_is_scanned_by_the_next_epoch(void **state)
{
	struct bench *b = *state;
	struct lb_capture_range range;
	uint64_t cursor;

	bench_start(b, 1, RING_BYTES);
	put(b, 0, 5 << 20, 4096);
	must(replica_begin(&b->replica, false));
	assert_int_equal(lb_capture_scan_next(b->capture, 0, 1 << 20, &range, &cursor), 1);
	assert_int_equal(range.offset_bytes, 5 << 20);
	assert_int_equal(range.length_bytes, LB_CAPTURE_GRANULE_BYTES);
	assert_int_equal(lb_capture_scan_next(b->capture, cursor, 1 << 20, &range, &cursor), 0);
	assert_int_equal(b->replica.position, lb_capture_producer(b->capture));
	must(replica_scan(&b->replica, true));
	assert_false(replica_differs(&b->replica, 0));
}

static void a_declared_loss_marks_the_range_and_ends_the_epoch(void **state)
{
	struct bench *b = *state;
	bool in_debt;

	bench_start(b, 1, RING_BYTES);
	must(lb_capture_declare_loss(b->capture, 0, 3 << 20, 4096));
	must(replica_take(&b->replica, &in_debt));
	assert_true(in_debt);
	assert_int_equal(lb_capture_debt_bytes(b->capture), LB_CAPTURE_GRANULE_BYTES);
	put(b, 0, 6 << 20, 4096);
	assert_int_equal(lb_capture_debt_bytes(b->capture), 2 * LB_CAPTURE_GRANULE_BYTES);
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	assert_false(replica_differs(&b->replica, 0));
}

static void a_write_that_the_disk_refuses_is_a_loss_of_its_range(void **state)
{
	struct bench *b = *state;
	bool in_debt;

	bench_start(b, 1, RING_BYTES);
	assert_int_equal(fcntl(b->disk[0].backing, F_ADD_SEALS, F_SEAL_WRITE), 0);
	fill(b, 4096);
	assert_int_equal(pwrite(b->disk[0].fd, b->buffer, 4096, 7 << 20), -1);
	must(replica_take(&b->replica, &in_debt));
	assert_true(in_debt);
	assert_true(replica_differs(&b->replica, 0));
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	assert_false(replica_differs(&b->replica, 0));
}

/* ---- Restart, attach, detach ------------------------------------------------------------------------------------- */

static void a_restarted_agent_finds_everything_as_it_left_it(void **state)
{
	struct bench *b = *state;
	struct lb_capture_info before, after;
	bool in_debt;

	bench_start(b, 1, RING_BYTES);
	put(b, 0, 1 << 20, 4096);
	must(replica_take(&b->replica, &in_debt));
	uint64_t position = b->replica.position;
	lb_capture_note_set(b->capture, 3, 42);
	lb_capture_info(b->capture, &before);
	assert_false(before.resumed);
	lb_capture_free(b->capture);
	b->capture = NULL;
	put(b, 0, 2 << 20, 4096); /* nobody looks */
	must(lb_capture_open_direct(b->folder, &b->capture));
	lb_capture_info(b->capture, &after);
	assert_true(after.resumed);
	assert_false(after.epoch_pending);
	assert_true(lb_uuid_equal(&before.instance, &after.instance));
	assert_int_equal(before.generation, after.generation);
	assert_int_equal(lb_capture_consumer(b->capture), position);
	assert_int_equal(lb_capture_note_get(b->capture, 3), 42);
	b->replica.capture = b->capture;
	b->replica.position = position;
	must(replica_take(&b->replica, &in_debt));
	assert_false(in_debt);
	assert_int_equal(b->replica.records, 2);
	assert_false(replica_differs(&b->replica, 0));
}

static void attaching_again_resumes_and_refuses_other_disks(void **state)
{
	struct bench *b = *state;
	struct lb_capture *again = NULL;

	bench_start(b, 2, RING_BYTES);
	const char *names[2] = {b->disk[0].name, b->disk[1].name};
	struct lb_capture_params p = {
		.disks = names, .disk_count = 2, .ring_bytes = RING_BYTES, .pin_folder = b->folder};
	struct lb_capture_info info;
	must(lb_capture_attach_direct(&p, &again));
	lb_capture_info(again, &info);
	assert_true(info.resumed);
	lb_capture_free(again);
	p.disk_count = 1;
	assert_int_equal(lb_capture_attach_direct(&p, &again), -EEXIST);
}

static void detaching_leaves_nothing_behind(void **state)
{
	struct bench *b = *state;
	struct lb_capture *again;
	char fresh[80];

	bench_start(b, 1, RING_BYTES);
	must(lb_capture_detach(b->capture));
	assert_int_equal(access(b->folder, F_OK), -1);
	snprintf(fresh, sizeof(fresh), "%s_new", b->folder);
	assert_int_equal(access(fresh, F_OK), -1);
	uint64_t position = lb_capture_producer(b->capture);
	put(b, 0, 0, 4096);
	assert_int_equal(lb_capture_producer(b->capture), position);
	assert_int_equal(lb_capture_open_direct(b->folder, &again), -ENOENT);
}

static void what_cannot_be_captured_is_refused_with_a_reason(void **state)
{
	struct bench *b = *state;
	const char *name = "no-such-disk";
	struct lb_capture_params p = {
		.disks = &name, .disk_count = 1, .ring_bytes = RING_BYTES, .pin_folder = b->folder};

	skip_where_impossible();
	assert_int_equal(lb_capture_attach_direct(&p, &b->capture), -ENOENT);
	assert_non_null(strstr(lb_err_text(), "no-such-disk"));
	must(loop_disk_in_memory(&b->disk[0], DISK_BYTES));
	name = b->disk[0].name;
	p.ring_bytes = 3 << 20;
	assert_int_equal(lb_capture_attach_direct(&p, &b->capture), -EINVAL);
	p.ring_bytes = RING_BYTES;
	p.pin_folder = "/tmp/not-a-bpf-file-system";
	assert_int_equal(lb_capture_attach_direct(&p, &b->capture), -ENODEV);
	p.pin_folder = b->folder;
	int on = 1;
	assert_int_equal(ioctl(b->disk[0].fd, BLKROSET, &on), 0);
	int refused = lb_capture_attach_direct(&p, &b->capture);
	on = 0;
	assert_int_equal(ioctl(b->disk[0].fd, BLKROSET, &on), 0);
	assert_int_equal(refused, -EOPNOTSUPP);
	assert_int_equal(access(b->folder, F_OK), -1);
}

static void a_position_outside_of_the_ring_is_refused(void **state)
{
	struct bench *b = *state;
	struct lb_capture_record record;

	bench_start(b, 1, RING_BYTES);
	put(b, 0, 0, 4096);
	uint64_t producer = lb_capture_producer(b->capture), position = producer + 8;
	assert_int_equal(lb_capture_next(b->capture, &position, producer + 64, &record), -EINVAL);
	assert_int_equal(lb_capture_acknowledge(b->capture, producer + 8), -EINVAL);
	position = b->replica.position + 16;
	assert_int_equal(lb_capture_next(b->capture, &position, producer, &record), -EUCLEAN);
	must(lb_capture_acknowledge(b->capture, producer));
	assert_int_equal(lb_capture_acknowledge(b->capture, 0), -EINVAL);
}

#define RECONCILE_TRIES 1000000
#define GONE_TRIES 60000

/* ---- Reconciliation ---------------------------------------------------------------------------------------------- */

static void the_kernels_counters_agree_with_what_was_seen(void **state)
{
	struct bench *b = *state;
	struct lb_capture_reconciled result;

	bench_start(b, 1, RING_BYTES);
	for (int i = 0; i < 50; i++) {
		put(b, 0, (uint64_t)i * 8192, 4096);
		must(lb_capture_reconcile(b->capture, 0, &result));
		assert_int_equal(result.fit, LB_CAPTURE_FIT_OK);
	}
	assert_int_equal(result.missed_bytes, 0);
	/* a while after the last write the comparison is exact */
	for (int i = 0; i < RECONCILE_TRIES && !result.exact; i++)
		must(lb_capture_reconcile(b->capture, 0, &result));
	assert_true(result.exact);
	assert_int_equal(result.fit, LB_CAPTURE_FIT_OK);
}

static void a_write_past_the_program_is_told_by_the_kernels_counters(void **state)
{
	struct bench *b = *state;
	struct lb_capture_reconciled result;
	char path[128];
	bool in_debt;

	bench_start(b, 1, RING_BYTES);
	must(lb_capture_reconcile(b->capture, 0, &result));
	/* The program goes blind: both of its copies are unpinned behind our back. */
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/link_issue_%s", b->folder, i == 0 ? "first" : "second");
		assert_int_equal(unlink(path), 0);
	}
	struct lb_capture_disk_stats before, after = {0};
	for (int i = 0; i < 10000; i++) { /* the kernel frees them in its own time */
		must(lb_capture_disk_stats(b->capture, 0, &before));
		put(b, 0, 1 << 20, 8192);
		must(lb_capture_disk_stats(b->capture, 0, &after));
		if (after.written_bytes == before.written_bytes)
			break;
		must(replica_take(&b->replica, &in_debt));
	}
	assert_int_equal(after.written_bytes, before.written_bytes);
	must(lb_capture_reconcile(b->capture, 0, &result));
	assert_int_equal(result.fit, LB_CAPTURE_FIT_MISSED);
	assert_true(result.missed_bytes >= 8192);
	must(replica_take(&b->replica, &in_debt));
	assert_true(in_debt);
	assert_int_equal(lb_capture_debt_bytes(b->capture), DISK_BYTES);
}

static void a_disk_that_is_gone_or_was_replaced_is_told(void **state)
{
	struct bench *b = *state;
	struct lb_capture_reconciled result;

	bench_start(b, 1, RING_BYTES);
	assert_int_equal(ioctl(b->disk[0].fd, LOOP_CLR_FD), 0);
	lb_capture_free(b->capture); /* it holds the disk open */
	b->capture = NULL;
	loop_disk_end(&b->disk[0]);
	must(lb_capture_open_direct(b->folder, &b->capture));
	b->replica.capture = b->capture;
	must(lb_capture_reconcile(b->capture, 0, &result));
	/* whoever looks through all disks of this host may hold it open just then */
	for (int i = 0; i < GONE_TRIES && result.fit != LB_CAPTURE_FIT_GONE; i++) {
		usleep(1000);
		must(lb_capture_reconcile(b->capture, 0, &result));
	}
	assert_int_equal(result.fit, LB_CAPTURE_FIT_GONE);
	assert_int_equal(lb_capture_disk_fd(b->capture, 0), -1);
}

/* ---- In flight --------------------------------------------------------------------------------------------------- */

struct writer {
	pthread_t thread;
	int fd;
	void *buffer;
	uint64_t offset;
	ssize_t result;
};

static void *write_one(void *arg)
{
	struct writer *w = arg;
	w->result = pwrite(w->fd, w->buffer, 4096, (off_t)w->offset);
	return NULL;
}

static void wait_until_in_flight(struct bench *b, const struct lb_capture_range *range)
{
	for (int i = 0; i < 100000 && lb_capture_chunk_ready(b->capture, range) != 0; i++)
		usleep(50);
	assert_int_equal(lb_capture_chunk_ready(b->capture, range), 0);
}

static void a_chunk_is_not_read_while_a_write_to_it_is_in_flight(void **state)
{
	struct bench *b = *state;
	struct lb_capture_range range = {.offset_bytes = 3 << 20, .length_bytes = 65536, .disk = 0};
	struct lb_capture_range other = {.offset_bytes = 5 << 20, .length_bytes = 65536, .disk = 0};

	skip_where_impossible();
	stall_make(&b->stall, &b->disk[0]);
	b->disks = 1;
	bench_attach(b, RING_BYTES);
	must(replica_begin(&b->replica, true));
	must(replica_scan(&b->replica, true));
	must(lb_capture_declare_loss(b->capture, 0, 0, 4096)); /* in debt: the write is only marked */
	stall_set(&b->stall, true);
	fill(b, 4096);
	struct writer w = {.fd = b->disk[0].fd, .buffer = b->buffer, .offset = (3 << 20) + 4096};
	must(replica_begin(&b->replica, false)); /* a new generation: the drain of the first scan counts no more */
	must(lb_capture_declare_loss(b->capture, 0, 0, 4096));
	assert_int_equal(pthread_create(&w.thread, NULL, write_one, &w), 0);
	wait_until_in_flight(b, &range);
	must(replica_begin(&b->replica, false));
	assert_int_equal(lb_capture_chunk_ready(b->capture, &range), 0);
	assert_int_equal(lb_capture_chunk_ready(b->capture, &other), 1);
	assert_int_equal(lb_capture_drain(b->capture, 0, 200), -ETIMEDOUT);
	assert_int_equal(lb_capture_chunk_ready(b->capture, &range), 0);
	stall_set(&b->stall, false);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.result, 4096);
	must(replica_scan(&b->replica, true));
	assert_false(replica_differs(&b->replica, 0));
}

/* ---- Under load -------------------------------------------------------------------------------------------------- */

#define LOAD_WRITERS 8
#define LOAD_WRITES_MAX 100000
#define LOAD_EPOCHS 8
#define LOAD_RING_BYTES (64u << 20) /* what is written during a flip fits */

struct load {
	struct bench *bench;
	unsigned int number;
	int running;
	const int *stop;
};

static void *load_write(void *arg)
{
	struct load *l = arg;
	uint64_t seed = 0x9e3779b97f4a7c15ULL * (l->number + 1);
	uint8_t *buffer = NULL;

	if (posix_memalign((void **)&buffer, 4096, 65536) != 0)
		return NULL;
	for (int i = 0; i < LOAD_WRITES_MAX && !__atomic_load_n(l->stop, __ATOMIC_SEQ_CST); i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		memset(buffer, (int)(seed >> 40), 65536);
		memcpy(buffer, &seed, sizeof(seed));
		size_t n = 512 << (seed % 8);
		/* Writers own disjoint stripes: overlapping writes in flight have no order of their own. */
		uint64_t slots = DISK_BYTES / 65536 / LOAD_WRITERS;
		uint64_t at = ((seed >> 8) % slots * LOAD_WRITERS + l->number) * 65536;
		if (pwrite(l->bench->disk[(seed >> 20) % l->bench->disks].fd, buffer, n, (off_t)at) != (ssize_t)n)
			break;
	}
	free(buffer);
	__atomic_fetch_sub(&l->running, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Many writers, a ring that fills: debt and epochs come and go, and the replica converges when they rest. */
static void a_replica_under_load_converges_through_any_number_of_debts(void **state)
{
	struct bench *b = *state;
	struct load load[LOAD_WRITERS];
	pthread_t thread[LOAD_WRITERS];
	unsigned int epochs = 0;
	int alive = 1, stop = 0;
	bool in_debt = false;

	bench_start(b, 3, LOAD_RING_BYTES);
	for (unsigned int i = 0; i < LOAD_WRITERS; i++) {
		load[i] = (struct load){.bench = b, .number = i, .running = 1, .stop = &stop};
		assert_int_equal(pthread_create(&thread[i], NULL, load_write, &load[i]), 0);
	}
	while (alive || in_debt) {
		alive = 0;
		for (unsigned int i = 0; i < LOAD_WRITERS; i++)
			alive |= __atomic_load_n(&load[i].running, __ATOMIC_SEQ_CST) > 0;
		/* The consumer is late on purpose: the ring fills up again and again. */
		if (alive && lb_capture_mode(b->capture) == LB_CAPTURE_RUNNING) {
			usleep(500);
			continue;
		}
		must(replica_take(&b->replica, &in_debt));
		if (!in_debt)
			continue;
		int r = replica_begin(&b->replica, false);
		if (r == -EAGAIN) {
			in_debt = true;
			continue;
		}
		must(r);
		must(replica_scan(&b->replica, true));
		if (++epochs == LOAD_EPOCHS)
			__atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
	}
	for (unsigned int i = 0; i < LOAD_WRITERS; i++)
		pthread_join(thread[i], NULL);
	while (replica_take(&b->replica, &in_debt) == 0 && in_debt) {
		must(replica_begin(&b->replica, false));
		must(replica_scan(&b->replica, true));
	}
	assert_true(epochs >= LOAD_EPOCHS);
	for (unsigned int i = 0; i < 3; i++)
		assert_false(replica_differs(&b->replica, i));
	uint64_t skipped;
	must(lb_capture_skipped(b->capture, &skipped));
	print_message("%u epochs, %lu records, %lu runs skipped\n", epochs, (unsigned long)b->replica.records,
		      (unsigned long)skipped);
}

/* ---- The rules: each scene with its rule, and with the rule taken out ---------------------------------------------
 */

#ifdef LB_FAULT_INJECTION

/* Debt, an epoch, a rest: does the replica differ from the disk although no debt is told? */
static bool silent_loss(struct bench *b)
{
	bool in_debt;

	must(replica_take(&b->replica, &in_debt));
	if (in_debt) {
		must(replica_begin(&b->replica, false));
		must(replica_scan(&b->replica, true));
		must(replica_take(&b->replica, &in_debt));
		assert_false(in_debt);
	}
	return replica_differs(&b->replica, 0) != 0;
}

static bool scene_overflow(struct bench *b, uint32_t fault)
{
	lb_capture_set_faults(b->capture, fault);
	for (unsigned int i = 0; i < 12; i++)
		put(b, 0, (uint64_t)i << 20, 256 << 10);
	return silent_loss(b);
}

static void rule_1_a_lost_write_marks_its_range(void **state)
{
	bench_start(*state, 1, LB_CAPTURE_RING_BYTES_MIN);
	assert_false(scene_overflow(*state, 0));
	assert_true(scene_overflow(*state, LB_FAULT_NO_MARK));
}

static void rule_1_a_lost_write_sets_the_loss_position(void **state)
{
	bench_start(*state, 1, LB_CAPTURE_RING_BYTES_MIN);
	assert_false(scene_overflow(*state, 0));
	assert_true(scene_overflow(*state, LB_FAULT_NO_LOSS_POS));
}

static void rule_3_no_cut_goes_past_the_loss_position(void **state)
{
	bench_start(*state, 1, LB_CAPTURE_RING_BYTES_MIN);
	assert_false(scene_overflow(*state, 0));
	assert_true(scene_overflow(*state, LB_FAULT_CUT_PAST_LOSS));
}

static bool scene_refusal(struct bench *b, uint32_t fault)
{
	bench_start(b, 1, RING_BYTES);
	lb_capture_set_faults(b->capture, fault);
	assert_int_equal(fcntl(b->disk[0].backing, F_ADD_SEALS, F_SEAL_WRITE), 0);
	fill(b, 4096);
	assert_int_equal(pwrite(b->disk[0].fd, b->buffer, 4096, 7 << 20), -1);
	return silent_loss(b);
}

static void rule_2_a_refused_write_is_debt(void **state)
{
	assert_false(scene_refusal(*state, 0));
}

static void rule_2_taken_out_a_refused_write_stays_in_the_replica(void **state)
{
	assert_true(scene_refusal(*state, LB_FAULT_NO_FAILURE_DEBT));
}

struct slow_writer {
	struct writer w;
	atomic_bool done;
};

static void *write_slowly(void *arg)
{
	struct slow_writer *s = arg;
	write_one(&s->w);
	atomic_store(&s->done, true);
	return NULL;
}

/* Begins a write and returns while its program dawdles. On a busy machine that moment can be missed: another write. */
static void begin_slow_write(struct bench *b, struct slow_writer *s, const struct lb_capture_range *range)
{
	for (int i = 0; i < SLOW_TRIES_MAX; i++) {
		atomic_store(&s->done, false);
		assert_int_equal(pthread_create(&s->w.thread, NULL, write_slowly, s), 0);
		while (!atomic_load(&s->done))
			if (lb_capture_chunk_ready(b->capture, range) == 0)
				return;
		pthread_join(s->w.thread, NULL);
	}
	fail_msg("a slow write was never seen in flight");
}

/* A write that saw the debt of the old generation marks its range only after the flip: the grace must wait for it. */
static bool scene_late_mark(struct bench *b, uint32_t fault)
{
	struct lb_capture_range range = {.offset_bytes = 9 << 20, .length_bytes = 65536};
	struct slow_writer s = {.w = {.fd = b->disk[0].fd, .buffer = b->buffer, .offset = 9 << 20}};
	bool in_debt;

	must(lb_capture_declare_loss(b->capture, 0, 0, 4096));
	must(replica_take(&b->replica, &in_debt));
	must(replica_begin(&b->replica,
			   false)); /* a generation without a drain, so that in-flight counters are looked at */
	must(replica_scan(&b->replica, true));
	must(lb_capture_declare_loss(b->capture, 0, 0, 4096));
	fill(b, 4096);
	lb_capture_set_faults(b->capture, LB_FAULT_SLOW | fault);
	begin_slow_write(b, &s, &range);
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	pthread_join(s.w.thread, NULL);
	lb_capture_set_faults(b->capture, 0);
	return silent_loss(b);
}

static void rule_4_the_flip_waits_for_programs_that_run(void **state)
{
	bench_start(*state, 1, RING_BYTES);
	assert_false(scene_late_mark(*state, 0));
	/* the flip must fall into the write's time, which the scheduler may not grant */
	bool lost = false;
	for (int i = 0; i < SLOW_TRIES_MAX && !lost; i++)
		lost = scene_late_mark(*state, LB_FAULT_NO_GRACE);
	assert_true(lost);
}

/* A record of the old generation, never acknowledged, that the scan of the new one would be hidden by. */
static bool scene_old_record(struct bench *b, uint32_t fault)
{
	put(b, 0, 4 << 20, 4096);
	must(lb_capture_declare_loss(b->capture, 0, 4 << 20, 4096));
	put(b, 0, 4 << 20, 4096); /* in debt: marked only */
	lb_capture_set_faults(b->capture, fault);
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	bool silent = silent_loss(b);
	lb_capture_set_faults(b->capture, 0);
	return silent;
}

static void rule_4_records_of_an_older_generation_become_marks(void **state)
{
	bench_start(*state, 1, RING_BYTES);
	assert_false(scene_old_record(*state, 0));
	assert_true(scene_old_record(*state, LB_FAULT_KEEP_OLD_GENERATION));
}

/* A write in flight since before the flip, only marked; a scan that doesn't wait for it reads what was there before. */
static bool scene_stalled(struct bench *b, uint32_t fault)
{
	struct lb_capture_range range = {.offset_bytes = 3 << 20, .length_bytes = 65536};
	struct writer w = {.fd = b->disk[0].fd, .buffer = b->buffer, .offset = 3 << 20};
	struct lb_capture_range next;
	uint64_t cursor;

	must(lb_capture_declare_loss(b->capture, 0, 0, 4096));
	must(replica_begin(&b->replica, false));
	must(replica_scan(&b->replica, true));
	must(lb_capture_declare_loss(b->capture, 0, 0, 4096));
	fill(b, 4096);
	stall_set(&b->stall, true);
	assert_int_equal(pthread_create(&w.thread, NULL, write_one, &w), 0);
	wait_until_in_flight(b, &range);
	must(replica_begin(&b->replica, false));
	assert_int_equal(lb_capture_scan_next(b->capture, lb_capture_scan_cursor(b->capture, 0, 3 << 20), 1 << 20,
					      &next, &cursor),
			 1);
	assert_int_equal(next.offset_bytes, 3 << 20);
	/* The loop driver does one thing after another: its reads wait for the stalled write. The file below shows the
	 * same. */
	b->replica.scan_fd = b->disk[0].backing;
	lb_capture_set_faults(b->capture, fault);
	assert_int_equal(replica_scan(&b->replica, false), fault != 0 ? 0 : -EAGAIN);
	lb_capture_set_faults(b->capture, 0);
	b->replica.scan_fd = -1;
	stall_set(&b->stall, false);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.result, 4096);
	must(replica_scan(&b->replica, true));
	return silent_loss(b);
}

static void rule_5_a_scan_waits_for_writes_from_before_the_flip(void **state)
{
	struct bench *b = *state;

	skip_where_impossible();
	stall_make(&b->stall, &b->disk[0]);
	b->disks = 1;
	bench_attach(b, RING_BYTES);
	must(replica_begin(&b->replica, true));
	must(replica_scan(&b->replica, true));
	bool with = scene_stalled(b, 0), without = scene_stalled(b, LB_FAULT_IGNORE_INFLIGHT);
	assert_false(with);
	assert_true(without);
}

static void a_write_that_vanishes_makes_the_replica_differ(void **state)
{
	struct bench *b = *state;

	bench_start(b, 1, RING_BYTES);
	put(b, 0, 0, 4096);
	assert_false(silent_loss(b));
	lb_capture_set_faults(b->capture, LB_FAULT_DROP_WRITE);
	put(b, 0, 4096, 4096);
	assert_int_equal(lb_capture_faults(b->capture), 0);
	assert_true(silent_loss(b));
}

#endif

static const struct CMUnitTest tests[] = {
#ifdef LB_FAULT_INJECTION
	cmocka_unit_test_setup_teardown(rule_1_a_lost_write_marks_its_range, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_1_a_lost_write_sets_the_loss_position, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_2_a_refused_write_is_debt, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_2_taken_out_a_refused_write_stays_in_the_replica, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_3_no_cut_goes_past_the_loss_position, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_4_the_flip_waits_for_programs_that_run, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_4_records_of_an_older_generation_become_marks, setup, teardown),
	cmocka_unit_test_setup_teardown(rule_5_a_scan_waits_for_writes_from_before_the_flip, setup, teardown),
	cmocka_unit_test_setup_teardown(a_write_that_vanishes_makes_the_replica_differ, setup, teardown),
#endif
	cmocka_unit_test_setup_teardown(a_write_is_recorded_with_its_data_and_place, setup, teardown),
	cmocka_unit_test_setup_teardown(a_write_from_an_unaligned_buffer_is_recorded_byte_for_byte, setup, teardown),
	cmocka_unit_test_setup_teardown(writes_to_several_disks_stand_in_one_order, setup, teardown),
	cmocka_unit_test_setup_teardown(zeroing_and_discarding_are_ranges_of_zeroes, setup, teardown),
	cmocka_unit_test_setup_teardown(a_full_ring_becomes_debt_and_the_next_epoch_settles_it, setup, teardown),
	cmocka_unit_test_setup_teardown(what_was_not_acknowledged_is_scanned_by_the_next_epoch, setup, teardown),
	cmocka_unit_test_setup_teardown(a_declared_loss_marks_the_range_and_ends_the_epoch, setup, teardown),
	cmocka_unit_test_setup_teardown(a_write_that_the_disk_refuses_is_a_loss_of_its_range, setup, teardown),
	cmocka_unit_test_setup_teardown(a_restarted_agent_finds_everything_as_it_left_it, setup, teardown),
	cmocka_unit_test_setup_teardown(attaching_again_resumes_and_refuses_other_disks, setup, teardown),
	cmocka_unit_test_setup_teardown(detaching_leaves_nothing_behind, setup, teardown),
	cmocka_unit_test_setup_teardown(what_cannot_be_captured_is_refused_with_a_reason, setup, teardown),
	cmocka_unit_test_setup_teardown(a_position_outside_of_the_ring_is_refused, setup, teardown),
	cmocka_unit_test_setup_teardown(the_kernels_counters_agree_with_what_was_seen, setup, teardown),
	cmocka_unit_test_setup_teardown(a_write_past_the_program_is_told_by_the_kernels_counters, setup, teardown),
	cmocka_unit_test_setup_teardown(a_disk_that_is_gone_or_was_replaced_is_told, setup, teardown),
	cmocka_unit_test_setup_teardown(a_chunk_is_not_read_while_a_write_to_it_is_in_flight, setup, teardown),
	cmocka_unit_test_setup_teardown(a_replica_under_load_converges_through_any_number_of_debts, setup, teardown),
};

int main(void)
{
	check_machine();
	return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
