/* SPDX-License-Identifier: Apache-2.0 */
/* The process that runs scripts: one order at a time, each with the connection that its answer goes to. */
#include "capture/runner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "capture/internal.h"
#include "capture/protocol.h"

struct runner {
	int socket;
	const char *folder;
	bool post_owed; /* pre-scripts ran and post-scripts did not yet */
	int64_t post_until_ns;
};

static int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * LB_NS_PER_S + ts.tv_nsec;
}

/* ---- orders --------------------------------------------------------------------------------------------------------
 */

static int post(struct runner *w, unsigned int max_ms)
{
	int r;

	w->post_owed = false;
	r = lb_scripts_run(w->folder, LB_SCRIPT_POST, max_ms);
	lb_scripts_end();
	return r;
}

static int limit_of(const json_t *order, const char *member, unsigned int max, unsigned int *ret_value)
{
	uint64_t value;
	int r = lb_json_get_u64(order, member, &value);

	if (r < 0)
		return r;
	if (value == 0 || value > max)
		return lb_fail(-EINVAL, "scripts: \"%s\" must be from 1 to %u", member, max);
	*ret_value = (unsigned int)value;
	return 0;
}

static int do_pre(struct runner *w, const json_t *order)
{
	unsigned int max_ms = 0, within_ms = 0;
	int r;

	r = limit_of(order, "max_ms", LB_SCRIPTS_MS_MAX, &max_ms);
	if (r == 0)
		r = limit_of(order, "post_within_ms", LB_SCRIPTS_POST_WITHIN_MS_MAX, &within_ms);
	if (r < 0)
		return r;
	if (w->post_owed)
		(void)post(w, LB_SCRIPTS_MS_MAX);
	w->post_owed = true;
	r = lb_scripts_run(w->folder, LB_SCRIPT_PRE, max_ms);
	w->post_until_ns = clock_ns() + within_ms * LB_NS_PER_MS;
	return r;
}

static int do_post(struct runner *w, const json_t *order)
{
	unsigned int max_ms = 0;
	int r;

	r = limit_of(order, "max_ms", LB_SCRIPTS_MS_MAX, &max_ms);
	if (r < 0 || !w->post_owed)
		return r;
	return post(w, max_ms);
}

static int do_writers(struct runner *w, const json_t *order)
{
	const char *disks[LB_CAPTURE_DISKS_MAX];
	const json_t *list = json_object_get(order, "disks");
	size_t n = json_array_size(list);

	(void)w;
	if (n == 0 || n > LB_CAPTURE_DISKS_MAX)
		return lb_fail(-EINVAL, "writers: 1 to %d disks", LB_CAPTURE_DISKS_MAX);
	for (size_t i = 0; i < n; i++) {
		disks[i] = json_string_value(json_array_get(list, i));
		if (disks[i] == NULL)
			return lb_fail(-EINVAL, "writers: a disk without a name");
	}
	return lb_raw_writers_find(disks, n);
}

static int obey(struct runner *w, const json_t *order)
{
	const char *name;
	int r = lb_json_get_str(order, "cmd", &name);

	if (r < 0)
		return r;
	if (strcmp(name, "scripts-pre") == 0)
		return do_pre(w, order);
	if (strcmp(name, "scripts-post") == 0)
		return do_post(w, order);
	if (strcmp(name, "writers") == 0)
		return do_writers(w, order);
	return lb_fail(-EINVAL, "no such order");
}

/* ---- the process ---------------------------------------------------------------------------------------------------
 */

static void take_order(struct runner *w, const char *line, size_t length, int connection)
{
	_cleanup_json_ json_t *order = NULL, *reply = NULL;
	int r;

	lb_err_clear();
	r = lb_json_parse(line, length, LB_LINE_BYTES_MAX, &order);
	if (r == 0)
		r = obey(w, order);
	reply = r < 0 ? json_pack("{s:i,s:s}", "error", -r, "text", lb_err_text()) : json_pack("{s:b}", "ok", 1);
	if (reply != NULL && lb_line_send(connection, reply, NULL, 0) < 0)
		lb_debug("%s", lb_err_text());
}

/* One order with its connection. 0: the helper is gone. */
static ssize_t receive(int socket, char *line, size_t bytes_max, int *ret_connection)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec v = {.iov_base = line, .iov_len = bytes_max};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
	struct cmsghdr *h;
	ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);

	*ret_connection = -1;
	h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (h != NULL && h->cmsg_type == SCM_RIGHTS)
		memcpy(ret_connection, CMSG_DATA(h), sizeof(int));
	return n;
}

static int wait_ms(const struct runner *w)
{
	int64_t left_ns = w->post_until_ns - clock_ns();

	if (!w->post_owed)
		return -1;
	return left_ns <= 0 ? 0 : (int)(left_ns / LB_NS_PER_MS + 1);
}

static void owed(struct runner *w, const char *why)
{
	lb_warning("%s: the post-scripts are run without being asked for", why);
	if (post(w, LB_SCRIPTS_MS_MAX) < 0)
		lb_warning("%s", lb_err_text());
}

static void runner_main(struct runner *w)
{
	static char line[LB_LINE_BYTES_MAX];
	struct pollfd p = {.fd = w->socket, .events = POLLIN};
	int connection;

	prctl(PR_SET_NAME, "lb-scripts");
	for (;;) {
		int n = poll(&p, 1, wait_ms(w));

		if (n == 0 && w->post_owed && wait_ms(w) == 0)
			owed(w, "nobody ended the point in time");
		if (n <= 0)
			continue;
		ssize_t length = receive(w->socket, line, sizeof(line), &connection);
		if (length <= 0)
			break;
		if (connection >= 0) {
			take_order(w, line, (size_t)length, connection);
			close(connection);
		}
	}
	if (w->post_owed)
		owed(w, "the capture helper is gone");
	_exit(0);
}

int lb_runner_start(const char *scripts_folder, struct lb_runner *ret_runner)
{
	struct runner w = {.folder = scripts_folder};
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return lb_fail(-errno, "no socket for the scripts' process: %s", strerror(errno));
	pid = fork();
	if (pid == 0) {
		close(ends[0]);
		w.socket = ends[1];
		runner_main(&w);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return lb_fail(-errno, "no process for the scripts: %s", strerror(errno));
	}
	ret_runner->socket = ends[0];
	return 0;
}

int lb_runner_pass(struct lb_runner *runner, const char *line, size_t length, int connection)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec v = {.iov_base = (void *)line, .iov_len = length};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &connection, sizeof(int));
	if (sendmsg(runner->socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return lb_fail(-errno, "the scripts' process does not take orders: %s; restart lifeboat-capture",
			       strerror(errno));
	return 0;
}

/* ---- the agent's side ----------------------------------------------------------------------------------------------
 */

/* Takes `request` over. */
static int ask(const char *socket_path, json_t *request)
{
	_cleanup_json_ json_t *mine = request, *answer = NULL;
	size_t n_fds;

	if (request == NULL)
		return lb_fail(-ENOMEM, "capture helper: out of memory");
	return lb_helper_ask(socket_path, mine, NULL, 0, &answer, &n_fds);
}

int lb_scripts_pre(const char *socket_path, unsigned int max_ms, unsigned int post_within_ms)
{
	return ask(socket_path, json_pack("{s:s,s:i,s:i}", "cmd", "scripts-pre", "max_ms", (int)max_ms,
					  "post_within_ms", (int)post_within_ms));
}

int lb_scripts_post(const char *socket_path, unsigned int max_ms)
{
	return ask(socket_path, json_pack("{s:s,s:i}", "cmd", "scripts-post", "max_ms", (int)max_ms));
}

int lb_raw_writers(const char *socket_path, const char *const *disks, size_t disk_count)
{
	json_t *list = json_array();

	for (size_t i = 0; i < disk_count; i++)
		if (json_array_append_new(list, json_string(disks[i])) < 0) {
			json_decref(list);
			return lb_fail(-EINVAL, "disk %s is no name that can be sent", disks[i]);
		}
	return ask(socket_path, json_pack("{s:s,s:o}", "cmd", "writers", "disks", list));
}
