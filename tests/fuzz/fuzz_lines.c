/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes on a Unix socket: the helper's line from the agent, or QEMU's answers. The first byte says which; the peer
 * sends the rest and hangs up.
 */
#include "fabric/qmp.c" /* its reader is its own */

#include "capture/protocol.h"

#define BYTES_MAX (128u << 10) /* what a socket takes without a reader */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

static void try_line(int fd)
{
	_cleanup_json_ json_t *message = NULL;
	size_t n_fds = 0;
	int fds[4];

	if (lb_line_receive(fd, fds, 4, &message, &n_fds) == 0 && (n_fds != 0 || message == NULL))
		abort();
}

static void try_qmp(int fd)
{
	struct lb_qmp q = {.env = lb_env_real(), .fd = fd, .in = LB_BUF(LB_QMP_LINE_BYTES_MAX)};
	int64_t end_ns = lb_mono_ns(q.env) + LB_QMP_WAIT_MS * LB_NS_PER_MS;

	for (;;) {
		_cleanup_json_ json_t *answer = NULL, *value = NULL;

		if (read_object(&q, end_ns, &answer) < 0)
			break;
		(void)answer_of("query-status", answer, &value);
	}
	lb_buf_free(&q.in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	int pair[2];

	if (size_bytes < 1 || size_bytes > BYTES_MAX)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		abort();
	if (send(pair[0], data + 1, size_bytes - 1, MSG_DONTWAIT) != (ssize_t)size_bytes - 1 && size_bytes > 1)
		abort();
	close(pair[0]);
	if ((data[0] & 1) == 0)
		try_line(pair[1]);
	else
		try_qmp(pair[1]);
	close(pair[1]);
	lb_err_clear();
	return 0;
}
