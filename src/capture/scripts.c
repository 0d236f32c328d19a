/* SPDX-License-Identifier: Apache-2.0 */
/* One phase of the operator's scripts, within one time limit. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "capture/runner.h"

#define FDS_CLOSED_MAX 1024

struct phase {
	const char *folder;
	enum lb_script_phase phase;
	char names[LB_SCRIPTS_MAX][NAME_MAX + 1];
	size_t n;
};

/* Groups of pre-scripts that ended well: what they left running (a session that holds a lock) lives until the
 * post-phase is over. */
static pid_t groups[LB_SCRIPTS_MAX];
static size_t n_groups;

static int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * LB_NS_PER_S + ts.tv_nsec;
}

/* -EPERM for what somebody else than root could have put there. */
static int check_owner(const struct stat *st, const char *path)
{
	if (st->st_uid != 0 || (st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
		return lb_fail(
			-EPERM,
			"%s is not run: it must belong to root and be writable by root alone (chown root:root, chmod "
			"go-w)",
			path);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int list_scripts(struct phase *p)
{
	const char *prefix = p->phase == LB_SCRIPT_PRE ? "pre-" : "post-";
	struct stat st;
	struct dirent *e;
	DIR *d;
	int r = 0;

	d = opendir(p->folder);
	if (d == NULL)
		return errno == ENOENT ? 0 : lb_fail(-errno, "%s: %s", p->folder, strerror(errno));
	if (fstat(dirfd(d), &st) < 0 || check_owner(&st, p->folder) < 0)
		r = -EPERM;
	while (r == 0 && (e = readdir(d)) != NULL) {
		if (strncmp(e->d_name, prefix, strlen(prefix)) != 0)
			continue;
		if (p->n == LB_SCRIPTS_MAX)
			r = lb_fail(-E2BIG, "%s holds more than %d %s* scripts", p->folder, LB_SCRIPTS_MAX, prefix);
		else
			snprintf(p->names[p->n++], sizeof(p->names[0]), "%s", e->d_name);
	}
	closedir(d);
	qsort(p->names, p->n, sizeof(p->names[0]), by_name);
	return r;
}

static void script_main(const struct phase *p, const char *path, int output)
{
	char phase[32];
	const char *const argv[] = {path, NULL};
	const char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "HOME=/root", phase, NULL};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	sigset_t none;

	snprintf(phase, sizeof(phase), "LIFEBOAT_PHASE=%s", p->phase == LB_SCRIPT_PRE ? "pre" : "post");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	if (null < 0 || dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 || chdir("/") < 0)
		_exit(126);
	for (int fd = 3; fd < FDS_CLOSED_MAX; fd++)
		close(fd);
	execve(path, (char *const *)argv, (char *const *)env);
	_exit(127);
}

struct running {
	pid_t pid;
	int pidfd, output;
	char tail[LB_SCRIPT_OUTPUT_BYTES_MAX + 1]; /* of what it wrote */
};

static void take_output(struct running *s)
{
	char piece[LB_SCRIPT_OUTPUT_BYTES_MAX];
	ssize_t n = read(s->output, piece, sizeof(piece));
	size_t have = strlen(s->tail), keep;

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			close(s->output);
			s->output = -1;
		}
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		if ((unsigned char)piece[i] < ' ')
			piece[i] = ' ';
	keep = LB_MIN(have, sizeof(s->tail) - 1 - (size_t)n);
	memmove(s->tail, s->tail + have - keep, keep);
	memcpy(s->tail + keep, piece, (size_t)n);
	s->tail[keep + (size_t)n] = '\0';
}

/* Until the script's first process ends: -ETIMEDOUT when it doesn't in time. */
static int wait_for(struct running *s, int64_t until_ns)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = s->pidfd, .events = POLLIN}, {.fd = s->output, .events = POLLIN}};
		int64_t left_ns = until_ns - clock_ns();

		if (left_ns <= 0)
			return -ETIMEDOUT;
		if (poll(p, 2, (int)((left_ns + LB_NS_PER_MS - 1) / LB_NS_PER_MS)) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents != 0)
			take_output(s);
		if (p[0].revents != 0) {
			while (s->output >= 0 && poll(&p[1], 1, 0) == 1 && p[1].revents != 0)
				take_output(s);
			return 0;
		}
	}
}

static int script_start(const struct phase *p, const char *path, struct running *s)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return lb_fail(-errno, "%s can't be run: %s", path, strerror(errno));
	s->pid = fork();
	if (s->pid == 0)
		script_main(p, path, ends[1]);
	close(ends[1]);
	s->output = ends[0];
	if (s->pid < 0)
		return lb_fail(-errno, "%s can't be run: %s", path, strerror(errno));
	setpgid(s->pid, s->pid);
	s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
	return s->pidfd < 0 ? lb_fail(-errno, "%s can't be watched: %s", path, strerror(errno)) : 0;
}

static int verdict(const char *path, const struct running *s, int waited, int status, unsigned int max_ms)
{
	const char *said = s->tail[0] != '\0' ? ": " : "";

	if (waited == -ETIMEDOUT)
		return lb_fail(-ETIMEDOUT, "%s was killed: the scripts did not end within %u s%s%s", path,
			       max_ms / 1000, said, s->tail);
	if (waited < 0)
		return lb_fail(waited, "%s: %s", path, strerror(-waited));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && s->tail[0] == '\0')
		return lb_fail(-ENOEXEC, "%s can't be run; is it executable, and does its interpreter exist?", path);
	if (WIFEXITED(status))
		return lb_fail(-EREMOTEIO, "%s ended with status %d%s%s", path, WEXITSTATUS(status), said, s->tail);
	return lb_fail(-EREMOTEIO, "%s was ended by signal %d%s%s", path, WTERMSIG(status), said, s->tail);
}

static int run_one(const struct phase *p, const char *name, int64_t until_ns, unsigned int max_ms)
{
	struct running s = {.pidfd = -1, .output = -1};
	char path[PATH_MAX];
	struct stat st;
	int status = 0, r;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", p->folder, name) >= sizeof(path))
		return lb_fail(-ENAMETOOLONG, "%s: the name is too long", name);
	if (lstat(path, &st) < 0)
		return lb_fail(-errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return lb_fail(-EPERM, "%s is not run: it is no file", path);
	r = check_owner(&st, path);
	if (r == 0)
		r = script_start(p, path, &s);
	if (r == 0) {
		r = wait_for(&s, until_ns);
		if (r < 0)
			kill(-s.pid, SIGKILL);
		waitpid(s.pid, &status, 0);
		r = verdict(path, &s, r, status, max_ms);
		if (r == 0 && p->phase == LB_SCRIPT_PRE && n_groups < LB_SCRIPTS_MAX)
			groups[n_groups++] = s.pid;
		else
			kill(-s.pid, SIGKILL);
	}
	if (s.pidfd >= 0)
		close(s.pidfd);
	if (s.output >= 0)
		close(s.output);
	return r;
}

int lb_scripts_run(const char *folder, enum lb_script_phase phase, unsigned int max_ms)
{
	const int64_t until_ns = clock_ns() + max_ms * LB_NS_PER_MS;
	_cleanup_free_ struct phase *p = calloc(1, sizeof(*p));
	char first[LB_ERR_TEXT_BYTES_MAX];
	int r, failed = 0;

	if (p == NULL)
		return lb_fail(-ENOMEM, "out of memory for scripts");
	p->folder = folder;
	p->phase = phase;
	r = list_scripts(p);
	for (size_t i = 0; r == 0 && i < p->n; i++) {
		r = run_one(p, p->names[i], until_ns, max_ms);
		if (r < 0 && phase == LB_SCRIPT_POST) {
			/* each of them undoes something: the others run all the same */
			if (failed == 0)
				snprintf(first, sizeof(first), "%s", lb_err_text());
			failed = failed == 0 ? r : failed;
			r = 0;
		}
	}
	return failed < 0 ? lb_fail(failed, "%s", first) : r;
}

void lb_scripts_end(void)
{
	while (n_groups > 0)
		kill(-groups[--n_groups], SIGKILL);
}
