/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freezing, bounded. A child made beforehand, locked in memory and with nothing left to allocate or to load, freezes
 * the filesystems and thaws them when it is told to, when its time is over, or when whoever asked for it is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/err.h"
#include "capture/internal.h"

struct lb_watchdog {
	pid_t pid;
	int socket;
};

enum word { WORD_THAW = 't' };

/* The child's whole life: no call in here may touch a frozen filesystem. */
static void child_run(int socket, const int *fds, size_t count, unsigned int max_ms)
{
	size_t frozen = 0;
	int result = 0;

	for (; frozen < count && result == 0; frozen++)
		if (ioctl(fds[frozen], FIFREEZE, 0) < 0)
			result = -errno;
	if (result < 0)
		frozen--;
	struct pollfd p = {.fd = socket, .events = POLLIN};
	int woken = 1;
	if (result == 0 && send(socket, &result, sizeof(result), MSG_NOSIGNAL) == sizeof(result))
		woken = poll(&p, 1, (int)max_ms);
	while (frozen > 0)
		ioctl(fds[--frozen], FITHAW, 0);
	if (result == 0 && woken == 0)
		result = -ETIMEDOUT;
	/* An unread word at our end would turn the answer into a reset. */
	char word;
	while (recv(socket, &word, sizeof(word), MSG_DONTWAIT) > 0)
		;
	send(socket, &result, sizeof(result), MSG_NOSIGNAL);
}

static void child_main(int socket, const int *fds, size_t count, unsigned int max_ms)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0) {
		child_run(socket, fds, count, max_ms);
	} else {
		int r = -errno;
		send(socket, &r, sizeof(r), MSG_NOSIGNAL);
	}
	_exit(0);
}

static void close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static int open_mounts(const char *const *mounts, size_t count, int *fds)
{
	for (size_t i = 0; i < count; i++) {
		fds[i] = open(mounts[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fds[i] < 0) {
			int r = -errno;
			close_all(fds, i);
			return lb_fail(r, "%s can't be frozen: %s", mounts[i], strerror(-r));
		}
	}
	return 0;
}

static int child_start(const int *fds, size_t count, unsigned int max_ms, struct lb_watchdog *w)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return lb_fail(-errno, "freeze: %s", strerror(errno));
	w->pid = fork();
	if (w->pid == 0) {
		close(ends[0]);
		child_main(ends[1], fds, count, max_ms);
	}
	close(ends[1]);
	if (w->pid < 0) {
		close(ends[0]);
		return lb_fail(-errno, "freeze: no process for the watchdog: %s", strerror(errno));
	}
	w->socket = ends[0];
	return 0;
}

/* Closes our end, which makes the child thaw if it hasn't. */
static void watchdog_end(struct lb_watchdog *w)
{
	close(w->socket);
	waitpid(w->pid, NULL, 0);
	free(w);
}

int lb_watchdog_freeze(const char *const *mounts, size_t mount_count, unsigned int max_ms,
		       struct lb_watchdog **ret_watchdog)
{
	int fds[LB_CAPTURE_MOUNTS_MAX], result = -EIO;
	if (mount_count > LB_CAPTURE_MOUNTS_MAX)
		return lb_fail(-EINVAL, "freeze: more than %d filesystems", LB_CAPTURE_MOUNTS_MAX);
	_cleanup_free_ struct lb_watchdog *w = calloc(1, sizeof(*w));
	if (w == NULL)
		return lb_fail(-ENOMEM, "freeze: out of memory");
	int r = open_mounts(mounts, mount_count, fds);
	if (r < 0)
		return r;
	r = child_start(fds, mount_count, max_ms, w);
	close_all(fds, mount_count);
	if (r < 0)
		return r;
	if (recv(w->socket, &result, sizeof(result), 0) != sizeof(result))
		result = -EIO;
	if (result < 0) {
		watchdog_end(lb_steal_ptr(w));
		return lb_fail(result, "the filesystems can't be frozen: %s", strerror(-result));
	}
	*ret_watchdog = lb_steal_ptr(w);
	return 0;
}

int lb_watchdog_thaw(struct lb_watchdog *w)
{
	char word = WORD_THAW;
	int result = -EIO;

	if (send(w->socket, &word, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		result = -errno;
	if (recv(w->socket, &result, sizeof(result), 0) != sizeof(result))
		result = -ETIMEDOUT;
	watchdog_end(w);
	if (result < 0)
		return lb_fail(result, "the filesystems were thawed before their time: %s", strerror(-result));
	return 0;
}
