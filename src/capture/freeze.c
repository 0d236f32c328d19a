/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchdog: two processes with one page in common. One freezes, and may hang in that as long as the disk likes; the
 * other waits with the clock in its hand and thaws. Nothing in here may touch a frozen filesystem.
 */
#include "capture/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"

#define RCU_EXPEDITED "/sys/kernel/rcu_expedited"
#define FDS_CLOSED_MAX 1024 /* of the helper's own: it has far fewer */

/* What both processes see. */
struct shared {
	int frozen[LB_FREEZE_MOUNTS_MAX];
	int stop;
	int hurried;
};

struct watchdog {
	int fds[LB_FREEZE_MOUNTS_MAX];
	size_t count;
	int socket;  /* to whoever asked */
	int hurry;   /* RCU_EXPEDITED, or below 0 */
	int freezer; /* to the process that freezes */
	pid_t pid;
	struct shared *shared;
	bool freezer_done;
	int freeze_result;
	uint64_t skipped;
	int64_t began_ns;
};

static int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * LB_NS_PER_S + ts.tv_nsec;
}

/* ---- grace periods -----------------------------------------------------------------------------------------------
 */

/*
 * A freeze waits for three of the kernel's grace periods, in two of which writers stand still: some 10 ms each, more on
 * a busy machine. While it goes on they are expedited, below 1 ms. Whichever process is left takes that back.
 */
static void hurry_begin(struct watchdog *w)
{
	char was[2] = "";

	if (w->hurry < 0 || pread(w->hurry, was, 1, 0) != 1 || was[0] != '0')
		return; /* it is not possible, or is so already */
	__atomic_store_n(&w->shared->hurried, 1, __ATOMIC_SEQ_CST);
	(void)!pwrite(w->hurry, "1", 1, 0);
}

/* Twice does no harm, and either process may be the one that came too early. */
static void hurry_end(struct watchdog *w)
{
	if (__atomic_load_n(&w->shared->hurried, __ATOMIC_SEQ_CST))
		(void)!pwrite(w->hurry, "0", 1, 0);
}

/* ---- the process that freezes ------------------------------------------------------------------------------------ */

static int freeze_one(struct watchdog *w, size_t i)
{
	if (ioctl(w->fds[i], FIFREEZE, 0) < 0) {
		if (errno != EOPNOTSUPP)
			return -errno;
		w->skipped |= UINT64_C(1) << i;
		return 0;
	}
	__atomic_store_n(&w->shared->frozen[i], 1, __ATOMIC_SEQ_CST);
	/* whoever stops us looks at `frozen` after it said so: one of us sees the other */
	if (__atomic_load_n(&w->shared->stop, __ATOMIC_SEQ_CST)) {
		ioctl(w->fds[i], FITHAW, 0);
		return -ETIMEDOUT;
	}
	return 0;
}

static void thaw_frozen(struct watchdog *w)
{
	for (size_t i = w->count; i-- > 0;)
		if (__atomic_exchange_n(&w->shared->frozen[i], 0, __ATOMIC_SEQ_CST))
			ioctl(w->fds[i], FITHAW, 0);
}

static void freezer_run(struct watchdog *w, int socket)
{
	struct lb_freeze_answer a = {0};
	char word;

	if (recv(socket, &word, 1, 0) != 1)
		return;
	hurry_begin(w);
	for (size_t i = 0; i < w->count && a.result == 0; i++)
		a.result = freeze_one(w, i);
	hurry_end(w);
	a.skipped = w->skipped;
	send(socket, &a, sizeof(a), MSG_NOSIGNAL);
	/* the other one has gone: it thawed, or somebody killed it, and then it is ours to thaw */
	(void)recv(socket, &word, 1, 0);
	thaw_frozen(w);
}

static int freezer_start(struct watchdog *w)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	w->pid = fork();
	if (w->pid < 0)
		return -errno;
	if (w->pid == 0) {
		close(ends[0]);
		close(w->socket);
		if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
			freezer_run(w, ends[1]);
		_exit(0);
	}
	close(ends[1]);
	w->freezer = ends[0];
	return 0;
}

/* ---- the process that thaws ---------------------------------------------------------------------------------------
 */

static void take_freezer(struct watchdog *w)
{
	struct lb_freeze_answer a = {.result = -EIO};

	if (w->freezer_done)
		return;
	if (recv(w->freezer, &a, sizeof(a), 0) != sizeof(a))
		a.result = -EIO;
	w->freezer_done = true;
	w->freeze_result = a.result;
	w->skipped = a.skipped;
}

/* What is frozen first; only then is waited for the one that is being frozen, which its process thaws itself. */
static void thaw_all(struct watchdog *w)
{
	__atomic_store_n(&w->shared->stop, 1, __ATOMIC_SEQ_CST);
	hurry_end(w);
	thaw_frozen(w);
	take_freezer(w);
	hurry_end(w);
	thaw_frozen(w);
}

static void answer(struct watchdog *w, int result)
{
	struct lb_freeze_answer a = {.result = result, .skipped = w->skipped};

	if (w->began_ns != 0)
		a.frozen_ns = clock_ns() - w->began_ns;
	send(w->socket, &a, sizeof(a), MSG_NOSIGNAL);
}

/* From the order to freeze until everything is thawed: the result of the thaw. */
static int frozen_life(struct watchdog *w, unsigned int max_ms)
{
	const int64_t until_ns = clock_ns() + max_ms * LB_NS_PER_MS;
	struct lb_freeze_order order;

	for (;;) {
		struct pollfd p[2] = {{.fd = w->socket, .events = POLLIN},
				      {.fd = w->freezer_done ? -1 : w->freezer, .events = POLLIN}};
		int64_t left_ns = until_ns - clock_ns();
		int n = left_ns <= 0 ? 0 : poll(p, 2, (int)((left_ns + LB_NS_PER_MS - 1) / LB_NS_PER_MS));

		if (n == 0) {
			thaw_all(w);
			return -ETIMEDOUT;
		}
		if (p[0].revents != 0) {
			(void)recv(w->socket, &order, sizeof(order), MSG_DONTWAIT);
			thaw_all(w);
			return w->freeze_result;
		}
		if (p[1].revents == 0)
			continue;
		take_freezer(w);
		if (w->freeze_result < 0) {
			thaw_all(w);
			return w->freeze_result;
		}
		answer(w, 0);
	}
}

static void watchdog_run(struct watchdog *w)
{
	struct pollfd p = {.fd = w->socket, .events = POLLIN};
	struct lb_freeze_order order;

	do {
		for (size_t i = 0; i < w->count; i++)
			syncfs(w->fds[i]);
		answer(w, 0);
		if (poll(&p, 1, LB_FREEZE_IDLE_S_MAX * 1000) <= 0 ||
		    recv(w->socket, &order, sizeof(order), 0) != sizeof(order))
			return;
	} while (order.what == LB_FREEZE_SYNC);
	if (order.what != LB_FREEZE_FREEZE || order.max_ms == 0 || order.max_ms > LB_FREEZE_MS_MAX)
		return;
	w->began_ns = clock_ns();
	if (send(w->freezer, "f", 1, MSG_NOSIGNAL) != 1)
		return;
	answer(w, frozen_life(w, order.max_ms));
	/* an unread word at our end would turn the answer into a reset */
	while (recv(w->socket, &order, sizeof(order), MSG_DONTWAIT) > 0)
		;
}

static void close_others(const struct watchdog *w)
{
	for (int fd = 3; fd < FDS_CLOSED_MAX; fd++) {
		bool ours = fd == w->socket || fd == w->hurry;

		for (size_t i = 0; i < w->count; i++)
			ours = ours || fd == w->fds[i];
		if (!ours)
			close(fd);
	}
}

static void watchdog_main(struct watchdog *w)
{
	sigset_t all;
	int r;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "lb-watchdog");
	/* who waits for us stands still; without the right to it we wait for our turn */
	(void)setpriority(PRIO_PROCESS, 0, -20);
	w->hurry = open(RCU_EXPEDITED, O_RDWR | O_CLOEXEC);
	close_others(w);
	r = freezer_start(w);
	if (r == 0 && mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		r = -errno;
	if (r < 0)
		answer(w, r);
	else
		watchdog_run(w);
	/* its end of their socket goes with us, and with it the freezer */
	_exit(0);
}

/* ---- making them --------------------------------------------------------------------------------------------------
 */

static void close_all(struct watchdog *w)
{
	while (w->count > 0)
		close(w->fds[--w->count]);
	if (w->shared != MAP_FAILED)
		munmap(w->shared, sizeof(*w->shared));
}

static int open_mounts(struct watchdog *w, const char *const *mounts, size_t count)
{
	for (; w->count < count; w->count++) {
		int fd = open(mounts[w->count], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return lb_fail(-errno, "%s can't be frozen: %s", mounts[w->count], strerror(errno));
		w->fds[w->count] = fd;
	}
	return 0;
}

int lb_watchdog_start(const char *const *mounts, size_t mount_count, pid_t *ret_pid, int *ret_socket)
{
	_cleanup_(close_all) struct watchdog w = {.socket = -1, .freezer = -1, .hurry = -1};
	int ends[2], r;
	pid_t pid;

	w.shared = mmap(NULL, sizeof(*w.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w.shared == MAP_FAILED)
		return lb_fail(-ENOMEM, "freeze: out of memory");
	if (mount_count == 0 || mount_count > LB_FREEZE_MOUNTS_MAX)
		return lb_fail(-EINVAL, "freeze: 1 to %d filesystems", LB_FREEZE_MOUNTS_MAX);
	r = open_mounts(&w, mounts, mount_count);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return lb_fail(-errno, "freeze: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		w.socket = ends[1];
		watchdog_main(&w);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return lb_fail(-errno, "freeze: no process for the watchdog: %s", strerror(errno));
	}
	*ret_pid = pid;
	*ret_socket = ends[0];
	return 0;
}
