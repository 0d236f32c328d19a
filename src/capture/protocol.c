/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON line over a Unix socket, with fds. */
#include "capture/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"

#define FDS_MAX 128

static int send_first(int socket, const char *text, size_t n, const int *fds, size_t n_fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
		struct cmsghdr align;
	} control = {0};
	struct iovec v = {.iov_base = (void *)text, .iov_len = n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	if (n_fds > FDS_MAX)
		return -E2BIG;
	if (n_fds > 0) {
		m.msg_control = control.bytes;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
	}
	ssize_t sent = sendmsg(socket, &m, MSG_NOSIGNAL);
	return sent < 0 ? -errno : (int)sent;
}

int lb_line_send(int socket, const json_t *message, const int *fds, size_t n_fds)
{
	_cleanup_free_ char *text = NULL;
	int r = lb_json_dump(message, &text);
	if (r < 0)
		return r;
	size_t n = strlen(text);
	if (n >= LB_LINE_BYTES_MAX)
		return lb_fail(-EMSGSIZE, "capture helper: a message of %zu bytes is too long", n);
	text[n++] = '\n';
	for (size_t at = 0; at < n; at += (size_t)r) {
		r = send_first(socket, text + at, n - at, fds, at == 0 ? n_fds : 0);
		if (r <= 0)
			return lb_fail(r < 0 ? r : -EPIPE, "capture helper: the connection broke: %s",
				       strerror(r < 0 ? -r : EPIPE));
	}
	return 0;
}

static void take_fds(struct msghdr *m, int *fds, size_t fds_max, size_t *n_fds, bool *too_many)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h != NULL; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			if (*n_fds < fds_max) {
				fds[(*n_fds)++] = fd;
			} else {
				close(fd);
				*too_many = true;
			}
		}
	}
}

static int receive_some(int socket, struct lb_buf *b, int *fds, size_t fds_max, size_t *n_fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
		struct cmsghdr align;
	} control;
	char piece[4096];
	struct iovec v = {.iov_base = piece, .iov_len = sizeof(piece)};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
	bool too_many = false;
	ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
	take_fds(&m, fds, fds_max, n_fds, &too_many);
	if (n == 0)
		return -ECONNRESET;
	if (too_many || (m.msg_flags & MSG_CTRUNC) != 0)
		return -E2BIG;
	return lb_buf_append(b, piece, (size_t)n);
}

int lb_line_receive(int socket, int *fds, size_t fds_max, json_t **ret_message, size_t *ret_fds)
{
	_cleanup_buf_ struct lb_buf b = LB_BUF(LB_LINE_BYTES_MAX);
	size_t n_fds = 0;
	int r;

	do {
		r = receive_some(socket, &b, fds, fds_max, &n_fds);
		if (r < 0)
			lb_fail(r, "capture helper: no whole message came: %s", strerror(-r));
	} while (r == 0 && b.data[b.size_bytes - 1] != '\n');
	if (r == 0)
		r = lb_json_parse(b.data, b.size_bytes - 1, LB_LINE_BYTES_MAX, ret_message);
	if (r < 0) {
		while (n_fds > 0)
			close(fds[--n_fds]);
		return r;
	}
	*ret_fds = n_fds;
	return 0;
}
