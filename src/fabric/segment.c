/* SPDX-License-Identifier: Apache-2.0 */
/* Our side of a segment: asking its process for a device. */
#include "fabric/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "fabric/backends.h"
#include "fabric/segment_message.h"

#define LOOK_AGAIN_MS 20

/* Beside this program, in its build folder, or on the path. */
static int find_program(char program[PATH_MAX])
{
	static const char *const places[] = {"", "../fabric/", "../../src/fabric/"};
	_cleanup_free_ char *found = NULL;
	char self[PATH_MAX], *folder;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int r;

	self[LB_MAX(n, 0)] = '\0';
	folder = dirname(self);
	for (size_t i = 0; n > 0 && i < LB_ARRAY_LEN(places); i++)
		if (snprintf(program, PATH_MAX, "%s/%s" LB_SEGMENT_PROGRAM, folder, places[i]) < PATH_MAX &&
		    access(program, X_OK) == 0)
			return 0;
	r = lb_proc_which(LB_SEGMENT_PROGRAM, &found);
	if (r == 0)
		snprintf(program, PATH_MAX, "%s", found);
	return r;
}

int lb_segment_check(struct lb_env *env)
{
	char program[PATH_MAX];
	const char *argv[] = {program, "--check", NULL};
	int r;

	r = find_program(program);
	if (r == 0)
		r = lb_proc_run(env, &(struct lb_proc_run){.argv = argv, .keep_fd = -1, .timeout_s = 30}, NULL);
	return r < 0 ? lb_fail(-EOPNOTSUPP, "this host makes no isolated networks: %s", lb_err_text()) : 0;
}

static int socket_address(const struct lb_vm_spec *vm, const char *segment, struct sockaddr_un *ret_address,
			  char folder[PATH_MAX])
{
	char copy[PATH_MAX];
	int n;

	snprintf(copy, sizeof(copy), "%s", vm->folder);
	snprintf(folder, PATH_MAX, "%s", dirname(copy));
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s/.seg-%s", folder, segment);
	return n < (int)sizeof(ret_address->sun_path)
		       ? 0
		       : lb_fail(-ENAMETOOLONG, "%s is too long a path for sockets; choose a shorter folder for VMs",
				 folder);
}

/*
 * One try: -ENOENT or -ECONNREFUSED when it is not there, -ECONNRESET when it has just ended. `listener`: what it is to
 * listen at; without one (-1) `ret_fd` takes the device.
 */
static int ask(const struct sockaddr_un *address, const char *name, int listener, int *ret_fd)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	union lb_segment_control control = {0};
	char text[256] = "";
	struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	const struct timeval limit = {.tv_sec = LB_SEGMENT_WAIT_S};
	struct cmsghdr *head;
	int r;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return -errno;
	r = lb_segment_send(fd, name, listener);
	if (r < 0)
		return r == -EPIPE ? -ECONNRESET : r;
	switch (recvmsg(fd, &message, MSG_CMSG_CLOEXEC)) {
	case -1:
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	case 0:
		return -ECONNRESET;
	}
	if (listener >= 0 && strcmp(text, LB_SEGMENT_LISTENS) == 0)
		return 0;
	head = CMSG_FIRSTHDR(&message);
	if (listener >= 0 || head == NULL || head->cmsg_type != SCM_RIGHTS)
		return lb_fail(-EREMOTEIO, "the isolated network gives no device: %.200s", text);
	memcpy(ret_fd, CMSG_DATA(head), sizeof(*ret_fd));
	return 0;
}

/* Asks the segment, which is made if there is none. */
static int reach(struct lb_env *env, const struct lb_vm_spec *vm, const char *segment, int listener, int *ret_fd)
{
	_cleanup_free_ char *log_path = lb_vm_path(vm, "segment.log");
	_cleanup_close_ int lock = -1;
	int64_t end_ns = lb_mono_ns(env) + LB_SEGMENT_WAIT_S * LB_NS_PER_S;
	char program[PATH_MAX], folder[PATH_MAX], name[LB_TAP_NAME_BYTES], line[LB_PROC_LAST_LINE_BYTES];
	struct sockaddr_un address;
	pid_t pid = 0;
	int r;

	if (log_path == NULL)
		return lb_fail(-ENOMEM, "out of memory");
	r = socket_address(vm, segment, &address, folder);
	r = r < 0 ? r : find_program(program);
	if (r < 0)
		return r;
	/* of several doubles that begin at once one makes the segment */
	lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return lb_fail(-errno, "can't lock %s: %s", folder, strerror(errno));
	lb_tap_name(vm, name);
	while ((r = ask(&address, name, listener, ret_fd)) < 0) {
		const char *argv[] = {program, address.sun_path, NULL};

		if (r != -ENOENT && r != -ECONNREFUSED && r != -ECONNRESET)
			return r == -EREMOTEIO
				       ? r
				       : lb_fail(r, "can't ask for the isolated network %s: %s", segment, strerror(-r));
		if (lb_proc_find(env, address.sun_path) == 0 && pid != 0) {
			lb_proc_last_line(env, log_path, line);
			return lb_fail(-EREMOTEIO, "the isolated network %s can't be made: %s", segment, line);
		}
		if (lb_proc_find(env, address.sun_path) == 0) {
			r = lb_proc_spawn(
				env, &(struct lb_proc_spawn){.argv = argv, .log_path = log_path, .keep_fd = -1}, &pid);
			if (r < 0)
				return r;
		}
		if (lb_mono_ns(env) >= end_ns)
			return lb_fail(-ETIMEDOUT, "the isolated network %s has not come up within %d s", segment,
				       LB_SEGMENT_WAIT_S);
		lb_proc_pause(env, LOOK_AGAIN_MS);
	}
	return 0;
}

int lb_segment_tap(struct lb_env *env, const struct lb_vm_spec *vm, const char *segment, int *ret_fd)
{
	return reach(env, vm, segment, -1, ret_fd);
}

int lb_segment_socket(struct lb_env *env, const struct lb_vm_spec *vm, const char *segment, const char *path)
{
	_cleanup_close_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >= (int)sizeof(address.sun_path))
		return lb_fail(-ENAMETOOLONG, "%s is too long a path for a socket; choose a shorter folder for VMs",
			       path);
	/* of a start before this one */
	if (unlink(path) < 0 && errno != ENOENT)
		return lb_fail(-errno, "can't remove %s: %s", path, strerror(errno));
	if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, 0600) < 0 || listen(listener, 1) < 0)
		return lb_fail(-errno, "can't listen at %s: %s", path, strerror(errno));
	return reach(env, vm, segment, listener, NULL);
}
