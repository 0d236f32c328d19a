/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side of the helper: what needs privileges is asked for, everything else works from the fds that it hands
 * over. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "capture/internal.h"
#include "capture/protocol.h"

#define ANSWER_S_MAX 120 /* an attach drains up to 64 disks; a drain takes up to 30 s */

static int helper_connect(const char *path, int *ret_socket)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval wait = {.tv_sec = ANSWER_S_MAX};
	if (strlen(path) >= sizeof(a.sun_path))
		return lb_fail(-ENAMETOOLONG, "capture helper: the socket's name %s is too long", path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return lb_fail(
			-errno,
			"the capture helper doesn't answer at %s: %s; start it: systemctl start lifeboat-capture", path,
			strerror(errno));
	*ret_socket = lb_steal_fd(fd);
	return 0;
}

/* The helper's own error becomes ours. */
static int answer_check(const json_t *answer)
{
	const char *text = "no text";
	int64_t code;

	if (json_is_true(json_object_get(answer, "ok")))
		return 0;
	if (lb_json_get_i64(answer, "error", &code) < 0 || code < 1 || code > 4095)
		code = EPROTO;
	lb_json_get_str(answer, "text", &text);
	return lb_fail(-(int)code, "%s", text);
}

int lb_helper_ask(const char *path, const json_t *request, int *fds, size_t fds_max, json_t **ret_answer,
		  size_t *ret_fds)
{
	_cleanup_close_ int socket = -1;
	_cleanup_json_ json_t *answer = NULL;
	size_t n_fds = 0;
	int r = helper_connect(path, &socket);
	if (r < 0)
		return r;
	r = lb_line_send(socket, request, NULL, 0);
	if (r < 0)
		return r;
	r = lb_line_receive(socket, fds, fds_max, &answer, &n_fds);
	if (r < 0)
		return r;
	r = answer_check(answer);
	if (r < 0) {
		while (fds != NULL && n_fds > 0)
			close(fds[--n_fds]);
		return r;
	}
	*ret_answer = lb_steal_ptr(answer);
	*ret_fds = n_fds;
	return 0;
}

static int ask_plain(const char *path, const json_t *request, json_t **ret_answer)
{
	size_t n_fds;
	return lb_helper_ask(path, request, NULL, 0, ret_answer, &n_fds);
}

/* Asks and wants no more than to be told that it was done. Takes `request` over. */
static int ask_done(const char *path, json_t *request)
{
	_cleanup_json_ json_t *mine = request, *answer = NULL;
	if (request == NULL)
		return lb_fail(-ENOMEM, "capture helper: out of memory");
	return ask_plain(path, mine, &answer);
}

static int client_drain(struct lb_capture *c, unsigned int disk, unsigned int timeout_ms)
{
	return ask_done(c->socket_path,
			json_pack("{s:s, s:i, s:i}", "cmd", "drain", "disk", (int)disk, "timeout_ms", (int)timeout_ms));
}

static int client_grace(struct lb_capture *c)
{
	return ask_done(c->socket_path, json_pack("{s:s}", "cmd", "grace"));
}

static int client_skipped(struct lb_capture *c, uint64_t *ret_skipped)
{
	_cleanup_json_ json_t *request = json_pack("{s:s}", "cmd", "stat"), *answer = NULL;
	int r = ask_plain(c->socket_path, request, &answer);
	if (r < 0)
		return r;
	return lb_json_get_u64(answer, "skipped", ret_skipped);
}

static int client_detach(struct lb_capture *c)
{
	return lb_capture_detach_pinned(c->socket_path);
}

static const struct lb_capture_ops client_ops = {
	.drain = client_drain,
	.grace = client_grace,
	.skipped = client_skipped,
	.detach = client_detach,
};

/* The answer's "disk_fds" names the disks whose fds follow the maps' fds. */
static int fds_sort(const json_t *answer, const int *got, size_t n_got, struct lb_fds *ret_fds)
{
	json_t *ids = json_object_get(answer, "disk_fds");
	uint64_t count;
	int r = lb_json_get_u64(answer, "disk_count", &count);
	if (r < 0 || count > LB_CAPTURE_DISKS_MAX || n_got != LB_MAPS + json_array_size(ids))
		return lb_fail(-EPROTO, "capture helper: its answer doesn't fit its fds; is it of the same version?");
	struct lb_fds fds = {.disk_count = (unsigned int)count};
	for (uint64_t i = 0; i < count; i++)
		fds.disk[i] = -1;
	memcpy(fds.map, got, sizeof(fds.map));
	for (size_t i = 0; i < json_array_size(ids); i++) {
		json_int_t id = json_integer_value(json_array_get(ids, i));
		if (id < 0 || (uint64_t)id >= count || fds.disk[id] >= 0)
			return lb_fail(-EPROTO, "capture helper: a disk that was not attached");
		fds.disk[id] = got[LB_MAPS + i];
	}
	*ret_fds = fds;
	return 0;
}

/* Takes `request` over. */
static int view_open(const char *path, json_t *request, struct lb_capture **ret_capture)
{
	_cleanup_json_ json_t *mine = request, *answer = NULL;
	_cleanup_capture_ struct lb_capture *c = NULL;
	int got[LB_FDS_MAX];
	struct lb_fds fds;
	size_t n_got;
	bool resumed;

	if (request == NULL)
		return lb_fail(-ENOMEM, "capture helper: out of memory");
	int r = lb_helper_ask(path, mine, got, LB_FDS_MAX, &answer, &n_got);
	if (r < 0)
		return r;
	r = lb_json_get_bool(answer, "resumed", &resumed);
	if (r == 0)
		r = fds_sort(answer, got, n_got, &fds);
	if (r < 0) {
		while (n_got > 0)
			close(got[--n_got]);
		return r;
	}
	r = lb_capture_map(&fds, resumed, &c);
	if (r < 0)
		return r;
	c->ops = &client_ops;
	c->socket_path = strdup(path);
	if (c->socket_path == NULL)
		return lb_fail(-ENOMEM, "capture: out of memory");
	*ret_capture = lb_steal_ptr(c);
	return 0;
}

int lb_capture_attach(const char *socket_path, const struct lb_capture_params *params, struct lb_capture **ret_capture)
{
	_cleanup_json_ json_t *list = json_array();

	for (size_t i = 0; i < params->disk_count; i++)
		if (json_array_append_new(list, json_string(params->disks[i])) < 0)
			return lb_fail(-EINVAL, "disk %s is no name that can be sent", params->disks[i]);
	return view_open(socket_path,
			 json_pack("{s:s, s:O, s:I}", "cmd", "attach", "disks", list, "ring_bytes",
				   (json_int_t)params->ring_bytes),
			 ret_capture);
}

int lb_capture_open(const char *socket_path, struct lb_capture **ret_capture)
{
	return view_open(socket_path, json_pack("{s:s}", "cmd", "fds"), ret_capture);
}

int lb_capture_detach_pinned(const char *socket_path)
{
	return ask_done(socket_path, json_pack("{s:s}", "cmd", "detach"));
}

int lb_capture_probe(const char *socket_path, char **ret_json)
{
	_cleanup_json_ json_t *request = json_pack("{s:s}", "cmd", "probe"), *answer = NULL;
	int r = ask_plain(socket_path, request, &answer);
	if (r < 0)
		return r;
	return lb_json_dump(json_object_get(answer, "probe"), ret_json);
}

int lb_capture_boot_file(const char *socket_path, const char *path, int *ret_fd)
{
	_cleanup_json_ json_t *request = json_pack("{s:s, s:s}", "cmd", "boot_file", "path", path), *answer = NULL;
	size_t n_fds = 0;
	int fd = -1;

	if (request == NULL)
		return lb_fail(-ENOMEM, "capture helper: out of memory");
	int r = lb_helper_ask(socket_path, request, &fd, 1, &answer, &n_fds);
	if (r < 0)
		return r;
	if (n_fds != 1)
		return lb_fail(-EPROTO, "capture helper: it handed no file over");
	*ret_fd = fd;
	return 0;
}
