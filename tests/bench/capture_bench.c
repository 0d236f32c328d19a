/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What capture costs and carries: O_DIRECT writes to a loop device on memory, without capture, with capture and a
 * consumer that takes what comes, and in debt. Needs root. Prints GiB/s, ns per write, and the time spent in the
 * program.
 */
#include <pthread.h>
#include <time.h>

#include "../unit/loop_disk.h"
#include "base/err.h"
#include "capture/capture.h"

#define DISK_BYTES (512ull << 20)
#define RING_BYTES (256u << 20)
#define RUN_NS 1500000000ll
#define WRITERS 4
#define PIN_FOLDER "/sys/fs/bpf/lifeboat_bench"

struct writer {
	pthread_t thread;
	int fd;
	unsigned int number;
	size_t size_bytes;
	uint64_t writes;
};

static int stop;

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void *write_on(void *arg)
{
	struct writer *w = arg;
	uint64_t share = DISK_BYTES / WRITERS, at = 0;
	void *buffer = NULL;

	if (posix_memalign(&buffer, 4096, w->size_bytes) != 0)
		return NULL;
	memset(buffer, 'x', w->size_bytes);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		if (pwrite(w->fd, buffer, w->size_bytes, (off_t)(w->number * share + at)) != (ssize_t)w->size_bytes)
			break;
		at = (at + w->size_bytes) % (share - w->size_bytes);
		w->writes++;
	}
	free(buffer);
	return NULL;
}

/* Takes and acknowledges until told to stop; returns the bytes. */
static uint64_t consume(struct lb_capture *c, int64_t until_ns)
{
	uint64_t position = lb_capture_consumer(c), limit, bytes = 0;
	struct lb_capture_record record;
	bool in_debt = false;

	while (now_ns() < until_ns && !in_debt) {
		lb_capture_limit(c, &limit, &in_debt);
		while (lb_capture_next(c, &position, limit, &record) == 1)
			bytes += record.length_bytes;
		lb_capture_acknowledge(c, position);
		usleep(200);
	}
	return bytes;
}

static void run(struct loop_disk *d, struct lb_capture *c, size_t size_bytes, const char *what)
{
	struct writer w[WRITERS];
	uint64_t writes = 0, captured = 0;
	struct lb_capture_stats before = {0}, after = {0};
	int64_t start = now_ns();

	stop = 0;
	if (c != NULL)
		lb_capture_stats(c, &before);
	for (unsigned int i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.fd = d->fd, .number = i, .size_bytes = size_bytes};
		pthread_create(&w[i].thread, NULL, write_on, &w[i]);
	}
	if (c != NULL && lb_capture_mode(c) == LB_CAPTURE_RUNNING)
		captured = consume(c, start + RUN_NS);
	while (now_ns() < start + RUN_NS)
		usleep(1000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		writes += w[i].writes;
	}
	int64_t took = now_ns() - start;
	if (c != NULL)
		lb_capture_stats(c, &after);
	uint64_t runs = after.cost_count - before.cost_count;
	printf("%-9s %8zu B: %6.2f GiB/s, %8.0f ns per write", what, size_bytes,
	       (double)writes * (double)size_bytes / (double)took * 1e9 / (1 << 30),
	       (double)took / (double)(writes ? writes : 1));
	if (runs > 0)
		printf(", %6.0f ns in the program, %.2f GiB/s consumed",
		       (double)(after.cost_ns_total - before.cost_ns_total) / (double)runs,
		       (double)captured / (double)took * 1e9 / (1 << 30));
	printf("%s\n", c != NULL && lb_capture_mode(c) == LB_CAPTURE_DEBT ? ", in debt" : "");
}

int main(void)
{
	static const size_t sizes[] = {512, 4096, 65536, 1 << 20};
	struct loop_disk d;
	_cleanup_capture_ struct lb_capture *c = NULL;
	uint32_t generation;
	uint64_t position;

	if (loop_disk_in_memory(&d, DISK_BYTES) < 0)
		return fputs("no loop device: root is needed\n", stderr), 1;
	const char *names[] = {d.name};
	struct lb_capture_params p = {
		.disks = names, .disk_count = 1, .ring_bytes = RING_BYTES, .pin_folder = PIN_FOLDER};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		run(&d, NULL, sizes[i], "bare");
	int r = lb_capture_attach_direct(&p, &c);
	for (size_t i = 0; r == 0 && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		r = lb_capture_begin_epoch(c, false, &generation, &position);
		if (r == 0)
			run(&d, c, sizes[i], "captured");
	}
	for (size_t i = 0; r == 0 && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		lb_capture_declare_loss(c, 0, 0, 4096);
		run(&d, c, sizes[i], "marked");
	}
	if (r < 0)
		fprintf(stderr, "%s\n", lb_err_text());
	if (c != NULL)
		lb_capture_detach(c);
	loop_disk_end(&d);
	return r < 0 ? 1 : 0;
}
