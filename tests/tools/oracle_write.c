/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oracle_write --log FILE --writers N --seconds S [--seed N] [--rate WRITES_PER_S] [--spare PIN_FOLDER] DISK...
 *
 * N threads write stamped sectors to the disks with O_DIRECT until the time is up or SIGTERM comes; with a rate, all of
 * them at the same instants. With --spare they stand still while the capture's ring is half full: it never overflows,
 * however slow the machine is. Prints what was written and the greatest number of writes that were in flight at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "capture/capture.h"
#include "tools/oracle.h"

#define WRITERS_MAX 128
#define REGION_SECTORS ORACLE_SECTORS_PER_WRITE_MAX
#define WRITE_ALIGNMENT 4096
#define SPARE_POLL_NS 5000000
#define SPARE_REOPEN_POLLS 200 /* it may have been detached, and attached anew */

struct disk {
	int fd;
	uint64_t n_sectors;
	pthread_mutex_t *regions; /* racing writes never overlap */
};

static struct disk disks[ORACLE_DISKS_MAX];
static uint32_t n_disks, n_writers = 32;
static uint64_t seed = 1, rate_per_s;
static int log_fd = -1;
static const char *spare_pins;
static int64_t begun_ns, spared_ns;
static atomic_bool stopping, half_full, ring_seen;

/* Numbers are given out and `low` is worked out under one lock: it is what makes the stamps an order. */
static pthread_mutex_t order_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t next_seq = 1, in_flight[WRITERS_MAX], in_flight_max, n_in_flight;

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t now_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}

static void begin_write(uint32_t writer, uint64_t *ret_seq, uint64_t *ret_low)
{
	uint64_t low;

	pthread_mutex_lock(&order_lock);
	low = next_seq - 1;
	for (uint32_t i = 0; i < n_writers; i++)
		if (in_flight[i] != 0 && in_flight[i] - 1 < low)
			low = in_flight[i] - 1;
	*ret_seq = in_flight[writer] = next_seq++;
	*ret_low = low;
	if (++n_in_flight > in_flight_max)
		in_flight_max = n_in_flight;
	pthread_mutex_unlock(&order_lock);
}

static void end_write(uint32_t writer)
{
	pthread_mutex_lock(&order_lock);
	in_flight[writer] = 0;
	n_in_flight--;
	pthread_mutex_unlock(&order_lock);
}

static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int write_once(uint32_t writer, uint64_t *state, uint8_t *buf)
{
	struct oracle_write w = {.disk = (uint32_t)(draw(state) % n_disks)};
	struct disk *d = &disks[w.disk];
	uint64_t region = draw(state) % (d->n_sectors / REGION_SECTORS);
	uint32_t first = (uint32_t)(draw(state) % REGION_SECTORS);
	ssize_t n;

	w.n_sectors = 1 + (uint32_t)(draw(state) % (REGION_SECTORS - first));
	w.sector = region * REGION_SECTORS + first;
	pthread_mutex_lock(&d->regions[region]);
	begin_write(writer, &w.seq, &w.low);
	for (uint32_t i = 0; i < w.n_sectors; i++)
		oracle_stamp(buf + (size_t)i * ORACLE_SECTOR_BYTES, w.disk, w.sector + i, w.seq, w.low);
	w.submitted_ns = now_ns();
	n = pwrite(d->fd, buf, (size_t)w.n_sectors * ORACLE_SECTOR_BYTES, (off_t)(w.sector * ORACLE_SECTOR_BYTES));
	if (n == (ssize_t)w.n_sectors * ORACLE_SECTOR_BYTES)
		w.completed_ns = now_ns();
	end_write(writer);
	pthread_mutex_unlock(&d->regions[region]);
	if (write(log_fd, &w, sizeof(w)) != sizeof(w))
		return -EIO;
	return n < 0 ? -errno : 0;
}

static void pause_ns(int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	nanosleep(&ts, NULL);
}

static void *spare_ring(void *arg)
{
	_cleanup_capture_ struct lb_capture *capture = NULL;
	struct lb_capture_info info;

	for (unsigned int n = 0; !atomic_load(&stopping); n++) {
		if (n % SPARE_REOPEN_POLLS == 0) {
			lb_capture_freep(&capture);
			capture = NULL;
			(void)lb_capture_open_direct(spare_pins, &capture);
		}
		atomic_store(&half_full, false);
		if (capture != NULL) {
			atomic_store(&ring_seen, true);
			lb_capture_info(capture, &info);
			atomic_store(&half_full,
				     lb_capture_producer(capture) - lb_capture_consumer(capture) > info.ring_bytes / 2);
		}
		pause_ns(SPARE_POLL_NS);
		spared_ns += atomic_load(&half_full) ? SPARE_POLL_NS : 0;
	}
	return arg;
}

/* The next of its instants; those that it missed are not made up for. */
static void wait_turn(int64_t interval_ns, int64_t *due_ns)
{
	int64_t now;

	do {
		now = clock_ns(CLOCK_MONOTONIC);
		*due_ns += interval_ns;
		if (*due_ns < now)
			*due_ns += (now - *due_ns) / interval_ns * interval_ns;
		if (*due_ns > now)
			pause_ns(*due_ns - now);
	} while (atomic_load(&half_full) && !atomic_load(&stopping));
}

static void *writer_main(void *arg)
{
	uint32_t writer = (uint32_t)(uintptr_t)arg;
	uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + writer + 1;
	int64_t due_ns = begun_ns,
		interval_ns = rate_per_s > 0 ? (int64_t)(1000000000 * (uint64_t)n_writers / rate_per_s) : 0;
	uint8_t *buf = aligned_alloc(WRITE_ALIGNMENT, (size_t)REGION_SECTORS * ORACLE_SECTOR_BYTES);
	int r = buf == NULL ? -ENOMEM : 0;

	while (r == 0 && !atomic_load(&stopping)) {
		r = write_once(writer, &state, buf);
		if (interval_ns > 0)
			wait_turn(interval_ns, &due_ns);
	}
	free(buf);
	return (void *)(intptr_t)r;
}

static int open_disk(const char *path)
{
	struct disk *d = &disks[n_disks];
	off_t end;

	if (n_disks == ORACLE_DISKS_MAX)
		return -E2BIG;
	d->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (d->fd < 0)
		return -errno;
	end = lseek(d->fd, 0, SEEK_END);
	if (end < REGION_SECTORS * ORACLE_SECTOR_BYTES)
		return -EINVAL;
	d->n_sectors = (uint64_t)end / ORACLE_SECTOR_BYTES;
	d->regions = calloc(d->n_sectors / REGION_SECTORS, sizeof(pthread_mutex_t));
	if (d->regions == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < d->n_sectors / REGION_SECTORS; i++)
		pthread_mutex_init(&d->regions[i], NULL);
	n_disks++;
	return 0;
}

static int run(uint64_t seconds)
{
	pthread_t threads[WRITERS_MAX], sparer;
	struct timespec limit = {.tv_sec = (time_t)seconds};
	sigset_t stop;
	void *result;
	int r = 0;

	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);
	begun_ns = clock_ns(CLOCK_MONOTONIC);
	if (spare_pins != NULL && pthread_create(&sparer, NULL, spare_ring, NULL) != 0)
		return -EAGAIN;
	for (uint32_t i = 0; i < n_writers; i++)
		if (pthread_create(&threads[i], NULL, writer_main, (void *)(uintptr_t)i) != 0)
			return -EAGAIN;
	sigtimedwait(&stop, NULL, &limit);
	atomic_store(&stopping, true);
	for (uint32_t i = 0; i < n_writers; i++) {
		pthread_join(threads[i], &result);
		if ((intptr_t)result < 0)
			r = (int)(intptr_t)result;
	}
	if (spare_pins != NULL) {
		pthread_join(sparer, NULL);
		if (!ring_seen)
			r = -ENOENT;
	}
	for (uint32_t i = 0; i < n_disks; i++)
		if (fsync(disks[i].fd) < 0)
			r = -errno;
	return r;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"log", required_argument, NULL, 'l'},
		{"writers", required_argument, NULL, 'w'},
		{"seconds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'e'},
		{"rate", required_argument, NULL, 'r'},
		{"spare", required_argument, NULL, 'p'},
		{0},
	};
	uint64_t seconds = 10;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'l')
			log_fd = open(optarg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		else if (c == 'w')
			n_writers = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			seconds = strtoull(optarg, NULL, 10);
		else if (c == 'e')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			rate_per_s = strtoull(optarg, NULL, 10);
		else if (c == 'p')
			spare_pins = optarg;
		else
			return 2;
	}
	if (log_fd < 0 || n_writers < 1 || n_writers > WRITERS_MAX || optind == argc ||
	    (spare_pins != NULL && rate_per_s == 0)) {
		fprintf(stderr, "usage: oracle_write --log FILE [--writers N] [--seconds S] [--seed N] [--rate N] "
				"[--spare PIN_FOLDER] DISK...\n");
		return 2;
	}
	for (int i = optind; r == 0 && i < argc; i++)
		r = open_disk(argv[i]);
	if (r == 0)
		r = run(seconds);
	printf("{\"writes\":%" PRIu64 ",\"in_flight_max\":%" PRIu64 ",\"spared_ms\":%" PRId64 ",\"error\":%d}\n",
	       next_seq - 1, in_flight_max, spared_ns / 1000000, r);
	return r == 0 ? 0 : 1;
}
