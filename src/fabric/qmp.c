/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"

#define EVENTS_SKIPPED_MAX 1024

struct lb_qmp {
	struct lb_env *env;
	int fd;
	struct lb_buf in;
	size_t taken_bytes; /* of `in`, already given out */
};

void lb_qmp_free(struct lb_qmp *q)
{
	close(q->fd);
	lb_buf_free(&q->in);
	free(q);
}

static int connect_unix(const char *path, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path))
		return lb_fail(-ENAMETOOLONG, "socket path is too long: %s", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return lb_fail(-errno, "no socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return lb_fail(-errno, "can't reach QEMU at %s: %s", path, strerror(errno));
	*ret_fd = lb_steal_fd(fd);
	return 0;
}

/* Waits for more bytes until `end_ns`. */
static int receive(struct lb_qmp *q, int64_t end_ns)
{
	struct pollfd p = {.fd = q->fd, .events = POLLIN};
	int64_t left_ms = (end_ns - lb_mono_ns(q->env)) / LB_NS_PER_MS;
	char piece[4096];
	ssize_t n;

	if (left_ms <= 0)
		return lb_fail(-ETIMEDOUT, "QEMU has not answered within %d s", LB_QMP_WAIT_MS / 1000);
	if (poll(&p, 1, (int)left_ms) < 0)
		return errno == EINTR ? 0 : lb_fail(-errno, "can't wait for QEMU: %s", strerror(errno));
	if (p.revents == 0)
		return 0;
	n = read(q->fd, piece, sizeof(piece));
	if (n < 0)
		return errno == EINTR ? 0 : lb_fail(-errno, "can't hear QEMU: %s", strerror(errno));
	if (n == 0)
		return lb_fail(-ECONNRESET, "QEMU has ended");
	if (lb_buf_append(&q->in, piece, (size_t)n) < 0)
		return lb_fail(-EMSGSIZE, "QEMU's answer is longer than %u bytes", LB_QMP_LINE_BYTES_MAX);
	return 0;
}

static int read_object(struct lb_qmp *q, int64_t end_ns, json_t **ret_object)
{
	char *begin, *end;
	int r;

	for (;;) {
		begin = q->in.data != NULL ? (char *)q->in.data + q->taken_bytes : NULL;
		end = begin != NULL ? memchr(begin, '\n', q->in.size_bytes - q->taken_bytes) : NULL;
		if (end != NULL)
			break;
		/* what was given out makes room */
		if (begin != NULL && q->taken_bytes > 0) {
			memmove(q->in.data, begin, q->in.size_bytes - q->taken_bytes);
			q->in.size_bytes -= q->taken_bytes;
			q->taken_bytes = 0;
		}
		r = receive(q, end_ns);
		if (r < 0)
			return r;
	}
	q->taken_bytes = (size_t)(end + 1 - (char *)q->in.data);
	r = lb_json_parse(begin, (size_t)(end - begin), LB_QMP_LINE_BYTES_MAX, ret_object);
	return r < 0 ? lb_wrap(r, "QEMU's answer") : 0;
}

static int write_all(int fd, const char *text, size_t size_bytes)
{
	while (size_bytes > 0) {
		ssize_t n = send(fd, text, size_bytes, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lb_fail(-errno, "can't talk to QEMU: %s", strerror(errno));
		text += n;
		size_bytes -= (size_t)n;
	}
	return 0;
}

static int answer_of(const char *command, json_t *answer, json_t **ret_value)
{
	json_t *error = json_object_get(answer, "error"), *value = json_object_get(answer, "return");
	const char *text = json_string_value(json_object_get(error, "desc"));

	if (error != NULL)
		return lb_fail(-EREMOTEIO, "QEMU refuses %s: %s", command, text != NULL ? text : "without a reason");
	if (ret_value != NULL)
		*ret_value = json_incref(value);
	return 0;
}

int lb_qmp_ask(struct lb_qmp *q, const char *command, json_t *arguments, json_t **ret_value)
{
	int64_t end_ns = lb_mono_ns(q->env) + LB_QMP_WAIT_MS * LB_NS_PER_MS;
	_cleanup_json_ json_t *object = json_pack("{s:s}", "execute", command);
	_cleanup_free_ char *text = NULL, *line = NULL;
	int r;

	if (object == NULL || (arguments != NULL && json_object_set_new(object, "arguments", arguments) < 0))
		return lb_fail(-ENOMEM, "out of memory");
	r = lb_json_dump(object, &text);
	if (r < 0)
		return r;
	if (asprintf(&line, "%s\n", text) < 0)
		return lb_fail(-ENOMEM, "out of memory");
	r = write_all(q->fd, line, strlen(line));
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < EVENTS_SKIPPED_MAX; i++) {
		_cleanup_json_ json_t *answer = NULL;

		r = read_object(q, end_ns, &answer);
		if (r < 0)
			return r;
		if (json_object_get(answer, "return") != NULL || json_object_get(answer, "error") != NULL)
			return answer_of(command, answer, ret_value);
	}
	return lb_fail(-EREMOTEIO, "QEMU tells events and does not answer %s", command);
}

int lb_qmp_open(struct lb_env *env, const char *socket_path, struct lb_qmp **ret_qmp)
{
	_cleanup_(lb_qmp_freep) struct lb_qmp *q = NULL;
	_cleanup_json_ json_t *greeting = NULL;
	int r, fd = -1;

	r = connect_unix(socket_path, &fd);
	if (r < 0)
		return r;
	q = calloc(1, sizeof(*q));
	if (q == NULL) {
		close(fd);
		return lb_fail(-ENOMEM, "out of memory");
	}
	*q = (struct lb_qmp){.env = env, .fd = fd, .in = LB_BUF(LB_QMP_LINE_BYTES_MAX)};
	r = read_object(q, lb_mono_ns(env) + LB_QMP_WAIT_MS * LB_NS_PER_MS, &greeting);
	if (r == 0)
		r = lb_qmp_ask(q, "qmp_capabilities", NULL, NULL);
	if (r < 0)
		return r;
	*ret_qmp = lb_steal_ptr(q);
	return 0;
}
