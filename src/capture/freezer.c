/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of a watchdog's socket. */
#include "capture/freeze.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/json.h"
#include "capture/internal.h"

struct lb_freezer {
	int socket;
};

void lb_freezer_free(struct lb_freezer *f)
{
	if (f->socket >= 0)
		close(f->socket);
	free(f);
}

static int hear(struct lb_freezer *f, unsigned int wait_ms, struct lb_freeze_answer *ret_answer)
{
	struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
	ssize_t n;

	setsockopt(f->socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	n = recv(f->socket, ret_answer, sizeof(*ret_answer), 0);
	if (n == sizeof(*ret_answer))
		return ret_answer->result;
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? -ETIMEDOUT : -EPIPE;
}

static int say(struct lb_freezer *f, enum lb_freeze_what what, unsigned int max_ms)
{
	const struct lb_freeze_order order = {.what = what, .max_ms = max_ms};

	return send(f->socket, &order, sizeof(order), MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int lb_freezer_new(const char *socket_path, const char *const *mounts, size_t mount_count,
		   struct lb_freezer **ret_freezer)
{
	_cleanup_(lb_freezer_freep) struct lb_freezer *f = calloc(1, sizeof(*f));
	_cleanup_json_ json_t *request = NULL, *answer = NULL;
	json_t *list = json_array();
	struct lb_freeze_answer ready;
	size_t n_fds = 0;
	int fd = -1, r;

	for (size_t i = 0; i < mount_count; i++)
		if (json_array_append_new(list, json_string(mounts[i])) < 0) {
			json_decref(list);
			return lb_fail(-EINVAL, "freeze: %s is no name that can be sent", mounts[i]);
		}
	request = json_pack("{s:s, s:o}", "cmd", "freezer", "mounts", list);
	if (f == NULL || request == NULL)
		return lb_fail(-ENOMEM, "freeze: out of memory");
	f->socket = -1;
	r = lb_helper_ask(socket_path, request, &fd, 1, &answer, &n_fds);
	if (r < 0)
		return r;
	if (n_fds != 1)
		return lb_fail(-EPROTO, "capture helper: no watchdog came; is it of the same version?");
	f->socket = fd;
	r = hear(f, LB_FREEZE_READY_S_MAX * 1000, &ready);
	if (r < 0)
		return lb_fail(r, "the filesystems could not be made ready for a freeze: %s", strerror(-r));
	*ret_freezer = lb_steal_ptr(f);
	return 0;
}

int lb_freezer_sync(struct lb_freezer *f, unsigned int max_ms)
{
	struct lb_freeze_answer a;
	int r;

	r = say(f, LB_FREEZE_SYNC, 0);
	if (r == 0)
		r = hear(f, max_ms, &a);
	if (r == -ETIMEDOUT)
		return lb_fail(r, "the filesystems were not synced within %u ms: their disks are busy or stuck",
			       max_ms);
	return r < 0 ? lb_fail(r, "the filesystems can't be synced: %s", strerror(-r)) : 0;
}

int lb_freezer_freeze(struct lb_freezer *f, unsigned int max_ms, uint64_t *ret_skipped)
{
	struct lb_freeze_answer a = {0};
	int r;

	r = say(f, LB_FREEZE_FREEZE, max_ms);
	if (r == 0)
		r = hear(f, max_ms + LB_FREEZE_READY_S_MAX * 1000, &a);
	if (r < 0)
		return lb_fail(r, "the filesystems can't be frozen: %s", strerror(-r));
	*ret_skipped = a.skipped;
	return 0;
}

int lb_freezer_thaw(struct lb_freezer *f, int64_t *ret_frozen_ns)
{
	struct lb_freeze_answer a = {0};
	int r;

	/* one that thawed already has gone: what it said then is still to be heard */
	(void)say(f, LB_FREEZE_THAW, 0);
	r = hear(f, LB_FREEZE_READY_S_MAX * 1000, &a);
	*ret_frozen_ns = a.frozen_ns;
	if (r < 0)
		return lb_fail(r, "the filesystems were thawed before their time: %s", strerror(-r));
	return 0;
}
