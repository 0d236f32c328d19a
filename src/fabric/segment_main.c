/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lifeboat-segment SOCKET: an isolated network (fabric/segment.h). Whoever connects names a tap device and gets it, on
 * a bridge in a network namespace that only this process and the devices' holders have; or hands over a socket, to
 * which its QEMU connects (segment_stream.h). It ends when no device is left.
 * lifeboat-segment --check: whether this host can make one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "fabric/segment.h"
#include "fabric/segment_message.h"
#include "fabric/segment_stream.h"

#define BRIDGE "br0"
#define LOOK_MS 100
#define FIRST_WAIT_LOOKS 300 /* for the first device */
#define BUSY_TRIES_MAX 100
#define BUSY_PAUSE_US 20000
#define PEER_WAIT_MS 5000

#define OFFSET_IP 14
/* MAC addresses of user-mode networking begin so */
#define USER_MAC 0x5255

/*
 * What a guest may get from the bridge. Behind each guest there is user-mode networking of its own, for its forwards
 * and its DHCP, which all have one MAC address: neither that of another guest nor other guests' DHCP requests go
 * through.
 */
static struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, USER_MAC, 9, 0),
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 6),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, USER_MAC, 7, 0),
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x0800, 0, 6),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, OFFSET_IP + 9),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 4),
	BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, OFFSET_IP),
	BPF_STMT(BPF_LD | BPF_H | BPF_IND, OFFSET_IP + 2),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 67, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, 0),
	BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
};

static int fail(const char *what)
{
	int error = errno;

	fprintf(stderr, "can't %s: %s\n", what, strerror(error));
	return -error;
}

static void set_name(struct ifreq *q, const char *name)
{
	*q = (struct ifreq){0};
	snprintf(q->ifr_name, sizeof(q->ifr_name), "%s", name);
}

static int set_up(int control, const char *name)
{
	struct ifreq q;

	set_name(&q, name);
	if (ioctl(control, SIOCGIFFLAGS, &q) < 0)
		return -errno;
	q.ifr_flags |= IFF_UP;
	return ioctl(control, SIOCSIFFLAGS, &q) < 0 ? -errno : 0;
}

/* Into a namespace of its own, with a bridge there; `ret_control` is a socket in it. */
static int make_network(int *ret_control)
{
	int control;

	/* who may not make one has it as the first of a user namespace */
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return fail("make a network namespace");
	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (control < 0)
		return fail("open a socket");
	if (ioctl(control, SIOCBRADDBR, BRIDGE) < 0)
		return fail("make a bridge");
	if (set_up(control, BRIDGE) < 0)
		return fail("set the bridge up");
	*ret_control = control;
	return 0;
}

static int make_tap(int control, const char *name)
{
	const struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK), index;
	struct ifreq q;

	if (fd < 0)
		return -errno;
	for (unsigned int tries = 0; tries < BUSY_TRIES_MAX; tries++) {
		set_name(&q, name);
		q.ifr_flags = IFF_TAP | IFF_NO_PI;
		if (ioctl(fd, TUNSETIFF, &q) == 0)
			break;
		if (errno != EBUSY || tries + 1 == BUSY_TRIES_MAX)
			goto failed;
		usleep(BUSY_PAUSE_US); /* its QEMU is still ending */
	}
	set_name(&q, name);
	if (ioctl(fd, TUNATTACHFILTER, &program) < 0 || ioctl(control, SIOCGIFINDEX, &q) < 0)
		goto failed;
	index = q.ifr_ifindex;
	set_name(&q, BRIDGE);
	q.ifr_ifindex = index;
	if (ioctl(control, SIOCBRADDIF, &q) < 0 || set_up(control, name) < 0)
		goto failed;
	return fd;
failed:
	index = errno;
	close(fd);
	return -index;
}

static bool name_is_ours(const char *name)
{
	return strlen(name) == 14 && strncmp(name, "lb", 2) == 0 && strspn(name + 2, "0123456789abcdef") == 12;
}

/* What a peer asks for: the name of its device, and maybe the socket that its QEMU will come to (-1: none). */
static bool hear(int peer, char name[64], int *ret_listener)
{
	union lb_segment_control control = {0};
	struct iovec part = {.iov_base = name, .iov_len = 63};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct pollfd p = {.fd = peer, .events = POLLIN};
	const struct cmsghdr *head;
	ssize_t n;

	n = poll(&p, 1, PEER_WAIT_MS) == 1 ? recvmsg(peer, &message, MSG_CMSG_CLOEXEC) : 0;
	if (n <= 0)
		return false;
	name[n] = '\0';
	head = CMSG_FIRSTHDR(&message);
	*ret_listener = -1;
	if (head != NULL && head->cmsg_type == SCM_RIGHTS)
		memcpy(ret_listener, CMSG_DATA(head), sizeof(*ret_listener));
	return true;
}

/* The device; with `text` alone when `tap` is negative. */
static void tell(int peer, const char *text, int tap)
{
	if (lb_segment_send(peer, text, tap) < 0)
		fail("answer");
}

/* Whether it has a device now. */
static bool answer(int peer, int control, struct lb_streams *streams)
{
	char name[64] = "";
	int listener, tap, r;

	if (!hear(peer, name, &listener))
		return false;
	lb_streams_drop(streams, name);
	tap = name_is_ours(name) ? make_tap(control, name) : -EINVAL;
	if (tap < 0) {
		if (listener >= 0)
			close(listener);
		tell(peer, strerror(-tap), -1);
		return false;
	}
	if (listener >= 0) {
		r = lb_streams_add(streams, name, listener, tap);
		tell(peer, r < 0 ? strerror(-r) : LB_SEGMENT_LISTENS, -1);
		return r == 0;
	}
	tell(peer, "device", tap);
	close(tap);
	return true;
}

static bool any_device(void)
{
	struct if_nameindex *all = if_nameindex();
	bool any = false;

	for (struct if_nameindex *one = all; one != NULL && one->if_index != 0; one++)
		any |= name_is_ours(one->if_name);
	if (all != NULL)
		if_freenameindex(all);
	return any;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* For `wait_ms`, and until nobody is waiting; whether somebody got a device. */
static bool take_peers(int listener, int control, struct lb_streams *streams, int wait_ms)
{
	int64_t end_ms = now_ms() + wait_ms;
	bool came, given = false;
	int peer;

	do {
		came = lb_streams_wait(streams, listener, (int)LB_MAX(end_ms - now_ms(), (int64_t)0));
		if (!came)
			continue;
		peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (peer < 0)
			break;
		given |= answer(peer, control, streams);
		close(peer);
	} while (came || now_ms() < end_ms);
	return given;
}

static void serve(int listener, int control, struct lb_streams *streams, const char *path)
{
	unsigned int looks = 0;
	bool had = false;

	for (;;) {
		had |= take_peers(listener, control, streams, LOOK_MS);
		if (any_device()) {
			had = true;
			continue;
		}
		if (!had && ++looks < FIRST_WAIT_LOOKS)
			continue;
		/* from here on nobody comes; who came just now is still served */
		unlink(path);
		take_peers(listener, control, streams, 0);
		if (!any_device())
			return;
		/* without a name nobody else finds it: it lives as long as those do */
		had = true;
	}
}

static int open_listener(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return fail("listen");
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	/* whoever began it has the lock, and found nobody behind the name */
	unlink(path);
	umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return fail("listen");
	return fd;
}

int main(int argc, char **argv)
{
	bool check = argc == 2 && strcmp(argv[1], "--check") == 0;
	_cleanup_free_ struct lb_streams *streams = lb_streams_new();
	int listener = -1, control = -1, tap;

	if (argc != 2) {
		fprintf(stderr, "usage: lifeboat-segment SOCKET|--check\n");
		return 2;
	}
	if (!check)
		listener = open_listener(argv[1]);
	if (streams == NULL || (!check && listener < 0) || make_network(&control) < 0)
		return 1;
	if (check) {
		tap = make_tap(control, "lb000000000000");
		errno = -tap;
		return tap < 0 ? fail("make a tap device"), 1 : 0;
	}
	if (listen(listener, 64) < 0)
		return fail("listen"), 1;
	serve(listener, control, streams, argv[1]);
	return 0;
}
