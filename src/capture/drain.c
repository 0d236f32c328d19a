/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Empties a disk's queue once. A change of nr_requests freezes the queue of a request-based disk: the kernel waits
 * until every request in flight has ended and lets later ones wait meanwhile. Devices without such a queue have no
 * freeze that user space can ask for: there a moment is waited for at which neither the kernel nor the program counts a
 * write in flight.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/env.h"
#include "base/err.h"
#include "capture/internal.h"

#define REQUESTS_MIN 4 /* the kernel's BLKDEV_MIN_RQ */
#define POLL_MS 1
#define FLOW_MS_MAX 1000

static int requests_write(const char *path, unsigned long value)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%lu\n", value);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return -errno;
	return 0;
}

static int requests_change(const char *name)
{
	char path[PATH_MAX], text[24] = "";

	snprintf(path, sizeof(path), "/sys/block/%s/queue/nr_requests", name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	/* two that read and write in turns would leave another number behind */
	if (fd >= 0 && flock(fd, LOCK_EX) < 0)
		return -errno;
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -EOPNOTSUPP;
	unsigned long before = strtoul(text, NULL, 10);
	if (before <= REQUESTS_MIN)
		return -EOPNOTSUPP;
	int r = requests_write(path, before - 1);
	if (r < 0)
		return r;
	return requests_write(path, before);
}

/* The write to sysfs sleeps, beyond any signal, as long as the disk takes: a child does it, so that we can stop
 * waiting. */
static int freeze_once(const char *name, unsigned int timeout_ms)
{
	int done[2];
	if (pipe2(done, O_CLOEXEC) < 0)
		return -errno;
	_cleanup_close_ int from = done[0], to = done[1];
	pid_t child = fork();
	if (child < 0)
		return -errno;
	if (child == 0) {
		int r = requests_change(name);
		_exit(write(to, &r, sizeof(r)) == sizeof(r) ? 0 : 1);
	}
	lb_closep(&to);
	to = -1;
	struct pollfd p = {.fd = from, .events = POLLIN};
	int r = -ETIMEDOUT;
	if (poll(&p, 1, (int)timeout_ms) > 0) {
		if (read(from, &r, sizeof(r)) != sizeof(r))
			r = -EIO;
		waitpid(child, NULL, 0);
	}
	/* a child that still waits is left to put the number back; whoever started us or our own loop reaps it */
	return r;
}

static int idle_once(const char *name, unsigned int timeout_ms)
{
	struct lb_env *env = lb_env_real();
	int64_t until = lb_mono_ns(env) + timeout_ms * LB_NS_PER_MS;

	for (;;) {
		struct lb_disk_facts f;
		int r = lb_disk_facts(name, &f);
		if (r < 0)
			return r;
		if (f.writes_in_flight == 0 && f.iostats)
			return 0;
		int64_t now = lb_mono_ns(env);
		if (now >= until)
			return -ETIMEDOUT;
		env->ops->wait_until(env, now + POLL_MS * LB_NS_PER_MS, -1);
	}
}

/*
 * To freeze the queue of a disk on which a write hangs would make every later one hang with it. So first the disk must
 * show that it ends what it was given.
 */
static int wait_until_flowing(const char *name, unsigned int timeout_ms)
{
	struct lb_env *env = lb_env_real();
	int64_t until = lb_mono_ns(env) + LB_MIN(timeout_ms, FLOW_MS_MAX) * LB_NS_PER_MS;
	struct lb_disk_facts first, f;
	int r = lb_disk_facts(name, &first);

	while (r == 0) {
		r = lb_disk_facts(name, &f);
		if (r < 0)
			break;
		if (f.writes_in_flight == 0 || f.written_bytes != first.written_bytes)
			return 0;
		int64_t now = lb_mono_ns(env);
		if (now >= until)
			return -ETIMEDOUT;
		env->ops->wait_until(env, now + POLL_MS * LB_NS_PER_MS, -1);
	}
	return r;
}

int lb_disk_drain(const char *name, unsigned int timeout_ms)
{
	timeout_ms = LB_MIN(timeout_ms, LB_CAPTURE_DRAIN_MS_MAX);
	int r = wait_until_flowing(name, timeout_ms);
	if (r == 0)
		r = freeze_once(name, timeout_ms);
	if (r == -EOPNOTSUPP || r == -EINVAL || r == -ENOENT)
		r = idle_once(name, timeout_ms);
	if (r < 0)
		return lb_fail(
			r,
			"disk %s: its queue did not empty within %u ms (%s); is the disk stuck? See the kernel's log",
			name, timeout_ms, strerror(-r));
	return 0;
}

static bool flying(const struct lb_capture *c, unsigned int disk)
{
	const struct lb_capture_disk_slot *s = &c->control->disk[disk];
	uint64_t chunks = (s->size_bytes + LB_CAPTURE_CHUNK_BYTES - 1) >> LB_CAPTURE_CHUNK_SHIFT;

	for (uint64_t i = 0; i < chunks; i++)
		if (__atomic_load_n(&c->inflight[s->first_chunk + i], __ATOMIC_SEQ_CST) > 0)
			return true;
	return false;
}

/*
 * Some targets (dm-delay) tell the kernel's counters of a bio only when they pass it on, so these alone prove nothing.
 * The chunks are looked at one after another: each was idle once, which is what rule 5 asks for.
 */
int lb_drain_now(const struct lb_capture *c, unsigned int disk, unsigned int timeout_ms)
{
	struct lb_env *env = lb_env_real();
	const struct lb_capture_disk_slot *s = &c->control->disk[disk];
	int64_t until = lb_mono_ns(env) + LB_MIN(timeout_ms, LB_CAPTURE_DRAIN_MS_MAX) * LB_NS_PER_MS;

	int r = lb_disk_drain(s->name, timeout_ms);
	if (r < 0 || !s->bio_based)
		return r;
	while (flying(c, disk)) {
		int64_t now = lb_mono_ns(env);
		if (now >= until)
			return lb_fail(-ETIMEDOUT,
				       "disk %s: writes are still in flight after %u ms; is the disk stuck? See the "
				       "kernel's log",
				       s->name, timeout_ms);
		env->ops->wait_until(env, now + POLL_MS * LB_NS_PER_MS, -1);
	}
	return 0;
}
