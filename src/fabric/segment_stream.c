/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/segment_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 4
#define FRAME_BYTES_MAX (68u << 10) /* QEMU's own limit */
#define FRAMES_PER_TURN 64          /* so that one guest does not keep the others waiting */

struct stream {
	char name[LB_STREAM_NAME_BYTES];
	int listener, peer, tap; /* -1: none. The listener is closed when its peer has come */
	time_t made_s;
	size_t in_bytes, out_bytes, out_sent;
	uint8_t in[HEAD_BYTES + FRAME_BYTES_MAX], out[HEAD_BYTES + FRAME_BYTES_MAX];
};

struct lb_streams {
	unsigned int n;
	struct stream *list[LB_STREAMS_MAX];
	struct pollfd polls[1 + 2 * LB_STREAMS_MAX];
};

static time_t mono_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

struct lb_streams *lb_streams_new(void)
{
	return calloc(1, sizeof(struct lb_streams));
}

static void end(struct lb_streams *s, unsigned int i)
{
	struct stream *one = s->list[i];

	if (one->listener >= 0)
		close(one->listener);
	if (one->peer >= 0)
		close(one->peer);
	close(one->tap);
	free(one);
	s->list[i] = s->list[--s->n];
}

void lb_streams_drop(struct lb_streams *s, const char *name)
{
	for (unsigned int i = s->n; i-- > 0;)
		if (strcmp(s->list[i]->name, name) == 0)
			end(s, i);
}

int lb_streams_add(struct lb_streams *s, const char *name, int listener, int tap)
{
	struct stream *one = s->n < LB_STREAMS_MAX ? malloc(sizeof(*one)) : NULL;

	if (one == NULL) {
		close(listener);
		close(tap);
		return s->n < LB_STREAMS_MAX ? -ENOMEM : -EMFILE;
	}
	snprintf(one->name, sizeof(one->name), "%s", name);
	one->listener = listener;
	one->peer = -1;
	one->tap = tap;
	one->made_s = mono_s();
	one->in_bytes = one->out_bytes = one->out_sent = 0;
	s->list[s->n++] = one;
	return 0;
}

/* False: it is to end. */
static bool meet(struct stream *one)
{
	one->peer = accept4(one->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (one->peer < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
	close(one->listener);
	one->listener = -1;
	return true;
}

static bool passes(int error)
{
	return error == EAGAIN || error == EINTR || error == ENOBUFS;
}

/* Whole frames to the device; one that it does not take is lost, as on any wire. False: it is no frame. */
static bool give(struct stream *one)
{
	size_t at = 0;

	while (one->in_bytes - at >= HEAD_BYTES) {
		uint32_t size_bytes;

		memcpy(&size_bytes, one->in + at, HEAD_BYTES);
		size_bytes = ntohl(size_bytes);
		if (size_bytes == 0 || size_bytes > FRAME_BYTES_MAX)
			return false;
		if (one->in_bytes - at < HEAD_BYTES + size_bytes)
			break;
		if (write(one->tap, one->in + at + HEAD_BYTES, size_bytes) < 0 && errno == EBADFD)
			return false;
		at += HEAD_BYTES + size_bytes;
	}
	one->in_bytes -= at;
	memmove(one->in, one->in + at, one->in_bytes);
	return true;
}

static bool take(struct stream *one)
{
	ssize_t n = recv(one->peer, one->in + one->in_bytes, sizeof(one->in) - one->in_bytes, 0);

	if (n <= 0)
		return n < 0 && passes(errno);
	one->in_bytes += (size_t)n;
	return give(one);
}

static bool send_rest(struct stream *one)
{
	ssize_t n = send(one->peer, one->out + one->out_sent, one->out_bytes - one->out_sent, MSG_NOSIGNAL);

	if (n < 0)
		return passes(errno);
	one->out_sent += (size_t)n;
	if (one->out_sent == one->out_bytes)
		one->out_sent = one->out_bytes = 0;
	return true;
}

static bool carry(struct stream *one)
{
	for (unsigned int i = 0; i < FRAMES_PER_TURN && one->out_bytes == 0; i++) {
		ssize_t n = read(one->tap, one->out + HEAD_BYTES, FRAME_BYTES_MAX);
		uint32_t size_bytes = htonl((uint32_t)n);

		if (n <= 0)
			return n < 0 && passes(errno);
		memcpy(one->out, &size_bytes, HEAD_BYTES);
		one->out_bytes = HEAD_BYTES + (size_t)n;
		if (!send_rest(one))
			return false;
	}
	return true;
}

static void ask(const struct stream *one, struct pollfd polls[2])
{
	polls[0] = (struct pollfd){.fd = one->peer >= 0 ? one->peer : one->listener, .events = POLLIN};
	/* nothing is taken from the device while the one before has not gone */
	polls[1] = (struct pollfd){.fd = one->peer >= 0 && one->out_bytes == 0 ? one->tap : -1, .events = POLLIN};
	if (one->out_bytes > 0)
		polls[0].events |= POLLOUT;
}

static bool turn(struct stream *one, const struct pollfd polls[2])
{
	if (one->peer < 0)
		return polls[0].revents != 0 ? meet(one) : mono_s() - one->made_s < LB_STREAM_COME_S;
	if ((polls[0].revents & POLLOUT) != 0 && !send_rest(one))
		return false;
	if ((polls[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !take(one))
		return false;
	return polls[1].revents == 0 || carry(one);
}

bool lb_streams_wait(struct lb_streams *s, int fd, int wait_ms)
{
	unsigned int n = s->n;

	s->polls[0] = (struct pollfd){.fd = fd, .events = POLLIN};
	for (unsigned int i = 0; i < n; i++)
		ask(s->list[i], &s->polls[1 + 2 * i]);
	if (poll(s->polls, 1 + 2 * n, wait_ms) <= 0)
		memset(s->polls, 0, sizeof(s->polls));
	/* from the last: one that ends is replaced by a later one, which has had its turn */
	for (unsigned int i = n; i-- > 0;)
		if (!turn(s->list[i], &s->polls[1 + 2 * i]))
			end(s, i);
	return s->polls[0].revents != 0;
}
