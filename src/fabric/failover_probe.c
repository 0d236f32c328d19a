/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a service of the double answers: through a forward of this host, or on a network at its own address. A
 * connection alone proves nothing: user-mode networking takes it before the guest is there. So a byte must come back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fabric/failover_internal.h"

#define ONE_TRY_MS 3000
#define BETWEEN_TRIES_MS 100

static const struct lb_vm_forward *forward_of(const struct lb_failover *f, uint16_t guest_port)
{
	for (uint32_t i = 0; i < f->vm.n_forwards; i++)
		if (f->vm.forwards[i].guest_port == guest_port)
			return &f->vm.forwards[i];
	return NULL;
}

static bool address_of(const struct lb_failover *f, uint16_t guest_port, struct sockaddr_in *ret_in)
{
	const struct lb_vm_forward *forward = forward_of(f, guest_port);
	uint32_t address;

	*ret_in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(guest_port)};
	if (forward == NULL) {
		if (!lb_failover_is_on_network(f) || lb_address_read(f->vm.address, &address, NULL) < 0)
			return false;
		ret_in->sin_addr.s_addr = htonl(address);
		return true;
	}
	ret_in->sin_port = htons(forward->host_port);
	if (inet_pton(AF_INET, forward->address, &ret_in->sin_addr) != 1)
		return false;
	if (ret_in->sin_addr.s_addr == htonl(INADDR_ANY))
		ret_in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return true;
}

/* Not there yet: on a network nobody says no, so that the wait is ours. */
static bool connect_within(int fd, const struct sockaddr_in *in)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t size = sizeof(error);

	if (connect(fd, (const struct sockaddr *)in, sizeof(*in)) == 0)
		return true;
	return errno == EINPROGRESS && poll(&p, 1, ONE_TRY_MS) == 1 &&
	       getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

static bool one_try(const struct sockaddr_in *in, const char *send_text)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;

	if (fd < 0 || !connect_within(fd, in))
		return false;
	if (send_text != NULL && send(fd, send_text, strlen(send_text), MSG_NOSIGNAL) != (ssize_t)strlen(send_text))
		return false;
	return poll(&p, 1, ONE_TRY_MS) == 1 && recv(fd, &byte, 1, 0) == 1;
}

bool lb_failover_answers(const struct lb_failover *f, uint16_t guest_port, const char *send_text)
{
	struct sockaddr_in in;

	return address_of(f, guest_port, &in) && one_try(&in, send_text);
}

int lb_failover_probe(struct lb_failover *f, int64_t end_ns)
{
	enum lb_vm_state state;
	struct sockaddr_in in;
	int r;

	if (!address_of(f, (uint16_t)f->probe_port, &in))
		return lb_fail(-EINVAL, "port %u, which must answer, is not forwarded", f->probe_port);
	while (!one_try(&in, f->probe_send)) {
		r = f->fabric->ops->state(f->fabric, &f->vm, &state);
		if (r < 0)
			return r;
		if (state == LB_VM_STOPPED || state == LB_VM_ABSENT)
			return lb_fail(-EREMOTEIO, "the VM has stopped; its console is in %s/console.log",
				       f->vm.folder);
		if (lb_mono_ns(f->env) >= end_ns)
			return lb_fail(-ETIMEDOUT,
				       "the VM runs, but its port %u has not answered within %u s; its console is in "
				       "%s/console.log",
				       f->probe_port, f->wait_s, f->vm.folder);
		r = lb_failover_idle(f);
		if (r < 0)
			return r;
		lb_proc_pause(f->env, BETWEEN_TRIES_MS);
	}
	return 0;
}
