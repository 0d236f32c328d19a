/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lifeboat-capture: the small privileged half of the mobility service. It attaches and pins the program, hands the maps
 * and disks over as fds, drains queues, freezes filesystems. It speaks to one user through a Unix socket and to no
 * network. When it ends the capture goes on: what is pinned stays, until `detach`.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/log.h"
#include "base/notify.h"
#include "capture/freeze.h"
#include "capture/internal.h"
#include "capture/protocol.h"
#include "capture/runner.h"

#define EXIT_USAGE 2
#define BACKLOG 8

struct helper {
	const char *socket_path;
	const char *pin_folder;
	const char *scripts_folder;
	uid_t allow_uid;
	pid_t watchdog; /* 0: there is none */
	struct lb_runner runner;
};

/* An answer and what goes with it. */
struct answer {
	json_t *json;
	struct lb_fds fds;
	int watchdog;   /* the socket of one, or -1 */
	int connection; /* to whoever asked */
	bool passed;    /* somebody else answers */
	int file;       /* of what starts the machine; -1: none */
};

static void answer_free(struct answer *a)
{
	json_decref(a->json);
	lb_fds_close(&a->fds);
	if (a->watchdog >= 0)
		close(a->watchdog);
	if (a->file >= 0)
		close(a->file);
}

/* ---- Commands --------------------------------------------------------------------------------------------------- */

static int answer_fds(struct answer *a, bool resumed)
{
	_cleanup_json_ json_t *ids = json_array();

	for (unsigned int i = 0; i < a->fds.disk_count; i++)
		if (a->fds.disk[i] >= 0 && json_array_append_new(ids, json_integer(i)) < 0)
			return lb_fail(-ENOMEM, "out of memory");
	int r = lb_json_set_bool(a->json, "resumed", resumed);
	if (r == 0)
		r = lb_json_set_u64(a->json, "disk_count", a->fds.disk_count);
	if (r == 0 && json_object_set(a->json, "disk_fds", ids) < 0)
		r = lb_fail(-ENOMEM, "out of memory");
	return r;
}

static int do_attach(struct helper *h, const json_t *request, struct answer *a)
{
	const char *disks[LB_CAPTURE_DISKS_MAX];
	struct lb_capture_params p = {.disks = disks, .pin_folder = h->pin_folder};
	const json_t *list = json_object_get(request, "disks");
	bool resumed;
	int r = lb_json_get_u64(request, "ring_bytes", &p.ring_bytes);
	if (r < 0)
		return r;
	p.disk_count = json_array_size(list);
	if (p.disk_count == 0 || p.disk_count > LB_CAPTURE_DISKS_MAX)
		return lb_fail(-EINVAL, "attach: 1 to %d disks", LB_CAPTURE_DISKS_MAX);
	for (size_t i = 0; i < p.disk_count; i++) {
		disks[i] = json_string_value(json_array_get(list, i));
		if (disks[i] == NULL)
			return lb_fail(-EINVAL, "attach: a disk without a name");
	}
	r = lb_pins_attach(&p, &a->fds, &resumed);
	if (r < 0)
		return r;
	lb_notice("capture of %u disks %s", a->fds.disk_count, resumed ? "handed over again" : "attached");
	return answer_fds(a, resumed);
}

static int do_fds(struct helper *h, const json_t *request, struct answer *a)
{
	(void)request;
	int r = lb_pins_open(h->pin_folder, &a->fds);
	if (r < 0)
		return r;
	return answer_fds(a, true);
}

static int do_drain(struct helper *h, const json_t *request, struct answer *a)
{
	_cleanup_capture_ struct lb_capture *c = NULL;
	uint64_t disk, timeout_ms;
	(void)a;
	int r = lb_json_get_u64(request, "disk", &disk);
	if (r == 0)
		r = lb_json_get_u64(request, "timeout_ms", &timeout_ms);
	if (r != 0)
		return r;
	r = lb_capture_open_direct(h->pin_folder, &c);
	if (r < 0)
		return r;
	if (disk >= c->control->disk_count)
		return lb_fail(-ENOENT, "capture has no disk %lu", (unsigned long)disk);
	return lb_drain_now(c, (unsigned int)disk,
			    timeout_ms < LB_CAPTURE_DRAIN_MS_MAX ? (unsigned int)timeout_ms : LB_CAPTURE_DRAIN_MS_MAX);
}

static int do_grace(struct helper *h, const json_t *request, struct answer *a)
{
	(void)h;
	(void)request;
	(void)a;
	return lb_pins_grace();
}

static int do_stat(struct helper *h, const json_t *request, struct answer *a)
{
	uint64_t skipped;
	(void)request;
	int r = lb_pins_skipped(h->pin_folder, &skipped);
	if (r < 0)
		return r;
	return lb_json_set_u64(a->json, "skipped", skipped);
}

static void reap(struct helper *h)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (pid == h->watchdog)
			h->watchdog = 0;
}

static int do_freezer(struct helper *h, const json_t *request, struct answer *a)
{
	const char *mounts[LB_FREEZE_MOUNTS_MAX];
	const json_t *list = json_object_get(request, "mounts");
	size_t count = json_array_size(list);

	reap(h);
	if (h->watchdog != 0)
		return lb_fail(-EBUSY, "another freeze is under way on this machine; try again when it is over");
	if (count == 0 || count > LB_FREEZE_MOUNTS_MAX)
		return lb_fail(-EINVAL, "freeze: 1 to %d filesystems", LB_FREEZE_MOUNTS_MAX);
	for (size_t i = 0; i < count; i++) {
		mounts[i] = json_string_value(json_array_get(list, i));
		if (mounts[i] == NULL)
			return lb_fail(-EINVAL, "freeze: a filesystem without a name");
	}
	return lb_watchdog_start(mounts, count, &h->watchdog, &a->watchdog);
}

/* Scripts take their time, and this process has others to serve. */
static int do_pass(struct helper *h, const json_t *request, struct answer *a)
{
	_cleanup_free_ char *line = NULL;
	int r = lb_json_dump(request, &line);

	if (r == 0)
		r = lb_runner_pass(&h->runner, line, strlen(line), a->connection);
	a->passed = r == 0;
	return r;
}

static int do_detach(struct helper *h, const json_t *request, struct answer *a)
{
	(void)request;
	(void)a;
	int r = lb_pins_remove(h->pin_folder);
	if (r == 0)
		lb_notice("capture detached");
	return r;
}

static int do_probe(struct helper *h, const json_t *request, struct answer *a)
{
	_cleanup_free_ char *text = NULL;
	(void)h;
	(void)request;
	int r = lb_capture_probe_direct(&text);
	if (r < 0)
		return r;
	json_t *probe;
	r = lb_json_parse(text, strlen(text), LB_LINE_BYTES_MAX / 2, &probe);
	if (r < 0)
		return r;
	return json_object_set_new(a->json, "probe", probe) < 0 ? -ENOMEM : 0;
}

/* What starts the machine, and is often closed to all but root: handed over to be read, never to be written. */
static int do_boot_file(struct helper *h, const json_t *request, struct answer *a)
{
	static const char *const places[] = {"/boot/",        "/efi/",
					     "/etc/crypttab", "/etc/netplan/",
					     "/etc/network/", "/etc/NetworkManager/system-connections/"};
	const char *path = NULL;
	bool known = false;
	struct stat st;
	(void)h;
	int r = lb_json_get_str(request, "path", &path);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		known = known || strncmp(path, places[i], strlen(places[i])) == 0;
	if (!known || strstr(path, "/../") != NULL)
		return lb_fail(-EPERM, "the capture helper hands no %.100s over", path);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return lb_fail(-errno, "%.100s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return lb_fail(-EPERM, "%.100s is no file", path);
	a->file = lb_steal_fd(fd);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct helper *h, const json_t *request, struct answer *a);
} commands[] = {
	{"attach", do_attach},    {"fds", do_fds},           {"drain", do_drain},  {"grace", do_grace},
	{"stat", do_stat},        {"detach", do_detach},     {"probe", do_probe},  {"freezer", do_freezer},
	{"scripts-pre", do_pass}, {"scripts-post", do_pass}, {"writers", do_pass}, {"boot_file", do_boot_file},
};

static int dispatch(struct helper *h, const json_t *request, struct answer *a)
{
	const char *name;
	int r = lb_json_get_str(request, "cmd", &name);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].run(h, request, a);
	return lb_fail(-EINVAL, "the capture helper knows no command %.32s", name);
}

/* ---- Connections ------------------------------------------------------------------------------------------------ */

static int peer_check(const struct helper *h, int socket)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
		return -errno;
	if (peer.uid != h->allow_uid && peer.uid != 0)
		return lb_fail(-EPERM, "user %u may not use the capture helper; it was started for user %u", peer.uid,
			       h->allow_uid);
	return 0;
}

static int answer_send(int socket, struct answer *a, int result)
{
	int fds[LB_FDS_MAX + 2];
	size_t n = 0;

	if (result < 0) {
		json_object_clear(a->json);
		lb_fds_close(&a->fds);
		lb_json_set_u64(a->json, "error", (uint64_t)-result);
		lb_json_set_str(a->json, "text", lb_err_text());
	} else {
		lb_json_set_bool(a->json, "ok", true);
	}
	for (int i = 0; i < LB_MAPS; i++)
		if (a->fds.map[i] >= 0)
			fds[n++] = a->fds.map[i];
	for (unsigned int i = 0; i < a->fds.disk_count; i++)
		if (a->fds.disk[i] >= 0)
			fds[n++] = a->fds.disk[i];
	if (result == 0 && a->watchdog >= 0)
		fds[n++] = a->watchdog;
	if (a->file >= 0)
		fds[n++] = a->file;
	return lb_line_send(socket, a->json, fds, n);
}

static void serve(struct helper *h, int socket)
{
	_cleanup_(answer_free) struct answer a = {
		.json = json_object(), .fds = LB_FDS_NONE, .watchdog = -1, .file = -1, .connection = socket};
	_cleanup_json_ json_t *request = NULL;
	struct timeval wait = {.tv_sec = LB_REQUEST_S_MAX};
	size_t n_fds;

	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	lb_err_clear();
	int r = peer_check(h, socket);
	if (r == 0)
		r = lb_line_receive(socket, NULL, 0, &request, &n_fds);
	if (r == -ECONNRESET)
		return; /* somebody looked whether we are there */
	if (r == 0)
		r = dispatch(h, request, &a);
	if (r < 0 && r != -ENOENT)
		lb_warning("%s", lb_err_text());
	if (!a.passed && answer_send(socket, &a, r) < 0)
		lb_warning("%s", lb_err_text());
}

static int listen_at(const struct helper *h, int *ret_socket)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	if (strlen(h->socket_path) >= sizeof(a.sun_path))
		return lb_fail(-ENAMETOOLONG, "the socket's name %s is too long", h->socket_path);
	memcpy(a.sun_path, h->socket_path, strlen(h->socket_path) + 1);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return lb_fail(-errno, "no socket: %s", strerror(errno));
	unlink(h->socket_path);
	mode_t before = umask(0177);
	int r = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	umask(before);
	if (r == 0 && (lchown(h->socket_path, h->allow_uid, (gid_t)-1) < 0 || listen(fd, BACKLOG) < 0))
		r = -errno;
	if (r < 0)
		return lb_fail(r, "can't listen at %s: %s", h->socket_path, strerror(-r));
	*ret_socket = lb_steal_fd(fd);
	return 0;
}

/* What is left: BPF, perf's right to read kernel memory, freezing and raw disks. */
static int privileges_drop(void)
{
	static const cap_value_t keep[] = {CAP_BPF,       CAP_PERFMON, CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH,
					   CAP_SYS_RAWIO, CAP_IPC_LOCK};
	cap_t caps = cap_init();
	int n = sizeof(keep) / sizeof(keep[0]);
	int r = 0;

	if (caps == NULL || cap_set_flag(caps, CAP_PERMITTED, n, keep, CAP_SET) < 0 ||
	    cap_set_flag(caps, CAP_EFFECTIVE, n, keep, CAP_SET) < 0 || cap_set_proc(caps) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = lb_fail(-errno, "privileges can't be dropped: %s; the helper starts as root", strerror(errno));
	cap_free(caps);
	return r;
}

static int run(struct helper *h, int listening, int signals)
{
	struct pollfd p[2] = {{.fd = listening, .events = POLLIN}, {.fd = signals, .events = POLLIN}};

	lb_notify("READY=1");
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return lb_fail(-errno, "poll: %s", strerror(errno));
		reap(h);
		if (p[1].revents != 0)
			return 0;
		_cleanup_close_ int client = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0)
			serve(h, client);
	}
}

static int serve_all(struct helper *h)
{
	_cleanup_close_ int listening = -1, signals = -1;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		return lb_fail(-errno, "no signals: %s", strerror(errno));
	int r = lb_runner_start(h->scripts_folder, &h->runner);
	if (r == 0)
		r = listen_at(h, &listening);
	if (r < 0)
		return r;
	r = privileges_drop();
	if (r == 0)
		r = run(h, listening, signals);
	unlink(h->socket_path);
	return r;
}

static const char usage[] =
	"lifeboat-capture [--socket PATH] [--pins FOLDER] [--scripts FOLDER] --allow-uid UID\n"
	"                                                                   serve one user's agent\n"
	"lifeboat-capture --detach [--pins FOLDER]                          end any capture, leave nothing behind\n"
	"lifeboat-capture --probe                                           what this machine can do, as JSON\n";

static int print_probe(void)
{
	_cleanup_free_ char *text = NULL;
	int r = lb_capture_probe_direct(&text);
	if (r < 0)
		return r;
	return puts(text) < 0 ? -EIO : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},  {"pins", required_argument, NULL, 'p'},
		{"scripts", required_argument, NULL, 'S'}, {"allow-uid", required_argument, NULL, 'u'},
		{"detach", no_argument, NULL, 'd'},        {"probe", no_argument, NULL, 'P'},
		{"help", no_argument, NULL, 'h'},          {0}};
	struct helper h = {.socket_path = LB_CAPTURE_SOCKET,
			   .pin_folder = LB_CAPTURE_PIN_FOLDER,
			   .scripts_folder = LB_SCRIPTS_FOLDER};
	bool detach = false, probe = false, allowed = false;
	uint64_t uid;
	int o;

	lb_log_init("lifeboat-capture", LB_LOG_INFO);
	while ((o = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (o == 's')
			h.socket_path = optarg;
		else if (o == 'p')
			h.pin_folder = optarg;
		else if (o == 'S')
			h.scripts_folder = optarg;
		else if (o == 'd')
			detach = true;
		else if (o == 'P')
			probe = true;
		else if (o == 'u' && lb_u64_parse(optarg, UINT32_MAX - 1, &uid) == 0)
			h.allow_uid = (uid_t)uid, allowed = true;
		else
			return fputs(usage, o == 'h' ? stdout : stderr) < 0 || o != 'h' ? EXIT_USAGE : 0;
	}
	if (optind != argc || (!allowed && !detach && !probe))
		return fputs(usage, stderr), EXIT_USAGE;
	int r = detach ? lb_pins_remove(h.pin_folder) : probe ? print_probe() : serve_all(&h);
	if (r < 0)
		lb_error("%s", lb_err_text());
	return r < 0 ? 1 : 0;
}
